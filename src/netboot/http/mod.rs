//! HTTP: everything that a machine fetches after DHCP and TFTP. [`routes`] and [`agent_routes`] show all of it.
//!
//! Plain HTTP carries what is public and checked otherwise: boot scripts, kernel, initramfs, images. What is secret goes
//! over TLS to the agent, which knows the certificate's fingerprint from its boot script. Fed by the boot table, the
//! artifact manifest and [`Installations`].

mod agent_api;
mod exchange;
mod files;
pub mod metrics;
mod script;

pub use files::ServedFile;
pub use script::ScriptError;

use super::BootTable;
use super::installations::Installations;
use crate::agent::protocol::Task;
use crate::event::EventBus;
use crate::pki::{Identity, PkiError};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use metrics::Metrics;
use script::Scripts;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A client has this long to send its request's head; iPXE takes milliseconds.
const HEAD: Duration = Duration::from_secs(15);
/// Exchanges under way get this long when we end.
const DRAIN: Duration = Duration::from_secs(2);
/// The largest message of an agent: facts of a machine with hundreds of disks.
const LARGEST_MESSAGE: usize = 1 << 20;

/// What the HTTP servers serve, and where.
pub struct HttpConfig {
    /// Our address on the provisioning network.
    pub address: Ipv4Addr,
    /// Port of the plain server.
    pub http_port: u16,
    /// Port of the agent's API.
    pub agent_port: u16,
    /// Certificate of the agent's API.
    pub identity: Identity,
    /// What machines are started for.
    pub task: Task,
    /// Files by their path below `/artifacts/`.
    pub artifacts: BTreeMap<String, ServedFile>,
    /// Files by their name below `/images/`.
    pub images: BTreeMap<String, ServedFile>,
}

/// A server that cannot be started, or broke.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {address} for {what}; does another program use the port? (spec.provisioning.{field})")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// For what.
        what: &'static str,
        /// The field of the spec that moves it.
        field: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate of the agent's API.
    #[error("cannot use the certificate of the agent's API")]
    Certificate(#[source] io::Error),
    /// The same, by its fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] PkiError),
    /// A boot script cannot be made.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// It broke while it ran.
    #[error("the HTTP server on {address} broke")]
    Broke {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What every handler sees.
struct Shared {
    table: BootTable,
    events: EventBus,
    installations: Arc<dyn Installations>,
    artifacts: BTreeMap<String, ServedFile>,
    images: BTreeMap<String, ServedFile>,
    scripts: Scripts,
    metrics: Metrics,
}

/// The plain server's whole route table.
fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        // iPXE: the script of one machine, by MAC address with colons or hyphens.
        .route("/boot/{mac}/boot.ipxe", get(script::of_machine))
        // iPXE without our DHCP answer: leads to the script above.
        .route("/autoexec.ipxe", get(script::chain))
        // UEFI HTTP boot: iPXE itself, and the autoexec.ipxe that it then asks for beside itself.
        .route("/ipxe/{*path}", get(files::ipxe))
        // Kernel, initramfs, agent.
        .route("/artifacts/{*path}", get(files::artifact))
        // Operating system images.
        .route("/images/{name}", get(files::image))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics::show))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), exchange::observe))
        .with_state(shared)
}

/// The agent's API, over TLS.
fn agent_routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/agent/v1/claim", post(agent_api::claim))
        .route("/agent/v1/report", post(agent_api::report))
        .route("/agent/v1/inventory", post(agent_api::inventory))
        .layer(DefaultBodyLimit::max(LARGEST_MESSAGE))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), exchange::observe))
        .with_state(shared)
}

/// Both servers, bound and not yet running.
pub struct HttpServer {
    plain: TcpListener,
    agent: TcpListener,
    tls: RustlsConfig,
    shared: Arc<Shared>,
}

impl HttpServer {
    /// Takes both ports.
    pub async fn bind(
        config: HttpConfig,
        table: BootTable,
        installations: Arc<dyn Installations>,
        events: EventBus,
    ) -> Result<Self, HttpError> {
        crate::tls::install_provider();
        let plain = listen(config.address, config.http_port, "HTTP", "httpPort")?;
        let agent = listen(config.address, config.agent_port, "the agent's API", "agentPort")?;
        let (cert, key) =
            (config.identity.cert.clone().into_bytes(), config.identity.key.expose().clone().into_bytes());
        let tls = RustlsConfig::from_pem(cert, key).await.map_err(HttpError::Certificate)?;
        let port = |listener: &TcpListener, asked: u16| listener.local_addr().map_or(asked, |address| address.port());
        let scripts = Scripts::new(
            format!("http://{}:{}", config.address, port(&plain, config.http_port)),
            format!("https://{}:{}", config.address, port(&agent, config.agent_port)),
            config.identity.fingerprint()?,
            config.task,
        )?;
        let (artifacts, images, metrics) = (config.artifacts, config.images, Metrics::default());
        let shared = Shared { table, events, installations, artifacts, images, scripts, metrics };
        Ok(Self { plain, agent, tls, shared: Arc::new(shared) })
    }

    /// Where the plain server and the agent's API listen.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.plain.local_addr()?, self.agent.local_addr()?))
    }

    /// autoexec.ipxe, which iPXE looks for beside itself, also over TFTP: it leads to the machine's script.
    pub fn autoexec(&self) -> Result<String, HttpError> {
        Ok(self.shared.scripts.chain()?)
    }

    /// Serves until `cancel` is cancelled.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), HttpError> {
        let (plain, agent) = (self.plain.local_addr(), self.agent.local_addr());
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let broke = |address: io::Result<SocketAddr>| {
            move |source| HttpError::Broke { address: address.unwrap_or(unknown), source }
        };
        let (handle, agent_handle) = (Handle::new(), Handle::new());
        let plain_service = routes(self.shared.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let agent_service = agent_routes(self.shared.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let plain_server = async {
            let mut server = axum_server::from_tcp(self.plain)?.handle(handle.clone());
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
            server.serve(plain_service).await
        };
        let agent_server = async {
            let mut server = axum_server::from_tcp_rustls(self.agent, self.tls)?.handle(agent_handle.clone());
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
            server.serve(agent_service).await
        };
        let drain = async {
            cancel.cancelled().await;
            handle.graceful_shutdown(Some(DRAIN));
            agent_handle.graceful_shutdown(Some(DRAIN));
        };
        let count = self.shared.metrics.clone().follow(self.shared.events.subscribe(), cancel.clone());
        let (plain_end, agent_end, (), ()) = tokio::join!(plain_server, agent_server, drain, count);
        plain_end.map_err(broke(plain))?;
        agent_end.map_err(broke(agent))
    }
}

/// Takes a TCP port; `field` of the spec would move it.
pub(crate) fn listen(
    address: Ipv4Addr,
    port: u16,
    what: &'static str,
    field: &'static str,
) -> Result<TcpListener, HttpError> {
    let address = SocketAddr::from((address, port));
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| HttpError::Bind { address, what, field, source })
}

#[cfg(test)]
mod tests;
