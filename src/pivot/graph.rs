//! The objects of a cluster, as they are carried: what the user and the controllers wrote, without what an API server adds.

use super::PivotError;
use crate::api::{ApiError, CLUSTER_LABEL, Hardware, MetalCluster, MetalMachine, NAMESPACE};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, ListParams, TypeMeta};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The kinds of the graph, those that others refer to first.
pub fn kinds() -> [ApiResource; 4] {
    [
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<Hardware>(&()),
        ApiResource::erase::<MetalCluster>(&()),
        ApiResource::erase::<MetalMachine>(&()),
    ]
}

/// Kind and name.
pub type Id = (String, String);

/// Every object of a cluster on one side.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// By kind and name.
    pub objects: BTreeMap<Id, DynamicObject>,
}

impl Graph {
    /// Reads all of it.
    pub async fn read(client: &Client, cluster: &str) -> Result<Self, PivotError> {
        let mut objects = BTreeMap::new();
        let ours = ListParams::default().labels(&format!("{CLUSTER_LABEL}={cluster}"));
        for resource in kinds() {
            let listed = api(client, &resource).list(&ours).await;
            let listed = listed.map_err(ApiError::of(format!("the list of {}", resource.plural)))?;
            for mut object in listed {
                // Items of a list come without them.
                let (api_version, kind) = (resource.api_version.clone(), resource.kind.clone());
                object.types = Some(TypeMeta { api_version, kind });
                let name = object.meta().name.clone().unwrap_or_default();
                objects.insert((resource.kind.clone(), name), object);
            }
        }
        Ok(Self { objects })
    }

    /// Objects of each kind.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.objects.keys() {
            *counts.entry(kind.as_str()).or_default() += 1;
        }
        counts
    }

    /// What tells two sides apart: the hash of each object's content.
    pub fn hashes(&self) -> BTreeMap<&Id, String> {
        self.objects.iter().map(|(id, object)| (id, hash(object))).collect()
    }
}

/// The API of one kind in our namespace.
pub fn api(client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), NAMESPACE, resource)
}

/// An object as it is written to the other side: no UID, version or time of its own side.
pub fn content(object: &DynamicObject) -> DynamicObject {
    let from = &object.metadata;
    let mut copy = DynamicObject { metadata: Default::default(), ..object.clone() };
    copy.metadata.name = from.name.clone();
    copy.metadata.namespace = from.namespace.clone();
    copy.metadata.labels = from.labels.clone();
    copy.metadata.annotations = from.annotations.clone();
    copy.metadata.finalizers = from.finalizers.clone();
    copy
}

/// The hash of an object's content, whatever the order of its fields.
fn hash(object: &DynamicObject) -> String {
    let content = content(object);
    let owners = object.metadata.owner_references.iter().flatten().map(|owner| (&owner.kind, &owner.name));
    let owners: Vec<_> = owners.collect();
    let whole = json!({ "metadata": content.metadata, "owners": owners, "content": content.data });
    hex::encode(Sha256::digest(sorted(&whole).to_string()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> = fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            fields.into_iter().map(|(key, value)| (key.clone(), value)).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
