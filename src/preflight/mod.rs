//! What is looked at before a machine is powered on: [`CHECKS`] is the list, one file per check. They run at the same time,
//! and everything that is in the way is told at once, with its way out.
//!
//! Nothing is changed by any of it. Fed by a run's request and, where one was made before, the journal (in the plan's recorded
//! states): what an earlier run has begun is on, and has its address, by right. Feeds `workflow` and `metalgate preflight`.

mod addresses;
mod artifacts;
mod bmc;
mod clock;
mod dhcp;
mod interface;
mod ports;
mod report;
mod segment;

pub use report::{Finding, PreflightFailed, Report, Verdict};

use crate::api::MachineState;
use crate::event::{EventBus, EventKind};
use crate::plan::PlannedMachine;
use crate::workflow::Request;
use crate::workflow::artifacts::Verified;
use crate::workflow::network::Place;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The checks, in the order of the report.
const CHECKS: &[&dyn Check] = &[
    &interface::Interface,
    &dhcp::Dhcp,
    &addresses::Addresses,
    &ports::Ports,
    &bmc::Bmcs,
    &artifacts::Artifacts,
    &clock::Clock,
];

/// One check.
#[async_trait]
trait Check: Send + Sync {
    /// What `--skip` calls it.
    fn name(&self) -> Name;
    /// Looks. What was found to be right is one finding, too, so that it is seen what was looked at.
    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding>;
}

/// The checks' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// The provisioning interface: its address, link and MTU, and whether full frames reach the gateway
    Interface,
    /// Whether another DHCP server answers on the segment
    Dhcp,
    /// Whether every address of the inventory, and the virtual one, is free
    Addresses,
    /// Whether the ports that we serve on are free
    Ports,
    /// Whether every BMC answers, takes the password, and can do what will be asked of it
    Bmc,
    /// Whether what will be served is there, and there is room to work
    Artifacts,
    /// Whether this machine's clock can be right
    Clock,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What is checked.
pub struct Subject<'a> {
    /// The cluster that is to be made.
    pub request: &'a Request,
    /// Its work directory, which need not be there yet.
    pub work_dir: &'a Path,
    /// Where progress goes.
    pub events: &'a EventBus,
    /// Our place on the provisioning network; without it, `interface` says why.
    pub place: Option<Place>,
    /// Set by `artifacts`, where all of them are right.
    pub verified: OnceLock<Verified>,
}

/// Said by the checks that need the interface, where it is not known.
const NO_INTERFACE: &str = "the provisioning interface is not known";

impl Subject<'_> {
    /// The provisioning interface's name, where it is known.
    fn interface(&self) -> Option<&str> {
        let found = self.place.as_ref().map(|place| place.interface.as_str());
        found.or(self.request.spec.provisioning.interface.as_deref())
    }

    /// Our address on it.
    fn address(&self) -> Option<Ipv4Addr> {
        self.place.as_ref().map(|place| place.address)
    }

    /// The plan's machine of this name; `None` is a spare.
    fn planned(&self, hostname: &str) -> Option<&PlannedMachine> {
        self.request.plan.machines.iter().find(|machine| machine.hostname == hostname)
    }
}

/// Whether a machine has yet to be started from the network, as far as the journal tells.
fn awaits_netboot(machine: &PlannedMachine) -> bool {
    use MachineState::{Failed, Netbooting, Pending, PoweringOn};
    matches!(machine.recorded, Pending | PoweringOn | Netbooting | Failed)
}

/// Whether an earlier run has touched the machine: then it may be on, and have its address.
fn is_begun(machine: &PlannedMachine) -> bool {
    machine.recorded != MachineState::Pending
}

/// Runs every check that is not in `skip`, all at the same time.
pub async fn run(subject: &Subject<'_>, skip: &[Name]) -> Report {
    let done = AtomicU64::new(0);
    let checks = CHECKS.iter().map(|check| async {
        let name = check.name();
        let found = match skip.contains(&name) {
            true => vec![Finding::skipped("left out by --skip")],
            false => check.run(subject).await,
        };
        let (what, total) = (String::from("preflight checks done"), CHECKS.len() as u64);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        subject.events.emit(None, EventKind::Count { what, done, total });
        found.into_iter().map(move |finding| (name, finding))
    });
    Report::new(futures::future::join_all(checks).await.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_name_is_a_check_and_is_there_once() {
        let checks: Vec<Name> = CHECKS.iter().map(|check| check.name()).collect();
        assert_eq!(checks, Name::value_variants());
        assert_eq!(Name::Bmc.to_string(), "bmc");
    }
}
