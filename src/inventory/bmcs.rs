//! A list of BMCs alone: the columns bmc_ip, bmc_username, bmc_password, and bmc_type where some are not Redfish. A whole
//! inventory is such a list, too.

use super::BmcAccess;
use super::header::{self, Column, Header};
use super::rows::Rows;
use super::table;
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source};

/// Columns that a list of BMCs has.
const OF_BMCS: [Column; 3] = [Column::BmcIp, Column::BmcUsername, Column::BmcPassword];

/// Reads a list that the user calls `name`; rows without a BMC are passed over.
///
/// # Errors
/// Every mistake of the file.
pub fn read_bmcs(name: &str, bytes: Vec<u8>) -> Result<Vec<BmcAccess>, Diagnostics> {
    let mut source = Source::new(name, bytes).map_err(|diagnostic| Diagnostics::of(*diagnostic))?;
    let records = table::records(&source);
    source.hide(records.first().map(header::misplaced).unwrap_or_default());
    let mut found = Diagnostics::default();
    let whole = |message: &str| Diagnostic::error(Place::file(name), message);
    let Some((first, rest)) = records.split_first() else {
        let hint = "its first line names the columns: bmc_ip,bmc_username,bmc_password";
        return Err(Diagnostics::of(whole("the file is empty").hint(hint)));
    };
    let Some(header) = Header::read(&source, first, &OF_BMCS, &mut found) else { return Err(found) };
    let secrets: Vec<_> = rest.iter().flat_map(|record| header.secrets(record)).collect();
    source.hide(secrets);
    let mut rows = Rows::new(&source, &header);
    let mut bmcs = Vec::new();
    for record in rest.iter().filter(|record| !record.is_blank()) {
        if rows.is_whole(record) {
            bmcs.extend(rows.bmc(record).flatten());
        }
    }
    let (.., more) = rows.finish();
    found.extend(more);
    if bmcs.is_empty() && !found.has_errors() {
        found.push(whole("there is no BMC in it").hint("one row per BMC below the line of columns"));
    }
    if found.has_errors() {
        return Err(found.sorted(&[name]));
    }
    Ok(bmcs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bmcs_are_read_from_a_list_of_their_own_and_from_an_inventory() {
        let list = "bmc_ip,bmc_username,bmc_password\n10.0.0.5,root,a b\n\nhttps://bmc-6:8443,root,c\n";
        let bmcs = read_bmcs("f", list.into()).unwrap();
        let urls: Vec<_> = bmcs.iter().map(|bmc| bmc.url.as_str()).collect();
        assert_eq!(urls, ["https://10.0.0.5", "https://bmc-6:8443"]);
        let inventory = include_bytes!("../../hardware-examples/accepted/ipmi/hardware.csv");
        assert_eq!(read_bmcs("f", inventory.to_vec()).unwrap().len(), 3);
    }

    #[test]
    fn mistakes_are_told_all_at_once_and_no_password_with_them() {
        let list = "bmc_ip,bmc_username,bmc_password\n10.0.0,root,s3cret\n10.0.0.5,,s3cret\n10.0.0.6,root,s3cret,x\n";
        let found = read_bmcs("f", list.into()).unwrap_err();
        let lines: Vec<_> = found.iter().filter_map(|one| one.place.position.map(|(line, _)| line)).collect();
        assert_eq!(lines, [2, 3, 4], "{}", found.render(false));
        assert!(!found.render(false).contains("s3cret"));
        for empty in ["", "bmc_ip,bmc_username,bmc_password\n", "bmc_ip\n10.0.0.5\n"] {
            assert!(read_bmcs("f", empty.into()).is_err(), "{empty}");
        }
    }
}
