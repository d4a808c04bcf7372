//! Rows made into machines, and held against each other.

use super::bmc::{self, BmcAddress};
use super::header::{Column, Header};
use super::table::{Cell, Record};
use super::{BmcAccess, Machine, values};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Problem, Source};
use crate::hardware::MacAddr;
use crate::secret::Secret;
use ipnet::Ipv4Net;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

/// The rows so far.
pub struct Rows<'a> {
    source: &'a Source,
    header: &'a Header,
    found: Diagnostics,
    machines: Vec<Machine>,
    lost: usize,
    hostnames: HashMap<String, u64>,
    macs: HashMap<MacAddr, u64>,
    addresses: HashMap<Ipv4Addr, u64>,
    gateways: HashMap<Ipv4Addr, u64>,
    bmcs: HashMap<String, u64>,
    /// Cells to be looked at again when all rows are known.
    own: Vec<(Ipv4Addr, Range<usize>)>,
    bmc_hosts: Vec<(Ipv4Addr, Range<usize>)>,
    clear: Vec<Range<usize>>,
}

impl<'a> Rows<'a> {
    /// Rows of `source` under `header`.
    pub fn new(source: &'a Source, header: &'a Header) -> Self {
        Self {
            source,
            header,
            found: Diagnostics::default(),
            machines: Vec::new(),
            lost: 0,
            hostnames: HashMap::new(),
            macs: HashMap::new(),
            addresses: HashMap::new(),
            gateways: HashMap::new(),
            bmcs: HashMap::new(),
            own: Vec::new(),
            bmc_hosts: Vec::new(),
            clear: Vec::new(),
        }
    }

    /// Takes the next row.
    pub fn take(&mut self, record: &Record) {
        if record.is_blank() {
            return;
        }
        if !self.is_whole(record) {
            // A quote that is out of place may have taken the next rows into its cell.
            let lines = record.cells.iter().map(|cell| cell.value.matches('\n').count()).sum::<usize>();
            self.lost += 1 + lines;
            return;
        }
        match self.machine(record) {
            Some(machine) => self.machines.push(machine),
            None => self.lost += 1,
        }
    }

    /// The machines, how many rows are none, and the mistakes.
    pub fn finish(mut self) -> (Vec<Machine>, usize, Diagnostics) {
        for (address, range) in std::mem::take(&mut self.own) {
            if let Some(line) = self.gateways.get(&address) {
                let problem = Problem::new(format!("{address} is the gateway of line {line}"));
                self.refuse(&range, problem.hint("a machine cannot have its router's address"));
            }
        }
        for (address, range) in std::mem::take(&mut self.bmc_hosts) {
            if let Some(line) = self.addresses.get(&address) {
                let problem = Problem::new(format!("{address} is the address of the machine in line {line}"));
                self.refuse(&range, problem.hint("a BMC has an address of its own"));
            }
        }
        if let Some(first) = self.clear.first() {
            let place = self.source.place(first.clone());
            let message = match self.clear.len() {
                1 => String::from("the password of this BMC travels unencrypted"),
                count => format!("the passwords of this and {} more BMCs travel unencrypted", count - 1),
            };
            self.found.push(Diagnostic::warning(place, message).hint("use https: if the BMC can"));
        }
        (self.machines, self.lost, self.found)
    }

    /// Whether each cell of the row is under its column.
    pub fn is_whole(&mut self, record: &Record) -> bool {
        let first = record.cells.first().map(|cell| cell.range.clone()).unwrap_or_default();
        // Which cell a text belongs to is not known here, and one of them is a password: nothing of the row is shown.
        let hidden = |place: Place| Place { text: String::new(), ..place }.without_excerpt();
        for cell in &record.cells {
            if let Some(problem) = &cell.problem {
                let place = hidden(self.source.place(cell.range.clone()));
                self.found.push(problem.clone().at(place));
                return false;
            }
        }
        let (cells, columns) = (record.cells.len(), self.header.len());
        let problem = if cells != columns {
            let hint = match cells > columns {
                true => "put a cell that has a comma in it between quotes",
                false => "every column needs its comma, also where the cell is empty",
            };
            Problem::new(format!("this row has {cells} cells, but there are {columns} columns")).hint(hint)
        } else if self.is_shifted(record) {
            let hint = "a cell with a comma in it belongs between quotes, and an empty cell keeps its comma";
            Problem::new("the MAC address of this row is not in its column").hint(hint)
        } else {
            return true;
        };
        self.found.push(problem.at(hidden(self.source.place(first))));
        false
    }

