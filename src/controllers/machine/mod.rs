//! MetalMachine: from powered off to a Ready node. One file per state.
//!
//! ```text
//! Pending -> PoweringOn -> Netbooting -> Installing -> Rebooting -> Installed -> Preparing -> Initializing -> Starting -> Ready
//!                 ^            |             |             |                         |    `-> Joining -----^
//!                 +------------+-------------+-------------+-------------------------+
//!                   (no agent, or silence)         Failed: from any state, with its reason. Deleting: when its object goes.
//! ```
//! A state looks at the objects and the world and returns an [`Outcome`]; only this file writes the status. The agent's
//! own news (`installations.rs`) moves a machine from Netbooting to Installing and from there to Rebooting.

mod deleting;
mod initializing;
mod installed;
mod installing;
mod joining;
mod login;
mod membership;
mod netbooting;
mod node;
mod pending;
mod power;
mod powering_on;
mod preparing;
mod ready;
mod rebooting;
mod starting;

pub(super) use membership::is_initialized;
pub use preparing::again as prepare_again;

use super::{Context, ELSEWHERE, ReconcileError, status};
use crate::api::{
    ApiError, Failure, Hardware, MACHINE_FINALIZER, MachineRole, MachineState, MetalCluster, MetalMachine,
    MetalMachineStatus,
};
use crate::event::EventKind;
use crate::netboot::BootEntry;
use crate::node::kubeadm::Node;
use crate::spec::CONTROL_PLANE_TAINT;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::runtime::controller::Action;
use std::sync::Arc;
use std::time::Duration;

/// What a state found. A reason is mandatory, so that status can always say what a machine waits for.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Stay, for this reason; look again after a while.
    Wait {
        /// What is waited for.
        reason: String,
        /// When to look again, if nothing happens before.
        recheck: Duration,
    },
    /// Enter another state.
    Transition {
        /// The state.
        to: MachineState,
        /// What is waited for there.
        reason: String,
    },
    /// The machine cannot go on; the text is for the operator.
    Fail(String),
    /// Nothing to do until the object changes.
    Done,
    /// The object is gone, or will be in a moment.
    Gone,
}

impl Outcome {
    fn wait(reason: impl Into<String>, recheck: Duration) -> Self {
        Self::Wait { reason: reason.into(), recheck }
    }

    fn to(state: MachineState, reason: impl Into<String>) -> Self {
        Self::Transition { to: state, reason: reason.into() }
    }
}

/// A machine under reconciliation: the object, the hardware it runs on, and its status as it will be written.
pub(super) struct Machine {
    pub(super) name: String,
    object: Arc<MetalMachine>,
    hardware: Hardware,
    status: MetalMachineStatus,
    /// Whether its Node is Ready, where that was looked at.
    node_ready: Option<bool>,
    /// What is told once the status is written: of a result that lost a race, nothing is said, and it is found again.
    news: Vec<EventKind>,
}

