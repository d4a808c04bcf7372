//! The fields of a cluster.yaml, and how they have to fit each other.

use super::reader::{Fields, Reader, Value};
use super::yaml::Node;
use super::{
    Argument, ClusterSpec, Cni, DhcpMode, Endpoint, Group, Image, Known, Kubernetes, Os, Provisioning, Registries,
    User, eks_anywhere, gateway, networks, registries, values,
};
use crate::diagnostic::Problem;
use crate::gateway::Stack;
use crate::names::{self, Labels};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::Range;

pub(super) const API_VERSION: &str = "metalgate.dev/v1alpha1";
/// A document with a gateway alone.
pub(super) const GATEWAY_KIND: &str = "GatewayStack";
/// The control plane's group, so that no worker group can have this name.
pub(super) const CONTROL_PLANE: &str = "control-plane";
pub(super) const POD_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
pub(super) const SERVICE_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12);
pub(super) const MAX_MACHINES: u32 = 5000;

/// Reads the document.
pub(super) fn read(reader: &mut Reader, tree: &Node) -> (Option<ClusterSpec>, Known) {
    let mut known = Known::default();
    let cluster = document(reader, &Value::root(tree), &mut known);
    (cluster, known)
}

/// Reads the gateway of a document: a GatewayStack, or a Cluster that has one.
pub(super) fn read_gateway(reader: &mut Reader, tree: &Node) -> Option<Stack> {
    let root = Value::root(tree);
    let kind = tree.scalar_at(&["kind"]);
    if kind != Some(GATEWAY_KIND) {
        let cluster = document(reader, &root, &mut Known::default())?;
        if cluster.gateway.is_none() {
            let problem = Problem::new(format!("the cluster {} has no `spec.gateway`", cluster.name));
            reader.refuse(&root.range, problem.hint("metalgate gateway reads a Cluster with one, or a GatewayStack"));
        }
        return Some(Stack { name: cluster.name, gateway: cluster.gateway? });
    }
    let mut fields = reader.fields(&root)?;
    let version = reader.required(&mut fields, "apiVersion").and_then(|value| reader.parse(&value, api_version));
    let _ = reader.required(&mut fields, "kind");
    let name = reader.required(&mut fields, "metadata").and_then(|value| metadata(reader, &value));
    let gateway = reader.required(&mut fields, "spec").and_then(|value| gateway::read(reader, &value));
    reader.finish(fields);
    version?;
    Some(Stack { name: name?, gateway: gateway? })
}

fn metadata(reader: &mut Reader, value: &Value) -> Option<String> {
    let mut fields = reader.fields(value)?;
    let name = reader.required(&mut fields, "name");
    reader.finish(fields);
    reader.parse(&name?, names::dns_label)
}

fn document(reader: &mut Reader, root: &Value, known: &mut Known) -> Option<ClusterSpec> {
    let mut fields = reader.fields(root)?;
    let version = reader.required(&mut fields, "apiVersion").map(|value| reader.parse(&value, api_version));
    let kind = reader.required(&mut fields, "kind").map(|value| reader.parse(&value, kind));
    let metadata = reader.required(&mut fields, "metadata");
    let spec = reader.required(&mut fields, "spec");
    // The fields of another kind would all be unknown here: saying so once is enough.
    if version == Some(None) || kind == Some(None) {
        return None;
    }
    reader.finish(fields);
    let name = metadata.and_then(|value| self::metadata(reader, &value));
    let spec = spec?;
    let mut fields = reader.fields(&spec)?;
    let kubernetes = reader.required(&mut fields, "kubernetes").and_then(|value| kubernetes(reader, &value, known));
    let provisioning =
        reader.required(&mut fields, "provisioning").and_then(|value| provisioning(reader, &value, known));
    let os = reader.required(&mut fields, "os").and_then(|value| os(reader, &value));
    let control_plane = reader.required(&mut fields, "controlPlane").and_then(|value| control_plane(reader, &value));
    let workers = match reader.optional(&mut fields, "workers") {
        Some(value) => workers(reader, &value),
        None => Some(Vec::new()),
    };
    let registries = match reader.optional(&mut fields, "registries") {
        Some(value) => registries::read(reader, &value),
        None => Some(Registries::default()),
    };
    let gateway = match reader.optional(&mut fields, "gateway") {
        Some(value) => gateway::read(reader, &value).map(Some),
        None => Some(None),
    };
    reader.finish(fields);
    if let (Some(control_plane), Some(workers)) = (&control_plane, &workers) {
        let groups: Vec<Group> = std::iter::once(control_plane).chain(workers).cloned().collect();
        let at = spec.node.shown_at(&["kubernetes", "podCIDR"]).unwrap_or(spec.range.clone());
        networks::leave_room(reader, known, &groups, &at);
        known.groups = Some(groups);
    }
    version.and(kind)?;
    Some(ClusterSpec {
        name: name?,
        kubernetes: kubernetes?,
        provisioning: provisioning?,
        os: os?,
        control_plane: control_plane?,
        workers: workers?,
        registries: registries?,
        gateway: gateway?,
    })
}

