//! The agent's side of the API against a TLS server that is away, busy, unwilling, or somebody else.

use super::*;
use crate::agent::protocol::{Finish, ImageOrder, Seed, Step};
use crate::agent::report::Reporter;
use crate::hardware::DiskSelector;
use crate::pki::{Authority, Identity, LeafRequest, Usage};
use crate::spec::ImageFormat;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// An installer that gives these statuses first, and is content afterwards.
#[derive(Default)]
struct Installer {
    statuses: Mutex<VecDeque<u16>>,
    reports: Mutex<Vec<Report>>,
}

impl Installer {
    fn refusal(&self) -> Option<Response> {
        let status = self.statuses.lock().unwrap().pop_front()?;
        Some((StatusCode::from_u16(status).unwrap(), "says the installer").into_response())
    }
}

async fn claim(State(installer): State<Arc<Installer>>, Json(claim): Json<Claim>) -> Response {
    if let Some(refusal) = installer.refusal() {
        return refusal;
    }
    assert_eq!(claim.token.expose(), "token");
    Json(WorkOrder {
        machine: String::from("node-1"),
        session: Secret::new(String::from("key")),
        image: ImageOrder { url: String::new(), sha256: String::new(), format: ImageFormat::Raw },
        disk: DiskSelector::Path(String::from("/dev/sda")),
        seed: Seed { meta_data: String::new(), user_data: Secret::new(String::new()), network_config: String::new() },
        finish: Finish::Reboot,
    })
    .into_response()
}

async fn report(State(installer): State<Arc<Installer>>, headers: HeaderMap, Json(report): Json<Report>) -> Response {
    if let Some(refusal) = installer.refusal() {
        return refusal;
    }
    assert_eq!(headers["authorization"], "Bearer key");
    installer.reports.lock().unwrap().push(report);
    StatusCode::NO_CONTENT.into_response()
}

fn identity() -> Identity {
    let request = LeafRequest {
        common_name: String::from("installer"),
        organizations: vec![],
        dns_names: vec![String::from("another.name")],
        addresses: vec![],
        usage: Usage::Server,
        lifetime: Duration::from_secs(60),
    };
    Authority::new("test").unwrap().issue(&request).unwrap()
}

/// Serves on `listener` until the set is dropped.
async fn serve(listener: TcpListener, installer: Arc<Installer>, identity: &Identity) -> JoinSet<()> {
    crate::tls::install_provider();
    let tls = RustlsConfig::from_pem(identity.cert.clone().into(), identity.key.expose().clone().into()).await.unwrap();
    let router = Router::new().route("/agent/v1/claim", post(claim)).route("/agent/v1/report", post(report));
    listener.set_nonblocking(true).unwrap();
    let service = router.with_state(installer).into_make_service();
    let mut services = JoinSet::new();
    services.spawn(async move { axum_server::from_tcp_rustls(listener, tls).unwrap().serve(service).await.unwrap() });
    services
}

fn arguments(port: u16, fingerprint: &str) -> Arguments {
    let line = format!(
        "metalgate.url=https://127.0.0.1:{port} metalgate.cert={fingerprint} metalgate.token=token \
         metalgate.mac=52:54:00:aa:00:01 metalgate.ip=10.0.0.5/24"
    );
    Arguments::parse(&line).unwrap()
}

