//! Which MAC addresses are ours, and which of them may boot from the network now.

use crate::hardware::{Arch, BootMode, MacAddr};
use ipnet::Ipv4Net;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

/// One machine, as the boot services need it.
#[derive(Clone, Debug, PartialEq)]
pub struct BootEntry {
    /// Hostname.
    pub machine: String,
    /// Interface that it boots from.
    pub mac: MacAddr,
    /// Its address and prefix length.
    pub address: Ipv4Net,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Resolvers.
    pub nameservers: Vec<IpAddr>,
    /// Architecture by the inventory.
    pub arch: Arch,
    /// Firmware by the inventory.
    pub boot_mode: BootMode,
    /// Whether it is being installed now: only then is it answered.
    pub installing: bool,
}

/// The machines that we know, by MAC address. Cheap to clone; all clones are one table.
#[derive(Clone, Debug, Default)]
pub struct BootTable(Arc<RwLock<HashMap<MacAddr, BootEntry>>>);

impl BootTable {
    /// Adds a machine, or replaces what was known of it.
    pub fn set(&self, entry: BootEntry) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(entry.mac, entry);
    }

    /// Forgets a machine.
    pub fn remove(&self, mac: MacAddr) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&mac);
    }

    /// What is known of `mac`, whether it is being installed or not.
    pub fn get(&self, mac: MacAddr) -> Option<BootEntry> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&mac).cloned()
    }

    /// The machine whose address is `address`.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<BootEntry> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.values().find(|entry| entry.address.addr() == address).cloned()
    }
}
