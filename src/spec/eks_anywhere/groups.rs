//! The control plane and the worker groups of a Cluster.

use super::unused::{self, Shape, given};
use crate::diagnostic::Problem;
use crate::names::{self, Labels};
use crate::spec::cluster::{self, CONTROL_PLANE, count, labels, odd_count, texts};
use crate::spec::reader::{Fields, Reader, Value};
use crate::spec::{Argument, values};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::Range;

pub const HEALTH_CHECK: Shape = Shape::Fields(&[
    ("nodeStartupTimeout", Shape::Text),
    ("unhealthyMachineTimeout", Shape::Text),
    ("maxUnhealthy", Shape::Text),
]);
pub const HEALTH: &str = "a machine that failed is replaced by a spare; a node that falls ill later is not";
const ROLLING_UPDATE: Shape = Shape::Fields(&[("maxSurge", Shape::Number), ("maxUnavailable", Shape::Number)]);
const KUBELET: &str = "kubelet's settings are the same on all nodes here, and not to be chosen";
const KUBELET_HINT: &str =
    "leave it out; the ConfigMap kubelet-config in kube-system is there to be changed afterwards, for all nodes";

/// A reference to another document.
#[derive(Clone)]
pub struct Reference<'n> {
    /// The name referred to.
    pub name: Value<'n>,
    /// The kind, if it is given.
    pub kind: Option<Value<'n>>,
}

/// How a group is upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    RollingUpdate,
    InPlace,
}

/// What control plane and worker groups share; a part is there if it is right.
pub struct MachineGroup<'n> {
    pub name: Option<String>,
    pub count: Option<u32>,
    pub labels: Option<Labels>,
    pub taints: Option<Vec<String>>,
    /// The machines' own document.
    pub machine: Option<Reference<'n>>,
    /// How it is upgraded; rolling where it does not say. With where it says so, or where the group stands.
    pub strategy: (Strategy, Range<usize>),
    /// Its version of Kubernetes, where that is given.
    pub version: Option<Value<'n>>,
    /// Where it asks for an autoscaler.
    pub autoscaling: Option<Range<usize>>,
    /// Where it stands.
    pub range: Range<usize>,
    /// Where its taints stand.
    pub taints_range: Option<Range<usize>>,
}

/// The control plane, with what else its configuration says.
pub struct ControlPlane<'n> {
    pub group: MachineGroup<'n>,
    pub endpoint: Option<(Ipv4Addr, Range<usize>)>,
    pub external: bool,
    pub cert_sans: Option<Vec<String>>,
    pub arguments: Option<Vec<Argument>>,
}

/// `kind` and `name`; nothing if there is none.
pub fn reference<'n>(reader: &mut Reader, value: &Value<'n>) -> Option<Reference<'n>> {
    let mut fields = reader.fields(value)?;
    let kind = given(reader, &mut fields, "kind");
    let name = reader.required(&mut fields, "name");
    reader.finish(fields);
    let name = name?;
    reader.text(&name)?;
    Some(Reference { name, kind })
}

/// `controlPlaneConfiguration`.
pub fn control_plane<'n>(reader: &mut Reader, value: &Value<'n>) -> Option<ControlPlane<'n>> {
    let mut fields = reader.fields(value)?;
    let count = reader.required(&mut fields, "count").and_then(|value| odd_count(reader, &value));
    let endpoint = reader.required(&mut fields, "endpoint").and_then(|value| endpoint(reader, &value));
    let external = match given(reader, &mut fields, "skipLoadBalancerDeployment") {
        Some(value) => reader.flag(&value),
        None => Some(false),
    };
    let cert_sans = match given(reader, &mut fields, "certSans") {
        Some(value) => texts(reader, &value, values::cert_san),
        None => Some(Vec::new()),
    };
    let arguments = match given(reader, &mut fields, "apiServerExtraArgs") {
        Some(value) => arguments(reader, &value),
        None => Some(Vec::new()),
    };
    let why = "metalgate has an audit policy of its own";
    let hint = "leave it out; what the API server logs is in /var/log/kubernetes/audit.log of each control-plane node";
    unused::refuse(reader, &mut fields, "auditPolicyContent", &Shape::Text, why, hint);
    let why = "admission plugins look at every request here";
    unused::warn(reader, &mut fields, "skipAdmissionForSystemResources", &Shape::Flag, why);
    let group = group(reader, fields, value, Some(String::from(CONTROL_PLANE)), count, None);
    // One that is neither true nor false was refused.
    let external = external.unwrap_or_default();
    Some(ControlPlane { group, endpoint, external, cert_sans, arguments })
}

