//! Proof that a gateway works now: that its data planes have the configuration of this control plane, and that traffic flows.
//!
//! Each check says what was seen. The last one is the canary: a route of one's own with an answer that nobody can guess, which
//! appears on every data plane and disappears again. Nothing else shows that configuration is pushed at this moment.

use super::model::{Listener, Protocol, ProviderName};
use super::reach::{Reach, ReachError, Tls, get};
use super::{Stack, cluster::Clusters, envoy, kong};
use crate::api::ApiError;
use crate::tls;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rand::Rng;
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// How often a data plane is asked for the canary.
const LOOK: Duration = Duration::from_millis(500);

/// The oldest that a canary may become: one that is older was left by a proof that was killed.
pub const MAX_CANARY_AGE: Duration = Duration::from_secs(600);

/// What was looked at, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which property of the gateway.
    pub name: &'static str,
    /// Of which pod or object.
    pub subject: String,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.passed { "ok    " } else { "FAILED" };
        write!(f, "{mark} {}: {}: {}", self.name, self.subject, self.detail)
    }
}

/// All that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Proof {
    /// In the order in which it was looked at.
    pub checks: Vec<Check>,
}

impl Proof {
    /// Whether everything is as it should be.
    pub fn holds(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.passed)
    }

    /// Adds a check that went well, or not.
    pub fn add(&mut self, name: &'static str, subject: impl Into<String>, result: Result<String, String>) {
        let (passed, detail) = match result {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        self.checks.push(Check { name, subject: subject.into(), passed, detail });
    }
}

/// A gateway that could not even be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Kong's Admin API.
    #[error(transparent)]
    Admin(#[from] kong::admin::AdminError),
    /// The clusters.
    #[error(transparent)]
    Cluster(#[from] super::cluster::ClusterError),
}

/// How long is waited for what takes its time.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until all data planes have what the control plane has.
    pub settle: Duration,
    /// Until a route is on every data plane, or gone from it.
    pub canary: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { settle: Duration::from_secs(15), canary: Duration::from_secs(60) }
    }
}

/// What a look has found, and where a canary can be sent.
#[derive(Default)]
pub struct Seen {
    /// What was looked at.
    pub proof: Proof,
    /// The pod of the control plane that was asked, where one was.
    pub control_plane: Option<Pod>,
    /// Every data plane's pod, and where it takes requests.
    pub doors: Vec<(Reach, Pod, Door)>,
}

/// Looks at every plane, and changes nothing. `reach` is how pods are asked.
pub async fn look(
    clusters: &Clusters,
    stack: &Stack,
    reach: &(dyn Fn(&kube::Client) -> Reach + Sync),
) -> Result<Seen, ProveError> {
    match stack.gateway.provider.name {
        ProviderName::KongHybrid => kong::prove::look(clusters, stack, reach).await,
        ProviderName::EnvoyGateway => envoy::prove::look(clusters, stack, reach).await,
    }
}

/// Looks at every plane, and sends the canary. `report` is told what is waited for.
pub async fn prove(
    clusters: &Clusters,
    stack: &Stack,
    reach: &(dyn Fn(&kube::Client) -> Reach + Sync),
    patience: Patience,
    report: &(dyn Fn(&str) + Sync),
) -> Result<Proof, ProveError> {
    let started = Instant::now();
    let mut seen = look(clusters, stack, reach).await?;
    // What was configured a moment ago is on its way.
    while let Some(check) = seen.proof.checks.iter().find(|check| !check.passed) {
        if started.elapsed() > patience.settle {
            break;
        }
        report(&format!("waiting for {}: {}: {}", check.name, check.subject, check.detail));
        tokio::time::sleep(LOOK * 4).await;
        seen = look(clusters, stack, reach).await?;
    }
    report(&format!("sending the canary to {} data planes", seen.doors.len()));
    match stack.gateway.provider.name {
        ProviderName::KongHybrid => {
            if let Some(pod) = &seen.control_plane {
                let admin = kong::admin::Admin { reach: &reach(&clusters.here), pod };
                kong::prove::canary(&mut seen.proof, &admin, stack, &seen.doors, patience).await?;
            }
        }
        ProviderName::EnvoyGateway => {
            envoy::prove::canary(&mut seen.proof, &clusters.here, stack, &seen.doors, patience).await?;
        }
    }
    Ok(seen.proof)
}

