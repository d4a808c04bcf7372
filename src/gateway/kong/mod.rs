//! Kong in hybrid mode, self-managed: a control plane with a PostgreSQL database and the Admin API, data planes that take their
//! configuration from it over mutual TLS.
//!
//! `render` makes the objects, `certificates` says which certificates they need, `entities` what the Admin API is told, `admin`
//! speaks with it, `prove` looks at both planes.

pub mod admin;
pub mod certificates;
pub mod entities;
pub mod prove;
pub mod render;

use super::Stack;
use super::model::Edition;
use serde_json::{Value, json};

/// Port of the Admin API.
pub const ADMIN_PORT: u16 = 8001;
/// Port of the configuration's protocol.
pub const CLUSTER_PORT: u16 = 8005;
/// Port of telemetry (Kong Enterprise).
pub const TELEMETRY_PORT: u16 = 8006;
/// Port of the status API, on both planes.
pub const STATUS_PORT: u16 = 8100;
/// Ports of traffic on data planes that do not have the node's own.
pub const HTTP_PORT: u16 = 8000;
/// The same, over TLS.
pub const HTTPS_PORT: u16 = 8443;

/// The image of both planes.
pub fn image(stack: &Stack) -> String {
    let provider = &stack.gateway.provider;
    match (&provider.image, provider.edition) {
        (Some(image), _) => image.clone(),
        (None, Edition::Oss) => format!("docker.io/library/kong:{}", provider.version),
        (None, Edition::Enterprise) => format!("docker.io/kong/kong-gateway:{}", provider.version),
    }
}

/// Labels by which the control plane's pods are found.
pub fn control_plane_labels(stack: &Stack) -> Value {
    json!({"app.kubernetes.io/name": "kong-control-plane", "app.kubernetes.io/instance": stack.name})
}

/// Labels by which a group's data planes are found.
pub fn data_plane_labels(stack: &Stack, plane: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "kong-data-plane", "app.kubernetes.io/instance": stack.name,
        "metalgate.dev/data-plane": plane,
    })
}
