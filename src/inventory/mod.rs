//! hardware.csv: rows with positions, then machines that cannot be wrong.
//!
//! EKS Anywhere's columns as they are, plus ours. `table` makes cells of the file, `header` knows the columns, `values`
//! and `bmc` say what cells have to look like, `rows` makes machines and holds the rows against each other. Passwords
//! are never repeated in a message. Fed by the user's file; feeds `plan`. Pure: no clock, no network.

mod bmc;
mod header;
mod rows;
mod table;
mod values;

pub use header::Column;

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source};
use crate::hardware::{Arch, BootMode, DiskSelector, MacAddr};
use crate::secret::Secret;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// What could be read of a hardware.csv.
pub struct Read {
    /// Machines whose rows are right, in the order of the file.
    pub machines: Vec<Machine>,
    /// Rows that are no machine, because something is wrong in them; none if the file could not be read at all.
    pub lost: Option<usize>,
    /// The mistakes found.
    pub diagnostics: Diagnostics,
    source: Source,
    header: Option<header::Header>,
    records: Vec<table::Record>,
}

/// Reads a hardware.csv that the user calls `name`.
pub fn read(name: &str, bytes: Vec<u8>) -> Read {
    let mut source = match Source::new(name, bytes) {
        Ok(source) => source,
        Err(diagnostic) => return Read::unreadable(name, *diagnostic),
    };
    let records = table::records(&source);
    source.hide(records.first().map(header::misplaced).unwrap_or_default());
    let (machines, diagnostics) = (Vec::new(), Diagnostics::default());
    let mut read = Read { machines, lost: None, diagnostics, source, header: None, records };
    let Some((first, rest)) = read.records.split_first() else {
        let hint =
            "its first line names the columns: hostname,mac,ip_address,netmask,gateway,nameservers,labels,disk,...";
        read.diagnostics.push(Diagnostic::error(Place::file(name), "the file is empty").hint(hint));
        return read;
    };
    read.header = header::Header::read(&read.source, first, &mut read.diagnostics);
    let Some(header) = &read.header else { return read };
    let secrets: Vec<_> = rest.iter().flat_map(|record| header.secrets(record)).collect();
    read.source.hide(secrets);
    let mut rows = rows::Rows::new(&read.source, header);
    rest.iter().for_each(|record| rows.take(record));
    let (machines, lost, found) = rows.finish();
    read.diagnostics.extend(found);
    if machines.is_empty() && lost == 0 {
        let problem = Diagnostic::error(Place::file(name), "there is no machine in it");
        read.diagnostics.push(problem.hint("one row per machine below the line of columns"));
    } else {
        read.lost = Some(lost);
    }
    read.machines = machines;
    read
}

impl Read {
    /// A file of which nothing could be read, and why.
    pub fn unreadable(name: &str, diagnostic: Diagnostic) -> Self {
        let (diagnostics, source) = (Diagnostics::of(diagnostic), Source::empty(name));
        Self { machines: Vec::new(), lost: None, diagnostics, source, header: None, records: Vec::new() }
    }

    /// Where a cell of a machine's row is.
    pub fn place(&self, machine: &Machine, column: Column) -> Place {
        let record = self.records.binary_search_by_key(&machine.line, |record| record.line).ok();
        let index = self.header.as_ref().and_then(|header| header.index(column));
        let cell = record.zip(index).and_then(|(record, index)| self.records[record].cells.get(index));
        match cell {
            Some(cell) => self.source.place(cell.range.clone()),
            None => Place::file(self.source.name()),
        }
    }
}

/// One row of the inventory, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Line of the row in the file, counted from 1.
    pub line: u64,
    /// DNS-1123 subdomain, unique.
    pub hostname: String,
    /// Address of the interface that the machine boots from, unique.
    pub mac: MacAddr,
    /// The machine's address with its prefix length.
    pub address: Ipv4Net,
    /// Default route.
    pub gateway: Ipv4Addr,
    /// Resolvers.
    pub nameservers: Vec<IpAddr>,
    /// What selectors match.
    pub labels: BTreeMap<String, String>,
    /// Where the operating system goes.
    pub disk: DiskSelector,
    /// 802.1Q tag of the installed system's network.
    pub vlan: Option<u16>,
    /// How it is powered on; without one the operator does it by hand.
    pub bmc: Option<BmcAccess>,
    /// Processor architecture.
    pub arch: Arch,
    /// Firmware.
    pub boot_mode: BootMode,
}

/// How to reach a machine's management controller.
#[derive(Clone, Debug, PartialEq)]
pub struct BmcAccess {
    /// Protocol.
    pub kind: BmcKind,
    /// Redfish: `https://10.0.0.5` or with port and path to one System; IPMI: `ipmi://10.0.0.5:623`.
    pub url: String,
    /// Account.
    pub username: String,
    /// Its password.
    pub password: Secret<String>,
}

/// Management protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BmcKind {
    /// DMTF Redfish over HTTPS.
    #[default]
    Redfish,
    /// IPMI 2.0 over RMCP+, through the `ipmitool` program.
    Ipmi,
}
