//! The certificates between Kong's planes. The rules were measured against the TLS calls that Kong makes, see `tests/gateway`.

use super::super::Stack;
use super::super::certificates::{Issuer, Wanted};
use super::super::model::{DataPlane, PkiMode};
use crate::pki::{LeafRequest, Usage};
use std::net::IpAddr;
use std::time::Duration;

/// Name that both sides of the shared mode expect; Kong knows no other.
pub const SHARED_NAME: &str = "kong_clustering";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Secret with the control plane's certificate.
pub fn control_plane_secret(stack: &Stack) -> String {
    stack.named("cluster-cert")
}

/// Secret with a data-plane group's certificate.
pub fn data_plane_secret(stack: &Stack, plane: &str) -> String {
    match stack.gateway.pki.mode {
        PkiMode::Pki => format!("{}-cluster-cert-{plane}", stack.name),
        PkiMode::Shared => control_plane_secret(stack),
    }
}

/// The name that data planes ask the control plane for, and find in its certificate.
pub fn server_name(stack: &Stack) -> String {
    format!("{}-cluster.{}.svc.cluster.local", stack.name, stack.gateway.namespace)
}

/// What has to be there.
pub fn wanted(stack: &Stack) -> Vec<Wanted> {
    let gateway = &stack.gateway;
    let lifetime = gateway.pki.leaf_days * DAY;
    let elsewhere = |plane: &DataPlane| plane.kubeconfig.is_some().then(|| plane.name.clone());
    let deployment = |name: &str| format!("Deployment {}-{name}", stack.name);
    if gateway.pki.mode == PkiMode::Shared {
        let request = LeafRequest {
            common_name: String::from(SHARED_NAME),
            organizations: Vec::new(),
            // Where a certificate has names at all, the common name does not count.
            dns_names: vec![String::from(SHARED_NAME)],
            addresses: Vec::new(),
            usage: Usage::Both,
            lifetime,
        };
        let users = std::iter::once("control-plane").chain(gateway.data_planes.iter().map(|plane| plane.name.as_str()));
        return vec![Wanted {
            secret: control_plane_secret(stack),
            issuer: Issuer::Itself,
            request,
            used_by: users.map(deployment).collect(),
            read_at_start: true,
            planes: gateway.data_planes.iter().filter_map(elsewhere).collect(),
            here: true,
        }];
    }
    let service = |domain: &str| format!("{}-cluster{domain}", stack.name);
    let namespace = &gateway.namespace;
    let mut dns_names =
        vec![server_name(stack), service(""), service(&format!(".{namespace}")), service(&format!(".{namespace}.svc"))];
    let mut addresses = Vec::new();
    for address in &gateway.control_plane.expose.addresses {
        match address.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => dns_names.push(address.clone()),
        }
    }
    let control_plane = Wanted {
        secret: control_plane_secret(stack),
        issuer: Issuer::Planes,
        request: LeafRequest {
            common_name: server_name(stack),
            organizations: Vec::new(),
            dns_names,
            addresses,
            usage: Usage::Server,
            lifetime,
        },
        used_by: vec![deployment("control-plane")],
        read_at_start: true,
        planes: Vec::new(),
        here: true,
    };
    let data_planes = gateway.data_planes.iter().map(|plane| Wanted {
        secret: data_plane_secret(stack, &plane.name),
        issuer: Issuer::Planes,
        request: LeafRequest {
            common_name: format!("{}.{}.{namespace}", plane.name, stack.name),
            organizations: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
            lifetime,
        },
        used_by: vec![deployment(&plane.name)],
        read_at_start: true,
        planes: elsewhere(plane).into_iter().collect(),
        here: plane.kubeconfig.is_none(),
    });
    std::iter::once(control_plane).chain(data_planes).collect()
}
