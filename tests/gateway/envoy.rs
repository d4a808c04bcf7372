//! Envoy Gateway and Envoy, the real programs, on objects and certificates of ours: routing, HTTPS, proof, and a new authority under
//! load. All of it in a network namespace of its own: both programs have fixed ports.

use crate::node::{config_map, deployment_is_ready, deployments, pod, project, secret};
use crate::{api_server, artifacts, assert_done, gateway, said};
use axum::Router;
use axum::http::HeaderMap;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use metalgate::api::apply;
use metalgate::image::manifest::Kind;
use reqwest::Certificate;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Child;

const NAMESPACE: &str = "envoy-gateway-system";
const NETWORK: &str = "mg-test-gateway";
/// Of the network namespace; EndpointSlices take no loopback addresses.
const ADDRESS: &str = "10.9.0.1";
/// Where Envoy Gateway reads its certificates, and nowhere else.
const CERTIFICATES: &str = "/certs";
/// Said where they are applied.
const DEFINITIONS: &str = "the definitions of its resources ...";
const INNER: &str = "METALGATE_TEST_GATEWAY_INNER";

const GATEWAY: &str = include_str!("../../hardware-examples/gateway/accepted/envoy-lab/gateway.yaml");

/// The example's gateway, reached from within: there is no node that could have a port.
fn example() -> String {
    let text = GATEWAY.replace("{type: NodePort, httpNodePort: 30080, httpsNodePort: 30443}", "{type: ClusterIP}");
    assert_ne!(text, GATEWAY);
    text
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The network namespace, as long as the test runs.
struct Network;

impl Network {
    fn new() -> Self {
        // What a killed run has left.
        let _ = Command::new("ip").args(["netns", "del", NETWORK]).stderr(Stdio::null()).status();
        ip(&["netns", "add", NETWORK]);
        let network = Self;
        ip(&["-n", NETWORK, "link", "set", "lo", "up"]);
        ip(&["-n", NETWORK, "addr", "add", &format!("{ADDRESS}/24"), "dev", "lo"]);
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", NETWORK]).status();
        // Only if it is empty, so never somebody else's.
        let _ = std::fs::remove_dir(CERTIFICATES);
    }
}

/// Runs itself again in a network namespace; what that run mounts is seen by it alone.
#[test]
fn envoy_gateway_routes_proves_and_gets_a_new_authority_under_load() {
    if std::env::var_os(INNER).is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(inside_the_namespace());
    }
    let _network = Network::new();
    std::fs::create_dir_all(CERTIFICATES).unwrap();
    let output = Command::new("ip")
        .args(["netns", "exec", NETWORK])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "envoy::envoy_gateway_routes_proves_and_gets_a_new_authority_under_load", "--nocapture"])
        .env(INNER, "1")
        .output()
        .unwrap();
    // Indented: its last line is not one of this run's.
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| println!("    {line}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A backend that says who it is, and what it was asked.
async fn backend(name: &'static str, port: u16) {
    let answer = move |uri: axum::http::Uri, headers: HeaderMap| async move {
        let header = headers.get("x-gateway").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        axum::Json(json!({"backend": name, "path": uri.path(), "gateway": header}))
    };
    let listener = tokio::net::TcpListener::bind((ADDRESS, port)).await.unwrap();
    let service = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
}

/// A Service without pods, whose requests go to a port here.
async fn service(client: &Client, name: &str, port: u16) {
    let metadata = json!({"name": name, "namespace": "shop"});
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"name": "http", "port": 8080}]}}),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}],
        }),
    ] {
        apply::document(client, &object).await.unwrap();
    }
}

/// Runs what Deployments ask for.
struct Node {
    client: Client,
    dir: PathBuf,
    control_plane: Option<Child>,
    data_plane: Option<Child>,
}

impl Node {
    fn program(kind: Kind) -> PathBuf {
        let manifest = artifacts();
        manifest.path_of(manifest.find(kind, metalgate::hardware::Arch::Amd64).unwrap())
    }

