//! The control plane: keeps entities, pushes them to the data planes that connect to it, and keeps a row for each
//! (kong/clustering/control_plane.lua).

// The WebSocket's handshake wants this type of error.
#![allow(clippy::result_large_err)]

use super::schema::Refusal;
use super::store::Store;
use super::tls::{self, Verdict};
use super::{Fault, Faults, Identity, Mode, NO_CONFIG, Running, VERSION, admin, listen};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// A data plane pings every 30 seconds; after one and a half times that, it is gone.
const PING_WAIT: Duration = Duration::from_secs(45);
/// How long the row of a data plane that is gone is kept.
const PURGE_DELAY: i64 = 1_209_600;
/// For a handshake, and for the first frame.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a control plane is told.
#[derive(Clone, Debug)]
pub struct ControlPlaneSettings {
    /// `admin_listen`, without TLS.
    pub admin: SocketAddr,
    /// `cluster_listen`.
    pub cluster: SocketAddr,
    /// `cluster_mtls`.
    pub mode: Mode,
    /// `cluster_cert` and `cluster_cert_key`.
    pub identity: Identity,
    /// `cluster_ca_cert`: mode pki wants it.
    pub ca: Option<String>,
    /// Its own version.
    pub version: String,
    /// `db_update_frequency`: the pause after a push, in which changes are gathered.
    pub push_pause: Duration,
    /// What is wrong.
    pub faults: Faults,
}

impl ControlPlaneSettings {
    /// With what a test does not care about.
    pub fn new(admin: SocketAddr, cluster: SocketAddr, mode: Mode, identity: Identity, ca: Option<String>) -> Self {
        let (version, push_pause) = (VERSION.to_owned(), Duration::from_millis(200));
        Self { admin, cluster, mode, identity, ca, version, push_pause, faults: Faults::default() }
    }
}

/// A control plane that runs until it is dropped.
#[must_use]
pub struct ControlPlane {
    /// Where its Admin API is.
    pub admin_addr: SocketAddr,
    /// Where data planes connect.
    pub cluster_addr: SocketAddr,
    _running: Running,
}

impl ControlPlane {
    /// Starts one with an empty database.
    pub async fn start(settings: ControlPlaneSettings) -> Self {
        let (admin, cluster) = (settings.admin, settings.cluster);
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&settings.identity)));
        let plane = Arc::new(Plane::new(settings));
        let mut running = Running::default();
        let admin_addr = running.serve(admin, admin::router(Arc::clone(&plane))).await;
        let listener = TcpListener::from_std(listen(cluster).await).unwrap();
        let cluster_addr = listener.local_addr().unwrap();
        running.tasks.spawn(Arc::clone(&plane).push_changes());
        running.tasks.spawn(accept(plane, listener, acceptor));
        Self { admin_addr, cluster_addr, _running: running }
    }
}

/// What the Admin API and the connections share.
pub struct Plane {
    pub settings: ControlPlaneSettings,
    pub node_id: String,
    store: Mutex<Store>,
    rows: Mutex<BTreeMap<String, Row>>,
    changed: Notify,
    pushed: watch::Sender<Push>,
}

/// A configuration as it is sent.
#[derive(Clone)]
struct Push {
    /// The `reconfigure` message, compressed.
    message: Vec<u8>,
    /// Plugins in it.
    plugins: Vec<String>,
}

/// What is known of a data plane.
#[derive(Clone)]
struct Row {
    hostname: String,
    ip: IpAddr,
    version: String,
    sync_status: &'static str,
    config_hash: String,
    last_seen: i64,
    labels: Value,
    expiry: Option<i64>,
}

/// A data plane that connects.
struct Caller {
    id: String,
    row: Row,
    plugins: BTreeMap<String, String>,
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

impl Plane {
    fn new(settings: ControlPlaneSettings) -> Self {
        let store = Store::default();
        let pushed = watch::Sender::new(Push::of(&store));
        let (rows, changed) = (Mutex::default(), Notify::new());
        let node_id = uuid::Uuid::new_v4().to_string();
        Self { settings, node_id, store: Mutex::new(store), rows, changed, pushed }
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// A change of entities, which data planes hear of soon.
    pub fn change<T>(&self, change: impl FnOnce(&mut Store) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let changed = change(&mut self.store());
        if changed.is_ok() {
            self.changed.notify_one();
        }
        changed
    }

    /// Pushes at once, and gathers what changes while it pauses: so does Kong.
    async fn push_changes(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let push = Push::of(&self.store());
            self.pushed.send_replace(push);
            tokio::time::sleep(self.settings.push_pause).await;
        }
    }

