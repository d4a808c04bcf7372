//! `Hardware`: a machine that exists, as the inventory describes it and as its agent saw it.

use crate::hardware::{Arch, BootMode, DiskSelector, Facts, MacAddr, PowerState};
use crate::inventory::BmcKind;
use ipnet::Ipv4Net;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// A row of the inventory. Its labels are the object's labels.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metalgate.dev",
    version = "v1alpha1",
    kind = "Hardware",
    plural = "hardware",
    shortname = "hw",
    namespaced,
    status = "HardwareStatus",
    printcolumn = r#"{"name":"MAC","type":"string","jsonPath":".spec.mac"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Power","type":"string","jsonPath":".status.power"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct HardwareSpec {
    /// Interface that the machine boots from.
    pub mac: MacAddr,
    /// The machine's address with its prefix length.
    #[schemars(with = "String")]
    pub address: Ipv4Net,
    /// Default route.
    #[schemars(with = "String")]
    pub gateway: Ipv4Addr,
    /// Resolvers.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub nameservers: Vec<IpAddr>,
    /// Where the operating system goes.
    pub disk: DiskSelector,
    /// 802.1Q tag of the installed system's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Processor architecture.
    pub arch: Arch,
    /// Firmware.
    pub boot_mode: BootMode,
    /// How it is powered on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcRef>,
}

/// How to reach the management controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmcRef {
    /// Protocol.
    pub kind: BmcKind,
    /// Address, as in [`crate::inventory::BmcAccess::url`].
    pub url: String,
    /// Secret of the same namespace with `username` and `password`.
    pub credentials: String,
}

/// What is known of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardwareStatus {
    /// Power, as the BMC said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerState>,
    /// What the agent found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// `BmcReachable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
