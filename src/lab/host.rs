//! Programs and firmware of the host, and how they are run.

use super::LabError;
use super::rack::{BiosPxe, Installed, Rack};
use crate::hardware::BootMode;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Programs that a lab runs, with the Debian package of each.
const PROGRAMS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("qemu-system-x86_64", "qemu-system-x86"), ("setpriv", "util-linux")];

/// Programs that start an installed disk as a container.
const CONTAINER_PROGRAMS: [(&str, &str); 7] = [
    ("unshare", "util-linux"),
    ("partx", "util-linux"),
    ("losetup", "mount"),
    ("sfdisk", "fdisk"),
    ("resize2fs", "e2fsprogs"),
    ("mcopy", "mtools"),
    ("kill", "procps"),
];

/// UEFI firmware: code and the template of its variables.
const OVMF: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE_4M.fd", "/usr/share/edk2/ovmf/OVMF_VARS_4M.fd"),
];
/// iPXE as a Linux kernel image, which plays the PXE client of a BIOS machine.
const IPXE_KERNEL: [&str; 2] = ["/usr/lib/ipxe/ipxe.lkrn", "/boot/ipxe.lkrn"];

/// A program that neither answers nor ends is stopped after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails unless we are root and every program is there.
pub fn check(installed: Installed) -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = if installed == Installed::Native { &CONTAINER_PROGRAMS[..] } else { &[] };
    for &(program, package) in PROGRAMS.iter().chain(more) {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(LabError::MissingProgram { program, package });
        }
    }
    Ok(())
}

/// What the host's operator has to set before Kubernetes runs in containers; `None` if it is set.
pub fn conntrack_hint() -> Option<String> {
    let now = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok()?.trim().parse::<usize>().ok()?;
    let wanted = kube_proxys_limit(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    (now != wanted).then(|| {
        format!(
            "kube-proxy cannot set the kernel's limit of connections in a container: \
             `sysctl net.netfilter.nf_conntrack_max={wanted}` (now {now}), or `lab up --installed emulated`"
        )
    })
}

/// The limit of connections that kube-proxy wants on a machine of a cluster that we made: `conntrack.min` of kubeadm's
/// configuration, and more from nine processors on, up to a million.
fn kube_proxys_limit(processors: usize) -> usize {
    (32_768 * processors).clamp(262_144, 1 << 20)
}

/// Firmware that a rack needs from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// UEFI firmware.
    pub ovmf: bool,
    /// iPXE as a kernel image.
    pub ipxe_kernel: bool,
}

impl Needed {
    /// What `rack` needs.
    pub fn of(rack: &Rack) -> Self {
        let has = |mode| rack.machines.iter().any(|machine| machine.boot_mode == mode);
        Self { ovmf: has(BootMode::Uefi), ipxe_kernel: has(BootMode::Bios) && rack.bios_pxe == BiosPxe::Pxe }
    }

    /// Fails if a file is missing.
    pub fn check(self) -> Result<(), LabError> {
        if self.ovmf {
            ovmf()?;
        }
        if self.ipxe_kernel {
            ipxe_kernel()?;
        }
        Ok(())
    }
}

/// OVMF's code and the template of its variables.
pub fn ovmf() -> Result<(&'static Path, &'static Path), LabError> {
    OVMF.iter()
        .map(|(code, vars)| (Path::new(*code), Path::new(*vars)))
        .find(|(code, vars)| code.is_file() && vars.is_file())
        .ok_or_else(|| LabError::MissingFirmware {
            what: "UEFI firmware for QEMU",
            searched: OVMF.map(|(code, _)| code).join(", "),
            package: "ovmf",
        })
}

/// iPXE as a kernel image.
pub fn ipxe_kernel() -> Result<PathBuf, LabError> {
    IPXE_KERNEL.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| LabError::MissingFirmware {
        what: "iPXE as a kernel image, the PXE client of BIOS machines",
        searched: IPXE_KERNEL.join(", "),
        package: "ipxe",
    })
}

/// Runs a program to its end and gives what it wrote on stdout.
pub async fn run(program: &str, args: &[&str]) -> Result<String, LabError> {
    let failed = |reason: String| LabError::Command { command: format!("{program} {}", args.join(" ")), reason };
    let child = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, child)
        .await
        .map_err(|_| failed(format!("no end after {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(if stderr.is_empty() { output.status.to_string() } else { stderr }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kube_proxy_wants_more_of_larger_machines() {
        assert_eq!([1, 8, 9, 64].map(kube_proxys_limit), [262_144, 262_144, 294_912, 1_048_576]);
        let configuration = include_str!("../../templates/kubeadm/init.yaml");
        assert!(configuration.contains(&format!("conntrack: {{min: {}}}", kube_proxys_limit(1))), "{configuration}");
    }

    #[tokio::test]
    async fn a_failed_program_says_what_it_said() {
        assert_eq!(run("echo", &["hello"]).await.unwrap(), "hello\n");
        let error = run("ip", &["netns", "del", "mg-no-such-lab"]).await.unwrap_err().to_string();
        assert!(error.starts_with("`ip netns del mg-no-such-lab` failed: Cannot remove"), "{error}");
    }
}
