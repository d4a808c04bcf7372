//! etcd and kube-apiserver as our child processes, on loopback, with certificates of our own.
//!
//! Two processes and no controllers: the controllers are ours. Everything is in `bootstrap/` of the work directory, see
//! `layout`. A run that finds the data of an earlier one goes on with it.

mod flags;
mod layout;

use super::supervise::{Child, ChildError};
use super::{BootstrapCluster, BootstrapError, Running};
use crate::hardware::Arch;
use crate::image::manifest::{Kind, Manifest, ManifestError};
use crate::kubeconfig::{self, ClientError};
use crate::pki::PkiError;
use crate::secret::Secret;
use async_trait::async_trait;
use kube::Client;
use layout::Layout;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// From the start of both processes to a ready API server; about 6 s on a small machine, more when it is busy.
const READY: Duration = Duration::from_secs(120);
/// Between two looks at it.
const POLL: Duration = Duration::from_millis(100);
/// For one look.
const PROBE: Duration = Duration::from_secs(5);
/// How often ports are chosen anew when another process was faster.
const TRIES: usize = 3;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An embedded cluster that could not be started or removed, or died.
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
    Client(#[from] ClientError),
    /// A file or directory.
    #[error("cannot prepare {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another etcd works on the data.
    #[error("an etcd that is not ours holds {0}: end it (`fuser {0}` tells its pid), then run again")]
    InUse(PathBuf),
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

/// Ports on loopback, chosen anew at each start.
#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api: u16,
}

#[derive(Debug)]
struct Embedded {
    etcd: Child,
    apiserver: Child,
    api_port: u16,
    dir: PathBuf,
}

impl Embedded {
    async fn ended(&mut self) -> ChildError {
        tokio::select! {
            // Without etcd the API server ends too: the cause is told, not the consequence.
            biased;
            error = self.etcd.ended() => error,
            error = self.apiserver.ended() => error,
        }
    }
}

#[async_trait]
impl Running for Embedded {
    fn describe(&self) -> String {
        let Self { etcd, apiserver, api_port, dir } = self;
        format!(
            "etcd (pid {}) and kube-apiserver (pid {}, https://127.0.0.1:{api_port}), data in {}",
            etcd.pid(),
            apiserver.pid(),
            dir.display()
        )
    }

    async fn died(&mut self) -> BootstrapError {
        EmbeddedError::from(self.ended().await).into()
    }

    async fn stop(self: Box<Self>) {
        // The API server first: it writes to etcd until its end.
        self.apiserver.stop().await;
        self.etcd.stop().await;
    }
}

/// Starts both processes on the data that is there, and waits until the API server is ready.
pub async fn start(metalgate: &Path, artifacts: &Manifest, work_dir: &Path) -> Result<BootstrapCluster, EmbeddedError> {
    let program = |kind| artifacts.find(kind, host_arch()).map(|artifact| artifacts.path_of(artifact));
    let programs = [program(Kind::Etcd)?, program(Kind::KubeApiserver)?];
    for program in &programs {
        make_executable(program)?;
    }
    let layout = Layout::open(work_dir)?;
    layout.wait_until_free().await?;
    let admin = layout.issue_certificates()?;
    let mut tries = 1;
    loop {
        let ports = Ports::choose()?;
        let (path, kubeconfig) = layout.write_kubeconfig(&admin, ports.api)?;
        match attempt(metalgate, &programs, &layout, ports, &kubeconfig).await {
            Ok((client, running)) => {
                return Ok(BootstrapCluster { client, kubeconfig: path, running: Box::new(running) });
            }
            // Between our choice and their bind, another process may take a port.
            Err(EmbeddedError::Child(error)) if error.is_port_taken() && tries < TRIES => {
                tracing::info!(%error, "a port was taken; choosing others");
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn attempt(
    metalgate: &Path,
    [etcd, apiserver]: &[PathBuf; 2],
    layout: &Layout,
    ports: Ports,
    kubeconfig: &Secret<String>,
) -> Result<(Client, Embedded), EmbeddedError> {
    let log = layout.dir.join("etcd.log");
    let etcd = Child::start(metalgate, "etcd", etcd, flags::etcd(layout, ports), &log).await?;
    let log = layout.dir.join("kube-apiserver.log");
    let apiserver = Child::start(metalgate, "kube-apiserver", apiserver, flags::apiserver(layout, ports), &log).await;
    let apiserver = match apiserver {
        Ok(apiserver) => apiserver,
        Err(error) => {
            etcd.stop().await;
            return Err(error.into());
        }
    };
    let mut running = Embedded { etcd, apiserver, api_port: ports.api, dir: layout.dir.clone() };
    match ready(&mut running, kubeconfig, &log).await {
        Ok(client) => Ok((client, running)),
        Err(error) => {
            Box::new(running).stop().await;
            Err(error)
        }
    }
}

/// Waits until the API server says that it is ready, or a process dies.
async fn ready(running: &mut Embedded, kubeconfig: &Secret<String>, log: &Path) -> Result<Client, EmbeddedError> {
    let client = kubeconfig::client(kubeconfig).await?;
    let started = Instant::now();
    loop {
        let last = tokio::select! {
            answer = timeout(PROBE, probe(&client)) => match answer {
                Ok(Ok(())) => return Ok(client),
                Ok(Err(error)) => error,
                Err(_) => format!("no answer for {} s", PROBE.as_secs()),
            },
            error = running.ended() => return Err(error.into()),
        };
        tracing::debug!(%last, "kube-apiserver is not ready yet");
        if started.elapsed() > READY {
            return Err(EmbeddedError::NotReady { last, log: log.to_owned() });
        }
        sleep(POLL).await;
    }
}

/// One look at the API server: fine, or what it says instead.
async fn probe(client: &Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
    let error = match client.request_text(request).await {
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    // It lists everything that a ready server needs, a line each; `[-]` is what it still waits for.
    let missing: Vec<&str> = error.lines().filter(|line| line.starts_with("[-]")).collect();
    Err(if missing.is_empty() { error } else { missing.join(", ") })
}

/// Removes the data, the certificates and the logs.
pub async fn remove(work_dir: &Path) -> Result<(), EmbeddedError> {
    let layout = Layout::open(work_dir)?;
    layout.wait_until_free().await?;
    layout.remove()
}

/// The architecture that we run on ourselves.
fn host_arch() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::Amd64 }
}

/// A downloaded binary is a plain file until here. One that is executable is left as it is: it may be another user's.
fn make_executable(program: &Path) -> Result<(), EmbeddedError> {
    let io = |source| EmbeddedError::Io { path: program.to_owned(), source };
    let mut permissions = std::fs::metadata(program).map_err(io)?.permissions();
    if permissions.mode() & 0o111 == 0 {
        permissions.set_mode(0o755);
        std::fs::set_permissions(program, permissions).map_err(io)?;
    }
    Ok(())
}

impl Ports {
    /// Ports that are free now. All are held until all are found, so that they differ.
    fn choose() -> Result<Self, EmbeddedError> {
        let hold = || TcpListener::bind((LOOPBACK, 0));
        let port = |held: &TcpListener| held.local_addr().map(|address| address.port());
        let choose = || {
            let (etcd, etcd_peer, api) = (hold()?, hold()?, hold()?);
            Ok(Self { etcd: port(&etcd)?, etcd_peer: port(&etcd_peer)?, api: port(&api)? })
        };
        choose().map_err(EmbeddedError::Port)
    }
}