/// Where a data plane takes requests.
#[derive(Clone)]
pub struct Door {
    /// Port in the pod.
    pub port: u16,
    /// TLS, where it wants that.
    pub tls: Option<Tls>,
    /// The host name that a request has to have.
    pub host: String,
}

impl Door {
    /// The door of a gateway's first plain listener, else of its first one with TLS; `port` is where its data planes have it.
    pub fn of(stack: &Stack, port: impl Fn(&Listener) -> u16) -> Option<Self> {
        let by = |protocol| stack.gateway.listeners.iter().find(|listener| listener.protocol == protocol);
        let listener = by(Protocol::Http).or_else(|| by(Protocol::Https))?;
        let generated = listener.tls.as_ref().and_then(|tls| tls.generate.first());
        let name = listener.hostname.as_ref().or(generated).map_or("metalgate.invalid", String::as_str);
        let host = name.replace("*.", "canary.");
        let tls = match listener.protocol {
            Protocol::Http => None,
            Protocol::Https => Some(tls::unchecked(&host)?),
        };
        Some(Self { port: port(listener), tls, host })
    }
}

/// A path and an answer of one's own.
pub struct Canary {
    /// Below `/.metalgate/`.
    pub path: String,
    /// What it is answered with.
    pub nonce: String,
}

impl Canary {
    /// A new one.
    pub fn new() -> Self {
        let mut bytes = [0u8; 12];
        rand::rng().fill_bytes(&mut bytes);
        let nonce = hex::encode(bytes);
        Self { path: format!("/.metalgate/{nonce}"), nonce }
    }

    /// Waits until a data plane answers with the nonce (or does so no longer).
    pub async fn seen(
        &self,
        reach: &Reach,
        pod: &Pod,
        door: &Door,
        there: bool,
        most: Duration,
    ) -> Result<String, String> {
        let started = Instant::now();
        loop {
            let answer = reach.http(pod, door.port, door.tls.as_ref(), get(&door.host, &self.path)).await;
            let seen = match &answer {
                Ok(answer) => {
                    let is_canary = answer.status() == 200 && contains(answer.body(), self.nonce.as_bytes());
                    if is_canary == there {
                        let verb = if there { "answers" } else { "is gone" };
                        return Ok(format!("the canary {verb} after {:.1} s", started.elapsed().as_secs_f64()));
                    }
                    format!("its last answer was {}", answer.status())
                }
                Err(error) => crate::error::chain(error),
            };
            if started.elapsed() > most {
                let what = if there { "does not appear" } else { "does not disappear" };
                return Err(format!("the canary {what} within {} s: {seen}", most.as_secs()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

fn contains(body: &[u8], nonce: &[u8]) -> bool {
    body.windows(nonce.len()).any(|window| window == nonce)
}

/// Asks every pod for the canary, side by side.
pub async fn canary_on(
    proof: &mut Proof,
    name: &'static str,
    canary: &Canary,
    pods: &[(Reach, Pod, Door)],
    there: bool,
    most: Duration,
) {
    let asked = pods.iter().map(|(reach, pod, door)| canary.seen(reach, pod, door, there, most));
    let results = futures::future::join_all(asked).await;
    for ((_, pod, _), result) in pods.iter().zip(results) {
        proof.add(name, pod.name_any(), result);
    }
}

/// A pod's answer as JSON.
pub async fn json(reach: &Reach, pod: &Pod, port: u16, path: &str) -> Result<serde_json::Value, String> {
    let text = text(reach, pod, port, path).await?;
    serde_json::from_str(&text).map_err(|error| format!("its answer to {path} is no JSON: {error}"))
}

/// A pod's answer with status 200.
pub async fn text(reach: &Reach, pod: &Pod, port: u16, path: &str) -> Result<String, String> {
    let answer = reach.http(pod, port, None, get("localhost", path)).await;
    let answer = answer.map_err(|error: ReachError| crate::error::chain(&error))?;
    match answer.status().as_u16() {
        200 => Ok(String::from_utf8_lossy(answer.body()).into_owned()),
        status => Err(format!("it answers {path} with {status}")),
    }
}
