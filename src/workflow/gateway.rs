//! Phase: the manager in the cluster has made the gateway, and it is proved that traffic flows.

use super::{Phase, PhaseResult, Run, managed};
use crate::event::EventKind;
use crate::gateway::cluster::Clusters;
use crate::gateway::prove::{self, Patience};
use crate::gateway::reach::Reach;
use async_trait::async_trait;
use std::time::{Duration, Instant};

/// How long the manager may take to make it.
const MADE: Duration = Duration::from_secs(30 * 60);
const LOOK: Duration = Duration::from_secs(2);

pub struct Gateway;

/// A gateway that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It is not in place.
    #[error("the gateway is not in place after {} minutes: {reason}; the same command goes on from here", MADE.as_secs() / 60)]
    NotMade {
        /// What the manager says.
        reason: String,
    },
    /// It does not do what it is there for.
    #[error("the gateway is in place, but {failed} of {all} checks failed; the first: {first}")]
    NotProved {
        /// Checks that failed.
        failed: usize,
        /// All checks.
        all: usize,
        /// The first that failed.
        first: String,
    },
}

#[async_trait]
impl Phase for Gateway {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn title(&self) -> &'static str {
        "making the gateway, and sending traffic through it"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let Some(stack) = run.request.spec.stack() else { return Ok(()) };
        let client = run.work_dir.kubeconfig_client().await?;
        let started = Instant::now();
        let mut told = String::new();
        loop {
            let cluster = match managed::find(&client, &stack.name).await {
                Ok(cluster) => cluster,
                // The API server of a small control plane may pause while so much starts.
                Err(error) if started.elapsed() < MADE => {
                    tracing::debug!("{}", crate::error::chain(&error));
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let generation = cluster.metadata.generation.unwrap_or_default();
            let status = cluster.status.and_then(|status| status.gateway);
            let message = match &status {
                Some(status) if status.ready && status.observed_generation >= generation => break,
                Some(status) => status.message.clone(),
                None => String::from("the manager has not begun yet"),
            };
            if started.elapsed() > MADE {
                return Err(GatewayError::NotMade { reason: message }.into());
            }
            if message != told {
                run.events.emit(None, EventKind::Gateway { detail: message.clone() });
                told = message;
            }
            tokio::time::sleep(LOOK).await;
        }
        let clusters = Clusters::connect(client, &stack).await?;
        let reach = |client: &kube::Client| Reach::Forward(client.clone());
        let proof = prove::prove(&clusters, &stack, &reach, Patience::default(), &|text| {
            run.events.emit(None, EventKind::Gateway { detail: text.to_owned() });
        })
        .await?;
        for check in &proof.checks {
            run.events.emit(None, EventKind::Gateway { detail: check.to_string() });
        }
        let mut failed = proof.checks.iter().filter(|check| !check.passed);
        match failed.next() {
            None if proof.holds() => Ok(()),
            first => Err(GatewayError::NotProved {
                failed: failed.count() + usize::from(first.is_some()),
                all: proof.checks.len(),
                first: first.map(|check| format!("{}: {}", check.subject, check.detail)).unwrap_or_default(),
            }
            .into()),
        }
    }
}