fn api_version(text: &str) -> Result<(), Problem> {
    let problem = || Problem::new(format!("unknown apiVersion `{text}`"));
    match text {
        API_VERSION => Ok(()),
        _ => Err(problem().hint(format!("this version reads {API_VERSION}, and {}", eks_anywhere::API_VERSION))),
    }
}

fn kind(text: &str) -> Result<(), Problem> {
    match text {
        "Cluster" => Ok(()),
        _ => Err(Problem::new(format!("unknown kind `{text}`")).hint("this version reads `Cluster`")),
    }
}

fn kubernetes(reader: &mut Reader, value: &Value, known: &mut Known) -> Option<Kubernetes> {
    let mut fields = reader.fields(value)?;
    let version = reader.required(&mut fields, "version");
    let version = version.and_then(|value| reader.parse(&value, values::kubernetes_version));
    let endpoint = reader.required(&mut fields, "endpoint").and_then(|value| endpoint(reader, &value, known));
    let pods = network(reader, &mut fields, "podCIDR", POD_CIDR, networks::pods);
    let services = network(reader, &mut fields, "serviceCIDR", SERVICE_CIDR, networks::services);
    let cni = match reader.optional(&mut fields, "cni") {
        Some(value) => cni(reader, &value),
        None => Some(Cni::Flannel),
    };
    let cert_sans = match reader.optional(&mut fields, "certSANs") {
        Some(value) => texts(reader, &value, values::cert_san),
        None => Some(Vec::new()),
    };
    let arguments = match reader.optional(&mut fields, "apiServerExtraArgs") {
        Some(value) => arguments(reader, &value),
        None => Some(Vec::new()),
    };
    reader.finish(fields);
    let host = known.endpoint.zip(value.node.shown_at(&["endpoint", "host"]));
    networks::keep_apart(reader, known, &pods, &services, host);
    Some(Kubernetes {
        version: version?,
        endpoint: endpoint?,
        pod_cidr: pods?.0,
        service_cidr: services?.0,
        cni: cni?,
        cert_sans: cert_sans?,
        api_server_extra_args: arguments?,
    })
}

/// Texts, each read by a rule; no two alike.
pub(super) fn texts(
    reader: &mut Reader,
    value: &Value,
    rule: fn(&str) -> Result<String, Problem>,
) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let items = reader.items(value)?;
    let texts: Vec<Option<String>> = items
        .iter()
        .map(|item| {
            let text = reader.parse(item, rule)?;
            if !seen.insert(text.clone()) {
                reader.refuse(&item.range, Problem::new(format!("`{text}` is given twice")));
                return None;
            }
            Some(text)
        })
        .collect();
    texts.into_iter().collect()
}

fn arguments(reader: &mut Reader, value: &Value) -> Option<Vec<Argument>> {
    let items = reader.items(value)?;
    let arguments: Vec<Option<Argument>> = items
        .iter()
        .map(|item| {
            let mut fields = reader.fields(item)?;
            let name = reader.required(&mut fields, "name");
            let name = name.and_then(|value| reader.parse(&value, values::api_server_argument));
            let value =
                reader.required(&mut fields, "value").and_then(|value| reader.scalar(&value).map(str::to_owned));
            reader.finish(fields);
            Some(Argument { name: name?, value: value? })
        })
        .collect();
    arguments.into_iter().collect()
}

/// A network, and where it stands (the default: where it could be given).
fn network(
    reader: &mut Reader,
    fields: &mut Fields,
    field: &'static str,
    default: Ipv4Net,
    rule: impl FnOnce(&str) -> Result<Ipv4Net, Problem>,
) -> Option<(Ipv4Net, Range<usize>)> {
    match reader.optional(fields, field) {
        Some(value) => reader.parse(&value, rule).map(|network| (network, value.range)),
        None => Some((default, fields.range())),
    }
}

fn endpoint(reader: &mut Reader, value: &Value, known: &mut Known) -> Option<Endpoint> {
    let mut fields = reader.fields(value)?;
    let host = reader.required(&mut fields, "host").and_then(|value| reader.parse(&value, values::host_address));
    let port = port(reader, &mut fields, "port", 6443);
    let external = match reader.optional(&mut fields, "external") {
        Some(value) => reader.flag(&value),
        None => Some(false),
    };
    reader.finish(fields);
    known.endpoint = host;
    known.external = external == Some(true);
    Some(Endpoint { host: host?, port: port?.0, external: external? })
}

