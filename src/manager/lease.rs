//! Leader election by a Lease (coordination.k8s.io/v1), as Kubernetes' own components do it: whoever renews it acts; one that
//! cannot renew it in time stops before another may begin.

use crate::api::NAMESPACE;
use k8s_openapi::api::coordination::v1::{Lease as KubeLease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Name of the object.
const NAME: &str = "metalgate-manager";
/// Nobody else may take it for this long after a renewal.
const DURATION: Duration = Duration::from_secs(30);
/// We stop when we could not renew it for this long: well before another may take it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between renewals, and between looks at another's lease.
const PERIOD: Duration = Duration::from_secs(5);

/// Our claim to it.
pub struct Lease {
    api: Api<KubeLease>,
    identity: String,
    /// What we last saw of another holder, and when by our own clock: its clock may be another.
    seen: Option<(Option<String>, Instant)>,
}

impl Lease {
    /// A claim that is not made yet.
    pub fn new(client: Client, identity: &str) -> Self {
        Self { api: Api::namespaced(client, NAMESPACE), identity: identity.to_owned(), seen: None }
    }

    /// Waits until it is ours.
    pub async fn acquire(&mut self) {
        loop {
            match timeout(PERIOD, self.claim()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!("cannot ask for the lease: {}", crate::error::chain(&error)),
                Err(_) => tracing::warn!("the API server does not answer"),
            }
            sleep(PERIOD).await;
        }
    }

    /// Renews it until that does not work any more.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < DEADLINE {
            sleep(PERIOD).await;
            match timeout(PERIOD, self.claim()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!("cannot renew the lease: {}", crate::error::chain(&error)),
                Err(_) => tracing::warn!("cannot renew the lease: the API server does not answer"),
            }
        }
    }

    /// Gives it back, so that another need not wait for its end.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            // If that fails, it ends by itself.
            let _ = self.api.replace(NAME, &PostParams::default(), &lease).await;
        }
    }

    /// Takes or renews it, if it is free, ended or ours. A conflict means that another was faster.
    async fn claim(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = KubeLease { metadata, spec: Some(self.spec(LeaseSpec::default())) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if holder.as_ref().is_some_and(|holder| *holder != self.identity) && !self.has_ended(&lease) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(spec));
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Whether another's lease was not renewed for its whole length, by our own clock.
    fn has_ended(&mut self, lease: &KubeLease) -> bool {
        let version = lease.metadata.resource_version.clone();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            renew_time: Some(now.clone()),
            acquire_time: if mine { before.acquire_time } else { Some(now) },
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!mine)),
            ..before
        }
    }
}

fn won(written: kube::Result<KubeLease>) -> kube::Result<bool> {
    match written {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        written => written.map(|_| true),
    }
}
