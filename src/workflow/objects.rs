//! Phase: the plan as objects. Everything is applied server-side, so running it again changes only what the files
//! changed; keys are made once and kept.

use super::{Phase, PhaseResult, Run, RunError};
use crate::api::{
    self, BmcRef, CLUSTER_LABEL, FIELD_MANAGER, Hardware, HardwareSpec, MachineState, MetalCluster, MetalClusterSpec,
    MetalMachine, MetalMachineSpec, NAMESPACE,
};
use crate::inventory::Machine;
use crate::node::ssh;
use crate::plan::PlannedMachine;
use crate::secret::Secret;
use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Secret with the key that metalgate itself logs in with.
const INSTALLER_KEY: &str = "metalgate-ssh";

pub struct Objects;

/// An object that could not be written, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The API server refused or did not answer.
    #[error("the bootstrap cluster did not take {object}")]
    Api {
        /// The object.
        object: String,
        /// Its error.
        #[source]
        source: Box<kube::Error>,
    },
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

impl ObjectsError {
    fn api(object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api { object, source: Box::new(source) }
    }
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
        let installer = keep_key(&client, INSTALLER_KEY, &run.request.spec.name).await?;
        run.work_dir.write_private("id_ed25519", installer.private.expose())?;
        apply_cluster(&client, run).await?;
        let mut known_hosts = String::new();
        for planned in &run.request.plan.machines {
            let Some(machine) = run.request.machines.iter().find(|machine| machine.hostname == planned.hostname) else {
                continue;
            };
            let host_key = apply_machine(&client, &run.request.spec.name, planned, machine).await?;
            known_hosts.push_str(&format!("{} {}\n", machine.address.addr(), host_key.public));
        }
        run.work_dir.write_private("known_hosts", &known_hosts)?;
        settle_earlier_runs(&client, run).await?;
        run.installer_key = Some(installer.private);
        Ok(())
    }
}

/// An SSH key pair as it is kept in a Secret: `hostKey` and `hostKey.pub`.
struct KeyPair {
    private: Secret<String>,
    public: String,
}

/// The key pair in the Secret `name`; made and stored if there is none yet.
async fn keep_key(
    client: &Client,
    name: &str,
    cluster: &str,
) -> Result<KeyPair, Box<dyn std::error::Error + Send + Sync>> {
    let api: Api<KubeSecret> = Api::namespaced(client.clone(), NAMESPACE);
    let what = || format!("Secret {name}");
    if let Some(data) = api.get_opt(name).await.map_err(ObjectsError::api(what()))?.and_then(|secret| secret.data) {
        let text = |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned());
        if let (Some(private), Some(public)) = (text("hostKey"), text("hostKey.pub")) {
            return Ok(KeyPair { private: Secret::new(private), public });
        }
    }
    let (private, public) = ssh::generate_ed25519()?;
    let data = [("hostKey", private.expose().clone()), ("hostKey.pub", public.clone())];
    api.create(&PostParams::default(), &secret(name, cluster, data)).await.map_err(ObjectsError::api(what()))?;
    Ok(KeyPair { private, public })
}

fn secret<const N: usize>(name: &str, cluster: &str, data: [(&str, String); N]) -> KubeSecret {
    KubeSecret {
        metadata: metadata(name, cluster),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()),
        ..KubeSecret::default()
    }
}

fn metadata(name: &str, cluster: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(BTreeMap::from([(CLUSTER_LABEL.to_owned(), cluster.to_owned())])),
        ..ObjectMeta::default()
    }
}

async fn apply<K>(client: &Client, object: &K) -> Result<(), ObjectsError>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    K::DynamicType: Default,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let what = format!("{} {name}", K::kind(&K::DynamicType::default()));
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    let how = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &how, &Patch::Apply(object)).await.map(drop).map_err(ObjectsError::api(what))
}

