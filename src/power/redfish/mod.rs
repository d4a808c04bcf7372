//! DMTF Redfish (DSP0266, resources by DSP0268), with the habits of real controllers.
//!
//! Basic authentication over TLS: every BMC has it, and no session is left behind on one that allows four of them. BMCs
//! ship with certificates that nobody has signed, so none is checked, as in every tool of the field; the management
//! network is the boundary.

mod account;
mod inventory;
mod service;

pub use inventory::{Drive, Inventory, Nic};

use super::{Bmc, BmcError, BmcIdentity, BootDevice, Clock, EXTRAS, Examination, SETTLE, settle};
use crate::hardware::{BootMode, PowerState};
use crate::inventory::BmcAccess;
use async_trait::async_trait;
use serde_json::{Value, json};
use service::{Resource, Service};
use tokio::sync::OnceCell;
use url::Url;

/// A Redfish service and the one System behind it that is our machine.
#[derive(Debug)]
pub struct Redfish {
    service: Service,
    /// Path of the System, where the inventory names one.
    named: Option<String>,
    system: OnceCell<String>,
}

impl Redfish {
    /// A client for `access`; nothing is sent yet.
    pub fn new(access: &BmcAccess) -> Result<Self, BmcError> {
        let url: Url = access.url.parse().map_err(|error| BmcError::Unreachable {
            bmc: access.url.clone(),
            reason: format!("the address cannot be used: {error}"),
        })?;
        let named = Some(url.path().trim_end_matches('/')).filter(|path| path.contains("/Systems/")).map(str::to_owned);
        Ok(Self { service: Service::new(url, access)?, named, system: OnceCell::new() })
    }

    fn unsupported(&self, action: &str, reason: String) -> BmcError {
        BmcError::Unsupported { bmc: self.service.address(), action: action.to_owned(), reason }
    }

    /// Path of our machine's System: the one that the inventory names, else the only one there is.
    async fn system(&self) -> Result<&str, BmcError> {
        let find = || async {
            if let Some(named) = &self.named {
                return Ok(named.clone());
            }
            let action = "find the machine";
            let root = self.service.get(action, "/redfish/v1/").await?;
            let systems = root.body["Systems"]["@odata.id"].as_str().unwrap_or("/redfish/v1/Systems").to_owned();
            let systems = self.service.get(action, &systems).await?;
            let members = systems.body["Members"].as_array().into_iter().flatten();
            let paths: Vec<&str> = members.filter_map(|member| member["@odata.id"].as_str()).collect();
            match paths.as_slice() {
                [path] => Ok((*path).to_owned()),
                [] => Err(self.service.protocol(action, "it has no System")),
                several => {
                    let several = several.join(", ");
                    Err(self.unsupported(action, format!("it has several Systems; name one in bmc_ip: {several}")))
                }
            }
        };
        self.system.get_or_try_init(find).await.map(String::as_str)
    }

    /// The power state that a System shows.
    fn power_of(&self, action: &str, system: &Resource) -> Result<PowerState, BmcError> {
        match system.body["PowerState"].as_str() {
            Some("On" | "PoweringOn" | "Paused") => Ok(PowerState::On),
            Some("Off" | "PoweringOff") => Ok(PowerState::Off),
            other => Err(self.service.protocol(action, format!("PowerState is {other:?}"))),
        }
    }

    /// The clock of the Manager, if it shows one with its zone.
    async fn clock(&self, action: &str, system: &Resource) -> Option<Clock> {
        let manager = system.body["Links"]["ManagedBy"][0]["@odata.id"].as_str()?;
        let manager = self.service.get(action, manager).await.ok()?;
        let at = manager.body["DateTime"].as_str()?.parse().ok()?;
        Some(Clock { at, maybe_local: false })
    }

    /// `ComputerSystem.Reset`.
    async fn reset(&self, action: &str, kind: &str, wanted: PowerState) -> Result<(), BmcError> {
        if self.power_state().await? == wanted {
            return Ok(());
        }
        let system = self.system().await?;
        let resource = self.service.get(action, system).await?;
        let target = resource.body["Actions"]["#ComputerSystem.Reset"]["target"].as_str();
        let target = target.map_or_else(|| format!("{system}/Actions/ComputerSystem.Reset"), str::to_owned);
        match self.service.post(action, &target, &json!({ "ResetType": kind })).await {
            Ok(()) => {}
            Err(error @ (BmcError::Unauthorized { .. } | BmcError::Forbidden { .. })) => return Err(error),
            // A lost answer, or "it is on already": the state says whether the order was carried out.
            Err(error) if self.power_state().await? != wanted => return Err(error),
            Err(_) => {}
        }
        settle(self, &self.service.address(), wanted, SETTLE).await
    }

    /// The virtual CD drive: below the System (newer services) or below its Manager.
    async fn drive(&self) -> Result<Resource, BmcError> {
        let action = "use virtual media";
        let system = self.service.get(action, self.system().await?).await?;
        let manager = system.body["Links"]["ManagedBy"][0]["@odata.id"].as_str().map(str::to_owned);
        let mut collections: Vec<String> =
            system.body["VirtualMedia"]["@odata.id"].as_str().map(str::to_owned).into_iter().collect();
        if let Some(manager) = manager {
            let manager = self.service.get(action, &manager).await?;
            collections.extend(manager.body["VirtualMedia"]["@odata.id"].as_str().map(str::to_owned));
        }
        for collection in collections {
            let collection = self.service.get(action, &collection).await?;
            for member in collection.body["Members"].as_array().into_iter().flatten() {
                let Some(path) = member["@odata.id"].as_str() else { continue };
                let drive = self.service.get(action, path).await?;
                let types = drive.body["MediaTypes"].as_array().into_iter().flatten();
                if types.filter_map(Value::as_str).any(|kind| matches!(kind, "CD" | "DVD")) {
                    return Ok(drive);
                }
            }
        }
        Err(self.unsupported(action, String::from("it has no virtual CD drive")))
    }

