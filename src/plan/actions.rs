//! What is done to one machine, in order.

use crate::api::{MachineRole, MachineState};
use crate::hardware::{BootMode, DiskSelector, MacAddr};
use crate::inventory::Machine;
use crate::names::Labels;
use crate::spec::{ClusterSpec, DhcpMode, Group};
use ipnet::Ipv4Net;
use serde::Serialize;
use std::fmt;
use std::net::Ipv4Addr;

/// One thing that is done to a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Its BMC cuts the power.
    PowerOff { bmc: String },
    /// Its BMC is told to start it from the network, once.
    BootFromNetworkOnce { mode: BootMode },
    /// Its BMC switches it on.
    PowerOn,
    /// Nobody can do it for the operator: there is no BMC.
    StartByHand { mac: MacAddr, mode: BootMode },
    /// DHCP tells it where to boot from; with `address`, what its address is too.
    AnswerDhcp { mode: DhcpMode, mac: MacAddr, address: Option<Ipv4Addr> },
    /// It loads kernel and agent into memory.
    LoadAgent,
    /// The image overwrites the disk.
    WriteImage { image: String, disk: DiskSelector },
    /// What was written is read back and compared.
    VerifyImage { sha256: String },
    /// The partition table is grown to the disk's size.
    GrowPartitions,
    /// The installed system's first settings are written.
    WriteSeed { hostname: String, address: Ipv4Net, users: Vec<String> },
    /// The firmware's boot entry is set.
    SetBootEntry,
    /// It starts from its disk.
    Reboot,
    /// It has to answer SSH with the host key that it was given.
    VerifySsh { address: Ipv4Addr },
    /// Over SSH: kernel settings, containerd, Kubernetes' programs and container images, all fetched from us.
    Prepare { version: String },
    /// kubeadm makes the cluster on the first machine of the control plane; with a virtual IP if no machine has the endpoint.
    Initialize { endpoint: String, virtual_ip: bool },
    /// kubeadm makes it a further node.
    Join { role: MachineRole, endpoint: String },
    /// Its node has to be Ready, with the labels of its group.
    AwaitReady { labels: Labels },
}

/// Where a machine stands among the others.
pub(super) struct Place<'a> {
    /// The group that it belongs to.
    pub group: &'a Group,
    /// Its part in the cluster.
    pub role: MachineRole,
    /// Whether the cluster begins with it.
    pub first: bool,
    /// Whether no machine has the endpoint's address.
    pub virtual_ip: bool,
}

/// What is left to be done to `machine`, which earlier runs brought to `recorded`.
pub(super) fn of(spec: &ClusterSpec, machine: &Machine, place: &Place<'_>, recorded: MachineState) -> Vec<Action> {
    match recorded {
        MachineState::Ready => Vec::new(),
        MachineState::Installed | MachineState::Preparing | MachineState::Initializing => joining(spec, place),
        MachineState::Joining | MachineState::Starting => joining(spec, place),
        _ => installing(spec, machine).into_iter().chain(joining(spec, place)).collect(),
    }
}

/// From the installed system to a Ready node.
fn joining(spec: &ClusterSpec, place: &Place<'_>) -> Vec<Action> {
    let endpoint = format!("{}:{}", spec.kubernetes.endpoint.host, spec.kubernetes.endpoint.port);
    let made = match place.first {
        true => Action::Initialize { endpoint, virtual_ip: place.virtual_ip },
        false => Action::Join { role: place.role, endpoint },
    };
    let version = spec.kubernetes.version.clone();
    vec![Action::Prepare { version }, made, Action::AwaitReady { labels: place.group.labels.clone() }]
}

/// From powered off to the installed system.
fn installing(spec: &ClusterSpec, machine: &Machine) -> Vec<Action> {
    let mut actions = match &machine.bmc {
        Some(bmc) => vec![
            Action::PowerOff { bmc: bmc.url.clone() },
            Action::BootFromNetworkOnce { mode: machine.boot_mode },
            Action::PowerOn,
        ],
        None => vec![Action::StartByHand { mac: machine.mac, mode: machine.boot_mode }],
    };
    let address = machine.address.addr();
    let dhcp = spec.provisioning.dhcp;
    if dhcp != DhcpMode::External {
        let reserved = (dhcp == DhcpMode::Reservation).then_some(address);
        actions.push(Action::AnswerDhcp { mode: dhcp, mac: machine.mac, address: reserved });
    }
    actions.extend([
        Action::LoadAgent,
        Action::WriteImage { image: spec.os.image.url.clone(), disk: machine.disk.clone() },
        Action::VerifyImage { sha256: spec.os.image.sha256.clone() },
        Action::GrowPartitions,
        Action::WriteSeed {
            hostname: machine.hostname.clone(),
            address: machine.address,
            users: spec.os.users.iter().map(|user| user.name.clone()).collect(),
        },
    ]);
    // A BIOS has no entries to set: it starts from the disk by its own order.
    if machine.boot_mode == BootMode::Uefi {
        actions.push(Action::SetBootEntry);
    }
    actions.extend([Action::Reboot, Action::VerifySsh { address }]);
    actions
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff { bmc } => write!(f, "switch off through {bmc}"),
            Self::BootFromNetworkOnce { mode } => write!(f, "set to start from the network once ({mode})"),
            Self::PowerOn => f.write_str("switch on"),
            Self::StartByHand { mac, mode } => {
                write!(f, "wait until it is started by hand from the network ({mac}, {mode})")
            }
            Self::AnswerDhcp { address: Some(address), mac, .. } => {
                write!(f, "answer DHCP of {mac} with {address} and where to boot from")
            }
            Self::AnswerDhcp { mac, .. } => write!(f, "answer DHCP of {mac} with where to boot from"),
            Self::LoadAgent => f.write_str("load kernel and agent into memory"),
            Self::WriteImage { image, disk } => write!(f, "OVERWRITE {disk} with {image}"),
            Self::VerifyImage { sha256 } => {
                write!(f, "read back and compare (sha256 {}…)", sha256.get(..12).unwrap_or(sha256))
            }
            Self::GrowPartitions => f.write_str("grow the partition table to the disk"),
            Self::WriteSeed { hostname, address, users } => {
                write!(f, "write the seed: {hostname}, {address}, users {}", users.join(", "))
            }
            Self::SetBootEntry => f.write_str("set the firmware's boot entry"),
            Self::Reboot => f.write_str("restart from the disk"),
            Self::VerifySsh { address } => write!(f, "verify over SSH at {address} that it has its host key"),
            Self::Prepare { version } => write!(f, "prepare it for Kubernetes {version}, with what we serve"),
            Self::Initialize { endpoint, virtual_ip: true } => {
                write!(f, "make the cluster, with the virtual address {endpoint}")
            }
            Self::Initialize { endpoint, .. } => write!(f, "make the cluster, at {endpoint}"),
            Self::Join { role: MachineRole::ControlPlane, endpoint } => {
                write!(f, "join the control plane at {endpoint}")
            }
            Self::Join { endpoint, .. } => write!(f, "join the cluster at {endpoint}"),
            Self::AwaitReady { labels } if labels.is_empty() => f.write_str("wait until the node is Ready"),
            Self::AwaitReady { labels } => {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "wait until the node is Ready, and label it {}", labels.join(", "))
            }
        }
    }
}
