//! Kong's objects, from `templates/gateway/kong-*.yaml`.

use super::super::model::{DataPlane, Edition, ExposeBy, PkiMode, Protocol, SecretKey};
use super::super::object::{Object, Step, documents};
use super::super::{RenderError, Stack, Sums};
use super::{CLUSTER_PORT, HTTP_PORT, HTTPS_PORT, STATUS_PORT, TELEMETRY_PORT};
use super::{certificates, control_plane_labels, data_plane_labels, image};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const DATABASE: &str = include_str!("../../../templates/gateway/kong-database.yaml");
const MIGRATIONS: &str = include_str!("../../../templates/gateway/kong-migrations.yaml");
const CONTROL_PLANE: &str = include_str!("../../../templates/gateway/kong-control-plane.yaml");
const DATA_PLANE: &str = include_str!("../../../templates/gateway/kong-data-plane.yaml");
/// Image of the embedded database.
pub const DATABASE_IMAGE: &str = "docker.io/library/postgres:17";
/// Where the certificate's Secret is mounted.
const CERTIFICATES: &str = "/etc/secrets/cluster";
/// Annotation of pods with the sum of what they read at their start.
pub const SUM_ANNOTATION: &str = "metalgate.dev/certificates";

/// All steps: namespace, database, schema, control plane, data planes.
pub fn steps(stack: &Stack, sums: &Sums) -> Result<Vec<Step>, RenderError> {
    let mut steps = vec![namespaces(stack)];
    if stack.gateway.control_plane.database.as_ref().is_some_and(|database| database.external.is_none()) {
        let values = json!({
            "stack": stack.name, "namespace": stack.gateway.namespace, "image": DATABASE_IMAGE,
            "node_selector": stack.gateway.control_plane.node_selector,
        });
        steps.push(Step::here("the lab's database", documents("the database", DATABASE, values)?));
    }
    steps.push(Step::here("the database's schema", vec![migrations(stack)?]));
    steps.push(Step::here("the control plane", control_plane(stack, sums)?));
    let planes: Result<Vec<Vec<Object>>, RenderError> =
        stack.gateway.data_planes.iter().map(|plane| data_plane(stack, plane, sums)).collect();
    steps.push(Step { title: String::from("the data planes"), objects: planes?.into_iter().flatten().collect() });
    Ok(steps)
}

fn namespaces(stack: &Stack) -> Step {
    let namespace = || json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stack.gateway.namespace}});
    let elsewhere = stack.gateway.data_planes.iter().filter(|plane| plane.kubeconfig.is_some());
    let elsewhere = elsewhere.map(|plane| Object { plane: Some(plane.name.clone()), value: namespace() });
    Step {
        title: String::from("the namespace"),
        objects: std::iter::once(Object::here(namespace())).chain(elsewhere).collect(),
    }
}

fn variable(name: &str, value: impl Into<String>) -> Value {
    json!({"name": format!("KONG_{name}"), "value": value.into()})
}

fn from_secret(name: &str, key: &SecretKey) -> Value {
    json!({"name": format!("KONG_{name}"), "valueFrom": {"secretKeyRef": {"name": key.secret, "key": key.key}}})
}

/// What both planes are told.
fn common(stack: &Stack) -> Vec<Value> {
    let mut env = vec![
        variable("PREFIX", "/kong_prefix"),
        variable("ANONYMOUS_REPORTS", "off"),
        variable("NGINX_WORKER_PROCESSES", "2"),
        variable("STATUS_LISTEN", format!("0.0.0.0:{STATUS_PORT}")),
        variable("ADMIN_GUI_LISTEN", "off"),
        variable("PROXY_ACCESS_LOG", "/dev/stdout"),
        variable("PROXY_ERROR_LOG", "/dev/stderr"),
        variable("ADMIN_ACCESS_LOG", "/dev/stdout"),
        variable("ADMIN_ERROR_LOG", "/dev/stderr"),
        variable("CLUSTER_MTLS", if stack.gateway.pki.mode == PkiMode::Pki { "pki" } else { "shared" }),
        variable("CLUSTER_CERT", format!("{CERTIFICATES}/tls.crt")),
        variable("CLUSTER_CERT_KEY", format!("{CERTIFICATES}/tls.key")),
    ];
    if stack.gateway.pki.mode == PkiMode::Pki {
        env.push(variable("CLUSTER_CA_CERT", format!("{CERTIFICATES}/ca.crt")));
    }
    // The control plane does not pass a licence on that it has from its environment.
    if let Some(license) = &stack.gateway.provider.license {
        env.push(from_secret("LICENSE_DATA", license));
    }
    env
}

