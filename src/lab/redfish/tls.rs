//! The BMC's HTTPS server, with a certificate that it signed itself, as real BMCs leave the factory.

use super::{Bmc, router};
use crate::lab::LabError;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio_util::sync::CancellationToken;

/// Serves `bmc` on `address` until `stop`.
pub async fn serve(bmc: Arc<Bmc>, address: SocketAddr, stop: CancellationToken) -> Result<(), LabError> {
    let failed = |source| LabError::Listen { address: address.to_string(), source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let tls = RustlsConfig::from_config(Arc::new(self_signed(&bmc.machine.name, address.ip())?));
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

fn self_signed(name: &str, address: IpAddr) -> Result<rustls::ServerConfig, LabError> {
    let failed = |reason: String| LabError::Key { what: "certificate for a BMC", reason };
    let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
    let mut params = CertificateParams::new(vec![address.to_string()]).map_err(|error| failed(error.to_string()))?;
    params.distinguished_name.push(DnType::CommonName, format!("{name} BMC"));
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
    let certificate = params.self_signed(&key).map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
        .map_err(|error| failed(error.to_string()))
}
