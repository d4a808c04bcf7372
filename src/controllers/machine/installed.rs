//! The system is installed and answers SSH. Nothing more is asked of it: it becomes a node next.

use super::Outcome;
use crate::api::MachineState;

pub fn step() -> Outcome {
    Outcome::to(MachineState::Preparing, "to be prepared for Kubernetes")
}
