//! A cluster's status, in the ecosystem's way: what is true of it, why, and since when.

use crate::api::{GatewayStatus, MachineState, MetalCluster, MetalClusterStatus};
use crate::controllers::ReconcileError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What was found out about a cluster.
pub struct Findings<'a> {
    /// Group and state of each machine.
    pub states: &'a [(&'a str, MachineState)],
    /// What groups lack, a sentence each.
    pub lacking: &'a [String],
    /// Whether there is a control plane.
    pub initialized: bool,
    /// Sum of the container network's manifest that is applied, if that was tried; none if the user brings one.
    pub network: Option<&'a Result<Option<String>, ReconcileError>>,
}

type Verdict = (bool, &'static str, String);

/// The status that follows. A condition's time changes only when its status does.
pub fn summary(cluster: &MetalCluster, findings: &Findings<'_>, epoch: u64) -> MetalClusterStatus {
    let count = |is: &dyn Fn(MachineState) -> bool| findings.states.iter().filter(|(_, state)| is(*state)).count();
    let installed = count(&|state| state >= MachineState::Installed && state <= MachineState::Ready);
    let (ready, failed) = (count(&|state| state == MachineState::Ready), count(&|state| state == MachineState::Failed));
    let wanted: usize = cluster.spec.groups.iter().map(|group| group.count as usize).sum();
    let total = findings.states.len();
    let old = cluster.status.clone().unwrap_or_default();
    let network_manifest = match findings.network {
        Some(Ok(sum)) => sum.clone(),
        _ => old.network_manifest.clone(),
    };
    let mut verdicts: Vec<(&str, Verdict)> = vec![
        ("MachinesInstalled", machines_installed(total, installed, failed)),
        ("ControlPlaneInitialized", initialized(findings)),
        ("NetworkApplied", network(findings)),
        ("GroupsComplete", groups(findings)),
        ("Ready", is_ready(findings, wanted, ready)),
    ];
    let generation = cluster.metadata.generation.unwrap_or_default();
    if cluster.spec.gateway.is_some() {
        verdicts.push(("GatewayReady", gateway(old.gateway.as_ref(), generation)));
    }
    let conditions = verdicts.into_iter().map(|(type_, (value, reason, message))| {
        let status = if value { "True" } else { "False" };
        let before = old.conditions.iter().find(|one| one.type_ == type_ && one.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: before
                .map_or_else(|| Time(k8s_openapi::jiff::Timestamp::now()), |old| old.last_transition_time.clone()),
            observed_generation: Some(generation),
        }
    });
    MetalClusterStatus {
        machines: total as u32,
        installed: installed as u32,
        ready: ready as u32,
        network_manifest,
        gateway: old.gateway,
        conditions: conditions.collect(),
        observed_generation: generation,
        epoch,
    }
}

fn machines_installed(total: usize, installed: usize, failed: usize) -> Verdict {
    if failed > 0 {
        (false, "MachineFailed", format!("{failed} of {total} machines cannot go on"))
    } else if installed < total {
        (false, "Installing", format!("{installed} of {total} machines are installed"))
    } else {
        (true, "AllInstalled", format!("all {installed} machines are installed and answer SSH"))
    }
}

fn initialized(findings: &Findings<'_>) -> Verdict {
    match findings.initialized {
        true => (true, "Initialized", String::from("kubeadm has made the control plane")),
        false => (false, "WaitingForMachine", String::from("no control-plane machine is a node yet")),
    }
}

fn network(findings: &Findings<'_>) -> Verdict {
    match findings.network {
        None => (false, "WaitingForControlPlane", String::from("there is no API server to apply it to yet")),
        Some(Ok(Some(_))) => (true, "Applied", String::from("the container network's manifest is applied")),
        Some(Ok(None)) => (true, "Unmanaged", String::from("the user brings the container network (cni: none)")),
        Some(Err(error)) => (false, "Refused", crate::error::chain(error)),
    }
}

fn groups(findings: &Findings<'_>) -> Verdict {
    match findings.lacking {
        [] => (true, "Complete", String::from("every group has its machines")),
        lacking => (false, "MachinesLacking", lacking.join("; ")),
    }
}

fn gateway(status: Option<&GatewayStatus>, generation: i64) -> Verdict {
    match status {
        Some(status) if status.observed_generation < generation => {
            (false, "Changing", String::from("the manager has not made the change yet"))
        }
        Some(status) if status.ready => (true, "InPlace", status.message.clone()),
        Some(status) => (false, "NotInPlace", status.message.clone()),
        None => (false, "WaitingForManager", String::from("the manager in the cluster makes it")),
    }
}

fn is_ready(findings: &Findings<'_>, wanted: usize, ready: usize) -> Verdict {
    if ready >= wanted && findings.initialized {
        (true, "NodesReady", format!("all {wanted} nodes are Ready"))
    } else {
        (false, "NodesNotReady", format!("{ready} of {wanted} nodes are Ready"))
    }
}
