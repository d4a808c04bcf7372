//! All of it once: certificates, objects in order, Kong's entities, what is no longer wanted; and where an authority is being
//! replaced, its stages one after the other. Run again it goes on where it was, and changes nothing where nothing is to be done.
//! The command line and the manager in the cluster both run this.

use super::certificates::{Authorities, CertificatesError, Kept, Stage, Store, secret_of_listener};
use super::cluster::{self, ClusterError, Clusters};
use super::definitions;
use super::kong::admin::{Admin, AdminError};
use super::kong::{self, entities};
use super::model::{ProviderName, SecretKey};
use super::reach::Reach;
use super::record;
use super::{RenderError, Stack, envoy};
use crate::api::ApiError;
use crate::api::apply::{self, ApplyError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;

/// Stages of a replacement, and the run after it.
const MOST_ROUNDS: usize = 4;
/// Secret with the key of Envoy Gateway's OIDC cookies; it does not start without.
const HMAC_SECRET: &str = "envoy-oidc-hmac";

/// What a run may take, and how pods are reached.
pub struct Settings<'s> {
    /// How the pods of a cluster are reached.
    pub reach: &'s (dyn Fn(&Client) -> Reach + Sync),
    /// Custom resource definitions of the provider, from the artifact directory.
    pub definitions: Vec<Value>,
    /// The longest that a step may take to become ready.
    pub most: Duration,
    /// How long kubelet may take to bring a changed Secret into pods that go on running: its period and its cache.
    pub propagation: Duration,
    /// Is told what is done and what is waited for.
    pub report: &'s (dyn Fn(&str) + Sync),
}

/// The propagation of a Secret by kubelet's defaults: a minute's period and a minute's cache, and some.
pub const PROPAGATION: Duration = Duration::from_secs(150);

/// A gateway that could not be made as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Its objects cannot be made.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// They cannot be put in place.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Its certificates.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// Kong's Admin API.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A Secret or ConfigMap that the user has to make is not there.
    #[error("{what} has no `{key}`, which {wanted_by} needs: make it in the namespace {namespace}")]
    Missing {
        /// The object.
        what: String,
        /// The key in it.
        key: String,
        /// Who needs it.
        wanted_by: String,
        /// Where.
        namespace: String,
    },
    /// No pod of the control plane can be asked.
    #[error("no pod of {0}'s control plane is Ready, although its Deployment is")]
    NoControlPlane(String),
}

impl From<ApiError> for ReconcileError {
    fn from(error: ApiError) -> Self {
        Self::Cluster(error.into())
    }
}

impl From<ApplyError> for ReconcileError {
    fn from(error: ApplyError) -> Self {
        Self::Cluster(error.into())
    }
}

/// Brings a gateway to where it should be.
pub async fn reconcile(clusters: &Clusters, stack: &Stack, settings: &Settings<'_>) -> Result<(), ReconcileError> {
    let report = settings.report;
    for _ in 0..MOST_ROUNDS {
        let authorities = round(clusters, stack, settings).await?;
        let Some(stage) = rotating(&authorities) else { return Ok(()) };
        wait_for_readers(stack, &authorities, settings).await;
        report(match stage {
            Stage::Introducing => "every plane trusts both authorities; now the new one signs",
            _ => "every plane has a certificate of the new authority; the old one goes",
        });
        store(clusters, stack).advance(&authorities).await?;
    }
    // Another one has begun a replacement meanwhile: the next run goes on.
    Ok(())
}

/// What applying would change, without a change.
pub async fn rehearse(
    clusters: &Clusters,
    stack: &Stack,
    definitions: Vec<Value>,
) -> Result<Vec<super::diff::Change>, ReconcileError> {
    let store = store(clusters, stack);
    let sums = store.sums(&stack.certificates()).await?;
    let (definitions, policies) = definitions::steps(definitions);
    let mut steps = vec![definitions, policies];
    steps.extend(stack.render(&sums)?);
    Ok(cluster::rehearse(clusters, stack, &steps).await?)
}

fn store<'s>(clusters: &'s Clusters, stack: &'s Stack) -> Store<'s> {
    Store { stack, here: clusters.here.clone(), planes: &clusters.planes }
}

fn rotating(authorities: &Authorities) -> Option<Stage> {
    authorities.0.values().map(|kept| kept.stage).find(|stage| *stage != Stage::Settled)
}

/// One pass over everything.
async fn round(clusters: &Clusters, stack: &Stack, settings: &Settings<'_>) -> Result<Authorities, ReconcileError> {
    let store = store(clusters, stack);
    namespaces(clusters, stack).await?;
    let wanted = stack.certificates();
    let authorities = store.authorities(&wanted).await?;
    let sums = store.keep(&wanted, &authorities).await?;
    generated(&store, stack).await?;
    let (definitions, policies) = definitions::steps(settings.definitions.clone());
    definitions::keep(clusters, stack, &definitions, settings.most, settings.report).await?;
    let mut steps = vec![policies];
    steps.extend(stack.render(&sums)?);
    for step in steps.iter().filter(|step| !step.objects.is_empty()) {
        (settings.report)(&format!("{} ...", step.title));
        cluster::apply(clusters, stack, step, settings.most, settings.report).await?;
    }
    if stack.gateway.provider.name == ProviderName::KongHybrid {
        configure_kong(clusters, stack, &store, settings).await?;
    }
    record::prune(clusters, stack, &steps, settings.report).await?;
    Ok(authorities)
}

