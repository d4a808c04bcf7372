//! Planes that connect, and what each fault does.

use super::{Authority, Rig, eventually, pod, shared_identity};
use crate::kong_peer::{ControlPlane, ControlPlaneSettings, DataPlane, Fault, Faults, Mode, NO_CONFIG};
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;

/// Long enough for a push to arrive on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Long enough for a push to arrive, had there been one.
const WHILE: Duration = Duration::from_secs(2);

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

#[tokio::test]
async fn a_data_plane_connects_and_applies_what_is_pushed() {
    let rig = Rig::new(20).await;
    let mut settings = rig.data_plane(2);
    settings.labels.insert("site".to_owned(), "north".to_owned());
    let data_plane = rig.started(settings).await;

    assert!(rig.canary(&data_plane, "n1", SOON).await);
    eventually("the canary is gone", async || rig.proxied(&data_plane, "/.metalgate/n1").await.0 == 404).await;

    rig.put("/services/web", json!({ "host": "127.0.20.9", "port": 80 })).await;
    eventually("the row has the hash of the status port", async || {
        let (_, status) = rig.status(&data_plane, "/status").await;
        rig.row("dp-2").await.is_some_and(|row| row["config_hash"] == status["configuration_hash"])
    })
    .await;
    let row = rig.row("dp-2").await.unwrap();
    assert_eq!(row["id"], data_plane.id());
    assert_eq!(row["ip"], "127.0.20.2");
    assert_eq!(row["version"], "3.9.3");
    assert_eq!(row["sync_status"], "normal");
    assert_eq!(row["labels"], json!({ "site": "north" }));
    assert_eq!(row["config_hash"].as_str().unwrap().len(), 32);
    assert_ne!(row["config_hash"], NO_CONFIG);
    assert!((now() - row["last_seen"].as_i64().unwrap()).abs() < 10);
    let expiry = row["cert_details"]["expiry_timestamp"].as_i64().unwrap();
    assert!((expiry - now() - 86_400).abs() < 60, "{row}");

    let (status, short) = rig.admin("GET", "/clustering/status", Value::Null).await;
    assert_eq!((status, &short[data_plane.id()]["hostname"]), (200, &json!("dp-2")));
    let (status, node) = rig.admin("GET", "/", Value::Null).await;
    assert_eq!(
        (status, &node["version"], &node["configuration"]["role"]),
        (200, &json!("3.9.3"), &json!("control_plane"))
    );
    let (status, health) = rig.admin("GET", "/status", Value::Null).await;
    assert_eq!((status, &health["database"]["reachable"]), (200, &json!(true)));
}

#[tokio::test]
async fn a_data_plane_keeps_its_configuration_without_a_control_plane_and_comes_back() {
    let rig = Rig::new(21).await;
    let data_plane = rig.started(rig.data_plane(2)).await;
    rig.put("/routes/gone", json!({ "paths": ["/gone"] })).await;
    eventually("the route is there", async || rig.proxied(&data_plane, "/gone").await.0 == 503).await;

    let Rig { authority, faults, control_plane, client, .. } = rig;
    drop(control_plane);
    let admin = format!("http://{}/", pod(21, 1, 8001));
    assert!(client.get(&admin).send().await.is_err(), "the Admin API is still there");
    eventually("the data plane has noticed", async || !data_plane.log().is_empty()).await;
    let proxied = client.get(format!("http://{}/gone", data_plane.proxy_addr)).send().await.unwrap();
    assert_eq!(proxied.status(), 503);

    // The addresses are free again, and the new one, which knows no routes, is found.
    let rig = Rig::with(21, authority, faults).await;
    eventually("the route is gone", async || rig.proxied(&data_plane, "/gone").await.0 == 404).await;
}

#[tokio::test]
async fn planes_are_replaced_at_once_at_the_same_addresses() {
    let mut rig = Rig::new(29).await;
    for round in 0..3 {
        let data_plane = rig.started(rig.data_plane(2)).await;
        assert!(rig.canary(&data_plane, &format!("round-{round}"), SOON).await);
        drop(data_plane);
        rig = rig.restarted().await;
    }
}

