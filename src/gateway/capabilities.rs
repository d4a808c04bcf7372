//! What a provider can do. What it cannot is refused where the file is read, with the place of the field: nothing that a user
//! asked for is dropped in silence.

use super::model::{Edition, Provider, ProviderName};

/// What not every provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Kong's older way of trust.
    SharedPki,
    /// Data planes of other clusters reach the control plane.
    ExposedControlPlane,
    /// Data planes in other clusters.
    RemoteDataPlane,
    /// A database of the control plane.
    Database,
    /// An edition that is not open source.
    Edition,
    /// A licence.
    License,
    /// Another image than the published one.
    Image,
    /// The name of the GatewayClass.
    ClassName,
    /// Two listeners that speak the same protocol.
    SeveralListenersOfAProtocol,
    /// Backends of one route with different TLS.
    MixedBackends,
    /// TLS whose certificate is checked, to a service that is asked by the client's name.
    VerifiedTlsByClientsName,
    /// Language models.
    Ai,
    /// A route to several models.
    WeightedAi,
}

impl Provider {
    /// Why it cannot do something; nothing if it can.
    pub fn refuses(&self, feature: Feature) -> Option<&'static str> {
        match self.name {
            ProviderName::KongHybrid => kong(self.edition, feature),
            ProviderName::EnvoyGateway => envoy(feature),
        }
    }
}

impl ProviderName {
    /// As it is written in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KongHybrid => "kong-hybrid",
            Self::EnvoyGateway => "envoy-gateway",
        }
    }
}

fn kong(edition: Edition, feature: Feature) -> Option<&'static str> {
    match feature {
        Feature::ClassName => Some("Kong is configured by its Admin API, not by the Gateway API"),
        Feature::SeveralListenersOfAProtocol => Some("a route of Kong cannot tell two ports of one protocol apart"),
        Feature::MixedBackends => Some("the targets of a Kong upstream share one protocol and one TLS configuration"),
        Feature::VerifiedTlsByClientsName => {
            Some("Kong asks for the certificate of the name that it sends: write `preserveHost: false`")
        }
        Feature::License if edition == Edition::Oss => Some("the open-source edition has no licence"),
        Feature::WeightedAi if edition == Edition::Oss => {
            Some("the plugin ai-proxy has one target; ai-proxy-advanced belongs to Kong Enterprise")
        }
        _ => None,
    }
}

fn envoy(feature: Feature) -> Option<&'static str> {
    match feature {
        Feature::SharedPki => Some("its planes always trust an authority"),
        Feature::ExposedControlPlane | Feature::RemoteDataPlane => {
            Some("its control plane makes the data planes itself, in its own cluster")
        }
        Feature::Database => Some("its configuration is objects of the cluster"),
        Feature::Edition | Feature::License => Some("there is one edition, without a licence"),
        Feature::Ai | Feature::WeightedAi => {
            Some("language models want Envoy AI Gateway, which this version does not install")
        }
        Feature::Image
        | Feature::ClassName
        | Feature::SeveralListenersOfAProtocol
        | Feature::MixedBackends
        | Feature::VerifiedTlsByClientsName => None,
    }
}