    /// Whether the MAC address stands under another column: then the password may do so too.
    fn is_shifted(&self, record: &Record) -> bool {
        let is_mac = |cell: &Cell| values::mac(cell.value.trim()).is_ok();
        let mac = self.header.index(Column::Mac).and_then(|index| record.cells.get(index));
        !mac.is_some_and(is_mac) && record.cells.iter().any(is_mac)
    }

    fn machine(&mut self, record: &Record) -> Option<Machine> {
        let line = record.line;
        let hostname = self.required(record, Column::Hostname, values::hostname);
        let hostname = hostname.and_then(|(name, cell)| {
            let first = once(&mut self.hostnames, name.clone(), line);
            self.unique(first, &cell, || format!("host name `{name}`")).then_some(name)
        });
        let mac = self.required(record, Column::Mac, values::mac).and_then(|(mac, cell)| {
            let first = once(&mut self.macs, mac, line);
            self.unique(first, &cell, || format!("MAC address {mac}")).then_some(mac)
        });
        let network = self.network(record);
        let nameservers = self.required(record, Column::Nameservers, values::nameservers);
        let labels = match self.cell(record, Column::Labels) {
            Some((text, range)) => self.parse(text, &range, values::labels),
            None => Some(Default::default()),
        };
        let disk = self.required(record, Column::Disk, values::disk);
        let vlan = self.optional(record, Column::VlanId, values::vlan);
        let arch = self.optional(record, Column::Arch, values::arch);
        let boot_mode = self.optional(record, Column::BootMode, values::boot_mode);
        let bmc = self.bmc(record);
        let (address, gateway) = network?;
        Some(Machine {
            line,
            hostname: hostname?,
            mac: mac?,
            address,
            gateway,
            nameservers: nameservers?.0,
            labels: labels?,
            disk: disk?.0,
            vlan: vlan?,
            bmc: bmc?,
            arch: arch?.unwrap_or_default(),
            boot_mode: boot_mode?.unwrap_or_default(),
        })
    }

    /// Address and gateway, which have to lie in one network.
    fn network(&mut self, record: &Record) -> Option<(Ipv4Net, Ipv4Addr)> {
        let rule = crate::spec::host_address;
        let address = self.required(record, Column::IpAddress, rule).and_then(|(address, cell)| {
            let first = once(&mut self.addresses, address, record.line);
            self.own.push((address, cell.clone()));
            self.unique(first, &cell, || format!("address {address}")).then_some((address, cell))
        });
        let prefix = self.required(record, Column::Netmask, values::netmask);
        let gateway = self.required(record, Column::Gateway, rule);
        let ((address, address_cell), (prefix, _)) = address.zip(prefix)?;
        let network = Ipv4Net::new(address, prefix).ok()?;
        let hosts = || format!("{} has the hosts {}", network.trunc(), range_of(network));
        if address == network.network() || address == network.broadcast() {
            let name = if address == network.network() { "the network's own" } else { "the broadcast" };
            let problem = Problem::new(format!("{address} is {name} address of {}", network.trunc()));
            self.refuse(&address_cell, problem.hint(hosts()));
            return None;
        }
        let (gateway, gateway_cell) = gateway?;
        let problem = match gateway {
            _ if gateway == address => Problem::new("the gateway is the machine itself"),
            _ if !network.contains(&gateway) => {
                Problem::new(format!("gateway {gateway} is not in the machine's network {}", network.trunc()))
            }
            _ if gateway == network.network() || gateway == network.broadcast() => {
                Problem::new(format!("gateway {gateway} is not a host of {}", network.trunc()))
            }
            _ => {
                self.gateways.entry(gateway).or_insert(record.line);
                return Some((network, gateway));
            }
        };
        self.refuse(&gateway_cell, problem.hint(hosts()));
        None
    }

