//! Objects of a cluster as `create` writes them, and what controllers work with.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use metalgate::api::{self, MetalCluster, NAMESPACE};
use metalgate::controllers::{Connect, Context, JOINS, Limits, Workload};
use metalgate::event::EventBus;
use metalgate::node::ssh;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

pub const CLUSTER: &str = "rack-a";

pub fn objects<K>(client: &Client) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), NAMESPACE)
}

pub fn named(kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": if kind == "Secret" { "v1" } else { "metalgate.dev/v1alpha1" }, "kind": kind,
        "metadata": {"name": name, "labels": {"metalgate.dev/cluster": CLUSTER}},
    });
    let fields = object.as_object_mut().unwrap();
    fields.extend(rest.as_object().unwrap().clone());
    object
}

pub async fn apply<K>(client: &Client, name: &str, object: Value) -> K
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let how = PatchParams::apply(api::FIELD_MANAGER).force();
    objects::<K>(client).patch(name, &how, &Patch::Apply(object)).await.unwrap()
}

pub async fn write_cluster(client: &Client) -> MetalCluster {
    let spec = json!({"spec": {
        "kubernetesVersion": "v1.36.3", "endpoint": "10.0.0.10:6443", "podCidr": "10.244.0.0/16",
        "serviceCidr": "10.96.0.0/12", "cni": "none", "image": {"name": "image", "sha256": "ab", "format": "raw"},
        "groups": [
            {"name": "control-plane", "role": "ControlPlane", "count": 1, "selector": {"type": "cp"}},
            {"name": "md-0", "role": "Worker", "count": 1, "selector": {"type": "worker"}},
        ],
        "provisioning": {"dhcp": "reservation", "httpPort": 8080, "agentPort": 8443},
        "users": [{"name": "ops", "sshAuthorizedKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtQUDZWhs8k/cZcykMkaUX9ArZNQXhrAnvP7iBTA8dE ops"]}],
    }});
    apply(client, CLUSTER, named("MetalCluster", CLUSTER, spec)).await
}

/// What the controllers get in a run that begins now.
pub fn context(client: &Client, connect: Connect) -> Context {
    Context {
        client: client.clone(),
        events: EventBus::default(),
        table: Default::default(),
        sightings: Default::default(),
        connect,
        limits: Limits::default(),
        started: jiff::Timestamp::now(),
        ssh_key: ssh::generate_ed25519().unwrap().0,
        supplies: Default::default(),
        server: "http://10.0.0.1:8080".into(),
        workload: Workload::administrator(),
        logs: std::env::temp_dir(),
        control_plane: Default::default(),
        joins: Semaphore::new(JOINS),
    }
}
