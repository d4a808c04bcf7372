//! Kong's objects on a real API server, its entities and its proof against a peer that speaks Kong's protocols: nothing here says that
//! Kong itself has run. The peers take their certificates and ports from what `gateway apply` has made, as Kong's pods would.

use crate::kong_peer::{
    ControlPlane, ControlPlaneSettings, DataPlane, DataPlaneSettings, Fault, Faults, Identity, Mode,
};
use crate::node::{deployment_is_ready, deployments, pod, remove_pod, rest_is_done, secret};
use crate::{api_server, assert_done, gateway, said};
use axum::Router;
use axum::http::{HeaderMap, Uri};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use metalgate::api::apply;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

const NAMESPACE: &str = "kong";
const GATEWAY: &str = include_str!("../../hardware-examples/gateway/accepted/kong-lab/gateway.yaml");
const CONTROL_PLANE: &str = "127.0.1.1";
const DATA_PLANES: [&str; 2] = ["127.0.1.2", "127.0.1.3"];
/// Whose turn it is to have these addresses.
static ADDRESSES: Mutex<()> = Mutex::const_new(());

/// The one of a second cluster.
const FAR: &str = "127.0.1.4";
/// What data planes in other clusters call the control plane, and its node port.
const OUTSIDE: &str = "control.example.org";
const NODE_PORT: u16 = 30805;

/// The pods of Kong, and what they have been made of.
struct Planes {
    /// The clusters; the control plane is in the first one.
    clusters: Vec<Client>,
    faults: Faults,
    mode: Mode,
    /// Sum of the certificates that the pods have started with, by Deployment.
    started: BTreeMap<String, String>,
    control_plane: Option<ControlPlane>,
    /// By the names of their pods.
    data_planes: BTreeMap<String, DataPlane>,
    rolled: usize,
}

fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

fn variable(deployment: &Deployment, name: &str) -> Option<String> {
    let containers = &deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
    let mut env = containers[0].env.iter().flatten();
    env.find(|one| one.name == name).and_then(|one| one.value.clone())
}

impl Planes {
    /// One look at everything: a Deployment whose certificates have changed gets new pods.
    async fn sync(&mut self) {
        for client in self.clusters.clone() {
            self.sync_cluster(&client).await;
        }
    }

    async fn sync_cluster(&mut self, client: &Client) {
        for deployment in deployments(client, NAMESPACE).await {
            let name = deployment.name_any();
            let template = &deployment.spec.as_ref().unwrap().template;
            let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.clone());
            let sum = annotations
                .unwrap_or_default()
                .remove("metalgate.dev/certificates")
                .expect("pods know their certificate");
            if self.started.get(&name) != Some(&sum) {
                self.roll(client, &deployment, &name).await;
                self.started.insert(name, sum);
            }
            deployment_is_ready(client, &deployment).await;
        }
        rest_is_done(client, NAMESPACE).await;
    }

    async fn identity(&self, client: &Client, deployment: &Deployment) -> (Identity, String) {
        let volumes = deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().volumes.clone().unwrap();
        let volume = volumes.into_iter().find(|volume| volume.name == "cluster").unwrap();
        let values = secret(client, NAMESPACE, &volume.secret.unwrap().secret_name.unwrap()).await.unwrap();
        let text = |key: &str| String::from_utf8(values[key].clone()).unwrap();
        (Identity { cert: text("tls.crt"), key: text("tls.key") }, text("ca.crt"))
    }

    /// Who signs the certificates between the planes, where somebody does.
    async fn authority(&self) -> Option<Identity> {
        let values = secret(&self.clusters[0], NAMESPACE, "edge-planes-ca").await?;
        let text = |key: &str| String::from_utf8(values[key].clone()).unwrap();
        Some(Identity { cert: text("tls.crt"), key: text("tls.key") })
    }

    async fn roll(&mut self, client: &Client, deployment: &Deployment, name: &str) {
        let (identity, trust) = self.identity(client, deployment).await;
        self.rolled += 1;
        if variable(deployment, "KONG_ROLE").as_deref() == Some("control_plane") {
            self.control_plane = None;
            let (admin, cluster) = (address(CONTROL_PLANE, 8001), address(CONTROL_PLANE, 8005));
            let ca = (self.mode == Mode::Pki).then_some(trust);
            let mut settings = ControlPlaneSettings::new(admin, cluster, self.mode, identity, ca);
            settings.faults = self.faults.clone();
            self.control_plane = Some(ControlPlane::start(settings).await);
            pod(client, deployment, "control-plane-0", CONTROL_PLANE).await;
            return;
        }
        // By its Service, or from another cluster by its node port.
        let control_plane = variable(deployment, "KONG_CLUSTER_CONTROL_PLANE").unwrap();
        let (host, port) = control_plane.split_once(':').unwrap();
        assert_eq!(host, if name == "edge-far" { OUTSIDE } else { "edge-cluster.kong.svc.cluster.local" });
        let control_plane = address(CONTROL_PLANE, port.parse().unwrap());
        let hosts: &[&str] = if name == "edge-far" { &[FAR] } else { &DATA_PLANES };
        for (index, host) in hosts.iter().enumerate() {
            let hostname = format!("{name}-{index}");
            let (proxy, status) = (address(host, 8000), address(host, 8100));
            let server_name = variable(deployment, "KONG_CLUSTER_SERVER_NAME").unwrap_or_default();
            let (identity, trust) = (identity.clone(), trust.clone());
            let mut settings =
                DataPlaneSettings::new(proxy, status, control_plane, &hostname, identity, trust, &server_name);
            settings.mode = self.mode;
            settings.authority = self.authority().await;
            settings.faults = self.faults.clone();
            settings.hosts = BTreeMap::from([
                (String::from("web.shop.svc.cluster.local"), "127.0.2.1".parse().unwrap()),
                (String::from("web-next.shop.svc.cluster.local"), "127.0.2.2".parse().unwrap()),
            ]);
            settings.retry = Duration::from_millis(200);
            settings.ping_interval = Duration::from_secs(1);
            // One after the other, as a rolling update does it.
            if self.data_planes.remove(&hostname).is_some() {
                remove_pod(client, NAMESPACE, &hostname).await;
            }
            self.data_planes.insert(hostname.clone(), DataPlane::start(settings).await);
            pod(client, deployment, &hostname, host).await;
        }
    }
}

