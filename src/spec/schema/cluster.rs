//! `kind: Cluster`, as it is written.

#![allow(dead_code, reason = "only the types' shapes are used")]

use super::{Metadata, Text, gateway};
use crate::spec::cluster::{API_VERSION, MAX_MACHINES, POD_CIDR, SERVICE_CIDR};
use crate::spec::{Cni, DhcpMode, ImageFormat, Registries};
use schemars::JsonSchema;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A cluster of metalgate.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", title = "Cluster")]
pub(super) struct Document {
    /// Version of this format.
    #[schemars(extend("const" = API_VERSION))]
    api_version: String,
    /// What the file describes.
    #[schemars(extend("const" = "Cluster"))]
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

/// What the cluster is to be.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Spec {
    kubernetes: Kubernetes,
    provisioning: Provisioning,
    os: Os,
    control_plane: ControlPlane,
    /// Groups of workers.
    workers: Option<Vec<Workers>>,
    registries: Option<Registries>,
    gateway: Option<gateway::Gateway>,
}

/// Kubernetes and its addresses.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Kubernetes {
    /// Three numbers, with the `v`: v1.36.4.
    #[schemars(pattern(r"^v1\.[0-9]+\.[0-9]+$"))]
    version: String,
    endpoint: Endpoint,
    /// Addresses of pods; every node takes a /24 of it.
    #[schemars(rename = "podCIDR", extend("default" = POD_CIDR))]
    pod_cidr: Option<Network>,
    /// Addresses of services.
    #[schemars(rename = "serviceCIDR", extend("default" = SERVICE_CIDR))]
    service_cidr: Option<Network>,
    cni: Option<CniChoice>,
    /// Names and addresses that the API server's certificate has besides its own.
    #[schemars(rename = "certSANs")]
    cert_sans: Option<Vec<String>>,
    /// Flags of kube-apiserver.
    api_server_extra_args: Option<Vec<Argument>>,
}

/// A flag of kube-apiserver.
#[derive(JsonSchema)]
struct Argument {
    /// Without its dashes: oidc-issuer-url.
    name: String,
    /// What it is set to.
    value: Text,
}

/// An IPv4 network: 10.244.0.0/16.
#[derive(JsonSchema)]
#[schemars(inline)]
struct Network(#[schemars(pattern(r"^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+/[0-9]+$"))] String);

/// Address of the API server.
#[derive(JsonSchema)]
struct Endpoint {
    /// A virtual IP that kube-vip holds, or the address of the one control-plane machine.
    host: Ipv4Addr,
    /// TCP port.
    #[schemars(range(min = 1), extend("default" = 6443))]
    port: Option<u16>,
    /// A load balancer of your own has this address: no machine gets it, and kube-vip is left out.
    #[schemars(extend("default" = false))]
    external: Option<bool>,
}

/// Container network.
#[derive(JsonSchema)]
struct CniChoice {
    name: Cni,
}

/// The network that the machines are installed over.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Provisioning {
    /// Interface of the admin machine in that network; left out, it is the one that has an address there.
    #[schemars(length(min = 1, max = 15))]
    interface: Option<String>,
    /// Our address on it, where the interface has several.
    address: Option<Ipv4Addr>,
    dhcp: Option<Dhcp>,
    /// Port of the plain HTTP server: boot scripts, kernel, images.
    #[schemars(range(min = 1), extend("default" = 8080))]
    http_port: Option<u16>,
    /// Port of the agent's API, over TLS.
    #[schemars(range(min = 1), extend("default" = 8443))]
    agent_port: Option<u16>,
}

/// How machines get their addresses while they are installed.
#[derive(JsonSchema)]
struct Dhcp {
    #[schemars(extend("default" = "reservation"))]
    mode: Option<DhcpMode>,
}

/// What goes on the disks.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Os {
    image: Image,
    /// Accounts that cloud-init makes.
    #[schemars(length(min = 1))]
    users: Vec<User>,
    /// Time servers of the installed systems.
    ntp_servers: Option<Vec<String>>,
}

/// A disk image.
#[derive(JsonSchema)]
struct Image {
    /// `file:` (relative to the artifact directory, or absolute), `http:` or `https:`.
    #[schemars(pattern("^(file|https?):"))]
    url: String,
    /// Sum of the file as it is downloaded, as `sha256sum` prints it.
    #[schemars(pattern("^[0-9A-Fa-f]{64}$"))]
    sha256: String,
    /// How the file is packed, where its ending does not say.
    format: Option<ImageFormat>,
}

/// An account on the installed system.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct User {
    /// POSIX account name.
    #[schemars(pattern("^[a-z_][-a-z0-9_]{0,31}$"))]
    name: String,
    /// OpenSSH public keys.
    #[schemars(length(min = 1))]
    ssh_authorized_keys: Vec<String>,
}

/// The control-plane machines.
#[derive(JsonSchema)]
struct ControlPlane {
    /// How many; an odd number.
    #[schemars(range(min = 1, max = MAX_MACHINES))]
    count: u32,
    /// Labels that a machine of the inventory must carry.
    #[schemars(extend("minProperties" = 1))]
    selector: BTreeMap<String, Text>,
    /// Node labels.
    labels: Option<BTreeMap<String, Text>>,
    /// Node taints: `key=value:NoSchedule`.
    taints: Option<Vec<String>>,
}

/// A group of workers.
#[derive(JsonSchema)]
struct Workers {
    /// Its name, a DNS label.
    name: String,
    /// How many.
    #[schemars(range(min = 1, max = MAX_MACHINES))]
    count: u32,
    /// Labels that a machine of the inventory must carry.
    #[schemars(extend("minProperties" = 1))]
    selector: BTreeMap<String, Text>,
    /// Node labels.
    labels: Option<BTreeMap<String, Text>>,
    /// Node taints: `key=value:NoSchedule`.
    taints: Option<Vec<String>>,
}
