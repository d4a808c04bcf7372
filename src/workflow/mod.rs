//! What `create cluster` does, in order: [`PHASES`] is the list. One file per phase.
//!
//! A phase starts what the next ones need and leaves it in the [`Run`]; at the end, however it comes, everything that was
//! started is stopped in reverse order. Nothing is remembered here: what was done is in the objects of the bootstrap
//! cluster, so a killed run is continued by running it again. Fed by `plan`; feeds `controllers`.

pub mod apply;
pub mod artifacts;
pub mod board;
mod bootstrap;
pub mod delete;
mod gateway;
mod install;
pub mod journal;
pub mod kubeconfig;
pub mod managed;
mod netboot;
pub mod network;
pub mod objects;
pub mod pivot;
pub mod preflight;
pub mod work_dir;

pub use artifacts::image_name;

use crate::bootstrap::BootstrapCluster;
use crate::controllers::{Context, Tasks};
use crate::event::{EventBus, EventKind};
use crate::image::manifest::Manifest;
use crate::inventory::Machine;
use crate::node::supplies::Supplies;
use crate::plan::Plan;
use crate::secret::Secret;
use crate::spec::ClusterSpec;
use async_trait::async_trait;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use work_dir::WorkDir;

type PhaseResult = Result<(), Box<dyn Error + Send + Sync>>;

/// One part of a run.
#[async_trait]
trait Phase: Send + Sync {
    /// Short name, for the journal.
    fn name(&self) -> &'static str;
    /// What it does, for people.
    fn title(&self) -> &'static str;
    /// Does it.
    async fn run(&self, run: &mut Run) -> PhaseResult;
}

/// THE order of `create cluster`.
const PHASES: &[&dyn Phase] = &[
    &preflight::Preflight,
    &network::Network,
    &artifacts::Artifacts,
    &bootstrap::Bootstrap,
    &objects::Objects,
    &netboot::Netboot,
    &install::Install,
    &pivot::Handover,
    &gateway::Gateway,
];

/// What is left to do where the cluster manages itself already.
const SELF_MANAGED: &[&dyn Phase] = &[&pivot::SelfManaged, &gateway::Gateway];

/// What the user asked for.
pub struct Request {
    /// The cluster.
    pub spec: ClusterSpec,
    /// The inventory, whole.
    pub machines: Vec<Machine>,
    /// Who plays which role.
    pub plan: Plan,
    /// Where the things that are served lie.
    pub artifacts: PathBuf,
    /// Our own executable, for child processes.
    pub metalgate: PathBuf,
    /// Which bootstrap cluster.
    pub bootstrap: crate::bootstrap::Provider,
    /// Preflight checks that are left out.
    pub skip: Vec<crate::preflight::Name>,
}

/// A run under way: the request, and what the phases have started so far.
struct Run {
    request: Request,
    work_dir: WorkDir,
    events: EventBus,
    cancel: CancellationToken,
    /// Services and controllers; ended by `cancel`.
    tasks: Tasks,
    /// Set by `preflight`, unless that was to leave the artifacts out.
    verified: Option<artifacts::Verified>,
    /// Set by `network`: our place on the provisioning network.
    network: Option<network::Place>,
    /// Set by `artifacts`.
    manifest: Option<Manifest>,
    supplies: Option<Arc<Supplies>>,
    image: Option<artifacts::ServedImage>,
    /// Set by `bootstrap`.
    cluster: Option<BootstrapCluster>,
    /// Set by `bootstrap`: an earlier run has moved the cluster's management already, and may have been killed then.
    handed_over: bool,
    /// Set by `netboot`.
    context: Option<Arc<Context>>,
    /// Set by `objects`.
    installer_key: Option<Secret<String>>,
}

impl Run {
    /// A run that has not begun.
    fn new(request: Request, work_dir: WorkDir, events: EventBus) -> Self {
        Self {
            request,
            work_dir,
            events,
            cancel: CancellationToken::new(),
            tasks: JoinSet::new(),
            verified: None,
            network: None,
            manifest: None,
            supplies: None,
            handed_over: false,
            image: None,
            cluster: None,
            context: None,
            installer_key: None,
        }
    }

    /// Ends boot services and controllers.
    async fn stop_services(&mut self) {
        self.cancel.cancel();
        let ended = tokio::time::timeout(STOP, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("a service does not end for {} s; it is dropped", STOP.as_secs());
            self.tasks.shutdown().await;
        }
    }
}

/// A run that did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A phase failed.
    #[error("{title}")]
    Phase {
        /// What it was to do.
        title: &'static str,
        /// Why it could not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A deletion was begun: its machines are being switched off, and some are wiped already.
    #[error(
        "the cluster is being deleted: `metalgate delete cluster {0}` goes on with that, and then it can be made anew"
    )]
    BeingDeleted(String),
    /// The user interrupted it.
    #[error("interrupted; the same command continues where this run stood")]
    Interrupted,
    /// An earlier phase did not leave what a later one needs.
    #[error("phase order is broken: {0} is missing")]
    Order(&'static str),
}

/// How long services may take to end; HTTP exchanges under way get less than this.
const STOP: Duration = Duration::from_secs(10);

/// Runs every phase, then stops what they started. `cancel` interrupts it.
pub async fn create(
    request: Request,
    work_dir: WorkDir,
    events: EventBus,
    cancel: CancellationToken,
) -> Result<(), RunError> {
    if work_dir.join(delete::PLAN).exists() {
        return Err(RunError::BeingDeleted(request.spec.name));
    }
    let mut run = Run::new(request, work_dir, events.clone());
    let phases = if run.work_dir.join(pivot::SELF_MANAGED).exists() { SELF_MANAGED } else { PHASES };
    let mut result = Ok(());
    for phase in phases {
        let started = Instant::now();
        let (name, title) = (phase.name().to_owned(), phase.title());
        events.emit(None, EventKind::PhaseStarted { phase: name.clone(), title: title.to_owned() });
        let outcome = cancel.run_until_cancelled(phase.run(&mut run)).await;
        result = match outcome {
            None => Err(RunError::Interrupted),
            Some(Err(source)) => Err(RunError::Phase { title, source }),
            Some(Ok(())) => Ok(()),
        };
        if let Err(error) = &result {
            events.emit(None, EventKind::PhaseFailed { phase: name, error: crate::error::chain(error) });
            break;
        }
        events.emit(None, EventKind::PhaseDone { phase: name, seconds: started.elapsed().as_secs_f64() });
    }
    run.stop_services().await;
    if let Some(cluster) = run.cluster.take() {
        cluster.stop().await;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_before_the_preflight_and_no_machine_after_a_pivot_is_checked() {
        let names: Vec<&str> = PHASES.iter().map(|phase| phase.name()).collect();
        let at = |name: &str| names.iter().position(|one| *one == name).unwrap();
        // Nothing fails before everything has been looked at.
        assert_eq!(at("preflight"), 0);
        // Our own servers would answer its questions, and controllers power machines on.
        for later in ["bootstrap", "objects", "netboot", "install"] {
            assert!(at("preflight") < at(later), "{later}");
        }
        assert!(SELF_MANAGED.iter().all(|phase| phase.name() != "preflight"));
    }
}
