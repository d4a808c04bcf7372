//! cluster.yaml: read twice, first as a tree that keeps line and column, then as the domain types below, which cannot be
//! wrong. Unknown fields are mistakes, and every mistake of the file is reported at once.
//!
//! `yaml` makes the tree, `reader` takes fields out of it, `values` says what single values have to look like, `cluster`
//! knows the fields. Fed by the user's file; feeds `plan`. Pure: no clock, no network, no other file.

mod cluster;
mod reader;
mod values;
mod yaml;

pub use values::host_address;

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source};
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
    tree: Option<yaml::Node>,
}

/// What the inventory can be checked against, even where the rest of the spec is wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// `kubernetes.endpoint.host`.
    pub endpoint: Option<Ipv4Addr>,
    /// `provisioning.address`.
    pub own_address: Option<Ipv4Addr>,
    /// `kubernetes.podCIDR`.
    pub pod_cidr: Option<Ipv4Net>,
    /// `kubernetes.serviceCIDR`.
    pub service_cidr: Option<Ipv4Net>,
    /// Control plane first; there if all groups could be read.
    pub groups: Option<Vec<Group>>,
}

/// Reads a cluster.yaml that the user calls `name`.
pub fn read(name: &str, bytes: Vec<u8>) -> Read {
    let mut source = match Source::new(name, bytes) {
        Ok(source) => source,
        Err(diagnostic) => return Read::unreadable(name, *diagnostic),
    };
    hide_secrets(&mut source);
    let mut diagnostics = Diagnostics::default();
    let tree = yaml::parse(&source, &mut diagnostics);
    let mut reader = reader::Reader { source: &source, found: diagnostics };
    let (cluster, known) = match &tree {
        Some(tree) => cluster::read(&mut reader, tree),
        None => (None, Known::default()),
    };
    let diagnostics = reader.found;
    Read { cluster, known, diagnostics, source, tree }
}

impl Read {
    /// A file of which nothing could be read, and why.
    pub fn unreadable(name: &str, diagnostic: Diagnostic) -> Self {
        let (diagnostics, source) = (Diagnostics::of(diagnostic), Source::empty(name));
        Self { cluster: None, known: Known::default(), diagnostics, source, tree: None }
    }

    /// Where a field is: keys and indices joined by dots, `spec.workers.0.selector`. Of one that is not there, the file.
    pub fn place(&self, path: &str) -> Place {
        let path: Vec<&str> = path.split('.').collect();
        match self.tree.as_ref().and_then(|tree| tree.shown_at(&path)) {
            Some(range) => self.source.place(range),
            None => Place::file(self.source.name()),
        }
    }
}

/// Somebody who pasted the wrong half of a key pair, or an URL with a password, should not see it again in a message.
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
    let secrets: Vec<_> = keys.chain(accounts).collect();
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
}

/// Address of the API server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// Virtual IP, or the one control-plane machine's address.
    pub host: Ipv4Addr,
    /// TCP port.
    pub port: u16,
}

/// Container network plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Interface of the admin machine in that network.
    pub interface: String,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Os {
    /// Disk image.
    pub image: Image,
    /// Accounts that cloud-init makes; at least one.
    pub users: Vec<User>,
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
