//! Phase: controllers run until every machine is installed, or cannot be.

use super::{Phase, PhaseResult, Run, RunError};
use crate::api::{MachineState, MetalMachine, NAMESPACE};
use crate::controllers;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;

pub struct Install;

/// Machines that cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{} of {total} machines could not be installed:{}", .failed.len(), list(.failed))]
pub struct NotInstalled {
    total: usize,
    failed: BTreeMap<String, String>,
}

fn list(failed: &BTreeMap<String, String>) -> String {
    failed.iter().map(|(machine, reason)| format!("\n  {machine}: {reason}")).collect()
}

/// A part of the run that ended while it was still needed.
#[derive(Debug, thiserror::Error)]
pub enum Died {
    /// A boot service or controller.
    #[error("a service of this run ended although it was still needed")]
    Service,
    /// The watch of the machines.
    #[error("the bootstrap cluster closed the watch of the machines")]
    Watch,
}

#[async_trait]
impl Phase for Install {
    fn name(&self) -> &'static str {
        "install"
    }

    fn title(&self) -> &'static str {
        "installing the machines"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let context = run.context.clone().ok_or(RunError::Order("boot services"))?;
        controllers::start(&context, &mut run.tasks, &run.cancel);
        let cluster = run.cluster.as_mut().ok_or(RunError::Order("bootstrap cluster"))?;
        let total = run.request.plan.machines.len();
        let machines: Api<MetalMachine> = Api::namespaced(context.client.clone(), NAMESPACE);
        tokio::select! {
            states = settled(machines, total) => {
                let failed = states?;
                if failed.is_empty() { Ok(()) } else { Err(NotInstalled { total, failed }.into()) }
            }
            error = cluster.died() => Err(error.into()),
            ended = run.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => Err(error),
                Some(Err(panic)) => Err(panic.into()),
                Some(Ok(Ok(()))) | None => Err(Died::Service.into()),
            },
        }
    }
}

/// Waits until each of `total` machines is installed or failed; gives the failed ones with their reasons.
async fn settled(
    machines: Api<MetalMachine>,
    total: usize,
) -> Result<BTreeMap<String, String>, Box<dyn std::error::Error + Send + Sync>> {
    let mut done: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut changes = watcher(machines, watcher::Config::default()).default_backoff().applied_objects().boxed();
    // An error of the stream is one that the backoff tries again; only its end is final.
    while let Some(change) = changes.try_next().await.transpose() {
        let Ok(machine) = change else { continue };
        let status = machine.status.clone().unwrap_or_default();
        match status.state {
            MachineState::Installed => drop(done.insert(machine.name_any(), None)),
            MachineState::Failed => drop(done.insert(machine.name_any(), Some(status.reason))),
            _ => drop(done.remove(&machine.name_any())),
        }
        if done.len() == total {
            return Ok(done.into_iter().filter_map(|(name, reason)| Some((name, reason?))).collect());
        }
    }
    Err(Died::Watch.into())
}
