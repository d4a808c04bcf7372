//! `clusterNetwork`: the networks of pods and services, and the container network.

use super::Target;
use super::unused::{self, Shape, given};
use crate::diagnostic::Problem;
use crate::names::one_of;
use crate::spec::Cni;
use crate::spec::networks::{self, NODE_PREFIX, Placed};
use crate::spec::reader::{Fields, Reader, Value};
use ipnet::Ipv4Net;

const CILIUM: [&str; 5] = [
    "policyEnforcementMode",
    "egressMasqueradeInterfaces",
    "routingMode",
    "ipv4NativeRoutingCIDR",
    "ipv6NativeRoutingCIDR",
];

/// What it says; a part is there if it is right.
#[derive(Default)]
pub struct ClusterNetwork {
    pub pods: Placed,
    pub services: Placed,
    pub cni: Option<Cni>,
}

/// Reads the mapping.
pub fn read(reader: &mut Reader, value: &Value, target: &mut Target) -> Option<ClusterNetwork> {
    let mut fields = reader.fields(value)?;
    let pods = block(reader, &mut fields, "pods", networks::pods);
    let services = block(reader, &mut fields, "services", networks::services);
    let cni = cni(reader, &mut fields);
    let resolv_conf = Shape::Fields(&[("resolvConf", Shape::Fields(&[("path", Shape::Text)]))]);
    let why = "kubelet's resolv.conf cannot be chosen here";
    let hint = "leave it out: kubeadm takes systemd-resolved's where that runs, else /etc/resolv.conf";
    unused::refuse(reader, &mut fields, "dns", &resolv_conf, why, hint);
    if let Some(value) = given(reader, &mut fields, "nodes") {
        nodes(reader, &value);
    }
    reader.finish(fields);
    for (path, network) in [("spec.kubernetes.podCIDR", &pods), ("spec.kubernetes.serviceCIDR", &services)] {
        if let Some((_, value)) = network {
            target.note(path, &value.name, &value.range);
        }
    }
    let placed = |network: Option<(Ipv4Net, Value)>| network.map(|(network, value)| (network, value.range));
    Some(ClusterNetwork { pods: placed(pods), services: placed(services), cni })
}

/// `pods` or `services`: one network.
fn block<'n>(
    reader: &mut Reader,
    fields: &mut Fields<'n>,
    field: &'static str,
    rule: fn(&str) -> Result<Ipv4Net, Problem>,
) -> Option<(Ipv4Net, Value<'n>)> {
    let value = reader.required(fields, field)?;
    let mut inner = reader.fields(&value)?;
    let blocks = reader.required(&mut inner, "cidrBlocks");
    reader.finish(inner);
    let blocks = blocks?;
    let items = reader.items(&blocks)?;
    match items.as_slice() {
        [] => reader.refuse(&blocks.range, Problem::new(format!("`{}` is empty", blocks.name)).hint("one network")),
        [one] => return reader.parse(one, rule).map(|network| (network, one.clone())),
        [_, second, ..] => {
            let problem = Problem::new(format!("`{}` has more than one network", blocks.name));
            reader.refuse(&second.range, problem.hint("keep one; IPv6 and dual stack are not supported"));
        }
    }
    None
}

/// `cniConfig`, or the older `cni`.
fn cni(reader: &mut Reader, fields: &mut Fields) -> Option<Cni> {
    let old = given(reader, fields, "cni");
    let Some(value) = reader.optional(fields, "cniConfig") else {
        let Some(old) = old else {
            let problem = Problem::new("the cluster's network names no container network");
            reader.refuse(&fields.range(), problem.hint("cniConfig: {cilium: {}}"));
            return None;
        };
        return reader.parse(&old, |text| match text {
            "cilium" => Ok(Cni::Cilium),
            _ => Err(Problem::new(format!("`{text}` is no container network that metalgate brings up from this file"))
                .hint(one_of(text, &["cilium"]))),
        });
    };
    if let Some(old) = old {
        reader.refuse(&old.range, Problem::new("`cni` and `cniConfig` are both given").hint("keep `cniConfig`"));
    }
    let mut fields = reader.fields(&value)?;
    let (why, hint) = ("kindnetd is for kind's clusters alone", "use cilium: {}");
    let kindnetd = reader.optional(&mut fields, "kindnetd");
    if let Some(kindnetd) = &kindnetd {
        reader.refuse(&kindnetd.range, Problem::new(format!("`{}`: {why}", kindnetd.name)).hint(hint));
    }
    let cilium = reader.optional(&mut fields, "cilium");
    reader.finish(fields);
    let Some(cilium) = cilium else {
        if kindnetd.is_none() {
            let problem = Problem::new(format!("`{}` names no container network", value.name));
            reader.refuse(&value.range, problem.hint("cilium: {}"));
        }
        return None;
    };
    let mut fields = reader.fields(&cilium)?;
    let why = "Cilium's settings are those of the manifest that you bring with `metalgate artifacts add`";
    for field in CILIUM {
        unused::warn(reader, &mut fields, field, &Shape::Text, why);
    }
    unused::warn(reader, &mut fields, "skipUpgrade", &Shape::Flag, why);
    reader.finish(fields);
    Some(Cni::Cilium)
}

fn nodes(reader: &mut Reader, value: &Value) {
    let Some(mut fields) = reader.fields(value) else { return };
    let size = given(reader, &mut fields, "cidrMaskSize");
    reader.finish(fields);
    let Some(value) = size else { return };
    let Some(size) = reader.number(&value, 1..=32) else { return };
    if size != u32::from(NODE_PREFIX) {
        let problem = Problem::new(format!("every node gets a /{NODE_PREFIX} of the pods' network, not a /{size}"));
        reader.refuse(&value.range, problem.hint(format!("leave it out, or write {NODE_PREFIX}")));
    }
}
