//! The manager: after the pivot, the cluster's own deployment of this program. It holds a lease, serves DHCP, TFTP and HTTP on the
//! provisioning network, and runs the same reconcilers as `create`.
//!
//! `services` is what every managing side runs; `deploy` puts the manager into a cluster, `image` makes its image, `lease` says
//! which of its replicas acts, `probes` answers kubelet and Prometheus.

pub mod deploy;
pub mod image;
pub mod lease;
mod probes;
pub mod services;

use crate::api::{ApiError, MetalCluster, NAMESPACE, secrets};
use crate::controllers::{self, Tasks, Workload};
use crate::event::EventBus;
use crate::gateway::Stack;
use crate::image::manifest::Manifest;
use crate::netboot::http::ServedFile;
use crate::node::prepare::OS_IMAGES;
use crate::node::supplies::Supplies;
use kube::{Api, Client};
use lease::Lease;
use probes::Health;
use services::{Side, StartError};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a manager is told by its deployment.
pub struct Settings {
    /// The cluster, also the name of its MetalCluster.
    pub cluster: String,
    /// Our name among the replicas.
    pub identity: String,
    /// The node's address, in the provisioning network.
    pub address: Ipv4Addr,
    /// The artifact directory, as node preparation filled it.
    pub artifacts: PathBuf,
    /// Where certificates and logs are kept, across restarts.
    pub state: PathBuf,
    /// Port of probes and metrics.
    pub probe_port: u16,
}

/// A manager that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// No interface has the node's address.
    #[error("no interface of this node has its address {0}")]
    Interface(Ipv4Addr),
    /// Another replica acts now, or the API server cannot be asked: nobody knows.
    #[error("the lease was lost; another replica may act now")]
    Lost,
    /// A service or reconciler ended.
    #[error("a service ended although it was still needed")]
    Ended,
}

/// Runs until `cancel`, or until it may act no longer.
pub async fn run(client: Client, settings: Settings, cancel: CancellationToken) -> Result<(), StartError> {
    let events = EventBus::default();
    let health = Health::default();
    let mut tasks = Tasks::new();
    let address = (IpAddr::V4(settings.address), settings.probe_port).into();
    probes::start(address, health.clone(), &events, &mut tasks, &cancel).await?;
    tasks.spawn(log(events.clone(), cancel.clone()));
    let mut lease = Lease::new(client.clone(), &settings.identity);
    if cancel.run_until_cancelled(lease.acquire()).await.is_none() {
        return Ok(());
    }
    tracing::info!(identity = settings.identity, "this replica acts");
    let context = side(client, &settings, &events).await?.serve(&mut tasks, &cancel).await?;
    controllers::start(&context, &mut tasks, &cancel);
    health.leads();
    let result = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = lease.keep() => Err(ManagerError::Lost.into()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(panic.into()),
            Some(Ok(Ok(()))) | None => Err(ManagerError::Ended.into()),
        },
    };
    if result.is_ok() {
        while tasks.join_next().await.is_some() {}
        lease.release().await;
    }
    result
}

/// Events are the manager's log.
async fn log(events: EventBus, cancel: CancellationToken) -> Result<(), StartError> {
    use tokio::sync::broadcast::error::RecvError;
    let mut events = events.subscribe();
    while let Some(received) = cancel.run_until_cancelled(events.recv()).await {
        match received {
            Ok(event) => tracing::info!(target: "event", "{}", serde_json::to_string(&event)?),
            Err(RecvError::Lagged(missed)) => tracing::warn!("{missed} events were too fast for the log"),
            Err(RecvError::Closed) => break,
        }
    }
    Ok(())
}

async fn side(client: Client, settings: &Settings, events: &EventBus) -> Result<Side, StartError> {
    let clusters: Api<MetalCluster> = Api::namespaced(client.clone(), NAMESPACE);
    let cluster = clusters.get(&settings.cluster).await;
    let spec = cluster.map_err(ApiError::of(format!("MetalCluster {}", settings.cluster)))?.spec;
    let manifest = Manifest::load(&settings.artifacts)?;
    let arches = manifest.arches_of_nodes();
    let stack = spec.gateway.clone().map(|gateway| Stack { name: settings.cluster.clone(), gateway });
    let (version, virtual_ip) = (&spec.kubernetes_version, spec.virtual_ip);
    let supplies = Supplies::new(manifest, version, spec.cni, virtual_ip, stack.as_ref(), &arches)?;
    let interfaces = if_addrs::get_if_addrs()?;
    let ours = interfaces.iter().find(|interface| interface.ip() == IpAddr::V4(settings.address));
    let image = ServedFile {
        path: settings.artifacts.join(OS_IMAGES).join(&spec.image.name),
        sha256: spec.image.sha256.clone(),
    };
    let directory = |name: &str| {
        let path = settings.state.join(name);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(&path).map(|()| path)
    };
    Ok(Side {
        ssh_key: secrets::read_key(&client, secrets::INSTALLER_KEY).await?.private,
        workload: Workload::Own(client.clone()),
        client,
        events: events.clone(),
        interface: ours.ok_or(ManagerError::Interface(settings.address))?.name.clone(),
        address: settings.address,
        provisioning: spec.provisioning,
        supplies: Arc::new(supplies),
        os_images: BTreeMap::from([(spec.image.name, image)]),
        pki: directory("pki")?,
        logs: directory("machines")?,
    })
}
