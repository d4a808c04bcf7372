//! Envoy Gateway's objects: the control plane from a template, routing by the Gateway API.

use super::super::model::{
    DataPlane, ExposeBy, HeaderChanges, KeyAuth, KeyPlace, KubernetesService, Listener, PathMatchBy, Protocol, Route,
    Service,
};
use super::super::object::{Step, documents};
use super::super::{RenderError, Stack, certificates};
use super::{CONTROLLER, gateway_name, image};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const CONTROL_PLANE: &str = include_str!("../../../templates/gateway/envoy-gateway.yaml");
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const ENVOY_API: &str = "gateway.envoyproxy.io/v1alpha1";

/// All steps after the CRDs: control plane, gateways, routes.
pub fn steps(stack: &Stack) -> Result<Vec<Step>, RenderError> {
    let gateway = &stack.gateway;
    let values = json!({
        "namespace": gateway.namespace, "image": image(stack), "replicas": gateway.control_plane.replicas,
        "node_selector": gateway.control_plane.node_selector,
    });
    let control_plane = documents("the control plane", CONTROL_PLANE, values)?;
    let class = json!({
        "apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": class_name(stack)},
        "spec": {"controllerName": CONTROLLER},
    });
    let mut gateways = vec![class];
    for plane in &gateway.data_planes {
        gateways.push(envoy_proxy(stack, plane));
        gateways.push(gateway_object(stack, plane));
    }
    let mut routes: Vec<Value> = used_services(stack).filter_map(|service| backend(stack, service)).collect();
    routes.extend(used_services(stack).filter_map(|service| grant(stack, service)));
    routes.extend(used_services(stack).filter_map(|service| backend_tls(stack, service)));
    routes.extend(gateway.routes.iter().map(|route| http_route(stack, route)));
    for route in &gateway.routes {
        if let Some(auth) = &route.auth {
            routes.push(security_policy(stack, route, auth));
        }
    }
    Ok(vec![
        Step::here("the control plane", control_plane),
        Step::here("the data planes", gateways),
        Step::here("the routes", routes),
    ])
}

fn class_name(stack: &Stack) -> String {
    stack.gateway.provider.class_name.clone().unwrap_or_else(|| stack.name.clone())
}

fn metadata(stack: &Stack, name: &str) -> Value {
    json!({"name": name, "namespace": stack.gateway.namespace})
}

/// How a group of data planes runs.
fn envoy_proxy(stack: &Stack, plane: &DataPlane) -> Value {
    let host_network = plane.expose.by == ExposeBy::HostNetwork;
    let mut service = json!({"type": match plane.expose.by {
        ExposeBy::ClusterIp | ExposeBy::HostNetwork => "ClusterIP",
        ExposeBy::NodePort => "NodePort",
        ExposeBy::LoadBalancer => "LoadBalancer",
    }});
    let mut patch = json!({});
    let ports: Vec<Value> = node_ports(stack, plane);
    if !ports.is_empty() {
        patch["spec"]["ports"] = json!(ports);
    }
    let addresses: Vec<&String> =
        plane.expose.addresses.iter().filter(|address| address.parse::<std::net::IpAddr>().is_ok()).collect();
    if !addresses.is_empty() {
        patch["spec"]["externalIPs"] = json!(addresses);
    }
    if patch != json!({}) {
        service["patch"] = json!({"type": "StrategicMerge", "value": patch});
    }
    let mut pod = json!({});
    if !plane.node_selector.is_empty() {
        pod["nodeSelector"] = json!(plane.node_selector);
    }
    let mut kubernetes = json!({"envoyService": service});
    let mut deployment = json!({"replicas": plane.replicas, "pod": pod});
    if host_network {
        let spec = json!({"spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {"spec": {"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}},
        }});
        deployment["patch"] = json!({"type": "StrategicMerge", "value": spec});
        kubernetes["useListenerPortAsContainerPort"] = json!(true);
        if stack.gateway.listeners.iter().any(|listener| listener.port < 1024) {
            deployment["container"] = json!({"securityContext": {
                "runAsUser": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }});
        }
    }
    kubernetes["envoyDeployment"] = deployment;
    json!({
        "apiVersion": ENVOY_API, "kind": "EnvoyProxy", "metadata": metadata(stack, &gateway_name(stack, plane)),
        "spec": {"provider": {"type": "Kubernetes", "kubernetes": kubernetes}},
    })
}

fn node_ports(stack: &Stack, plane: &DataPlane) -> Vec<Value> {
    let port = |listener: &Listener| {
        let node_port = match listener.protocol {
            Protocol::Http => plane.expose.http_node_port,
            Protocol::Https => plane.expose.https_node_port,
        }?;
        // Envoy Gateway names ports after protocol and number; a strategic merge finds them by their number.
        Some(json!({"port": listener.port, "nodePort": node_port}))
    };
    stack.gateway.listeners.iter().filter_map(port).collect()
}

