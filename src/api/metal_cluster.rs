//! `MetalCluster`: the cluster as a whole.

use super::MachineRole;
use crate::gateway::model::Gateway;
use crate::names::Labels;
use crate::spec::{Argument, Cni, DhcpMode, ImageFormat, Registries, User};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cluster as a whole.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metalgate.dev",
    version = "v1alpha1",
    kind = "MetalCluster",
    shortname = "mc",
    namespaced,
    status = "MetalClusterStatus",
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.kubernetesVersion"}"#,
    printcolumn = r#"{"name":"Machines","type":"integer","jsonPath":".status.machines"}"#,
    printcolumn = r#"{"name":"Installed","type":"integer","jsonPath":".status.installed"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.ready"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MetalClusterSpec {
    /// `v1.36.4`.
    pub kubernetes_version: String,
    /// `host:port` of the API server.
    pub endpoint: String,
    /// Whether the endpoint's host is a virtual IP, which kube-vip moves between the control-plane machines; else it is the
    /// one control-plane machine's own address.
    #[serde(default)]
    pub virtual_ip: bool,
    /// Addresses of pods.
    pub pod_cidr: String,
    /// Addresses of services.
    pub service_cidr: String,
    /// Container network.
    pub cni: Cni,
    /// Names and addresses that the API server's certificate has beyond its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cert_sans: Vec<String>,
    /// Flags of the API server beyond ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_server_extra_args: Vec<Argument>,
    /// Image of every machine.
    pub image: OsImage,
    /// Accounts on the machines.
    pub users: Vec<User>,
    /// Servers that machines take the time from; else their image decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<String>,
    /// How nodes get the container images that pods name.
    #[serde(default, skip_serializing_if = "Registries::is_empty")]
    pub registries: Registries,
    /// Which machines it is made of, the control plane first.
    pub groups: Vec<MachineGroup>,
    /// How machines are installed.
    pub provisioning: Provisioning,
    /// The gateway in front of it, which its manager keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

/// The image that is written to disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OsImage {
    /// Its name on our HTTP server, below `/images/`.
    pub name: String,
    /// Sum of the file.
    pub sha256: String,
    /// How it is packed.
    pub format: ImageFormat,
}

/// Machines that play one role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineGroup {
    /// `control-plane`, or the worker group's name.
    pub name: String,
    /// What they are.
    pub role: MachineRole,
    /// How many.
    pub count: u32,
    /// Labels that their Hardware carries.
    pub selector: Labels,
    /// Node labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Node taints, `key=value:Effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

/// How machines are installed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// How machines get their addresses while they are installed.
    pub dhcp: DhcpMode,
    /// Port of the plain HTTP server.
    pub http_port: u16,
    /// Port of the agent's API.
    pub agent_port: u16,
}

/// Where the cluster stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetalClusterStatus {
    /// Machines that belong to it.
    #[serde(default)]
    pub machines: u32,
    /// Machines whose operating system is installed and verified over SSH.
    #[serde(default)]
    pub installed: u32,
    /// Machines that are Ready nodes.
    #[serde(default)]
    pub ready: u32,
    /// Sum of the container network's manifest that was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_manifest: Option<String>,
    /// How the gateway is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// `MachinesInstalled`, `ControlPlaneInitialized`, `NetworkApplied`, `GroupsComplete`, `Ready`; with a gateway `GatewayReady`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Epoch of the side that wrote this, see `pivot::fence`.
    #[serde(default)]
    pub epoch: u64,
}

/// How a cluster's gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Generation of the spec that this speaks of.
    pub observed_generation: i64,
    /// Whether everything is in place.
    pub ready: bool,
    /// What is waited for, or went wrong.
    pub message: String,
}
