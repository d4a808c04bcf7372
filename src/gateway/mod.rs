//! The gateway in front of a cluster: a control plane, data planes, the certificates between them, and what they do with requests.
//!
//! ```text
//! model -> capabilities -> certificates -> render -> apply -> (Kong: entities) -> prove
//! ```
//!
//! `model` is the same for every provider. A provider (`kong`, `envoy`) makes objects of it; `certificates` keeps what the planes
//! trust each other by, `cluster` applies objects in order and waits until they are ready, `reconcile` is all of it once, for the
//! command line and for the manager in the cluster alike. `prove` shows that configuration and traffic really flow. Fed by `spec`.

pub mod capabilities;
pub mod certificates;
pub mod cluster;
mod definitions;
mod diff;
pub mod envoy;
pub mod kong;
pub mod model;
pub mod object;
pub mod prove;
pub mod reach;
pub mod readiness;
pub mod reconcile;
mod record;

use certificates::Wanted;
use model::{Gateway, ProviderName};
use object::Step;
use std::collections::BTreeMap;

/// A gateway with the name that its objects have.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// DNS label.
    pub name: String,
    /// What it is to do.
    pub gateway: Gateway,
}

/// Sums of certificate Secrets, by name: pods that read theirs only at their start carry it, so that another one rolls them.
pub type Sums = BTreeMap<String, String>;

impl Stack {
    /// The certificates that its planes and listeners need.
    pub fn certificates(&self) -> Vec<Wanted> {
        let mut wanted = match self.gateway.provider.name {
            ProviderName::KongHybrid => kong::certificates::wanted(self),
            ProviderName::EnvoyGateway => envoy::certificates::wanted(self),
        };
        wanted.extend(certificates::of_listeners(self));
        wanted
    }

    /// Its objects, in the order in which they have to become ready.
    ///
    /// # Errors
    /// A template that is broken.
    pub fn render(&self, sums: &Sums) -> Result<Vec<Step>, RenderError> {
        match self.gateway.provider.name {
            ProviderName::KongHybrid => kong::render::steps(self, sums),
            ProviderName::EnvoyGateway => envoy::render::steps(self),
        }
    }

    /// File of the artifact directory with the definitions of the provider's resources, where it has any.
    pub fn definitions(&self) -> Option<&'static str> {
        match self.gateway.provider.name {
            ProviderName::KongHybrid => None,
            ProviderName::EnvoyGateway => Some("envoy-gateway-crds.yaml"),
        }
    }

    /// Images of its pods.
    pub fn images(&self) -> Vec<String> {
        match self.gateway.provider.name {
            ProviderName::KongHybrid => {
                let embedded =
                    self.gateway.control_plane.database.as_ref().is_some_and(|database| database.external.is_none());
                let database = embedded.then(|| String::from(kong::render::DATABASE_IMAGE));
                std::iter::once(kong::image(self)).chain(database).collect()
            }
            ProviderName::EnvoyGateway => vec![envoy::image(self), String::from(envoy::PROXY_IMAGE)],
        }
    }

    /// Name of one of its objects.
    pub fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }
}

/// Objects that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template.
    #[error("cannot fill in the template of {what}")]
    Template {
        /// Of what.
        what: &'static str,
        /// Why.
        #[source]
        source: minijinja::Error,
    },
    /// Its YAML.
    #[error("the template of {what} makes no YAML")]
    Yaml {
        /// Of what.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
}
