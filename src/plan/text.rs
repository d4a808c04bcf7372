//! The plan for people.

use super::{Plan, PlannedMachine};
use crate::api::{MachineRole, MachineState};
use std::fmt::Write;

/// What `create cluster --dry-run` prints: the cluster, a table of the machines, the actions of each, the spares.
pub fn render_text(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "cluster {}: Kubernetes {} at {}", plan.cluster, plan.kubernetes_version, plan.endpoint);
    let _ = writeln!(text, "image {} (sha256 {})", plan.image.url, plan.image.sha256);
    if let Some(gateway) = &plan.gateway {
        let ports: Vec<String> = gateway.ports.iter().map(u16::to_string).collect();
        let (provider, planes) = (gateway.provider.as_str(), gateway.data_planes.join(", "));
        let _ = writeln!(
            text,
            "gateway {provider} {}: ports {}, data planes {planes}, {} routes",
            gateway.version,
            ports.join(" and "),
            gateway.routes
        );
    }
    text.push('\n');
    table(&mut text, &plan.machines);
    for machine in &plan.machines {
        let recorded = match machine.recorded {
            MachineState::Pending | MachineState::Ready => String::new(),
            state => format!(" (an earlier run left it {state:?})"),
        };
        let _ = writeln!(text, "\n{}{recorded}:", machine.hostname);
        if machine.actions.is_empty() {
            text.push_str("  nothing to do: it is a Ready node\n");
        }
        for (number, action) in machine.actions.iter().enumerate() {
            let _ = writeln!(text, "  {:>2}. {action}", number + 1);
        }
    }
    if !plan.spares.is_empty() {
        text.push_str("\nspares, to which nothing is done:\n");
    }
    for spare in &plan.spares {
        let _ = match &spare.group {
            Some(group) => writeln!(text, "  {} (fits {group})", spare.hostname),
            None => writeln!(text, "  {} (fits no group)", spare.hostname),
        };
    }
    text
}

fn table(text: &mut String, machines: &[PlannedMachine]) {
    let head = ["MACHINE", "ROLE", "GROUP", "MAC", "ADDRESS", "DISK", "FIRMWARE", "BMC"].map(String::from);
    let rows = machines.iter().map(|machine| {
        [
            machine.hostname.clone(),
            String::from(match machine.role {
                MachineRole::ControlPlane => "control plane",
                MachineRole::Worker => "worker",
            }),
            machine.group.clone(),
            machine.mac.to_string(),
            match machine.vlan {
                Some(vlan) => format!("{} vlan {vlan}", machine.address),
                None => machine.address.to_string(),
            },
            machine.disk.to_string(),
            format!("{} {}", machine.boot_mode, machine.arch),
            machine.bmc.as_ref().map(|bmc| bmc.url.clone()).unwrap_or_else(|| String::from("none")),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}
