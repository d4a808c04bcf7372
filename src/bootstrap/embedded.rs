//! etcd and kube-apiserver as our child processes, on loopback, with certificates of our own.
//!
//! Two processes and no controllers: the controllers are ours. Everything is in `bootstrap/` of the work directory (mode
//! 0700): `pki/`, `etcd/` (the data), the logs of both, and a kubeconfig.

use super::existing;
use super::supervise::{Child, ChildError};
use super::{BootstrapCluster, BootstrapError, ExistingError, Running};
use crate::hardware::Arch;
use crate::image::manifest::{Kind, Manifest, ManifestError};
use crate::pki::{self, Authority, Identity, LeafRequest, PkiError, Usage};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::Client;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From the start of both processes to a ready API server; about 6 s on a small machine, more when it is busy.
const READY: Duration = Duration::from_secs(120);
/// Between two looks at it.
const POLL: Duration = Duration::from_millis(100);
/// Leaves are renewed at each start when two thirds of this are over.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An embedded cluster that could not be started, or died.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A binary is missing.
    #[error(transparent)]
    Artifact(#[from] ManifestError),
    /// A certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A child process.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The client of the API server.
    #[error(transparent)]
    Client(#[from] ExistingError),
    /// A file or directory.
    #[error("cannot prepare {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No port is free on loopback.
    #[error("cannot find a free port on 127.0.0.1")]
    Port(#[source] io::Error),
    /// The API server runs, but does not become ready.
    #[error("kube-apiserver is not ready after {} s ({last}); its log is {log}", READY.as_secs())]
    NotReady {
        /// Its last answer.
        last: String,
        /// Its log.
        log: PathBuf,
    },
}

/// Where the pieces are.
struct Layout {
    dir: PathBuf,
    pki: PathBuf,
}

struct Embedded {
    etcd: Child,
    apiserver: Child,
}

#[async_trait]
impl Running for Embedded {
    async fn died(&mut self) -> BootstrapError {
        let error = tokio::select! {
            error = self.etcd.ended() => error,
            error = self.apiserver.ended() => error,
        };
        EmbeddedError::from(error).into()
    }

    async fn stop(self: Box<Self>) {
        // The API server first: it writes to etcd until its end.
        self.apiserver.stop().await;
        self.etcd.stop().await;
    }
}

/// Starts both processes on the data that is there, and waits until the API server is ready.
pub async fn start(metalgate: &Path, artifacts: &Manifest, work_dir: &Path) -> Result<BootstrapCluster, EmbeddedError> {
    let layout = Layout { dir: work_dir.join("bootstrap"), pki: work_dir.join("bootstrap/pki") };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&layout.pki);
    made.map_err(|source| EmbeddedError::Io { path: layout.pki.clone(), source })?;
    let program = |kind| artifacts.find(kind, host_arch()).map(|artifact| artifacts.path_of(artifact));
    let (etcd_program, apiserver_program) = (program(Kind::Etcd)?, program(Kind::KubeApiserver)?);
    for program in [&etcd_program, &apiserver_program] {
        make_executable(program)?;
    }
    let [etcd_port, peer_port, api_port] = free_ports()?;
    let admin = issue_certificates(&layout.pki)?;
    let kubeconfig = write_kubeconfig(&layout, &admin, api_port)?;

    let etcd_args = etcd_args(&layout, etcd_port, peer_port);
    let etcd = Child::start(metalgate, "etcd", &etcd_program, etcd_args, &layout.dir.join("etcd.log")).await?;
    let log = layout.dir.join("kube-apiserver.log");
    let apiserver_args = apiserver_args(&layout, etcd_port, api_port);
    // Whatever fails from here on, what was started is stopped.
    let apiserver = match Child::start(metalgate, "kube-apiserver", &apiserver_program, apiserver_args, &log).await {
        Ok(apiserver) => apiserver,
        Err(error) => {
            etcd.stop().await;
            return Err(error.into());
        }
    };
    let mut running = Box::new(Embedded { etcd, apiserver });
    match ready(&mut running, &kubeconfig, &log).await {
        Ok(client) => Ok(BootstrapCluster { client, kubeconfig, running }),
        Err(error) => {
            running.stop().await;
            Err(error)
        }
    }
}

/// The architecture that we run on ourselves.
fn host_arch() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::Amd64 }
}

/// A downloaded binary is a plain file until here.
fn make_executable(program: &Path) -> Result<(), EmbeddedError> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let set = std::fs::set_permissions(program, permissions);
    set.map_err(|source| EmbeddedError::Io { path: program.to_owned(), source })
}

/// Ports that are free now. All are held until all are found, so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N], EmbeddedError> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((LOOPBACK, 0)).map_err(EmbeddedError::Port)?;
        *port = listener.local_addr().map_err(EmbeddedError::Port)?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Every certificate that the two processes and we need; good ones are kept. Returns ours.
