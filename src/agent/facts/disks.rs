//! Block devices: which there are, what identifies them, and which cannot take an operating system.

use super::by_id;
use super::{number, text};
use crate::hardware::{DiskFacts, DiskKind};
use std::fmt;
use std::fs;
use std::path::Path;

/// A whole disk, and whether an operating system may go there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What is reported of it.
    pub facts: DiskFacts,
    /// Why it must not be written to, if so.
    pub unfit: Option<Unfit>,
}

/// Why a block device is no place for an operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The device cannot be written to.
    ReadOnly,
    /// A medium that can be taken out, or hangs on USB: what somebody may have booted from or forgotten there.
    Removable,
    /// There is no medium in the drive.
    Empty,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::Removable => "removable",
            Self::Empty => "no medium",
        })
    }
}

/// Every disk below `sys`, by name. Devices without hardware behind them (loop, RAM, device mapper) and optical drives
/// are none; nor are the hidden paths of an NVMe multipath disk, and an eMMC's boot partitions.
pub fn disks(sys: &Path) -> Vec<Disk> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(sys.join("block")).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let hardware = fs::symlink_metadata(path.join("device")).is_ok();
        let other = ["sr", "fd", "nbd", "mtdblock"].iter().any(|kind| name.starts_with(kind))
            || (name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb")));
        if hardware && !other && number(&path.join("hidden")) != Some(1) {
            disks.push(disk(&name, &path));
        }
    }
    disks.sort_by(|a, b| a.facts.path.cmp(&b.facts.path));
    disks
}

fn disk(name: &str, path: &Path) -> Disk {
    // Always in units of 512 bytes, whatever the device's own sector is.
    let bytes = number(&path.join("size")).unwrap_or(0) * 512;
    let usb = fs::canonicalize(path.join("device")).is_ok_and(|path| path.to_string_lossy().contains("/usb"));
    let unfit = if number(&path.join("ro")) == Some(1) {
        Some(Unfit::ReadOnly)
    } else if usb || number(&path.join("removable")) == Some(1) {
        Some(Unfit::Removable)
    } else if bytes == 0 {
        Some(Unfit::Empty)
    } else {
        None
    };
    let identity = by_id::identify(name, path);
    let kind = match number(&path.join("queue/rotational")) {
        _ if name.starts_with("nvme") => DiskKind::Nvme,
        Some(0) => DiskKind::Ssd,
        _ => DiskKind::Hdd,
    };
    let vendor = text(&path.join("device/vendor")).filter(|vendor| vendor != "ATA" && !vendor.starts_with("0x"));
    let model: Vec<String> = vendor.into_iter().chain(identity.model).collect();
    let facts = DiskFacts {
        path: format!("/dev/{}", name.replace('!', "/")),
        bytes,
        kind,
        model: Some(model.join(" ")).filter(|model| !model.is_empty()),
        serial: identity.serial,
        wwn: identity.wwn,
        by_id: identity.names,
    };
    Disk { facts, unfit }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;

    #[test]
    fn only_disks_that_can_take_an_operating_system_are_fit() {
        let root = tree(
            "block/loop0/size = 100
             block/dm-0/size = 100
             block/sr0/size = 100
             block/sr0/device/type = 5
             block/nvme0n1/size = 7814037168
             block/nvme0n1/queue/rotational = 0
             block/nvme0n1/device/model = Samsung SSD 990
             block/nvme0c0n1/hidden = 1
             block/nvme0c0n1/device/model = path
             block/mmcblk0boot0/size = 8
             block/mmcblk0boot0/device/name = boot
             block/sda/size = 0
             block/sda/device/model = Card Reader
             block/sdb/size = 1000
             block/sdb/removable = 1
             block/sdb/device/model = Stick
             block/sdc/size = 1000
             devices/pci0/usb1/1-1/model = x
             block/sdc/device -> ../../devices/pci0/usb1/1-1
             block/sdd/size = 1000
             block/sdd/ro = 1
             block/sdd/device/model = Locked
             block/sde/size = 1000
             block/sde/queue/rotational = 0
             block/sde/device/vendor = HPE
             block/sde/device/model = VO000480",
        );
        let disks = disks(root.path());
        let found: Vec<_> = disks.iter().map(|disk| (disk.facts.path.as_str(), disk.unfit)).collect();
        let expected = [
            ("/dev/nvme0n1", None),
            ("/dev/sda", Some(Unfit::Empty)),
            ("/dev/sdb", Some(Unfit::Removable)),
            ("/dev/sdc", Some(Unfit::Removable)),
            ("/dev/sdd", Some(Unfit::ReadOnly)),
            ("/dev/sde", None),
        ];
        assert_eq!(found, expected);
        assert_eq!((disks[0].facts.kind, disks[0].facts.bytes), (DiskKind::Nvme, 7_814_037_168 * 512));
        assert_eq!((disks[5].facts.kind, disks[5].facts.model.as_deref()), (DiskKind::Ssd, Some("HPE VO000480")));
    }
}
