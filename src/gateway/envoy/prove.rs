//! Whether Envoy Gateway's planes work together. `Programmed` says that a data plane has an address, not that it has taken its
//! configuration: that is in Envoy's own statistics.

use super::super::cluster::{Clusters, pods};
use super::super::model::{DataPlane, ExposeBy};
use super::super::object::Step;
use super::super::prove::{Canary, Door, MAX_CANARY_AGE, Patience, Proof, ProveError, Seen, canary_on, text};
use super::super::reach::Reach;
use super::super::readiness::{Readiness, readiness, waits_for_backend};
use super::super::{Stack, Sums};
use super::{READY_PORT, STATS_PORT, data_plane_labels, gateway_name};
use crate::api::{ApiError, apply};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

/// Label of a canary: the gateway that it is of.
const CANARY_LABEL: &str = "metalgate.dev/canary";

/// Looks at the objects, and at every data plane.
pub async fn look(
    clusters: &Clusters,
    stack: &Stack,
    reach: &(dyn Fn(&Client) -> Reach + Sync),
) -> Result<Seen, ProveError> {
    let mut seen = Seen::default();
    let (proof, client) = (&mut seen.proof, &clusters.here);
    objects(proof, client, stack).await?;
    for plane in &stack.gateway.data_planes {
        let found = pods(client, &stack.gateway.namespace, &data_plane_labels(stack, plane)).await?;
        let wanted = plane.replicas as usize;
        let count = format!("{} of {wanted} pods are there", found.len());
        proof.add("data planes", plane.name.clone(), if found.len() >= wanted { Ok(count) } else { Err(count) });
        for pod in found {
            let reach = reach(client);
            data_plane(proof, &reach, &pod).await;
            if let Some(door) = door(stack, plane) {
                seen.doors.push((reach, pod, door));
            }
        }
    }
    Ok(seen)
}

/// Every object that has a status of its own says that all is well, of its present form.
async fn objects(proof: &mut Proof, client: &Client, stack: &Stack) -> Result<(), ProveError> {
    let steps = stack.render(&Sums::new()).unwrap_or_default();
    for object in steps.iter().flat_map(|step: &Step| &step.objects) {
        let kind = object.value["kind"].as_str().unwrap_or_default();
        if !matches!(kind, "Gateway" | "HTTPRoute" | "SecurityPolicy" | "BackendTLSPolicy" | "Backend") {
            continue;
        }
        let live = apply::current(client, &object.value).await.map_err(super::super::cluster::ClusterError::from)?;
        let live = live.and_then(|live| serde_json::to_value(live).ok()).unwrap_or(Value::Null);
        let result = match readiness(&live) {
            Readiness::Ready if waits_for_backend(&live) => {
                Ok(String::from("accepted; it answers 500 until the Service that it names is there"))
            }
            Readiness::Ready => Ok(String::from("accepted in its present form")),
            Readiness::Waiting(reason) | Readiness::Failed(reason) => Err(reason),
        };
        proof.add("accepted", object.reference().to_string(), result);
    }
    Ok(())
}

async fn data_plane(proof: &mut Proof, reach: &Reach, pod: &Pod) {
    let name = pod.name_any();
    let ready = text(reach, pod, READY_PORT, "/ready").await;
    proof.add("ready", name.clone(), ready.map(|_| String::from("serves")));
    let stats = text(reach, pod, STATS_PORT, "/stats/prometheus").await;
    let connected = stats.as_ref().map_err(Clone::clone).and_then(|stats| {
        match metric(stats, "envoy_control_plane_connected_state") {
            Some(1) => Ok(String::from("Envoy says so")),
            Some(_) => Err(String::from("Envoy has lost its control plane: it goes on with its last configuration")),
            None => Err(String::from("Envoy has no such statistic")),
        }
    });
    proof.add("connected", name.clone(), connected);
    let rejected = stats.and_then(|stats| {
        let lists = ["envoy_listener_manager_lds_update_rejected", "envoy_cluster_manager_cds_update_rejected"];
        match lists.iter().filter_map(|list| metric(&stats, list)).sum::<u64>() {
            0 => Ok(String::from("no update was rejected")),
            some => Err(format!("{some} updates were rejected: see the log of the control plane")),
        }
    });
    proof.add("configuration", name, rejected);
}