/// Where the database is.
fn database(stack: &Stack) -> Vec<Value> {
    let external = stack.gateway.control_plane.database.as_ref().and_then(|database| database.external.as_ref());
    let mut env = vec![variable("DATABASE", "postgres")];
    match external {
        Some(database) => env.extend([
            variable("PG_HOST", &database.host),
            variable("PG_PORT", database.port.to_string()),
            variable("PG_USER", &database.user),
            variable("PG_DATABASE", &database.name),
            variable("PG_SSL", if database.tls { "on" } else { "off" }),
            variable("PG_SSL_VERIFY", if database.tls { "on" } else { "off" }),
            from_secret("PG_PASSWORD", &database.password),
        ]),
        None => env.extend([
            variable("PG_HOST", stack.named("database")),
            variable("PG_PORT", "5432"),
            variable("PG_USER", "kong"),
            variable("PG_DATABASE", "kong"),
            variable("PG_SSL", "off"),
            from_secret("PG_PASSWORD", &SecretKey { secret: stack.named("database"), key: String::from("password") }),
        ]),
    }
    env
}

/// Places that Kong writes to: its root file system is read-only.
fn scratch() -> (Vec<Value>, Vec<Value>) {
    let mounts =
        vec![json!({"name": "prefix", "mountPath": "/kong_prefix"}), json!({"name": "tmp", "mountPath": "/tmp"})];
    let volumes = vec![json!({"name": "prefix", "emptyDir": {}}), json!({"name": "tmp", "emptyDir": {}})];
    (mounts, volumes)
}

/// The same, with a certificate's Secret.
fn with_certificate(secret: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut mounts, mut volumes) = scratch();
    mounts.push(json!({"name": "cluster", "mountPath": CERTIFICATES, "readOnly": true}));
    volumes.push(json!({"name": "cluster", "secret": {"secretName": secret, "defaultMode": 0o440}}));
    (mounts, volumes)
}

fn annotations(secret: &str, sums: &Sums) -> Value {
    match sums.get(secret) {
        Some(sum) => json!({SUM_ANNOTATION: sum}),
        None => json!({}),
    }
}

fn migrations(stack: &Stack) -> Result<Value, RenderError> {
    let mut env = database(stack);
    env.extend([variable("PREFIX", "/kong_prefix"), variable("ANONYMOUS_REPORTS", "off")]);
    if let Some(license) = &stack.gateway.provider.license {
        env.push(from_secret("LICENSE_DATA", license));
    }
    // An empty database is set up, one of an earlier version is brought up to this one; both do nothing where it is done.
    let script = "kong migrations bootstrap && kong migrations up && kong migrations finish";
    let (mounts, volumes) = scratch();
    let inputs = json!([image(stack), env, script]).to_string();
    let values = json!({
        "stack": stack.name, "namespace": stack.gateway.namespace, "image": image(stack), "env": env,
        "name": format!("{}-migrations-{}", stack.name, &hex::encode(Sha256::digest(inputs))[..10]),
        "command": ["/bin/sh", "-c", script], "mounts": mounts, "volumes": volumes,
        "node_selector": stack.gateway.control_plane.node_selector,
    });
    Ok(documents("the migrations", MIGRATIONS, values)?.remove(0))
}

fn control_plane(stack: &Stack, sums: &Sums) -> Result<Vec<Value>, RenderError> {
    let (plane, enterprise) = (&stack.gateway.control_plane, stack.gateway.provider.edition == Edition::Enterprise);
    let secret = certificates::control_plane_secret(stack);
    let mut env = common(stack);
    env.extend(database(stack));
    env.extend([
        variable("ROLE", "control_plane"),
        variable("PROXY_LISTEN", "off"),
        variable("ADMIN_LISTEN", format!("0.0.0.0:{}", super::ADMIN_PORT)),
        variable("CLUSTER_LISTEN", format!("0.0.0.0:{CLUSTER_PORT}")),
        // Rows of data planes that are gone; Kong's default is two weeks.
        variable("CLUSTER_DATA_PLANE_PURGE_DELAY", "86400"),
    ]);
    if enterprise {
        env.push(variable("CLUSTER_TELEMETRY_LISTEN", format!("0.0.0.0:{TELEMETRY_PORT}")));
    }
    let (mounts, volumes) = with_certificate(&secret);
    let service = json!({
        "type": service_type(plane.expose.by), "addresses": external_addresses(&plane.expose.addresses),
        "config_node_port": plane.expose.http_node_port, "telemetry_node_port": plane.expose.https_node_port,
    });
    let values = json!({
        "stack": stack.name, "namespace": stack.gateway.namespace, "image": image(stack), "env": env,
        "enterprise": enterprise, "replicas": plane.replicas, "node_selector": plane.node_selector,
        "selector": control_plane_labels(stack), "annotations": annotations(&secret, sums),
        "cluster_service": service, "mounts": mounts, "volumes": volumes,
    });
    documents("the control plane", CONTROL_PLANE, values)
}

/// A Service's externalIPs; names of load balancers are not among them.
fn external_addresses(addresses: &[String]) -> Vec<&String> {
    addresses.iter().filter(|address| address.parse::<std::net::IpAddr>().is_ok()).collect()
}