impl Machine {
    /// Reads a machine by its name.
    async fn load(context: &Context, name: &str) -> Result<Self, ReconcileError> {
        let object = context.objects::<MetalMachine>().get(name).await;
        let object = object.map_err(ApiError::of(format!("MetalMachine {name}")))?;
        let hardware = load_hardware(context, &object).await?;
        let status = object.status.clone().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            object: Arc::new(object),
            hardware,
            status,
            node_ready: None,
            news: Vec::new(),
        })
    }

    /// Writes down what is being done now, in the middle of a state.
    async fn note(&mut self, context: &Context, reason: &str) -> Result<(), ReconcileError> {
        if self.status.reason != reason {
            self.status.reason = reason.to_owned();
            let state = format!("{:?}", self.status.state);
            context.events.emit(Some(&self.name), EventKind::State { state, reason: reason.to_owned() });
            self.object = Arc::new(status::replace(&context.objects(), &self.object, self.status.clone()).await?);
        }
        Ok(())
    }

    /// The taints that its node registers with. A cluster without workers runs its pods on the control plane.
    fn taints(&self, cluster: &MetalCluster) -> Vec<String> {
        let has_workers = cluster.spec.groups.iter().any(|group| group.role == MachineRole::Worker && group.count > 0);
        let own = self.object.spec.role == MachineRole::ControlPlane && has_workers;
        let given = self.object.spec.taints.iter().filter(|taint| !(own && *taint == CONTROL_PLANE_TAINT));
        own.then(|| CONTROL_PLANE_TAINT.to_owned()).into_iter().chain(given.cloned()).collect()
    }

    /// The machine as kubeadm sees it.
    fn node<'a>(&'a self, context: &'a Context, cluster: &'a MetalCluster, taints: &'a [String]) -> Node<'a> {
        Node {
            name: &self.name,
            address: self.hardware.spec.address.addr(),
            arch: self.hardware.spec.arch,
            taints,
            cluster: &cluster.spec,
            cluster_name: &self.object.spec.cluster,
            supplies: &context.supplies,
        }
    }

    /// How long it has been in its state.
    fn in_state(&self) -> Duration {
        self.status.since.map(since).unwrap_or_default()
    }

    /// Power it on once more, or give up if it was tried often enough.
    fn again(&self, limit: u32, why: String) -> Outcome {
        if self.status.attempts < limit {
            Outcome::to(MachineState::PoweringOn, format!("{why}; trying again"))
        } else {
            Outcome::Fail(format!("{why}; tried {} times", self.status.attempts))
        }
    }
}

/// Time that has passed since `moment`; none if the clock was set back.
fn since(moment: Timestamp) -> Duration {
    Timestamp::now().duration_since(moment).try_into().unwrap_or_default()
}

/// Takes one step with one machine.
pub async fn reconcile(object: Arc<MetalMachine>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let name = object.name_any();
    let Some(epoch) = context.epoch(&object.spec.cluster).await? else { return Ok(Action::requeue(ELSEWHERE)) };
    let hardware = load_hardware(&context, &object).await?;
    let mut status = object.status.clone().unwrap_or_default();
    status.epoch = epoch;
    let mut machine = Machine { name, status, object: object.clone(), hardware, node_ready: None, news: Vec::new() };
    if object.metadata.deletion_timestamp.is_some() {
        let outcome = match (object.finalizers().iter().any(|one| one == MACHINE_FINALIZER), machine.status.state) {
            (false, _) => Outcome::Gone,
            (true, MachineState::Deleting) => deleting::step(&context, &mut machine).await?,
            (true, _) => Outcome::to(MachineState::Deleting, "its object was deleted"),
        };
        return settle(&context, machine, outcome).await;
    }
    keep_boot_table(&context, &machine, machine.status.state);
    let outcome = match machine.status.state {
        MachineState::Pending => pending::step(&machine),
        MachineState::PoweringOn => powering_on::step(&context, &mut machine).await?,
        MachineState::Netbooting => netbooting::step(&context, &machine),
        MachineState::Installing => installing::step(&context, &machine),
        MachineState::Rebooting => rebooting::step(&context, &mut machine).await?,
        MachineState::Installed => installed::step(),
        MachineState::Preparing => preparing::step(&context, &mut machine).await?,
        MachineState::Initializing => initializing::step(&context, &mut machine).await?,
        MachineState::Joining => joining::step(&context, &mut machine).await?,
        MachineState::Starting => starting::step(&context, &mut machine).await?,
        MachineState::Ready => ready::step(&context, &mut machine).await?,
        // A failed machine is replaced by a spare, if there is one, or waits for the operator to run `create` again.
        MachineState::Failed | MachineState::Deleting => Outcome::Done,
    };
    settle(&context, machine, outcome).await
}

