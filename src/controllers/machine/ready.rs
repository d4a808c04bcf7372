//! A Ready node. Its labels are kept, its serving certificate renewed; if it stops being Ready, that is said and nothing done.

use super::{Context, Machine, Outcome, node};
use crate::controllers::ReconcileError;
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(30);

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let reason = match node::keep(context, machine).await? {
        node::Readiness::Ready => String::from("a Ready node"),
        node::Readiness::NotReady(why) => format!("the node is not Ready: {why}"),
    };
    Ok(Outcome::wait(reason, RECHECK))
}
