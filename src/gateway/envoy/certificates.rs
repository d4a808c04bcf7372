//! The certificates between Envoy Gateway's planes, under the names that its certgen job uses; that job never overwrites them.

use super::super::Stack;
use super::super::certificates::{Issuer, Wanted};
use crate::pki::{LeafRequest, Usage};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What has to be there. Both planes read theirs again when they change, so nothing is rolled.
pub fn wanted(stack: &Stack) -> Vec<Wanted> {
    let (gateway, namespace) = (&stack.gateway, &stack.gateway.namespace);
    let leaf = |secret: &str, usage, dns_names: Vec<String>, used_by: &str| Wanted {
        secret: secret.to_owned(),
        issuer: Issuer::Planes,
        request: LeafRequest {
            common_name: dns_names.first().cloned().unwrap_or_default(),
            organizations: Vec::new(),
            dns_names,
            addresses: Vec::new(),
            usage,
            lifetime: gateway.pki.leaf_days * DAY,
        },
        used_by: vec![used_by.to_owned()],
        read_at_start: false,
        planes: Vec::new(),
        here: true,
    };
    let server =
        ["", &format!(".{namespace}"), &format!(".{namespace}.svc"), &format!(".{namespace}.svc.cluster.local")]
            .map(|domain| format!("envoy-gateway{domain}"));
    let client = || vec![format!("*.{namespace}")];
    vec![
        leaf("envoy-gateway", Usage::Server, server.to_vec(), "Deployment envoy-gateway"),
        leaf("envoy", Usage::Client, client(), "the data planes"),
        leaf("envoy-rate-limit", Usage::Client, client(), "the rate-limit service, where there is one"),
    ]
}
