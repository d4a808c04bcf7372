//! Phase: the plan as objects. Everything is applied server-side, so running it again changes only what the files
//! changed; keys are made once and kept. `apply` writes the same objects into the cluster that manages itself.

use super::{Phase, PhaseResult, Run, RunError};
use crate::api::secrets::{self, INSTALLER_KEY, KeyPair, host_key_name, metadata, secret};
use crate::api::{
    self, ApiError, BmcRef, FIELD_MANAGER, Hardware, HardwareSpec, MachineGroup, MachineRole, MachineState,
    MetalCluster, MetalClusterSpec, MetalMachine, MetalMachineStatus, NAMESPACE, OsImage, Provisioning,
};
use crate::controllers::cluster::groups;
use crate::inventory::Machine;
use crate::pivot::Pivot;
use crate::plan::{self, PlannedMachine};
use crate::spec::{ClusterSpec, Group};
use async_trait::async_trait;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub struct Objects;

/// An object that may not be written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// A machine that was begun is no longer in the plan.
    #[error(
        "{machine} was begun by an earlier run ({state:?}) but the spec and the inventory no longer use it; put it back \
         into both files, or give another --work-dir to start anew"
    )]
    Abandoned {
        /// The machine.
        machine: String,
        /// How far it came.
        state: MachineState,
    },
}

#[async_trait]
impl Phase for Objects {
    fn name(&self) -> &'static str {
        "objects"
    }

    fn title(&self) -> &'static str {
        "writing the machines into the bootstrap cluster"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let client = run.cluster.as_ref().ok_or(RunError::Order("bootstrap cluster"))?.client();
        api::crds::apply(&client).await?;
        let installer = secrets::keep_key(&client, INSTALLER_KEY, &run.request.spec.name).await?;
        run.work_dir.write_private("id_ed25519", installer.private.expose())?;
        run.installer_key = Some(installer.private);
        if run.handed_over {
            return Ok(());
        }
        // A run that was killed while it moved the cluster has left it frozen.
        Pivot::thaw(&client, &run.request.spec.name).await?;
        let spec = &run.request.spec;
        secrets::keep_authorities(&client, &spec.name).await?;
        let image = run.image.as_ref().ok_or(RunError::Order("image"))?;
        apply(&client, &cluster(spec, &run.request.machines, &image.name)).await?;
        for machine in &run.request.machines {
            apply_hardware(&client, &spec.name, machine).await?;
        }
        let mut known_hosts = String::new();
        for planned in &run.request.plan.machines {
            let host_key = apply_machine(&client, spec, planned).await?;
            known_hosts.push_str(&format!("{} {}\n", planned.address.addr(), host_key.public));
        }
        run.work_dir.write_private("known_hosts", &known_hosts)?;
        settle_earlier_runs(&client, run).await
    }
}

/// Server-side apply of one object of ours.
pub async fn apply<K>(client: &Client, object: &K) -> Result<(), ApiError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    K::DynamicType: Default,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let what = format!("{} {name}", K::kind(&K::DynamicType::default()));
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    let how = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &how, &Patch::Apply(object)).await.map(drop).map_err(ApiError::of(what))
}

/// How machines are installed, as the objects have it.
pub fn provisioning(spec: &ClusterSpec) -> Provisioning {
    let spec = &spec.provisioning;
    Provisioning { dhcp: spec.dhcp, http_port: spec.http_port, agent_port: spec.agent_port }
}

fn group(group: &Group, role: MachineRole) -> MachineGroup {
    MachineGroup {
        name: group.name.clone(),
        role,
        count: group.count,
        selector: group.selector.clone(),
        labels: group.labels.clone(),
        taints: group.taints.clone(),
    }
}

/// The MetalCluster of a spec; `image` is the OS image's name on our HTTP server.
pub fn cluster(spec: &ClusterSpec, machines: &[Machine], image: &str) -> MetalCluster {
    let workers = spec.workers.iter().map(|workers| group(workers, MachineRole::Worker));
    let object = MetalClusterSpec {
        kubernetes_version: spec.kubernetes.version.clone(),
        endpoint: format!("{}:{}", spec.kubernetes.endpoint.host, spec.kubernetes.endpoint.port),
        virtual_ip: plan::has_virtual_ip(spec, machines),
        pod_cidr: spec.kubernetes.pod_cidr.to_string(),
        service_cidr: spec.kubernetes.service_cidr.to_string(),
        cni: spec.kubernetes.cni,
        cert_sans: spec.kubernetes.cert_sans.clone(),
        api_server_extra_args: spec.kubernetes.api_server_extra_args.clone(),
        image: OsImage { name: image.to_owned(), sha256: spec.os.image.sha256.clone(), format: spec.os.image.format },
        users: spec.os.users.clone(),
        ntp_servers: spec.os.ntp_servers.clone(),
        registries: spec.registries.clone(),
        groups: std::iter::once(group(&spec.control_plane, MachineRole::ControlPlane)).chain(workers).collect(),
        provisioning: provisioning(spec),
        gateway: spec.gateway.clone(),
    };
    let mut cluster = MetalCluster::new(&spec.name, object);
    cluster.metadata = metadata(&spec.name, &spec.name);
    cluster
}