    async fn drive_action(&self, action: &str, name: &str, body: Value) -> Result<(), BmcError> {
        let drive = self.drive().await?;
        let target = drive.body["Actions"][format!("#VirtualMedia.{name}")]["target"].as_str();
        let own = drive.body["@odata.id"].as_str().unwrap_or_default();
        let target = target.map_or_else(|| format!("{own}/Actions/VirtualMedia.{name}"), str::to_owned);
        self.service.post(action, &target, &body).await
    }
}

/// Annotation that lists what a machine can be told to start from.
const TARGETS: &str = "BootSourceOverrideTarget@Redfish.AllowableValues";

/// What the machine can be told to start from, where the System lists it.
fn allowed(system: &Resource) -> Option<Vec<BootDevice>> {
    let listed = system.body["Boot"][TARGETS].as_array()?;
    let known = [BootDevice::Pxe, BootDevice::UefiHttp, BootDevice::VirtualMedia, BootDevice::Disk];
    Some(known.into_iter().filter(|device| listed.iter().any(|value| value == target(*device))).collect())
}

/// Redfish's name of a boot device.
fn target(device: BootDevice) -> &'static str {
    match device {
        BootDevice::Pxe => "Pxe",
        BootDevice::UefiHttp => "UefiHttp",
        BootDevice::VirtualMedia => "Cd",
        BootDevice::Disk => "Hdd",
    }
}

#[async_trait]
impl Bmc for Redfish {
    async fn power_state(&self) -> Result<PowerState, BmcError> {
        let action = "tell the power state";
        self.power_of(action, &self.service.get(action, self.system().await?).await?)
    }

    async fn power_on(&self) -> Result<(), BmcError> {
        self.reset("power on", "On", PowerState::On).await
    }

    async fn power_off(&self) -> Result<(), BmcError> {
        self.reset("power off", "ForceOff", PowerState::Off).await
    }

    async fn boot_once(&self, device: BootDevice, mode: BootMode) -> Result<(), BmcError> {
        let action = format!("boot once from {}", target(device));
        let path = self.system().await?;
        let system = self.service.get(&action, path).await?;
        let boot = &system.body["Boot"];
        if allowed(&system).is_some_and(|allowed| !allowed.contains(&device)) {
            let reason = format!("it allows {}", boot[TARGETS]);
            return Err(self.unsupported(&action, reason));
        }
        let mut wanted = json!({
            "BootSourceOverrideTarget": target(device),
            "BootSourceOverrideEnabled": "Once",
        });
        let mode = if mode == BootMode::Uefi { "UEFI" } else { "Legacy" };
        // Told only where it would change something: some services refuse the property, some want it with every change.
        if boot.get("BootSourceOverrideMode").is_some_and(|now| now != mode) {
            wanted["BootSourceOverrideMode"] = json!(mode);
        }
        let etag = system.etag.as_deref();
        match self.service.patch(&action, path, etag, &json!({ "Boot": wanted })).await {
            Err(error @ (BmcError::Unsupported { .. } | BmcError::Failed { .. }))
                if wanted["BootSourceOverrideMode"].is_string() =>
            {
                // The mode is fixed in the firmware's own settings: the device alone is what can be told.
                tracing::warn!("the boot mode of the machine stays as it is: {error}");
                wanted.as_object_mut().map(|wanted| wanted.remove("BootSourceOverrideMode"));
                self.service.patch(&action, path, etag, &json!({ "Boot": wanted })).await
            }
            done => done,
        }
    }

    async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        self.drive_action("insert virtual media", "InsertMedia", json!({ "Image": url })).await
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        if self.drive().await?.body["Inserted"] == false {
            return Ok(());
        }
        self.drive_action("eject virtual media", "EjectMedia", json!({})).await
    }

    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        let action = "tell what it is";
        let system = self.service.get(action, self.system().await?).await?;
        let text = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let manager = system.body["Links"]["ManagedBy"][0]["@odata.id"].as_str();
        let firmware = match manager {
            Some(manager) => text(&self.service.get(action, manager).await?.body["FirmwareVersion"]),
            None => None,
        };
        let body = &system.body;
        let (vendor, model, serial) = (text(&body["Manufacturer"]), text(&body["Model"]), text(&body["SerialNumber"]));
        Ok(BmcIdentity { vendor, model, serial, firmware })
    }

    async fn examine(&self) -> Result<Examination, BmcError> {
        let action = "tell its state";
        let system = self.service.get(action, self.system().await?).await?;
        let power = self.power_of(action, &system)?;
        let (mut clock, mut role) = (None, None);
        let extras = async {
            clock = self.clock(action, &system).await;
            role = account::role(&self.service).await;
        };
        if tokio::time::timeout(EXTRAS, extras).await.is_err() {
            tracing::debug!("BMC {} has not told all of its state", self.service.address());
        }
        Ok(Examination { power, boots_from: allowed(&system), role, clock })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
