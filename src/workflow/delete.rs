//! `delete cluster`: machines are switched off, their disks wiped if that is wanted, and what the admin machine keeps is removed.
//!
//! Where the cluster stands does not matter: half made (the bootstrap cluster has the objects) or managing itself. What is needed to
//! switch every machine off is written down first, because the objects go with the control plane; a run that was killed is
//! continued with that file.

use super::managed;
use super::pivot::SELF_MANAGED;
use super::work_dir::WorkDir;
use crate::api::{ApiError, Hardware, MachineRole, MachineState, MetalCluster, MetalMachine, NAMESPACE, secrets};
use crate::bootstrap::{self, Provider};
use crate::event::{EventBus, EventKind};
use crate::image::manifest::Manifest;
use crate::inventory::{BmcAccess, BmcKind};
use crate::node::prepare;
use crate::node::ssh::{Session, Target};
use crate::power;
use crate::secret::{Secret, serialize_exposed};
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// File of the work directory with what is left to be done. Mode 0600: it holds the BMCs' passwords.
pub(super) const PLAN: &str = "deleting.json";
/// For one SSH login.
const LOGIN: Duration = Duration::from_secs(60);
/// BMCs that are asked at the same time.
const PARALLEL: usize = 8;

/// What is asked for.
pub struct Request {
    /// The cluster.
    pub cluster: String,
    /// Whether disks are wiped.
    pub wipe: bool,
    /// The artifacts, to start the bootstrap cluster of a half-made one.
    pub artifacts: PathBuf,
    /// Our own executable.
    pub metalgate: PathBuf,
    /// Where the objects of a half-made cluster are.
    pub bootstrap: Provider,
}

/// What is known of a machine when its object is gone.
#[derive(Serialize, Deserialize)]
struct Doomed {
    name: String,
    address: Ipv4Addr,
    worker: bool,
    /// Whether it has a system of ours that answers SSH.
    installed: bool,
    user: String,
    #[serde(default)]
    host_key: Option<String>,
    #[serde(default)]
    bmc: Option<Access>,
    #[serde(default)]
    done: bool,
}

#[derive(Serialize, Deserialize)]
struct Access {
    kind: BmcKind,
    url: String,
    username: String,
    #[serde(serialize_with = "serialize_exposed")]
    password: Secret<String>,
}

impl From<BmcAccess> for Access {
    fn from(BmcAccess { kind, url, username, password }: BmcAccess) -> Self {
        Self { kind, url, username, password }
    }
}

/// What is done to which machine, and what of it was done.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    #[serde(serialize_with = "serialize_exposed")]
    ssh_key: Secret<String>,
    machines: Vec<Doomed>,
}

/// Machines that could not be switched off or wiped.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} machines are not as they should be:{}\nthe same command tries again; `rm -r` of the work directory forgets them", .0.len(),
    .0.iter().map(|(name, why)| format!("\n  {name}: {why}")).collect::<String>()
)]
pub struct Left(BTreeMap<String, String>);

impl Plan {
    /// The machines that [`run`] will touch, by name; for the question that comes first.
    pub fn machines(&self) -> Vec<String> {
        self.machines.iter().filter(|machine| !machine.done).map(|machine| machine.name.clone()).collect()
    }
}

/// Deletes the cluster, and its files in the work directory. From here on a run that was killed is continued with this plan.
pub async fn run(request: &Request, mut plan: Plan, work_dir: &WorkDir, events: &EventBus) -> Result<(), Error> {
    work_dir.write_private(PLAN, &serde_json::to_string(&plan)?)?;
    if work_dir.join(SELF_MANAGED).exists() {
        // It would install again what we take away. A cluster that does not answer has no manager that could.
        if let Err(error) = stop_manager(work_dir).await {
            tracing::warn!("the cluster's manager cannot be stopped: {}", crate::error::chain(error.as_ref()));
        }
    }
    let mut left = BTreeMap::new();
    for worker in [true, false] {
        let group: Vec<usize> = (0..plan.machines.len())
            .filter(|at| plan.machines[*at].worker == worker && !plan.machines[*at].done)
            .collect();
        let ended: Vec<(usize, Result<(), String>)> = {
            let jobs: Vec<_> = group
                .iter()
                .map(|at| end(&plan.machines[*at], *at, request.wipe, &plan.ssh_key, work_dir, events))
                .collect();
            stream::iter(jobs).buffer_unordered(PARALLEL).collect().await
        };
        for (at, result) in ended {
            match result {
                Ok(()) => plan.machines[at].done = true,
                Err(why) => drop(left.insert(plan.machines[at].name.clone(), why)),
            }
        }
        work_dir.write_private(PLAN, &serde_json::to_string(&plan)?)?;
    }
    if !left.is_empty() {
        return Err(Left(left).into());
    }
    bootstrap::remove(&request.bootstrap, work_dir.path(), &request.cluster).await?;
    Ok(work_dir.clear()?)
}

