//! The columns of an inventory.

use super::table::{Cell, Record};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source};
use crate::names::did_you_mean;
use std::ops::Range;

/// A column that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Hostname,
    BmcIp,
    BmcUsername,
    BmcPassword,
    BmcType,
    Mac,
    IpAddress,
    Netmask,
    Gateway,
    Nameservers,
    Labels,
    Disk,
    VlanId,
    Arch,
    BootMode,
}

use Column::*;

/// Every column by its name; EKS Anywhere's first, then ours.
pub(super) const COLUMNS: [(Column, &str); 15] = [
    (Hostname, "hostname"),
    (BmcIp, "bmc_ip"),
    (BmcUsername, "bmc_username"),
    (BmcPassword, "bmc_password"),
    (Mac, "mac"),
    (IpAddress, "ip_address"),
    (Netmask, "netmask"),
    (Gateway, "gateway"),
    (Nameservers, "nameservers"),
    (Labels, "labels"),
    (Disk, "disk"),
    (VlanId, "vlan_id"),
    (BmcType, "bmc_type"),
    (Arch, "arch"),
    (BootMode, "boot_mode"),
];

/// Columns that EKS Anywhere's inventories have.
pub const COMMON: [Column; 11] =
    [Hostname, BmcIp, BmcUsername, BmcPassword, Mac, IpAddress, Netmask, Gateway, Nameservers, Labels, Disk];

/// Columns that every inventory has.
pub const OF_MACHINES: [Column; 8] = [Hostname, Mac, IpAddress, Netmask, Gateway, Nameservers, Labels, Disk];

impl Column {
    /// Its name in the header.
    pub fn name(self) -> &'static str {
        COLUMNS.iter().find(|(column, _)| *column == self).map(|(_, name)| *name).unwrap_or_default()
    }
}

/// Which cell of a row is what.
pub struct Header {
    columns: Vec<Option<Column>>,
}

impl Header {
    /// Reads the first row, which needs the columns `required`; nothing if no row can be understood by it.
    pub fn read(source: &Source, record: &Record, required: &[Column], found: &mut Diagnostics) -> Option<Self> {
        let columns: Vec<Option<Column>> = record.cells.iter().map(|cell| column(&cell.value)).collect();
        if columns.iter().all(Option::is_none) {
            found.push(no_header(source, record));
            return None;
        }
        let misplaced = misplaced(record);
        if let Some(first) = misplaced.first() {
            let message = "what stands here and after it names no columns";
            let diagnostic = Diagnostic::error(source.place(first.clone()), message);
            found.push(diagnostic.hint("is the end of the line missing?"));
        }
        let mut meant = Vec::new();
        for (index, (cell, column)) in record.cells.iter().zip(&columns).enumerate() {
            let (place, name) = (source.place(cell.range.clone()), cell.value.trim());
            if let Some(problem) = &cell.problem {
                found.push(problem.clone().at(place));
            } else if column.is_some() && columns[..index].contains(column) {
                found.push(Diagnostic::error(place, format!("column `{name}` is given twice")));
            } else if column.is_none() && misplaced.is_empty() {
                let message = match name {
                    "" => String::from("a column without a name"),
                    name => format!("unknown column `{name}`"),
                };
                let absent = COLUMNS.iter().filter(|(column, _)| !columns.contains(&Some(*column)));
                let absent: Vec<&str> = absent.map(|(_, name)| *name).collect();
                let hint = match did_you_mean(name, absent.iter().copied()) {
                    Some(column) => {
                        meant.push(column);
                        format!("did you mean `{column}`?")
                    }
                    None => format!("columns that are not there yet: {}", absent.join(", ")),
                };
                found.push(Diagnostic::error(place, message).hint(hint));
            }
        }
        let is_missing = |column: &Column| !columns.contains(&Some(*column));
        let missing: Vec<Column> = required.iter().copied().filter(is_missing).collect();
        let start = record.cells.first().map(|cell| cell.range.start).unwrap_or_default();
        for column in &missing {
            // A misspelt column has its own message.
            if !meant.contains(&column.name()) {
                let place = Place { text: String::new(), ..source.place(start..start) };
                found.push(Diagnostic::error(place, format!("column `{}` is missing", column.name())));
            }
        }
        missing.is_empty().then_some(Self { columns })
    }

    /// How many cells a row has.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Which cell is of this column.
    pub fn index(&self, column: Column) -> Option<usize> {
        self.columns.iter().position(|known| *known == Some(column))
    }

    /// What of a row may not be shown: passwords, what may be one, and an account in front of a BMC's address.
    pub fn secrets(&self, record: &Record) -> impl Iterator<Item = Range<usize>> {
        record.cells.iter().enumerate().filter_map(|(index, Cell { value, range, .. })| {
            match self.columns.get(index).copied().flatten() {
                None | Some(BmcPassword) => Some(range.clone()),
                Some(BmcIp) if value.contains('@') => Some(range.clone()),
                _ => None,
            }
        })
    }
}

fn column(name: &str) -> Option<Column> {
    COLUMNS.iter().find(|(_, known)| *known == name.trim()).map(|(column, _)| *column)
}

/// Cells of the first row that name no column, if one of them cannot even be a name: they may be a machine, with its
/// password, whose line does not begin where it should.
pub fn misplaced(record: &Record) -> Vec<Range<usize>> {
    let unknown = || record.cells.iter().filter(|cell| column(&cell.value).is_none());
    let is_name = |cell: &Cell| cell.value.chars().all(|c| c.is_alphanumeric() || "_- ".contains(c));
    match unknown().all(is_name) {
        true => Vec::new(),
        false => unknown().map(|cell| cell.range.clone()).collect(),
    }
}

/// The first row names no column that we know; it may be a machine with its password, so it is not shown.
fn no_header(source: &Source, record: &Record) -> Diagnostic {
    let start = record.cells.first().map(|cell| cell.range.start).unwrap_or_default();
    let place = Place { text: String::new(), ..source.place(start..start) }.without_excerpt();
    let line = source.text()[start..].lines().next().unwrap_or_default();
    let other = [(";", "semicolons"), ("\t", "tabs")].into_iter().find(|(separator, _)| {
        line.split(separator).any(|name| COLUMNS.iter().any(|(_, known)| *known == name.trim()))
    });
    let hint = match other {
        Some((_, separator)) => format!("its columns are separated by {separator}; save it with commas"),
        None => COMMON.map(Column::name).join(","),
    };
    Diagnostic::error(place, "the first line has to name the columns").hint(hint)
}