fn endpoint(reader: &mut Reader, value: &Value) -> Option<(Ipv4Addr, Range<usize>)> {
    let mut fields = reader.fields(value)?;
    let host = reader.required(&mut fields, "host");
    reader.finish(fields);
    let host = host?;
    reader.parse(&host, values::host_address).map(|address| (address, host.range))
}

/// A mapping here, so each flag comes once.
fn arguments(reader: &mut Reader, value: &Value) -> Option<Vec<Argument>> {
    let entries = reader.entries(value)?;
    let arguments: Vec<Option<Argument>> = entries
        .iter()
        .map(|(entry, value)| {
            let name = values::api_server_argument(&entry.key);
            let name = name.map_err(|problem| reader.refuse(&entry.range, problem)).ok();
            let value = reader.scalar(value)?.to_owned();
            Some(Argument { name: name?, value })
        })
        .collect();
    arguments.into_iter().collect()
}

/// `workerNodeGroupConfigurations`.
pub fn workers<'n>(reader: &mut Reader, value: &Value<'n>) -> Option<Vec<MachineGroup<'n>>> {
    let items = reader.items(value)?;
    let alone = items.len() == 1;
    let mut names = BTreeSet::from([String::from(CONTROL_PLANE)]);
    let groups: Vec<Option<MachineGroup>> = items.iter().map(|item| worker(reader, item, alone, &mut names)).collect();
    groups.into_iter().collect()
}

fn worker<'n>(
    reader: &mut Reader,
    value: &Value<'n>,
    alone: bool,
    names: &mut BTreeSet<String>,
) -> Option<MachineGroup<'n>> {
    let mut fields = reader.fields(value)?;
    // EKS Anywhere calls the only group so, if it has no name.
    let name = match alone && value.node.scalar_at(&["name"]).unwrap_or_default().is_empty() {
        true => {
            let _ = reader.optional(&mut fields, "name");
            Some(String::from("md-0"))
        }
        false => cluster::unique_name(reader, &mut fields, "group", names, names::dns_label),
    };
    let autoscaling = reader.optional(&mut fields, "autoscalingConfiguration");
    let bounds = autoscaling.as_ref().map(|value| autoscaler(reader, value));
    let count = match reader.optional(&mut fields, "count") {
        Some(value) => count(reader, &value).filter(|count| within(reader, &value, *count, bounds.flatten())),
        None => Some(bounds.flatten().map_or(1, |(least, _)| least)),
    };
    let why = "metalgate knows no failure domains";
    let hint = "make a group of each, with a label of its own in the inventory";
    unused::refuse(reader, &mut fields, "failureDomains", &Shape::List(&Shape::Text), why, hint);
    let version = given(reader, &mut fields, "kubernetesVersion");
    let range = autoscaling.map(|value| value.range);
    Some(MachineGroup { version, ..group(reader, fields, value, name, count, range) })
}

/// Fewest and most machines.
fn autoscaler(reader: &mut Reader, value: &Value) -> Option<(u32, u32)> {
    let mut fields = reader.fields(value)?;
    let least = reader.required(&mut fields, "minCount").and_then(|value| count(reader, &value));
    let most = reader.required(&mut fields, "maxCount");
    let (most_range, most) = (most.as_ref().map(|value| value.range.clone()), most.and_then(|v| count(reader, &v)));
    reader.finish(fields);
    let hint = "`metalgate scale` changes the number of machines";
    reader.warn(&value.range, Problem::new(format!("`{}` has no effect here", value.name)).hint(hint));
    let (least, most) = (least?, most?);
    if let Some(range) = most_range.filter(|_| least > most) {
        reader.refuse(&range, Problem::new(format!("maxCount {most} is less than minCount {least}")));
        return None;
    }
    Some((least, most))
}

