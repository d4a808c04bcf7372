//! Writes an inventory: the common columns, and of the others those that a row has something for.

use super::header::{COLUMNS, COMMON, Column};
use crate::secret::Secret;

/// Cells of a machine; those that are not among them are empty.
pub type Row = Vec<(Column, String)>;

/// The file, with whatever passwords are in it.
///
/// # Errors
/// Where the memory for it cannot be had.
pub fn write(rows: &[Row]) -> Result<Secret<String>, csv::Error> {
    let cell = |row: &'_ Row, wanted: Column| {
        row.iter().find(|(column, _)| *column == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let is_wanted = |column: Column| COMMON.contains(&column) || rows.iter().any(|row| !cell(row, column).is_empty());
    let columns: Vec<_> = COLUMNS.iter().filter(|(column, _)| is_wanted(*column)).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns.iter().map(|(_, name)| name))?;
    for row in rows {
        writer.write_record(columns.iter().map(|(column, _)| cell(row, *column)))?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(Secret::new(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_nobody_needs_are_left_out() {
        let text = |row: &Row| write(std::slice::from_ref(row)).map(|csv| csv.expose().clone()).unwrap_or_default();
        let mut row = vec![(Column::Hostname, String::from("node,1")), (Column::Arch, String::new())];
        let common = "hostname,bmc_ip,bmc_username,bmc_password,mac,ip_address,netmask,gateway,nameservers,labels,disk";
        assert_eq!(text(&row), format!("{common}\n\"node,1\",,,,,,,,,,\n"));
        row.push((Column::BootMode, String::from("uefi")));
        assert_eq!(text(&row), format!("{common},boot_mode\n\"node,1\",,,,,,,,,,,uefi\n"));
    }
}
