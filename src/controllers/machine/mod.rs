//! MetalMachine: from powered off to an installed system that answers SSH. One file per state.
//!
//! ```text
//! Pending -> PoweringOn -> Netbooting -> Installing -> Rebooting -> Installed
//!                 ^            |             |             |
//!                 +------------+-------------+             v
//!                   (no agent, or it fell silent)        Failed  (from any state, with its reason)
//! ```
//! A state looks at the objects and the world and returns an [`Outcome`]; only this file writes the status. The agent's
//! own news (`installations.rs`) moves a machine from Netbooting to Installing and from there to Rebooting.

mod installing;
mod netbooting;
mod pending;
mod powering_on;
mod rebooting;

use super::{Context, ELSEWHERE, ReconcileError, status};
use crate::api::{Failure, Hardware, HardwareStatus, MachineState, MetalMachine, MetalMachineStatus};
use crate::event::EventKind;
use crate::hardware::PowerState;
use crate::inventory::BmcAccess;
use crate::netboot::BootEntry;
use crate::power::{Bmc, BmcError};
use crate::secret::Secret;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
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
struct Machine {
    name: String,
    object: Arc<MetalMachine>,
    hardware: Hardware,
    status: MetalMachineStatus,
}

impl Machine {
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
    if !context.manages(&object.spec.cluster).await? {
        return Ok(Action::requeue(ELSEWHERE));
    }
    let hardware = load_hardware(&context, &object).await?;
    let mut machine =
        Machine { name, status: object.status.clone().unwrap_or_default(), object: object.clone(), hardware };
    keep_boot_table(&context, &machine, machine.status.state);
    let outcome = match machine.status.state {
        MachineState::Pending => pending::step(&machine),
        MachineState::PoweringOn => powering_on::step(&context, &mut machine).await?,
        MachineState::Netbooting => netbooting::step(&context, &machine),
        MachineState::Installing => installing::step(&context, &machine),
        MachineState::Rebooting => rebooting::step(&context, &machine).await?,
        // An installed machine is never touched again by itself: what is on its disk is the user's. A failed one waits for
        // the operator to run `create` again.
        MachineState::Installed | MachineState::Failed => Outcome::Done,
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
            context.events.emit(Some(&machine.name), EventKind::MachineFailed { error: message.clone() });
            machine.status.failure = Some(Failure { message: message.clone(), at: Timestamp::now() });
            (MachineState::Failed, message, Action::await_change())
        }
        Outcome::Done => return Ok(Action::await_change()),
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
        }
    }
    set_condition(&mut machine.status);
    if machine.object.status.as_ref() != Some(&machine.status) {
        status::replace(&context.objects(), &machine.object, machine.status.clone()).await?;
        keep_boot_table(context, &machine, state);
    }
    if changed {
        let (state, reason) = (format!("{state:?}"), machine.status.reason.clone());
        context.events.emit(Some(&machine.name), EventKind::State { state, reason });
    }
    Ok(next)
}

/// `OsInstalled`, in the ecosystem's way.
fn set_condition(status: &mut MetalMachineStatus) {
    let value = if status.state == MachineState::Installed { "True" } else { "False" };
    let since = match status.conditions.first() {
        Some(old) if old.status == value => old.last_transition_time.clone(),
        _ => Time(Timestamp::now()),
    };
    status.conditions = vec![Condition {
        type_: String::from("OsInstalled"),
        status: value.to_owned(),
        reason: format!("{:?}", status.state),
        message: status.reason.clone(),
        last_transition_time: since,
        observed_generation: Some(status.observed_generation),
    }];
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
    found.map_err(ReconcileError::api(format!("Hardware {name}")))?.ok_or_else(|| ReconcileError::Missing {
        object: format!("MetalMachine {}", machine.name_any()),
        missing: format!("Hardware {name}"),
    })
}

/// One order to the machine's BMC, as an event and in the Hardware's status.
async fn order<T>(
    context: &Context,
    machine: &Machine,
    action: &str,
    result: Result<T, BmcError>,
) -> Result<T, BmcError> {
    let bmc = machine.hardware.spec.bmc.as_ref().map(|bmc| bmc.url.clone()).unwrap_or_default();
    let error = result.as_ref().err().map(ToString::to_string);
    context.events.emit(Some(&machine.name), EventKind::Power { action: action.to_owned(), bmc, error });
    result
}

/// The client of the machine's BMC, with the account from its Secret.
async fn bmc(context: &Context, machine: &Machine) -> Result<Option<Arc<dyn Bmc>>, ReconcileError> {
    let Some(reference) = &machine.hardware.spec.bmc else { return Ok(None) };
    let secrets: Api<KubeSecret> = context.objects();
    let name = &reference.credentials;
    let secret = secrets.get_opt(name).await.map_err(ReconcileError::api(format!("Secret {name}")))?;
    let missing =
        |what: String| ReconcileError::Missing { object: format!("Hardware {}", machine.name), missing: what };
    let data = secret.and_then(|secret| secret.data).ok_or_else(|| missing(format!("Secret {name}")))?;
    let field = |key: &str| {
        let bytes = data.get(key).ok_or_else(|| missing(format!("key {key} of Secret {name}")))?;
        Ok(String::from_utf8_lossy(&bytes.0).into_owned())
    };
    let access = BmcAccess {
        kind: reference.kind,
        url: reference.url.clone(),
        username: field("username")?,
        password: Secret::new(field("password")?),
    };
    let unusable = |error: BmcError| missing(format!("a usable BMC ({error})"));
    (context.connect)(&access).map(Some).map_err(unusable)
}

/// Notes in the Hardware's status what its BMC said last.
async fn note_power(context: &Context, machine: &Machine, power: PowerState) -> Result<(), ReconcileError> {
    let status = HardwareStatus { power: Some(power), ..machine.hardware.status.clone().unwrap_or_default() };
    if machine.hardware.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let name = machine.hardware.name_any();
    let patch = Patch::Merge(serde_json::json!({ "status": { "power": power } }));
    let written = context.objects::<Hardware>().patch_status(&name, &PatchParams::default(), &patch).await;
    written.map(drop).map_err(ReconcileError::api(format!("the status of Hardware {name}")))
}
