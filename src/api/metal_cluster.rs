//! `MetalCluster`: the cluster as a whole.

use crate::spec::{ImageFormat, User};
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
    printcolumn = r#"{"name":"Installed","type":"integer","jsonPath":".status.installed"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MetalClusterSpec {
    /// `v1.36.4`.
    pub kubernetes_version: String,
    /// `host:port` of the API server.
    pub endpoint: String,
    /// Addresses of pods.
    pub pod_cidr: String,
    /// Addresses of services.
    pub service_cidr: String,
    /// Image of every machine, as an URL that machines can fetch.
    pub image_url: String,
    /// Sum of the image file.
    pub image_sha256: String,
    /// How the image is packed.
    pub image_format: ImageFormat,
    /// Accounts on the machines.
    pub users: Vec<User>,
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
    /// `MachinesInstalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
}
