//! What is done to one machine, in order.

use crate::hardware::{BootMode, DiskSelector, MacAddr};
use crate::inventory::Machine;
use crate::spec::{ClusterSpec, DhcpMode};
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
}

/// What is done to `machine`, which is not installed.
pub(super) fn of(spec: &ClusterSpec, machine: &Machine) -> Vec<Action> {
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
        }
    }
}