#[tokio::test]
async fn changes_are_gathered_while_a_push_is_paused() {
    let rig = Rig::new(22).await;
    let data_plane = rig.started(rig.data_plane(2)).await;
    for number in 0..50 {
        rig.put(&format!("/routes/r{number}"), json!({ "paths": [format!("/r{number}")] })).await;
    }
    eventually("the last one is there", async || rig.proxied(&data_plane, "/r49").await.0 == 503).await;
    assert_eq!(rig.proxied(&data_plane, "/r0").await.0, 503);
}

#[tokio::test]
async fn shared_mode_takes_the_one_certificate_and_closes_on_others() {
    let rig = Rig::new(23).await;
    let identity = shared_identity();
    let settings =
        ControlPlaneSettings::new(pod(23, 11, 8001), pod(23, 11, 8005), Mode::Shared, identity.clone(), None);
    let shared = ControlPlane::start(settings).await;
    let mut settings = rig.data_plane(2);
    (settings.mode, settings.control_plane) = (Mode::Shared, shared.cluster_addr);
    (settings.identity, settings.trust) = (identity.clone(), identity.cert);
    let mut stranger = settings.clone();
    let _known = rig.started(settings).await;

    (stranger.proxy, stranger.status) = (pod(23, 3, 8000), pod(23, 3, 8100));
    stranger.identity = shared_identity();
    let stranger = DataPlane::start(stranger).await;
    eventually("it is refused", async || !stranger.log().is_empty()).await;
    // No answer at all: what Kong's client calls `closed`.
    assert!(!stranger.log()[0].contains("400"), "{:?}", stranger.log());
    assert_eq!(rig.status(&stranger, "/status/ready").await.0, 503);
}

