//! MetalCluster: counts its machines and says whether all of them are installed.

use super::{Context, ELSEWHERE, ReconcileError};
use crate::api::{FIELD_MANAGER, MachineState, MetalCluster, MetalClusterStatus, MetalMachine};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;

/// Brings the status of one cluster up to date.
pub async fn reconcile(cluster: Arc<MetalCluster>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let name = cluster.name_any();
    if !context.manages(&name).await? {
        return Ok(Action::requeue(ELSEWHERE));
    }
    let machines = context.objects::<MetalMachine>();
    let machines = machines.list(&ListParams::default()).await.map_err(ReconcileError::api("MetalMachines"))?;
    let states = machines
        .iter()
        .filter(|machine| machine.spec.cluster == name)
        .map(|machine| machine.status.as_ref().map(|status| status.state).unwrap_or_default());
    let status = summary(&cluster, &states.collect::<Vec<_>>());
    if cluster.status.as_ref() != Some(&status) {
        let patch = Patch::Merge(serde_json::json!({ "status": status }));
        let api = context.objects::<MetalCluster>();
        let what = format!("the status of MetalCluster {name}");
        api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER), &patch).await.map_err(ReconcileError::api(what))?;
    }
    Ok(Action::requeue(Duration::from_secs(60)))
}

/// The status that follows from the machines' states. The condition's time changes only when its status does.
fn summary(cluster: &MetalCluster, states: &[MachineState]) -> MetalClusterStatus {
    let installed = states.iter().filter(|state| **state == MachineState::Installed).count();
    let failed = states.iter().filter(|state| **state == MachineState::Failed).count();
    let (status, reason, message) = if failed > 0 {
        ("False", "MachineFailed", format!("{failed} of {} machines cannot go on", states.len()))
    } else if installed < states.len() {
        ("False", "Installing", format!("{installed} of {} machines are installed", states.len()))
    } else {
        ("True", "AllInstalled", format!("all {installed} machines are installed and answer SSH"))
    };
    let generation = cluster.metadata.generation.unwrap_or_default();
    let before = cluster.status.as_ref().and_then(|old| old.conditions.first());
    let since = match before {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Time(k8s_openapi::jiff::Timestamp::now()),
    };
    MetalClusterStatus {
        machines: states.len() as u32,
        installed: installed as u32,
        conditions: vec![Condition {
            type_: String::from("MachinesInstalled"),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since,
            observed_generation: Some(generation),
        }],
        observed_generation: generation,
    }
}
