//! An inventory of what was found: EKS Anywhere's columns and ours. Cells that nobody could fill stay empty, and those that have to
//! be filled are mistakes to `metalgate validate`, with line and column.

use super::{AddressRange, Asked, Found};
use crate::hardware::{Arch, BootMode, Facts, MacAddr};
use crate::inventory::{self, BmcAccess, BmcKind, Column, Row};
use crate::power::Inventory;
use crate::secret::Secret;
use std::net::{IpAddr, Ipv4Addr};

/// What the user says of machines that cannot say it themselves.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Machines are called by this and a number.
    pub prefix: String,
    /// Their addresses, in the order of the rows.
    pub addresses: Option<AddressRange>,
    /// Their default route.
    pub gateway: Option<Ipv4Addr>,
    /// Their resolvers.
    pub nameservers: Vec<IpAddr>,
    /// Labels of all of them.
    pub labels: String,
    /// Disk of all of them; else that of machines which have only one.
    pub disk: Option<String>,
}

/// A hardware.csv.
#[derive(Debug)]
pub struct Made {
    /// The file, with passwords in it where there are BMCs.
    pub csv: Secret<String>,
    /// How many machines it has.
    pub machines: usize,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

/// A machine, put together of what is known of it.
#[derive(Default)]
struct Machine<'a> {
    bmc: Option<&'a BmcAccess>,
    mac: Option<MacAddr>,
    arch: Option<Arch>,
    boot_mode: Option<BootMode>,
    /// Selectors of its disks: one, if there is no choice.
    disks: Vec<String>,
}

/// Puts together what was found by DHCP and what BMCs say. What is the same machine is known by MAC addresses and UUIDs.
pub fn make(found: &[Found], asked: &[Asked], wanted: &Wanted) -> Result<Made, csv::Error> {
    let mut notes = Vec::new();
    let (candidates, others): (Vec<&Found>, Vec<&Found>) =
        found.iter().partition(|one| one.boots || one.facts.is_some());
    if !others.is_empty() {
        let macs: Vec<String> = others.iter().map(|one| one.mac.to_string()).collect();
        notes.push(format!("left out, as they did not boot from the network: {}", macs.join(", ")));
    }
    let mut left = distinct(&candidates);
    let mut machines: Vec<Machine> = asked.iter().map(|one| of_bmc(one, &mut left, &mut notes)).collect();
    machines.extend(left.into_iter().map(of_found));
    let csv = inventory::write(&rows(&machines, wanted, &mut notes))?;
    Ok(Made { csv, machines: machines.len(), notes })
}

/// One of each machine: several interfaces of it may have been heard. The one with facts is kept, else the first.
fn distinct<'a>(found: &[&'a Found]) -> Vec<&'a Found> {
    let same = |one: &Found, other: &Found| {
        let has = |facts: Option<&Facts>, mac| facts.is_some_and(|facts| facts.nics.iter().any(|nic| nic.mac == mac));
        one.uuid.is_some() && one.uuid == other.uuid
            || has(one.facts.as_ref(), other.mac)
            || has(other.facts.as_ref(), one.mac)
    };
    let mut kept: Vec<&Found> = Vec::new();
    for one in found {
        match kept.iter_mut().find(|other| same(one, other)) {
            Some(other) if other.facts.is_none() && one.facts.is_some() => *other = one,
            Some(_) => {}
            None => kept.push(one),
        }
    }
    kept
}

fn of_found<'a>(found: &Found) -> Machine<'a> {
    Machine {
        bmc: None,
        mac: Some(found.mac),
        arch: found.arch,
        boot_mode: found.boot_mode,
        disks: found.facts.iter().flat_map(disks_of_facts).collect(),
    }
}

/// A BMC's machine; what was found of it is taken out of `left`.
fn of_bmc<'a>(asked: &'a Asked, left: &mut Vec<&Found>, notes: &mut Vec<String>) -> Machine<'a> {
    let bmc = Some(&asked.bmc);
    let inventory = match &asked.answer {
        Ok(Some(inventory)) => inventory,
        Ok(None) => {
            notes.push(format!("{}: IPMI does not tell the machine's MAC addresses and disks", asked.bmc.url));
            return Machine { bmc, ..Machine::default() };
        }
        Err(error) => {
            notes.push(error.to_string());
            return Machine { bmc, ..Machine::default() };
        }
    };
    let is_ours = |found: &&Found| {
        let of_facts = found.facts.iter().flat_map(|facts| &facts.nics).map(|nic| nic.mac);
        of_facts.chain([found.mac]).any(|mac| inventory.nics.iter().any(|nic| nic.mac == mac))
    };
    let told = of_inventory(inventory);
    let Some(index) = left.iter().position(is_ours) else {
        if told.mac.is_none() {
            notes.push(format!("{}: it does not tell which port the machine boots from", asked.bmc.url));
        }
        return Machine { bmc, ..told };
    };
    let found = of_found(left.remove(index));
    Machine {
        bmc,
        mac: found.mac,
        arch: found.arch.or(told.arch),
        boot_mode: found.boot_mode.or(told.boot_mode),
        disks: if found.disks.is_empty() { told.disks } else { found.disks },
    }
}

