//! Phase: DHCP, TFTP, HTTP and the agent's API, on the provisioning network.

use super::{Phase, PhaseResult, Run, RunError};
use crate::controllers::{ApiInstallations, Context, Limits, Sightings};
use crate::netboot::BootTable;
use crate::power;
use crate::spec::DhcpMode;
use async_trait::async_trait;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

pub struct Netboot;

/// The provisioning interface is not usable.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
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
}

/// Our address on the interface: the one asked for, else its first IPv4 address.
pub fn own_address(interface: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, InterfaceError> {
    let all = if_addrs::get_if_addrs().map_err(InterfaceError::List)?;
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
        let mut known: Vec<String> = all.into_iter().map(|found| found.name).collect();
        known.sort();
        known.dedup();
        // An interface without any address is not listed at all, so both cases can look the same.
        match known.contains(&name) || std::path::Path::new("/sys/class/net").join(&name).exists() {
            true => InterfaceError::NoAddress { name, wanted },
            false => InterfaceError::Unknown { name, known },
        }
    })
}