#[tokio::test]
async fn pki_mode_answers_400_to_a_foreign_certificate_and_the_data_plane_refuses_a_foreign_server() {
    let rig = Rig::new(24).await;
    let (other, faults) = (Authority::new(), Faults::default());
    let mut settings = rig.data_plane(2);
    settings.identity = other.issue("data plane", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let data_plane = DataPlane::start(settings).await;
    eventually("it is refused", async || !data_plane.log().is_empty()).await;
    assert!(data_plane.log()[0].contains("400"), "{:?}", data_plane.log());
    assert!(rig.row("dp-2").await.is_none());

    let mut settings = rig.data_plane(3);
    settings.trust = other.cert.clone();
    let data_plane = DataPlane::start(settings).await;
    eventually("it refuses", async || !data_plane.log().is_empty()).await;
    assert!(data_plane.log()[0].contains("UnknownIssuer"), "{:?}", data_plane.log());

    let mut settings = rig.data_plane(4);
    settings.server_name = "other.kong.svc".to_owned();
    let data_plane = DataPlane::start(settings).await;
    eventually("it refuses", async || !data_plane.log().is_empty()).await;
    assert!(data_plane.log()[0].contains("NotValidForName"), "{:?}", data_plane.log());
    drop(faults);
}

/// Each fault does what it says, to one data plane alone, and is gone when it is cleared.
#[tokio::test]
async fn faults_of_the_rows() {
    let rig = Rig::new(25).await;
    let faulty = rig.started(rig.data_plane(2)).await;
    let healthy = rig.started(rig.data_plane(3)).await;
    let row = async |name: &str| rig.row(name).await.unwrap_or_default();
    let age = async |name: &str| now() - row(name).await["last_seen"].as_i64().unwrap();

    rig.faults.set(Fault::StaleRow, "dp-2");
    assert!(age("dp-2").await > 3000);
    assert!(age("dp-3").await < 45);
    rig.faults.clear();
    eventually("it pings again", async || age("dp-2").await < 45).await;

    rig.faults.set(Fault::WrongHash, "dp-2");
    assert_ne!(rig.status(&faulty, "/status").await.1["configuration_hash"], row("dp-2").await["config_hash"]);
    assert_eq!(rig.status(&healthy, "/status").await.1["configuration_hash"], row("dp-3").await["config_hash"]);
    rig.faults.clear();
    assert_eq!(rig.status(&faulty, "/status").await.1["configuration_hash"], row("dp-2").await["config_hash"]);

    rig.faults.set(Fault::GhostRow, "dp-old");
    let ghost = row("dp-old").await;
    assert_eq!(ghost["sync_status"], "normal");
    assert!(now() - ghost["last_seen"].as_i64().unwrap() > 45);
    rig.faults.clear();
    assert!(rig.row("dp-old").await.is_none());
}

#[tokio::test]
async fn faults_of_the_connection() {
    let rig = Rig::new(26).await;
    let faulty = rig.started(rig.data_plane(2)).await;
    let _healthy = rig.started(rig.data_plane(3)).await;
    let row = async |name: &str| rig.row(name).await.unwrap_or_default();
    eventually("it is in sync", async || row("dp-2").await["sync_status"] == "normal").await;

    rig.faults.set(Fault::IncompatibleVersion, "dp-2");
    eventually("it is refused", async || row("dp-2").await["sync_status"] == "kong_version_incompatible").await;
    assert_eq!(row("dp-2").await["version"], "3.99.0");
    assert_eq!(row("dp-2").await["config_hash"], NO_CONFIG);
    assert_eq!(row("dp-3").await["sync_status"], "normal");
    rig.faults.clear();
    eventually("it is in sync", async || row("dp-2").await["sync_status"] == "normal").await;

    for fault in [Fault::ExpiredCertificate, Fault::ForeignCertificate] {
        let before = faulty.log().len();
        rig.faults.set(fault, "dp-2");
        eventually("it is refused", async || faulty.log().len() > before + 1).await;
        assert!(faulty.log().last().unwrap().contains("400"), "{fault:?}: {:?}", faulty.log());
        let expiry = row("dp-2").await["cert_details"]["expiry_timestamp"].as_i64().unwrap();
        assert_eq!(expiry < now(), fault == Fault::ExpiredCertificate);
        assert!(!rig.canary(&faulty, &format!("unheard-{fault:?}"), WHILE).await, "{fault:?}");
        rig.faults.clear();
        assert!(rig.canary(&faulty, &format!("heard-{fault:?}"), SOON).await, "{fault:?}");
    }
}

#[tokio::test]
async fn faults_of_the_pushes() {
    let rig = Rig::new(27).await;
    let faulty = rig.started(rig.data_plane(2)).await;
    let healthy = rig.started(rig.data_plane(3)).await;
    for fault in [Fault::DeadCanary, Fault::NoPushes] {
        rig.faults.set(fault, "dp-2");
        assert!(!rig.canary(&faulty, &format!("unheard-{fault:?}"), WHILE).await, "{fault:?}");
        assert!(rig.canary(&healthy, &format!("other-{fault:?}"), SOON).await, "{fault:?}");
        let row = rig.row("dp-2").await.unwrap();
        // Nothing else shows it.
        assert_eq!(row["sync_status"], "normal");
        assert_eq!(row["config_hash"], rig.status(&faulty, "/status").await.1["configuration_hash"]);
        assert_eq!(rig.status(&faulty, "/status/ready").await.0, 200);
        rig.faults.clear();
        assert!(rig.canary(&faulty, &format!("heard-{fault:?}"), SOON).await, "{fault:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_a_data_plane_lacks_stops_its_pushes() {
    let rig = Rig::new(28).await;
    let mut settings = rig.data_plane(2);
    settings.lacks_plugins = vec!["key-auth".to_owned()];
    let _data_plane = rig.started(settings).await;
    rig.put(&format!("/plugins/{}", uuid::Uuid::new_v4()), json!({ "name": "key-auth" })).await;
    eventually("the row says so", async || {
        rig.row("dp-2").await.is_some_and(|row| row["sync_status"] == "plugin_set_incompatible")
    })
    .await;
}
