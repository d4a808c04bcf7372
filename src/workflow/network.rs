//! Phase: our place on the provisioning network.

use super::{Phase, PhaseResult, Request, Run};
use crate::inventory::Machine;
use crate::spec::Provisioning;
use async_trait::async_trait;
use if_addrs::Interface;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

pub struct Network;

/// The provisioning interface is not usable.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel does not say which interfaces there are.
    #[error("cannot list this machine's network interfaces")]
    List(#[source] std::io::Error),
    /// No interface of that name.
    #[error("this machine has no interface `{name}`; it has {}", .known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The interface lacks the address, or any.
    #[error("interface {name} has {}; give it one in the machines' network", match .wanted {
        Some(address) => format!("not the address {address} (spec.provisioning.address)"),
        None => String::from("no IPv4 address"),
    })]
    NoAddress {
        /// The interface.
        name: String,
        /// The address asked for.
        wanted: Option<Ipv4Addr>,
    },
    /// No interface is named, and none, or more than one, would do.
    #[error("{} {what}; {}", match .found.len() {
        0 => "no interface of this machine",
        _ => "more than one interface of this machine",
    }, match .found.as_slice() {
        [] => String::from("give it one there, or name the interface to use (spec.provisioning.interface)"),
        found => format!("name the one to use (spec.provisioning.interface): {}", found.join(", ")),
    })]
    Unclear {
        /// What the interface would have.
        what: String,
        /// Interfaces that would do.
        found: Vec<String>,
    },
    /// A machine of the inventory is to have our address.
    #[error("{machine} has {address} in the inventory, which is this machine's own address on {interface}")]
    Ours {
        /// The machine.
        machine: String,
        /// Our address.
        address: Ipv4Addr,
        /// Our interface.
        interface: String,
    },
}

/// Our place on the provisioning network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interface.
    pub interface: String,
    /// Our address on it.
    pub address: Ipv4Addr,
}

#[async_trait]
impl Phase for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn title(&self) -> &'static str {
        "finding the provisioning network"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        run.network = Some(find(&run.request)?);
        Ok(())
    }
}

/// Our place on the provisioning network; no machine of the inventory may have its address.
pub fn find(request: &Request) -> Result<Place, NetworkError> {
    let own = own_place(&request.spec.provisioning, &request.machines)?;
    match request.machines.iter().find(|machine| machine.address.addr() == own.address) {
        None => Ok(own),
        Some(machine) => {
            let Place { interface, address } = own;
            Err(NetworkError::Ours { machine: machine.hostname.clone(), address, interface })
        }
    }
}

/// Our first IPv4 address on an interface.
pub fn address_of(interface: &str) -> Result<Ipv4Addr, NetworkError> {
    own_address(&if_addrs::get_if_addrs().map_err(NetworkError::List)?, interface, None)
}

/// Whether there is such an interface, with an address or without.
pub fn known(interface: &str) -> Result<(), NetworkError> {
    match address_of(interface) {
        Ok(_) | Err(NetworkError::NoAddress { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The interface of the spec, or else the one with the address of the spec, or else the one in the first machine's network.
fn own_place(spec: &Provisioning, machines: &[Machine]) -> Result<Place, NetworkError> {
    let all = if_addrs::get_if_addrs().map_err(NetworkError::List)?;
    if let Some(interface) = &spec.interface {
        let address = own_address(&all, interface, spec.address)?;
        return Ok(Place { interface: interface.clone(), address });
    }
    let network = machines.first().map(|machine| machine.address.trunc());
    let fits = |address: &Ipv4Addr| match spec.address {
        Some(wanted) => *address == wanted,
        None => network.is_some_and(|network| network.contains(address)),
    };
    let fitting = all.iter().filter_map(|found| match found.ip() {
        IpAddr::V4(address) if fits(&address) => Some(Place { interface: found.name.clone(), address }),
        _ => None,
    });
    let mut fitting: Vec<Place> = fitting.collect();
    fitting.dedup_by(|next, first| next.interface == first.interface);
    match (fitting.len(), fitting.pop()) {
        (1, Some(place)) => Ok(place),
        (_, last) => {
            let what = match (spec.address, network) {
                (Some(address), _) => format!("has the address {address} (spec.provisioning.address)"),
                (None, Some(network)) => format!("has an address in the machines' network {network}"),
                (None, None) => String::from("is in the machines' network"),
            };
            let found = fitting.into_iter().chain(last).map(|place| place.interface).collect();
            Err(NetworkError::Unclear { what, found })
        }
    }
}

/// Our address on the interface: the one asked for, else its first IPv4 address.
fn own_address(all: &[Interface], interface: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
    let mut addresses = all.iter().filter(|found| found.name == interface).filter_map(|found| match found.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let found = match wanted {
        Some(wanted) => addresses.find(|address| *address == wanted),
        None => addresses.next(),
    };
    found.ok_or_else(|| {
        let name = interface.to_owned();
        // An interface without any address is not in the list, but in sysfs.
        if Path::new("/sys/class/net").join(&name).exists() {
            return NetworkError::NoAddress { name, wanted };
        }
        let mut known: Vec<String> = all.iter().map(|found| found.name.clone()).collect();
        known.sort();
        known.dedup();
        NetworkError::Unknown { name, known }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::DhcpMode;

    fn own(interface: Option<&str>, address: Option<Ipv4Addr>) -> Result<Place, String> {
        let interface = interface.map(str::to_owned);
        let spec = Provisioning { interface, address, dhcp: DhcpMode::Reservation, http_port: 8080, agent_port: 8443 };
        own_place(&spec, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn an_interface_without_the_address_and_one_that_is_not_there_are_told_apart() {
        let loopback = Place { interface: String::from("lo"), address: Ipv4Addr::LOCALHOST };
        assert_eq!(own(Some("lo"), None), Ok(loopback.clone()));
        assert_eq!(own(Some("lo"), Some(loopback.address)), Ok(loopback));
        let foreign = own(Some("lo"), Some(Ipv4Addr::new(192, 0, 2, 1))).unwrap_err();
        assert!(foreign.contains("not the address 192.0.2.1"), "{foreign}");
        let missing = own(Some("eno17"), None).unwrap_err();
        assert!(missing.contains("no interface `eno17`") && missing.contains("lo"), "{missing}");
    }

    #[test]
    fn without_a_name_the_interface_is_found_by_its_address_or_by_the_machines() {
        let loopback = Place { interface: String::from("lo"), address: Ipv4Addr::LOCALHOST };
        assert_eq!(own(None, Some(loopback.address)), Ok(loopback.clone()));
        let foreign = own(None, Some(Ipv4Addr::new(192, 0, 2, 1))).unwrap_err();
        assert!(foreign.starts_with("no interface of this machine has the address 192.0.2.1"), "{foreign}");
        let csv = "hostname,mac,ip_address,netmask,gateway,nameservers,labels,disk\n\
                   a,52:54:00:00:00:01,NETWORK.9,/24,NETWORK.1,9.9.9.9,a=b,/dev/sda\n";
        let found = |network: &str| {
            let inventory = crate::inventory::read("f", csv.replace("NETWORK", network).into());
            let dhcp = DhcpMode::Reservation;
            let spec = Provisioning { interface: None, address: None, dhcp, http_port: 8080, agent_port: 8443 };
            own_place(&spec, &inventory.machines).map_err(|error| error.to_string())
        };
        let none = found("198.51.100").unwrap_err();
        assert!(none.contains("has an address in the machines' network 198.51.100.0/24"), "{none}");
    }
}
