//! Groups, spares, removals and the files' changes, on a real API server.

use crate::objects::{CLUSTER, apply, context, named, objects, write_cluster};
use crate::start;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::Client;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use metalgate::api::{
    Failure, Hardware, MACHINE_FINALIZER, MachineState, MetalCluster, MetalMachine, OUT_OF_SERVICE_LABEL,
    SURPLUS_ANNOTATION, crds,
};
use metalgate::controllers::{Context, cluster, machine};
use metalgate::manager::lease::Lease;
use metalgate::workflow::apply::{self as files, Change};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

async fn write_hardware(client: &Client, number: u8, type_: &str) {
    let name = format!("node-{number}");
    let spec = json!({
        "mac": format!("52:54:00:aa:00:{number:02x}"), "address": format!("10.0.0.{number}/24"), "gateway": "10.0.0.254",
        "disk": "/dev/sda", "arch": "amd64", "bootMode": "uefi",
    });
    let labels = json!({"metalgate.dev/cluster": CLUSTER, "type": type_});
    let object = named("Hardware", &name, json!({ "metadata": {"name": name, "labels": labels}, "spec": spec }));
    apply::<Hardware>(client, &name, object).await;
}

async fn step(context: &Arc<Context>) -> MetalCluster {
    let cluster = objects::<MetalCluster>(&context.client).get(CLUSTER).await.unwrap();
    cluster::reconcile(Arc::new(cluster), context.clone()).await.unwrap();
    objects::<MetalCluster>(&context.client).get(CLUSTER).await.unwrap()
}

async fn machines(client: &Client) -> Vec<(String, String)> {
    let all = objects::<MetalMachine>(client).list(&ListParams::default()).await.unwrap();
    let live = all.into_iter().filter(|machine| machine.metadata.deletion_timestamp.is_none());
    let mut found: Vec<_> = live.map(|machine| (machine.name_any(), machine.spec.group)).collect();
    found.sort();
    found
}

async fn set_state(client: &Client, name: &str, state: MachineState) {
    let api = objects::<MetalMachine>(client);
    let mut machine = api.get(name).await.unwrap();
    let status = machine.status.get_or_insert_default();
    status.state = state;
    if state == MachineState::Failed {
        status.reason = "its disk is broken".into();
        status.failure = Some(Failure { message: "its disk is broken".into(), at: jiff::Timestamp::now() });
    }
    api.replace_status(name, &PostParams::default(), &machine).await.unwrap();
}

fn condition(cluster: &MetalCluster, type_: &str) -> (String, String) {
    let conditions = &cluster.status.as_ref().unwrap().conditions;
    let found = conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    assert_eq!(found.observed_generation, cluster.metadata.generation);
    (found.status.clone(), found.message.clone())
}

