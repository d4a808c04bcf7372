//! cluster.yaml: read twice, first as a tree that keeps line and column, then as the domain types below, which cannot be
//! wrong. Unknown fields are mistakes, and every mistake of the file is reported at once.
//!
//! `yaml` makes the tree, `reader` takes fields out of it, `values` says what single values have to look like, `cluster`
//! knows the fields. Fed by the user's file; feeds `plan`. Pure: no clock, no network, no other file.

mod cluster;
mod eks_anywhere;
mod gateway;
mod networks;
mod reader;
mod registries;
pub mod schema;
pub mod start;
mod values;
pub mod write;
mod yaml;

pub use registries::{Mirror, Proxy, Registries};
pub use values::host_address;

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Problem, Source};
use crate::gateway::Stack;
use crate::gateway::model::Gateway;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What could be read of a cluster.yaml.
pub struct Read {
    /// The cluster; there if nothing that it needs is missing or wrong.
    pub cluster: Option<ClusterSpec>,
    /// What is known in any case.
    pub known: Known,
    /// The mistakes found.
    pub diagnostics: Diagnostics,
    source: Source,
    origin: Origin,
}

/// Whose documents the file has, and where their fields stand.
enum Origin {
    /// Metalgate's own; nothing if it is no YAML.
    Native(Option<yaml::Node>),
    /// EKS Anywhere's.
    EksAnywhere(eks_anywhere::Origins),
}

/// What the inventory can be checked against, even where the rest of the spec is wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// `kubernetes.endpoint.host`.
    pub endpoint: Option<Ipv4Addr>,
    /// `kubernetes.endpoint.external`.
    pub external: bool,
    /// `provisioning.address`.
    pub own_address: Option<Ipv4Addr>,
    /// `kubernetes.podCIDR`.
    pub pod_cidr: Option<Ipv4Net>,
    /// `kubernetes.serviceCIDR`.
    pub service_cidr: Option<Ipv4Net>,
    /// Control plane first; there if all groups could be read.
    pub groups: Option<Vec<Group>>,
}

/// Reads a cluster.yaml, or the documents of EKS Anywhere, that the user calls `name`.
pub fn read(name: &str, bytes: Vec<u8>) -> Read {
    let mut source = match Source::new(name, bytes) {
        Ok(source) => source,
        Err(diagnostic) => return Read::unreadable(name, *diagnostic),
    };
    hide_secrets(&mut source);
    let mut diagnostics = Diagnostics::default();
    let documents = yaml::parse(&source, &mut diagnostics).unwrap_or_default();
    let mut reader = reader::Reader { source: &source, found: diagnostics };
    let (cluster, known, origin) = if eks_anywhere::is_meant(&documents) {
        let (cluster, known, origins) = eks_anywhere::read(&mut reader, &documents);
        (cluster, known, Origin::EksAnywhere(origins))
    } else {
        let tree = the_only_one(&mut reader, documents);
        let (cluster, known) = tree.as_ref().map(|tree| cluster::read(&mut reader, tree)).unwrap_or_default();
        (cluster, known, Origin::Native(tree))
    };
    let diagnostics = reader.found;
    Read { cluster, known, diagnostics, source, origin }
}

/// A spec of ours is one document.
fn the_only_one(reader: &mut reader::Reader, documents: Vec<yaml::Document>) -> Option<yaml::Node> {
    let mut documents = documents.into_iter();
    let first = documents.next()?;
    match documents.next() {
        None => Some(first.root),
        Some(second) => {
            let problem = Problem::new("the file has more than one document");
            reader.refuse(&second.begin, problem.hint("put each cluster into a file of its own"));
            None
        }
    }
}

