//! A tiny installer: the agent's API over TLS, and one image over plain HTTP with Range requests.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_server::tls_rustls::RustlsConfig;
use metalgate::agent::protocol::{Claim, Finish, ImageOrder, Report, Seed, WorkOrder};
use metalgate::pki::{Authority, LeafRequest, Usage};
use metalgate::secret::Secret;
use metalgate::spec::ImageFormat;
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

pub const TOKEN: &str = "token-of-this-boot";
const SESSION: &str = "key-of-this-session";
pub const USER_DATA: &str = "#cloud-config\nhostname: node-1\n";

/// What the machine is to be told, and what it told.
pub struct Installer {
    pub image: Vec<u8>,
    pub format: ImageFormat,
    /// Given instead of the image's own sum.
    pub sha256: Option<String>,
    pub disk: &'static str,
    pub claim: Mutex<Option<Claim>>,
    pub reports: Mutex<Vec<Report>>,
    http_port: u16,
}

/// A running installer; it ends when this is dropped.
pub struct Running {
    pub installer: Arc<Installer>,
    /// The agent's words on the kernel command line, as seen from behind QEMU's user network.
    pub command_line: String,
    _services: JoinSet<()>,
}

impl Installer {
    pub async fn start(image: Vec<u8>, format: ImageFormat, sha256: Option<String>, disk: &'static str) -> Running {
        metalgate::tls::install_provider();
        let (https, http) = (listener(), listener());
        let http_port = http.local_addr().unwrap().port();
        let installer = Arc::new(Self {
            image,
            format,
            sha256,
            disk,
            claim: Mutex::default(),
            reports: Mutex::default(),
            http_port,
        });
        let identity = Authority::new("test").unwrap().issue(&LeafRequest {
            common_name: String::from("installer"),
            organizations: vec![],
            dns_names: vec![],
            addresses: vec![Ipv4Addr::new(192, 0, 2, 1).into()],
            usage: Usage::Server,
            lifetime: Duration::from_secs(3600),
        });
        let identity = identity.unwrap();
        let tls = RustlsConfig::from_pem(identity.cert.clone().into(), identity.key.expose().clone().into());
        let tls = tls.await.unwrap();
        let command_line = format!(
            "metalgate.url=https://10.0.2.2:{} metalgate.cert={} metalgate.token={TOKEN} metalgate.mac={} \
             metalgate.ip=10.0.2.15/24 metalgate.gateway=10.0.2.2",
            https.local_addr().unwrap().port(),
            identity.fingerprint().unwrap(),
            super::machine::MAC,
        );
        let api = Router::new()
            .route("/agent/v1/claim", post(claim))
            .route("/agent/v1/report", post(report))
            .with_state(installer.clone());
        let files = Router::new().route("/image", get(image_file)).with_state(installer.clone());
        let mut services = JoinSet::new();
        services.spawn(async move {
            axum_server::from_tcp_rustls(https, tls).unwrap().serve(api.into_make_service()).await.unwrap();
        });
        services.spawn(async move {
            axum_server::from_tcp(http).unwrap().serve(files.into_make_service()).await.unwrap();
        });
        Running { installer, command_line, _services: services }
    }

    /// The reports so far.
    pub fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap().clone()
    }
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

async fn claim(State(installer): State<Arc<Installer>>, Json(claim): Json<Claim>) -> Response {
    let mut claimed = installer.claim.lock().unwrap();
    if claim.token.expose() != TOKEN || claimed.is_some() {
        return (StatusCode::UNAUTHORIZED, "the token is not valid").into_response();
    }
    *claimed = Some(claim);
    let sha256 = installer.sha256.clone().unwrap_or_else(|| hex::encode(Sha256::digest(&installer.image)));
    Json(WorkOrder {
        machine: String::from("node-1"),
        session: Secret::new(SESSION.to_owned()),
        image: ImageOrder {
            url: format!("http://10.0.2.2:{}/image", installer.http_port),
            sha256,
            format: installer.format,
        },
        disk: installer.disk.parse().unwrap(),
        seed: Seed {
            meta_data: String::from("instance-id: node-1\n"),
            user_data: Secret::new(USER_DATA.to_owned()),
            network_config: String::from("version: 2\n"),
        },
        finish: Finish::Reboot,
    })
    .into_response()
}

async fn report(State(installer): State<Arc<Installer>>, headers: HeaderMap, Json(report): Json<Report>) -> StatusCode {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != format!("Bearer {SESSION}").as_str()) {
        return StatusCode::UNAUTHORIZED;
    }
    installer.reports.lock().unwrap().push(report);
    StatusCode::NO_CONTENT
}

async fn image_file(State(installer): State<Arc<Installer>>, headers: HeaderMap) -> Response {
    let length = installer.image.len();
    let range = headers.get(header::RANGE).map(|range| {
        let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (first.parse::<usize>().unwrap(), last.parse().unwrap_or(length - 1).min(length - 1))
    });
    let etag = (header::ETAG, String::from("\"1\""));
    match range {
        None => ([etag], Body::from(installer.image.clone())).into_response(),
        Some((first, last)) => {
            let content_range = (header::CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
            let body = Body::from(installer.image[first..=last].to_vec());
            (StatusCode::PARTIAL_CONTENT, [etag, content_range], body).into_response()
        }
    }
}
