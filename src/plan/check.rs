//! What is wrong between the two files, though each may be right in itself.
//!
//! Works on what could be read of either, so that a mistake in one place does not hide one in another.

use super::groups::{self, Conflict};
use super::{PlanError, Recorded};
use crate::diagnostic::{Diagnostic, Diagnostics, Problem};
use crate::inventory::{self, Column, Machine};
use crate::spec::{self, Group};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Our own address, in a spec of ours.
const OWN_ADDRESS: &str = "spec.provisioning.address";

/// Holds the spec and the inventory against each other.
pub fn check(spec: &spec::Read, inventory: &inventory::Read) -> Diagnostics {
    let mut found = Diagnostics::default();
    addresses(spec, inventory, &mut found);
    networks(spec, inventory, &mut found);
    if let (Some(groups), Some(lost)) = (&spec.known.groups, inventory.lost) {
        membership(spec, inventory, groups, lost, &mut found);
    }
    found
}

/// No machine has the endpoint's address, or ours.
fn addresses(spec: &spec::Read, inventory: &inventory::Read, found: &mut Diagnostics) {
    let known = &spec.known;
    if let (Some(own), true) = (known.own_address, known.own_address == known.endpoint) {
        let problem = Problem::new(format!("{own} is the endpoint's address too"));
        let hint = "this one is the admin machine's, the endpoint the cluster's";
        found.push(problem.hint(hint).at(spec.place(OWN_ADDRESS)));
    }
    let shared = |machine: &&Machine, address: Option<Ipv4Addr>| Some(machine.address.addr()) == address;
    for machine in &inventory.machines {
        let place = || inventory.place(machine, Column::IpAddress);
        if shared(&machine, known.own_address) {
            let message = format!("{} is {}, the admin machine's", machine.address.addr(), spec.called(OWN_ADDRESS));
            found.push(Problem::new(message).at(place()));
        }
        if shared(&machine, known.endpoint) && !is_only_control_plane(known.groups.as_deref(), inventory, machine) {
            let problem = Problem::new(format!("{} is the endpoint's address", machine.address.addr()));
            let hint = "only the one machine of a control plane of one may have it; else it is a virtual address";
            found.push(problem.hint(hint).at(place()));
        }
        if Some(machine.gateway) == known.endpoint {
            let problem = Problem::new(format!("{} is the endpoint's address, not a gateway's", machine.gateway));
            found.push(problem.at(inventory.place(machine, Column::Gateway)));
        }
    }
}

/// Whether the control plane can be no other machine; true also where that cannot be said.
fn is_only_control_plane(groups: Option<&[Group]>, inventory: &inventory::Read, machine: &Machine) -> bool {
    let Some((control_plane, workers)) = groups.and_then(<[Group]>::split_first) else { return true };
    let alone = !workers.iter().any(|group| group.selector == control_plane.selector);
    let fitting = inventory.machines.iter().filter(|machine| groups::fits(control_plane, machine)).count();
    control_plane.count == 1 && groups::fits(control_plane, machine) && alone && fitting == 1
}

/// No machine lies in the networks of pods and services; each one is where the endpoint and we can reach it.
fn networks(spec: &spec::Read, inventory: &inventory::Read, found: &mut Diagnostics) {
    let known = &spec.known;
    let mut seen: BTreeSet<Ipv4Net> = BTreeSet::new();
    for machine in &inventory.machines {
        let network = machine.address.trunc();
        if !seen.insert(network) {
            continue;
        }
        let cidrs = [("podCIDR", known.pod_cidr), ("serviceCIDR", known.service_cidr)];
        for (name, cidr) in cidrs {
            let overlap = cidr.filter(|cidr| cidr.contains(&network) || network.contains(cidr));
            if let Some(cidr) = overlap {
                let problem = Problem::new(format!("the machine's network {network} overlaps with {name} {cidr}"));
                let hint = format!("change `{}`", spec.called(&format!("spec.kubernetes.{name}")));
                found.push(problem.hint(hint).at(inventory.place(machine, Column::IpAddress)));
            }
        }
        if let Some(own) = known.own_address.filter(|own| !network.contains(own)) {
            let message = format!("{network} is not the network of {} {own}", spec.called(OWN_ADDRESS));
            let place = inventory.place(machine, Column::IpAddress);
            found.push(Diagnostic::warning(place, message).hint("a DHCP relay has to stand in it"));
        }
    }
    let Some((endpoint, groups)) = known.endpoint.zip(known.groups.as_ref()) else { return };
    let Some(control_plane) = groups.first() else { return };
    let outside = |machine: &&Machine| groups::fits(control_plane, machine) && !machine.address.contains(&endpoint);
    if let Some(machine) = inventory.machines.iter().find(outside).filter(|_| !known.external) {
        let message = format!(
            "the endpoint {endpoint} is not in {}, the network of `{}`",
            machine.address.trunc(),
            machine.hostname
        );
        let place = spec.place("spec.kubernetes.endpoint.host");
        found.push(
            Diagnostic::warning(place, message).hint("a virtual address works only in the control plane's network"),
        );
    }
}

/// Each group has its machines, and no machine fits two.
fn membership(spec: &spec::Read, inventory: &inventory::Read, groups: &[Group], lost: usize, found: &mut Diagnostics) {
    let borrowed: Vec<&Group> = groups.iter().collect();
    let Err(PlanError(conflicts)) = groups::assign(&borrowed, &inventory.machines, &Recorded::new()) else { return };
    for conflict in conflicts {
        let message = conflict.to_string();
        match &conflict {
            // Rows with mistakes might be the machines that are missed.
            Conflict::TooFew { wanted, found, .. } if found + lost >= *wanted => {}
            Conflict::TooFew { groups: names, .. } => {
                let index = groups.iter().position(|group| names.first() == Some(&group.name)).unwrap_or_default();
                let path = match index {
                    0 => String::from("spec.controlPlane.selector"),
                    index => format!("spec.workers.{}.selector", index - 1),
                };
                let message = match lost {
                    0 => message,
                    lost => format!("{message}, and {lost} rows with mistakes"),
                };
                let hint = "lower `count`, or give the label to more machines of the inventory";
                found.push(Diagnostic::error(spec.place(&path), message).hint(hint));
            }
            Conflict::TwoSelectors { hostname, .. } => {
                let machine = inventory.machines.iter().find(|machine| machine.hostname == *hostname);
                let Some(machine) = machine else { continue };
                let hint = "take a label from it, or make the selectors exclude each other";
                found.push(Diagnostic::error(inventory.place(machine, Column::Labels), message).hint(hint));
            }
        }
    }
}
