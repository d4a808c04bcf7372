//! The cluster that manages itself: whether it is there, and where it stands by its own objects.

use super::board::{Board, MachineBoard};
use super::work_dir::{self, WorkDirError};
use crate::api::{ApiError, MetalCluster, MetalMachine, NAMESPACE};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;
use std::path::Path;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Puts the machines' present states onto a board that was made of the journal, and gives the cluster's conditions.
pub async fn look(dir: &Path, cluster: &str, board: &mut Board) -> Result<Vec<Condition>, Error> {
    let client = client(dir, cluster).await?;
    let object = find(&client, cluster).await?;
    let machines = Api::<MetalMachine>::namespaced(client, NAMESPACE).list(&ListParams::default()).await;
    let machines = machines.map_err(ApiError::of("the list of MetalMachines"))?;
    let mut known = std::mem::take(&mut board.machines);
    board.machines = machines
        .iter()
        .filter(|machine| machine.spec.cluster == cluster)
        .map(|machine| {
            let name = machine.name_any();
            let status = machine.status.clone().unwrap_or_default();
            let since = status.since.unwrap_or_default();
            let mut line = known.remove(&name).unwrap_or_else(|| MachineBoard::new(since));
            (line.state, line.reason, line.since) = (format!("{:?}", status.state), status.reason, since);
            line.error = status.failure.filter(|_| line.state == "Failed").map(|failure| failure.message);
            (name, line)
        })
        .collect::<BTreeMap<_, _>>();
    (board.error, board.progress) = (None, None);
    Ok(object.status.map(|status| status.conditions).unwrap_or_default())
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
pub async fn client(dir: &Path, cluster: &str) -> Result<Client, Error> {
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
