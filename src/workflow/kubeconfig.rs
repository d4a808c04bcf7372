//! The administrator's kubeconfig: made at the hand-over, kept in the work directory, renewed by the cluster's own authority.

use super::managed;
use super::pivot::KUBECONFIG;
use super::work_dir;
use crate::api::secrets;
use crate::controllers::workload;
use crate::kubeconfig;
use crate::pki::{self, Authority};
use crate::secret::Secret;
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
            tracing::warn!(
                "{}'s certificate cannot be renewed: {}",
                path.display(),
                crate::error::chain(error.as_ref())
            );
            Ok(text)
        }
    }
}

async fn renewed(dir: &Path, cluster: &str) -> Result<Secret<String>, Error> {
    let client = work_dir::administrator(dir).await?;
    let authority = Authority::of(secrets::read_authorities(&client, cluster).await?.cluster);
    let object = managed::find(&client, cluster).await?;
    Ok(workload::administrator_kubeconfig(cluster, &object.spec.endpoint, &authority)?)
}