async fn namespaces(clusters: &Clusters, stack: &Stack) -> Result<(), ReconcileError> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stack.gateway.namespace}});
    for client in std::iter::once(&clusters.here).chain(clusters.planes.values()) {
        apply::document(client, &namespace).await?;
    }
    Ok(())
}

/// Secrets that are made once, and those that a provider wants in another form than the user's.
async fn generated(store: &Store<'_>, stack: &Stack) -> Result<(), ReconcileError> {
    let gateway = &stack.gateway;
    match gateway.provider.name {
        ProviderName::KongHybrid => {
            let embedded = gateway.control_plane.database.as_ref().is_some_and(|database| database.external.is_none());
            if embedded {
                store.keep_random(&stack.named("database"), "password").await?;
            }
        }
        ProviderName::EnvoyGateway => {
            store.keep_random(HMAC_SECRET, "hmac-secret").await?;
            for consumer in &gateway.consumers {
                let key = value(store, stack, &consumer.key, &format!("consumer {}", consumer.name)).await?;
                let name = envoy::render::consumer_secret(stack, &consumer.name);
                // Its keys are clients, whose names Envoy Gateway wants to be different.
                store.put(&name, &[(consumer.name.as_str(), key.as_str())]).await?;
            }
        }
    }
    Ok(())
}

/// A value that the user keeps in a Secret.
async fn value(store: &Store<'_>, stack: &Stack, place: &SecretKey, wanted_by: &str) -> Result<String, ReconcileError> {
    let found = store.value(&place.secret, &place.key).await?;
    found.map(|text| text.trim_end_matches('\n').to_owned()).ok_or_else(|| ReconcileError::Missing {
        what: format!("Secret {}", place.secret),
        key: place.key.clone(),
        wanted_by: wanted_by.to_owned(),
        namespace: stack.gateway.namespace.clone(),
    })
}

/// Tells Kong's control plane its entities.
async fn configure_kong(
    clusters: &Clusters,
    stack: &Stack,
    store: &Store<'_>,
    settings: &Settings<'_>,
) -> Result<(), ReconcileError> {
    let secrets = kong_secrets(clusters, stack, store).await?;
    let labels = kong::control_plane_labels(stack);
    let pods = cluster::pods(&clusters.here, &stack.gateway.namespace, &labels).await?;
    let pod: &Pod = pods.first().ok_or_else(|| ReconcileError::NoControlPlane(stack.name.clone()))?;
    let reach = (settings.reach)(&clusters.here);
    let admin = Admin { reach: &reach, pod };
    let desired = entities::desired(stack, &secrets);
    let (written, deleted) = entities::sync(&admin, stack, &desired).await?;
    if written + deleted > 0 {
        (settings.report)(&format!("Kong: {written} entities written, {deleted} deleted, {} in all", desired.len()));
    }
    Ok(())
}

async fn kong_secrets(
    clusters: &Clusters,
    stack: &Stack,
    store: &Store<'_>,
) -> Result<entities::Secrets, ReconcileError> {
    let mut secrets = entities::Secrets::default();
    let gateway = &stack.gateway;
    for consumer in &gateway.consumers {
        let key = value(store, stack, &consumer.key, &format!("consumer {}", consumer.name)).await?;
        secrets.keys.insert(consumer.name.clone(), key);
    }
    for provider in &gateway.ai.providers {
        if let Some(place) = &provider.api_key {
            let key = value(store, stack, place, &format!("AI provider {}", provider.name)).await?;
            secrets.ai.insert(provider.name.clone(), key);
        }
    }
    for listener in &gateway.listeners {
        let Some(secret) = secret_of_listener(stack, listener) else { continue };
        let mut pair = Vec::new();
        for key in ["tls.crt", "tls.key"] {
            let place = SecretKey { secret: secret.clone(), key: key.to_owned() };
            pair.push(value(store, stack, &place, &format!("listener {}", listener.name)).await?);
        }
        if let [cert, key] = pair.as_slice() {
            secrets.certificates.insert(listener.name.clone(), (cert.clone(), key.clone()));
        }
    }
    for service in &gateway.services {
        let Some(map) = service.tls.as_ref().and_then(|tls| tls.ca.as_ref()) else { continue };
        let api: Api<ConfigMap> = Api::namespaced(clusters.here.clone(), &gateway.namespace);
        let found = api.get_opt(map).await.map_err(ApiError::of(format!("ConfigMap {map}")))?;
        let authority = found.and_then(|found| found.data?.get("ca.crt").cloned());
        let authority = authority.ok_or_else(|| ReconcileError::Missing {
            what: format!("ConfigMap {map}"),
            key: String::from("ca.crt"),
            wanted_by: format!("service {}", service.name),
            namespace: gateway.namespace.clone(),
        })?;
        secrets.authorities.insert(service.name.clone(), authority);
    }
    Ok(secrets)
}

/// Pods that read their certificate at their start have been rolled when their Deployment is ready. Others have to be given
/// time until kubelet has brought them the new files.
async fn wait_for_readers(stack: &Stack, authorities: &Authorities, settings: &Settings<'_>) {
    let running = |issuer| stack.certificates().iter().any(|one| one.issuer == issuer && !one.read_at_start);
    let since = authorities.0.iter().filter(|(issuer, kept)| kept.stage != Stage::Settled && running(**issuer));
    let Some(since) = since.map(|(_, kept): (_, &Kept)| kept.since).max() else { return };
    let passed = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    if let Some(left) = settings.propagation.checked_sub(passed) {
        (settings.report)(&format!("waiting {} s until every plane has the changed files", left.as_secs()));
        tokio::time::sleep(left).await;
    }
}
