//! Everything that kubeadm needs is put in place over SSH. Each step looks first, so a repetition costs little.

use super::{Context, Machine, Outcome, login, membership};
use crate::controllers::ReconcileError;
use crate::node::prepare::Preparation;

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let cluster = context.cluster(&machine.object.spec.cluster).await?;
    let preparation = Preparation {
        supplies: &context.supplies,
        server: context.server.clone(),
        role: machine.object.spec.role,
        arch: machine.hardware.spec.arch,
        os_image: &cluster.spec.image,
    };
    let steps = preparation.steps().map_err(|source| context.unpreparable(machine, source))?;
    let session = match login::open(context, machine).await? {
        Ok(session) => session,
        Err(outcome) => return Ok(outcome),
    };
    for step in &steps {
        if let Err(outcome) = login::take(context, machine, &session, step).await? {
            return Ok(outcome);
        }
    }
    session.close().await;
    let to = membership::next(context, machine).await?;
    Ok(Outcome::to(to, "prepared; waiting for its turn to become a node"))
}