    fn spawn(&self, program: &Path, arguments: &[String], log: &str, kubeconfig: &Path) -> Child {
        let log = std::fs::File::create(self.dir.join(log)).unwrap();
        tokio::process::Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("ENVOY_GATEWAY_NAMESPACE", NAMESPACE)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// One look at everything, as kubelet and the Deployment controller have it.
    async fn sync(&mut self, kubeconfig: &Path) {
        if let Some(values) = secret(&self.client, NAMESPACE, "envoy-gateway").await {
            project(&values, Path::new(CERTIFICATES));
        }
        if let Some(values) = secret(&self.client, NAMESPACE, "envoy").await {
            project(&values, &self.dir.join("certs"));
        }
        for deployment in deployments(&self.client, NAMESPACE).await {
            match deployment.name_any().as_str() {
                "envoy-gateway" if self.control_plane.is_none() => {
                    let Some(values) = config_map(&self.client, NAMESPACE, "envoy-gateway-config").await else {
                        continue;
                    };
                    let config = self.dir.join("envoy-gateway.yaml");
                    // Both programs have a port 19000 and a 19001, in pods of their own.
                    let mut text = String::from_utf8(values["envoy-gateway.yaml"].clone()).unwrap();
                    text.push_str("\nadmin: {address: {host: 127.0.0.1, port: 19100}}\n");
                    text.push_str("telemetry: {metrics: {prometheus: {disable: true}}}\n");
                    std::fs::write(&config, text).unwrap();
                    let arguments = [String::from("server"), format!("--config-path={}", config.display())];
                    let program = Self::program(Kind::EnvoyGateway);
                    self.control_plane = Some(self.spawn(&program, &arguments, "envoy-gateway.log", kubeconfig));
                }
                "envoy-gateway" => {}
                _ if self.data_plane.is_none() => self.start_envoy(&deployment, kubeconfig).await,
                name => pod(&self.client, &deployment, &format!("{name}-0"), ADDRESS).await,
            }
            deployment_is_ready(&self.client, &deployment).await;
        }
    }

    /// Envoy, with the arguments that Envoy Gateway has given its container.
    async fn start_envoy(&mut self, deployment: &Deployment, kubeconfig: &Path) {
        let Some(values) = config_map(&self.client, NAMESPACE, &deployment.name_any()).await else { return };
        let certs = self.dir.join("certs");
        let here = |text: &str| {
            text.replace(CERTIFICATES, &certs.display().to_string())
                .replace("/sds/", &format!("{}/sds/", self.dir.display()))
                .replace("$(ENVOY_POD_NAME)", "test-0")
                .replace("$(ENVOY_SERVICE_ZONE)", "")
                .replace(&format!("envoy-gateway.{NAMESPACE}.svc.cluster.local."), "127.0.0.1")
        };
        let sds = values.into_iter().map(|(name, value)| (name, here(&String::from_utf8(value).unwrap()).into_bytes()));
        project(&sds.collect(), &self.dir.join("sds"));
        let containers = &deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
        let envoy = containers.iter().find(|container| container.name == "envoy").unwrap();
        let mut arguments: Vec<String> = envoy.args.iter().flatten().map(|argument| here(argument)).collect();
        arguments.push(String::from("--disable-hot-restart"));
        self.data_plane = Some(self.spawn(&Self::program(Kind::Envoy), &arguments, "envoy.log", kubeconfig));
    }
}

/// Keeps the node in step until the test ends.
fn keep(mut node: Node, kubeconfig: PathBuf) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            node.sync(&kubeconfig).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

async fn inside_the_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = dir.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    // Envoy Gateway keeps WebAssembly modules in /var/lib/eg.
    for arguments in [["--bind", mounted.to_str().unwrap(), CERTIFICATES], ["-ttmpfs", "tmpfs", "/var/lib"]] {
        assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
    }
    let cluster = api_server(dir.path()).await;
    let (client, kubeconfig) = (cluster.client(), cluster.kubeconfig().to_owned());
    backend("web", 9001).await;
    backend("web-next", 9002).await;
    let node = Node { client: client.clone(), dir: dir.path().to_owned(), control_plane: None, data_plane: None };
    let node = keep(node, kubeconfig.clone());
    let file = dir.path().join("gateway.yaml");
    std::fs::write(&file, example()).unwrap();

