//! Everything that kubeadm needs is put in place over SSH. Each step looks first, so a repetition costs little.

use super::{Context, Machine, Outcome, login, membership};
use crate::controllers::ReconcileError;
use crate::node::prepare::Preparation;
use crate::node::script::{Step, StepError};
use crate::node::ssh::Session;

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let steps = steps(context, machine).await?;
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

async fn steps(context: &Context, machine: &Machine) -> Result<Vec<Step>, ReconcileError> {
    let cluster = context.cluster(&machine.object.spec.cluster).await?;
    let preparation = Preparation {
        supplies: &context.supplies,
        server: context.server.clone(),
        role: machine.object.spec.role,
        arch: machine.hardware.spec.arch,
        cluster: &cluster.spec,
    };
    preparation.steps().map_err(|source| context.unpreparable(machine, source))
}

/// Prepares a node anew, with what the artifact directory has now: the program that hands a cluster over need not be the one that
/// made it, and its manager's image has to be there.
pub async fn again(context: &Context, name: &str) -> Result<(), ReconcileError> {
    let machine = Machine::load(context, name).await?;
    let (target, host_key) = login::target(context, &machine).await?;
    let failed = |source: StepError| ReconcileError::Step { machine: name.to_owned(), source: Box::new(source) };
    let session = Session::connect(&target, &context.ssh_key, &host_key, login::LOGIN).await;
    let session = session.map_err(|source| failed(StepError::Ssh { title: "logging in", source: Box::new(source) }))?;
    for step in steps(context, &machine).await? {
        login::run(context, name, &session, &step).await.map_err(failed)?;
    }
    session.close().await;
    Ok(())
}