async fn set_count(client: &Client, count: u32) {
    let api = objects::<MetalCluster>(client);
    let mut cluster = api.get(CLUSTER).await.unwrap();
    cluster.spec.groups[1].count = count;
    api.replace(CLUSTER, &PostParams::default(), &cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_get_their_machines_spares_take_over_and_what_is_too_much_goes() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = start(dir.path()).await;
    let client = bootstrap.client();
    crds::apply(&client).await.unwrap();
    write_cluster(&client).await;
    for (number, type_) in [(1, "cp"), (2, "worker"), (10, "worker")] {
        write_hardware(&client, number, type_).await;
    }
    let context = Arc::new(context(&client, Arc::new(metalgate::power::connect)));

    // Free hardware with the labels is used, names by their numbers; each machine gets a host key of its own.
    let cluster = step(&context).await;
    let own = |group: &str, name: &str| (name.to_owned(), group.to_owned());
    assert_eq!(machines(&client).await, [own("control-plane", "node-1"), own("md-0", "node-2")]);
    assert_eq!(condition(&cluster, "GroupsComplete").0, "True");
    assert_eq!(condition(&cluster, "Ready"), ("False".into(), "0 of 2 nodes are Ready".into()));
    let made = objects::<MetalMachine>(&client).get("node-2").await.unwrap();
    assert_eq!(made.finalizers(), [MACHINE_FINALIZER]);
    objects::<KubeSecret>(&client).get(&made.spec.host_key).await.unwrap();

    // A failed machine is replaced once; its reason stays.
    set_state(&client, "node-2", MachineState::Failed).await;
    step(&context).await;
    step(&context).await;
    let failed = objects::<MetalMachine>(&client).get("node-2").await.unwrap().status.unwrap();
    assert_eq!((failed.replaced_by.as_deref(), failed.reason.as_str()), (Some("node-10"), "its disk is broken"));
    assert_eq!(machines(&client).await.len(), 3);

    // More than there is hardware for: said, with the way out, and done as soon as there is some.
    set_count(&client, 2).await;
    let cluster = step(&context).await;
    let (status, message) = condition(&cluster, "GroupsComplete");
    assert!(
        status == "False" && message.contains("md-0 lacks 1 of 2 machines") && message.contains("type=worker"),
        "{message}"
    );
    write_hardware(&client, 4, "worker").await;
    assert_eq!(condition(&step(&context).await, "GroupsComplete").0, "True");
    assert!(machines(&client).await.contains(&own("md-0", "node-4")));

    // Fewer: the one that has come less far goes.
    set_state(&client, "node-4", MachineState::Preparing).await;
    set_count(&client, 1).await;
    step(&context).await;
    let gone = objects::<MetalMachine>(&client).get("node-10").await.unwrap();
    assert!(gone.metadata.deletion_timestamp.is_some() && gone.annotations().contains_key(SURPLUS_ANNOTATION));
    assert_eq!(machines(&client).await, [own("control-plane", "node-1"), own("md-0", "node-2"), own("md-0", "node-4")]);

    // A group that is gone takes its machines with it, the failed one too.
    let api = objects::<MetalCluster>(&client);
    let mut without = api.get(CLUSTER).await.unwrap();
    without.spec.groups.truncate(1);
    api.replace(CLUSTER, &PostParams::default(), &without).await.unwrap();
    step(&context).await;
    assert_eq!(machines(&client).await, [own("control-plane", "node-1")]);
    bootstrap.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_deleted_by_hand_leaves_its_hardware_out_of_service() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = start(dir.path()).await;
    let client = bootstrap.client();
    crds::apply(&client).await.unwrap();
    write_cluster(&client).await;
    for (number, type_) in [(1, "cp"), (2, "worker"), (3, "worker")] {
        write_hardware(&client, number, type_).await;
    }
    let context = Arc::new(context(&client, Arc::new(metalgate::power::connect)));
    step(&context).await;
    let api = objects::<MetalMachine>(&client);
    // Once by hand, once because the group became smaller.
    for (name, annotation) in [("node-2", None), ("node-3", Some(SURPLUS_ANNOTATION))] {
        if let Some(annotation) = annotation {
            set_count(&client, 2).await;
            // The other one must not be taken instead.
            step(&context).await;
            let mark = json!({ "metadata": { "annotations": { annotation: "true" } } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(mark)).await.unwrap();
        }
        let key = api.get(name).await.unwrap().spec.host_key;
        api.delete(name, &DeleteParams::default()).await.unwrap();
        for _ in 0..2 {
            let deleting = api.get(name).await.unwrap();
            machine::reconcile(Arc::new(deleting), context.clone()).await.unwrap();
        }
        assert!(api.get_opt(name).await.unwrap().is_none(), "{name} is there yet");
        assert!(objects::<KubeSecret>(&client).get_opt(&key).await.unwrap().is_none(), "{key} is there yet");
        let hardware = objects::<Hardware>(&client).get(name).await.unwrap();
        assert_eq!(hardware.labels().contains_key(OUT_OF_SERVICE_LABEL), annotation.is_none(), "{name}");
        if annotation.is_none() {
            // The free one takes its place, not itself.
            step(&context).await;
            assert!(api.get_opt("node-2").await.unwrap().is_none());
            api.get("node-3").await.unwrap();
        }
    }
    bootstrap.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_holds_the_lease_and_the_next_gets_it_when_it_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = start(dir.path()).await;
    let client = bootstrap.client();
    crds::apply(&client).await.unwrap();
    let (mut first, mut second) = (Lease::new(client.clone(), "first"), Lease::new(client.clone(), "second"));
    let soon = Duration::from_secs(12);
    tokio::time::timeout(soon, first.acquire()).await.expect("a free lease is taken");
    assert!(tokio::time::timeout(soon, second.acquire()).await.is_err(), "two hold it");
    tokio::select! {
        () = first.keep() => panic!("it was lost"),
        () = tokio::time::sleep(soon) => {}
    }
    first.release().await;
    tokio::time::timeout(soon, second.acquire()).await.expect("a lease that was given back is taken");
    // The first finds out, and stops.
    tokio::time::timeout(soon, first.keep()).await.expect("it believes that it still holds it");
    bootstrap.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_writes_hardware_and_counts_and_refuses_what_a_running_cluster_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = start(dir.path()).await;
    let client = bootstrap.client();
    crds::apply(&client).await.unwrap();
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware-examples/accepted/worker-groups");
    let read = |change: &dyn Fn(String) -> String| {
        let scratch = tempfile::tempdir().unwrap();
        let text = change(std::fs::read_to_string(examples.join("cluster.yaml")).unwrap());
        std::fs::write(scratch.path().join("cluster.yaml"), text).unwrap();
        let loaded =
            metalgate::cli::validate::load(&scratch.path().join("cluster.yaml"), &examples.join("hardware.csv"));
        loaded.unwrap_or_else(|found| panic!("{}", found.render(false)))
    };
    let input = read(&|text| text);
    let written = metalgate::workflow::objects::cluster(&input.spec, &input.machines, "image");
    let mut wanted = written.clone();
    wanted.spec.image.name = metalgate::workflow::image_name(&input.spec.os.image);
    metalgate::workflow::objects::apply(&client, &wanted).await.unwrap();

    // Every row is new, then nothing is; another count is one change.
    let changes = files::changes(&client, &input.spec, &input.machines).await.unwrap();
    assert_eq!(changes.len(), input.machines.len());
    assert!(changes.iter().all(|change| matches!(change, Change::NewHardware { .. })), "{changes:?}");
    files::apply(&client, &input.spec, &input.machines).await.unwrap();
    assert_eq!(files::changes(&client, &input.spec, &input.machines).await.unwrap(), []);
    let fewer = read(&|text| text.replacen("count: 2", "count: 1", 1));
    let changes = files::changes(&client, &fewer.spec, &fewer.machines).await.unwrap();
    assert!(matches!(changes[..], [Change::Count { from: 2, to: 1, .. }]), "{changes:?}");

    // What cannot be changed is refused, all at once.
    let other = read(&|text| {
        let version = &input.spec.kubernetes.version;
        text.replace(version.as_str(), "v1.35.0").replacen("ops", "operator", 1)
    });
    let refused = files::changes(&client, &other.spec, &other.machines).await.unwrap_err().to_string();
    assert!(refused.contains("spec.kubernetes.version, spec.os.users"), "{refused}");
    bootstrap.stop().await;
}
