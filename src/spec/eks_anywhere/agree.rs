//! What has to be alike, or different, between the documents.

use super::Target;
use super::document::Document;
use super::groups::{MachineGroup, Strategy};
use super::machine::{Machine, OsFamily};
use super::references::Parts;
use crate::diagnostic::Problem;
use crate::spec::reader::Reader;
use crate::spec::{CONTROL_PLANE_TAINT, User};
use std::ops::Range;

/// Looks at everything that is not needed to make the cluster.
pub fn check(reader: &mut Reader, parts: &Parts, target: &Target) {
    namespaces(reader, parts);
    addresses(reader, parts, target);
    families(reader, parts);
    strategies(reader, parts);
    versions(reader, parts);
    taints(reader, parts);
}

fn namespaces(reader: &mut Reader, parts: &Parts) {
    let Some(datacenter) = &parts.datacenter else { return };
    let wanted = &datacenter.document.namespace.0;
    for machine in &parts.machines {
        let (namespace, range) = &machine.document.namespace;
        if namespace != wanted {
            let message = format!("{} is in the namespace `{namespace}`", machine.document.called());
            let hint = format!("it has to be `{wanted}`, where the {} is", datacenter.document.called());
            reader.refuse(range, Problem::new(message).hint(hint));
        }
    }
}

fn addresses(reader: &mut Reader, parts: &Parts, target: &Target) {
    let address = parts.datacenter.as_ref().and_then(|one| one.content.as_ref()?.tinkerbell_ip.clone());
    let Some((address, range)) = address else { return };
    if target.known.endpoint == Some(address) {
        let problem = Problem::new(format!("tinkerbellIP {address} is the endpoint's address too"));
        reader.refuse(&range, problem.hint("give each an address of its own"));
    }
}

fn families(reader: &mut Reader, parts: &Parts) {
    let mut families = parts.used_machines().filter_map(|(document, one)| Some((document, one.family.clone()?)));
    let Some((first, (family, _))) = families.next() else { return };
    for (_, (other, range)) in families {
        if other != family {
            let problem = Problem::new(format!("another `osFamily` than that of the {}", first.called()));
            reader.refuse(&range, problem.hint("all machines have the same"));
        }
    }
}

/// Each group with its machines' document.
fn groups<'p, 'n>(parts: &'p Parts<'_, 'n>) -> impl Iterator<Item = (&'p MachineGroup<'n>, Option<&'p Machine<'n>>)> {
    let groups = parts.cluster.groups.iter().flatten();
    groups.zip(&parts.group_machines).map(|(group, index)| {
        let machine = index.and_then(|index| parts.machines[index].content.as_ref());
        (group, machine)
    })
}

fn strategies(reader: &mut Reader, parts: &Parts) {
    let mut wanted = None;
    for (group, machine) in groups(parts) {
        let (strategy, range) = &group.strategy;
        if *wanted.get_or_insert(*strategy) != *strategy {
            let problem = Problem::new("another rollout strategy than the control plane's");
            reader.refuse(range, problem.hint("give `type` to all groups, and the same"));
        }
        if *strategy != Strategy::InPlace {
            continue;
        }
        let family = machine.and_then(|machine| machine.family.as_ref());
        if family.is_some_and(|(family, _)| *family != OsFamily::Ubuntu) {
            reader.refuse(range, Problem::new("InPlace is for `osFamily: ubuntu` alone").hint("use RollingUpdate"));
        }
        if let Some(range) = &group.autoscaling {
            let problem = Problem::new("an autoscaler cannot be together with InPlace");
            reader.refuse(range, problem.hint("leave one of them out"));
        }
    }
}

fn versions(reader: &mut Reader, parts: &Parts) {
    let Some(version) = &parts.cluster.version else { return };
    for (group, _) in groups(parts) {
        let Some(value) = &group.version else { continue };
        let Some(text) = reader.text(value) else { continue };
        if text != version.minor {
            let problem = Problem::new(format!("`{}` is not the cluster's {}", value.name, version.minor));
            reader.refuse(&value.range, problem.hint("all nodes have the same version here: leave it out"));
        }
    }
}

fn taints(reader: &mut Reader, parts: &Parts) {
    let mut all = groups(parts).map(|(group, _)| group);
    let Some(control_plane) = all.next() else { return };
    let workers: Vec<&MachineGroup> = all.collect();
    let (Some(first), Some(own)) = (workers.first(), &control_plane.taints) else { return };
    if let Some(range) = &control_plane.taints_range
        && !own.iter().any(|taint| taint == CONTROL_PLANE_TAINT)
    {
        let message = format!("the control plane has the taint `{CONTROL_PLANE_TAINT}` beside these");
        reader.warn(range, Problem::new(message).hint("in EKS Anywhere they take its place"));
    }
    let repels = |taint: &String| taint.ends_with(":NoSchedule") || taint.ends_with(":NoExecute");
    let closed = |group: &&MachineGroup| group.taints.as_ref().is_some_and(|taints| taints.iter().any(repels));
    if workers.iter().all(closed) {
        let range = first.taints_range.as_ref().unwrap_or(&first.range);
        let problem = Problem::new("every worker group has a taint that keeps pods away, so CoreDNS runs nowhere");
        reader.refuse(range, problem.hint("leave one group without NoSchedule and NoExecute"));
    }
}

/// What all machines have the same: users, time servers. Nothing if it is wrong somewhere.
pub fn alike<T: Clone + PartialEq>(
    reader: &mut Reader,
    parts: &Parts,
    what: &str,
    of: impl Fn(&Machine) -> Option<(T, Range<usize>)>,
) -> Option<T> {
    let mut first: Option<(&Document, T)> = None;
    let mut right = true;
    for (document, machine) in parts.used_machines() {
        match (of(machine), &first) {
            (None, _) => right = false,
            (Some((value, _)), None) => first = Some((document, value)),
            (Some((value, range)), Some((other, wanted))) if value != *wanted => {
                let problem = Problem::new(format!("other {what} than those of the {}", other.called()));
                reader.refuse(&range, problem.hint(format!("all machines have the same {what} here")));
                right = false;
            }
            (Some(_), Some(_)) => {}
        }
    }
    first.filter(|_| right).map(|(_, value)| value)
}

/// Users in an order that does not matter to anybody.
pub fn users(machine: &Machine) -> Option<(Vec<User>, Range<usize>)> {
    let (mut users, range) = machine.users.clone()?;
    users.iter_mut().for_each(|user| user.ssh_authorized_keys.sort());
    users.sort_by(|one, other| one.name.cmp(&other.name));
    Some((users, range))
}