/// Reads the gateway of a file that the user calls `name`: a GatewayStack, or a Cluster with `spec.gateway`.
///
/// # Errors
/// Every mistake of the file.
pub fn read_gateway(name: &str, bytes: Vec<u8>) -> Result<Stack, Diagnostics> {
    let mut source = Source::new(name, bytes).map_err(|diagnostic| Diagnostics::of(*diagnostic))?;
    hide_secrets(&mut source);
    let mut diagnostics = Diagnostics::default();
    let Some(documents) = yaml::parse(&source, &mut diagnostics) else { return Err(diagnostics) };
    let mut reader = reader::Reader { source: &source, found: diagnostics };
    let gateway = if eks_anywhere::is_meant(&documents) {
        let problem = Problem::new("EKS Anywhere's documents have no gateway");
        reader.refuse(&(0..0), problem.hint("`metalgate convert` makes a spec of them that can have one"));
        None
    } else {
        the_only_one(&mut reader, documents).and_then(|tree| cluster::read_gateway(&mut reader, &tree))
    };
    match gateway {
        Some(gateway) if !reader.found.has_errors() => Ok(gateway),
        _ => Err(reader.found.sorted(&[name])),
    }
}

impl Read {
    /// A file of which nothing could be read, and why.
    pub fn unreadable(name: &str, diagnostic: Diagnostic) -> Self {
        let (diagnostics, source) = (Diagnostics::of(diagnostic), Source::empty(name));
        Self { cluster: None, known: Known::default(), diagnostics, source, origin: Origin::Native(None) }
    }

    /// Whether the documents are EKS Anywhere's.
    pub fn is_eks_anywhere(&self) -> bool {
        matches!(self.origin, Origin::EksAnywhere(_))
    }

    /// Where a field of a spec of ours is: keys and indices joined by dots, `spec.workers.0.selector`. Of one that is not
    /// there, the file.
    pub fn place(&self, path: &str) -> Place {
        let range = match &self.origin {
            Origin::Native(tree) => {
                let path: Vec<&str> = path.split('.').collect();
                tree.as_ref().and_then(|tree| tree.shown_at(&path))
            }
            Origin::EksAnywhere(origins) => origins.get(path).map(|origin| origin.range.clone()),
        };
        range.map_or_else(|| Place::file(self.source.name()), |range| self.source.place(range))
    }

    /// How the user's file calls a field of a spec of ours.
    pub fn called<'p>(&'p self, path: &'p str) -> &'p str {
        match &self.origin {
            Origin::Native(_) => path,
            Origin::EksAnywhere(origins) => origins.get(path).map_or(path, |origin| &origin.name),
        }
    }
}

/// Somebody who pasted the wrong half of a key pair, an URL with a password, or a licence should not see it again in a message.
fn hide_secrets(source: &mut Source) {
    const MARK: &str = "PRIVATE KEY-----";
    let text = source.text();
    let marks: Vec<usize> = text.match_indices(MARK).map(|(at, _)| at + MARK.len()).collect();
    let keys = marks.chunks(2).map(|pair| pair[0]..pair.get(1).copied().unwrap_or(text.len()));
    let accounts = text.match_indices("://").filter_map(|(at, mark)| {
        let begin = at + mark.len();
        let host = text[begin..].split(|c: char| c.is_whitespace() || "/,\"'".contains(c)).next()?;
        Some(begin..begin + host.rfind('@')?)
    });
    // EKS Anywhere's proxies need no scheme in front of an account.
    let proxies = text.match_indices("Proxy:").filter_map(|(at, mark)| {
        let line = text[at..].lines().next().unwrap_or_default();
        Some(at + mark.len()..at + line.rfind('@')?)
    });
    // EKS Anywhere's licence, also where the end of the field's name is misspelt.
    let licences = text.match_indices("licenseTok").filter_map(|(at, _)| {
        let line = text[at..].lines().next().unwrap_or_default();
        Some(at + line.find(':')? + 1..at + line.len())
    });
    let secrets: Vec<_> = keys.chain(accounts).chain(proxies).chain(licences).collect();
    source.hide(secrets);
}

