//! MetalCluster: keeps its groups complete, gives it its container network, and says how far it is.

mod conditions;
pub mod groups;
mod network;

use super::machine::is_initialized;
use super::{Context, ELSEWHERE, ReconcileError};
use crate::api::{ApiError, FIELD_MANAGER, MachineState, MetalCluster, MetalClusterStatus, MetalMachine};
use conditions::Findings;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(30);
/// While the control plane answers nobody yet.
const SOON: Duration = Duration::from_secs(3);

/// Brings one cluster a step nearer to its spec, and its status up to date.
pub async fn reconcile(cluster: Arc<MetalCluster>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let name = cluster.name_any();
    let Some(epoch) = context.epoch(&name).await? else { return Ok(Action::requeue(ELSEWHERE)) };
    let machines = context.objects::<MetalMachine>().list(&ListParams::default()).await;
    let machines = machines.map_err(ApiError::of("the list of MetalMachines"))?;
    let machines: Vec<MetalMachine> = machines.into_iter().filter(|machine| machine.spec.cluster == name).collect();
    let lacking = match cluster.metadata.deletion_timestamp {
        None => groups::keep(&context, &cluster, &machines).await?,
        Some(_) => Vec::new(),
    };
    let initialized = is_initialized(&context, &name).await?;
    let network = match initialized {
        true => Some(network::keep(&context, &cluster).await),
        false => None,
    };
    let states: Vec<(&str, MachineState)> =
        machines.iter().map(|machine| (machine.spec.group.as_str(), machine.state())).collect();
    let findings = Findings { states: &states, lacking: &lacking, initialized, network: network.as_ref() };
    let status = conditions::summary(&cluster, &findings, epoch);
    write(&context, &cluster, status).await?;
    match network {
        Some(Err(error)) => {
            tracing::warn!("{}", crate::error::chain(&error));
            Ok(Action::requeue(SOON))
        }
        _ => Ok(Action::requeue(RECHECK)),
    }
}

async fn write(context: &Context, cluster: &MetalCluster, status: MetalClusterStatus) -> Result<(), ReconcileError> {
    if cluster.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let name = cluster.name_any();
    let mut value = serde_json::json!({ "status": status });
    // The gateway's own reconciler writes that.
    if let Some(fields) = value["status"].as_object_mut() {
        fields.remove("gateway");
    }
    let patch = Patch::Merge(value);
    let api = context.objects::<MetalCluster>();
    let written = api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER), &patch).await;
    written.map_err(ApiError::of(format!("the status of MetalCluster {name}")))?;
    Ok(())
}