    /// The BMC, all of it or none.
    pub fn bmc(&mut self, record: &Record) -> Option<Option<BmcAccess>> {
        let kind = self.optional(record, Column::BmcType, values::bmc_type);
        let columns = [Column::BmcIp, Column::BmcUsername, Column::BmcPassword];
        let cells = columns.map(|column| self.cell(record, column));
        if cells.iter().all(Option::is_none) && kind.is_none_or(|kind| kind.is_none()) {
            return kind.map(|_| None);
        }
        let missing: Vec<&str> =
            columns.iter().zip(&cells).filter(|(_, cell)| cell.is_none()).map(|(column, _)| column.name()).collect();
        let address = cells[0].clone().zip(kind).and_then(|((text, range), kind)| {
            let address = self.parse(text, &range, |text| bmc::address(text, kind))?;
            self.bmc_unique(address, &range, record.line)
        });
        if !missing.is_empty() {
            let shown = cells.iter().flatten().next().map(|(_, range)| range.clone());
            let range = shown.or_else(|| self.header.index(Column::BmcType).map(|at| record.cells[at].range.clone()));
            let problem = Problem::new(format!("the BMC of this row has no {}", missing.join(" and no ")));
            self.refuse(&range.unwrap_or_default(), problem.hint("fill in all of it, or leave all of it empty"));
            return None;
        }
        let [_, username, password] = cells;
        let (username, password) = username.zip(password)?;
        // Spaces may be part of a password, so it is taken as it stands.
        let whole = record.cells.get(self.header.index(Column::BmcPassword)?)?;
        for ((text, range), name) in [(&username, "user name"), (&password, "password")] {
            if text.chars().any(char::is_control) {
                self.refuse(range, Problem::new(format!("the BMC's {name} has a control character in it")));
                return None;
            }
        }
        if whole.value.trim() != whole.value {
            let place = self.source.place(whole.range.clone());
            let message = "this password begins or ends with a space, which is taken as part of it";
            self.found.push(Diagnostic::warning(place, message));
        }
        let BmcAddress { kind, url, .. } = address?;
        let password = Secret::new(whole.value.clone());
        Some(Some(BmcAccess { kind, url, username: username.0.to_owned(), password }))
    }

    fn bmc_unique(&mut self, address: BmcAddress, range: &Range<usize>, line: u64) -> Option<BmcAddress> {
        if let Some(IpAddr::V4(host)) = address.host {
            self.bmc_hosts.push((host, range.clone()));
        }
        if address.clear {
            self.clear.push(range.clone());
        }
        let first = once(&mut self.bmcs, address.url.clone(), line);
        self.unique(first, range, || format!("BMC {}", address.url)).then_some(address)
    }

    /// The trimmed text of a cell and where it is; nothing if it is empty or has no column.
    fn cell<'r>(&self, record: &'r Record, column: Column) -> Option<(&'r str, Range<usize>)> {
        let Cell { value, range, .. } = record.cells.get(self.header.index(column)?)?;
        let text = value.trim();
        (!text.is_empty()).then(|| (text, range.clone()))
    }

    /// A cell that has to be filled.
    fn required<T>(
        &mut self,
        record: &Record,
        column: Column,
        rule: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<(T, Range<usize>)> {
        if let Some((text, range)) = self.cell(record, column) {
            return self.parse(text, &range, rule).map(|value| (value, range));
        }
        let cell = record.cells.get(self.header.index(column)?)?;
        self.refuse(&cell.range, Problem::new(format!("`{}` is empty", column.name())));
        None
    }

    /// A cell that may be empty: nothing if it is wrong.
    fn optional<T>(
        &mut self,
        record: &Record,
        column: Column,
        rule: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<Option<T>> {
        match self.cell(record, column) {
            Some((text, range)) => self.parse(text, &range, rule).map(Some),
            None => Some(None),
        }
    }

    fn parse<T>(
        &mut self,
        text: &str,
        range: &Range<usize>,
        rule: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        rule(text).map_err(|problem| self.refuse(range, problem)).ok()
    }

    /// Refuses what an earlier row has too.
    fn unique(&mut self, first: Option<u64>, range: &Range<usize>, what: impl FnOnce() -> String) -> bool {
        if let Some(first) = first {
            self.refuse(range, Problem::new(format!("{} is already that of line {first}", what())));
        }
        first.is_none()
    }

    fn refuse(&mut self, range: &Range<usize>, problem: Problem) {
        self.found.push(problem.at(self.source.place(range.clone())));
    }
}

/// Remembers the line that has `key`; if an earlier one has it, that line.
fn once<K: Hash + Eq>(seen: &mut HashMap<K, u64>, key: K, line: u64) -> Option<u64> {
    let first = *seen.entry(key).or_insert(line);
    (first != line).then_some(first)
}

/// `10.20.0.1 to 10.20.0.254`.
fn range_of(network: Ipv4Net) -> String {
    let (first, last) = (u32::from(network.network()) + 1, u32::from(network.broadcast()) - 1);
    format!("{} to {}", Ipv4Addr::from(first), Ipv4Addr::from(last))
}
