//! A data plane: connects to the control plane, applies what is pushed, and keeps it when the connection is gone
//! (kong/clustering/data_plane.lua). Serves a proxy and a status port.

use super::proxy::{self, Proxy};
use super::{Fault, Faults, Identity, Mode, NO_CONFIG, Running, VERSION, plugins, tls};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use flate2::read::GzDecoder;
use futures::{SinkExt, StreamExt};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// For a connection, a handshake and an upgrade together.
const CONNECT: Duration = Duration::from_secs(10);

/// What a data plane is told.
#[derive(Clone, Debug)]
pub struct DataPlaneSettings {
    /// `proxy_listen`, without TLS; connections come from this address, too.
    pub proxy: SocketAddr,
    /// `status_listen`.
    pub status: SocketAddr,
    /// `cluster_control_plane`.
    pub control_plane: SocketAddr,
    /// `cluster_mtls`.
    pub mode: Mode,
    /// `cluster_server_name`; mode shared is always `kong_clustering`.
    pub server_name: String,
    /// `cluster_cert` and `cluster_cert_key`.
    pub identity: Identity,
    /// `lua_ssl_trusted_certificate`, with what Kong itself appends to it.
    pub trust: String,
    /// Who signs the certificate of `Fault::ExpiredCertificate`; nobody: itself.
    pub authority: Option<Identity>,
    /// The pod's name.
    pub hostname: String,
    /// Its own version.
    pub version: String,
    /// Plugins that Kong has and this one lacks.
    pub lacks_plugins: Vec<String>,
    /// `cluster_dp_labels`.
    pub labels: BTreeMap<String, String>,
    /// What stands for DNS.
    pub hosts: BTreeMap<String, IpAddr>,
    /// Kong: 30 seconds.
    pub ping_interval: Duration,
    /// Until the next try of a connection. Kong: 5 to 10 seconds.
    pub retry: Duration,
    /// What is wrong.
    pub faults: Faults,
}

impl DataPlaneSettings {
    /// In mode pki, with what a test does not care about.
    pub fn new(
        proxy: SocketAddr,
        status: SocketAddr,
        control_plane: SocketAddr,
        hostname: &str,
        identity: Identity,
        trust: String,
        server_name: &str,
    ) -> Self {
        Self {
            proxy,
            status,
            control_plane,
            mode: Mode::Pki,
            server_name: server_name.to_owned(),
            identity,
            trust,
            authority: None,
            hostname: hostname.to_owned(),
            version: VERSION.to_owned(),
            lacks_plugins: Vec::new(),
            labels: BTreeMap::new(),
            hosts: BTreeMap::new(),
            ping_interval: Duration::from_secs(1),
            retry: Duration::from_millis(200),
            faults: Faults::default(),
        }
    }
}

/// A data plane that runs until it is dropped.
#[must_use]
pub struct DataPlane {
    /// Where requests come in.
    pub proxy_addr: SocketAddr,
    /// Where `/status` is.
    pub status_addr: SocketAddr,
    node: Arc<Node>,
    _running: Running,
}

impl DataPlane {
    /// Starts one without a configuration.
    pub async fn start(settings: DataPlaneSettings) -> Self {
        let (proxy_addr, status_addr) = (settings.proxy, settings.status);
        let proxy = Proxy::new(&settings);
        let id = uuid::Uuid::new_v4().to_string();
        let node =
            Arc::new(Node { settings, id, hash: Mutex::new(NO_CONFIG.to_owned()), proxy, log: Mutex::default() });
        let mut running = Running::default();
        let proxy_addr = running.serve(proxy_addr, proxy::router(Arc::clone(&node.proxy))).await;
        let status = Router::new().route("/status", get(status)).route("/status/ready", get(ready));
        let status_addr = running.serve(status_addr, status.with_state(Arc::clone(&node))).await;
        running.tasks.spawn(Arc::clone(&node).communicate());
        Self { proxy_addr, status_addr, node, _running: running }
    }

    /// Why its connections failed or ended, the last one last: what Kong writes to its log.
    pub fn log(&self) -> Vec<String> {
        self.node.log.lock().unwrap().clone()
    }

    /// The id under which the control plane knows it.
    pub fn id(&self) -> &str {
        &self.node.id
    }
}

struct Node {
    settings: DataPlaneSettings,
    id: String,
    /// Of the configuration that it has applied.
    hash: Mutex<String>,
    proxy: Arc<Proxy>,
    log: Mutex<Vec<String>>,
}

async fn status(State(node): State<Arc<Node>>) -> Json<Value> {
    let hash = match node.has(Fault::WrongHash) {
        true => "f".repeat(32),
        false => node.hash(),
    };
    Json(json!({
        "configuration_hash": hash,
        "database": { "reachable": true },
        "memory": { "lua_shared_dicts": {}, "workers_lua_vms": [] },
        "server": { "connections_active": 1, "total_requests": 1 },
    }))
}

async fn ready(State(node): State<Arc<Node>>) -> (StatusCode, Json<Value>) {
    if node.hash() == NO_CONFIG {
        let message = "no configuration available (empty configuration present)";
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "message": message })));
    }
    (StatusCode::OK, Json(json!({ "message": "ready" })))
}

/// What a data plane shows of itself to a control plane; another one means another connection.
#[derive(PartialEq)]
enum Guise {
    Own,
    Newer,
    Expired,
    Foreign,
}

