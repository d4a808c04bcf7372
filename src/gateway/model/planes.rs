//! Control plane, data planes, and what they trust each other by.

use super::SecretKey;
use crate::names::Labels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What configures the data planes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// How many.
    pub replicas: u32,
    /// Labels of the nodes that it may run on.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub node_selector: Labels,
    /// How data planes of other clusters reach it.
    pub expose: Expose,
    /// Where Kong keeps its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
}

/// A PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Where it is; nothing: an embedded one, a single pod without a copy, for labs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalDatabase>,
}

/// A PostgreSQL server that somebody else runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDatabase {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Name of the database.
    pub name: String,
    /// Whether TLS is used, and the server's certificate checked.
    pub tls: bool,
    /// The account's password.
    pub password: SecretKey,
}

/// What requests go through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlane {
    /// Name of the group.
    pub name: String,
    /// How many.
    pub replicas: u32,
    /// Labels of the nodes that they may run on.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub node_selector: Labels,
    /// How clients reach it.
    pub expose: Expose,
    /// Kubeconfig of another cluster that they run in; nothing: the control plane's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<SecretKey>,
}

/// How a plane is reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// By what.
    #[serde(rename = "type")]
    pub by: ExposeBy,
    /// NodePort: the port of plain HTTP (of the control plane: of its configuration's protocol); nothing: Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_node_port: Option<u16>,
    /// NodePort: the port of HTTPS (of the control plane: of telemetry).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_node_port: Option<u16>,
    /// Addresses that lead to it, by which others know it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// Ways to reach a plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposeBy {
    /// Only from within the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// By a port of every node.
    NodePort,
    /// By whatever gives the cluster load balancers.
    LoadBalancer,
    /// By the nodes' own ports.
    HostNetwork,
}

/// The certificates between the planes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pki {
    /// Who trusts whom.
    pub mode: PkiMode,
    /// Life of an authority, in days.
    pub ca_days: u32,
    /// Life of a certificate, in days; renewed when two thirds are over.
    pub leaf_days: u32,
}

/// How planes trust each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PkiMode {
    /// Whoever has a certificate of the gateway's own authority.
    #[default]
    Pki,
    /// Kong's older way: both planes have the one certificate.
    Shared,
}
