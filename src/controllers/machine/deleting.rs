//! The machine's object is being deleted: its pods move elsewhere, it leaves the cluster, it is switched off.
//!
//! A machine that is broken must not hold up its own removal, so everything that needs its help is bounded and may fail.

use super::{Context, Machine, Outcome, login, membership, power};
use crate::api::{ApiError, Hardware, MACHINE_FINALIZER, MetalMachine, OUT_OF_SERVICE_LABEL, SURPLUS_ANNOTATION};
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use crate::node::prepare;
use k8s_openapi::api::core::v1::{Node, Pod, Secret as KubeSecret};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::time::Duration;

const RECHECK: Duration = Duration::from_secs(5);

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let cluster_name = machine.object.spec.cluster.clone();
    if membership::is_initialized(context, &cluster_name).await? {
        let cluster = context.cluster(&cluster_name).await?;
        let client = context.workload.client(context, &cluster).await?;
        if let Some(left) = drain(&client, &machine.name).await?
            && machine.in_state() < context.limits.drain
        {
            return Ok(Outcome::wait(format!("its pods move to other nodes; {left} are left"), RECHECK));
        }
        leave(context, machine).await?;
        ignore_missing(Api::<Node>::all(client).delete(&machine.name, &DeleteParams::default()).await, || {
            format!("Node {}", machine.name)
        })?;
    }
    if machine.status.attempts > 0
        && let Some(error) = switch_off(context, machine).await?
        && machine.in_state() < context.limits.power + context.limits.drain
    {
        return Ok(Outcome::wait(format!("to be switched off: {error}"), RECHECK));
    }
    release(context, machine).await?;
    Ok(Outcome::Gone)
}

/// No new pods, and the present ones asked to go. Gives how many are left, if any.
async fn drain(client: &Client, node: &str) -> Result<Option<usize>, ReconcileError> {
    let nodes: Api<Node> = Api::all(client.clone());
    if nodes.get_opt(node).await.map_err(ApiError::of(format!("Node {node}")))?.is_none() {
        return Ok(None);
    }
    nodes.cordon(node).await.map_err(ApiError::of(format!("the cordon of Node {node}")))?;
    let on_it = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(client.clone()).list(&on_it).await.map_err(ApiError::of("the list of Pods"))?;
    let mut left = 0;
    for pod in pods.iter().filter(|pod| moves(pod)) {
        left += 1;
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        match api.evict(&name, &EvictParams::default()).await {
            // A disruption budget allows no more at the moment, or it is gone already.
            Err(kube::Error::Api(status)) if status.code == 429 || status.code == 404 => {}
            done => drop(done.map_err(ApiError::of(format!("the eviction of Pod {namespace}/{name}")))?),
        }
    }
    Ok((left > 0).then_some(left))
}

/// Whether a pod has to go elsewhere: DaemonSets' and static pods belong to the node, finished ones do nothing.
fn moves(pod: &Pod) -> bool {
    let of_node = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" || owner.kind == "Node");
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !of_node && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// kubeadm takes its traces away, and its member out of etcd. A machine that does not answer leaves without it.
async fn leave(context: &Context, machine: &mut Machine) -> Result<(), ReconcileError> {
    let reset = prepare::reset().map_err(|source| context.unpreparable(machine, source))?;
    if let Ok(session) = login::open(context, machine).await? {
        let _ = login::take(context, machine, &session, &reset).await?;
        session.close().await;
    }
    Ok(())
}

/// The error of its BMC, if it cannot be switched off.
async fn switch_off(context: &Context, machine: &Machine) -> Result<Option<String>, ReconcileError> {
    let Some(bmc) = power::bmc(context, machine).await? else { return Ok(None) };
    let done = power::order(context, machine, "power off", bmc.power_off().await).await;
    Ok(done.err().map(|error| error.to_string()))
}

/// Nothing of it is left but its Hardware, which is not used again by itself if it was a person who deleted the machine.
async fn release(context: &Context, machine: &Machine) -> Result<(), ReconcileError> {
    if !machine.object.annotations().contains_key(SURPLUS_ANNOTATION) {
        let name = &machine.object.spec.hardware;
        let patch = json!({ "metadata": { "labels": { OUT_OF_SERVICE_LABEL: "machine-deleted" } } });
        let api = context.objects::<Hardware>();
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        ignore_missing(patched, || format!("Hardware {name}"))?;
    }
    let key = &machine.object.spec.host_key;
    let deleted = context.objects::<KubeSecret>().delete(key, &DeleteParams::default()).await;
    ignore_missing(deleted, || format!("Secret {key}"))?;
    let others: Vec<&String> =
        machine.object.finalizers().iter().filter(|finalizer| *finalizer != MACHINE_FINALIZER).collect();
    let patch = json!({ "metadata": { "finalizers": others } });
    let api = context.objects::<MetalMachine>();
    let patched = api.patch(&machine.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    ignore_missing(patched, || format!("MetalMachine {}", machine.name))?;
    context.table.remove(machine.hardware.spec.mac);
    context.events.emit(Some(&machine.name), EventKind::MachineRemoved);
    Ok(())
}

fn ignore_missing<T>(done: kube::Result<T>, what: impl FnOnce() -> String) -> Result<(), ReconcileError> {
    match done {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => Ok(done.map(drop).map_err(ApiError::of(what()))?),
    }
}
