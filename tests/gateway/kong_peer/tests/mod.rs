//! The peer against itself: planes that connect, what each fault does, the Admin API's refusals, and the proxy.

mod admin;
mod planes;
mod proxy;

use super::{ControlPlane, ControlPlaneSettings, DataPlane, DataPlaneSettings, Faults, Identity, Mode};
use axum::Router;
use axum::extract::{Request, State};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// For what a plane does by itself; it takes less than a second on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);
const SERVER_NAME: &str = "kong-cluster.kong.svc";

pub struct Authority {
    pub cert: String,
    key: String,
}

fn params(name: &str, usage: Vec<ExtendedKeyUsagePurpose>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    params.extended_key_usages = usage;
    params.not_before = OffsetDateTime::now_utc() - time::Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(1);
    params
}

impl Authority {
    pub fn new() -> Self {
        let mut params = params(&format!("authority-{}", uuid::Uuid::new_v4()), Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let issuer = Issuer::from_ca_cert_pem(&self.cert, KeyPair::from_pem(&self.key).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = params(name, vec![usage]).signed_by(&key, &issuer).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn identity(&self) -> Identity {
        Identity { cert: self.cert.clone(), key: self.key.clone() }
    }
}

/// The certificate of mode shared.
pub fn shared_identity() -> Identity {
    let usage = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let cert = params("kong_clustering", usage).self_signed(&key).unwrap();
    Identity { cert: cert.pem(), key: key.serialize_pem() }
}

/// Planes at loopback addresses of their own, as if they were pods: `127.0.NET.1` and so on.
pub struct Rig {
    net: u8,
    pub authority: Authority,
    pub faults: Faults,
    pub control_plane: ControlPlane,
    pub client: reqwest::Client,
}

pub fn pod(net: u8, host: u8, port: u16) -> SocketAddr {
    ([127, 0, net, host], port).into()
}

impl Rig {
    pub async fn new(net: u8) -> Self {
        Self::with(net, Authority::new(), Faults::default()).await
    }

    /// With a new control plane, which knows nothing, in place of the old one.
    pub async fn restarted(self) -> Self {
        let Self { net, authority, faults, control_plane, .. } = self;
        drop(control_plane);
        Self::with(net, authority, faults).await
    }

    pub async fn with(net: u8, authority: Authority, faults: Faults) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let control_plane = ControlPlane::start(Self::control_plane(net, &authority, &faults)).await;
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { net, authority, faults, control_plane, client: client.build().unwrap() }
    }

    pub fn control_plane(net: u8, authority: &Authority, faults: &Faults) -> ControlPlaneSettings {
        let identity = authority.issue(SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth);
        let ca = Some(authority.cert.clone());
        let mut settings = ControlPlaneSettings::new(pod(net, 1, 8001), pod(net, 1, 8005), Mode::Pki, identity, ca);
        settings.faults = faults.clone();
        settings
    }

    /// Settings of `dp-N`, whose address ends with this number.
    pub fn data_plane(&self, number: u8) -> DataPlaneSettings {
        let identity = self.authority.issue("data plane", ExtendedKeyUsagePurpose::ClientAuth);
        let mut settings = DataPlaneSettings::new(
            pod(self.net, number, 8000),
            pod(self.net, number, 8100),
            self.control_plane.cluster_addr,
            &format!("dp-{number}"),
            identity,
            self.authority.cert.clone(),
            SERVER_NAME,
        );
        settings.faults = self.faults.clone();
        settings.authority = Some(self.authority.identity());
        settings
    }

    /// A data plane that has its first configuration.
    pub async fn started(&self, settings: DataPlaneSettings) -> DataPlane {
        let data_plane = DataPlane::start(settings).await;
        eventually("the data plane is ready", async || self.status(&data_plane, "/status/ready").await.0 == 200).await;
        data_plane
    }

    pub async fn call(&self, method: Method, url: String, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(method, &url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = Some(body).filter(|body| !body.is_null());
        let url = format!("http://{}{path}", self.control_plane.admin_addr);
        self.call(method.parse().unwrap(), url, body).await
    }

    /// A change that has to be accepted.
    pub async fn put(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.admin("PUT", path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub async fn status(&self, data_plane: &DataPlane, path: &str) -> (u16, Value) {
        self.call(Method::GET, format!("http://{}{path}", data_plane.status_addr), None).await
    }

    pub async fn proxied(&self, data_plane: &DataPlane, path: &str) -> (u16, Value) {
        self.call(Method::GET, format!("http://{}{path}", data_plane.proxy_addr), None).await
    }

    /// The control plane's row of a data plane.
    pub async fn row(&self, hostname: &str) -> Option<Value> {
        let (_, list) = self.admin("GET", "/clustering/data-planes", Value::Null).await;
        list["data"].as_array().unwrap().iter().find(|row| row["hostname"] == hostname).cloned()
    }

    /// Whether a new route with this answer arrives at the data plane within so much time.
    pub async fn canary(&self, data_plane: &DataPlane, nonce: &str, limit: Duration) -> bool {
        let (name, path) = (format!("canary-{nonce}"), format!("/.metalgate/{nonce}"));
        let route = json!({ "protocols": ["http"], "paths": [path], "strip_path": true, "tags": ["canary"] });
        let route = self.put(&format!("/routes/{name}"), route).await;
        let plugin = json!({
            "name": "request-termination",
            "route": { "id": route["id"] },
            "config": { "status_code": 200, "message": nonce },
        });
        self.put(&format!("/plugins/{}", uuid::Uuid::new_v4()), plugin).await;
        let deadline = Instant::now() + limit;
        let mut arrived = false;
        while !arrived && Instant::now() < deadline {
            let (status, answer) = self.proxied(data_plane, &path).await;
            arrived = status == 200 && answer["message"] == nonce;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.admin("DELETE", &format!("/routes/{name}"), Value::Null).await;
        arrived
    }
}

pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !check().await {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A service that says who it is and how it was asked.
pub async fn backend(name: &'static str, address: SocketAddr) -> super::Running {
    let echo = async |State(name): State<&'static str>, request: Request| {
        let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            (name.to_string(), json!(value.to_str().unwrap()))
        };
        let headers: serde_json::Map<_, _> = request.headers().iter().map(header).collect();
        axum::Json(json!({
            "service": name,
            "method": request.method().as_str(),
            "uri": request.uri().to_string(),
            "headers": headers,
        }))
    };
    let mut running = super::Running::default();
    running.serve(address, Router::new().fallback(echo).with_state(name)).await;
    running
}
