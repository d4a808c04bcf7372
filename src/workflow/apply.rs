//! The files' changes for a cluster that manages itself: Hardware, and the counts, labels and selectors of its groups. What
//! cannot be changed of a cluster that runs is refused, all of it at once.

use super::managed;
use super::objects;
use crate::api::{Hardware, MetalCluster, MetalClusterSpec, NAMESPACE};
use crate::inventory::Machine;
use crate::spec::ClusterSpec;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One thing that the files change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// A row of the inventory that the cluster does not know.
    NewHardware { name: String },
    /// A row of the inventory that says something else than before.
    Hardware { name: String },
    /// Another number of machines.
    Count { group: String, from: u32, to: u32 },
    /// Labels, taints or selector of a group; for machines that join from now on.
    Group { group: String },
    /// A new worker group.
    NewGroup { group: String },
    /// The gateway: made, changed, or no longer kept.
    Gateway,
    /// A worker group that is gone: its machines are removed.
    NoGroup { group: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => write!(f, "gateway: changed"),
            Self::NewHardware { name } => write!(f, "hardware {name}: new"),
            Self::Hardware { name } => write!(f, "hardware {name}: changed"),
            Self::Count { group, from, to } => write!(f, "group {group}: {from} -> {to} machines"),
            Self::Group { group } => write!(f, "group {group}: changed, for machines that join from now on"),
            Self::NewGroup { group } => write!(f, "group {group}: new"),
            Self::NoGroup { group } => write!(f, "group {group}: gone; its machines are drained and switched off"),
        }
    }
}

/// Fields that a running cluster keeps.
#[derive(Debug, thiserror::Error)]
#[error("a cluster that runs keeps its {}; put back what cluster.yaml had", .0.join(", "))]
pub struct Kept(Vec<&'static str>);

fn refuse_kept(old: &MetalClusterSpec, new: &MetalClusterSpec) -> Result<(), Kept> {
    let kept = [
        ("spec.kubernetes.version", old.kubernetes_version == new.kubernetes_version),
        ("spec.kubernetes.endpoint", old.endpoint == new.endpoint),
        ("spec.kubernetes.podCIDR", old.pod_cidr == new.pod_cidr),
        ("spec.kubernetes.serviceCIDR", old.service_cidr == new.service_cidr),
        ("spec.kubernetes.cni", old.cni == new.cni),
        ("spec.kubernetes.certSANs", old.cert_sans == new.cert_sans),
        ("spec.kubernetes.apiServerExtraArgs", old.api_server_extra_args == new.api_server_extra_args),
        ("spec.os.image", old.image == new.image),
        ("spec.os.users", old.users == new.users),
        ("spec.os.ntpServers", old.ntp_servers == new.ntp_servers),
        ("spec.registries", old.registries == new.registries),
        ("spec.provisioning", old.provisioning == new.provisioning),
    ];
    let changed: Vec<&str> = kept.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect();
    if changed.is_empty() { Ok(()) } else { Err(Kept(changed)) }
}

/// What [`apply`] would change.
pub async fn changes(client: &Client, spec: &ClusterSpec, machines: &[Machine]) -> Result<Vec<Change>, Error> {
    let (old, new) = both(client, spec, machines).await?;
    let mut changes = Vec::new();
    let api: Api<Hardware> = Api::namespaced(client.clone(), NAMESPACE);
    let known = api.list(&ListParams::default()).await.map_err(crate::api::ApiError::of("the list of Hardware"))?;
    for machine in machines {
        let name = machine.hostname.clone();
        let wanted = objects::hardware(&spec.name, machine);
        match known.iter().find(|hardware| hardware.name_any() == name) {
            None => changes.push(Change::NewHardware { name }),
            Some(hardware) => {
                let labels = wanted.labels().iter().all(|(key, value)| hardware.labels().get(key) == Some(value));
                if hardware.spec != wanted.spec || !labels {
                    changes.push(Change::Hardware { name });
                }
            }
        }
    }
    for group in &new.spec.groups {
        let name = group.name.clone();
        match old.spec.groups.iter().find(|one| one.name == name) {
            None => changes.push(Change::NewGroup { group: name }),
            Some(one) if one.count != group.count => {
                changes.push(Change::Count { group: name, from: one.count, to: group.count });
            }
            Some(one) if one != group => changes.push(Change::Group { group: name }),
            Some(_) => {}
        }
    }
    if old.spec.gateway != new.spec.gateway {
        changes.push(Change::Gateway);
    }
    let kept: BTreeSet<&str> = new.spec.groups.iter().map(|group| group.name.as_str()).collect();
    let gone = old.spec.groups.iter().filter(|group| !kept.contains(group.name.as_str()));
    changes.extend(gone.map(|group| Change::NoGroup { group: group.name.clone() }));
    Ok(changes)
}

/// Writes the changes.
pub async fn apply(client: &Client, spec: &ClusterSpec, machines: &[Machine]) -> Result<(), Error> {
    let (_, new) = both(client, spec, machines).await?;
    for machine in machines {
        objects::apply_hardware(client, &spec.name, machine).await?;
    }
    objects::apply(client, &new).await?;
    Ok(())
}

/// The cluster as it is, and as the files want it.
async fn both(
    client: &Client,
    spec: &ClusterSpec,
    machines: &[Machine],
) -> Result<(MetalCluster, MetalCluster), Error> {
    let old = managed::find(client, &spec.name).await?;
    // The name says the sum and the format, so it differs exactly when the image does.
    let mut new = objects::cluster(spec, machines, &super::artifacts::image_name(&spec.os.image));
    // A machine that has the endpoint's address may have left the inventory.
    new.spec.virtual_ip = old.spec.virtual_ip;
    refuse_kept(&old.spec, &new.spec)?;
    Ok((old, new))
}
