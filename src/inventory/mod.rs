//! hardware.csv: rows with positions, then machines that cannot be wrong.
//!
//! EKS Anywhere's columns as they are, plus ours. Fed by the user's file; feeds `plan`. Pure: no clock, no network.

use crate::hardware::{Arch, BootMode, DiskSelector, MacAddr};
use crate::secret::Secret;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One row of the inventory, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Line of the row in the file, counted from 1.
    pub line: u64,
    /// DNS-1123 subdomain, unique.
    pub hostname: String,
    /// Address of the interface that the machine boots from, unique.
    pub mac: MacAddr,
    /// The machine's address with its prefix length.
    pub address: Ipv4Net,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Resolvers.
    pub nameservers: Vec<IpAddr>,
    /// What selectors match.
    pub labels: BTreeMap<String, String>,
    /// Where the operating system goes.
    pub disk: DiskSelector,
    /// 802.1Q tag of the installed system's network.
    pub vlan: Option<u16>,
    /// How it is powered on; without one the operator does it by hand.
    pub bmc: Option<BmcAccess>,
    /// Processor architecture.
    pub arch: Arch,
    /// Firmware.
    pub boot_mode: BootMode,
}

/// How to reach a machine's management controller.
#[derive(Clone, Debug, PartialEq)]
pub struct BmcAccess {
    /// Protocol.
    pub kind: BmcKind,
    /// Redfish: `https://10.0.0.5` or with port and path to one System; IPMI: `ipmi://10.0.0.5:623`.
    pub url: String,
    /// Account.
    pub username: String,
    /// Its password.
    pub password: Secret<String>,
}

/// Management protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BmcKind {
    /// DMTF Redfish over HTTPS.
    #[default]
    Redfish,
    /// IPMI 2.0 over RMCP+, through the `ipmitool` program.
    Ipmi,
}
