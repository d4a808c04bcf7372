//! What was applied, kept in a ConfigMap beside the control plane, so that what the gateway no longer names is deleted, in
//! whichever cluster it is.

use super::Stack;
use super::cluster::{self, ClusterError, Clusters};
use super::model::SecretKey;
use super::object::{Object, ObjectRef, Step};
use crate::api::apply;
use crate::error::chain;
use kube::Client;
use serde_json::json;
use std::collections::BTreeMap;

/// Kinds that outlive the gateway: they hold what belongs to others, too.
pub const KEPT: [&str; 2] = ["Namespace", "CustomResourceDefinition"];

/// What a run has applied.
#[derive(Default)]
struct Record {
    objects: Vec<ObjectRef>,
    /// The kubeconfigs of data planes elsewhere: they are needed once more when a plane is no longer named.
    planes: BTreeMap<String, SecretKey>,
}

/// Everything of a gateway that goes with it: the objects of its steps, and the Secrets of its certificates.
fn wanted(stack: &Stack, steps: &[Step]) -> Vec<ObjectRef> {
    let objects = steps.iter().flat_map(|step| &step.objects).map(Object::reference);
    let secret = |name: &str, plane: Option<&String>| ObjectRef {
        api_version: String::from("v1"),
        kind: String::from("Secret"),
        namespace: Some(stack.gateway.namespace.clone()),
        name: name.to_owned(),
        plane: plane.cloned(),
    };
    let certificates = stack.certificates();
    let secrets = certificates.iter().flat_map(|one| {
        let elsewhere = one.planes.iter().map(|plane| secret(&one.secret, Some(plane)));
        std::iter::once(secret(&one.secret, None)).chain(elsewhere)
    });
    // What reads a Secret goes before it does.
    secrets.chain(objects).filter(|object| !KEPT.contains(&object.kind.as_str())).collect()
}

/// What [`prune`] would delete.
pub async fn unwanted(clusters: &Clusters, stack: &Stack, steps: &[Step]) -> Result<Vec<ObjectRef>, ClusterError> {
    let wanted = wanted(stack, steps);
    let recorded = read(clusters, stack).await?.objects;
    Ok(recorded.into_iter().filter(|object| !wanted.contains(object)).collect())
}

/// Deletes what an earlier run has applied and the gateway no longer names, and records what it names now. `report` is told
/// what goes.
///
/// What is in the cluster of a data plane that is no longer named stays in the record until that cluster answers; where its
/// kubeconfig is gone, it is given up.
pub async fn prune(
    clusters: &Clusters,
    stack: &Stack,
    steps: &[Step],
    report: &(dyn Fn(&str) + Sync),
) -> Result<(), ClusterError> {
    let wanted = wanted(stack, steps);
    let before = read(clusters, stack).await?;
    let mut now = Record { objects: wanted.clone(), planes: BTreeMap::new() };
    for plane in &stack.gateway.data_planes {
        now.planes.extend(plane.kubeconfig.clone().map(|place| (plane.name.clone(), place)));
    }
    let mut unwanted: BTreeMap<Option<&str>, Vec<&ObjectRef>> = BTreeMap::new();
    // The last is the first to go.
    for object in before.objects.iter().rev().filter(|object| !wanted.contains(object)) {
        unwanted.entry(object.plane.as_deref()).or_default().push(object);
    }
    for (plane, objects) in unwanted {
        if let Ok(client) = clusters.of(plane) {
            delete(client, &objects, report).await?;
        } else if let Some((plane, place)) = plane.and_then(|plane| before.planes.get_key_value(plane))
            && !delete_elsewhere(&clusters.here, stack, (plane, place), &objects, report).await
        {
            now.objects.extend(objects.into_iter().rev().cloned());
            now.planes.insert(plane.clone(), place.clone());
        }
    }
    write(clusters, stack, &now).await
}

async fn delete(client: &Client, objects: &[&ObjectRef], report: &(dyn Fn(&str) + Sync)) -> Result<(), ClusterError> {
    for object in objects {
        let document = json!({
            "apiVersion": object.api_version, "kind": object.kind,
            "metadata": {"name": object.name, "namespace": object.namespace},
        });
        apply::delete(client, &document).await?;
        report(&format!("deleted {object}, which is no longer wanted"));
    }
    Ok(())
}

/// Deletes what is in the cluster of a data plane that is no longer named; whether that is settled.
async fn delete_elsewhere(
    here: &Client,
    stack: &Stack,
    (plane, place): (&str, &SecretKey),
    objects: &[&ObjectRef],
    report: &(dyn Fn(&str) + Sync),
) -> bool {
    let deleted = match cluster::connect(here, stack, plane, place).await {
        Ok(client) => delete(&client, objects, report).await,
        Err(error) => Err(error),
    };
    match deleted {
        Ok(()) => true,
        Err(error @ ClusterError::NoKubeconfig { .. }) => {
            let names: Vec<String> = objects.iter().map(ToString::to_string).collect();
            report(&format!("{error}: delete by hand what is left there: {}", names.join(", ")));
            true
        }
        Err(error) => {
            let (count, reason) = (objects.len(), chain(&error));
            report(&format!(
                "{count} objects of the former data plane {plane} are left until its cluster answers: {reason}"
            ));
            false
        }
    }
}

fn name(stack: &Stack) -> String {
    stack.named("objects")
}

async fn write(clusters: &Clusters, stack: &Stack, record: &Record) -> Result<(), ClusterError> {
    let unreadable = |_| ClusterError::Record(name(stack));
    let objects = serde_json::to_string(&record.objects).map_err(unreadable)?;
    let planes = serde_json::to_string(&record.planes).map_err(unreadable)?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name(stack), "namespace": stack.gateway.namespace},
        "data": {"objects": objects, "planes": planes},
    });
    apply::document(&clusters.here, &cluster::labelled(stack, &Object::here(map))).await?;
    Ok(())
}

/// What the last run has applied; nothing if there was none.
async fn read(clusters: &Clusters, stack: &Stack) -> Result<Record, ClusterError> {
    let place = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name(stack), "namespace": stack.gateway.namespace},
    });
    let Some(map) = apply::current(&clusters.here, &place).await? else { return Ok(Record::default()) };
    let text = |key: &str| map.data["data"][key].as_str();
    let unreadable = |_| ClusterError::Record(name(stack));
    let objects = serde_json::from_str(text("objects").unwrap_or_default()).map_err(unreadable)?;
    let planes = text("planes").map(serde_json::from_str).transpose().map_err(unreadable)?;
    Ok(Record { objects, planes: planes.unwrap_or_default() })
}