/// What the inventory says of one machine.
pub fn hardware(cluster: &str, machine: &Machine) -> Hardware {
    let name = &machine.hostname;
    let bmc = machine.bmc.as_ref();
    let spec = HardwareSpec {
        mac: machine.mac,
        address: machine.address,
        gateway: machine.gateway,
        nameservers: machine.nameservers.clone(),
        disk: machine.disk.clone(),
        vlan: machine.vlan,
        arch: machine.arch,
        boot_mode: machine.boot_mode,
        bmc: bmc.map(|bmc| BmcRef { kind: bmc.kind, url: bmc.url.clone(), credentials: format!("{name}-bmc") }),
    };
    let mut hardware = Hardware::new(name, spec);
    hardware.metadata = metadata(name, cluster);
    hardware.metadata.labels.get_or_insert_default().extend(machine.labels.clone());
    hardware
}

/// Writes one machine's Hardware, and the Secret of its BMC.
pub async fn apply_hardware(client: &Client, cluster: &str, machine: &Machine) -> Result<(), ApiError> {
    let hardware = hardware(cluster, machine);
    if let (Some(access), Some(reference)) = (&machine.bmc, &hardware.spec.bmc) {
        let data = [("username", access.username.clone()), ("password", access.password.expose().clone())];
        apply(client, &secret(&reference.credentials, cluster, data)).await?;
    }
    apply(client, &hardware).await
}

/// Writes one planned machine and its host key, and gives the key.
async fn apply_machine(
    client: &Client,
    spec: &ClusterSpec,
    planned: &PlannedMachine,
) -> Result<KeyPair, Box<dyn std::error::Error + Send + Sync>> {
    let name = &planned.hostname;
    let host_key = secrets::keep_key(client, &host_key_name(name), &spec.name).await?;
    let groups = std::iter::once(&spec.control_plane).chain(&spec.workers);
    if let Some(found) = groups.into_iter().find(|group| group.name == planned.group) {
        apply(client, &groups::machine(&spec.name, &group(found, planned.role), name)).await?;
    }
    Ok(host_key)
}

/// What earlier runs left: failed machines are tried again, unless a spare took their place; one that is no longer planned
/// must not be forgotten silently.
async fn settle_earlier_runs(client: &Client, run: &Run) -> PhaseResult {
    let api: Api<MetalMachine> = Api::namespaced(client.clone(), NAMESPACE);
    let machines = api.list(&ListParams::default()).await.map_err(ApiError::of("the list of MetalMachines"))?;
    for machine in machines {
        let name = machine.metadata.name.clone().unwrap_or_default();
        let planned = run.request.plan.machines.iter().any(|planned| planned.hostname == name);
        match (planned, machine.state()) {
            (false, MachineState::Pending) => {
                let delete = api.delete(&name, &Default::default()).await;
                delete.map_err(ApiError::of(format!("the removal of MetalMachine {name}")))?;
            }
            // It was replaced; why it failed stays in its status.
            (false, MachineState::Failed | MachineState::Deleting) => {}
            (false, state) => return Err(ObjectsError::Abandoned { machine: name, state }.into()),
            (true, MachineState::Failed) => {
                let installed = machine.status.as_ref().is_some_and(MetalMachineStatus::is_os_installed);
                let state = if installed { MachineState::Installed } else { MachineState::Pending };
                let fresh = serde_json::json!({ "status": {
                    "state": state, "reason": "to be tried again", "failure": null, "attempts": 0,
                    "joinAttempts": 0, "unreachableSince": null, "replacedBy": null, "since": null,
                } });
                let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(fresh)).await;
                patched.map_err(ApiError::of(format!("the status of MetalMachine {name}")))?;
            }
            (true, _) => {}
        }
    }
    Ok(())
}
