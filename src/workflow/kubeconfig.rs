//! The administrator's kubeconfig: made at the hand-over, kept in the work directory, renewed by the cluster's own authority.

use super::pivot::KUBECONFIG;
use super::work_dir::{self, WorkDirError};
use crate::api::{ApiError, MetalCluster, NAMESPACE, secrets};
use crate::controllers::workload;
use crate::kubeconfig;
use crate::pki::{self, Authority};
use crate::secret::Secret;
use kube::{Api, Client};
use std::path::Path;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The kubeconfig of the cluster whose work directory is `dir`. One whose certificate has spent two thirds of its life is
/// replaced first; if that does not work, the old one is given, and a warning.
pub async fn current(dir: &Path, cluster: &str) -> Result<Secret<String>, Error> {
    let path = dir.join(KUBECONFIG);
    let text = work_dir::read_kubeconfig(dir)?;
    if kubeconfig::identity(&text).is_some_and(|identity| identity.is_fresh()) {
        return Ok(text);
    }
    match renewed(dir, cluster).await {
        Ok(new) => {
            pki::write(&path, new.expose(), 0o600)?;
            Ok(new)
        }
        Err(error) => {
            tracing::warn!("{}'s certificate cannot be renewed: {}", path.display(), crate::cli::chain(error.as_ref()));
            Ok(text)
        }
    }
}

async fn renewed(dir: &Path, cluster: &str) -> Result<Secret<String>, Error> {
    let client = work_dir::administrator(dir).await?;
    let authority = Authority::of(secrets::read_authorities(&client, cluster).await?.cluster);
    let object = find(&client, cluster).await?;
    Ok(workload::administrator_kubeconfig(cluster, &object.spec.endpoint, &authority)?)
}

/// The MetalCluster, where it is managed.
pub async fn find(client: &Client, cluster: &str) -> Result<MetalCluster, ApiError> {
    let api: Api<MetalCluster> = Api::namespaced(client.clone(), NAMESPACE);
    api.get(cluster).await.map_err(ApiError::of(format!("MetalCluster {cluster}")))
}

/// A client of the cluster that manages itself.
///
/// # Errors
/// It does not manage itself yet: then `create` has not come to its end.
pub async fn self_managed(dir: &Path, cluster: &str) -> Result<Client, Error> {
    if !dir.join(super::pivot::SELF_MANAGED).exists() {
        return Err(NotSelfManaged(cluster.to_owned()).into());
    }
    Ok(work_dir::administrator(dir).await.map_err(Box::<WorkDirError>::new)?)
}

/// The cluster is not there yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "cluster {0} does not manage itself yet: run `metalgate create cluster` to its end, with the changed files if you like"
)]
pub struct NotSelfManaged(String);