    let started = Instant::now();
    let applied = gateway(&kubeconfig, &file, &["apply", "--timeout", "3", "--propagation", "5"]).await;
    if !applied.status.success() {
        let log = std::fs::read_to_string(dir.path().join("envoy-gateway.log")).unwrap_or_default();
        panic!("{}\n{}", said(&applied), log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
    }
    println!("applied in {:.1} s", started.elapsed().as_secs_f64());
    // The services behind it come later, with their namespace; what has to stand beside them follows.
    assert!(
        said(&applied).contains("ReferenceGrant shop/edge-web: its namespace is not there yet"),
        "{}",
        said(&applied)
    );
    service(&client, "web", 9001).await;
    service(&client, "web-next", 9002).await;
    let again = gateway(&kubeconfig, &file, &["apply", "--timeout", "3", "--propagation", "5"]).await;
    assert_done(&again);
    assert!(!said(&again).contains(DEFINITIONS), "{}", said(&again));
    routing().await;
    https(&client).await;
    let proof = gateway(&kubeconfig, &file, &["prove"]).await;
    println!("{}", said(&proof));
    assert_done(&proof);
    rotation(&client, &kubeconfig, &file).await;
    drift_and_pruning(&client, &kubeconfig, &file).await;
    changed_definition(&client, &kubeconfig, &file).await;
    lost_control_plane(&kubeconfig, &file, node, &client, dir.path()).await;
    cluster.stop().await;
}

async fn ask(client: &reqwest::Client, url: &str) -> reqwest::Result<Value> {
    client.get(url).send().await?.error_for_status()?.json().await
}

/// The prefix is taken off, the header added, and 8 of 10 requests go to the first service.
async fn routing() {
    let client = reqwest::Client::new();
    let url = format!("http://{ADDRESS}:10080/shop/cart");
    // The services have only just come: it takes a moment until every data plane knows them.
    let started = Instant::now();
    let first = loop {
        match ask(&client, &url).await {
            Ok(answer) => break answer,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!((first["path"].as_str(), first["gateway"].as_str()), (Some("/cart"), Some("metalgate")));
    let elsewhere = client.get(format!("http://{ADDRESS}:10080/shopping")).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404, "a prefix ends at a slash");
    let mut web = 0;
    let all = 1000;
    for _ in 0..all {
        let answer = ask(&client, &url).await.unwrap();
        web += usize::from(answer["backend"] == "web");
    }
    // Binomial(1000, 0.8): a deviation of 12.6, so that five of them are left by chance less than once in a million runs.
    println!("{web} of {all} requests went to the service of weight 8, {} to that of weight 2", all - web);
    assert!((737..=863).contains(&web), "{web} of {all}");
}

/// The listener's certificate is one of our authority for listeners, for the name that it was asked for.
async fn https(client: &Client) {
    let authority = secret(client, NAMESPACE, "edge-listeners-ca").await.unwrap()["tls.crt"].clone();
    let address = format!("{ADDRESS}:10443").parse().unwrap();
    let trusting = reqwest::Client::builder()
        .tls_certs_only([Certificate::from_pem(&authority).unwrap()])
        .resolve("shop.example.org", address)
        .resolve("other.example.org", address)
        .build()
        .unwrap();
    let answer = ask(&trusting, "https://shop.example.org:10443/shop/cart").await.unwrap();
    assert_eq!(answer["path"], "/cart");
    assert!(ask(&trusting, "https://other.example.org:10443/shop/cart").await.is_err(), "another name");
}

/// A new authority between the planes: no request fails meanwhile, and the old one opens nothing afterwards.
async fn rotation(client: &Client, kubeconfig: &Path, file: &Path) {
    let old = secret(client, NAMESPACE, "envoy").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (stop, done, failed) = (stop.clone(), done.clone(), failed.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A connection of its own for each: what is open already would go on in any case.
                    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
                    match ask(&client, &format!("http://{ADDRESS}:10080/shop/load")).await {
                        Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            println!("failed: {error:?}");
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    let started = Instant::now();
    let rotated = gateway(kubeconfig, file, &["rotate", "--ca", "--timeout", "3", "--propagation", "5"]).await;
    println!("{}", said(&rotated));
    assert_done(&rotated);
    // Configuration still comes through on certificates of the new authority.
    let proof = gateway(kubeconfig, file, &["prove"]).await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let (done, failed) = (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    println!("a new authority in {:.1} s: {done} requests answered, {failed} failed", started.elapsed().as_secs_f64());
    assert_done(&proof);
    assert!(done > 100, "{done}");
    assert_eq!(failed, 0);
    let new = secret(client, NAMESPACE, "envoy").await.unwrap();
    assert_ne!(old["ca.crt"], new["ca.crt"]);
    assert!(!String::from_utf8_lossy(&new["ca.crt"]).contains(String::from_utf8_lossy(&old["ca.crt"]).trim()));
    assert!(!opens(&old, &new).await, "the old certificate still opens the control plane");
    assert!(opens(&new, &new).await, "the new certificate does not open the control plane");
}

/// Whether the control plane takes a client certificate, after whose handshake it would answer HTTP/2.
async fn opens(
    identity: &std::collections::BTreeMap<String, Vec<u8>>,
    trust: &std::collections::BTreeMap<String, Vec<u8>>,
) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, value: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, value).unwrap();
        path
    };
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--http2", "--max-time", "10", "--resolve", "envoy-gateway:18000:127.0.0.1"])
        .arg("--cert")
        .arg(file("tls.crt", &identity["tls.crt"]))
        .arg("--key")
        .arg(file("tls.key", &identity["tls.key"]))
        .arg("--cacert")
        .arg(file("ca.crt", &trust["ca.crt"]))
        .arg("https://envoy-gateway:18000/")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // TLS 1.3: the refusal comes after the client's handshake, as an alert or as the end of the connection.
    assert!(
        output.status.success() || ["certificate", "alert", "reset"].iter().any(|word| said.contains(word)),
        "{said}"
    );
    output.status.success()
}

/// What was deleted comes back, what is no longer named goes, and a rehearsal says so before.
async fn drift_and_pruning(client: &Client, kubeconfig: &Path, file: &Path) {
    let nothing = gateway(kubeconfig, file, &["apply", "--dry-run"]).await;
    assert_eq!(String::from_utf8_lossy(&nothing.stdout), "nothing changes\n", "{}", said(&nothing));
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "edge-shop", "namespace": NAMESPACE},
    });
    apply::delete(client, &route).await.unwrap();
    let drifted = gateway(kubeconfig, file, &["apply", "--dry-run"]).await;
    assert!(said(&drifted).contains("HTTPRoute envoy-gateway-system/edge-shop\n  + created"), "{}", said(&drifted));
    let status = gateway(kubeconfig, file, &["status"]).await;
    assert!(
        said(&status).contains("HTTPRoute envoy-gateway-system/edge-shop: it is not there yet"),
        "{}",
        said(&status)
    );
    assert!(said(&status).contains("  ok     connected: envoy-"), "{}", said(&status));
    assert!(said(&status).contains("envoy-rate-limit: CN=") && said(&status).contains("renewed from"));
    assert_done(&gateway(kubeconfig, file, &["apply", "--timeout", "3", "--propagation", "5"]).await);
    assert!(apply::current(client, &route).await.unwrap().is_some());
    let other = example().replace("- name: shop\n", "- name: store\n");
    std::fs::write(file, &other).unwrap();
    let planned = gateway(kubeconfig, file, &["apply", "--dry-run"]).await;
    assert!(said(&planned).contains("HTTPRoute envoy-gateway-system/edge-shop\n  - deleted"), "{}", said(&planned));
    assert_done(&gateway(kubeconfig, file, &["apply", "--timeout", "3", "--propagation", "5"]).await);
    assert!(apply::current(client, &route).await.unwrap().is_none());
    let client = reqwest::Client::new();
    assert_eq!(ask(&client, &format!("http://{ADDRESS}:10080/shop/cart")).await.unwrap()["path"], "/cart");
}