/// Writes down what a state decided, and says so in events.
async fn settle(context: &Context, mut machine: Machine, outcome: Outcome) -> Result<Action, ReconcileError> {
    let before = machine.status.state;
    let (state, reason, next) = match outcome {
        Outcome::Wait { reason, recheck } => (before, reason, Action::requeue(recheck)),
        Outcome::Transition { to, reason } => (to, reason, Action::requeue(Duration::ZERO)),
        Outcome::Fail(message) => {
            machine.news.push(EventKind::MachineFailed { error: message.clone() });
            machine.status.failure = Some(Failure { message: message.clone(), at: Timestamp::now() });
            (MachineState::Failed, message, Action::await_change())
        }
        Outcome::Done => (before, machine.status.reason.clone(), Action::await_change()),
        Outcome::Gone => return Ok(Action::await_change()),
    };
    let changed = state != before || reason != machine.status.reason;
    machine.status.state = state;
    machine.status.reason = reason;
    machine.status.observed_generation = machine.object.metadata.generation.unwrap_or_default();
    if state != before || machine.status.since.is_none() {
        machine.status.since = Some(Timestamp::now());
        if state == MachineState::PoweringOn {
            machine.status.boot = None;
            machine.status.install = None;
            machine.status.join_attempts = 0;
            machine.status.unreachable_since = None;
        }
    }
    set_conditions(&mut machine.status, machine.node_ready);
    if machine.object.status.as_ref() != Some(&machine.status) {
        status::replace(&context.objects(), &machine.object, machine.status.clone()).await?;
        keep_boot_table(context, &machine, state);
    }
    for news in machine.news.drain(..) {
        context.events.emit(Some(&machine.name), news);
    }
    if changed {
        let (state, reason) = (format!("{state:?}"), machine.status.reason.clone());
        context.events.emit(Some(&machine.name), EventKind::State { state, reason });
    }
    Ok(next)
}

/// `OsInstalled` and `NodeReady`, in the ecosystem's way.
fn set_conditions(status: &mut MetalMachineStatus, node_ready: Option<bool>) {
    use MachineState::{Failed, Installed};
    let installed = match status.state {
        // It may have been installed before it failed: then a later try need not begin anew.
        Failed => status.is_os_installed(),
        state => state >= Installed,
    };
    let old = std::mem::take(&mut status.conditions);
    let known = old.iter().any(|condition| condition.type_ == "NodeReady" && condition.status == "True");
    let ready = node_ready.unwrap_or(known && status.state == MachineState::Ready);
    for (type_, value) in [("OsInstalled", installed), ("NodeReady", ready)] {
        let value = if value { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == type_ && condition.status == value);
        status.conditions.push(Condition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: format!("{:?}", status.state),
            message: status.reason.clone(),
            last_transition_time: before.map_or_else(|| Time(Timestamp::now()), |old| old.last_transition_time.clone()),
            observed_generation: Some(status.observed_generation),
        });
    }
}

/// The boot services answer a machine from the moment it is powered on until its agent leaves.
fn keep_boot_table(context: &Context, machine: &Machine, state: MachineState) {
    use MachineState::{Installing, Netbooting, PoweringOn};
    let spec = &machine.hardware.spec;
    context.table.set(BootEntry {
        machine: machine.name.clone(),
        mac: spec.mac,
        address: spec.address,
        gateway: spec.gateway,
        nameservers: spec.nameservers.clone(),
        arch: spec.arch,
        boot_mode: spec.boot_mode,
        installing: matches!(state, PoweringOn | Netbooting | Installing),
    });
}

async fn load_hardware(context: &Context, machine: &MetalMachine) -> Result<Hardware, ReconcileError> {
    let name = &machine.spec.hardware;
    let found = context.objects::<Hardware>().get_opt(name).await;
    let found = found.map_err(ApiError::of(format!("Hardware {name}")))?;
    found.ok_or_else(|| ReconcileError::Missing {
        object: format!("MetalMachine {}", machine.name_any()),
        missing: format!("Hardware {name}"),
    })
}
