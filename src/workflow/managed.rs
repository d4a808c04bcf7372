//! Where a cluster that manages itself stands, by its own objects.

use super::board::{Board, MachineBoard};
use super::kubeconfig;
use crate::api::{ApiError, MetalMachine, NAMESPACE};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::path::Path;

/// Puts the machines' present states onto a board that was made of the journal, and gives the cluster's conditions.
pub async fn look(
    dir: &Path,
    cluster: &str,
    board: &mut Board,
) -> Result<Vec<Condition>, Box<dyn std::error::Error + Send + Sync>> {
    let client = kubeconfig::self_managed(dir, cluster).await?;
    let object = kubeconfig::find(&client, cluster).await?;
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
