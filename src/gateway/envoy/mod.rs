//! Envoy Gateway: a control plane that reads the Gateway API and makes the data planes, Envoy, itself.
//!
//! `render` makes the objects, `certificates` the ones that its own certgen job would make, `prove` looks at both planes.

pub mod certificates;
pub mod prove;
pub mod render;

use super::Stack;
use super::model::DataPlane;
use serde_json::{Value, json};

/// The data planes' image: the default of Envoy Gateway 1.9.
pub const PROXY_IMAGE: &str = "docker.io/envoyproxy/envoy:distroless-v1.39.0";
/// The controller's name in a GatewayClass.
pub const CONTROLLER: &str = "gateway.envoyproxy.io/gatewayclass-controller";
/// Port of a data plane's statistics.
pub const STATS_PORT: u16 = 19001;
/// Port of a data plane's readiness.
pub const READY_PORT: u16 = 19003;

/// The control plane's image.
pub fn image(stack: &Stack) -> String {
    let provider = &stack.gateway.provider;
    provider.image.clone().unwrap_or_else(|| format!("docker.io/envoyproxy/gateway:v{}", provider.version))
}

/// Name of the Gateway of a group of data planes.
pub fn gateway_name(stack: &Stack, plane: &DataPlane) -> String {
    format!("{}-{}", stack.name, plane.name)
}

/// Labels that Envoy Gateway gives a Gateway's data planes.
pub fn data_plane_labels(stack: &Stack, plane: &DataPlane) -> Value {
    json!({
        "gateway.envoyproxy.io/owning-gateway-name": gateway_name(stack, plane),
        "gateway.envoyproxy.io/owning-gateway-namespace": stack.gateway.namespace,
    })
}
