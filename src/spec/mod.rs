//! cluster.yaml: read twice, first as wire types that keep line and column and refuse unknown fields, then as the domain
//! types below, which cannot be wrong. Every mistake of the file is reported at once.
//!
//! Fed by the user's file; feeds `plan`. Pure: no clock, no network, no other file.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A cluster as the user wants it, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// DNS label; names the work directory and the objects.
    pub name: String,
    /// Kubernetes and its addresses.
    pub kubernetes: Kubernetes,
    /// The network the machines are installed over.
    pub provisioning: Provisioning,
    /// What goes on the disks.
    pub os: Os,
    /// The control-plane machines.
    pub control_plane: Group,
    /// Worker groups, in the order of the file.
    pub workers: Vec<Group>,
}

/// Kubernetes and its addresses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubernetes {
    /// `v1.36.4`: three numbers, with the `v`.
    pub version: String,
    /// Address of the API server.
    pub endpoint: Endpoint,
    /// Addresses of pods.
    pub pod_cidr: Ipv4Net,
    /// Addresses of services.
    pub service_cidr: Ipv4Net,
    /// Container network.
    pub cni: Cni,
}

/// Address of the API server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// Virtual IP, or the one control-plane machine's address.
    pub host: Ipv4Addr,
    /// TCP port.
    pub port: u16,
}

/// Container network plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// flannel, the default.
    Flannel,
    /// Cilium.
    Cilium,
    /// The user brings one.
    None,
}

/// The network the machines are installed over.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// Interface of the admin machine in that network.
    pub interface: String,
    /// Our address on it, where the interface has several; else its first IPv4 address is taken.
    pub address: Option<Ipv4Addr>,
    /// How machines get their addresses while they are installed.
    pub dhcp: DhcpMode,
    /// Port of the plain HTTP server (boot scripts, kernel, images). Default 8080.
    pub http_port: u16,
    /// Port of the agent's API, over TLS. Default 8443.
    pub agent_port: u16,
}

/// How machines get their addresses while they are installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DhcpMode {
    /// We answer the MACs of the inventory, with its addresses.
    #[default]
    Reservation,
    /// Another server gives addresses; we add the boot information (proxy DHCP).
    Proxy,
    /// Another server does all of it and points at us.
    External,
}

/// What goes on the disks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Os {
    /// Disk image.
    pub image: Image,
    /// Accounts that cloud-init makes; at least one.
    pub users: Vec<User>,
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Image {
    /// `file:` (relative to the artifact directory, or absolute), `http:` or `https:`.
    pub url: String,
    /// Sum of the file as it is downloaded; lower case hexadecimal.
    pub sha256: String,
    /// How the file is packed; by the name's ending where the spec does not say.
    pub format: ImageFormat,
}

/// How an image file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Sectors as they are.
    Raw,
    /// gzip, RFC 1952.
    Gz,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zst,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// An account on the installed system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// POSIX account name.
    pub name: String,
    /// OpenSSH public keys.
    pub ssh_authorized_keys: Vec<String>,
}

/// Machines that play one role.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// `control-plane`, or the worker group's name.
    pub name: String,
    /// How many.
    pub count: u32,
    /// Labels a machine of the inventory must carry.
    pub selector: BTreeMap<String, String>,
    /// Node labels.
    pub labels: BTreeMap<String, String>,
    /// Node taints, `key=value:Effect`.
    pub taints: Vec<String>,
}
