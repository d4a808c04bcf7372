//! Phase: the cluster's management moves into the cluster, and the bootstrap cluster goes.
//!
//! Killed anywhere, the next run goes on: the fence on both sides says how far the move came, and a file in the work directory
//! that it is complete. The file is written before the bootstrap cluster is deleted: a run that found neither would begin anew.

use super::{Phase, PhaseResult, Run, RunError, managed};
use crate::api::{ApiError, MachineRole, MetalCluster, MetalMachine, NAMESPACE, secrets};
use crate::bootstrap;
use crate::controllers::{self, workload};
use crate::event::EventKind;
use crate::pivot::Pivot;
use crate::pivot::fence::Fence;
use crate::pki::Authority;
use crate::{kubeconfig, manager};
use async_trait::async_trait;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::time::{Duration, Instant};

/// File of the work directory with the administrator's kubeconfig.
pub const KUBECONFIG: &str = "kubeconfig";
/// File of the work directory that says that the cluster manages itself.
pub const SELF_MANAGED: &str = "self-managed";
/// How long the manager may take to look at everything.
const RECONCILED: Duration = Duration::from_secs(20 * 60);

pub struct Handover;

/// The manager in the cluster does not do its work.
#[derive(Debug, thiserror::Error)]
#[error(
    "the manager in the cluster has not looked at {} after {} minutes; see `kubectl --namespace metalgate logs \
     deployment/metalgate-manager`. The cluster is handed over: the same command goes on from here",
    .waiting.join(", "), RECONCILED.as_secs() / 60
)]
pub struct NotReconciled {
    waiting: Vec<String>,
}

#[async_trait]
impl Phase for Handover {
    fn name(&self) -> &'static str {
        "pivot"
    }

    fn title(&self) -> &'static str {
        "handing the cluster over to itself"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let name = run.request.spec.name.clone();
        let source = run.cluster.as_ref().ok_or(RunError::Order("bootstrap cluster"))?.client();
        let endpoint = &run.request.spec.kubernetes.endpoint;
        let authority = Authority::of(secrets::read_authorities(&source, &name).await?.cluster);
        let text =
            workload::administrator_kubeconfig(&name, &format!("{}:{}", endpoint.host, endpoint.port), &authority)?;
        run.work_dir.write_private(KUBECONFIG, text.expose())?;
        let target = kubeconfig::client(&text).await?;
        if let Some(context) = &run.context {
            let control_plane = run.request.plan.machines.iter().filter(|one| one.role == MachineRole::ControlPlane);
            for machine in control_plane {
                controllers::machine::prepare_again(context, &machine.hostname).await?;
            }
        }
        // Two sides that answer the same machines would be worse than none.
        run.stop_services().await;
        let pivot = Pivot { source, target: target.clone(), cluster: name.clone(), events: run.events.clone() };
        pivot.hand_over().await?;
        let cluster = managed::find(&target, &name).await?;
        manager::deploy::apply(&target, &cluster, &manager::image::reference()?).await?;
        reconciled(run, &target, &name).await?;
        run.work_dir.write_private(SELF_MANAGED, &format!("{}\n", jiff::Timestamp::now()))?;
        pivot.clear_source().await?;
        if let Some(cluster) = run.cluster.take() {
            cluster.stop().await;
        }
        bootstrap::remove(&run.request.bootstrap, run.work_dir.path(), &name).await?;
        Ok(())
    }
}

/// Waits until the manager has looked at every object, in the epoch that is its own.
async fn reconciled(run: &Run, target: &Client, name: &str) -> PhaseResult {
    let epoch = Fence::read(target, name).await?.map(|fence| fence.epoch).unwrap_or_default();
    let started = Instant::now();
    loop {
        let (total, waiting) = match waiting(target, epoch).await {
            Ok(found) => found,
            // The API server of a small control plane may pause while the manager starts.
            Err(error) if started.elapsed() < RECONCILED => {
                tracing::debug!("{}", crate::error::chain(&error));
                tokio::time::sleep(Duration::from_secs(2)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let what = String::from("objects reconciled by the manager in the cluster");
        let done = (total - waiting.len()) as u64;
        run.events.emit(None, EventKind::Count { what, done, total: total as u64 });
        if waiting.is_empty() {
            return Ok(());
        }
        if started.elapsed() > RECONCILED {
            return Err(NotReconciled { waiting }.into());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// How many objects there are, and those that nobody has looked at in this epoch.
async fn waiting(target: &Client, epoch: u64) -> Result<(usize, Vec<String>), ApiError> {
    let all = ListParams::default();
    let clusters = Api::<MetalCluster>::namespaced(target.clone(), NAMESPACE).list(&all).await;
    let machines = Api::<MetalMachine>::namespaced(target.clone(), NAMESPACE).list(&all).await;
    let clusters = clusters.map_err(ApiError::of("the list of MetalClusters"))?;
    let machines = machines.map_err(ApiError::of("the list of MetalMachines"))?;
    let clusters = clusters.iter().map(|one| (one.name_any(), one.status.as_ref().map(|status| status.epoch)));
    let machines = machines.iter().map(|one| (one.name_any(), one.status.as_ref().map(|status| status.epoch)));
    let all: Vec<_> = clusters.chain(machines).collect();
    let waiting = all.iter().filter(|(_, seen)| *seen != Some(epoch)).map(|(name, _)| name.clone()).collect();
    Ok((all.len(), waiting))
}

/// The only phase of a `create` for a cluster that manages itself: is it there, and well?
pub struct SelfManaged;

/// A cluster that manages itself, but is not well.
#[derive(Debug, thiserror::Error)]
#[error("cluster {name} manages itself, and is not ready: {why}; `metalgate status {name}` shows more")]
pub struct NotReady {
    name: String,
    why: String,
}

#[async_trait]
impl Phase for SelfManaged {
    fn name(&self) -> &'static str {
        "self-managed"
    }

    fn title(&self) -> &'static str {
        "looking at the cluster, which manages itself"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let name = run.request.spec.name.clone();
        // A run that was killed after its hand-over may have left it.
        bootstrap::remove(&run.request.bootstrap, run.work_dir.path(), &name).await?;
        let client = run.work_dir.kubeconfig_client().await?;
        let cluster = managed::find(&client, &name).await?;
        let conditions = cluster.status.map(|status| status.conditions).unwrap_or_default();
        match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
            Some(condition) if condition.status == "True" => Ok(()),
            Some(condition) => Err(NotReady { name, why: condition.message }.into()),
            None => Err(NotReady { name, why: String::from("its manager has said nothing yet") }.into()),
        }
    }
}
