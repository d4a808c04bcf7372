//! A cluster that is there: the objects go into it, and nothing of it is started or stopped.

use super::{BootstrapCluster, BootstrapError, Running};
use async_trait::async_trait;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the cluster may take to say its version.
const ANSWER: Duration = Duration::from_secs(15);

/// A cluster that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    /// The kubeconfig cannot be read.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// What it says cannot be done.
    #[error("cannot connect as the kubeconfig {path} says")]
    Client {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The cluster refuses, or does not answer.
    #[error("the cluster of {path} does not answer")]
    Silent {
        /// The kubeconfig.
        path: PathBuf,
        /// Why; nothing if it took too long.
        #[source]
        source: Option<Box<kube::Error>>,
    },
}

/// One that lives on without us.
struct Existing {
    kubeconfig: PathBuf,
}

#[async_trait]
impl Running for Existing {
    fn describe(&self) -> String {
        format!("the cluster of {}", self.kubeconfig.display())
    }

    async fn died(&mut self) -> BootstrapError {
        std::future::pending().await
    }

    async fn stop(self: Box<Self>) {}
}

/// Connects to the cluster of a kubeconfig's current context.
pub async fn connect(path: &Path) -> Result<BootstrapCluster, ExistingError> {
    let client = client(path).await?;
    let silent = |source| ExistingError::Silent { path: path.to_owned(), source };
    let version = tokio::time::timeout(ANSWER, client.apiserver_version()).await;
    version.map_err(|_| silent(None))?.map_err(|source| silent(Some(Box::new(source))))?;
    let running = Box::new(Existing { kubeconfig: path.to_owned() });
    Ok(BootstrapCluster { client, kubeconfig: path.to_owned(), running })
}

/// A client for a kubeconfig's current context. Unlike our own kubeconfigs, a user's may name a proxy.
async fn client(path: &Path) -> Result<Client, ExistingError> {
    crate::tls::install_provider();
    let failed = |source| ExistingError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?;
    let unusable = |source| ExistingError::Client { path: path.to_owned(), source: Box::new(source) };
    Client::try_from(config).map_err(unusable)
}