fn within(reader: &mut Reader, value: &Value, count: u32, bounds: Option<(u32, u32)>) -> bool {
    let Some((least, most)) = bounds.filter(|(least, most)| !(*least..=*most).contains(&count)) else { return true };
    let message =
        format!("`{}` is {count}, which the autoscaler's bounds of {least} to {most} do not allow", value.name);
    reader.refuse(&value.range, Problem::new(message));
    false
}

/// The fields that all groups have.
fn group<'n>(
    reader: &mut Reader,
    mut fields: Fields<'n>,
    value: &Value<'n>,
    name: Option<String>,
    count: Option<u32>,
    autoscaling: Option<Range<usize>>,
) -> MachineGroup<'n> {
    let machine = reader.required(&mut fields, "machineGroupRef").and_then(|value| reference(reader, &value));
    let labels = match given(reader, &mut fields, "labels") {
        Some(value) => labels(reader, &value),
        None => Some(Labels::new()),
    };
    let taints_value = given(reader, &mut fields, "taints");
    let taints = match &taints_value {
        Some(value) => taints(reader, value),
        None => Some(Vec::new()),
    };
    let strategy = given(reader, &mut fields, "upgradeRolloutStrategy");
    let strategy = strategy.and_then(|value| strategy_of(reader, &value));
    unused::warn(reader, &mut fields, "machineHealthCheck", &HEALTH_CHECK, HEALTH);
    unused::refuse(reader, &mut fields, "kubeletConfiguration", &Shape::Any, KUBELET, KUBELET_HINT);
    reader.finish(fields);
    MachineGroup {
        name,
        count,
        labels,
        taints,
        machine,
        strategy: strategy.unwrap_or((Strategy::RollingUpdate, value.range.clone())),
        version: None,
        autoscaling,
        range: value.range.clone(),
        taints_range: taints_value.map(|value| value.range),
    }
}

/// A list of `{key, value, effect}`, as `key=value:Effect`.
fn taints(reader: &mut Reader, value: &Value) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let items = reader.items(value)?;
    let taints: Vec<Option<String>> = items
        .iter()
        .map(|item| {
            let mut fields = reader.fields(item)?;
            let key = reader.required(&mut fields, "key");
            let effect = reader.required(&mut fields, "effect");
            let value = given(reader, &mut fields, "value");
            let _ = reader.optional(&mut fields, "timeAdded");
            reader.finish(fields);
            let (key, effect) = (key?, effect?);
            let (key_text, effect_text) = (reader.text(&key)?, reader.text(&effect)?);
            let value = match &value {
                Some(value) => format!("={}", reader.text(value)?),
                None => String::new(),
            };
            let taint = names::taint(&format!("{key_text}{value}:{effect_text}"));
            let taint = taint.map_err(|problem| reader.refuse(&key.range, problem)).ok()?;
            if !seen.insert(taint.clone()) {
                reader.refuse(&key.range, Problem::new(format!("`{taint}` is given twice")));
                return None;
            }
            Some(taint)
        })
        .collect();
    taints.into_iter().collect()
}

fn strategy_of(reader: &mut Reader, value: &Value) -> Option<(Strategy, Range<usize>)> {
    let mut fields = reader.fields(value)?;
    let kind = given(reader, &mut fields, "type");
    if let Some(value) = reader.optional(&mut fields, "rollingUpdate") {
        unused::check(reader, &value, &ROLLING_UPDATE);
    }
    reader.finish(fields);
    let hint = "metalgate has no upgrades of a cluster that runs";
    reader.warn(&value.range, Problem::new(format!("`{}` has no effect here", value.name)).hint(hint));
    let Some(kind) = kind else { return Some((Strategy::RollingUpdate, value.range.clone())) };
    let words = [("RollingUpdate", Strategy::RollingUpdate), ("InPlace", Strategy::InPlace)];
    let strategy = reader.parse(&kind, |text| values::word(text, "a rollout strategy", &words))?;
    Some((strategy, kind.range))
}
