//! The networks of pods and services: how long their prefixes may be, and how they have to fit each other, the endpoint and
//! the number of nodes. For both readers of a spec.

use super::reader::Reader;
use super::{Group, Known, values};
use crate::diagnostic::Problem;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::ops::Range;

/// Longest prefixes: kubeadm gives every node a /24 of the pods' network and wants ten service addresses.
pub const NODE_PREFIX: u8 = 24;
const LONGEST_SERVICE_PREFIX: u8 = 28;

/// A network, and where it stands (a default: where it could be given).
pub type Placed = Option<(Ipv4Net, Range<usize>)>;

/// The network of pods.
pub fn pods(text: &str) -> Result<Ipv4Net, Problem> {
    values::network(text, NODE_PREFIX, "every node takes a /24 of it")
}

/// The network of services.
pub fn services(text: &str) -> Result<Ipv4Net, Problem> {
    values::network(text, LONGEST_SERVICE_PREFIX, "kubeadm wants ten service addresses or more")
}

/// Neither network reaches into the other, and the endpoint is in none.
pub fn keep_apart(
    reader: &mut Reader,
    known: &mut Known,
    pods: &Placed,
    services: &Placed,
    endpoint: Option<(Ipv4Addr, Range<usize>)>,
) {
    if let (Some((pods, range)), Some((services, _))) = (pods, services)
        && (pods.contains(services) || services.contains(pods))
    {
        reader.refuse(range, Problem::new(format!("podCIDR {pods} and serviceCIDR {services} overlap")));
    }
    if let Some((host, range)) = endpoint {
        for (name, network) in [("podCIDR", pods), ("serviceCIDR", services)] {
            if let Some((network, _)) = network.as_ref().filter(|(network, _)| network.contains(&host)) {
                let problem = Problem::new(format!("the endpoint {host} lies in {name} {network}"));
                reader.refuse(&range, problem.hint("it has to be an address of the machines' network"));
            }
        }
    }
    known.pod_cidr = pods.as_ref().map(|(network, _)| *network);
    known.service_cidr = services.as_ref().map(|(network, _)| *network);
}

/// Every node takes a /24 of the pods' network, which stands at `range`.
pub fn leave_room(reader: &mut Reader, known: &Known, groups: &[Group], range: &Range<usize>) {
    let Some(network) = known.pod_cidr else { return };
    let nodes: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
    let room = 1u64 << (NODE_PREFIX - network.prefix_len());
    if nodes > room {
        let message = format!("podCIDR {network} has room for {room} nodes (a /24 each), but the cluster has {nodes}");
        reader.refuse(range, Problem::new(message).hint("give it a shorter prefix"));
    }
}
