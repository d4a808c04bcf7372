//! Whether Kong's planes work together. A Ready data plane proves nothing: it may run on an old cache. Rows of dead data planes stay
//! for days, and `sync_status` stays normal after a disconnect; so every pod that is there now is held against its own row.

use super::super::Stack;
use super::super::cluster::{Clusters, pods};
use super::super::model::DataPlane;
use super::super::prove::{Canary, Door, MAX_CANARY_AGE, Patience, Proof, ProveError, Seen, canary_on, json};
use super::super::reach::Reach;
use super::admin::{Admin, AdminError};
use super::render::pod_port;
use super::{STATUS_PORT, control_plane_labels, data_plane_labels, entities};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A data plane pings every 30 s, and the control plane gives it up after 45.
const FRESH_SECONDS: i64 = 45;
/// Hash of no configuration at all.
const EMPTY_HASH: &str = "00000000000000000000000000000000";

/// Looks at the rows, the hashes and the certificates.
pub async fn look(
    clusters: &Clusters,
    stack: &Stack,
    reach: &(dyn Fn(&kube::Client) -> Reach + Sync),
) -> Result<Seen, ProveError> {
    let mut seen = Seen::default();
    let proof = &mut seen.proof;
    let namespace = &stack.gateway.namespace;
    let here = reach(&clusters.here);
    let control_planes = pods(&clusters.here, namespace, &control_plane_labels(stack)).await?;
    let Some(control_plane) = control_planes.iter().find(|pod| is_ready(pod)) else {
        let none = format!("none of {} pods is Ready", control_planes.len());
        proof.add("control plane", "the control plane", Err(none));
        return Ok(seen);
    };
    let admin = Admin { reach: &here, pod: control_plane };
    let rows = match admin.list("clustering/data-planes", None).await {
        Ok(rows) => rows,
        Err(AdminError::Reach(error)) => {
            proof.add("control plane", control_plane.name_any(), Err(crate::error::chain(&error)));
            return Ok(seen);
        }
        Err(error) => return Err(error.into()),
    };
    let version =
        admin.get("/").await?.and_then(|root| root["version"].as_str().map(str::to_owned)).unwrap_or_default();
    proof.add(
        "control plane",
        control_plane.name_any(),
        Ok(format!("Kong {version} knows {} data planes", rows.len())),
    );
    let mut hashes = BTreeSet::new();
    for plane in &stack.gateway.data_planes {
        let client = clusters.of(plane.kubeconfig.as_ref().map(|_| plane.name.as_str()))?;
        let reach = reach(client);
        let found = pods(client, namespace, &data_plane_labels(stack, &plane.name)).await?;
        let wanted = plane.replicas as usize;
        let count = format!("{} of {wanted} pods are there", found.len());
        proof.add("data planes", plane.name.clone(), if found.len() >= wanted { Ok(count) } else { Err(count) });
        for pod in found {
            let row =
                rows.iter().filter(|row| row["hostname"] == pod.name_any()).max_by_key(|row| row["last_seen"].as_i64());
            hashes.extend(connection(proof, &reach, &pod, row, &version).await);
            if let Some(door) = door(stack, plane) {
                seen.doors.push((reach.clone(), pod, door));
            }
        }
    }
    if hashes.len() > 1 {
        let several = format!("data planes have different configurations: {}", Vec::from_iter(hashes).join(", "));
        proof.add("same configuration", "the data planes", Err(several));
    }
    seen.control_plane = Some(control_plane.clone());
    Ok(seen)
}

