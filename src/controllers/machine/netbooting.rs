//! On its way from power-on to the agent. The agent's claim ends this state (`installations.rs`).

use super::{Context, Machine, Outcome, since};
use crate::api::MachineState;
use crate::event::EventKind;
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(5);

pub fn step(context: &Context, machine: &Machine) -> Outcome {
    let mac = machine.hardware.spec.mac;
    let interrupted = machine.status.since.is_some_and(|since| since < context.started);
    if interrupted && machine.hardware.spec.bmc.is_some() {
        // While nobody answered, its firmware has given up, or soon will; nothing on it is worth keeping yet.
        return Outcome::to(
            MachineState::PoweringOn,
            "an earlier run was interrupted while it booted; starting it again",
        );
    }
    let seen = context.sightings.of(&machine.name);
    let silence = match &seen {
        Some(seen) => seen.at.elapsed(),
        None => machine.in_state().min(since(context.started)),
    };
    let stage = seen.as_ref().map(|seen| seen.stage).unwrap_or_default();
    let diagnosis = stage.diagnosis(mac, silence);
    if machine.in_state() > context.limits.netboot {
        return match machine.hardware.spec.bmc {
            Some(_) => machine.again(context.limits.attempts, diagnosis),
            None => Outcome::Fail(diagnosis),
        };
    }
    let last = seen.map(|seen| seen.what);
    if silence > context.limits.stall {
        let last = last.unwrap_or_else(|| String::from("nothing"));
        // Said once per stall: the reason stays the same while nothing is heard.
        let reason = format!("stalled: {}", stage.diagnosis(mac, context.limits.stall));
        if machine.status.reason != reason {
            let kind = EventKind::Stalled { seconds: silence.as_secs(), last, diagnosis };
            context.events.emit(Some(&machine.name), kind);
        }
        return Outcome::wait(reason, RECHECK);
    }
    match last {
        Some(last) => Outcome::wait(format!("booting from the network; last seen: {last}"), RECHECK),
        None => Outcome::wait(machine.status.reason.clone(), RECHECK),
    }
}
