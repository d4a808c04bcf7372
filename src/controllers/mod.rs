//! Reconcilers: they drive the objects of `api` towards what their specs say, and write down how far they came.
//!
//! Fed by the API server that `bootstrap` started (after the pivot: the cluster's own); they order `power`, keep
//! `netboot`'s table, answer its agents, and check the result over SSH with `node`. Level-triggered: all that they know
//! is in the objects, so a killed run goes on where it stood.

pub mod cluster;
mod gateway;
mod installations;
pub mod machine;
mod seed;
mod serving_certificates;
mod sightings;
mod status;
pub mod workload;

pub use installations::ApiInstallations;
pub use sightings::{NetbootStage, Sightings};
pub use workload::Workload;

use crate::api::apply::ApplyError;
use crate::api::secrets::SecretsError;
use crate::api::{ApiError, MetalCluster, MetalMachine, NAMESPACE};
use crate::event::EventBus;
use crate::inventory::BmcAccess;
use crate::kubeconfig::ClientError;
use crate::netboot::BootTable;
use crate::node::prepare::PrepareError;
use crate::node::script::StepError;
use crate::node::supplies::Supplies;
use crate::pki::PkiError;
use crate::power::{Bmc, BmcError};
use futures::{FutureExt, StreamExt};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Makes the client of a machine's BMC.
pub type Connect = Arc<dyn Fn(&BmcAccess) -> Result<Arc<dyn Bmc>, BmcError> + Send + Sync>;

/// How long a machine may take, and how often it may be tried.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From power-on to the agent.
    pub netboot: Duration,
    /// Without a word of the agent while it installs.
    pub agent_silence: Duration,
    /// From the agent's farewell to SSH.
    pub first_boot: Duration,
    /// A BMC that cannot be reached, or refuses.
    pub power: Duration,
    /// Power-ons of one machine.
    pub attempts: u32,
    /// Without news of a machine before its stall is reported.
    pub stall: Duration,
    /// Without SSH while it becomes a node.
    pub node_silence: Duration,
    /// From kubeadm's end to a Ready node.
    pub node_ready: Duration,
    /// For the pods of a machine that goes to move elsewhere.
    pub drain: Duration,
    /// Failed steps on one machine while it becomes a node.
    pub join_attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Servers take minutes to their first DHCP packet: memory training and option ROMs come before it.
            netboot: Duration::from_secs(20 * 60),
            agent_silence: Duration::from_secs(3 * 60),
            first_boot: Duration::from_secs(20 * 60),
            power: Duration::from_secs(5 * 60),
            attempts: 3,
            stall: Duration::from_secs(120),
            node_silence: Duration::from_secs(5 * 60),
            node_ready: Duration::from_secs(20 * 60),
            drain: Duration::from_secs(5 * 60),
            join_attempts: 3,
        }
    }
}

/// What every reconciler works with.
pub struct Context {
    /// The API server that holds the objects.
    pub client: Client,
    /// Where events go.
    pub events: EventBus,
    /// The boot services' table, kept equal to the machines' states.
    pub table: BootTable,
    /// What was last seen of each machine on the wire.
    pub sightings: Sightings,
    /// Makes BMC clients.
    pub connect: Connect,
    /// Time limits.
    pub limits: Limits,
    /// When this run began to listen.
    pub started: jiff::Timestamp,
    /// The installer's own SSH key, OpenSSH private format.
    pub ssh_key: crate::secret::Secret<String>,
    /// What machines fetch to become nodes.
    pub supplies: Arc<Supplies>,
    /// Our HTTP server, `http://ADDRESS:PORT`.
    pub server: String,
    /// How the API servers of clusters that we make are reached.
    pub workload: Workload,
    /// Directory with a log for each machine, of what was done on it.
    pub logs: PathBuf,
    /// Held while a control plane changes its members.
    pub control_plane: Mutex<()>,
    /// Workers that may join at the same time.
    pub joins: Semaphore,
}

impl Context {
    /// The epoch in which `cluster` is managed from here. None while it is moved elsewhere, and after that: then nothing of it
    /// may be touched.
    async fn epoch(&self, cluster: &str) -> Result<Option<u64>, ReconcileError> {
        let epoch = crate::pivot::fence::active_epoch(&self.client, cluster).await;
        epoch.map_err(|source| ReconcileError::Fence { cluster: cluster.to_owned(), source: Box::new(source) })
    }

    async fn cluster(&self, name: &str) -> Result<MetalCluster, ReconcileError> {
        let found = self.objects::<MetalCluster>().get(name).await;
        Ok(found.map_err(ApiError::of(format!("MetalCluster {name}")))?)
    }

