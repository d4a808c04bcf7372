//! What a BMC knows of its machine's parts, without starting it: network cards, disks, processor, firmware.
//!
//! BMCs differ in what they know, and many know more while the machine is on. What one does not have is left out.

use super::Redfish;
use crate::hardware::{Arch, BootMode, MacAddr, PowerState};
use crate::power::{Bmc, BmcError};
use serde_json::Value;

/// Members of a collection that are looked at; a machine has fewer.
const MOST: usize = 64;

/// A machine's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Its power state.
    pub power: PowerState,
    /// Its processors' architecture.
    pub arch: Option<Arch>,
    /// How it boots.
    pub boot_mode: Option<BootMode>,
    /// Its network cards' ports.
    pub nics: Vec<Nic>,
    /// Its disks.
    pub drives: Vec<Drive>,
}

/// A port of a network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its address.
    pub mac: MacAddr,
    /// Whether there is a link, where that is known.
    pub link: Option<bool>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Vendor's model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Size.
    pub bytes: Option<u64>,
}

impl Redfish {
    /// Asks for all of it.
    ///
    /// # Errors
    /// The BMC does not answer, refuses the account, or has no System.
    pub async fn inventory(&self) -> Result<Inventory, BmcError> {
        let action = "tell what the machine has";
        let power = self.power_state().await?;
        let system = self.service.get(action, self.system().await?).await?.body;
        let boot_mode = match system["Boot"]["BootSourceOverrideMode"].as_str() {
            Some("UEFI") => Some(BootMode::Uefi),
            Some("Legacy") => Some(BootMode::Bios),
            _ => None,
        };
        let interfaces = self.members(&system["EthernetInterfaces"]).await?;
        let processors = self.members(&system["Processors"]).await?;
        let mut drives = Vec::new();
        for storage in self.members(&system["Storage"]).await? {
            for drive in storage["Drives"].as_array().into_iter().flatten().take(MOST) {
                drives.extend(self.linked(drive).await?);
            }
        }
        Ok(Inventory {
            power,
            arch: processors.iter().find_map(arch),
            boot_mode,
            nics: interfaces.iter().filter_map(nic).collect(),
            drives: drives.iter().map(drive).collect(),
        })
    }

    /// The members of a collection that a resource has a link to.
    async fn members(&self, link: &Value) -> Result<Vec<Value>, BmcError> {
        let mut members = Vec::new();
        if let Some(collection) = self.linked(link).await? {
            for member in collection["Members"].as_array().into_iter().flatten().take(MOST) {
                members.extend(self.linked(member).await?);
            }
        }
        Ok(members)
    }

    /// What a link leads to. Where there is nothing, or the BMC cannot show it, that part of the machine stays unknown.
    async fn linked(&self, link: &Value) -> Result<Option<Value>, BmcError> {
        let Some(path) = link["@odata.id"].as_str() else { return Ok(None) };
        match self.service.get("tell what the machine has", path).await {
            Ok(resource) => Ok(Some(resource.body)),
            Err(error @ (BmcError::Unreachable { .. } | BmcError::Unauthorized { .. })) => Err(error),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(None)
            }
        }
    }
}

fn nic(interface: &Value) -> Option<Nic> {
    // The card's own address: the other one may be a bond's, and what boots from the network is the card.
    let address = ["PermanentMACAddress", "MACAddress"].iter().filter_map(|name| interface[name].as_str());
    let mac = address.filter_map(|mac| mac.parse().ok()).find(|mac: &MacAddr| mac.0 != [0; 6])?;
    let link = match interface["LinkStatus"].as_str() {
        Some("LinkUp") => Some(true),
        Some("LinkDown" | "NoLink") => Some(false),
        _ => None,
    };
    Some(Nic { mac, link })
}

fn arch(processor: &Value) -> Option<Arch> {
    match (processor["InstructionSet"].as_str(), processor["ProcessorArchitecture"].as_str()) {
        (Some("x86-64"), _) | (None, Some("x86")) => Some(Arch::Amd64),
        (Some("ARM-A64"), _) | (None, Some("ARM")) => Some(Arch::Arm64),
        _ => None,
    }
}

fn drive(drive: &Value) -> Drive {
    let text = |name: &str| drive[name].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    Drive { model: text("Model"), serial: text("SerialNumber"), bytes: drive["CapacityBytes"].as_u64() }
}