fn gateway_object(stack: &Stack, plane: &DataPlane) -> Value {
    let name = gateway_name(stack, plane);
    let listeners: Vec<Value> = stack.gateway.listeners.iter().map(|one| listener(stack, one)).collect();
    json!({
        "apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": metadata(stack, &name),
        "spec": {
            "gatewayClassName": class_name(stack), "listeners": listeners,
            "infrastructure": {"parametersRef": {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": name}},
        },
    })
}

fn listener(stack: &Stack, listener: &Listener) -> Value {
    let mut value = json!({
        "name": listener.name, "port": listener.port,
        "protocol": if listener.protocol == Protocol::Https { "HTTPS" } else { "HTTP" },
        "allowedRoutes": {"namespaces": {"from": "Same"}},
    });
    if let Some(hostname) = &listener.hostname {
        value["hostname"] = json!(hostname);
    }
    if let Some(tls) = &listener.tls {
        let secret = tls.secret.clone().unwrap_or_else(|| certificates::listener_secret(stack, &listener.name));
        value["tls"] = json!({"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": secret}]});
    }
    value
}

/// Services that routes name, each once.
fn used_services(stack: &Stack) -> impl Iterator<Item = &Service> {
    let names: BTreeSet<&String> =
        stack.gateway.routes.iter().flat_map(|route| &route.backends).map(|backend| &backend.service).collect();
    stack.gateway.services.iter().filter(move |service| names.contains(&service.name))
}

/// Name of the objects of a service.
fn service_name(stack: &Stack, service: &Service) -> String {
    format!("{}-{}", stack.name, service.name)
}

/// The Service of the cluster that routes name. What lies outside, and what has TLS that nobody checks, is a Backend.
fn direct(service: &Service) -> Option<&KubernetesService> {
    service.kubernetes.as_ref().filter(|_| service.tls.as_ref().is_none_or(|tls| tls.verify))
}

/// A service that routes do not name directly.
fn backend(stack: &Stack, service: &Service) -> Option<Value> {
    if direct(service).is_some() {
        return None;
    }
    let host = service.address();
    let endpoint = match host.parse::<std::net::IpAddr>() {
        Ok(address) => json!({"ip": {"address": address, "port": service.port}}),
        Err(_) => json!({"fqdn": {"hostname": host, "port": service.port}}),
    };
    let mut spec = json!({"endpoints": [endpoint]});
    if service.tls.as_ref().is_some_and(|tls| !tls.verify) {
        spec["tls"] = json!({"insecureSkipVerify": true});
    }
    Some(json!({
        "apiVersion": ENVOY_API, "kind": "Backend", "metadata": metadata(stack, &service_name(stack, service)),
        "spec": spec,
    }))
}

/// Leave to use a Service of another namespace.
fn grant(stack: &Stack, service: &Service) -> Option<Value> {
    let target = direct(service).filter(|target| target.namespace != stack.gateway.namespace)?;
    Some(json!({
        "apiVersion": GATEWAY_API, "kind": "ReferenceGrant",
        "metadata": {"name": service_name(stack, service), "namespace": target.namespace},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": stack.gateway.namespace}],
            "to": [{"group": "", "kind": "Service", "name": target.name}],
        },
    }))
}

