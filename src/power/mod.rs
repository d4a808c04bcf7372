//! Power and boot order of a machine, through its BMC.
//!
//! One trait, [`Bmc`]; `redfish` and `ipmi` speak to real controllers, `fake` misbehaves on request in tests. Fed by the
//! Hardware objects; driven by `controllers`. Every call ends within its timeout, and each machine has a client of its
//! own, so that one dead BMC holds up nobody else.

#[cfg(test)]
pub(crate) mod fake;
mod ipmi;
mod redfish;

pub use ipmi::Ipmi;
pub use redfish::{Drive, Inventory, Nic, Redfish};

use crate::hardware::{BootMode, PowerState};
use crate::inventory::{BmcAccess, BmcKind};
use async_trait::async_trait;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// How long a BMC may take until it reports the power state that it was told to bring about.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a BMC may take to tell what it need not tell. Reading the accounts of a slow one takes a second for each.
const EXTRAS: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(1);

/// The client of a machine's BMC. Nothing is sent yet.
pub fn connect(access: &BmcAccess) -> Result<Arc<dyn Bmc>, BmcError> {
    Ok(match access.kind {
        BmcKind::Redfish => Arc::new(Redfish::new(access)?),
        BmcKind::Ipmi => Arc::new(Ipmi::new(access)?),
    })
}

/// Waits until `bmc` reports `wanted`, for `patience` at most: many BMCs take an order first and carry it out later.
async fn settle(bmc: &dyn Bmc, address: &str, wanted: PowerState, patience: Duration) -> Result<(), BmcError> {
    let started = tokio::time::Instant::now();
    while bmc.power_state().await? != wanted {
        if started.elapsed() > patience {
            return Err(BmcError::Failed {
                bmc: address.to_owned(),
                action: format!("power {}", if wanted == PowerState::On { "on" } else { "off" }),
                reason: format!("it took the order, but reports another state {} s later", patience.as_secs()),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Where the machine starts from, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// PXE: DHCP and TFTP.
    Pxe,
    /// UEFI HTTP boot.
    UefiHttp,
    /// Virtual CD.
    VirtualMedia,
    /// The first disk.
    Disk,
}

/// What a BMC says of itself and its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BmcIdentity {
    /// Manufacturer of the machine.
    pub vendor: Option<String>,
    /// Model of the machine.
    pub model: Option<String>,
    /// Serial number of the machine.
    pub serial: Option<String>,
    /// The BMC's firmware version.
    pub firmware: Option<String>,
}

/// What can be learnt of a BMC before anything is ordered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// The machine's power state.
    pub power: PowerState,
    /// What the machine can be told to start from once; `None` where the BMC does not tell.
    pub boots_from: Option<Vec<BootDevice>>,
    /// What our account may do; `None` where the BMC does not tell.
    pub role: Option<Role>,
    /// The BMC's clock; `None` where it does not tell.
    pub clock: Option<Clock>,
}

/// What an account may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// By the BMC's name.
    pub name: String,
    /// Whether that is enough to switch the power and to set what the machine starts from.
    pub suffices: bool,
}

/// A BMC's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows.
    pub at: Timestamp,
    /// Whether it may be local time: the BMC does not say which zone it counts in.
    pub maybe_local: bool,
}

/// What went wrong between us and a BMC; `bmc` is its address, never its password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BmcError {
    /// No connection: wrong address, cable, firewall, or the BMC hangs.
    #[error("BMC {bmc} does not answer: {reason}; check bmc_ip and the management network")]
    Unreachable {
        /// Address.
        bmc: String,
        /// The last attempt's reason.
        reason: String,
    },
    /// The account or its password is wrong.
    #[error("BMC {bmc} refuses user `{user}`: check bmc_username and bmc_password")]
    Unauthorized {
        /// Address.
        bmc: String,
        /// Account name.
        user: String,
    },
    /// The account may log in but not do this.
    #[error("BMC {bmc}: user `{user}` lacks the privilege to {action}; give it the Operator role or more")]
    Forbidden {
        /// Address.
        bmc: String,
        /// Account name.
        user: String,
        /// What was tried.
        action: String,
    },
    /// The BMC cannot do what was asked.
    #[error("BMC {bmc} cannot {action}: {reason}")]
    Unsupported {
        /// Address.
        bmc: String,
        /// What was tried.
        action: String,
        /// Its own words.
        reason: String,
    },
    /// It tried and failed, or is busy; the next time may be better.
    #[error("BMC {bmc} failed to {action}: {reason}")]
    Failed {
        /// Address.
        bmc: String,
        /// What was tried.
        action: String,
        /// Its own words.
        reason: String,
    },
    /// It answered something that its protocol does not allow.
    #[error("BMC {bmc} answered nonsense to {action}: {reason}")]
    Protocol {
        /// Address.
        bmc: String,
        /// What was tried.
        action: String,
        /// What came back.
        reason: String,
    },
}

/// A machine's management controller.
#[async_trait]
pub trait Bmc: Send + Sync {
    /// The machine's power state now.
    async fn power_state(&self) -> Result<PowerState, BmcError>;
    /// Powers on; fine if it is on already.
    async fn power_on(&self) -> Result<(), BmcError>;
    /// Cuts the power at once; fine if it is off already.
    async fn power_off(&self) -> Result<(), BmcError>;
    /// Makes the next start, and only that one, come from `device`.
    async fn boot_once(&self, device: BootDevice, mode: BootMode) -> Result<(), BmcError>;
    /// Puts the image at `url` into the virtual CD drive.
    async fn insert_media(&self, url: &str) -> Result<(), BmcError>;
    /// Empties the virtual CD drive; fine if it is empty already.
    async fn eject_media(&self) -> Result<(), BmcError>;
    /// What it is.
    async fn identity(&self) -> Result<BmcIdentity, BmcError>;
    /// What it can do, and what we may do there; nothing is changed. Succeeds with the power state alone.
    async fn examine(&self) -> Result<Examination, BmcError> {
        let power = self.power_state().await?;
        Ok(Examination { power, boots_from: None, role: None, clock: None })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
