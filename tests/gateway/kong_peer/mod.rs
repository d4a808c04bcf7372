//! Kong in hybrid mode, played: a control plane with an Admin API, and data planes that connect to it, apply what it
//! pushes and proxy requests. They speak Kong 3.9's own protocol (a WebSocket over mutual TLS) to each other, so that a
//! client of the one and of the other sees what it would see of Kong; `Faults` makes one of them wrong at a time.
//!
//! Certificates are judged with webpki, which is stricter than OpenSSL: it takes no certificates of version 1, and none
//! that are authorities themselves unless the data plane trusts just them. `mtls_oracle` is the judge of those.

mod admin;
mod control_plane;
mod data_plane;
mod entities;
mod plugins;
mod proxy;
mod run;
mod schema;
mod store;
mod tests;
mod tls;
mod values;

pub use crate::mtls_oracle::{Identity, Mode};
pub use control_plane::{ControlPlane, ControlPlaneSettings};
pub use data_plane::{DataPlane, DataPlaneSettings};

use axum_server::Handle;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which Kong is played, unless a test wants another.
pub const VERSION: &str = "3.9.3";
/// The configuration hash of a data plane that has none.
pub const NO_CONFIG: &str = "00000000000000000000000000000000";
/// For an address to become free.
const FREE: Duration = Duration::from_secs(10);

/// What can be wrong with a data plane, or with what the control plane does and says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It pings no more, and was last seen an hour ago.
    StaleRow,
    /// Its status port shows another configuration hash than the control plane has for it.
    WrongHash,
    /// It is newer than the control plane, which therefore refuses to sync.
    IncompatibleVersion,
    /// Its certificate is over: it gets no connection any more, and its row says since when.
    ExpiredCertificate,
    /// Its certificate is from another authority, or is another one than the shared one.
    ForeignCertificate,
    /// It is sent configurations, and does not apply them.
    DeadCanary,
    /// The control plane sends it nothing.
    NoPushes,
    /// A row of a data plane that is no more.
    GhostRow,
}

/// The faults that there are now, by the host name of the data plane: one for all planes of a test.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<watch::Sender<BTreeSet<(Fault, String)>>>);

impl Faults {
    /// Makes something wrong with a data plane, from now on.
    pub fn set(&self, fault: Fault, hostname: &str) {
        self.0.send_if_modified(|faults| faults.insert((fault, hostname.to_owned())));
    }

    /// All is well again.
    pub fn clear(&self) {
        self.0.send_modify(BTreeSet::clear);
    }

    fn has(&self, fault: Fault, hostname: &str) -> bool {
        self.0.borrow().contains(&(fault, hostname.to_owned()))
    }

    /// The data planes that have this fault.
    fn with(&self, fault: Fault) -> Vec<String> {
        self.0.borrow().iter().filter(|(one, _)| *one == fault).map(|(_, hostname)| hostname.clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<BTreeSet<(Fault, String)>> {
        self.0.subscribe()
    }
}

/// Tasks and servers that end when this is dropped, with all of their connections.
#[derive(Default)]
#[must_use]
struct Running {
    tasks: JoinSet<()>,
    servers: Vec<Handle<SocketAddr>>,
}

/// Listens, as soon as the address is free: what was dropped just now closes its sockets only when its tasks are run
/// once more.
async fn listen(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + FREE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).unwrap();
                return listener;
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

impl Running {
    /// Serves plain HTTP; gives the address, where the port was free to choose.
    async fn serve(&mut self, address: SocketAddr, service: axum::Router) -> SocketAddr {
        let listener = listen(address).await;
        let bound = listener.local_addr().unwrap();
        let handle = Handle::new();
        let server = axum_server::from_tcp(listener).unwrap().handle(handle.clone());
        let service = service.into_make_service_with_connect_info::<SocketAddr>();
        self.tasks.spawn(async move { server.serve(service).await.unwrap() });
        self.servers.push(handle);
        bound
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for server in &self.servers {
            server.shutdown();
        }
    }
}