fn of_inventory<'a>(inventory: &Inventory) -> Machine<'a> {
    // The only port, or the only one with a cable; else it is the user's choice.
    let linked: Vec<MacAddr> = inventory.nics.iter().filter(|nic| nic.link == Some(true)).map(|nic| nic.mac).collect();
    let mac = match (inventory.nics.as_slice(), linked.as_slice()) {
        ([only], _) => Some(only.mac),
        (_, [only]) => Some(*only),
        _ => None,
    };
    let serial = |serial: &Option<String>| serial.as_deref().and_then(|serial| hint("serial", serial));
    Machine {
        bmc: None,
        mac,
        arch: inventory.arch,
        boot_mode: inventory.boot_mode,
        disks: inventory.drives.iter().map(|drive| serial(&drive.serial).unwrap_or_default()).collect(),
    }
}

/// What names each disk for good.
fn disks_of_facts(facts: &Facts) -> Vec<String> {
    let name = |disk: &crate::hardware::DiskFacts| {
        let wwn = disk.wwn.as_deref().and_then(|wwn| hint("wwn", wwn));
        let by_id = || disk.by_id.first().map(|name| format!("/dev/disk/by-id/{name}"));
        let serial = || disk.serial.as_deref().and_then(|serial| hint("serial", serial));
        wwn.or_else(serial).or_else(by_id).unwrap_or_else(|| disk.path.clone())
    };
    facts.disks.iter().map(name).collect()
}

/// A hint, if it can be one: blanks would end it.
fn hint(what: &str, value: &str) -> Option<String> {
    let fits = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == ';' || c == '|');
    fits.then(|| format!("{what}={value}"))
}

/// The address alone where that says all, as EKS Anywhere wants it; else the URL.
fn bmc_ip(bmc: &BmcAccess) -> String {
    let host = bmc.url.trim_start_matches("https://").trim_start_matches("ipmi://").trim_end_matches(":623");
    let host = if host.parse::<IpAddr>().is_ok() { host } else { &bmc.url };
    host.to_owned()
}

fn rows(machines: &[Machine], wanted: &Wanted, notes: &mut Vec<String>) -> Vec<Row> {
    let taken = wanted.gateway.into_iter().collect();
    let mut free = wanted.addresses.map(|range| range.free(taken));
    let nameservers: Vec<String> = wanted.nameservers.iter().map(IpAddr::to_string).collect();
    let gateway = wanted.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    let digits = machines.len().to_string().len();
    let mut rows = Vec::new();
    for (index, machine) in machines.iter().enumerate() {
        let hostname = format!("{}{:0digits$}", wanted.prefix, index + 1);
        let address = free.as_mut().and_then(Iterator::next);
        if free.is_some() && address.is_none() {
            notes.push(format!("{hostname}: no address is left, give --addresses a larger range"));
        }
        let bmc = |text: fn(&BmcAccess) -> String| machine.bmc.map(text).unwrap_or_default();
        let disk = match (&wanted.disk, machine.disks.as_slice()) {
            (Some(disk), _) => disk.clone(),
            (None, [only]) => only.clone(),
            (None, several) => {
                if !several.is_empty() {
                    notes.push(format!("{hostname}: one of its disks has to be chosen: {}", several.join(", ")));
                }
                String::new()
            }
        };
        rows.push(vec![
            (Column::Hostname, hostname),
            (Column::BmcIp, bmc(bmc_ip)),
            (Column::BmcUsername, bmc(|bmc| bmc.username.clone())),
            (Column::BmcPassword, bmc(|bmc| bmc.password.expose().clone())),
            (Column::Mac, machine.mac.map(|mac| mac.to_string()).unwrap_or_default()),
            (Column::IpAddress, address.map(|address| address.addr().to_string()).unwrap_or_default()),
            (Column::Netmask, address.map(|address| address.netmask().to_string()).unwrap_or_default()),
            (Column::Gateway, gateway.clone()),
            (Column::Nameservers, nameservers.join("|")),
            (Column::Labels, wanted.labels.clone()),
            (Column::Disk, disk),
            (Column::BmcType, bmc(|bmc| String::from(if bmc.kind == BmcKind::Ipmi { "ipmi" } else { "" }))),
            (Column::Arch, machine.arch.map(|arch| arch.to_string()).unwrap_or_default()),
            (Column::BootMode, machine.boot_mode.map(|mode| mode.to_string()).unwrap_or_default()),
        ]);
    }
    rows
}