async fn apply_cluster(client: &Client, run: &Run) -> PhaseResult {
    let spec = &run.request.spec;
    let image = run.image.as_ref().ok_or(RunError::Order("image"))?;
    let object = MetalClusterSpec {
        kubernetes_version: spec.kubernetes.version.clone(),
        endpoint: format!("{}:{}", spec.kubernetes.endpoint.host, spec.kubernetes.endpoint.port),
        pod_cidr: spec.kubernetes.pod_cidr.to_string(),
        service_cidr: spec.kubernetes.service_cidr.to_string(),
        image_url: image.url.clone(),
        image_sha256: spec.os.image.sha256.clone(),
        image_format: spec.os.image.format,
        users: spec.os.users.clone(),
    };
    let mut cluster = MetalCluster::new(&spec.name, object);
    cluster.metadata = metadata(&spec.name, &spec.name);
    Ok(apply(client, &cluster).await?)
}

/// Writes one machine: its Secrets, Hardware and MetalMachine. Gives its host key.
async fn apply_machine(
    client: &Client,
    cluster: &str,
    planned: &PlannedMachine,
    machine: &Machine,
) -> Result<KeyPair, Box<dyn std::error::Error + Send + Sync>> {
    let name = &machine.hostname;
    let host_key_name = format!("{name}-host-key");
    let host_key = keep_key(client, &host_key_name, cluster).await?;
    let mut bmc = None;
    if let Some(access) = &machine.bmc {
        let credentials = format!("{name}-bmc");
        let data = [("username", access.username.clone()), ("password", access.password.expose().clone())];
        apply(client, &secret(&credentials, cluster, data)).await?;
        bmc = Some(BmcRef { kind: access.kind, url: access.url.clone(), credentials });
    }
    let mut hardware = Hardware::new(
        name,
        HardwareSpec {
            mac: machine.mac,
            address: machine.address,
            gateway: machine.gateway,
            nameservers: machine.nameservers.clone(),
            disk: machine.disk.clone(),
            vlan: machine.vlan,
            arch: machine.arch,
            boot_mode: machine.boot_mode,
            bmc,
        },
    );
    hardware.metadata = metadata(name, cluster);
    hardware.metadata.labels.get_or_insert_default().extend(machine.labels.clone());
    apply(client, &hardware).await?;
    let spec = MetalMachineSpec {
        cluster: cluster.to_owned(),
        hardware: name.clone(),
        role: planned.role,
        group: planned.group.clone(),
        host_key: host_key_name,
        labels: planned.labels.clone(),
        taints: planned.taints.clone(),
    };
    let mut object = MetalMachine::new(name, spec);
    object.metadata = metadata(name, cluster);
    apply(client, &object).await?;
    Ok(host_key)
}

/// What earlier runs left: failed machines are tried again; one that is no longer planned must not be forgotten silently.
async fn settle_earlier_runs(client: &Client, run: &Run) -> PhaseResult {
    let api: Api<MetalMachine> = Api::namespaced(client.clone(), NAMESPACE);
    let machines = api.list(&ListParams::default()).await.map_err(ObjectsError::api("the list of MetalMachines"))?;
    for machine in machines {
        let name = machine.metadata.name.clone().unwrap_or_default();
        let state = machine.status.as_ref().map(|status| status.state).unwrap_or_default();
        let planned = run.request.plan.machines.iter().any(|planned| planned.hostname == name);
        if !planned && state != MachineState::Pending {
            return Err(ObjectsError::Abandoned { machine: name, state }.into());
        }
        if !planned {
            let delete = api.delete(&name, &Default::default()).await;
            delete.map_err(ObjectsError::api(format!("the removal of MetalMachine {name}")))?;
        } else if state == MachineState::Failed {
            let fresh = serde_json::json!({ "status": {
                "state": MachineState::Pending, "reason": "to be tried again", "failure": null, "attempts": 0, "since": null,
            } });
            let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(fresh)).await;
            patched.map_err(ObjectsError::api(format!("the status of MetalMachine {name}")))?;
        }
    }
    Ok(())
}