fn service_type(by: ExposeBy) -> &'static str {
    match by {
        ExposeBy::ClusterIp | ExposeBy::HostNetwork => "ClusterIP",
        ExposeBy::NodePort => "NodePort",
        ExposeBy::LoadBalancer => "LoadBalancer",
    }
}

/// A listener as a data plane has it: the port in the pod.
pub(super) fn pod_port(plane: &DataPlane, protocol: Protocol, port: u16) -> u16 {
    match (plane.expose.by, protocol) {
        (ExposeBy::HostNetwork, _) => port,
        (_, Protocol::Http) => HTTP_PORT,
        (_, Protocol::Https) => HTTPS_PORT,
    }
}

fn data_plane(stack: &Stack, plane: &DataPlane, sums: &Sums) -> Result<Vec<Object>, RenderError> {
    let gateway = &stack.gateway;
    let host_network = plane.expose.by == ExposeBy::HostNetwork;
    let secret = certificates::data_plane_secret(stack, &plane.name);
    let (mut listen, mut service_ports) = (Vec::new(), Vec::new());
    let mut container_ports = vec![json!({"name": "status", "containerPort": STATUS_PORT})];
    for listener in &gateway.listeners {
        let port = pod_port(plane, listener.protocol, listener.port);
        let (name, node_port, flags) = match listener.protocol {
            Protocol::Http => ("proxy", plane.expose.http_node_port, ""),
            Protocol::Https => ("proxy-tls", plane.expose.https_node_port, " http2 ssl"),
        };
        listen.push(format!("0.0.0.0:{port}{flags}"));
        container_ports.push(json!({"name": name, "containerPort": port}));
        let mut service_port = json!({"name": listener.name, "port": listener.port, "targetPort": name});
        if let Some(node_port) = node_port {
            service_port["nodePort"] = json!(node_port);
        }
        service_ports.push(service_port);
    }
    let mut env = common(stack);
    env.extend([
        variable("ROLE", "data_plane"),
        variable("DATABASE", "off"),
        variable("ADMIN_LISTEN", "off"),
        variable("PROXY_LISTEN", listen.join(", ")),
    ]);
    env.extend(connection(stack, plane));
    let (mounts, volumes) = with_certificate(&secret);
    let values = json!({
        "stack": stack.name, "namespace": gateway.namespace, "plane": plane.name, "image": image(stack), "env": env,
        "service_type": service_type(plane.expose.by), "addresses": external_addresses(&plane.expose.addresses),
        "selector": data_plane_labels(stack, &plane.name), "service_ports": service_ports,
        "container_ports": container_ports, "replicas": plane.replicas, "node_selector": plane.node_selector,
        // Two pods cannot have one node's ports: there one goes before the next comes.
        "surge": i32::from(!host_network), "host_network": host_network,
        "privileged_ports": host_network && gateway.listeners.iter().any(|listener| listener.port < 1024),
        "annotations": annotations(&secret, sums), "mounts": mounts, "volumes": volumes,
    });
    let elsewhere = plane.kubeconfig.is_some().then(|| plane.name.clone());
    let documents = documents("a data plane", DATA_PLANE, values)?;
    Ok(documents.into_iter().map(|value| Object { plane: elsewhere.clone(), value }).collect())
}

/// How a data plane finds and trusts the control plane.
fn connection(stack: &Stack, plane: &DataPlane) -> Vec<Value> {
    let expose = &stack.gateway.control_plane.expose;
    let (host, config, telemetry) = match (&plane.kubeconfig, expose.addresses.first()) {
        (Some(_), Some(address)) => (
            address.clone(),
            expose.http_node_port.unwrap_or(CLUSTER_PORT),
            expose.https_node_port.unwrap_or(TELEMETRY_PORT),
        ),
        _ => (certificates::server_name(stack), CLUSTER_PORT, TELEMETRY_PORT),
    };
    let is_pki = stack.gateway.pki.mode == PkiMode::Pki;
    let trusted = if is_pki { "ca.crt" } else { "tls.crt" };
    let mut env = vec![
        variable("CLUSTER_CONTROL_PLANE", format!("{host}:{config}")),
        // With the system's authorities, so that TLS to services goes on being checked.
        variable("LUA_SSL_TRUSTED_CERTIFICATE", format!("{CERTIFICATES}/{trusted},system")),
    ];
    if is_pki {
        env.push(variable("CLUSTER_SERVER_NAME", certificates::server_name(stack)));
    }
    if stack.gateway.provider.edition == Edition::Enterprise {
        env.push(variable("CLUSTER_TELEMETRY_ENDPOINT", format!("{host}:{telemetry}")));
        if is_pki {
            env.push(variable("CLUSTER_TELEMETRY_SERVER_NAME", certificates::server_name(stack)));
        }
    }
    env
}
