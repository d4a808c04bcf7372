//! The disk that the operating system goes to: chosen among those of the machine, and opened so that nobody else has it.

use super::facts::{Disk, Unfit};
use crate::hardware::{DiskHints, DiskKind, DiskSelector};
use rustix::fs::{FileType, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// No disk, or more than one, is what was asked for. Each names all disks with what tells them apart.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// Nothing fits.
    #[error("no disk is `{wanted}`; {present}")]
    None {
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// Several fit.
    #[error("more than one disk is `{wanted}` ({found}): add a serial number or WWN; {present}")]
    Several {
        /// What was asked for.
        wanted: String,
        /// Device nodes of those that fit.
        found: String,
        /// What there is.
        present: String,
    },
    /// The disk cannot take an operating system.
    #[error("{path} is no disk to install on ({unfit}); {present}")]
    Unfit {
        /// Device node.
        path: String,
        /// Why.
        unfit: Unfit,
        /// What there is.
        present: String,
    },
    /// A kind of link that cannot be followed without udev.
    #[error("`{path}` cannot be followed here: name the disk by /dev/NAME, /dev/disk/by-id/NAME or a hint; {present}")]
    Link {
        /// What was asked for.
        path: String,
        /// What there is.
        present: String,
    },
}

/// The one disk of `disks` that `wanted` names.
pub fn choose<'a>(wanted: &DiskSelector, disks: &'a [Disk]) -> Result<&'a Disk, ChoiceError> {
    let fitting: Vec<&Disk> = match wanted {
        DiskSelector::Path(path) => match path.strip_prefix("/dev/disk/by-id/") {
            Some(id) => disks.iter().filter(|disk| disk.facts.by_id.iter().any(|name| name == id)).collect(),
            None if path.starts_with("/dev/disk/") || path.starts_with("/dev/mapper/") => {
                return Err(ChoiceError::Link { path: path.clone(), present: present(disks) });
            }
            None => disks.iter().filter(|disk| disk.facts.path == *path).collect(),
        },
        // A hint describes what an operating system may go to; a stick of the right size is not meant.
        DiskSelector::Hints(hints) => disks.iter().filter(|disk| disk.unfit.is_none() && fits(hints, disk)).collect(),
    };
    match fitting[..] {
        [] => Err(ChoiceError::None { wanted: wanted.to_string(), present: present(disks) }),
        [disk] => match disk.unfit {
            None => Ok(disk),
            Some(unfit) => Err(ChoiceError::Unfit { path: disk.facts.path.clone(), unfit, present: present(disks) }),
        },
        _ => {
            let found: Vec<&str> = fitting.iter().map(|disk| disk.facts.path.as_str()).collect();
            Err(ChoiceError::Several { wanted: wanted.to_string(), found: found.join(", "), present: present(disks) })
        }
    }
}

fn fits(hints: &DiskHints, disk: &Disk) -> bool {
    let facts = &disk.facts;
    // Vendors, sysfs and udev write the same name with and without these prefixes, in either case.
    let bare = |wwn: &str| {
        let wwn = wwn.to_ascii_lowercase();
        ["0x", "eui.", "naa.", "nvme.", "uuid."]
            .iter()
            .find_map(|prefix| wwn.strip_prefix(prefix))
            .unwrap_or(&wwn)
            .to_owned()
    };
    hints.serial.as_ref().is_none_or(|serial| facts.serial.as_ref() == Some(serial))
        && hints.wwn.as_ref().is_none_or(|wwn| facts.wwn.as_deref().map(bare) == Some(bare(wwn)))
        && hints.min_bytes.is_none_or(|least| facts.bytes >= least)
        && hints.max_bytes.is_none_or(|most| facts.bytes <= most)
        && hints.kind.is_none_or(|kind| facts.kind == kind)
}

/// Every disk with what tells it apart, for messages.
fn present(disks: &[Disk]) -> String {
    if disks.is_empty() {
        return String::from("the machine shows no disk at all: is the controller's driver in the initramfs?");
    }
    let described: Vec<String> = disks.iter().map(describe).collect();
    format!("the machine has {}", described.join(", "))
}

fn describe(disk: &Disk) -> String {
    let facts = &disk.facts;
    let kind = match facts.kind {
        DiskKind::Nvme => "NVMe",
        DiskKind::Ssd => "SSD",
        DiskKind::Hdd => "HDD",
    };
    let mut words = vec![size(facts.bytes), kind.to_owned()];
    words.extend(facts.model.clone());
    words.extend(facts.serial.as_ref().map(|serial| format!("serial {serial}")));
    words.extend(facts.wwn.as_ref().map(|wwn| format!("WWN {wwn}")));
    words.extend(disk.unfit.map(|unfit| unfit.to_string()));
    format!("{} ({})", facts.path, words.join(", "))
}

