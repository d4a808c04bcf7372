//! The definitions of a provider's resources. Envoy Gateway's are some megabytes: they are applied again only when they, or what the
//! API server has of them, are not what was applied the last time.

use super::Stack;
use super::cluster::{self, ClusterError, Clusters};
use super::object::{Object, Step};
use crate::api::ApiError;
use crate::api::apply;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// Key of the record: the sum of what was applied, and of what the API server made of it.
const SUM: &str = "sum";

/// The step that brings them, and that of the policies that are published with them.
pub fn steps(documents: Vec<Value>) -> (Step, Step) {
    let is_definition = |document: &Value| document["kind"] == "CustomResourceDefinition";
    let (definitions, policies) = documents.into_iter().partition(is_definition);
    let policies = Step::here("the policies of its definitions", policies);
    (Step::here("the definitions of its resources", definitions), policies)
}

/// Applies them where something has changed, and waits until they are served.
pub async fn keep(
    clusters: &Clusters,
    stack: &Stack,
    step: &Step,
    most: Duration,
    report: &(dyn Fn(&str) + Sync),
) -> Result<(), ClusterError> {
    if step.objects.is_empty() {
        return Ok(());
    }
    let mut record = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": stack.named("definitions"), "namespace": stack.gateway.namespace},
    });
    let recorded = apply::current(&clusters.here, &record).await?;
    let recorded = recorded.and_then(|found| found.data["data"][SUM].as_str().map(str::to_owned));
    if recorded.is_some() && recorded == Some(sum(&clusters.here, step).await?) {
        return Ok(());
    }
    report(&format!("{} ...", step.title));
    cluster::apply(clusters, stack, step, most, report).await?;
    record["data"] = json!({SUM: sum(&clusters.here, step).await?});
    apply::document(&clusters.here, &cluster::labelled(stack, &Object::here(record))).await?;
    Ok(())
}

/// Of the documents, and of the generations that they have become: whoever changes one of them by hand counts it up.
async fn sum(client: &Client, step: &Step) -> Result<String, ClusterError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let live = api.list_metadata(&ListParams::default()).await;
    let live = live.map_err(ApiError::of("the list of CustomResourceDefinitions"))?;
    let generations: BTreeMap<String, (Option<String>, Option<i64>)> =
        live.iter().map(|one| (one.name_any(), (one.uid(), one.metadata.generation))).collect();
    let mut hash = Sha256::new();
    for object in &step.objects {
        hash.update(object.value.to_string());
        hash.update(format!("{:?}", generations.get(&object.reference().name)));
    }
    Ok(hex::encode(hash.finalize()))
}
