//! The container network: its manifest, with the cluster's own addresses for pods, applied to the new cluster.

use crate::api::{MetalCluster, apply};
use crate::controllers::{Context, ReconcileError};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Applies the manifest unless that was done. Gives the sum of what is applied; nothing if the user brings a network.
pub async fn keep(context: &Context, cluster: &MetalCluster) -> Result<Option<String>, ReconcileError> {
    let Some(network) = &context.supplies.network else { return Ok(None) };
    let mut documents = network.documents.clone();
    documents.iter_mut().for_each(|document| set_pod_network(document, &cluster.spec.pod_cidr));
    let sum = hex::encode(Sha256::digest(format!("{} {}", network.sha256, cluster.spec.pod_cidr)));
    let applied = cluster.status.as_ref().and_then(|status| status.network_manifest.as_ref());
    if applied == Some(&sum) {
        return Ok(Some(sum));
    }
    let client = context.workload.client(context, cluster).await?;
    // Namespaces and definitions first: the other documents are of them.
    documents
        .sort_by_key(|document| !matches!(document["kind"].as_str(), Some("Namespace" | "CustomResourceDefinition")));
    for document in documents {
        apply::document(&client, &document).await?;
    }
    Ok(Some(sum))
}

/// Puts the pods' network where flannel and Cilium have it in their manifests.
fn set_pod_network(document: &mut Value, pods: &str) {
    if document["kind"] != "ConfigMap" {
        return;
    }
    let Some(data) = document["data"].as_object_mut() else { return };
    if let Some(config) = data.get_mut("net-conf.json")
        && let Some(mut parsed) = config.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok())
    {
        parsed["Network"] = pods.into();
        *config = format!("{parsed:#}").into();
    }
    if let Some(network) = data.get_mut("cluster-pool-ipv4-cidr") {
        *network = pods.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pods_network_is_the_clusters() {
        let mut flannel = json!({ "kind": "ConfigMap", "data": {
            "cni-conf.json": "{}",
            "net-conf.json": "{\"Network\": \"10.244.0.0/16\", \"Backend\": {\"Type\": \"vxlan\"}}",
        }});
        set_pod_network(&mut flannel, "10.9.0.0/16");
        let config: Value = serde_json::from_str(flannel["data"]["net-conf.json"].as_str().unwrap()).unwrap();
        assert_eq!(config, json!({"Network": "10.9.0.0/16", "Backend": {"Type": "vxlan"}}));
        let mut cilium =
            json!({ "kind": "ConfigMap", "data": {"cluster-pool-ipv4-cidr": "10.0.0.0/8", "debug": "false"} });
        set_pod_network(&mut cilium, "10.9.0.0/16");
        assert_eq!(cilium["data"], json!({"cluster-pool-ipv4-cidr": "10.9.0.0/16", "debug": "false"}));
        let mut other = json!({ "kind": "Secret", "data": {"net-conf.json": "{}"} });
        set_pod_network(&mut other, "10.9.0.0/16");
        assert_eq!(other["data"]["net-conf.json"], "{}");
    }
}
