//! Which machine joins which group.
//!
//! Groups with the same selector share one pool, and their counts add up. A machine that fits two different selectors
//! would go to one or the other by chance, so it is a conflict.

use super::Recorded;
use crate::api::MachineState;
use crate::inventory::Machine;
use crate::spec::Group;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// Who is where.
pub(super) struct Assignment<'a> {
    /// Machines of each group, in the groups' order.
    pub members: Vec<Vec<&'a Machine>>,
    /// Machines that no group needs, with the first group whose selector they fit.
    pub spares: Vec<(&'a Machine, Option<usize>)>,
}

/// Why the machines cannot be given to the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Not enough machines carry a selector's labels.
    TooFew {
        /// The groups that have this selector.
        groups: Vec<String>,
        /// The selector, `key=value, key=value`.
        selector: String,
        /// Machines asked for, by all those groups.
        wanted: usize,
        /// Machines that fit.
        found: usize,
    },
    /// A machine fits the selectors of two groups.
    TwoSelectors {
        /// The machine.
        hostname: String,
        /// Line of its row.
        line: u64,
        /// The groups.
        groups: [String; 2],
    },
}

/// Machines and groups do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the inventory does not fit the spec: {}", .0.iter().map(Conflict::to_string).collect::<Vec<_>>().join("; "))]
pub struct PlanError(pub Vec<Conflict>);

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { groups, selector, wanted, found } => {
                let names: Vec<String> = groups.iter().map(|name| format!("`{name}`")).collect();
                let (noun, verb) = if names.len() == 1 { ("group", "wants") } else { ("groups", "together want") };
                let names = names.join(", ");
                write!(f, "{noun} {names} {verb} {wanted} with {selector}, but the inventory has {found}")
            }
            Self::TwoSelectors { hostname, groups: [first, second], .. } => {
                write!(f, "`{hostname}` fits the selectors of two groups, `{first}` and `{second}`")
            }
        }
    }
}

/// Gives each group its machines.
pub(super) fn assign<'a>(
    groups: &[&Group],
    machines: &'a [Machine],
    recorded: &Recorded,
) -> Result<Assignment<'a>, PlanError> {
    let mut pools = pools(groups);
    let mut conflicts = Vec::new();
    let mut spares = Vec::new();
    let mut ordered: Vec<&Machine> = machines.iter().collect();
    ordered.sort_by(|one, other| by_name(&one.hostname, &other.hostname));
    for machine in ordered {
        let mut fitting = pools.iter_mut().filter(|pool| fits(pool.groups[0].1, machine));
        match (fitting.next(), fitting.next()) {
            (None, _) => spares.push((machine, None)),
            (Some(pool), None) => pool.machines.push(machine),
            (Some(first), Some(second)) => {
                conflicts.push(Conflict::TwoSelectors {
                    hostname: machine.hostname.clone(),
                    line: machine.line,
                    groups: [first.groups[0].1.name.clone(), second.groups[0].1.name.clone()],
                });
                // Neither pool lacks it: one mistake is not reported as two.
                [first, second].into_iter().chain(fitting).for_each(|pool| pool.machines.push(machine));
            }
        }
    }
    let mut members = vec![Vec::new(); groups.len()];
    for mut pool in pools {
        if let Some(conflict) = pool.lack() {
            conflicts.push(conflict);
            continue;
        }
        // A machine that failed is taken last: a spare may have its place already.
        let rank = |machine: &&Machine| match recorded.get(&machine.hostname) {
            None | Some(MachineState::Pending) => 1,
            Some(MachineState::Failed | MachineState::Deleting) => 2,
            Some(_) => 0,
        };
        pool.machines.sort_by_key(rank);
        let mut machines = pool.machines.into_iter();
        for (index, group) in &pool.groups {
            members[*index] = machines.by_ref().take(group.count as usize).collect();
            members[*index].sort_by(|one, other| by_name(&one.hostname, &other.hostname));
        }
        spares.extend(machines.map(|machine| (machine, Some(pool.groups[0].0))));
    }
    if !conflicts.is_empty() {
        return Err(PlanError(conflicts));
    }
    spares.sort_by(|(one, _), (other, _)| by_name(&one.hostname, &other.hostname));
    Ok(Assignment { members, spares })
}

/// The machines that one selector finds, and the groups that ask for them.
struct Pool<'g, 'm> {
    groups: Vec<(usize, &'g Group)>,
    machines: Vec<&'m Machine>,
}

impl Pool<'_, '_> {
    fn lack(&self) -> Option<Conflict> {
        let wanted: usize = self.groups.iter().map(|(_, group)| group.count as usize).sum();
        let selector = &self.groups[0].1.selector;
        let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (self.machines.len() < wanted).then(|| Conflict::TooFew {
            groups: self.groups.iter().map(|(_, group)| group.name.clone()).collect(),
            selector: selector.join(", "),
            wanted,
            found: self.machines.len(),
        })
    }
}

fn pools<'g, 'm>(groups: &[&'g Group]) -> Vec<Pool<'g, 'm>> {
    let mut pools: Vec<Pool<'g, 'm>> = Vec::new();
    let mut by_selector: BTreeMap<&BTreeMap<String, String>, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let pool = *by_selector.entry(&group.selector).or_insert_with(|| {
            pools.push(Pool { groups: Vec::new(), machines: Vec::new() });
            pools.len() - 1
        });
        pools[pool].groups.push((index, group));
    }
    pools
}

pub(super) fn fits(group: &Group, machine: &Machine) -> bool {
    group.selector.iter().all(|(key, value)| machine.labels.get(key) == Some(value))
}

/// Order of names in which `node-2` comes before `node-10`.
pub fn by_name(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (chunks(one), chunks(other));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return one.cmp(other),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left), Some(right)) if is_number(left) && is_number(right) => {
                let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
                left.len().cmp(&right.len()).then(left.cmp(right))
            }
            (Some(left), Some(right)) => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn is_number(chunk: &str) -> bool {
    chunk.starts_with(|c: char| c.is_ascii_digit())
}

/// Runs of digits and runs of anything else.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    text.as_bytes()
        .chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit())
        .map(|chunk| std::str::from_utf8(chunk).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_by_their_value() {
        let mut names =
            vec!["node-10", "node-9", "node-09", "node", "a2b10", "a2b9", "node-100000000000000000000000", "node-2-b"];
        names.sort_by(|one, other| by_name(one, other));
        assert_eq!(
            names,
            ["a2b9", "a2b10", "node", "node-2-b", "node-09", "node-9", "node-10", "node-100000000000000000000000"]
        );
    }
}
