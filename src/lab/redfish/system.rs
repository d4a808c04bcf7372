//! The System: what it is, its power, and what it starts from.

use super::Bmc;
use super::message::RedfishError;
use crate::hardware::{BootMode, PowerState};
use crate::lab::machine::{BootOverride, Order, ResetType};
use crate::lab::qemu::BootSource;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "ComputerSystem.Reset";

/// Redfish's names of what a machine can start from; a BIOS has no HTTP boot.
fn targets(mode: BootMode) -> Vec<(&'static str, Option<BootSource>)> {
    let mut targets = vec![
        ("None", None),
        ("Pxe", Some(BootSource::Pxe)),
        ("Hdd", Some(BootSource::Disk)),
        ("Cd", Some(BootSource::Cd)),
    ];
    if mode == BootMode::Uefi {
        targets.push(("UefiHttp", Some(BootSource::UefiHttp)));
    }
    targets
}

fn mode_name(mode: BootMode) -> &'static str {
    match mode {
        BootMode::Uefi => "UEFI",
        BootMode::Bios => "Legacy",
    }
}

/// Redfish's word for the power state.
pub fn power(bmc: &Bmc) -> &'static str {
    match bmc.handle.view().power {
        PowerState::On => "On",
        PowerState::Off => "Off",
    }
}

/// `GET Systems/1`.
pub async fn read(State(bmc): State<Arc<Bmc>>) -> Response {
    let body = body(&bmc);
    ([(header::ETAG, etag(&body))], Json(body)).into_response()
}

fn body(bmc: &Bmc) -> Value {
    json!({
        "@odata.id": SYSTEM,
        "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
        "Id": "1",
        "Name": bmc.machine.name,
        "HostName": bmc.machine.name,
        "SystemType": "Physical",
        "Manufacturer": "metalgate",
        "Model": "Virtual rack",
        "SerialNumber": bmc.machine.serial,
        "UUID": bmc.machine.uuid.to_string(),
        "PowerState": power(bmc),
        "Status": {"State": "Enabled", "Health": "OK", "HealthRollup": "OK"},
        "ProcessorSummary": {"Count": bmc.cpus, "LogicalProcessorCount": bmc.cpus, "Model": "QEMU virtual CPU"},
        "MemorySummary": {"TotalSystemMemoryGiB": f64::from(bmc.memory_mib) / 1024.0},
        "Boot": boot(bmc),
        "EthernetInterfaces": {"@odata.id": format!("{SYSTEM}/EthernetInterfaces")},
        "Links": {
            "Chassis": [{"@odata.id": "/redfish/v1/Chassis/1"}],
            "ManagedBy": [{"@odata.id": "/redfish/v1/Managers/1"}],
        },
        "Actions": {format!("#{RESET}"): {
            "target": format!("{SYSTEM}/Actions/{RESET}"),
            "ResetType@Redfish.AllowableValues":
                ["On", "ForceOff", "ForceRestart", "GracefulShutdown", "PushPowerButton"],
        }},
    })
}

fn boot(bmc: &Bmc) -> Value {
    let boot = bmc.handle.view().boot;
    let targets = targets(bmc.machine.boot_mode);
    let target = targets.iter().find(|(_, source)| *source == boot.target).map_or("None", |(name, _)| name);
    let mode = mode_name(bmc.machine.boot_mode);
    json!({
        "BootSourceOverrideEnabled": boot.enabled,
        "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"],
        "BootSourceOverrideTarget": target,
        "BootSourceOverrideTarget@Redfish.AllowableValues": targets.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "BootSourceOverrideMode": mode,
        "BootSourceOverrideMode@Redfish.AllowableValues": [mode],
    })
}

/// A weak tag: it changes when anything that the resource shows does.
fn etag(body: &Value) -> String {
    let sum = Sha256::digest(body.to_string().as_bytes());
    format!("W/\"{}\"", hex::encode(&sum[..8]))
}

/// `PATCH Systems/1`: the boot override, all of it or nothing.
pub async fn change(
    State(bmc): State<Arc<Bmc>>,
    headers: HeaderMap,
    request: String,
) -> Result<StatusCode, RedfishError> {
    if let Some(wanted) = headers.get(header::IF_MATCH)
        && wanted != "*"
        && wanted.as_bytes() != etag(&body(&bmc)).as_bytes()
    {
        return Err(RedfishError::changed_meanwhile());
    }
    let request: Map<String, Value> = serde_json::from_str(&request).map_err(|_| RedfishError::malformed())?;
    let mut boot = bmc.handle.view().boot;
    for (name, value) in &request {
        match (name.as_str(), value) {
            ("Boot", Value::Object(changes)) => boot = override_from(bmc.machine.boot_mode, boot, changes)?,
            ("Boot", _) => return Err(RedfishError::bad_value(name, value)),
            _ if body(&bmc).get(name).is_some() => return Err(RedfishError::read_only(name)),
            _ => return Err(RedfishError::unknown_property(name)),
        }
    }
    tracing::info!(machine = %bmc.machine.name, ?boot, "boot override");
    carry_out(&bmc, Order::Boot(boot)).await
}

fn override_from(
    mode: BootMode,
    mut boot: BootOverride,
    changes: &Map<String, Value>,
) -> Result<BootOverride, RedfishError> {
    for (name, value) in changes {
        let refused = || RedfishError::bad_value(name, value);
        match name.as_str() {
            "BootSourceOverrideEnabled" => boot.enabled = word(value).ok_or_else(refused)?,
            "BootSourceOverrideTarget" => {
                let targets = targets(mode);
                let (_, source) = targets.iter().find(|(name, _)| value == name).ok_or_else(refused)?;
                boot.target = *source;
            }
            "BootSourceOverrideMode" if value == mode_name(mode) => (),
            "BootSourceOverrideMode" => return Err(refused()),
            _ => return Err(RedfishError::unknown_property(name)),
        }
    }
    Ok(boot)
}

/// A value of an enumeration, by its name.
fn word<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// `POST ComputerSystem.Reset`.
pub async fn reset(State(bmc): State<Arc<Bmc>>, request: String) -> Result<StatusCode, RedfishError> {
    let request: Map<String, Value> = serde_json::from_str(&request).map_err(|_| RedfishError::malformed())?;
    let value = request.get("ResetType").ok_or_else(|| RedfishError::missing_parameter(RESET, "ResetType"))?;
    let reset: ResetType = word(value).ok_or_else(|| RedfishError::bad_parameter(RESET, "ResetType", value))?;
    tracing::info!(machine = %bmc.machine.name, ?reset, "reset");
    carry_out(&bmc, Order::Reset(reset)).await
}

/// Gives the machine an order; no content means that it was carried out.
pub async fn carry_out(bmc: &Bmc, order: Order) -> Result<StatusCode, RedfishError> {
    let done = bmc.handle.order(order).await;
    done.map(|()| StatusCode::NO_CONTENT).map_err(|error| RedfishError::internal(&error.to_string()))
}
