//! The certificates of a gateway: who signs what, kept in Secrets, renewed when two thirds of their life are over.
//!
//! `authority` is who signs, and how one is replaced without a gap; `store` is the Secrets that all of it is kept in.

mod authority;
mod store;

pub use authority::{Authorities, Kept, Stage};
pub use store::{CertificateStatus, Store};

use super::Stack;
use super::model::{Listener, Protocol};
use crate::api::ApiError;
use crate::pki::{LeafRequest, PkiError, Usage};
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Life of a listener's certificate.
const LISTENER_DAYS: u32 = 90;
/// Label of everything that belongs to a gateway.
pub const STACK_LABEL: &str = "metalgate.dev/gateway";

/// Who signs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Issuer {
    /// The authority between the planes.
    Planes,
    /// The authority of listeners, which clients of the gateway trust.
    Listeners,
    /// The certificate itself.
    Itself,
}

/// A certificate that is to be there.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its Secret: `tls.crt`, `tls.key` and, of an authority's leaf, `ca.crt` with all that are trusted.
    pub secret: String,
    /// Who signs it.
    pub issuer: Issuer,
    /// What it says.
    pub request: LeafRequest,
    /// What reads it, for people.
    pub used_by: Vec<String>,
    /// Whether it is read only when that starts.
    pub read_at_start: bool,
    /// Data planes in whose clusters it is needed.
    pub planes: Vec<String>,
    /// Whether it is needed in the control plane's cluster.
    pub here: bool,
}

/// A certificate that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The cluster of a data plane is not known.
    #[error("nobody has connected to the cluster of the data plane {0}")]
    Plane(String),
}

/// Certificates that listeners are to have of us.
pub fn of_listeners(stack: &Stack) -> Vec<Wanted> {
    let generated = stack.gateway.listeners.iter().filter_map(|listener| {
        let names = &listener.tls.as_ref()?.generate;
        let first = names.first()?;
        let (addresses, dns_names): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.parse::<IpAddr>().is_ok());
        Some(Wanted {
            secret: listener_secret(stack, &listener.name),
            issuer: Issuer::Listeners,
            request: LeafRequest {
                common_name: first.clone(),
                organizations: Vec::new(),
                dns_names: dns_names.into_iter().cloned().collect(),
                addresses: addresses.into_iter().filter_map(|address| address.parse().ok()).collect(),
                usage: Usage::Server,
                lifetime: LISTENER_DAYS * DAY,
            },
            used_by: vec![format!("listener {}", listener.name)],
            read_at_start: false,
            planes: Vec::new(),
            here: listener.protocol == Protocol::Https,
        })
    });
    generated.collect()
}

/// Secret with the certificate that is made for a listener.
pub fn listener_secret(stack: &Stack, listener: &str) -> String {
    format!("{}-listener-{listener}", stack.name)
}

/// Secret with the certificate that a listener presents, made by us or given.
pub fn secret_of_listener(stack: &Stack, listener: &Listener) -> Option<String> {
    let tls = listener.tls.as_ref()?;
    Some(tls.secret.clone().unwrap_or_else(|| listener_secret(stack, &listener.name)))
}