/// TLS to a service whose certificate is checked. Of a Service of the cluster the policy stands beside it.
fn backend_tls(stack: &Stack, service: &Service) -> Option<Value> {
    let tls = service.tls.as_ref().filter(|tls| tls.verify)?;
    let hostname = tls.sni.clone().unwrap_or_else(|| service.address());
    let validation = match &tls.ca {
        Some(map) => {
            json!({"hostname": hostname, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": map}]})
        }
        None => json!({"hostname": hostname, "wellKnownCACertificates": "System"}),
    };
    let (namespace, target) = match direct(service) {
        Some(target) => (target.namespace.clone(), json!({"group": "", "kind": "Service", "name": target.name})),
        None => (
            stack.gateway.namespace.clone(),
            json!({"group": "gateway.envoyproxy.io", "kind": "Backend", "name": service_name(stack, service)}),
        ),
    };
    Some(json!({
        "apiVersion": GATEWAY_API, "kind": "BackendTLSPolicy",
        "metadata": {"name": service_name(stack, service), "namespace": namespace},
        "spec": {"targetRefs": [target], "validation": validation},
    }))
}

fn http_route(stack: &Stack, route: &Route) -> Value {
    let parents: Vec<Value> = stack
        .gateway
        .data_planes
        .iter()
        .flat_map(|plane| {
            let gateway = gateway_name(stack, plane);
            // All listeners, or each by its name.
            match route.listeners.as_slice() {
                [] => vec![json!({"name": gateway})],
                some => some.iter().map(|listener| json!({"name": gateway, "sectionName": listener})).collect(),
            }
        })
        .collect();
    let mut rule = json!({"matches": matches(route), "backendRefs": backend_refs(stack, route)});
    let filters = filters(stack, route);
    if !filters.is_empty() {
        rule["filters"] = json!(filters);
    }
    if let Some(seconds) = route.timeout_seconds {
        rule["timeouts"] = json!({"request": format!("{seconds}s")});
    }
    let mut spec = json!({"parentRefs": parents, "rules": [rule]});
    if !route.hosts.is_empty() {
        spec["hostnames"] = json!(route.hosts);
    }
    json!({
        "apiVersion": GATEWAY_API, "kind": "HTTPRoute",
        "metadata": metadata(stack, &format!("{}-{}", stack.name, route.name)), "spec": spec,
    })
}

/// One match for each method.
fn matches(route: &Route) -> Vec<Value> {
    let kind = match route.path.by {
        PathMatchBy::Prefix => "PathPrefix",
        PathMatchBy::Exact => "Exact",
        PathMatchBy::Regex => "RegularExpression",
    };
    let mut one = json!({"path": {"type": kind, "value": route.path.value}});
    if !route.headers.is_empty() {
        let headers: Vec<Value> =
            route.headers.iter().map(|(name, value)| json!({"type": "Exact", "name": name, "value": value})).collect();
        one["headers"] = json!(headers);
    }
    if route.methods.is_empty() {
        return vec![one];
    }
    let with = |method: &String| {
        let mut one = one.clone();
        one["method"] = json!(method);
        one
    };
    route.methods.iter().map(with).collect()
}

fn backend_refs(stack: &Stack, route: &Route) -> Vec<Value> {
    let reference = |backend: &super::super::model::Backend| {
        let service = stack.gateway.service(&backend.service)?;
        Some(match direct(service) {
            Some(target) => json!({
                "kind": "Service", "name": target.name, "namespace": target.namespace, "port": service.port,
                "weight": backend.weight,
            }),
            None => json!({
                "group": "gateway.envoyproxy.io", "kind": "Backend", "name": service_name(stack, service),
                "weight": backend.weight,
            }),
        })
    };
    route.backends.iter().filter_map(reference).collect()
}

fn filters(stack: &Stack, route: &Route) -> Vec<Value> {
    let mut filters = Vec::new();
    let pairs = |map: &BTreeMap<String, String>| -> Vec<Value> {
        map.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    let modifier = |changes: &HeaderChanges| {
        let mut value = json!({});
        for (field, list) in [("set", pairs(&changes.set)), ("add", pairs(&changes.add))] {
            if !list.is_empty() {
                value[field] = json!(list);
            }
        }
        if !changes.remove.is_empty() {
            value["remove"] = json!(changes.remove);
        }
        value
    };
    if !route.request_headers.is_empty() {
        filters
            .push(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": modifier(&route.request_headers)}));
    }
    if !route.response_headers.is_empty() {
        let changes = modifier(&route.response_headers);
        filters.push(json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": changes}));
    }
    let mut rewrite = json!({});
    if route.strip_prefix {
        rewrite["path"] = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"});
    }
    if !route.preserve_host {
        let first = route.backends.first().and_then(|backend| stack.gateway.service(&backend.service));
        let name = first.map(|service| {
            let sni = service.tls.as_ref().and_then(|tls| tls.sni.clone());
            sni.unwrap_or_else(|| service.address())
        });
        if let Some(name) = name {
            rewrite["hostname"] = json!(name);
        }
    }
    if rewrite != json!({}) {
        filters.push(json!({"type": "URLRewrite", "urlRewrite": rewrite}));
    }
    filters
}

/// Name of the Secret that Envoy Gateway reads a consumer's key from: one key for each client, by its name.
pub fn consumer_secret(stack: &Stack, consumer: &str) -> String {
    format!("{}-consumer-{consumer}", stack.name)
}

/// Keys that open a route.
fn security_policy(stack: &Stack, route: &Route, auth: &KeyAuth) -> Value {
    let name = format!("{}-{}", stack.name, route.name);
    let credentials: Vec<Value> = auth
        .consumers
        .iter()
        .map(|consumer| json!({"group": "", "kind": "Secret", "name": consumer_secret(stack, consumer)}))
        .collect();
    let place = match auth.place {
        KeyPlace::Header => json!({"headers": [auth.name]}),
        KeyPlace::Query => json!({"params": [auth.name]}),
    };
    json!({
        "apiVersion": ENVOY_API, "kind": "SecurityPolicy", "metadata": metadata(stack, &name),
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}],
            "apiKeyAuth": {"credentialRefs": credentials, "extractFrom": [place], "sanitize": true},
        },
    })
}
