//! What will be done, decided before anything is done: which machine plays which role, and the actions for each.
//!
//! Pure: spec + inventory + what is recorded in, [`Plan`] out, the same bytes for the same input. `check` finds what is
//! wrong between the two files; `groups` chooses the machines. Fed by `spec` and `inventory`; feeds `workflow` and
//! `create cluster --dry-run`.
//!
//! Order: the control plane, then the worker groups as the spec has them; within a group by host name, numbers by their
//! value (`node-2` before `node-10`), so that sorting the inventory anew changes nothing. A machine that an earlier run
//! has begun is chosen before one that nothing was done to.

mod actions;
mod check;
mod groups;
mod text;

pub use actions::Action;
pub use check::check;
pub use groups::{Conflict, PlanError};
pub use text::render_text;

use crate::api::{MachineRole, MachineState};
use crate::hardware::{Arch, BootMode, DiskSelector, MacAddr};
use crate::inventory::{BmcKind, Machine};
use crate::names::Labels;
use crate::spec::{ClusterSpec, DhcpMode, ImageFormat};
use ipnet::Ipv4Net;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How far earlier runs brought each machine, by host name; machines that are not named are [`MachineState::Pending`].
pub type Recorded = BTreeMap<String, MachineState>;

/// What will be done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The cluster's name.
    pub cluster: String,
    /// `v1.36.4`.
    pub kubernetes_version: String,
    /// `host:port` of the API server.
    pub endpoint: String,
    /// What goes on the disks.
    pub image: PlannedImage,
    /// How machines get their addresses while they are installed.
    pub dhcp: DhcpMode,
    /// Machines that take part.
    pub machines: Vec<PlannedMachine>,
    /// Machines that no group needs; nothing is done to them.
    pub spares: Vec<Spare>,
}

/// What goes on the disks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedImage {
    /// Where it comes from.
    pub url: String,
    /// Its sum.
    pub sha256: String,
    /// How it is packed.
    pub format: ImageFormat,
}

/// A machine that takes part.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedMachine {
    /// Its name.
    pub hostname: String,
    /// Control plane or worker.
    pub role: MachineRole,
    /// `control-plane`, or the worker group's name.
    pub group: String,
    /// Node labels.
    pub labels: Labels,
    /// Node taints.
    pub taints: Vec<String>,
    /// Interface that it boots from.
    pub mac: MacAddr,
    /// Its address.
    pub address: Ipv4Net,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// 802.1Q tag of the installed system's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Architecture.
    pub arch: Arch,
    /// Firmware.
    pub boot_mode: BootMode,
    /// Disk that is overwritten.
    pub disk: DiskSelector,
    /// How it is powered on; without one by hand.
    pub bmc: Option<PlannedBmc>,
    /// How far an earlier run brought it.
    pub recorded: MachineState,
    /// What will be done to it, in order; nothing if it is installed.
    pub actions: Vec<Action>,
}

/// A management controller, without its password.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedBmc {
    /// Protocol.
    pub kind: BmcKind,
    /// Address.
    pub url: String,
}

/// A machine that no group needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spare {
    /// Its name.
    pub hostname: String,
    /// The group whose selector it fits; it could replace a machine there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Decides what will be done.
///
/// # Errors
/// A group lacks machines, or two groups claim the same one; all such conflicts are in the error.
pub fn plan(spec: &ClusterSpec, machines: &[Machine], recorded: &Recorded) -> Result<Plan, PlanError> {
    let groups: Vec<_> = std::iter::once(&spec.control_plane).chain(&spec.workers).collect();
    let assignment = groups::assign(&groups, machines, recorded)?;
    let planned = assignment.members.into_iter().enumerate().flat_map(|(index, members)| {
        let role = if index == 0 { MachineRole::ControlPlane } else { MachineRole::Worker };
        let group = groups[index];
        members.into_iter().map(move |machine| {
            let recorded = recorded.get(&machine.hostname).copied().unwrap_or_default();
            PlannedMachine {
                hostname: machine.hostname.clone(),
                role,
                group: group.name.clone(),
                labels: group.labels.clone(),
                taints: group.taints.clone(),
                mac: machine.mac,
                address: machine.address,
                gateway: machine.gateway,
                vlan: machine.vlan,
                arch: machine.arch,
                boot_mode: machine.boot_mode,
                disk: machine.disk.clone(),
                bmc: machine.bmc.as_ref().map(|bmc| PlannedBmc { kind: bmc.kind, url: bmc.url.clone() }),
                recorded,
                actions: if recorded == MachineState::Installed { Vec::new() } else { actions::of(spec, machine) },
            }
        })
    });
    Ok(Plan {
        cluster: spec.name.clone(),
        kubernetes_version: spec.kubernetes.version.clone(),
        endpoint: format!("{}:{}", spec.kubernetes.endpoint.host, spec.kubernetes.endpoint.port),
        image: PlannedImage {
            url: spec.os.image.url.clone(),
            sha256: spec.os.image.sha256.clone(),
            format: spec.os.image.format,
        },
        dhcp: spec.provisioning.dhcp,
        machines: planned.collect(),
        spares: assignment
            .spares
            .into_iter()
            .map(|(machine, group)| Spare {
                hostname: machine.hostname.clone(),
                group: group.map(|index| groups[index].name.clone()),
            })
            .collect(),
    })
}
