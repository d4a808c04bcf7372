//! The machine's Node object: labels, taints, readiness.

use super::{Context, Machine};
use crate::api::{ApiError, FIELD_MANAGER};
use crate::controllers::{ReconcileError, serving_certificates};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

/// Whether a node can take pods.
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, and why.
    NotReady(String),
}

/// Keeps labels and the serving certificate of the machine's node, and says whether it is Ready.
pub async fn keep(context: &Context, machine: &mut Machine) -> Result<Readiness, ReconcileError> {
    let cluster = context.cluster(&machine.object.spec.cluster).await?;
    let client = context.workload.client(context, &cluster).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get_opt(&machine.name).await.map_err(ApiError::of(format!("Node {}", machine.name)))?;
    let readiness = match &found {
        None => Readiness::NotReady(String::from("its kubelet has not registered it")),
        Some(node) => {
            serving_certificates::sign(&client, &machine.name, machine.hardware.spec.address.addr()).await?;
            label(&client, machine, node).await?;
            readiness(node)
        }
    };
    machine.node_ready = Some(matches!(readiness, Readiness::Ready));
    Ok(readiness)
}

fn readiness(node: &Node) -> Readiness {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => Readiness::Ready,
        Some(condition) => {
            let message = condition.message.clone().or(condition.reason.clone());
            Readiness::NotReady(message.unwrap_or_else(|| String::from("its kubelet gives no reason")))
        }
        None => Readiness::NotReady(String::from("its kubelet has said nothing yet")),
    }
}

/// The labels of the machine's group. Taints are set by kubeadm when the node registers: pods must not be faster.
async fn label(client: &Client, machine: &Machine, node: &Node) -> Result<(), ReconcileError> {
    let wanted = &machine.object.spec.labels;
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if wanted.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return Ok(());
    }
    let patch = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "labels": wanted } });
    let api: Api<Node> = Api::all(client.clone());
    let how = PatchParams::apply(FIELD_MANAGER).force();
    let patched = api.patch(&machine.name, &how, &Patch::Apply(&patch)).await;
    patched.map_err(ApiError::of(format!("the labels of Node {}", machine.name)))?;
    Ok(())
}
