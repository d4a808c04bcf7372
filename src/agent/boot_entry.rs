//! The firmware's boot entry for the installed system (UEFI specification, sections 3.1.3 and 10.3).
//!
//! Without one most firmware finds \EFI\BOOT by itself, but some (and every firmware that remembers another system on this
//! disk) does not look. The entry is put first in the boot order, with the network's entries after it: the next
//! installation asks the BMC for the network once. BIOS has no such thing.

use super::partition::Place;
use crate::hardware::Arch;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The vendor of the variables that the specification defines.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// By this name operators, and the next installation, know the entry.
const DESCRIPTION: &str = "metalgate";
/// Kept over power cycles, for boot services and the running system.
const ATTRIBUTES: [u8; 4] = 7u32.to_le_bytes();
/// LOAD_OPTION_ACTIVE.
const ACTIVE: u32 = 1;

/// The boot entry could not be set.
#[derive(Debug, thiserror::Error)]
pub enum BootEntryError {
    /// A variable of the firmware.
    #[error("cannot {what} the firmware's variable {}", path.display())]
    Variable {
        /// `read` or `write`.
        what: &'static str,
        /// Below efivarfs.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// All numbers are taken.
    #[error("the firmware has no number left for another boot entry: delete old ones in its setup")]
    Full,
}

/// The firmware's variables, as efivarfs shows them.
#[derive(Debug)]
pub struct Variables(PathBuf);

impl Variables {
    /// Those below `directory`.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}-{GLOBAL}"))
    }

    /// A variable's value; `None` if there is no such variable.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, BootEntryError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.get(ATTRIBUTES.len()..).unwrap_or_default().to_vec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BootEntryError::Variable { what: "read", path, source }),
        }
    }

    fn write(&self, name: &str, value: &[u8]) -> Result<(), BootEntryError> {
        let path = self.path(name);
        // efivarfs wants everything in one write. The kernel lets boot entries be changed; it guards others (efivarfs marks
        // them immutable), and none of those is ours.
        let written = fs::write(&path, [&ATTRIBUTES, value].concat());
        written.map_err(|source| BootEntryError::Variable { what: "write", path, source })
    }

    /// The numbers that are in use, with their load options.
    fn entries(&self) -> Result<Vec<(u16, Vec<u8>)>, BootEntryError> {
        let unreadable = |source| BootEntryError::Variable { what: "read", path: self.0.clone(), source };
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.0).map_err(unreadable)? {
            let name = file.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
            let number = name.strip_suffix(GLOBAL).and_then(|name| name.strip_prefix("Boot")?.strip_suffix('-'));
            let number =
                number.filter(|digits| digits.len() == 4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
            if let Some(number) = number {
                entries.push((number, self.read(&format!("Boot{number:04X}"))?.unwrap_or_default()));
            }
        }
        entries.sort();
        Ok(entries)
    }
}

/// Makes the system on `esp` the first that the firmware starts. Returns the entry's name, as in `Boot0003`.
///
/// An entry that an earlier installation left is taken over, so that they do not pile up.
pub fn set(variables: &Variables, esp: &Place, sector: u64, arch: Arch) -> Result<String, BootEntryError> {
    let option = load_option(esp, sector, arch);
    let entries = variables.entries()?;
    let ours = entries.iter().find(|(_, value)| description(value).as_deref() == Some(DESCRIPTION));
    let free = || (0..=u16::MAX).find(|number| entries.iter().all(|(taken, _)| taken != number));
    let number = ours.map(|(number, _)| *number).or_else(free).ok_or(BootEntryError::Full)?;
    let name = format!("Boot{number:04X}");
    // Flash wears out: what is right already is not written again.
    if ours.is_none_or(|(_, value)| *value != option) {
        variables.write(&name, &option)?;
    }
    let before = variables.read("BootOrder")?.unwrap_or_default();
    let others =
        before.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).filter(|other| *other != number);
    let order: Vec<u8> = [number].into_iter().chain(others).flat_map(u16::to_le_bytes).collect();
    if order != before {
        variables.write("BootOrder", &order)?;
    }
    Ok(name)
}

