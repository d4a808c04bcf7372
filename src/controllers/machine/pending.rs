//! Nothing was done yet: the machine is powered on next.

use super::{Machine, Outcome};
use crate::api::MachineState;

pub fn step(machine: &Machine) -> Outcome {
    let disk = &machine.hardware.spec.disk;
    Outcome::to(
        MachineState::PoweringOn,
        format!("to be started from the network; its disk {disk} will be overwritten"),
    )
}
