//! The cluster that holds the objects while machines are installed: etcd and kube-apiserver as our child processes, a
//! cluster that is there, or kind.
//!
//! Fed by `image` (the two binaries); feeds `controllers` with a client. The embedded one keeps its data in the work
//! directory, so that a killed run finds its objects again, and ends with us whatever ends us.

mod embedded;
mod existing;
mod kind;
mod log;
pub mod supervise;

pub use embedded::EmbeddedError;
pub use existing::ExistingError;
pub use kind::KindError;

use crate::image::manifest::Manifest;
use async_trait::async_trait;
use kind::Kind;
use kube::Client;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Which bootstrap cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// etcd and kube-apiserver as child processes.
    Embedded,
    /// The cluster of a kubeconfig.
    Existing {
        /// The kubeconfig.
        kubeconfig: PathBuf,
    },
    /// A kind cluster, which needs Docker.
    Kind,
}

/// A bootstrap cluster that could not be started, or died.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The embedded one.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The existing one.
    #[error(transparent)]
    Existing(#[from] ExistingError),
    /// kind.
    #[error(transparent)]
    Kind(#[from] KindError),
}

/// A running bootstrap cluster.
#[async_trait]
trait Running: Send + Sync {
    /// What and where it is, for a log.
    fn describe(&self) -> String;
    /// Waits until it dies by itself; never, for one that is not ours.
    async fn died(&mut self) -> BootstrapError;
    /// Ends what we started of it. Its data stays.
    async fn stop(self: Box<Self>);
}

/// A running bootstrap cluster, and a client of it.
pub struct BootstrapCluster {
    client: Client,
    kubeconfig: PathBuf,
    running: Box<dyn Running>,
}

impl BootstrapCluster {
    /// A client with every right.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig for the user's own tools.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What and where it is, for a log.
    pub fn describe(&self) -> String {
        self.running.describe()
    }

    /// Waits until it dies by itself.
    pub async fn died(&mut self) -> BootstrapError {
        self.running.died().await
    }

    /// Ends what we started of it. Its data stays for the next run.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// Starts the bootstrap cluster of `provider`, with its files in `work_dir`. `metalgate` is our own executable, through
/// which child processes are started.
pub async fn start(
    metalgate: &Path,
    provider: &Provider,
    artifacts: &Manifest,
    work_dir: &Path,
    cluster: &str,
) -> Result<BootstrapCluster, BootstrapError> {
    let started = Instant::now();
    let cluster = match provider {
        Provider::Embedded => embedded::start(metalgate, artifacts, work_dir).await?,
        Provider::Existing { kubeconfig } => existing::connect(kubeconfig).await?,
        Provider::Kind => Kind::on_path(work_dir, cluster).start().await?,
    };
    tracing::info!(seconds = started.elapsed().as_secs_f64(), "bootstrap cluster: {}", cluster.describe());
    Ok(cluster)
}

/// Deletes the bootstrap cluster of `provider` with everything in it, stopped before; an existing one is left as it is.
pub async fn remove(provider: &Provider, work_dir: &Path, cluster: &str) -> Result<(), BootstrapError> {
    match provider {
        Provider::Embedded => embedded::remove(work_dir).await?,
        Provider::Existing { .. } => {}
        Provider::Kind => Kind::on_path(work_dir, cluster).remove().await?,
    }
    Ok(())
}
