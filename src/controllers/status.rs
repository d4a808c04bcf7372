//! Writing a machine's status: read, change, replace by resource version, so that no writer undoes another's change.

use super::ReconcileError;
use crate::api::{ApiError, MetalMachine, MetalMachineStatus};
use kube::Api;
use kube::api::PostParams;

/// How often a write that lost a race is tried again.
const RACES: usize = 10;

/// Replaces the status of `machine` if it is still the one that was read.
pub async fn replace(
    api: &Api<MetalMachine>,
    machine: &MetalMachine,
    status: MetalMachineStatus,
) -> Result<MetalMachine, ReconcileError> {
    let name = machine.metadata.name.clone().unwrap_or_default();
    let changed = MetalMachine { status: Some(status), ..machine.clone() };
    let what = format!("the status of MetalMachine {name}");
    Ok(api.replace_status(&name, &PostParams::default(), &changed).await.map_err(ApiError::of(what))?)
}

/// Applies `change` to the newest status of the machine called `name`; `change` runs again after a lost race.
///
/// Whatever `change` refuses is returned as it is, and nothing is written.
pub async fn update<T, E>(
    api: &Api<MetalMachine>,
    name: &str,
    mut change: impl FnMut(&mut MetalMachineStatus) -> Result<T, E>,
) -> Result<Result<T, E>, ReconcileError> {
    for race in 0.. {
        let machine = api.get(name).await.map_err(ApiError::of(format!("MetalMachine {name}")))?;
        let mut status = machine.status.clone().unwrap_or_default();
        let result = match change(&mut status) {
            Ok(result) => result,
            Err(refusal) => return Ok(Err(refusal)),
        };
        match replace(api, &machine, status).await {
            Ok(_) => return Ok(Ok(result)),
            Err(ReconcileError::Api(error)) if error.is_conflict() && race < RACES => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the loop returns after {RACES} races")
}