/// A port, and where it stands.
fn port(reader: &mut Reader, fields: &mut Fields, field: &'static str, default: u16) -> Option<(u16, Range<usize>)> {
    match reader.optional(fields, field) {
        Some(value) => {
            let port = reader.number(&value, 1..=u32::from(u16::MAX))?;
            Some((u16::try_from(port).ok()?, value.range))
        }
        None => Some((default, fields.range())),
    }
}

fn cni(reader: &mut Reader, value: &Value) -> Option<Cni> {
    let mut fields = reader.fields(value)?;
    let name = reader.required(&mut fields, "name").and_then(|value| reader.parse(&value, values::cni));
    reader.finish(fields);
    name
}

fn provisioning(reader: &mut Reader, value: &Value, known: &mut Known) -> Option<Provisioning> {
    let mut fields = reader.fields(value)?;
    let interface = match reader.optional(&mut fields, "interface") {
        Some(value) => reader.parse(&value, values::interface).map(Some),
        None => Some(None),
    };
    let address = match reader.optional(&mut fields, "address") {
        Some(value) => {
            known.own_address = reader.parse(&value, values::host_address);
            known.own_address.map(Some)
        }
        None => Some(None),
    };
    let dhcp = match reader.optional(&mut fields, "dhcp") {
        Some(value) => dhcp(reader, &value),
        None => Some(DhcpMode::default()),
    };
    let http_port = port(reader, &mut fields, "httpPort", 8080);
    let agent_port = port(reader, &mut fields, "agentPort", 8443);
    reader.finish(fields);
    if let (Some((http, _)), Some((agent, range))) = (&http_port, &agent_port)
        && http == agent
    {
        reader.refuse(range, Problem::new(format!("httpPort and agentPort are both {http}")));
    }
    Some(Provisioning {
        interface: interface?,
        address: address?,
        dhcp: dhcp?,
        http_port: http_port?.0,
        agent_port: agent_port?.0,
    })
}

fn dhcp(reader: &mut Reader, value: &Value) -> Option<DhcpMode> {
    let mut fields = reader.fields(value)?;
    let mode = match reader.optional(&mut fields, "mode") {
        Some(value) => reader.parse(&value, values::dhcp_mode),
        None => Some(DhcpMode::default()),
    };
    reader.finish(fields);
    mode
}

fn os(reader: &mut Reader, value: &Value) -> Option<Os> {
    let mut fields = reader.fields(value)?;
    let image = reader.required(&mut fields, "image").and_then(|value| image(reader, &value));
    let users = reader.required(&mut fields, "users").and_then(|value| users(reader, &value));
    let ntp_servers = match reader.optional(&mut fields, "ntpServers") {
        Some(value) => texts(reader, &value, values::ntp_server),
        None => Some(Vec::new()),
    };
    reader.finish(fields);
    Some(Os { image: image?, users: users?, ntp_servers: ntp_servers? })
}

fn image(reader: &mut Reader, value: &Value) -> Option<Image> {
    let mut fields = reader.fields(value)?;
    let location = reader.required(&mut fields, "url");
    let url = location.as_ref().and_then(|value| reader.parse(value, values::image_url));
    let sha256 = reader.required(&mut fields, "sha256").and_then(|value| reader.parse(&value, values::sha256));
    let format = match (reader.optional(&mut fields, "format"), &url, &location) {
        (Some(value), ..) => reader.parse(&value, values::image_format),
        (None, Some(url), Some(location)) => reader.parse(location, |_| values::format_of(url)),
        _ => None,
    };
    reader.finish(fields);
    Some(Image { url: url?, sha256: sha256?, format: format? })
}

pub(super) fn users(reader: &mut Reader, value: &Value) -> Option<Vec<User>> {
    let items = reader.items(value)?;
    if items.is_empty() {
        let problem = Problem::new(format!("`{}` is empty: nobody could log in", value.name));
        reader.refuse(
            &value.range,
            problem.hint("for example - {name: ops, sshAuthorizedKeys: [\"ssh-ed25519 AAAA...\"]}"),
        );
        return None;
    }
    let mut names = BTreeSet::new();
    let users: Vec<Option<User>> = items.iter().map(|item| user(reader, item, &mut names)).collect();
    users.into_iter().collect()
}

