//! The pivot between two real API servers: a thousand objects, killed at every step and run again.

use super::start;
use crate::objects::{CLUSTER, apply, context, named, objects, write_cluster};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::PostParams;
use kube::{Client, ResourceExt};
use metalgate::api::{Hardware, MachineState, MetalCluster, MetalMachine, crds};
use metalgate::controllers::machine;
use metalgate::event::{EventBus, EventKind};
use metalgate::pivot::fence::{Fence, Role};
use metalgate::pivot::graph::{Graph, Id};
use metalgate::pivot::{Pivot, PivotError};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// With a Hardware, a MetalMachine and a Secret for each, and the MetalCluster: 1,000 objects.
const MACHINES: usize = 333;

/// Where a run is killed: at the first event that it is true for.
type KillPoint = (&'static str, fn(&str, u64) -> bool);

const KILL_POINTS: [KillPoint; 10] = [
    ("frozen", |what, _| what.ends_with("frozen")),
    ("receiving", |what, _| what.ends_with("receiving")),
    ("the first object", |what, done| what == "objects moved" && done == 1),
    ("within the Secrets", |what, done| what == "objects moved" && done == 150),
    ("the last Secret", |what, done| what == "objects moved" && done == 333),
    ("within the Hardware", |what, done| what == "objects moved" && done == 500),
    ("within the machines", |what, done| what == "objects moved" && done == 750),
    ("the last object", |what, done| what == "objects moved" && done == 1000),
    ("verified", |what, _| what.ends_with("verified")),
    ("handed over", |what, _| what.ends_with("handed over")),
];

async fn write_machine(client: &Client, number: usize, owner: &MetalCluster) {
    let name = format!("node-{number:03}");
    let secret = json!({"stringData": {"username": "admin", "password": format!("secret of {name}")}});
    apply::<KubeSecret>(client, &format!("{name}-bmc"), named("Secret", &format!("{name}-bmc"), secret)).await;
    let hardware = json!({"spec": {
        "mac": format!("52:54:00:aa:{:02x}:{:02x}", number / 256, number % 256), "address": "10.0.0.11/24",
        "gateway": "10.0.0.1", "disk": "/dev/sda", "arch": "amd64", "bootMode": "uefi",
    }});
    apply::<Hardware>(client, &name, named("Hardware", &name, hardware)).await;
    let machine = json!({"spec":
        {"cluster": CLUSTER, "hardware": name, "role": "Worker", "group": "md-0", "hostKey": "k", "taints": ["a=b:NoSchedule"]},
    });
    let mut machine = named("MetalMachine", &name, machine);
    machine["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "metalgate.dev/v1alpha1", "kind": "MetalCluster", "name": CLUSTER,
        "uid": owner.uid().unwrap(), "controller": true,
    }]);
    let mut object: MetalMachine = apply(client, &name, machine).await;
    let mut status = object.status.unwrap_or_default();
    (status.state, status.reason, status.attempts) = (MachineState::Installed, format!("installed as {name}"), 2);
    status.since = Some(jiff::Timestamp::UNIX_EPOCH);
    object.status = Some(status);
    objects::<MetalMachine>(client).replace_status(&name, &PostParams::default(), &object).await.unwrap();
}

async fn role(client: &Client) -> Option<Role> {
    Fence::read(client, CLUSTER).await.unwrap().map(|fence| fence.role)
}

fn pivot(source: &Client, target: &Client) -> Pivot {
    let (source, target) = (source.clone(), target.clone());
    Pivot { source, target, cluster: CLUSTER.to_owned(), events: EventBus::default() }
}

