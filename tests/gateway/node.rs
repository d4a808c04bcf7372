//! In the place of controllers and kubelet, which want machines: says that Deployments and Jobs are done, makes Pods, and brings
//! Secrets to files the way kubelet does, so that programs that watch them see what they would see on a node.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A Secret's values.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let data = api.get_opt(name).await.unwrap()?.data?;
    Some(data.into_iter().map(|(key, value)| (key, value.0)).collect())
}

/// A ConfigMap's values.
pub async fn config_map(client: &Client, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let data = api.get_opt(name).await.unwrap()?.data?;
    Some(data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect())
}

/// Brings values into a folder as kubelet's atomic writer does: files are links into `..data`, which is itself a link that is
/// replaced by one rename.
pub fn project(values: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    static VERSION: AtomicU64 = AtomicU64::new(0);
    std::fs::create_dir_all(folder).unwrap();
    let same = |(name, value): (&String, &Vec<u8>)| std::fs::read(folder.join(name)).is_ok_and(|there| there == *value);
    if values.iter().all(same) {
        return;
    }
    let version = format!("..v{}", VERSION.fetch_add(1, Ordering::Relaxed));
    std::fs::create_dir(folder.join(&version)).unwrap();
    for (name, value) in values {
        std::fs::write(folder.join(&version).join(name), value).unwrap();
    }
    let new = folder.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &new).unwrap();
    std::fs::rename(&new, folder.join("..data")).unwrap();
    for name in values.keys() {
        let link = folder.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
}

/// The Deployments of a namespace.
pub async fn deployments(client: &Client, namespace: &str) -> Vec<Deployment> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
}

/// Says that all pods of a Deployment are there, of its present form.
pub async fn deployment_is_ready(client: &Client, deployment: &Deployment) {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = json!({"status": {
        "observedGeneration": deployment.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
    }});
    let api: Api<Deployment> = Api::namespaced(client.clone(), &deployment.namespace().unwrap());
    // It may be gone by now.
    let _ = api.patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
}

/// Says that every Job of a namespace is done, and every StatefulSet's pods are there.
pub async fn rest_is_done(client: &Client, namespace: &str) {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    for job in jobs.list(&ListParams::default()).await.unwrap() {
        if job.status.as_ref().is_some_and(|status| status.completion_time.is_some()) {
            continue;
        }
        let now = k8s_openapi::jiff::Timestamp::now();
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let status = json!({"status": {
            "succeeded": 1, "startTime": now, "completionTime": now,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        }});
        jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    let sets: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::namespaced(client.clone(), namespace);
    for set in sets.list(&ListParams::default()).await.unwrap() {
        let status = json!({"status": {
            "observedGeneration": set.metadata.generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1,
            "availableReplicas": 1,
        }});
        sets.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

/// A Pod of a Deployment, with an address, running and Ready.
pub async fn pod(client: &Client, deployment: &Deployment, name: &str, address: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &deployment.namespace().unwrap());
    if api.get_opt(name).await.unwrap().is_some() {
        return;
    }
    let template = &deployment.spec.as_ref().unwrap().template;
    let labels = template.metadata.as_ref().unwrap().labels.clone();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false},
    });
    api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Deletes a Pod at once: there is no kubelet that would end it.
pub async fn remove_pod(client: &Client, namespace: &str, name: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let how = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    api.delete(name, &how).await.unwrap();
}
