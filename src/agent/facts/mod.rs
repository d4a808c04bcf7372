//! What the machine is: processor, memory, disks, network interfaces, firmware, as sysfs and procfs tell it.
//!
//! Fed by the kernel's files below a root directory (a tree of ordinary files in tests); feeds the claim, and the choice
//! of the disk.

mod by_id;
mod disks;

pub use disks::{Disk, Unfit, disks};

use crate::hardware::{Arch, BootMode, Facts, NicFacts};
use std::fs;
use std::path::Path;

/// What can be found out about the machine whose /sys and /proc are below `root`. What is missing there is left out: an
/// incomplete answer is better than none.
pub fn gather(root: &Path) -> Facts {
    let sys = root.join("sys");
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let dmi = |name: &str| text(&sys.join("class/dmi/id").join(name)).filter(|value| !placeholder(value));
    let product: Vec<String> = [dmi("sys_vendor"), dmi("product_name")].into_iter().flatten().collect();
    Facts {
        arch: if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::Amd64 },
        firmware: if sys.join("firmware/efi").exists() { BootMode::Uefi } else { BootMode::Bios },
        cpu_model: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
        cpu_threads: cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u32,
        memory_bytes: memory(&fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default()),
        product: Some(product.join(" ")).filter(|product| !product.is_empty()),
        serial: dmi("product_serial"),
        disks: disks(&sys).into_iter().filter(|disk| disk.unfit.is_none()).map(|disk| disk.facts).collect(),
        nics: nics(&sys),
    }
}

/// The first value of `name : value` lines.
fn field<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let value =
        |line: &'a str| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    lines.lines().find_map(value)
}

/// `MemTotal`, which is in KiB.
fn memory(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").and_then(|value| value.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}

/// What vendors leave in SMBIOS when they fill in nothing.
fn placeholder(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["to be filled", "default string", "not specified", "system serial number"].iter().any(|it| value.contains(it))
}

/// The file's text without blanks around it (and without the padding of SCSI's fields); `None` where there is none.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number that fills its file.
fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Interfaces with hardware behind them.
fn nics(sys: &Path) -> Vec<NicFacts> {
    let mut nics = Vec::new();
    for entry in fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(mac) = text(&path.join("address")).and_then(|mac| mac.parse().ok()) else { continue };
        if !path.join("device").exists() {
            continue;
        }
        let driver = fs::read_link(path.join("device/driver")).ok();
        nics.push(NicFacts {
            name: entry.file_name().to_string_lossy().into_owned(),
            mac,
            link: number(&path.join("carrier")) == Some(1),
            driver: driver.and_then(|driver| Some(driver.file_name()?.to_string_lossy().into_owned())),
            // -1, or an error, while the link is down.
            speed_mbps: number(&path.join("speed")).and_then(|speed| u32::try_from(speed).ok()),
        });
    }
    nics.sort_by(|a, b| a.name.cmp(&b.name));
    nics
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hardware::DiskKind;
    use std::os::unix::fs::symlink;

    /// A root directory with the files that `listing` names, one `path = text` a line; `path -> target` is a symbolic link.
    pub(crate) fn tree(listing: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for line in listing.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (path, what) = line.split_once(' ').unwrap_or((line, "= "));
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match what.split_at(2) {
                ("->", target) => symlink(target.trim(), path).unwrap(),
                (_, "") => fs::create_dir_all(path).unwrap(),
                (_, text) => fs::write(path, text.replace("\\n", "\n") + "\n").unwrap(),
            }
        }
        root
    }

    #[test]
    fn a_machine_is_described_by_its_sysfs() {
        let root = tree(
            "proc/cpuinfo = processor\t: 0\\nmodel name\t: Intel Xeon Silver 4310\\n\\nprocessor\t: 1\\nmodel name\t: Intel
             proc/meminfo = MemTotal:       1004312 kB\\nMemFree: 1 kB
             sys/firmware/efi/fw_platform_size = 64
             sys/class/dmi/id/sys_vendor = Dell Inc.
             sys/class/dmi/id/product_name = PowerEdge R640
             sys/class/dmi/id/product_serial = To Be Filled By O.E.M.
             sys/class/net/lo/address = 00:00:00:00:00:00
             sys/class/net/eno1/address = 52:54:00:AA:00:01
             sys/class/net/eno1/carrier = 1
             sys/class/net/eno1/speed = 10000
             sys/class/net/eno1/device/vendor = 0x8086
             sys/class/net/eno1/device/driver -> ../../../bus/pci/drivers/i40e
             sys/class/net/eno2/address = 52:54:00:aa:00:02
             sys/class/net/eno2/speed = -1
             sys/class/net/eno2/device/vendor = 0x8086
             sys/block/loop0/size = 1
             sys/block/vda/size = 2048
             sys/block/vda/queue/rotational = 1
             sys/block/vda/serial = disk-0
             sys/block/vda/device -> ../../devices/virtio1",
        );
        let facts = gather(root.path());
        assert_eq!((facts.firmware, facts.cpu_threads, facts.memory_bytes), (BootMode::Uefi, 2, 1_004_312 * 1024));
        assert_eq!(facts.cpu_model, "Intel Xeon Silver 4310");
        assert_eq!((facts.product.as_deref(), facts.serial), (Some("Dell Inc. PowerEdge R640"), None));
        let nics: Vec<_> = facts.nics.iter().map(|nic| (nic.name.as_str(), nic.link, nic.speed_mbps)).collect();
        assert_eq!(nics, [("eno1", true, Some(10_000)), ("eno2", false, None)]);
        assert_eq!(facts.nics[0].driver.as_deref(), Some("i40e"));
        let disks: Vec<_> = facts.disks.iter().map(|disk| (disk.path.as_str(), disk.bytes, disk.kind)).collect();
        assert_eq!(disks, [("/dev/vda", 1 << 20, DiskKind::Hdd)]);
    }

    #[test]
    fn an_empty_machine_is_described_too() {
        let root = tempfile::tempdir().unwrap();
        let facts = gather(root.path());
        assert_eq!((facts.firmware, facts.cpu_threads, facts.disks.len()), (BootMode::Bios, 0, 0));
    }
}