/// Definitions are applied again where somebody has changed one.
async fn changed_definition(client: &Client, kubeconfig: &Path, file: &Path) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "gatewayclasses.gateway.networking.k8s.io";
    let change = Patch::Merge(json!({"spec": {"names": {"shortNames": ["gclass"]}}}));
    definitions.patch(name, &PatchParams::default(), &change).await.unwrap();
    let repaired = gateway(kubeconfig, file, &["apply", "--timeout", "3", "--propagation", "5"]).await;
    assert_done(&repaired);
    assert!(said(&repaired).contains(DEFINITIONS), "{}", said(&repaired));
    let names = definitions.get(name).await.unwrap().spec.names;
    assert_eq!(names.short_names, Some(vec![String::from("gc")]));
}

/// A data plane that goes on without its control plane serves, and proves nothing.
async fn lost_control_plane(
    kubeconfig: &Path,
    file: &Path,
    node: tokio::task::JoinHandle<()>,
    client: &Client,
    dir: &Path,
) {
    node.abort();
    let _ = node.await;
    // With the node both programs have ended; Envoy comes back alone.
    let mut alone = Node { client: client.clone(), dir: dir.to_owned(), control_plane: None, data_plane: None };
    let planes = deployments(client, NAMESPACE).await;
    let envoy = planes.iter().find(|deployment| deployment.name_any() != "envoy-gateway").unwrap();
    alone.start_envoy(envoy, kubeconfig).await;
    let proof = gateway(kubeconfig, file, &["prove", "--patience", "5"]).await;
    assert_eq!(proof.status.code(), Some(1), "{}", said(&proof));
    assert!(said(&proof).contains("FAILED connected"), "{}", said(&proof));
    assert!(said(&proof).contains("FAILED canary appears"), "{}", said(&proof));
}