type Gone = Box<dyn std::error::Error + Send + Sync>;
type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Node {
    fn has(&self, fault: Fault) -> bool {
        self.settings.faults.has(fault, &self.settings.hostname)
    }

    fn hash(&self) -> String {
        self.hash.lock().unwrap().clone()
    }

    fn guise(&self) -> Guise {
        match () {
            () if self.has(Fault::IncompatibleVersion) => Guise::Newer,
            () if self.has(Fault::ExpiredCertificate) => Guise::Expired,
            () if self.has(Fault::ForeignCertificate) => Guise::Foreign,
            () => Guise::Own,
        }
    }

    async fn communicate(self: Arc<Self>) {
        let mut faults = self.settings.faults.changes();
        loop {
            let guise = self.guise();
            let ended = match tokio::time::timeout(CONNECT, self.connect(&guise)).await {
                Ok(Ok(socket)) => self.serve(socket, &guise).await.map_err(|error| format!("broken: {error}")),
                Ok(Err(error)) => Err(format!("broken: {error}")),
                Err(_) => Err("broken: timeout".to_owned()),
            };
            if let Err(error) = ended {
                let uri = format!("wss://{}/v1/outlet", self.settings.control_plane);
                self.log.lock().unwrap().push(format!("connection to control plane {uri} {error}"));
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.retry) => {}
                _ = faults.changed() => {}
            }
        }
    }

    async fn connect(&self, guise: &Guise) -> Result<Socket, Gone> {
        let settings = &self.settings;
        let identity = match guise {
            Guise::Own | Guise::Newer => settings.identity.clone(),
            Guise::Expired => certificate(settings.authority.as_ref(), -1),
            Guise::Foreign => certificate(None, 1),
        };
        let version = if *guise == Guise::Newer { "3.99.0" } else { &settings.version };
        let socket = TcpSocket::new_v4()?;
        socket.bind((settings.proxy.ip(), 0).into())?;
        let stream = socket.connect(settings.control_plane).await?;
        let connector = TlsConnector::from(Arc::new(tls::client_config(&identity, &settings.trust)));
        let name = match settings.mode {
            Mode::Shared => SHARED_NAME,
            Mode::Pki => &settings.server_name,
        };
        let stream = connector.connect(ServerName::try_from(name.to_owned())?, stream).await?;
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("node_id", &self.id)
            .append_pair("node_hostname", &settings.hostname)
            .append_pair("node_version", version)
            .finish();
        let uri = format!("wss://{}/v1/outlet?{query}", settings.control_plane);
        let (mut socket, _) = client_async(uri.into_client_request()?, stream).await?;
        let has = |name: &&&str| !settings.lacks_plugins.iter().any(|lacks| lacks == **name);
        let plugins: Vec<_> = plugins::NAMES.iter().filter(has).collect();
        let plugins: Vec<_> = plugins.iter().map(|name| json!({ "name": name, "version": VERSION })).collect();
        let info = json!({
            "type": "basic_info",
            "plugins": plugins,
            "process_conf": { "role": "data_plane" },
            "filters": [],
            "labels": settings.labels,
        });
        socket.send(Message::binary(info.to_string())).await?;
        Ok(socket)
    }

    /// Pings, and applies what comes, until the control plane is gone or this one looks otherwise.
    async fn serve(&self, mut socket: Socket, guise: &Guise) -> Result<(), Gone> {
        let mut faults = self.settings.faults.changes();
        let mut ping = interval(self.settings.ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Binary(bytes))) => {
                        self.apply(&bytes)?;
                        // Kong reports a configuration as soon as it is applied.
                        ping.reset_immediately();
                    }
                    Some(Ok(Message::Pong(_))) => {}
                    Some(Ok(_)) | None => return Err("closed by the control plane".into()),
                    Some(Err(error)) => return Err(error.into()),
                },
                _ = ping.tick() => if !self.has(Fault::StaleRow) {
                    socket.send(Message::Ping(self.hash().into())).await?;
                },
                _ = faults.changed() => if self.guise() != *guise {
                    return Ok(socket.close(None).await?);
                },
            }
        }
    }

    fn apply(&self, bytes: &[u8]) -> Result<(), Gone> {
        let mut json = String::new();
        GzDecoder::new(bytes).read_to_string(&mut json)?;
        let message: Value = serde_json::from_str(&json)?;
        if message["type"] != "reconfigure" || self.has(Fault::DeadCanary) {
            return Ok(());
        }
        let hash = message["config_hash"].as_str().ok_or("no config_hash")?;
        if self.hash() != hash {
            self.proxy.apply(&message["config_table"])?;
            *self.hash.lock().unwrap() = hash.to_owned();
        }
        Ok(())
    }
}

const SHARED_NAME: &str = "kong_clustering";

/// A certificate of this authority, or of itself, that ends in so many days.
fn certificate(authority: Option<&Identity>, days: i64) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, SHARED_NAME);
    params.subject_alt_names = vec![SanType::DnsName(SHARED_NAME.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
    let key = KeyPair::generate().unwrap();
    let cert = match authority {
        Some(authority) => {
            let issuer = KeyPair::from_pem(&authority.key).unwrap();
            let issuer = Issuer::from_ca_cert_pem(&authority.cert, issuer).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        }
        None => params.self_signed(&key).unwrap(),
    };
    Identity { cert: cert.pem(), key: key.serialize_pem() }
}
