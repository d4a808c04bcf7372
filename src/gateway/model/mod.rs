//! The neutral model: what a gateway is to do, whatever does it. `spec::gateway` reads it out of the user's file; it is also the
//! spec of a GatewayStack in a cluster.

mod ai;
mod planes;
mod routing;

pub use ai::{Ai, AiProvider, AiProviderKind, AiRoute, AiTarget};
pub use planes::{ControlPlane, DataPlane, Database, Expose, ExposeBy, ExternalDatabase, Pki, PkiMode};
pub use routing::{
    Backend, Consumer, HeaderChanges, KeyAuth, KeyPlace, KubernetesService, Listener, ListenerTls, PathMatch,
    PathMatchBy, Protocol, Route, Service, UpstreamTls,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A gateway: who implements it, where it runs, and what it does with requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Who implements it.
    pub provider: Provider,
    /// Namespace of its planes.
    pub namespace: String,
    /// What configures the data planes.
    pub control_plane: ControlPlane,
    /// What requests go through; at least one.
    pub data_planes: Vec<DataPlane>,
    /// The certificates between the planes.
    pub pki: Pki,
    /// Where requests come in; at least one.
    pub listeners: Vec<Listener>,
    /// Where requests can go.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Which requests go where.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Who may use routes that are not open to everybody.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    /// Language models behind the gateway.
    #[serde(default)]
    pub ai: Ai,
}

/// Who implements the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// Which of them.
    pub name: ProviderName,
    /// Its version: `3.9.3`.
    pub version: String,
    /// Kong: which edition; the other providers have one only.
    #[serde(default)]
    pub edition: Edition,
    /// Its image in place of the published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Kong Enterprise: the licence, in a Secret of the gateway's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<SecretKey>,
    /// Envoy Gateway: name of the GatewayClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// The providers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderName {
    /// Kong's control plane and data planes, self-managed.
    KongHybrid,
    /// Envoy Gateway, by the Gateway API.
    EnvoyGateway,
}

/// Editions of Kong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Edition {
    /// Open source.
    #[default]
    Oss,
    /// Kong Enterprise.
    Enterprise,
}

/// A value in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret, in the gateway's namespace.
    pub secret: String,
    /// Key in it.
    pub key: String,
}

impl Gateway {
    /// The service called `name`; routes name only services that are there.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The listeners that a route is for.
    pub fn listeners_of<'g>(&'g self, route: &'g Route) -> impl Iterator<Item = &'g Listener> {
        self.listeners.iter().filter(|one| route.listeners.is_empty() || route.listeners.contains(&one.name))
    }
}