/// A size as it is printed on disks.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.2} TB", bytes as f64 / 1e12),
    }
}

/// A disk that is open for writing; in tests a file.
#[derive(Debug)]
pub struct Target {
    /// Device node.
    pub path: PathBuf,
    /// The device.
    pub file: File,
    /// Its size.
    pub bytes: u64,
    /// Its logical sector in bytes.
    pub sector: u64,
}

/// The chosen disk cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {} for writing", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

impl Target {
    /// Opens the disk at `path`. The kernel refuses if anything else (a mount, RAID, LVM) has it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError { path: path.to_owned(), source };
        let exclusive = OFlags::EXCL.bits() as i32;
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path).map_err(failed)?;
        let kind = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        let sector = match FileType::from_raw_mode(kind.st_mode) {
            FileType::BlockDevice => rustix::fs::ioctl_blksszget(&file).map_err(|error| failed(error.into()))?,
            _ => 512,
        };
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes, sector: sector.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::DiskFacts;

    fn disk(path: &str, gigabytes: u64, serial: &str, wwn: &str, unfit: Option<Unfit>) -> Disk {
        let facts = DiskFacts {
            path: format!("/dev/{path}"),
            bytes: gigabytes * 1_000_000_000,
            kind: if path.starts_with("nvme") { DiskKind::Nvme } else { DiskKind::Ssd },
            model: Some(String::from("INTEL SSDSC2KB480G8")),
            serial: Some(serial.to_owned()),
            wwn: Some(wwn.to_owned()),
            by_id: vec![format!("ata-INTEL_{serial}"), format!("wwn-{wwn}")],
        };
        Disk { facts, unfit }
    }

    fn disks() -> Vec<Disk> {
        vec![
            disk("nvme0n1", 1000, "S5G", "eui.0025385", None),
            disk("sda", 480, "PHYF1", "0x55cd2e41", None),
            disk("sdb", 480, "PHYF2", "0x55cd2e42", None),
            disk("sdc", 64, "STICK", "0x0", Some(Unfit::Removable)),
        ]
    }

    fn chosen(selector: &str) -> Result<String, String> {
        let disks = disks();
        let disk = choose(&selector.parse().unwrap(), &disks);
        disk.map(|disk| disk.facts.path.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_disk_is_chosen_by_path_by_id_or_hints() {
        for (selector, path) in [
            ("/dev/sdb", "/dev/sdb"),
            ("/dev/disk/by-id/ata-INTEL_PHYF1", "/dev/sda"),
            ("/dev/disk/by-id/wwn-0x55cd2e42", "/dev/sdb"),
            ("serial=PHYF2", "/dev/sdb"),
            ("wwn=0x55CD2E41", "/dev/sda"),
            ("wwn=0025385", "/dev/nvme0n1"),
            ("type=nvme size>=480GB", "/dev/nvme0n1"),
            ("size>=500GB size<=2TB", "/dev/nvme0n1"),
        ] {
            assert_eq!(chosen(selector).unwrap(), path, "{selector}");
        }
    }

    #[test]
    fn none_or_several_is_an_error_that_names_every_disk() {
        for (selector, word) in [
            ("/dev/sdz", "no disk is `/dev/sdz`"),
            ("/dev/disk/by-id/nothing", "no disk is"),
            ("type=ssd", "(/dev/sda, /dev/sdb)"),
            ("serial=PHYF", "no disk is `serial=PHYF`"),
            ("size<=100GB", "no disk is"),
            ("/dev/sdc", "/dev/sdc is no disk to install on (removable)"),
            ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "cannot be followed"),
        ] {
            let error = chosen(selector).unwrap_err();
            assert!(error.contains(word), "{error}");
            assert!(
                error.contains("/dev/sda (480.0 GB, SSD, INTEL SSDSC2KB480G8, serial PHYF1, WWN 0x55cd2e41)"),
                "{error}"
            );
            assert!(error.contains("serial STICK, WWN 0x0, removable"), "{error}");
        }
        let error = choose(&"/dev/sda".parse().unwrap(), &[]).unwrap_err().to_string();
        assert!(error.contains("no disk at all"), "{error}");
    }
}