/// The sum of a metric's samples in Prometheus' text format.
fn metric(stats: &str, name: &str) -> Option<u64> {
    let of = |line: &str| -> Option<u64> {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse().ok()
    };
    let samples: Vec<u64> = stats.lines().filter_map(of).collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

fn door(stack: &Stack, plane: &DataPlane) -> Option<Door> {
    // Envoy runs without rights, so its ports below 1024 are moved up.
    let is_moved = |port| plane.expose.by != ExposeBy::HostNetwork && port < 1024;
    Door::of(stack, |listener| listener.port + if is_moved(listener.port) { 10_000 } else { 0 })
}

/// A route of one's own, which Envoy answers by itself: it has to come to every data plane and to go again.
pub async fn canary(
    proof: &mut Proof,
    client: &Client,
    stack: &Stack,
    doors: &[(Reach, Pod, Door)],
    patience: Patience,
) -> Result<(), ProveError> {
    forgotten(client, stack).await?;
    let canary = Canary::new();
    let name = format!("{}-canary-{}", stack.name, canary.nonce);
    let metadata = json!({
        "name": name, "namespace": stack.gateway.namespace, "labels": {CANARY_LABEL: stack.name},
    });
    let answer = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "HTTPRouteFilter", "metadata": metadata,
        "spec": {"directResponse": {
            "statusCode": 200, "contentType": "text/plain", "body": {"type": "Inline", "inline": canary.nonce},
        }},
    });
    let parents: Vec<Value> =
        stack.gateway.data_planes.iter().map(|plane| json!({"name": gateway_name(stack, plane)})).collect();
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata,
        "spec": {"parentRefs": parents, "rules": [{
            "matches": [{"path": {"type": "Exact", "value": canary.path}}],
            "filters": [{"type": "ExtensionRef", "extensionRef": {
                "group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": name,
            }}],
        }]},
    });
    let failed = |error: apply::ApplyError| ProveError::Cluster(error.into());
    apply::document(client, &answer).await.map_err(failed)?;
    let placed = apply::document(client, &route).await;
    if placed.is_ok() {
        canary_on(proof, "canary appears", &canary, doors, true, patience.canary).await;
    }
    apply::delete(client, &route).await.map_err(failed)?;
    apply::delete(client, &answer).await.map_err(failed)?;
    placed.map_err(failed)?;
    canary_on(proof, "canary disappears", &canary, doors, false, patience.canary).await;
    Ok(())
}

/// Deletes the canaries of proofs that were killed.
async fn forgotten(client: &Client, stack: &Stack) -> Result<(), ProveError> {
    let labels = ListParams::default().labels(&format!("{CANARY_LABEL}={}", stack.name));
    for (group, version, kind) in
        [("gateway.networking.k8s.io", "v1", "HTTPRoute"), ("gateway.envoyproxy.io", "v1alpha1", "HTTPRouteFilter")]
    {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &stack.gateway.namespace, &resource);
        let found = api.list(&labels).await.map_err(ApiError::of(format!("the list of {kind}s")))?;
        for canary in found.iter().filter(|canary| age(canary) > MAX_CANARY_AGE) {
            let gone = api.delete(&canary.name_any(), &DeleteParams::default()).await;
            gone.map_err(ApiError::of(format!("{kind} {}", canary.name_any())))?;
        }
    }
    Ok(())
}

fn age(object: &DynamicObject) -> Duration {
    let created = object.creation_timestamp().map(|time| time.0);
    created.and_then(|created| Duration::try_from(Timestamp::now().duration_since(created)).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_metric_are_summed_and_others_left_alone() {
        let stats = "# TYPE envoy_a counter\nenvoy_a{x=\"1\"} 2\nenvoy_a{x=\"}\"} 3\nenvoy_ab 7\nenvoy_c 1\n";
        assert_eq!(
            (metric(stats, "envoy_a"), metric(stats, "envoy_c"), metric(stats, "envoy_d")),
            (Some(5), Some(1), None)
        );
    }
}