    /// The log of what was done on a machine.
    fn log_of(&self, machine: &str) -> PathBuf {
        self.logs.join(format!("{machine}.log"))
    }

    fn unpreparable(&self, machine: &machine::Machine, source: PrepareError) -> ReconcileError {
        ReconcileError::Prepare { machine: machine.name.clone(), source: Box::new(source) }
    }

    /// Our namespace's objects of one type.
    pub fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}

/// Workers that join at the same time: kubelets' first requests are the API server's busiest moment.
pub const JOINS: usize = 8;

/// When to look again whether a cluster that is not managed from here has become so.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// A reconciliation that did not work; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// An API server refused or did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An object refers to one that is not there.
    #[error("{object} refers to {missing}, which does not exist")]
    Missing {
        /// The object that refers.
        object: String,
        /// What it refers to.
        missing: String,
    },
    /// Who manages the cluster cannot be told.
    #[error("cannot tell whether {cluster} is managed from here")]
    Fence {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: Box<crate::pivot::PivotError>,
    },
    /// Another side manages the cluster, or will in a moment.
    #[error("{cluster} is not managed from here at the moment")]
    Elsewhere {
        /// The cluster.
        cluster: String,
    },
    /// The installer's own SSH key cannot be read.
    #[error("cannot let the installer into {machine}")]
    Key {
        /// The machine.
        machine: String,
        /// Why.
        #[source]
        source: Box<crate::node::ssh::SshError>,
    },
    /// A Secret.
    #[error(transparent)]
    Secret(#[from] SecretsError),
    /// An object of a manifest.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Certificates of our own.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The client of a cluster that we made.
    #[error("cannot connect to the new cluster")]
    Client(#[from] ClientError),
    /// What is to be done on a machine cannot be told.
    #[error("cannot prepare {machine} for Kubernetes")]
    Prepare {
        /// The machine.
        machine: String,
        /// Why.
        #[source]
        source: Box<PrepareError>,
    },
    /// A step on a machine, outside of its states.
    #[error("cannot bring {machine} up to date")]
    Step {
        /// The machine.
        machine: String,
        /// Why.
        #[source]
        source: Box<StepError>,
    },
    /// The operating system's first settings could not be made.
    #[error("cannot render the first-boot settings of {machine}")]
    Seed {
        /// The machine.
        machine: String,
        /// The template's error.
        #[source]
        source: Box<minijinja::Error>,
    },
}

/// Services and reconcilers of a run; one that ends while it is needed ends the run.
pub type Tasks = JoinSet<Result<(), Box<dyn std::error::Error + Send + Sync>>>;

/// Starts every reconciler; they end when `cancel` is cancelled and what they have begun is done.
pub fn start(context: &Arc<Context>, tasks: &mut Tasks, cancel: &CancellationToken) {
    let machines = Controller::new(context.objects::<MetalMachine>(), watcher::Config::default());
    let filled = machines.store();
    let machines =
        machines.graceful_shutdown_on(end(cancel.clone(), filled)).run(machine::reconcile, retry, context.clone());
    tasks.spawn(machines.for_each(|_| async {}).map(Ok));
    let owner = |machine: MetalMachine| [ObjectRef::new(&machine.spec.cluster).within(NAMESPACE)].into_iter();
    let clusters = Controller::new(context.objects::<MetalCluster>(), watcher::Config::default());
    let filled = clusters.store();
    let clusters = clusters
        .watches(context.objects::<MetalMachine>(), watcher::Config::default(), owner)
        .graceful_shutdown_on(end(cancel.clone(), filled))
        .run(cluster::reconcile, retry, context.clone());
    tasks.spawn(clusters.for_each(|_| async {}).map(Ok));
    if let Workload::Own(client) = &context.workload {
        tasks.spawn(gateway::keep(context.clone(), client.clone(), cancel.clone()).map(Ok));
    }
    tasks.spawn(context.sightings.clone().follow(context.events.subscribe(), cancel.clone()).map(Ok));
}

/// When a controller may be told to end. Not before its first list is there: it would wait for that list for ever, and no
/// longer ask for it.
async fn end<K>(cancel: CancellationToken, store: Store<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    cancel.cancelled().await;
    // An error means that the controller has ended already.
    let _ = store.wait_until_ready().await;
}

/// What every reconciler does after an error. A conflict only means that somebody else wrote first: look again at once.
fn retry<K>(_: Arc<K>, error: &ReconcileError, _: Arc<Context>) -> Action {
    match error {
        ReconcileError::Api(error) if error.is_conflict() => Action::requeue(Duration::from_millis(50)),
        error => {
            tracing::warn!("{}", crate::error::chain(error));
            Action::requeue(Duration::from_secs(2))
        }
    }
}