/// A cluster as the user wants it, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// DNS label; names the work directory and the objects.
    pub name: String,
    /// Kubernetes and its addresses.
    pub kubernetes: Kubernetes,
    /// The network the machines are installed over.
    pub provisioning: Provisioning,
    /// What goes on the disks.
    pub os: Os,
    /// The control-plane machines.
    pub control_plane: Group,
    /// Worker groups, in the order of the file.
    pub workers: Vec<Group>,
    /// How nodes get the images that pods name.
    pub registries: Registries,
    /// The gateway in front of it.
    pub gateway: Option<Gateway>,
}

impl ClusterSpec {
    /// Its gateway, by the cluster's name.
    pub fn stack(&self) -> Option<Stack> {
        self.gateway.clone().map(|gateway| Stack { name: self.name.clone(), gateway })
    }
}

/// Kubernetes and its addresses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubernetes {
    /// `v1.36.4`: three numbers, with the `v`.
    pub version: String,
    /// Address of the API server.
    pub endpoint: Endpoint,
    /// Addresses of pods. Default 10.244.0.0/16.
    pub pod_cidr: Ipv4Net,
    /// Addresses of services. Default 10.96.0.0/12.
    pub service_cidr: Ipv4Net,
    /// Container network.
    pub cni: Cni,
    /// Names and addresses that the API server's certificate has beyond its own.
    pub cert_sans: Vec<String>,
    /// Flags of the API server beyond ours, as kubeadm has them: one may come more than once.
    pub api_server_extra_args: Vec<Argument>,
}

/// A flag of a program, without the dashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Argument {
    /// `oidc-issuer-url`.
    pub name: String,
    /// What it is set to.
    pub value: String,
}

/// Address of the API server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// Virtual IP, or the one control-plane machine's address.
    pub host: Ipv4Addr,
    /// TCP port.
    pub port: u16,
    /// Whether a load balancer of the user's holds it, so that no virtual IP is made.
    pub external: bool,
}

/// Container network plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// flannel, the default.
    Flannel,
    /// Cilium.
    Cilium,
    /// The user brings one.
    None,
}

/// The network the machines are installed over.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// Interface of the admin machine in that network; else the one that has an address in the machines' network is taken.
    pub interface: Option<String>,
    /// Our address on it, where the interface has several; else its first IPv4 address is taken.
    pub address: Option<Ipv4Addr>,
    /// How machines get their addresses while they are installed.
    pub dhcp: DhcpMode,
    /// Port of the plain HTTP server (boot scripts, kernel, images). Default 8080.
    pub http_port: u16,
    /// Port of the agent's API, over TLS. Default 8443.
    pub agent_port: u16,
}

/// How machines get their addresses while they are installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DhcpMode {
    /// We answer the MACs of the inventory, with its addresses.
    #[default]
    Reservation,
    /// Another server gives addresses; we add the boot information (proxy DHCP).
    Proxy,
    /// Another server does all of it and points at us.
    External,
}

/// What goes on the disks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Os {
    /// Disk image.
    pub image: Image,
    /// Accounts that cloud-init makes; at least one.
    pub users: Vec<User>,
    /// Names or addresses of the servers that machines take the time from; else the image decides.
    pub ntp_servers: Vec<String>,
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Image {
    /// `file:` (relative to the artifact directory, or absolute), `http:` or `https:`.
    pub url: String,
    /// Sum of the file as it is downloaded; lower case hexadecimal.
    pub sha256: String,
    /// How the file is packed; by the name's ending where the spec does not say.
    pub format: ImageFormat,
}

/// How an image file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Sectors as they are.
    Raw,
    /// gzip, RFC 1952.
    Gz,
    /// xz.
    Xz,
    /// Zstandard, RFC 8878.
    Zst,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

/// An account on the installed system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// POSIX account name.
    pub name: String,
    /// OpenSSH public keys.
    pub ssh_authorized_keys: Vec<String>,
}

/// kubeadm's own taint of control-plane nodes, which they have where there are workers.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane:NoSchedule";