    /// The rows of `/clustering/data-planes`, in the order of their ids.
    pub fn rows(&self) -> Vec<Value> {
        let faults = &self.settings.faults;
        let mut rows = self.rows.lock().unwrap().clone();
        for hostname in faults.with(Fault::GhostRow) {
            rows.insert("00000000-0000-4000-8000-000000000000".to_owned(), Row::ghost(&hostname));
        }
        let shown = rows.into_iter().map(|(id, mut row)| {
            if faults.has(Fault::StaleRow, &row.hostname) {
                row.last_seen = now() - 3600;
            }
            if faults.has(Fault::ExpiredCertificate, &row.hostname) {
                row.expiry = Some(now() - 60);
            }
            json!({
                "id": id,
                "hostname": row.hostname,
                "ip": row.ip.to_string(),
                "version": row.version,
                "sync_status": row.sync_status,
                "config_hash": row.config_hash,
                "last_seen": row.last_seen,
                "ttl": PURGE_DELAY - (now() - row.last_seen),
                "labels": row.labels,
                "cert_details": { "expiry_timestamp": row.expiry },
            })
        });
        shown.collect()
    }

    fn seen(&self, caller: &Caller) {
        self.rows.lock().unwrap().insert(caller.id.clone(), caller.row.clone());
    }
}

impl Row {
    /// What is left of a pod that was deleted: rows stay for two weeks, and their status stays as it was.
    fn ghost(hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            ip: [127, 0, 9, 9].into(),
            version: VERSION.to_owned(),
            sync_status: "normal",
            config_hash: "9".repeat(32),
            last_seen: now() - 600,
            labels: Value::Null,
            expiry: Some(now() + 86_400),
        }
    }
}

impl Push {
    fn of(store: &Store) -> Self {
        let config = store.export();
        let hash = config_hash(&config);
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let message = json!({
            "type": "reconfigure",
            "timestamp": timestamp,
            "config_table": config,
            "config_hash": hash,
            "hashes": { "config": hash },
        });
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(message.to_string().as_bytes()).unwrap();
        Self { message: gzip.finish().unwrap(), plugins: store.plugins() }
    }
}

/// 32 hexadecimal digits, the same for the same entities: Kong's is MD5 over a form of its own.
fn config_hash(config: &Value) -> String {
    let mut hash = hex::encode(Sha256::digest(canonical(config).to_string()));
    hash.truncate(32);
    hash
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let sorted: BTreeMap<_, _> = object.iter().map(|(name, value)| (name, canonical(value))).collect();
            json!(sorted)
        }
        Value::Array(values) => values.iter().map(canonical).collect(),
        value => value.clone(),
    }
}

