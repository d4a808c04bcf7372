//! hardware.csv: rows with positions, then machines that cannot be wrong.
//!
//! EKS Anywhere's columns as they are, plus ours. `table` makes cells of the file, `header` knows the columns, `values`
//! and `bmc` say what cells have to look like, `rows` makes machines and holds the rows against each other. Passwords
//! are never repeated in a message. `bmcs` reads a list of BMCs alone, for `discover`; `write` makes a file of rows. Fed
//! by the user's file; feeds `plan`. Pure: no clock, no network.

mod bmc;
mod bmcs;
mod header;
mod rows;
mod table;
mod values;
mod write;

pub use bmcs::read_bmcs;
pub use header::Column;
pub use write::{Row, write};

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
    read.header = header::Header::read(&read.source, first, &header::OF_MACHINES, &mut read.diagnostics);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    const HEADER: &str =
        "hostname,bmc_ip,bmc_username,bmc_password,mac,ip_address,netmask,gateway,nameservers,labels,disk,vlan_id";
    const ROW: &str = "node-1,10.0.0.11,admin,s3cret,52:54:00:aa:00:01,10.20.0.11,255.255.255.0,10.20.0.1,10.20.0.1,type=cp,/dev/sda,";

    fn of(rows: &str) -> Read {
        read("f", format!("{HEADER}\n{rows}").into())
    }

    fn mistakes(read: &Read) -> Vec<String> {
        let at = |place: &Place| place.position.map(|(line, column)| format!("{line}:{column} ")).unwrap_or_default();
        read.diagnostics.iter().map(|one| format!("{}{}", at(&one.place), one.message)).collect()
    }

    #[test]
    fn a_row_is_a_machine() {
        let read = of(ROW);
        assert_eq!(mistakes(&read), Vec::<String>::new());
        let machine = &read.machines[0];
        assert_eq!((machine.line, machine.hostname.as_str()), (2, "node-1"));
        assert_eq!(machine.address.to_string(), "10.20.0.11/24");
        assert_eq!((machine.arch, machine.boot_mode, machine.vlan), (Arch::Amd64, BootMode::Uefi, None));
        let bmc = machine.bmc.as_ref().unwrap();
        assert_eq!(
            (bmc.kind, bmc.url.as_str(), bmc.password.expose().as_str()),
            (BmcKind::Redfish, "https://10.0.0.11", "s3cret")
        );
    }

    #[test]
    fn a_password_is_taken_as_it_stands() {
        for (cell, password) in [("\"a,\"\"b\"\"\"", "a,\"b\""), (" x ", " x "), ("päss=|;#'", "päss=|;#'")] {
            let read = of(&ROW.replace("s3cret", cell));
            assert_eq!(read.machines[0].bmc.as_ref().unwrap().password.expose(), password);
        }
        let read = of(&ROW.replace("s3cret", "x "));
        assert_eq!(mistakes(&read), ["2:24 this password begins or ends with a space, which is taken as part of it"]);
    }

    #[test]
    fn columns_are_counted_in_characters_of_the_file() {
        let row = ROW.replace("node-1", "\"node-1\"").replace("s3cret", "\"ä,ö\"").replace("52:54", "52-54");
        assert_eq!(
            mistakes(&of(&row)),
            ["2:32 `52-54:00:aa:00:01` is not a MAC address (six hexadecimal pairs, as in 52:54:00:aa:00:01)"]
        );
    }

    #[test]
    fn lines_are_counted_through_blank_lines_quoted_line_ends_and_other_line_ends() {
        let second = || ROW.replace("-1,", "-2,").replace(".11", ".12").replace("00:01", "00:02");
        let broken = second().replace("10.20.0.12", "10.20.0.0");
        for end in ["\n", "\r\n", "\r"] {
            let text =
                format!("{HEADER}{end}{end}{}{end},,,,,,,,,,,{end}{broken}{end}", ROW.replace("s3cret", "\"a b\""));
            let read = read("f", text.into());
            assert_eq!(mistakes(&read), ["5:49 10.20.0.0 is the network's own address of 10.20.0.0/24"], "{end:?}");
            assert_eq!((read.machines[0].line, read.lost), (3, Some(1)));
        }
        let read = of(&format!("{}\n{broken}", ROW.replace("node-1", "\"node\n-1\"")));
        assert!(mistakes(&read)[1].starts_with("4:49 "), "{:?}", mistakes(&read));
    }

    #[test]
    fn a_shifted_row_is_not_shown() {
        let read = of(ROW.trim_end_matches(',').replace("s3cret", "s3,cret").as_str());
        assert_eq!(mistakes(&read), ["2:1 the MAC address of this row is not in its column"]);
        assert!(!read.diagnostics.render(false).contains("cret"));
    }

    #[test]
    fn a_quote_that_is_never_closed_takes_the_rows_after_it() {
        let read = of(&format!("{}\n{ROW}\n{ROW}\n", ROW.replace("node-1", "\"node-1")));
        assert_eq!(mistakes(&read), ["2:1 this quote is never closed"]);
        assert!(read.lost.unwrap() >= 3);
    }

    #[test]
    fn places_of_cells_are_found_again() {
        let read =
            of(&format!("{ROW}\n\n{}", ROW.replace(".11", ".12").replace("-1,", "-2,").replace("00:01", "00:02")));
        assert_eq!(mistakes(&read), Vec::<String>::new());
        let place = read.place(&read.machines[1], Column::Labels);
        assert_eq!((place.position, place.text.as_str()), (Some((4, 94)), "type=cp"));
        // A column that the file does not have.
        assert_eq!(read.place(&read.machines[1], Column::Arch), Place::file("f"));
    }
}
