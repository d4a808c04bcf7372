//! `kind: GatewayStack`, and `spec.gateway` of a cluster, as they are written.

#![allow(dead_code, reason = "only the types' shapes are used")]

use super::{Metadata, Text};
use crate::gateway::model::{
    AiProvider, Consumer, Edition, ExposeBy, KeyPlace, Listener, PathMatchBy, PkiMode, ProviderName, SecretKey,
};
use crate::spec::cluster::{API_VERSION, GATEWAY_KIND};
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// A gateway of metalgate, for any cluster.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", title = "GatewayStack")]
pub(super) struct Document {
    /// Version of this format.
    #[schemars(extend("const" = API_VERSION))]
    api_version: String,
    /// What the file describes.
    #[schemars(extend("const" = GATEWAY_KIND))]
    kind: String,
    metadata: Metadata,
    spec: Gateway,
}

/// The gateway in front of a cluster.
#[derive(JsonSchema)]
pub(super) struct Gateway {
    provider: Provider,
    /// Namespace of its planes; the provider's own by default.
    namespace: Option<String>,
    planes: Planes,
    pki: Option<Pki>,
    /// Where requests come in.
    #[schemars(length(min = 1))]
    listeners: Vec<Listener>,
    /// Where requests can go.
    services: Option<Vec<Service>>,
    /// Which requests go where.
    routes: Option<Vec<Route>>,
    /// Who may use routes that are not open to everybody.
    consumers: Option<Vec<Consumer>>,
    ai: Option<Ai>,
}

/// Who implements the gateway.
#[derive(JsonSchema)]
struct Provider {
    name: ProviderName,
    /// Its version: 3.9.3.
    version: Option<String>,
    options: Option<ProviderOptions>,
}

/// What only one of the providers knows.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ProviderOptions {
    /// Kong: which edition.
    edition: Option<Edition>,
    /// Kong: its image in place of the published one, with tag or digest.
    image: Option<String>,
    /// Kong Enterprise: the licence, in a Secret of the gateway's namespace.
    license: Option<SecretKey>,
    /// Envoy Gateway: name of the GatewayClass.
    class_name: Option<String>,
}

/// What the gateway is made of.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Planes {
    control_plane: Option<ControlPlane>,
    /// What requests go through.
    #[schemars(length(min = 1))]
    data_planes: Vec<DataPlane>,
}

/// What configures the data planes.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ControlPlane {
    /// How many.
    #[schemars(range(min = 1), extend("default" = 1))]
    replicas: Option<u32>,
    /// Labels of the nodes that it may run on.
    node_selector: Option<BTreeMap<String, Text>>,
    expose: Option<ExposedControlPlane>,
    database: Option<Database>,
}

/// How data planes of other clusters reach the control plane.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ExposedControlPlane {
    r#type: ExposeBy,
    /// NodePort: the port of the configuration's protocol.
    #[schemars(range(min = 30_000, max = 32_767))]
    config_node_port: Option<u16>,
    /// NodePort: the port of telemetry.
    #[schemars(range(min = 30_000, max = 32_767))]
    telemetry_node_port: Option<u16>,
    /// Addresses that lead to it, by which others know it.
    addresses: Option<Vec<String>>,
}

/// Where Kong keeps its configuration: `embedded: true` for a lab, or `url` and `password`.
#[derive(JsonSchema)]
struct Database {
    /// A single pod without a copy.
    embedded: Option<bool>,
    /// A PostgreSQL server: postgres://user@host:port/name?sslmode=require.
    url: Option<String>,
    /// The account's password, in a Secret of the gateway's namespace.
    password: Option<SecretKey>,
}

/// What requests go through.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct DataPlane {
    /// Name of the group.
    name: String,
    /// How many.
    #[schemars(range(min = 1), extend("default" = 1))]
    replicas: Option<u32>,
    /// Labels of the nodes that they may run on.
    node_selector: Option<BTreeMap<String, Text>>,
    expose: Option<ExposedDataPlane>,
    /// Kubeconfig of another cluster that they run in.
    kubeconfig: Option<SecretKey>,
}

/// How clients reach a data plane.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct ExposedDataPlane {
    r#type: ExposeBy,
    /// NodePort: the port of plain HTTP.
    #[schemars(range(min = 30_000, max = 32_767))]
    http_node_port: Option<u16>,
    /// NodePort: the port of HTTPS.
    #[schemars(range(min = 30_000, max = 32_767))]
    https_node_port: Option<u16>,
    /// Addresses that lead to it, by which others know it.
    addresses: Option<Vec<String>>,
}

