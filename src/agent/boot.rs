//! The first things a PID 1 does: the kernel's file systems, and how much unwritten data the kernel may hold back.
//!
//! Nothing but the agent ever runs here. It starts no process, so there are no children to reap.

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::path::Path;

/// Where the variables of a UEFI firmware are.
pub const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// A file system of the kernel that could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {kind} on {target}")]
pub struct BootError {
    kind: &'static str,
    target: &'static str,
    source: Errno,
}

/// Mounts /proc, /sys and /dev, and keeps the kernel from holding more than 64 MiB of unwritten data.
///
/// That limit makes the progress that the agent reports true: without it a slow disk takes a gigabyte into memory in a
/// second and then stands still for a minute.
pub fn prepare() -> Result<(), BootError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    attach("proc", "/proc", quiet)?;
    attach("sysfs", "/sys", quiet)?;
    attach("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC)?;
    for (setting, bytes) in [("dirty_bytes", 64 << 20), ("dirty_background_bytes", 16 << 20)] {
        if let Err(error) = fs::write(Path::new("/proc/sys/vm").join(setting), format!("{bytes}")) {
            tracing::warn!("vm.{setting} cannot be set, so progress will be uneven: {error}");
        }
    }
    Ok(())
}

/// Mounts the firmware's variables, where the firmware is UEFI. Needs the module `efivarfs` on kernels that have it as one.
pub fn mount_efivars() -> Result<(), BootError> {
    if !Path::new(EFIVARS).exists() {
        return Ok(());
    }
    attach("efivarfs", EFIVARS, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)
}

fn attach(kind: &'static str, target: &'static str, flags: MountFlags) -> Result<(), BootError> {
    let failed = |source| BootError { kind, target, source };
    match mkdir(target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    match mount(kind, target, kind, flags, None) {
        // Kernels with CONFIG_DEVTMPFS_MOUNT may have been there first.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
