//! The machine's BMC: its client, orders to it, what it said.

use super::{Context, Machine};
use crate::api::{ApiError, Hardware, HardwareStatus, secrets};
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use crate::hardware::PowerState;
use crate::power::{Bmc, BmcError};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use std::sync::Arc;

/// One order to the machine's BMC, as an event and in the Hardware's status.
pub async fn order<T>(
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
pub async fn bmc(context: &Context, machine: &Machine) -> Result<Option<Arc<dyn Bmc>>, ReconcileError> {
    let Some(reference) = &machine.hardware.spec.bmc else { return Ok(None) };
    let access = secrets::bmc_access(&context.client, reference).await?;
    let unusable = |error: BmcError| ReconcileError::Missing {
        object: format!("Hardware {}", machine.name),
        missing: format!("a usable BMC ({error})"),
    };
    (context.connect)(&access).map(Some).map_err(unusable)
}

/// Notes in the Hardware's status what its BMC said last.
pub async fn note_power(context: &Context, machine: &Machine, power: PowerState) -> Result<(), ReconcileError> {
    let status = HardwareStatus { power: Some(power), ..machine.hardware.status.clone().unwrap_or_default() };
    if machine.hardware.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let name = machine.hardware.name_any();
    let patch = Patch::Merge(serde_json::json!({ "status": { "power": power } }));
    let written = context.objects::<Hardware>().patch_status(&name, &PatchParams::default(), &patch).await;
    written.map_err(ApiError::of(format!("the status of Hardware {name}")))?;
    Ok(())
}
