//! The neutral model: what a gateway is to do, whatever does it. `spec::gateway` reads it out of the user's file; it is also the
//! spec of a GatewayStack in a cluster.

use crate::names::Labels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port of the gateway's Service.
    pub port: u16,
    /// Host name that it is for; nothing: every one. `*.example.org` is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// HTTPS: the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// HTTP, with or without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Plain.
    #[serde(rename = "HTTP")]
    Http,
    /// Over TLS.
    #[serde(rename = "HTTPS")]
    Https,
}

/// The certificate of a listener: one of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// A Secret (type kubernetes.io/tls) of the gateway's namespace that somebody else keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Names of a certificate that metalgate makes and renews.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generate: Vec<String>,
}

/// Where requests can go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its name.
    pub name: String,
    /// A Service of the cluster; else `host` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesService>,
    /// A host name or address outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
    /// TLS to it; nothing: plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
}

/// A Service of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// TLS to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamTls {
    /// Whether its certificate is checked.
    pub verify: bool,
    /// The name that it is asked for, and that its certificate must have; nothing: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// ConfigMap of the gateway's namespace whose `ca.crt` is trusted; nothing: the authorities of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Listeners that it is for; nothing: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<String>,
    /// Host names that it is for; nothing: every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Paths that it is for.
    pub path: PathMatch,
    /// Methods that it is for; nothing: every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Headers that a request has to have, with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Whether the service is asked without the prefix.
    #[serde(default)]
    pub strip_prefix: bool,
    /// Whether the service is asked by the name that the client used; else by its own.
    #[serde(default = "yes")]
    pub preserve_host: bool,
    /// Changes of the request's headers.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes of the response's headers.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// Services that share its requests; at least one.
    pub backends: Vec<Backend>,
    /// Seconds until a request without an answer has failed; nothing: the provider's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// Who may use it; nothing: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<KeyAuth>,
}

fn yes() -> bool {
    true
}

/// Which paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// How `value` is compared.
    #[serde(rename = "type")]
    pub by: PathMatchBy,
    /// A path that begins with `/`, or a regular expression (RE2 and PCRE know it).
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathMatchBy {
    /// The path, or what lies below it: `/a` is for `/a` and `/a/b`, not for `/ab`.
    Prefix,
    /// The path itself.
    Exact,
    /// The whole path, by a regular expression.
    Regex,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderChanges {
    /// In place of what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Beside what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A share of a route's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Name of the service.
    pub service: String,
    /// Its share, against the sum of all.
    pub weight: u32,
}

/// Keys that open a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyAuth {
    /// Where a request has its key.
    #[serde(rename = "in")]
    pub place: KeyPlace,
    /// Name of the header or of the query's parameter.
    pub name: String,
    /// Consumers whose keys open it; at least one.
    pub consumers: Vec<String>,
}

/// Where a request has its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyPlace {
    /// A header.
    Header,
    /// A parameter of the query.
    Query,
}

/// Who may use routes that are not open to everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: SecretKey,
}

/// Language models behind the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ai {
    /// Who has models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<AiProvider>,
    /// How they are reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<AiRoute>,
}

/// Who has models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AiProvider {
    /// Its name here.
    pub name: String,
    /// Whose API it speaks.
    #[serde(rename = "type")]
    pub kind: AiProviderKind,
    /// Its address, where it is not the well-known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Our key there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretKey>,
}

/// APIs of language models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AiProviderKind {
    /// OpenAI, and what speaks as it does.
    Openai,
    /// Anthropic.
    Anthropic,
    /// Cohere.
    Cohere,
    /// Mistral.
    Mistral,
    /// Google Gemini.
    Gemini,
}

/// How models are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AiRoute {
    /// Its name.
    pub name: String,
    /// Host names that it is for; nothing: every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Path that it is for, with what lies below.
    pub path: String,
    /// Models that share its requests; at least one.
    pub targets: Vec<AiTarget>,
    /// Who may use it; nothing: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<KeyAuth>,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AiTarget {
    /// Name of the AI provider.
    pub provider: String,
    /// The model, as its provider calls it.
    pub model: String,
    /// Its share, against the sum of all.
    pub weight: u32,
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

impl Service {
    /// The name or address by which a data plane in the cluster asks for it.
    pub fn address(&self) -> String {
        match (&self.kubernetes, &self.host) {
            (Some(service), _) => format!("{}.{}.svc.cluster.local", service.name, service.namespace),
            (None, host) => host.clone().unwrap_or_default(),
        }
    }
}
