//! Phase: our place on the provisioning network.

use super::{Phase, PhaseResult, Request, Run};
use async_trait::async_trait;
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
    #[error("this machine has no interface `{name}` (spec.provisioning.interface); it has {}", .known.join(", "))]
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

#[async_trait]
impl Phase for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    fn title(&self) -> &'static str {
        "finding the provisioning network"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        run.address = Some(find(&run.request)?);
        Ok(())
    }
}

/// Our address on the provisioning network, which no machine of the inventory may have.
pub fn find(request: &Request) -> Result<Ipv4Addr, NetworkError> {
    let provisioning = &request.spec.provisioning;
    let address = own_address(&provisioning.interface, provisioning.address)?;
    match request.machines.iter().find(|machine| machine.address.addr() == address) {
        None => Ok(address),
        Some(machine) => {
            let (machine, interface) = (machine.hostname.clone(), provisioning.interface.clone());
            Err(NetworkError::Ours { machine, address, interface })
        }
    }
}

/// Our address on the interface: the one asked for, else its first IPv4 address.
fn own_address(interface: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
    let all = if_addrs::get_if_addrs().map_err(NetworkError::List)?;
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

    #[test]
    fn an_interface_without_the_address_and_one_that_is_not_there_are_told_apart() {
        let loopback = Ipv4Addr::LOCALHOST;
        assert_eq!(own_address("lo", None).unwrap(), loopback);
        assert_eq!(own_address("lo", Some(loopback)).unwrap(), loopback);
        let foreign = own_address("lo", Some(Ipv4Addr::new(192, 0, 2, 1))).unwrap_err();
        assert!(foreign.to_string().contains("not the address 192.0.2.1"), "{foreign}");
        let missing = own_address("eno17", None).unwrap_err().to_string();
        assert!(missing.contains("no interface `eno17`") && missing.contains("lo"), "{missing}");
    }
}
