//! The bootstrap cluster for real: etcd and kube-apiserver out of the artifact directory, driven through the library and
//! through the binary that users run. A missing artifact is a failure.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod controllers;
mod groups;
mod kubeadm;
mod objects;
mod pivot;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use metalgate::api::{self, Hardware, MachineState, MetalMachine, crds};
use metalgate::bootstrap::{self, BootstrapCluster, Provider};
use metalgate::image::manifest::Manifest;
use objects::objects;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const METALGATE: &str = env!("CARGO_BIN_EXE_metalgate");

fn artifacts() -> Manifest {
    let dir = std::env::var_os("METALGATE_ARTIFACTS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| metalgate::image::default_dir().expect("an artifact directory"));
    Manifest::load(&dir).expect("artifacts: run `make artifacts`")
}

async fn start(dir: &Path) -> BootstrapCluster {
    let started = Instant::now();
    let cluster = bootstrap::start(METALGATE.as_ref(), &Provider::Embedded, &artifacts(), dir, "test").await;
    let cluster = cluster.expect("the bootstrap cluster starts");
    println!("ready after {:.1} s", started.elapsed().as_secs_f64());
    cluster
}

/// Processes whose command line names `dir`.
fn processes(dir: &Path) -> Vec<String> {
    let name = dir.to_str().expect("a printable path");
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let command_lines = entries.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let texts = command_lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    texts.filter(|line| line.contains(name) && line.contains("--")).collect()
}

async fn until_gone(dir: &Path) {
    let started = Instant::now();
    while !processes(dir).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(15), "still running: {:?}", processes(dir));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn hardware(disk: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "metalgate.dev/v1alpha1", "kind": "Hardware", "metadata": {"name": "node-1"},
        "spec": {
            "mac": "52:54:00:aa:00:01", "address": "10.0.0.11/24", "gateway": "10.0.0.1", "disk": disk,
            "arch": "amd64", "bootMode": "uefi",
        },
    })
}

fn machine(role: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "metalgate.dev/v1alpha1", "kind": "MetalMachine", "metadata": {"name": "node-1"},
        "spec": {"cluster": "test", "hardware": "node-1", "role": role, "group": "md-0", "hostKey": "k"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_outlive_a_restart_and_nothing_outlives_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    assert_eq!(processes(dir.path()).len(), 2);
    crds::apply(&cluster.client()).await.unwrap();
    crds::apply(&cluster.client()).await.expect("applying twice changes nothing");

    let how = PatchParams::apply(api::FIELD_MANAGER).force();
    let client = cluster.client();
    objects::<Hardware>(&client).patch("node-1", &how, &Patch::Apply(hardware("/dev/sda"))).await.unwrap();
    objects::<MetalMachine>(&client).patch("node-1", &how, &Patch::Apply(machine("Worker"))).await.unwrap();
    // What the types do not allow, the API server does not take.
    let refused = objects::<MetalMachine>(&client).patch("node-1", &how, &Patch::Apply(machine("Janitor"))).await;
    assert!(refused.unwrap_err().to_string().contains("Janitor"));

    let machines = objects::<MetalMachine>(&client);
    let mut object = machines.get("node-1").await.unwrap();
    let mut status = object.status.clone().unwrap_or_default();
    (status.state, status.reason) = (MachineState::Installing, String::from("write"));
    status.since = Some(jiff::Timestamp::UNIX_EPOCH);
    object.status = Some(status.clone());
    machines.replace_status("node-1", &PostParams::default(), &object).await.unwrap();
    let lost = machines.replace_status("node-1", &PostParams::default(), &object).await.unwrap_err();
    assert!(matches!(&lost, kube::Error::Api(answer) if answer.code == 409), "an old version must not win: {lost}");

    cluster.stop().await;
    until_gone(dir.path()).await;

    let cluster = start(dir.path()).await;
    let found = objects::<MetalMachine>(&cluster.client()).list(&ListParams::default()).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].status.as_ref(), Some(&status));
    cluster.stop().await;
    until_gone(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_noticed_with_its_log_and_the_data_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path()).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let map = serde_json::from_value(serde_json::json!({"metadata": {"name": "kept"}})).unwrap();
    config_maps.create(&PostParams::default(), &map).await.unwrap();
    let pid = etcd_pid(dir.path());
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let error = tokio::time::timeout(Duration::from_secs(10), cluster.died()).await.expect("it is noticed");
    assert!(error.to_string().starts_with("etcd ended by itself (signal: 9 (SIGKILL))"), "{error}");
    cluster.stop().await;
    until_gone(dir.path()).await;

    let cluster = start(dir.path()).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    config_maps.get("kept").await.expect("what was written is there");
    cluster.stop().await;
}

