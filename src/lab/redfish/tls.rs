//! The BMC's HTTPS server, with a certificate that nobody has a reason to trust, as real BMCs leave the factory.

use super::{Bmc, router};
use crate::lab::LabError;
use crate::pki::{Authority, Identity, LeafRequest, PkiError, Usage};
use crate::tls;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longer than any lab.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves `bmc` on `address` until `stop`.
pub async fn serve(bmc: Arc<Bmc>, address: SocketAddr, stop: CancellationToken) -> Result<(), LabError> {
    let failed = |source| LabError::Listen { address: address.to_string(), source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let identity = factory_certificate(&bmc.machine.name, address.ip())?;
    tls::install_provider();
    let config = RustlsConfig::from_pem(identity.cert.into_bytes(), identity.key.expose().clone().into_bytes());
    let tls = config.await.map_err(failed)?;
    let handle = Handle::new();
    let server = axum_server::from_tcp_rustls(listener, tls).map_err(failed)?.handle(handle.clone());
    tokio::select! {
        result = server.serve(router(bmc).into_make_service()) => result.map_err(failed),
        () = stop.cancelled() => {
            handle.shutdown();
            Ok(())
        }
    }
}

/// A certificate of the BMC's own, of an authority that nobody knows.
fn factory_certificate(name: &str, address: IpAddr) -> Result<Identity, PkiError> {
    Authority::new("BMC factory")?.issue(&LeafRequest {
        common_name: format!("{name} BMC"),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: vec![address],
        usage: Usage::Server,
        lifetime: LIFETIME,
    })
}