/// The plan of an earlier run, or a new one; nothing is done yet, and nothing written.
pub async fn plan(request: &Request, work_dir: &WorkDir) -> Result<Plan, Error> {
    if let Ok(text) = std::fs::read_to_string(work_dir.join(PLAN)) {
        return Ok(serde_json::from_str(&text)?);
    }
    let plan = if work_dir.join(SELF_MANAGED).exists() {
        read(&managed::client(work_dir.path(), &request.cluster).await?, &request.cluster).await?
    } else {
        let manifest = Manifest::load(&request.artifacts)?;
        let started =
            bootstrap::start(&request.metalgate, &request.bootstrap, &manifest, work_dir.path(), &request.cluster)
                .await?;
        let plan = read(&started.client(), &request.cluster).await;
        started.stop().await;
        plan?
    };
    Ok(plan)
}

async fn read(client: &Client, name: &str) -> Result<Plan, Error> {
    let clusters: Api<MetalCluster> = Api::namespaced(client.clone(), NAMESPACE);
    // A run that was killed early has written no objects. Only that means that there are no machines: an API server that does
    // not answer says nothing, and its machines must not be forgotten.
    let found = clusters.get_opt(name).await.map_err(ApiError::of(format!("MetalCluster {name}")))?;
    let Some(cluster) = found else {
        let (ssh_key, _) = crate::node::ssh::generate_ed25519()?;
        return Ok(Plan { ssh_key, machines: Vec::new() });
    };
    let user = cluster.spec.users.first().map(|user| user.name.clone()).unwrap_or_default();
    let machines = Api::<MetalMachine>::namespaced(client.clone(), NAMESPACE).list(&ListParams::default()).await;
    let machines = machines.map_err(ApiError::of("the list of MetalMachines"))?;
    let mut doomed = Vec::new();
    for machine in machines.iter().filter(|machine| machine.spec.cluster == name) {
        let status = machine.status.clone().unwrap_or_default();
        // Nothing was done to it: it is none of our business.
        if status.state == MachineState::Pending && status.attempts == 0 {
            continue;
        }
        let hardware = &machine.spec.hardware;
        let hardware = Api::<Hardware>::namespaced(client.clone(), NAMESPACE).get(hardware).await;
        let hardware = hardware.map_err(ApiError::of(format!("Hardware {}", machine.spec.hardware)))?;
        let bmc = match &hardware.spec.bmc {
            Some(bmc) => Some(secrets::bmc_access(client, bmc).await?.into()),
            None => None,
        };
        doomed.push(Doomed {
            name: machine.name_any(),
            address: hardware.spec.address.addr(),
            worker: machine.spec.role == MachineRole::Worker,
            installed: status.is_os_installed(),
            user: user.clone(),
            host_key: secrets::read_key(client, &machine.spec.host_key).await.ok().map(|key| key.public),
            bmc,
            done: false,
        });
    }
    let ssh_key = secrets::read_key(client, secrets::INSTALLER_KEY).await?.private;
    Ok(Plan { ssh_key, machines: doomed })
}

async fn stop_manager(work_dir: &WorkDir) -> Result<(), Error> {
    let client = work_dir.kubeconfig_client().await?;
    let api: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    match api.delete("metalgate-manager", &DeleteParams::foreground()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => Ok(done.map(drop).map_err(ApiError::of("the deletion of the manager"))?),
    }
}

/// Wipes and switches off one machine.
async fn end(
    machine: &Doomed,
    at: usize,
    wipe: bool,
    ssh_key: &Secret<String>,
    work_dir: &WorkDir,
    events: &EventBus,
) -> (usize, Result<(), String>) {
    let work = async {
        if wipe && machine.installed {
            wipe_disk(machine, ssh_key, work_dir, events).await?;
        }
        switch_off(machine, events).await
    };
    let result = work.await.map_err(|error| crate::error::chain(error.as_ref()));
    if result.is_ok() {
        events.emit(Some(&machine.name), EventKind::MachineRemoved);
    }
    (at, result)
}

async fn wipe_disk(machine: &Doomed, key: &Secret<String>, work_dir: &WorkDir, events: &EventBus) -> Result<(), Error> {
    let Some(host_key) = &machine.host_key else { return Ok(()) };
    events.emit(
        Some(&machine.name),
        EventKind::NodeStep { step: "wiping the disk".into(), detail: machine.address.to_string() },
    );
    let target = Target { address: IpAddr::V4(machine.address), port: 22, user: machine.user.clone() };
    let session = Session::connect(&target, key, host_key, LOGIN).await?;
    let log = work_dir.subdirectory("machines")?.join(format!("{}.log", machine.name));
    prepare::wipe()?.run(&session, &log, |_| {}).await?;
    Ok(())
}

async fn switch_off(machine: &Doomed, events: &EventBus) -> Result<(), Error> {
    let Some(Access { kind, url, username, password }) = &machine.bmc else {
        tracing::warn!("{} has no BMC in the inventory: switch it off by hand", machine.name);
        return Ok(());
    };
    let access = BmcAccess { kind: *kind, url: url.clone(), username: username.clone(), password: password.clone() };
    let done = match power::connect(&access) {
        Ok(bmc) => bmc.power_off().await,
        Err(error) => Err(error),
    };
    let error = done.as_ref().err().map(ToString::to_string);
    events.emit(Some(&machine.name), EventKind::Power { action: "power off".into(), bmc: url.clone(), error });
    Ok(done?)
}
