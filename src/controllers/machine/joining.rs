//! kubeadm makes this machine a node of the cluster that is there: control-plane machines one at a time, workers several.

use super::{Context, Machine, Outcome, login, membership};
use crate::api::{MachineRole, MachineState, secrets};
use crate::controllers::{ReconcileError, workload};
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(3);

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let name = machine.object.spec.cluster.clone();
    if !membership::is_initialized(context, &name).await? {
        return match membership::next(context, machine).await? {
            // The one that was to make the cluster has failed.
            MachineState::Initializing => Ok(Outcome::to(MachineState::Initializing, "to make the cluster")),
            _ => Ok(Outcome::wait("prepared; waiting for the control plane", RECHECK)),
        };
    }
    let control_plane = machine.object.spec.role == MachineRole::ControlPlane;
    // etcd takes one new member at a time; workers share what the API server and our link can bear.
    let _turn = match control_plane {
        true => (Some(context.control_plane.lock().await), None),
        false => (None, context.joins.acquire().await.ok()),
    };
    let cluster = context.cluster(&name).await?;
    let client = context.workload.client(context, &cluster).await?;
    let session = match login::open(context, machine).await? {
        Ok(session) => session,
        Err(outcome) => return Ok(outcome),
    };
    let authorities = secrets::read_authorities(&context.client, &name).await?;
    let taints = machine.taints(&cluster);
    let token = workload::grant_token(&client, &machine.name).await?;
    let step = machine.node(context, &cluster, &taints).join(machine.object.spec.role, &authorities, &token);
    let taken = match step {
        Ok(step) => login::take(context, machine, &session, &step).await,
        Err(source) => Err(context.unpreparable(machine, source)),
    };
    workload::revoke_token(&client, &token).await?;
    session.close().await;
    Ok(match taken? {
        Ok(()) => Outcome::to(MachineState::Starting, "joined; waiting for the node to be Ready"),
        Err(outcome) => outcome,
    })
}