/// EFI_LOAD_OPTION: attributes, length of the device path, description, device path.
fn load_option(esp: &Place, sector: u64, arch: Arch) -> Vec<u8> {
    let file = match arch {
        Arch::Amd64 => "\\EFI\\BOOT\\BOOTX64.EFI",
        Arch::Arm64 => "\\EFI\\BOOT\\BOOTAA64.EFI",
    };
    // Hard drive media device path: the partition by its GUID, wherever the disk is connected.
    let mut drive = esp.number.to_le_bytes().to_vec();
    drive.extend((esp.bytes.start / sector).to_le_bytes());
    drive.extend(((esp.bytes.end - esp.bytes.start) / sector).to_le_bytes());
    drive.extend(esp.guid.unwrap_or_default().to_bytes_le());
    // A GPT; a GUID.
    drive.extend([2, 2]);
    let path = [node(4, 1, &drive), node(4, 4, &utf16(file)), node(0x7f, 0xff, &[])].concat();
    let mut option = ACTIVE.to_le_bytes().to_vec();
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16(DESCRIPTION));
    option.extend(path);
    option
}

/// A node of a device path.
fn node(kind: u8, subkind: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() + 4) as u16;
    [&[kind, subkind][..], &length.to_le_bytes(), data].concat()
}

/// With the zero that ends it.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// The description in a load option.
fn description(option: &[u8]) -> Option<String> {
    let units = option.get(6..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn esp(guid: u128) -> Place {
        Place { number: 15, bytes: 1 << 20..9 << 20, guid: Some(Uuid::from_u128(guid)) }
    }

    /// Firmware with two entries, the first of the network, in this order.
    fn firmware() -> (tempfile::TempDir, Variables) {
        let dir = tempfile::tempdir().unwrap();
        let variables = Variables::new(dir.path());
        let named = |name| [&1u32.to_le_bytes()[..], &[0, 0], &utf16(name)].concat();
        variables.write("Boot0000", &named("UEFI PXEv4")).unwrap();
        variables.write("Boot0001", &named("EFI Internal Shell")).unwrap();
        variables.write("BootOrder", &[0, 0, 1, 0]).unwrap();
        fs::write(dir.path().join("Boot0002-11111111-2222-3333-4444-555555555555"), "of another vendor").unwrap();
        fs::write(variables.path("BootCurrent"), [6, 0, 0, 0, 0, 0]).unwrap();
        (dir, variables)
    }

    #[test]
    fn the_entry_comes_first_and_is_taken_over_by_the_next_installation() {
        let (dir, variables) = firmware();
        assert_eq!(set(&variables, &esp(1), 512, Arch::Amd64).unwrap(), "Boot0002");
        assert_eq!(variables.read("BootOrder").unwrap().unwrap(), [2, 0, 0, 0, 1, 0]);
        // Somebody preferred the network; another image has another partition.
        variables.write("BootOrder", &[0, 0, 2, 0, 1, 0]).unwrap();
        assert_eq!(set(&variables, &esp(2), 512, Arch::Amd64).unwrap(), "Boot0002");
        assert_eq!(variables.read("BootOrder").unwrap().unwrap(), [2, 0, 0, 0, 1, 0]);
        assert_eq!(variables.read("Boot0002").unwrap().unwrap(), load_option(&esp(2), 512, Arch::Amd64));
        assert_eq!(variables.entries().unwrap().len(), 3);
        // What is right already is not written again.
        let modified = || fs::metadata(variables.path("Boot0002")).unwrap().modified().unwrap();
        let before = modified();
        set(&variables, &esp(2), 512, Arch::Amd64).unwrap();
        assert_eq!(modified(), before);
        drop(dir);
    }

    #[test]
    fn firmware_without_variables_is_an_error_that_names_them() {
        let variables = Variables::new(Path::new("/nonexistent/efivars"));
        assert!(set(&variables, &esp(1), 512, Arch::Amd64).unwrap_err().to_string().contains("/nonexistent/efivars"));
    }

    #[test]
    fn a_load_option_is_laid_out_as_the_specification_says() {
        let option = load_option(&esp(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), 512, Arch::Arm64);
        assert_eq!(option[..6], [1, 0, 0, 0, 96, 0]);
        assert_eq!(description(&option).unwrap(), "metalgate");
        let path = &option[6 + 20..];
        assert_eq!(path.len(), 96);
        let drive = "04012a00 0f000000 0008000000000000 0040000000000000 33221100554477668899aabbccddeeff 0202"
            .replace(' ', "");
        assert_eq!(hex::encode(&path[..42]), drive);
        assert_eq!(path[42..46], [4, 4, 50, 0]);
        assert_eq!(path[46..92], utf16("\\EFI\\BOOT\\BOOTAA64.EFI")[..]);
        assert_eq!(path[92..], [0x7f, 0xff, 4, 0]);
    }
}
