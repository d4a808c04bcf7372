//! kubeadm makes the cluster on this machine.

use super::{Context, Machine, Outcome, login};
use crate::api::{MachineState, secrets};
use crate::controllers::ReconcileError;

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let cluster = context.cluster(&machine.object.spec.cluster).await?;
    let authorities = secrets::keep_authorities(&context.client, &machine.object.spec.cluster).await?;
    let _one_at_a_time = context.control_plane.lock().await;
    let taints = machine.taints(&cluster);
    let step = machine.node(context, &cluster, &taints).init(&authorities);
    let step = step.map_err(|source| context.unpreparable(machine, source))?;
    let session = match login::open(context, machine).await? {
        Ok(session) => session,
        Err(outcome) => return Ok(outcome),
    };
    if let Err(outcome) = login::take(context, machine, &session, &step).await? {
        return Ok(outcome);
    }
    session.close().await;
    Ok(Outcome::to(MachineState::Starting, "the control plane is there; waiting for the node to be Ready"))
}