fn issue_certificates(dir: &Path) -> Result<Identity, PkiError> {
    let leaf = |common_name: &str, organization: Option<&str>, usage| LeafRequest {
        common_name: common_name.to_owned(),
        organizations: organization.map(str::to_owned).into_iter().collect(),
        dns_names: vec![String::from("localhost"), String::from("kubernetes.default.svc")],
        addresses: vec![LOOPBACK],
        usage,
        lifetime: LEAF_LIFETIME,
    };
    let etcd = Authority::keep(dir, "etcd-ca", "metalgate bootstrap etcd CA")?;
    etcd.keep_leaf(dir, "etcd", &leaf("etcd", None, Usage::Both))?;
    etcd.keep_leaf(dir, "etcd-client", &leaf("kube-apiserver", None, Usage::Client))?;
    let cluster = Authority::keep(dir, "ca", "metalgate bootstrap CA")?;
    cluster.keep_leaf(dir, "apiserver", &leaf("kube-apiserver", None, Usage::Server))?;
    pki::keep_signing_key(dir, "service-accounts")?;
    cluster.keep_leaf(dir, "admin", &leaf("metalgate", Some("system:masters"), Usage::Client))
}

fn write_kubeconfig(layout: &Layout, admin: &Identity, port: u16) -> Result<PathBuf, EmbeddedError> {
    let path = layout.dir.join("kubeconfig");
    let io = |source| EmbeddedError::Io { path: path.clone(), source };
    let ca = std::fs::read(layout.pki.join("ca.crt")).map_err(io)?;
    let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bootstrap",
        "contexts": [{"name": "bootstrap", "context": {"cluster": "bootstrap", "user": "metalgate"}}],
        "clusters": [{"name": "bootstrap", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority-data": encode(&ca),
        }}],
        "users": [{"name": "metalgate", "user": {
            "client-certificate-data": encode(admin.cert.as_bytes()),
            "client-key-data": encode(admin.key.expose().as_bytes()),
        }}],
    });
    let mut options = OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&path).map_err(io)?;
    file.write_all(config.to_string().as_bytes()).map_err(io)?;
    Ok(path)
}

fn etcd_args(layout: &Layout, port: u16, peer_port: u16) -> Vec<String> {
    let pki = layout.pki.display();
    let (client, peer) = (format!("https://127.0.0.1:{port}"), format!("https://127.0.0.1:{peer_port}"));
    vec![
        String::from("--name=metalgate"),
        format!("--data-dir={}", layout.dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=metalgate={peer}"),
        format!("--cert-file={pki}/etcd.crt"),
        format!("--key-file={pki}/etcd.key"),
        format!("--trusted-ca-file={pki}/etcd-ca.crt"),
        String::from("--client-cert-auth"),
        format!("--peer-cert-file={pki}/etcd.crt"),
        format!("--peer-key-file={pki}/etcd.key"),
        format!("--peer-trusted-ca-file={pki}/etcd-ca.crt"),
        String::from("--peer-client-cert-auth"),
        String::from("--log-level=warn"),
    ]
}

fn apiserver_args(layout: &Layout, etcd_port: u16, port: u16) -> Vec<String> {
    let pki = layout.pki.display();
    vec![
        format!("--etcd-servers=https://127.0.0.1:{etcd_port}"),
        format!("--etcd-cafile={pki}/etcd-ca.crt"),
        format!("--etcd-certfile={pki}/etcd-client.crt"),
        format!("--etcd-keyfile={pki}/etcd-client.key"),
        String::from("--bind-address=127.0.0.1"),
        String::from("--advertise-address=127.0.0.1"),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        String::from("--service-account-issuer=https://kubernetes.default.svc"),
        format!("--service-account-key-file={pki}/service-accounts.pub"),
        format!("--service-account-signing-key-file={pki}/service-accounts.key"),
        String::from("--service-cluster-ip-range=10.96.0.0/24"),
        String::from("--authorization-mode=RBAC"),
        String::from("--anonymous-auth=false"),
        // Nothing runs here: no pods that would want an account, no service that would want endpoints.
        String::from("--disable-admission-plugins=ServiceAccount"),
        String::from("--endpoint-reconciler-type=none"),
        String::from("--profiling=false"),
    ]
}

/// Waits until the API server says that it is ready, or a process dies.
async fn ready(running: &mut Embedded, kubeconfig: &Path, log: &Path) -> Result<Client, EmbeddedError> {
    let client = existing::client(kubeconfig).await?;
    let started = Instant::now();
    let mut last = String::from("no answer yet");
    while started.elapsed() < READY {
        let probe = async {
            let request = http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
            client.request_text(request).await.map_err(|error| error.to_string())
        };
        tokio::select! {
            answer = probe => match answer {
                Ok(_) => return Ok(client),
                Err(error) => last = error,
            },
            error = running.etcd.ended() => return Err(error.into()),
            error = running.apiserver.ended() => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
    Err(EmbeddedError::NotReady { last, log: log.to_owned() })
}