/// Machines that play one role.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// `control-plane`, or the worker group's name.
    pub name: String,
    /// How many.
    pub count: u32,
    /// Labels a machine of the inventory must carry.
    pub selector: BTreeMap<String, String>,
    /// Node labels.
    pub labels: BTreeMap<String, String>,
    /// Node taints, `key=value:Effect`.
    pub taints: Vec<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    const MINIMAL: &str = include_str!("../../hardware-examples/accepted/single-node/cluster.yaml");

    /// The messages about a text, with their lines.
    fn mistakes(text: &str) -> Vec<String> {
        let read = read("f", text.into());
        let line = |place: &Place| place.position.map(|(line, _)| line).unwrap_or_default();
        read.diagnostics.iter().map(|one| format!("{}: {}", line(&one.place), one.message)).collect()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let cluster = read("f", MINIMAL.into()).cluster.unwrap();
        assert_eq!(cluster.kubernetes.endpoint.port, 6443);
        assert_eq!(cluster.kubernetes.pod_cidr.to_string(), "10.244.0.0/16");
        assert_eq!(cluster.kubernetes.service_cidr.to_string(), "10.96.0.0/12");
        assert_eq!(cluster.kubernetes.cni, Cni::Flannel);
        let provisioning = cluster.provisioning;
        assert_eq!((provisioning.http_port, provisioning.agent_port), (8080, 8443));
        assert_eq!((provisioning.address, provisioning.dhcp), (None, DhcpMode::Reservation));
        assert_eq!((cluster.control_plane.name.as_str(), cluster.workers.len()), ("control-plane", 0));
        assert_eq!(cluster.os.image.format, ImageFormat::Zst);
    }

    #[test]
    fn the_default_networks_are_checked_too() {
        let text = MINIMAL.replace("  provisioning:", "    podCIDR: 10.100.0.0/16\n  provisioning:");
        assert_eq!(mistakes(&text), ["11: podCIDR 10.100.0.0/16 and serviceCIDR 10.96.0.0/12 overlap"]);
        let text = MINIMAL.replace("10.20.0.11", "10.96.0.11");
        assert_eq!(mistakes(&text), ["10: the endpoint 10.96.0.11 lies in serviceCIDR 10.96.0.0/12"]);
    }

    #[test]
    fn aliases_cannot_be_made_a_bomb() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..30 {
            let alias = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
        }
        assert_eq!(
            mistakes(&text),
            ["5: up to here these are more than 100000 values, counting aliases by what they stand for"]
        );
        assert_eq!(mistakes("a: &a [*a]"), ["1: the alias stands inside the value that it refers to"]);
    }

    #[test]
    fn nesting_ends_somewhere() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            assert_eq!(mistakes(&text).len(), 1, "{}", &text[..4]);
        }
    }

    #[test]
    fn json_and_windows_line_ends_are_yaml_too() {
        let tree = serde_saphyr::from_str::<serde_json::Value>(MINIMAL).unwrap();
        let as_json = read("f", serde_json::to_vec_pretty(&tree).unwrap());
        let as_dos = read("f", MINIMAL.replace('\n', "\r\n").into());
        let plain = read("f", MINIMAL.into());
        assert!(plain.cluster.is_some());
        assert_eq!((&as_json.cluster, &as_dos.cluster), (&plain.cluster, &plain.cluster));
    }

    #[test]
    fn a_private_key_or_password_in_the_spec_is_hidden() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY----- c2VjcmV0 -----END OPENSSH PRIVATE KEY-----";
        let text = MINIMAL
            .replace("file:images/", "https://me:c2VjcmV0@images/")
            .replace("          - ssh-", &format!("          - \"{key}\"\n          - ssh-"));
        let read = read("f", text.into());
        assert_eq!(read.diagnostics.count(crate::diagnostic::Severity::Error), 2);
        let shown = read.diagnostics.render(false) + &serde_json::to_string(&read.diagnostics).unwrap();
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }
}
