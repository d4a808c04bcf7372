//! `MetalMachine`: a machine's place in a cluster, and how far it has come.

use crate::agent::protocol::Step;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A machine's place in a cluster.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metalgate.dev",
    version = "v1alpha1",
    kind = "MetalMachine",
    shortname = "mm",
    namespaced,
    status = "MetalMachineStatus",
    printcolumn = r#"{"name":"Role","type":"string","jsonPath":".spec.role"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MetalMachineSpec {
    /// The MetalCluster it belongs to.
    pub cluster: String,
    /// The Hardware it runs on.
    pub hardware: String,
    /// Control plane or worker.
    pub role: MachineRole,
    /// `control-plane`, or the worker group's name.
    pub group: String,
    /// Secret of the same namespace with the SSH host key (`hostKey`, OpenSSH format) of the installed system.
    pub host_key: String,
    /// Node labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Node taints, `key=value:Effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

/// What the machine is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum MachineRole {
    /// Runs the API server and etcd.
    ControlPlane,
    /// Runs workloads.
    Worker,
}

/// How far a machine has come. One file of `controllers/machine/` per state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum MachineState {
    /// Nothing was done yet.
    #[default]
    Pending,
    /// Being switched off, told to boot from the network once, and switched on.
    PoweringOn,
    /// On; its firmware is to find us, load iPXE, kernel and agent.
    Netbooting,
    /// The agent writes the disk.
    Installing,
    /// The installed system starts; SSH is awaited.
    Rebooting,
    /// The installed system answered SSH with the host key that it was given.
    Installed,
    /// Kernel settings, containerd, binaries and container images are put in place over SSH.
    Preparing,
    /// kubeadm makes the cluster's first control-plane node of it.
    Initializing,
    /// kubeadm makes it a node of the cluster that is there.
    Joining,
    /// kubeadm is done; the node is not Ready yet.
    Starting,
    /// A Ready node with its labels and taints.
    Ready,
    /// Its object is being deleted: drained, taken out of the cluster, switched off.
    Deleting,
    /// Cannot go on without the operator; the failure says why.
    Failed,
}

/// How far it has come, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetalMachineStatus {
    /// The state.
    #[serde(default)]
    pub state: MachineState,
    /// What it waits for; never empty.
    #[serde(default)]
    pub reason: String,
    /// When the state was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub since: Option<Timestamp>,
    /// How many times this machine was powered on to be installed.
    #[serde(default)]
    pub attempts: u32,
    /// Hashes of what the agent may present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootCredentials>,
    /// The running installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<InstallProgress>,
    /// What was installed; set once the image was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<InstalledOs>,
    /// Why it cannot go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How many times it was tried to make it a node, since its system was installed.
    #[serde(default)]
    pub join_attempts: u32,
    /// Since when it has not answered SSH, though it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub unreachable_since: Option<Timestamp>,
    /// The machine that took its place after it had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// `OsInstalled`, `NodeReady`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Epoch of the side that wrote this, see `pivot::fence`.
    #[serde(default)]
    pub epoch: u64,
}

impl MetalMachine {
    /// Its state; one that nobody has looked at yet is Pending.
    pub fn state(&self) -> MachineState {
        self.status.as_ref().map(|status| status.state).unwrap_or_default()
    }
}

impl MetalMachineStatus {
    /// Whether it has a system of ours on its disk, also if it has failed since.
    pub fn is_os_installed(&self) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == "OsInstalled" && condition.status == "True")
    }
}

/// Hashes (SHA-256, hexadecimal) of the credentials of one boot; the credentials themselves are stored nowhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootCredentials {
    /// Of the one-time token; gone once it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
    /// Of the session's key; there once the token was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_hash: Option<String>,
}

/// The running installation, as reported last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstallProgress {
    /// The step.
    #[schemars(with = "String")]
    pub step: Step,
    /// When the agent was heard last.
    #[schemars(with = "String")]
    pub heard: Timestamp,
}

/// What is on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstalledOs {
    /// Sum of the image file.
    pub image_sha256: String,
    /// Disk it was written to.
    pub disk: String,
    /// When it was read back.
    #[schemars(with = "String")]
    pub written: Timestamp,
}

/// Why a machine cannot go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The error's whole chain.
    pub message: String,
    /// When.
    #[schemars(with = "String")]
    pub at: Timestamp,
}