fn user(reader: &mut Reader, value: &Value, names: &mut BTreeSet<String>) -> Option<User> {
    let mut fields = reader.fields(value)?;
    let name = unique_name(reader, &mut fields, "user", names, values::user_name);
    let keys = reader.required(&mut fields, "sshAuthorizedKeys").and_then(|value| ssh_keys(reader, &value));
    reader.finish(fields);
    Some(User { name: name?, ssh_authorized_keys: keys? })
}

fn ssh_keys(reader: &mut Reader, value: &Value) -> Option<Vec<String>> {
    let items = reader.items(value)?;
    if items.is_empty() {
        reader.refuse(&value.range, Problem::new(format!("`{}` is empty: this user could not log in", value.name)));
        return None;
    }
    let keys: Vec<Option<String>> = items.iter().map(|item| reader.parse(item, values::ssh_key)).collect();
    keys.into_iter().collect()
}

/// The field `name`, which no other in the list has.
pub(super) fn unique_name(
    reader: &mut Reader,
    fields: &mut Fields,
    what: &str,
    names: &mut BTreeSet<String>,
    rule: impl FnOnce(&str) -> Result<String, Problem>,
) -> Option<String> {
    let value = reader.required(fields, "name")?;
    let name = reader.parse(&value, rule)?;
    if !names.insert(name.clone()) {
        reader.refuse(&value.range, Problem::new(format!("two {what}s are called `{name}`")));
        return None;
    }
    Some(name)
}

fn control_plane(reader: &mut Reader, value: &Value) -> Option<Group> {
    let mut fields = reader.fields(value)?;
    let count = reader.required(&mut fields, "count").and_then(|value| odd_count(reader, &value));
    group(reader, fields, Some(String::from(CONTROL_PLANE)), count)
}

/// The number of machines of a control plane.
pub(super) fn odd_count(reader: &mut Reader, value: &Value) -> Option<u32> {
    let count = count(reader, value)?;
    if count % 2 == 0 {
        let problem = Problem::new(format!("a control plane has an odd number of machines, not {count}"));
        let hint = format!("{count} survive no more failures than {}: use that or {}", count - 1, count + 1);
        reader.refuse(&value.range, problem.hint(hint));
        return None;
    }
    Some(count)
}

/// The number of machines of a group.
pub(super) fn count(reader: &mut Reader, value: &Value) -> Option<u32> {
    reader.number(value, 1..=MAX_MACHINES)
}

fn workers(reader: &mut Reader, value: &Value) -> Option<Vec<Group>> {
    let mut names = BTreeSet::from([String::from(CONTROL_PLANE)]);
    let items = reader.items(value)?;
    let groups: Vec<Option<Group>> = items
        .iter()
        .map(|item| {
            let mut fields = reader.fields(item)?;
            let name = unique_name(reader, &mut fields, "group", &mut names, names::dns_label);
            let count = reader.required(&mut fields, "count").and_then(|value| count(reader, &value));
            group(reader, fields, name, count)
        })
        .collect();
    groups.into_iter().collect()
}

/// What the control plane and worker groups share.
fn group(reader: &mut Reader, mut fields: Fields, name: Option<String>, count: Option<u32>) -> Option<Group> {
    let selector = reader.required(&mut fields, "selector").and_then(|value| {
        let selector = labels(reader, &value)?;
        if selector.is_empty() {
            let problem = Problem::new(format!("`{}` is empty: it would claim every machine", value.name));
            reader.refuse(&value.range, problem.hint("name a label of the inventory: {type: worker}"));
            return None;
        }
        Some(selector)
    });
    let node_labels = match reader.optional(&mut fields, "labels") {
        Some(value) => labels(reader, &value),
        None => Some(Labels::new()),
    };
    let taints = match reader.optional(&mut fields, "taints") {
        Some(value) => texts(reader, &value, names::taint),
        None => Some(Vec::new()),
    };
    reader.finish(fields);
    Some(Group { name: name?, count: count?, selector: selector?, labels: node_labels?, taints: taints? })
}

/// Labels with keys that the user chooses.
pub(super) fn labels(reader: &mut Reader, value: &Value) -> Option<Labels> {
    let entries = reader.entries(value)?;
    let labels: Vec<Option<(String, String)>> = entries
        .iter()
        .map(|(entry, value)| {
            let key = names::label_key(&entry.key).map_err(|problem| reader.refuse(&entry.range, problem)).ok();
            let text = reader.scalar(value).map(|text| {
                names::label_value(text).map_err(|problem| reader.refuse(&value.range, problem)).ok()?;
                Some(text.to_owned())
            });
            key.zip(text.flatten()).map(|((), text)| (entry.key.clone(), text))
        })
        .collect();
    labels.into_iter().collect()
}