/// The certificates between the planes.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Pki {
    mode: Option<PkiMode>,
    /// Life of an authority, in days.
    ca_days: Option<u32>,
    /// Life of a certificate, in days; renewed when two thirds are over.
    leaf_days: Option<u32>,
}

/// Where requests can go: `kubernetes` or `host`.
#[derive(JsonSchema)]
struct Service {
    /// Its name.
    name: String,
    kubernetes: Option<KubernetesService>,
    /// A host name or address outside of the cluster.
    host: Option<String>,
    /// TCP port.
    #[schemars(range(min = 1))]
    port: u16,
    tls: Option<UpstreamTls>,
}

/// A Service of the cluster.
#[derive(JsonSchema)]
struct KubernetesService {
    /// Its namespace.
    #[schemars(extend("default" = "default"))]
    namespace: Option<String>,
    /// Its name.
    name: String,
}

/// TLS to a service.
#[derive(JsonSchema)]
struct UpstreamTls {
    /// Whether its certificate is checked.
    #[schemars(extend("default" = true))]
    verify: Option<bool>,
    /// The name that it is asked for, and that its certificate must have.
    sni: Option<String>,
    /// ConfigMap of the gateway's namespace whose `ca.crt` is trusted.
    ca: Option<String>,
}

/// Which requests go where.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Route {
    /// Its name.
    name: String,
    /// Listeners that it is for; all by default.
    listeners: Option<Vec<String>>,
    /// Host names that it is for; every one by default.
    hosts: Option<Vec<String>>,
    path: Option<PathMatch>,
    /// Methods that it is for; every one by default.
    methods: Option<Vec<String>>,
    /// Headers that a request has to have, with this value.
    headers: Option<BTreeMap<String, Text>>,
    /// Whether the service is asked without the prefix.
    #[schemars(extend("default" = false))]
    strip_prefix: Option<bool>,
    /// Whether the service is asked by the name that the client used; else by its own.
    #[schemars(extend("default" = true))]
    preserve_host: Option<bool>,
    /// Changes of the request's headers.
    request_headers: Option<HeaderChanges>,
    /// Changes of the response's headers.
    response_headers: Option<HeaderChanges>,
    /// Seconds until a request without an answer has failed.
    #[schemars(range(min = 1))]
    timeout_seconds: Option<u32>,
    auth: Option<KeyAuth>,
    /// Services that share its requests.
    #[schemars(length(min = 1))]
    backends: Vec<Backend>,
}

/// Which paths.
#[derive(JsonSchema)]
struct PathMatch {
    #[schemars(extend("default" = "prefix"))]
    r#type: Option<PathMatchBy>,
    /// A path that begins with `/`, or a regular expression for one.
    #[schemars(pattern("^/"))]
    value: String,
}

/// Changes of headers.
#[derive(JsonSchema)]
struct HeaderChanges {
    /// In place of what is there.
    set: Option<BTreeMap<String, Text>>,
    /// Beside what is there.
    add: Option<BTreeMap<String, Text>>,
    /// Taken away.
    remove: Option<Vec<String>>,
}

/// A share of a route's requests.
#[derive(JsonSchema)]
struct Backend {
    /// Name of the service.
    service: String,
    /// Its share, against the sum of all.
    #[schemars(extend("default" = 1))]
    weight: Option<u32>,
}

/// Keys that open a route.
#[derive(JsonSchema)]
struct KeyAuth {
    #[schemars(extend("default" = "header"))]
    r#in: Option<KeyPlace>,
    /// Name of the header or of the query's parameter.
    #[schemars(extend("default" = "apikey"))]
    name: Option<String>,
    /// Consumers whose keys open it.
    #[schemars(length(min = 1))]
    consumers: Vec<String>,
}

/// Language models behind the gateway.
#[derive(JsonSchema)]
struct Ai {
    /// Who has models.
    providers: Option<Vec<AiProvider>>,
    /// How they are reached.
    routes: Option<Vec<AiRoute>>,
}

/// How models are reached.
#[derive(JsonSchema)]
struct AiRoute {
    /// Its name.
    name: String,
    /// Host names that it is for; every one by default.
    hosts: Option<Vec<String>>,
    /// Path that it is for, with what lies below.
    #[schemars(pattern("^/"))]
    path: String,
    /// Models that share its requests.
    #[schemars(length(min = 1))]
    targets: Vec<AiTarget>,
    auth: Option<KeyAuth>,
}

/// A model.
#[derive(JsonSchema)]
struct AiTarget {
    /// Name of the AI provider.
    provider: String,
    /// The model, as its provider calls it.
    model: String,
    /// Its share, against the sum of all.
    #[schemars(range(min = 1), extend("default" = 1))]
    weight: Option<u32>,
}
