//! Phase: controllers run until every machine is a Ready node, or cannot be.

use super::{Phase, PhaseResult, Run, RunError};
use crate::api::{ApiError, MachineState, MetalCluster, MetalMachine, NAMESPACE};
use crate::controllers;
use async_trait::async_trait;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two looks at the objects, which are on this machine.
const LOOK: Duration = Duration::from_secs(1);

pub struct Install;

/// Machines that cannot go on, and no spare takes their place.
#[derive(Debug, thiserror::Error)]
#[error("{} of {total} machines cannot go on:{}", .failed.len(), list(.failed))]
pub struct NotReady {
    total: usize,
    failed: BTreeMap<String, String>,
}

fn list(failed: &BTreeMap<String, String>) -> String {
    failed.iter().map(|(machine, reason)| format!("\n  {machine}: {reason}")).collect()
}

/// A part of the run that ended while it was still needed.
#[derive(Debug, thiserror::Error)]
#[error("a service of this run ended although it was still needed")]
pub struct Died;

#[async_trait]
impl Phase for Install {
    fn name(&self) -> &'static str {
        "install"
    }

    fn title(&self) -> &'static str {
        "installing the machines and forming the cluster"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        if run.handed_over {
            return Ok(());
        }
        let context = run.context.clone().ok_or(RunError::Order("boot services"))?;
        controllers::start(&context, &mut run.tasks, &run.cancel);
        let cluster = run.cluster.as_mut().ok_or(RunError::Order("bootstrap cluster"))?;
        tokio::select! {
            settled = settled(&context.client, &run.request.spec.name) => settled,
            error = cluster.died() => Err(error.into()),
            ended = run.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => Err(error),
                Some(Err(panic)) => Err(panic.into()),
                Some(Ok(Ok(()))) | None => Err(Died.into()),
            },
        }
    }
}

/// Waits until the cluster is Ready, or nothing moves any more.
async fn settled(client: &Client, name: &str) -> PhaseResult {
    let clusters: Api<MetalCluster> = Api::namespaced(client.clone(), NAMESPACE);
    let machines: Api<MetalMachine> = Api::namespaced(client.clone(), NAMESPACE);
    loop {
        let cluster = clusters.get(name).await.map_err(ApiError::of(format!("MetalCluster {name}")))?;
        let all = machines.list(&ListParams::default()).await.map_err(ApiError::of("the list of MetalMachines"))?;
        let is = |condition: &str, status: &str| {
            let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|one| one.type_ == condition && one.status == status)
        };
        if is("Ready", "True") && is("NetworkApplied", "True") {
            return Ok(());
        }
        let moves = all.iter().any(|machine| !matches!(machine.state(), MachineState::Ready | MachineState::Failed));
        if !moves && is("GroupsComplete", "False") {
            let failed = all.iter().filter(|machine| machine.state() == MachineState::Failed);
            let reason = |machine: &MetalMachine| machine.status.as_ref().map(|status| status.reason.clone());
            let failed = failed.map(|machine| (machine.name_any(), reason(machine).unwrap_or_default())).collect();
            return Err(NotReady { total: all.items.len(), failed }.into());
        }
        tokio::time::sleep(LOOK).await;
    }
}