async fn accept(plane: Arc<Plane>, listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, peer)) = listener.accept().await {
            let (plane, acceptor) = (Arc::clone(&plane), acceptor.clone());
            connections.spawn(async move {
                // A data plane says itself what became of its connection.
                let _ = connection(&plane, stream, peer, &acceptor).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

type Gone = Box<dyn std::error::Error + Send + Sync>;
type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn connection(plane: &Plane, stream: TcpStream, peer: SocketAddr, acceptor: &TlsAcceptor) -> Result<(), Gone> {
    let mut stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let settings = &plane.settings;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let verdict = tls::judge(settings.mode, &settings.identity.cert, settings.ca.as_deref(), &chain);
    if verdict == Verdict::NotTheSharedOne {
        // Kong has read the request by now.
        stream.read_u8().await?;
        return Ok(());
    }
    let mut asked = BTreeMap::new();
    let admit = |request: &Request, response: Response| {
        asked = admitted(verdict, request)?;
        Ok(response)
    };
    let mut socket = tokio::time::timeout(HANDSHAKE, accept_hdr_async(stream, admit)).await??;
    let caller = introduced(&mut socket, &asked, peer.ip()).await;
    let Some(mut caller) = caller else { return Ok(socket.close(None).await?) };
    caller.row.expiry = chain.first().and_then(tls::expiry);
    if let Some(status) = incompatible(&settings.version, &caller.row.version) {
        caller.row.sync_status = status;
        plane.seen(&caller);
        return Ok(socket.close(None).await?);
    }
    serve(plane, socket, caller).await
}

/// The query of a request for the WebSocket, or nginx's or Kong's refusal.
fn admitted(verdict: Verdict, request: &Request) -> Result<BTreeMap<String, String>, ErrorResponse> {
    let refuse = |status: u16, title: &str| {
        let page = format!("<html><head><title>{status} {title}</title></head></html>\r\n");
        http::Response::builder().status(status).header("content-type", "text/html").body(Some(page)).unwrap()
    };
    match verdict {
        Verdict::NoCertificate => return Err(refuse(400, "No required SSL certificate was sent")),
        Verdict::BadCertificate => return Err(refuse(400, "The SSL certificate error")),
        Verdict::Accepted | Verdict::NotTheSharedOne => {}
    }
    if request.uri().path() != "/v1/outlet" {
        return Err(refuse(404, "Not Found"));
    }
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if !query.contains_key("node_id") || !query.contains_key("node_version") {
        return Err(refuse(400, "Bad Request"));
    }
    Ok(query)
}

/// The data plane's first frame: who it is, and which plugins it has.
async fn introduced(socket: &mut Socket, asked: &BTreeMap<String, String>, ip: IpAddr) -> Option<Caller> {
    let first = tokio::time::timeout(HANDSHAKE, socket.next()).await.ok()??.ok()?;
    let Message::Binary(bytes) = first else { return None };
    let info: Value = serde_json::from_slice(&bytes).ok()?;
    if info["type"] != "basic_info" {
        return None;
    }
    let plugin = |plugin: &Value| Some((plugin["name"].as_str()?.to_owned(), plugin["version"].as_str()?.to_owned()));
    let plugins = info["plugins"].as_array()?.iter().filter_map(plugin).collect();
    let row = Row {
        hostname: asked.get("node_hostname")?.clone(),
        ip,
        version: asked["node_version"].clone(),
        sync_status: "unknown",
        config_hash: NO_CONFIG.to_owned(),
        last_seen: now(),
        labels: info["labels"].clone(),
        expiry: None,
    };
    Some(Caller { id: asked["node_id"].clone(), row, plugins })
}

/// A data plane has the control plane's major version, and no later minor one.
fn incompatible(control_plane: &str, data_plane: &str) -> Option<&'static str> {
    let parts = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    let is_compatible =
        parts(control_plane).zip(parts(data_plane)).is_some_and(|(own, theirs)| own.0 == theirs.0 && theirs.1 <= own.1);
    (!is_compatible).then_some("kong_version_incompatible")
}

/// Pushes, and answers pings, until the data plane is gone. Its row stays.
async fn serve(plane: &Plane, mut socket: Socket, mut caller: Caller) -> Result<(), Gone> {
    let mut pushed = plane.pushed.subscribe();
    pushed.mark_changed();
    let mut deadline = tokio::time::Instant::now() + PING_WAIT;
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Message::Ping(hash))) => {
                    caller.row.config_hash = String::from_utf8_lossy(&hash).into_owned();
                    caller.row.last_seen = now();
                    plane.seen(&caller);
                    deadline = tokio::time::Instant::now() + PING_WAIT;
                    // The answer is in the queue already.
                    socket.flush().await?;
                }
                // Data planes send nothing but pings.
                _ => break,
            },
            changed = pushed.changed() => {
                changed?;
                let push = pushed.borrow_and_update().clone();
                caller.row.sync_status = compatible_plugins(&push, &caller.plugins);
                let is_silent = plane.settings.faults.has(Fault::NoPushes, &caller.row.hostname);
                match caller.row.sync_status {
                    "normal" if is_silent => {}
                    "normal" => socket.send(Message::binary(push.message)).await?,
                    _ => plane.seen(&caller),
                }
            }
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    Ok(socket.close(None).await?)
}

/// What is configured has to be there on the data plane, in the same major version.
fn compatible_plugins(push: &Push, plugins: &BTreeMap<String, String>) -> &'static str {
    let known: BTreeSet<&str> = push.plugins.iter().map(String::as_str).collect();
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    for name in known {
        match plugins.get(name) {
            None => return "plugin_set_incompatible",
            Some(version) if major(version) != major(VERSION) => return "plugin_version_incompatible",
            Some(_) => {}
        }
    }
    "normal"
}
