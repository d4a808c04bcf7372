//! kubeadm is done. The node gets its labels and a serving certificate, and has to become Ready.

use super::{Context, Machine, Outcome, node};
use crate::api::MachineState;
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(3);

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    match node::keep(context, machine).await? {
        node::Readiness::Ready => {
            context.events.emit(Some(&machine.name), EventKind::NodeReady);
            Ok(Outcome::to(MachineState::Ready, "a Ready node"))
        }
        node::Readiness::NotReady(_) if machine.in_state() > context.limits.node_ready => {
            let minutes = context.limits.node_ready.as_secs() / 60;
            Ok(Outcome::Fail(format!("it is a node, but not Ready after {minutes} minutes: {}", machine.status.reason)))
        }
        node::Readiness::NotReady(why) => {
            Ok(Outcome::wait(format!("waiting for the node to be Ready: {why}"), RECHECK))
        }
    }
}