fn etcd_pid(dir: &Path) -> String {
    let data = dir.join("bootstrap/etcd").display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let etcd = entries.into_iter().find(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("--data-dir={data}"))
    });
    etcd.expect("etcd runs").file_name().into_string().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_mended_at_start() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path()).await.stop().await;
    let pki = dir.path().join("bootstrap/pki");
    let before = std::fs::read(pki.join("apiserver.crt")).unwrap();
    std::fs::write(pki.join("apiserver.crt"), "damaged").unwrap();
    std::fs::write(pki.join("etcd-client.key"), "damaged").unwrap();
    let cluster = start(dir.path()).await;
    cluster.client().apiserver_version().await.unwrap();
    cluster.stop().await;
    let after = std::fs::read(pki.join("apiserver.crt")).unwrap();
    assert!(after.starts_with(b"-----BEGIN") && after != before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_none_of_ours_is_an_error_with_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("artifacts");
    let mut manifest = Manifest::new(&fake);
    for artifact in artifacts().artifacts.iter().filter(|artifact| artifact.path.starts_with("bootstrap/")) {
        let path = fake.join(&artifact.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "#!/bin/sh\necho this is not $0 >&2\nexit 7\n").unwrap();
        manifest.set(artifact.clone());
    }
    let started = bootstrap::start(METALGATE.as_ref(), &Provider::Embedded, &manifest, dir.path(), "test").await;
    let error = started.err().expect("it cannot start").to_string();
    assert!(error.contains("ended by itself (exit status: 7)") && error.contains("this is not"), "{error}");
    until_gone(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_cluster_is_used_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let kubeconfig = cluster.kubeconfig().to_owned();
    let provider = Provider::Existing { kubeconfig };
    let existing = bootstrap::start(METALGATE.as_ref(), &provider, &artifacts(), dir.path(), "test").await.unwrap();
    crds::apply(&existing.client()).await.unwrap();
    existing.stop().await;
    cluster.client().apiserver_version().await.expect("it still runs");
    cluster.stop().await;
    let gone = bootstrap::start(METALGATE.as_ref(), &provider, &artifacts(), dir.path(), "test").await;
    assert!(gone.err().expect("it is gone").to_string().contains("does not answer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kind_holds_the_objects_where_there_is_docker_and_is_refused_with_the_way_out_where_not() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("test-{}", std::process::id());
    let docker = std::process::Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
    let kind = std::process::Command::new("kind").arg("version").output().is_ok();
    match bootstrap::start(METALGATE.as_ref(), &Provider::Kind, &artifacts(), dir.path(), &name).await {
        Err(error) => {
            assert!(!(docker && kind), "{error}");
            assert!(error.to_string().contains("leave the option away"), "{error}");
        }
        Ok(cluster) => {
            crds::apply(&cluster.client()).await.unwrap();
            let how = PatchParams::apply(api::FIELD_MANAGER).force();
            let api = objects::<Hardware>(&cluster.client());
            api.patch("node-1", &how, &Patch::Apply(hardware("/dev/sda"))).await.unwrap();
            cluster.stop().await;
            // Found again, with what was written; gone when it is removed.
            let again = bootstrap::start(METALGATE.as_ref(), &Provider::Kind, &artifacts(), dir.path(), &name).await;
            objects::<Hardware>(&again.unwrap().client()).get("node-1").await.unwrap();
            bootstrap::remove(&Provider::Kind, dir.path(), &name).await.unwrap();
        }
    }
}