fn the_claim() -> Claim {
    let facts = crate::agent::facts::gather(std::path::Path::new("/nonexistent"));
    Claim { token: Secret::new(String::from("token")), mac: "52:54:00:aa:00:01".parse().unwrap(), facts }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A server that is asked by its right name, and what it does.
async fn running(statuses: &[u16]) -> (Server, Arc<Installer>, JoinSet<()>) {
    let (identity, (listener, port)) = (identity(), listener());
    let installer =
        Arc::new(Installer { statuses: Mutex::new(statuses.iter().copied().collect()), ..Installer::default() });
    let services = serve(listener, installer.clone(), &identity).await;
    (Server::new(&arguments(port, &identity.fingerprint().unwrap())).unwrap(), installer, services)
}

#[tokio::test]
async fn the_order_is_had_from_a_server_that_is_away_or_busy_at_first() {
    let (server, _, _services) = running(&[503, 500]).await;
    assert_eq!(server.claim(&the_claim()).await.unwrap().machine, "node-1");

    let (identity, (listener, port)) = (identity(), listener());
    drop(listener);
    let server = Server::new(&arguments(port, &identity.fingerprint().unwrap())).unwrap();
    let start = async {
        sleep(Duration::from_millis(500)).await;
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        serve(listener, Arc::default(), &identity).await
    };
    let claim = the_claim();
    let (order, _services) = tokio::join!(server.claim(&claim), start);
    assert_eq!(order.unwrap().machine, "node-1");
}

#[tokio::test]
async fn a_refusal_is_final_and_carries_what_the_server_says() {
    for status in [401, 404] {
        let (server, _, _services) = running(&[status]).await;
        let error = server.claim(&the_claim()).await.unwrap_err();
        assert!(error.refused());
        let text = error.to_string();
        assert!(text.contains(&status.to_string()) && text.ends_with(": says the installer"), "{text}");
    }
}

#[tokio::test]
async fn another_certificate_gets_no_token() {
    let (identity, (listener, port)) = (identity(), listener());
    let installer = Arc::new(Installer::default());
    let _services = serve(listener, installer, &identity).await;
    let server = Server::new(&arguments(port, &"ab".repeat(32))).unwrap();
    let error = crate::error::chain(&server.try_claim(&the_claim()).await.unwrap_err());
    assert!(error.contains("not the certificate that the boot script names"), "{error}");
}

#[tokio::test]
async fn the_right_certificate_without_its_key_gets_no_token() {
    // A server that shows the certificate, and signs with a key of its own.
    crate::tls::install_provider();
    let (real, other, (listener, port)) = (identity(), identity(), listener());
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_slice(real.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(other.key.expose().as_bytes()).unwrap();
    let signing = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate], signing);
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
    listener.set_nonblocking(true).unwrap();
    let tls = RustlsConfig::from_config(Arc::new(config));
    let router = Router::new().route("/agent/v1/claim", post(claim)).with_state(Arc::<Installer>::default());
    let mut services = JoinSet::new();
    let service = router.into_make_service();
    services.spawn(async move { axum_server::from_tcp_rustls(listener, tls).unwrap().serve(service).await.unwrap() });
    let server = Server::new(&arguments(port, &real.fingerprint().unwrap())).unwrap();
    let error = crate::error::chain(&server.try_claim(&the_claim()).await.unwrap_err());
    assert!(error.contains("BadSignature"), "{error}");
}

const FLUSH: Duration = Duration::from_secs(20);

fn progress(done: u64) -> Report {
    Report::Progress { step: Step::Write, done, total: None, bytes_per_second: 1 }
}

#[tokio::test]
async fn reports_arrive_in_order_though_the_installer_was_restarted_and_progress_is_thinned_out() {
    let (server, installer, _services) = running(&[500]).await;
    let reporter = Reporter::default();
    reporter.started(Step::Write, "image");
    (0..1000).for_each(|done| reporter.send(progress(done)));
    reporter.started(Step::Verify, "disk");
    reporter.send(Report::Leaving { how: Finish::Reboot });
    let mut tasks = JoinSet::new();
    tasks.spawn(reporter.clone().run(server, Secret::new(String::from("key"))));
    assert!(reporter.flush(FLUSH).await);
    let expected = [
        Report::Started { step: Step::Write, detail: String::from("image") },
        progress(999),
        Report::Started { step: Step::Verify, detail: String::from("disk") },
        Report::Leaving { how: Finish::Reboot },
    ];
    assert_eq!(*installer.reports.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_session_that_is_refused_ends_the_reports_and_not_the_installation() {
    let (server, installer, _services) = running(&[401]).await;
    let reporter = Reporter::default();
    reporter.started(Step::Write, "image");
    reporter.started(Step::Verify, "disk");
    let mut tasks = JoinSet::new();
    tasks.spawn(reporter.clone().run(server, Secret::new(String::from("key"))));
    assert!(reporter.flush(FLUSH).await);
    reporter.send(Report::Leaving { how: Finish::Reboot });
    assert!(reporter.flush(FLUSH).await);
    assert!(installer.reports.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_installer_that_stays_away_does_not_hold_the_machine_for_ever() {
    let (_, port) = listener();
    let server = Server::new(&arguments(port, &"ab".repeat(32))).unwrap();
    let reporter = Reporter::default();
    reporter.started(Step::Write, "image");
    let mut tasks = JoinSet::new();
    tasks.spawn(reporter.clone().run(server, Secret::new(String::from("key"))));
    assert!(!reporter.flush(Duration::from_millis(300)).await);
}
