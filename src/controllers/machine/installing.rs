//! The agent works. Its reports end this state (`installations.rs`); silence sends the machine back to power-on.

use super::{Context, Machine, Outcome, since};
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(10);

pub fn step(context: &Context, machine: &Machine) -> Outcome {
    // After a restart of ours nothing was heard yet: count from then, not from what an earlier run wrote down.
    let seen = context.sightings.of(&machine.name);
    let silence = seen.map_or_else(|| since(context.started), |seen| seen.at.elapsed());
    if silence <= context.limits.agent_silence {
        return Outcome::wait(machine.status.reason.clone(), RECHECK);
    }
    machine.again(context.limits.attempts, format!("the agent has been silent for {} s", silence.as_secs()))
}