/// Holds a pod against its row; gives the hash of the configuration that it runs.
async fn connection(proof: &mut Proof, reach: &Reach, pod: &Pod, row: Option<&Value>, version: &str) -> Option<String> {
    let name = pod.name_any();
    let Some(row) = row else {
        proof.add(
            "connected",
            name,
            Err(String::from("the control plane has never seen it: see its log for `clustering`")),
        );
        return None;
    };
    let age = Timestamp::now().as_second() - row["last_seen"].as_i64().unwrap_or_default();
    let seen = format!("last seen {age} s ago");
    proof.add(
        "connected",
        name.clone(),
        if age <= FRESH_SECONDS { Ok(seen) } else { Err(format!("{seen}: disconnected")) },
    );
    let status = row["sync_status"].as_str().unwrap_or("unknown").to_owned();
    proof.add("in sync", name.clone(), if status == "normal" { Ok(status) } else { Err(status) });
    proof.add("version", name.clone(), compatible(version, row["version"].as_str().unwrap_or_default()));
    if let Some(expiry) = row["cert_details"]["expiry_timestamp"].as_i64() {
        let left = expiry - Timestamp::now().as_second();
        let until = Timestamp::from_second(expiry).map(|time| time.to_string()).unwrap_or_default();
        let result = if left > 0 { Ok(format!("until {until}")) } else { Err(format!("expired at {until}")) };
        proof.add("certificate", name.clone(), result);
    }
    let pushed = row["config_hash"].as_str().unwrap_or_default().to_owned();
    let running = json(reach, pod, STATUS_PORT, "/status").await;
    let running = running.map(|status| status["configuration_hash"].as_str().unwrap_or_default().to_owned());
    let result = match &running {
        Err(error) => Err(error.clone()),
        Ok(running) if running == EMPTY_HASH || running.is_empty() => {
            Err(String::from("it runs without a configuration"))
        }
        Ok(running) if *running != pushed => Err(format!("it runs {running}, the control plane has {pushed}")),
        Ok(running) => Ok(running.clone()),
    };
    proof.add("configuration", name, result);
    running.ok()
}

/// Kong's rule: the same major version, and a minor version that is not newer than the control plane's.
fn compatible(control_plane: &str, data_plane: &str) -> Result<String, String> {
    let parse = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    match (parse(control_plane), parse(data_plane)) {
        (Some(above), Some(below)) if above.0 == below.0 && below.1 <= above.1 => Ok(data_plane.to_owned()),
        _ => Err(format!("{data_plane} is not for a control plane of {control_plane}")),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// Where a data plane takes requests.
fn door(stack: &Stack, plane: &DataPlane) -> Option<Door> {
    Door::of(stack, |listener| pod_port(plane, listener.protocol, listener.port))
}

/// A route that the control plane is told of, and that has to come to every data plane and to go again.
pub async fn canary(
    proof: &mut Proof,
    admin: &Admin<'_>,
    stack: &Stack,
    doors: &[(Reach, Pod, Door)],
    patience: Patience,
) -> Result<(), ProveError> {
    forgotten(admin, stack).await?;
    let canary = Canary::new();
    let (route, plugin) = (entities::id(stack, &canary.path), entities::id(stack, &canary.nonce));
    let tags = json!([canary_tag(stack)]);
    let body = json!({
        "name": format!("{}.canary.{}", stack.name, canary.nonce), "paths": [canary.path], "protocols": ["http", "https"],
        "strip_path": false, "preserve_host": false, "tags": tags, "https_redirect_status_code": 426,
    });
    admin.put(&format!("/routes/{route}"), &body).await?;
    let config = json!({"status_code": 200, "content_type": "text/plain", "body": canary.nonce});
    let body =
        json!({"name": "request-termination", "route": {"id": route}, "enabled": true, "config": config, "tags": tags});
    let placed = admin.put(&format!("/plugins/{plugin}"), &body).await;
    if placed.is_ok() {
        canary_on(proof, "canary appears", &canary, doors, true, patience.canary).await;
    }
    // Whatever was seen, nothing of it stays.
    admin.delete(&format!("/routes/{route}")).await?;
    placed?;
    canary_on(proof, "canary disappears", &canary, doors, false, patience.canary).await;
    Ok(())
}

fn canary_tag(stack: &Stack) -> String {
    format!("{}-canary", entities::tag(stack))
}

/// Deletes the canaries of proofs that were killed.
async fn forgotten(admin: &Admin<'_>, stack: &Stack) -> Result<(), ProveError> {
    for route in admin.list("routes", Some(&canary_tag(stack))).await? {
        let age = Timestamp::now().as_second() - route["created_at"].as_i64().unwrap_or_default();
        if let Some(id) = route["id"].as_str().filter(|_| age > MAX_CANARY_AGE.as_secs() as i64) {
            admin.delete(&format!("/routes/{id}")).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_plane_may_be_older_but_not_newer() {
        assert!(compatible("3.9.3", "3.9.1").is_ok() && compatible("3.14.0.1", "3.9.0").is_ok());
        assert!(compatible("3.9.3", "3.10.0").is_err() && compatible("3.9.3", "2.8.1").is_err());
        assert!(compatible("3.9.3", "").is_err());
    }
}