/// Keeps the planes in step until the test ends.
fn keep(planes: Arc<Mutex<Planes>>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            planes.lock().await.sync().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
}

async fn backend(name: &'static str, host: &str) {
    let answer = move |uri: Uri, headers: HeaderMap| async move {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        axum::Json(json!({
            "backend": name, "path": uri.path(), "gateway": header("x-gateway"), "via": header("x-via"),
            "internal": header("x-internal"),
        }))
    };
    let listener = tokio::net::TcpListener::bind(address(host, 8080)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
}

async fn shop(host: &str) -> Value {
    let client = reqwest::Client::new();
    let request = client.get(format!("http://{host}:8000/shop/cart")).header("Host", "shop.example.org");
    request.header("X-Internal", "1").send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

struct Lab {
    client: Client,
    kubeconfig: PathBuf,
    file: PathBuf,
    faults: Faults,
    planes: Arc<Mutex<Planes>>,
}

impl Lab {
    async fn run(&self, arguments: &[&str]) -> std::process::Output {
        gateway(&self.kubeconfig, &self.file, arguments).await
    }

    async fn prove(&self) -> std::process::Output {
        self.run(&["prove", "--patience", "4"]).await
    }

    /// Until a proof says something: what a data plane finds out takes it a moment.
    async fn proof_says(&self, wanted: &str) {
        let mut last = String::new();
        // A data plane without a connection is given up after 45 s.
        for _ in 0..14 {
            let proof = self.prove().await;
            last = said(&proof);
            if last.contains(wanted) {
                assert_eq!(proof.status.code(), Some(1), "{last}");
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("no `{wanted}` in:\n{last}");
    }
}

async fn lab(dir: &Path, cluster: &metalgate::bootstrap::BootstrapCluster, text: &str, mode: Mode) -> Lab {
    let (client, kubeconfig) = (cluster.client(), cluster.kubeconfig().to_owned());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply::document(&client, &namespace).await.unwrap();
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "partner-key", "namespace": NAMESPACE},
        "stringData": {"key": "open-sesame"},
    });
    apply::document(&client, &key).await.unwrap();
    let faults = Faults::default();
    let planes = Planes {
        clusters: vec![client.clone()],
        faults: faults.clone(),
        mode,
        started: BTreeMap::new(),
        control_plane: None,
        data_planes: BTreeMap::new(),
        rolled: 0,
    };
    let planes = Arc::new(Mutex::new(planes));
    let file = dir.join("gateway.yaml");
    std::fs::write(&file, text).unwrap();
    Lab { client, kubeconfig, file, faults, planes }
}

#[tokio::test(flavor = "multi_thread")]
async fn kong_is_configured_proved_and_disproved() {
    let _addresses = ADDRESSES.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = api_server(dir.path()).await;
    backend("web", "127.0.2.1").await;
    backend("web-next", "127.0.2.2").await;
    let lab = lab(dir.path(), &cluster, GATEWAY, Mode::Pki).await;
    let node = keep(lab.planes.clone());

    let applied = lab.run(&["apply", "--timeout", "2"]).await;
    assert_done(&applied);
    assert!(said(&applied).contains("entities written"), "{}", said(&applied));
    let proof = lab.prove().await;
    println!("{}", said(&proof));
    assert_done(&proof);
    let status = said(&lab.run(&["status"]).await);
    for wanted in ["  ok     in sync: edge-default-1: normal", "  ok     certificate: edge-default-0: until 2"] {
        assert!(status.contains(wanted), "no `{wanted}` in:\n{status}");
    }
    assert!(!status.contains("canary"), "it changes nothing: {status}");
    traffic().await;
    let again = lab.run(&["apply", "--timeout", "2"]).await;
    assert_done(&again);
    assert!(!said(&again).contains("entities written"), "nothing has changed: {}", said(&again));

    each_fault_is_found(&lab).await;
    entities_drift_and_go(&lab).await;
    a_new_authority_rolls_both_planes(&lab).await;
    an_old_certificate_is_renewed(&lab).await;
    node.abort();
    cluster.stop().await;
}

async fn traffic() {
    let mut web = 0;
    for index in 0..500 {
        let answer = shop(DATA_PLANES[index % 2]).await;
        assert_eq!(
            (&answer["path"], &answer["gateway"], &answer["via"]),
            (&json!("/cart"), &json!("metalgate"), &json!("edge"))
        );
        assert_eq!(answer["internal"], Value::Null);
        web += usize::from(answer["backend"] == "web");
    }
    // Binomial(500, 0.8): five deviations of 8.9.
    println!("{web} of 500 requests went to the service of weight 8");
    assert!((355..=445).contains(&web), "{web}");
}

/// Each way in which the planes can be wrong, and the reason that the proof gives.
async fn each_fault_is_found(lab: &Lab) {
    let one = "edge-default-0";
    for (fault, wanted) in [
        (Fault::StaleRow, "FAILED connected: edge-default-0: last seen"),
        (Fault::WrongHash, "FAILED configuration: edge-default-0: it runs"),
        (Fault::IncompatibleVersion, "FAILED in sync: edge-default-0: kong_version_incompatible"),
        (Fault::ExpiredCertificate, "FAILED certificate: edge-default-0: expired at"),
        (Fault::ForeignCertificate, "FAILED connected: edge-default-0"),
        (Fault::DeadCanary, "FAILED canary appears: edge-default-0: the canary does not appear"),
        (Fault::NoPushes, "FAILED canary appears: edge-default-0: the canary does not appear"),
    ] {
        lab.faults.set(fault, one);
        lab.proof_says(wanted).await;
        lab.faults.clear();
        let mut well = false;
        for _ in 0..10 {
            well = lab.prove().await.status.success();
            if well {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        println!("{fault:?}: {wanted}; well again afterwards: {well}");
        assert!(well, "{fault:?} is over");
    }
    // The row of a pod that is gone says nothing about those that are there.
    lab.faults.set(Fault::GhostRow, "edge-default-9");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_done(&lab.prove().await);
    lab.faults.clear();
}

async fn admin(path: &str) -> Value {
    reqwest::get(format!("http://{CONTROL_PLANE}:8001{path}")).await.unwrap().json().await.unwrap()
}

async fn count(collection: &str) -> usize {
    admin(&format!("/{collection}?size=1000")).await["data"].as_array().unwrap().len()
}

/// What was deleted behind our back comes back, what is no longer named goes, what is not ours stays.
async fn entities_drift_and_go(lab: &Lab) {
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{CONTROL_PLANE}:8001{path}");
    // Of a proof that was killed, long ago.
    let forgotten = json!({"paths": ["/.metalgate/old"], "tags": ["metalgate-edge-canary"], "created_at": 1});
    client.put(url("/routes/forgotten")).json(&forgotten).send().await.unwrap().error_for_status().unwrap();
    assert_done(&lab.prove().await);
    assert_eq!(client.get(url("/routes/forgotten")).send().await.unwrap().status(), 404);
    let own = json!({"host": "own.example.org", "port": 80, "protocol": "http"});
    client.put(url("/services/own")).json(&own).send().await.unwrap().error_for_status().unwrap();
    client.delete(url("/routes/edge.shop")).send().await.unwrap().error_for_status().unwrap();
    assert_done(&lab.run(&["apply", "--timeout", "2"]).await);
    assert_eq!(admin("/routes/edge.shop").await["name"], "edge.shop");
    let before = (count("routes").await, count("plugins").await, count("consumers").await);
    let text = GATEWAY
        .split("    - name: orders")
        .next()
        .unwrap()
        .replace("  consumers:\n    - {name: partner, key: {secret: partner-key, key: key}}\n", "");
    std::fs::write(&lab.file, text).unwrap();
    assert_done(&lab.run(&["apply", "--timeout", "2"]).await);
    let after = (count("routes").await, count("plugins").await, count("consumers").await);
    println!("routes, plugins, consumers: {before:?} -> {after:?}");
    assert_eq!((before.0, after), (3, (1, 2, 0)));
    assert_eq!(admin("/services/own").await["host"], "own.example.org");
    std::fs::write(&lab.file, GATEWAY).unwrap();
    assert_done(&lab.run(&["apply", "--timeout", "2"]).await);
    assert_done(&lab.prove().await);
}

/// Both authorities are trusted before the new one signs; each stage rolls the pods that read their files at their start only.
async fn a_new_authority_rolls_both_planes(lab: &Lab) {
    let old = secret(&lab.client, NAMESPACE, "edge-cluster-cert").await.unwrap();
    let rolled = lab.planes.lock().await.rolled;
    let rotated = lab.run(&["rotate", "--ca", "--timeout", "2"]).await;
    println!("{}", said(&rotated));
    assert_done(&rotated);
    let new = secret(&lab.client, NAMESPACE, "edge-cluster-cert").await.unwrap();
    assert_ne!(old["ca.crt"], new["ca.crt"]);
    // Two Deployments, three stages: trusted beside the old one, signing, alone.
    assert_eq!(lab.planes.lock().await.rolled - rolled, 6);
    assert_done(&lab.prove().await);
    // Without a new authority, one roll brings new certificates.
    assert_done(&lab.run(&["rotate", "--timeout", "2"]).await);
    assert_eq!(lab.planes.lock().await.rolled - rolled, 8);
    let newer = secret(&lab.client, NAMESPACE, "edge-cluster-cert").await.unwrap();
    assert!(newer["ca.crt"] == new["ca.crt"] && newer["tls.crt"] != new["tls.crt"]);
}

/// A certificate that has spent two thirds of its life is made anew, and rolls what reads it, and nothing else.
async fn an_old_certificate_is_renewed(lab: &Lab) {
    let name = "edge-cluster-cert";
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let young = secret(&lab.client, NAMESPACE, name).await.unwrap();
    let authority = secret(&lab.client, NAMESPACE, "edge-planes-ca").await.unwrap();
    let issuer = rcgen::KeyPair::from_pem(&text(&authority["tls.key"])).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&text(&authority["tls.crt"]), issuer).unwrap();
    let mut old = rcgen::CertificateParams::new(vec![String::from("edge-cluster.kong.svc.cluster.local")]).unwrap();
    let now = time::OffsetDateTime::now_utc();
    (old.not_before, old.not_after) = (now - time::Duration::days(61), now + time::Duration::days(29));
    old.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let old = old.signed_by(&key, &issuer).unwrap().pem();
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), NAMESPACE);
    let change = Patch::Merge(json!({"stringData": {"tls.crt": old, "tls.key": key.serialize_pem()}}));
    secrets.patch(name, &PatchParams::default(), &change).await.unwrap();
    let rolled = lab.planes.lock().await.rolled;
    assert_done(&lab.run(&["apply", "--timeout", "2"]).await);
    let renewed = secret(&lab.client, NAMESPACE, name).await.unwrap();
    assert!(renewed["tls.crt"] != old.as_bytes() && renewed["tls.crt"] != young["tls.crt"]);
    assert_eq!(renewed["ca.crt"], young["ca.crt"]);
    assert_eq!(lab.planes.lock().await.rolled - rolled, 1, "the control plane alone");
    assert_done(&lab.prove().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_certificate_connects_both_planes() {
    let _addresses = ADDRESSES.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = api_server(dir.path()).await;
    let text = GATEWAY.replace("  listeners:\n", "  pki: {mode: shared}\n  listeners:\n");
    let lab = lab(dir.path(), &cluster, &text, Mode::Shared).await;
    let node = keep(lab.planes.clone());
    assert_done(&lab.run(&["apply", "--timeout", "2"]).await);
    assert_done(&lab.prove().await);
    node.abort();
    cluster.stop().await;
}

/// What kube-proxy does for a node port.
async fn node_port() -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind(address(CONTROL_PLANE, NODE_PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut inside) = tokio::net::TcpStream::connect(address(CONTROL_PLANE, 8005)).await {
                    // Either side may hang up as it likes.
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    })
}

/// The hybrid deployment: one control plane, data planes here and in a second cluster, which has nothing but its own certificate.
#[tokio::test(flavor = "multi_thread")]
async fn data_planes_of_a_second_cluster_are_made_proved_rotated_and_deleted() {
    let _addresses = ADDRESSES.lock().await;
    let (dir, far_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cluster, far) = (api_server(dir.path()).await, api_server(far_dir.path()).await);
    for (name, host) in [("web", "127.0.2.1"), ("web-next", "127.0.2.2")] {
        backend(name, host).await;
    }
    let exposed = format!(
        "    controlPlane:\n      database: {{embedded: true}}\n      expose: {{type: NodePort, configNodePort: {NODE_PORT}, \
         telemetryNodePort: 30806, addresses: [{OUTSIDE}]}}\n"
    );
    let here_only = GATEWAY.replace("    controlPlane: {database: {embedded: true}}\n", &exposed);
    let elsewhere = "      - {name: far, replicas: 1, kubeconfig: {secret: far-cluster, key: kubeconfig}, \
                     expose: {type: NodePort, httpNodePort: 30081, httpsNodePort: 30444}}\n  listeners:\n";
    let both = here_only.replace("  listeners:\n", elsewhere);
    assert!(here_only != GATEWAY && both != here_only);
    let lab = lab(dir.path(), &cluster, &both, Mode::Pki).await;
    lab.planes.lock().await.clusters.push(far.client());
    let (node, node_port) = (keep(lab.planes.clone()), node_port().await);

    let refused = lab.run(&["apply", "--timeout", "2"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let wanted = "the Secret far-cluster has no kubeconfig for the data plane far at `kubeconfig`";
    assert!(said(&refused).contains(wanted), "{}", said(&refused));
    let kubeconfig = std::fs::read_to_string(far.kubeconfig()).unwrap();
    let access = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "far-cluster", "namespace": NAMESPACE},
        "stringData": {"kubeconfig": kubeconfig},
    });
    apply::document(&lab.client, &access).await.unwrap();
    assert_done(&lab.run(&["apply", "--timeout", "2"]).await);
    let proof = lab.prove().await;
    println!("{}", said(&proof));
    assert_done(&proof);
    for wanted in ["ok     in sync: edge-far-0: normal", "ok     canary appears: edge-far-0"] {
        assert!(said(&proof).contains(wanted), "no `{wanted}` in:\n{}", said(&proof));
    }
    assert_eq!(shop(FAR).await["path"], "/cart");

    let there = Api::<Secret>::namespaced(far.client(), NAMESPACE);
    let names = |secrets: Vec<Secret>| secrets.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let secrets = names(there.list(&Default::default()).await.unwrap().items);
    assert_eq!(secrets, ["edge-cluster-cert-far"], "no key of the authority, of the control plane, of anybody else");
    lab.faults.set(Fault::StaleRow, "edge-far-0");
    lab.proof_says("FAILED connected: edge-far-0: last seen").await;
    lab.faults.clear();
    let rolled = lab.planes.lock().await.rolled;
    assert_done(&lab.run(&["rotate", "--ca", "--timeout", "2"]).await);
    // Three Deployments, three stages.
    assert_eq!(lab.planes.lock().await.rolled - rolled, 9);
    assert_done(&lab.prove().await);

    // No longer named: nothing of it stays, here or there.
    std::fs::write(&lab.file, &here_only).unwrap();
    let planned = lab.run(&["apply", "--dry-run"]).await;
    assert!(said(&planned).contains("Deployment kong/edge-far (in the cluster of far)"), "{}", said(&planned));
    let applied = lab.run(&["apply", "--timeout", "2"]).await;
    assert_done(&applied);
    let deleted = "deleted Deployment kong/edge-far (in the cluster of far), which is no longer wanted";
    assert!(said(&applied).contains(deleted), "{}", said(&applied));
    assert!(deployments(&far.client(), NAMESPACE).await.is_empty());
    assert_eq!(names(there.list(&Default::default()).await.unwrap().items), Vec::<String>::new());
    assert!(secret(&lab.client, NAMESPACE, "edge-cluster-cert-far").await.is_none());
    assert!(secret(&lab.client, NAMESPACE, "edge-cluster-cert-default").await.is_some());
    node.abort();
    node_port.abort();
    far.stop().await;
    cluster.stop().await;
}
