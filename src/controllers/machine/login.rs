//! SSH to the machine under reconciliation, and what follows when a step on it does not work.

use super::{Context, Machine, Outcome, since};
use crate::api::secrets;
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use crate::node::script::{Step, StepError};
use crate::node::ssh::{Session, SshError, Target};
use jiff::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// For one login: an emulated machine needs seconds for a key exchange.
pub const LOGIN: Duration = Duration::from_secs(20);
/// Before a failed step is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Where to log in, and the public host key that the machine was given.
pub async fn target(context: &Context, machine: &Machine) -> Result<(Target, String), ReconcileError> {
    let name = &machine.object.spec.cluster;
    let cluster = context.cluster(name).await?;
    let user = cluster.spec.users.first().map(|user| user.name.clone()).ok_or_else(|| ReconcileError::Missing {
        object: format!("MetalCluster {name}"),
        missing: String::from("a user account"),
    })?;
    let host_key = secrets::read_key(&context.client, &machine.object.spec.host_key).await?.public;
    let address = IpAddr::V4(machine.hardware.spec.address.addr());
    Ok((Target { address, port: 22, user }, host_key))
}

/// Logs in; the outcome instead, if that does not work.
pub async fn open(context: &Context, machine: &mut Machine) -> Result<Result<Session, Outcome>, ReconcileError> {
    let (target, host_key) = target(context, machine).await?;
    match Session::connect(&target, &context.ssh_key, &host_key, LOGIN).await {
        Ok(session) => {
            machine.status.unreachable_since = None;
            Ok(Ok(session))
        }
        Err(error) => Ok(Err(unreachable(context, machine, &error))),
    }
}

/// Takes one step; what it does shows in the machine's status, its progress in events, its output in the machine's log.
pub async fn take(
    context: &Context,
    machine: &mut Machine,
    session: &Session,
    step: &Step,
) -> Result<Result<(), Outcome>, ReconcileError> {
    machine.note(context, step.title).await?;
    match run(context, &machine.name, session, step).await {
        Ok(()) => Ok(Ok(())),
        Err(StepError::Ssh { source, .. }) => Ok(Err(unreachable(context, machine, &source))),
        Err(error) => Ok(Err(failed(context, machine, &error))),
    }
}

/// Runs a step, with its progress and its end as events.
pub async fn run(context: &Context, name: &str, session: &Session, step: &Step) -> Result<(), StepError> {
    let title = || step.title.to_owned();
    let note = |detail: &str| {
        context.events.emit(Some(name), EventKind::NodeStep { step: title(), detail: detail.to_owned() });
    };
    let changed = step.run(session, &context.log_of(name), note).await?.into();
    context.events.emit(Some(name), EventKind::NodeStepDone { step: title(), changed });
    Ok(())
}

/// A machine that is gone for long is installed anew; one that has another host key is not ours to touch.
fn unreachable(context: &Context, machine: &mut Machine, error: &SshError) -> Outcome {
    let message = crate::error::chain(error);
    if matches!(error, SshError::HostKeyMismatch { .. }) {
        return Outcome::Fail(message);
    }
    let silent = since(*machine.status.unreachable_since.get_or_insert_with(Timestamp::now));
    if silent > context.limits.node_silence {
        let why = format!("it does not answer SSH for {} s while it becomes a node ({message})", silent.as_secs());
        return machine.again(context.limits.attempts, why);
    }
    Outcome::wait(format!("{message}; trying again"), AGAIN)
}

/// A step that failed is tried again, a few times.
fn failed(context: &Context, machine: &mut Machine, error: &StepError) -> Outcome {
    machine.status.join_attempts += 1;
    let (tries, limit) = (machine.status.join_attempts, context.limits.join_attempts);
    let message = crate::error::chain(error);
    if tries >= limit {
        return Outcome::Fail(format!("{message}; tried {tries} times"));
    }
    Outcome::wait(format!("{message}; trying again ({tries} of {limit})"), AGAIN)
}
