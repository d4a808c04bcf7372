//! Off, told to boot from the network once, on. Done anew after a kill: nothing on the machine is worth keeping yet.

use super::power::{bmc, note_power, order};
use super::{Context, Machine, Outcome};
use crate::api::MachineState;
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use crate::hardware::PowerState;
use crate::power::{Bmc, BmcError, BootDevice};
use std::time::Duration;

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    context.sightings.forget(&machine.name);
    let Some(bmc) = bmc(context, machine).await? else {
        machine.status.attempts += 1;
        let mac = machine.hardware.spec.mac;
        let reason = format!("it has no BMC in the inventory: start it from the network by hand ({mac})");
        return Ok(Outcome::to(MachineState::Netbooting, reason));
    };
    match start_from_network(context, machine, bmc.as_ref()).await {
        Ok(()) => {
            machine.status.attempts += 1;
            note_power(context, machine, PowerState::On).await?;
            context.events.emit(Some(&machine.name), EventKind::PoweredOn);
            Ok(Outcome::to(MachineState::Netbooting, "powered on; waiting for its first DHCP packet"))
        }
        Err(error) if hopeless(&error) => Ok(Outcome::Fail(error.to_string())),
        Err(error) if machine.in_state() > context.limits.power => {
            Ok(Outcome::Fail(format!("{error} (for {} s)", machine.in_state().as_secs())))
        }
        Err(error) => Ok(Outcome::wait(error.to_string(), Duration::from_secs(5))),
    }
}

/// The three orders, each an event of its own.
async fn start_from_network(context: &Context, machine: &Machine, bmc: &dyn Bmc) -> Result<(), BmcError> {
    let mode = machine.hardware.spec.boot_mode;
    order(context, machine, "power off", bmc.power_off().await).await?;
    order(context, machine, "boot once from PXE", bmc.boot_once(BootDevice::Pxe, mode).await).await?;
    order(context, machine, "power on", bmc.power_on().await).await
}

/// Whether trying again cannot help before the operator changes something.
///
/// A wrong password is not tried again: BMCs lock accounts.
fn hopeless(error: &BmcError) -> bool {
    matches!(error, BmcError::Unauthorized { .. } | BmcError::Forbidden { .. } | BmcError::Unsupported { .. })
}
