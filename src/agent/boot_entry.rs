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