/// Runs it until the event, and drops it there: whatever is under way is cut off. Says whether it was.
async fn killed(pivot: &Pivot, at: fn(&str, u64) -> bool) -> bool {
    let mut events = pivot.events.subscribe();
    let reached = async {
        loop {
            match events.recv().await {
                Ok(event) => match &event.kind {
                    EventKind::Count { what, done, .. } if at(what, *done) => return,
                    _ => {}
                },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        biased;
        () = reached => true,
        done = pivot.hand_over() => { done.unwrap(); false }
    }
}

fn same(left: &Graph, right: &Graph) {
    let owned = |graph: &Graph| -> BTreeMap<Id, String> {
        graph.hashes().into_iter().map(|(id, hash)| (id.clone(), hash)).collect()
    };
    assert!(owned(left) == owned(right), "the objects differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_move_whole_wherever_it_is_killed() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let clusters = [start(dirs[0].path()).await, start(dirs[1].path()).await];
    let clients = [clusters[0].client(), clusters[1].client()];
    crds::apply(&clients[0]).await.unwrap();
    let owner = write_cluster(&clients[0]).await;
    let writing: Vec<_> = (0..MACHINES).map(|number| write_machine(&clients[0], number, &owner)).collect();
    futures::StreamExt::collect::<Vec<()>>(futures::StreamExt::buffer_unordered(futures::stream::iter(writing), 16))
        .await;
    let original = Graph::read(&clients[0], CLUSTER).await.unwrap();
    assert_eq!(original.objects.len(), 1000);

    for (round, (name, at)) in KILL_POINTS.into_iter().enumerate() {
        // There, and back: the side that took over hands over next.
        let (source, target) = (&clients[round % 2], &clients[1 - round % 2]);
        let pivot = pivot(source, target);
        assert!(killed(&pivot, at).await, "{name} was not reached");
        let roles = [role(source).await, role(target).await];
        let active = roles.iter().filter(|role| **role == Some(Role::Active)).count();
        assert!(active <= 1, "{name}: {roles:?}");
        pivot.hand_over().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!([role(source).await, role(target).await], [Some(Role::HandedOver), Some(Role::Active)], "{name}");
        let moved = Graph::read(target, CLUSTER).await.unwrap();
        println!("killed at {name} ({roles:?}), run again: {:?}", moved.counts());
        assert_eq!(moved.counts(), original.counts(), "{name}");
        same(&original, &moved);
        // Owners are the objects of this side, or its garbage collector would delete what they own.
        let uid = objects::<MetalCluster>(target).get(CLUSTER).await.unwrap().uid();
        let machine = objects::<MetalMachine>(target).get("node-042").await.unwrap();
        assert_eq!(machine.owner_references()[0].uid, uid.unwrap(), "{name}");
        // Once more changes nothing; and the old side is cleared, also if that is cut off.
        pivot.hand_over().await.unwrap();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), pivot.clear_source()).await;
        pivot.clear_source().await.unwrap();
        assert_eq!(Graph::read(source, CLUSTER).await.unwrap().objects.len(), 0, "{name}");
        assert_eq!(Graph::read(target, CLUSTER).await.unwrap().objects.len(), 1000, "{name}");
    }
    for cluster in clusters {
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_does_not_manage_touches_nothing_and_a_failure_thaws_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (cluster, gone) = (start(dirs[0].path()).await, start(dirs[1].path()).await);
    let (client, target) = (cluster.client(), gone.client());
    crds::apply(&client).await.unwrap();
    let owner = write_cluster(&client).await;
    write_machine(&client, 1, &owner).await;
    let pending = async || {
        let mut object = objects::<MetalMachine>(&client).get("node-001").await.unwrap();
        object.status = Some(Default::default());
        objects::<MetalMachine>(&client).replace_status("node-001", &PostParams::default(), &object).await.unwrap()
    };
    let context = Arc::new(context(&client, Arc::new(metalgate::power::connect)));
    let step = async || {
        machine::reconcile(Arc::new(pending().await), context.clone()).await.unwrap();
        objects::<MetalMachine>(&client).get("node-001").await.unwrap().status.unwrap().state
    };
    assert_eq!(step().await, MachineState::PoweringOn);

    // Killed while it was frozen: nothing moves until it is thawed.
    let pivot = pivot(&client, &target);
    assert!(killed(&pivot, |what, _| what.ends_with("frozen")).await);
    assert_eq!((role(&client).await, step().await), (Some(Role::Frozen), MachineState::Pending));
    Pivot::thaw(&client, CLUSTER).await.unwrap();
    assert_eq!((role(&client).await, step().await), (Some(Role::Active), MachineState::PoweringOn));

    // The new cluster dies: the old one goes on, and can try again.
    gone.stop().await;
    let error = pivot.hand_over().await.unwrap_err();
    assert!(matches!(error, PivotError::Api { .. } | PivotError::Definitions(_)), "{error}");
    assert_eq!((role(&client).await, step().await), (Some(Role::Active), MachineState::PoweringOn));
    assert!(pivot.clear_source().await.is_err(), "objects that were not handed over must not be deleted");
    cluster.stop().await;
}
