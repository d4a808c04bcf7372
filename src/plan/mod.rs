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
pub use groups::{Conflict, PlanError, by_name};
pub use text::render_text;

use crate::api::{MachineRole, MachineState};
use crate::gateway::model::{Gateway, ProviderName};
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
    /// The gateway in front of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<PlannedGateway>,
}

/// The gateway; `metalgate gateway plan` has all of its objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedGateway {
    /// Who makes it.
    pub provider: ProviderName,
    /// Its version.
    pub version: String,
    /// The groups of data planes.
    pub data_planes: Vec<String>,
    /// Ports of its listeners.
    pub ports: Vec<u16>,
    /// How many routes it has.
    pub routes: usize,
}

impl PlannedGateway {
    fn of(gateway: &Gateway) -> Self {
        Self {
            provider: gateway.provider.name,
            version: gateway.provider.version.clone(),
            data_planes: gateway.data_planes.iter().map(|plane| plane.name.clone()).collect(),
            ports: gateway.listeners.iter().map(|listener| listener.port).collect(),
            routes: gateway.routes.len() + gateway.ai.routes.len(),
        }
    }
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
    /// What will be done to it, in order; nothing if it is a Ready node.
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

/// Whether kube-vip holds the endpoint: no machine has its address, and no load balancer of the user's.
pub fn has_virtual_ip(spec: &ClusterSpec, machines: &[Machine]) -> bool {
    let endpoint = &spec.kubernetes.endpoint;
    !endpoint.external && !machines.iter().any(|machine| machine.address.addr() == endpoint.host)
}

/// Decides what will be done.
///
/// # Errors
/// A group lacks machines, or two groups claim the same one; all such conflicts are in the error.
pub fn plan(spec: &ClusterSpec, machines: &[Machine], recorded: &Recorded) -> Result<Plan, PlanError> {
    let groups: Vec<_> = std::iter::once(&spec.control_plane).chain(&spec.workers).collect();
    let assignment = groups::assign(&groups, machines, recorded)?;
    let virtual_ip = has_virtual_ip(spec, machines);
    let planned = assignment.members.into_iter().enumerate().flat_map(|(index, members)| {
        let role = if index == 0 { MachineRole::ControlPlane } else { MachineRole::Worker };
        let group = groups[index];
        members.into_iter().enumerate().map(move |(number, machine)| {
            let recorded = recorded.get(&machine.hostname).copied().unwrap_or_default();
            let place = actions::Place { group, role, first: index == 0 && number == 0, virtual_ip };
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
                actions: actions::of(spec, machine, &place, recorded),
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
        gateway: spec.gateway.as_ref().map(PlannedGateway::of),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use std::path::Path;

    fn example(name: &str) -> (ClusterSpec, Vec<Machine>) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware-examples/accepted").join(name);
        let input = crate::cli::validate::load(&dir.join("cluster.yaml"), &dir.join("hardware.csv"));
        let input = input.unwrap_or_else(|found| panic!("{}", found.render(false)));
        (input.spec, input.machines)
    }

    fn members(plan: &Plan, group: &str) -> Vec<String> {
        plan.machines.iter().filter(|one| one.group == group).map(|one| one.hostname.clone()).collect()
    }

    #[test]
    fn machines_that_were_begun_are_kept_and_installed_ones_are_left_alone() {
        let (spec, machines) = example("worker-groups");
        let recorded = Recorded::from([
            (String::from("worker-10"), MachineState::Ready),
            (String::from("worker-3"), MachineState::Installing),
            (String::from("worker-1"), MachineState::Pending),
        ]);
        let plan = plan(&spec, &machines, &recorded).unwrap();
        assert_eq!(members(&plan, "general"), ["worker-3", "worker-10"]);
        assert_eq!(members(&plan, "batch"), ["worker-1"]);
        let text = render_text(&plan);
        assert!(text.contains("\nworker-10:\n  nothing to do: it is a Ready node\n"), "{text}");
        assert!(text.contains("\nworker-3 (an earlier run left it Installing):\n   1. switch off"), "{text}");
        assert!(text.ends_with("  gpu-2 (fits no group)\n  worker-2 (fits general)\n"), "{text}");
    }

    #[test]
    fn what_is_done_follows_from_dhcp_mode_firmware_and_bmc() {
        let (mut spec, machines) = example("uefi-and-bios");
        let uefi = |plan: &Plan| plan.machines[0].actions.contains(&Action::SetBootEntry);
        let bios = |plan: &Plan| plan.machines[1].actions.contains(&Action::SetBootEntry);
        let reserved = plan(&spec, &machines, &Recorded::new()).unwrap();
        assert!(uefi(&reserved) && !bios(&reserved));
        let answers = |plan: &Plan| {
            let answer = |action: &&Action| matches!(action, Action::AnswerDhcp { .. });
            plan.machines[0].actions.iter().find(answer).map(Action::to_string)
        };
        let mac = "52:54:00:aa:00:0b";
        assert_eq!(answers(&reserved), Some(format!("answer DHCP of {mac} with 10.20.0.11 and where to boot from")));
        spec.provisioning.dhcp = DhcpMode::Proxy;
        let proxy = plan(&spec, &machines, &Recorded::new()).unwrap();
        assert_eq!(answers(&proxy), Some(format!("answer DHCP of {mac} with where to boot from")));
        spec.provisioning.dhcp = DhcpMode::External;
        assert_eq!(answers(&plan(&spec, &machines, &Recorded::new()).unwrap()), None);
        let (spec, machines) = example("no-bmc");
        let by_hand = plan(&spec, &machines, &Recorded::new()).unwrap();
        assert!(matches!(by_hand.machines[0].actions[0], Action::StartByHand { .. }));
    }

    #[test]
    fn conflicts_are_all_found_and_counted_once() {
        let (mut spec, machines) = example("worker-groups");
        spec.workers[1].count = 5;
        spec.workers[2].selector = Labels::from([(String::from("zone"), String::from("east"))]);
        let PlanError(conflicts) = plan(&spec, &machines, &Recorded::new()).unwrap_err();
        let texts: Vec<String> = conflicts.iter().map(Conflict::to_string).collect();
        assert_eq!(
            texts,
            [
                "`worker-1` fits the selectors of two groups, `general` and `gpu`",
                "`worker-2` fits the selectors of two groups, `general` and `gpu`",
                "`worker-3` fits the selectors of two groups, `general` and `gpu`",
                "`worker-10` fits the selectors of two groups, `general` and `gpu`",
                "groups `general`, `batch` together want 7 with type=worker, but the inventory has 4",
            ]
        );
    }

    #[test]
    fn no_password_is_in_a_plan() {
        let (spec, machines) = example("worker-groups");
        let plan = plan(&spec, &machines, &Recorded::new()).unwrap();
        assert!(!(render_text(&plan) + &serde_json::to_string(&plan).unwrap()).contains("s3cret"));
    }
}
