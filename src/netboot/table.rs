//! Which MAC addresses are ours, and which of them may boot from the network now.

use crate::hardware::{Arch, BootMode, MacAddr};
use ipnet::Ipv4Net;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
pub struct BootTable(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    machines: HashMap<MacAddr, BootEntry>,
    /// Addresses that another DHCP server gave to machines of ours.
    elsewhere: HashMap<Ipv4Addr, MacAddr>,
}

impl BootTable {
    /// Adds a machine, or replaces what was known of it.
    pub fn set(&self, entry: BootEntry) {
        self.write().machines.insert(entry.mac, entry);
    }

    /// Forgets a machine.
    pub fn remove(&self, mac: MacAddr) {
        self.write().machines.remove(&mac);
    }

    /// Notes that the machine was seen with this address, which need not be the inventory's while another DHCP server
    /// gives out addresses.
    pub fn seen_at(&self, mac: MacAddr, address: Ipv4Addr) {
        let mut known = self.write();
        if known.machines.contains_key(&mac) {
            // An address for each machine: what it had before, another may have now.
            known.elsewhere.retain(|_, holder| *holder != mac);
            known.elsewhere.insert(address, mac);
        }
    }

    /// What is known of `mac`, whether it is being installed or not.
    pub fn get(&self, mac: MacAddr) -> Option<BootEntry> {
        self.read().machines.get(&mac).cloned()
    }

    /// The machine whose address is `address`, by the inventory or as it was seen.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<BootEntry> {
        let known = self.read();
        let reserved = known.machines.values().find(|entry| entry.address.addr() == address);
        reserved.or_else(|| known.machines.get(known.elsewhere.get(&address)?)).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The machine `node-LAST`, with an address and a MAC address that end alike.
    pub(in crate::netboot) fn entry(last: u8, installing: bool) -> BootEntry {
        BootEntry {
            machine: format!("node-{last}"),
            mac: MacAddr([0x52, 0x54, 0, 0xaa, 0, last]),
            address: format!("10.0.0.{last}/24").parse().unwrap(),
            gateway: [10, 0, 0, 1].into(),
            nameservers: Vec::new(),
            arch: Arch::Amd64,
            boot_mode: BootMode::Uefi,
            installing,
        }
    }

    #[test]
    fn a_machine_is_known_by_the_address_it_was_seen_with() {
        let table = BootTable::default();
        let (first, second) = (entry(1, true), entry(2, true));
        table.set(first.clone());
        table.set(second.clone());
        let at = |last: u8| table.by_address([10, 0, 0, last].into()).map(|entry| entry.machine);
        assert_eq!((at(1), at(100)), (Some("node-1".into()), None));
        table.seen_at(first.mac, [10, 0, 0, 100].into());
        assert_eq!(at(100), Some("node-1".into()));
        // Its next lease is another, and its old one another machine's.
        table.seen_at(first.mac, [10, 0, 0, 101].into());
        assert_eq!((at(100), at(101)), (None, Some("node-1".into())));
        table.seen_at(second.mac, [10, 0, 0, 101].into());
        assert_eq!(at(101), Some("node-2".into()));
        // A stranger is not remembered, and nobody takes a reserved address over.
        table.seen_at(MacAddr([2, 0, 0, 0, 0, 9]), [10, 0, 0, 102].into());
        table.seen_at(second.mac, [10, 0, 0, 1].into());
        assert_eq!((at(102), at(1)), (None, Some("node-1".into())));
        table.remove(second.mac);
        assert_eq!(at(2), None);
    }
}
