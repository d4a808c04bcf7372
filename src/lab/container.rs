//! The system that was installed on a machine's disk, run as a container with the host's kernel.
//!
//! Where there is no KVM, QEMU boots and installs a machine well, but Kubernetes is more than an emulated processor can do.
//! So an installed disk is started here: its own init and everything that it starts, unmodified, in namespaces of their own,
//! with the machine's MAC address on the rack's bridge. What a container cannot have (settings of the whole kernel, udev) is
//! dealt with in `templates/lab/container*.sh`, not on the disk; a disk that is started by QEMU again is none the wiser.

use super::machine::MachineError;
use super::qemu::DISK_FILE;
use super::qmp::Ending;
use super::rack::{self, Rack, RackMachine};
use super::terminal::Terminal;
use super::{LabError, host, network};
use rustix::process::Signal;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

const START: &str = include_str!("../../templates/lab/container.sh");
const INIT: &str = include_str!("../../templates/lab/container-init.sh");
const CLEAN: &str = include_str!("../../templates/lab/container-clean.sh");

/// What systemd as a container's init takes for the power button: SIGRTMIN+4, by its number, which `kill` knows everywhere.
const POWER_BUTTON: &str = "-38";

/// An installed system that runs.
#[derive(Debug)]
pub struct Container {
    child: Child,
    errors: PathBuf,
    _terminal: Terminal,
}

/// Whether something was installed on `disk`: a boot sector, of BIOS or in front of a GPT.
pub fn is_installed(disk: &Path) -> bool {
    let mut sector = [0; 512];
    std::fs::File::open(disk).and_then(|mut file| file.read_exact(&mut sector)).is_ok()
        && sector.ends_with(&[0x55, 0xAA])
}

/// The bridge's end of the container's cable.
pub fn link(machine: &RackMachine) -> String {
    machine.tap.replace("tap", "veth")
}

/// Its control group, in each hierarchy.
fn cgroup(rack: &Rack, machine: &RackMachine) -> String {
    format!("metalgate-lab-{}-{}", rack.name, machine.name)
}

/// An empty directory of its own, for its mounts.
fn scratch(rack: &Rack, machine: &RackMachine) -> PathBuf {
    rack::run_dir(&rack.name).join(format!("{}.container", machine.name))
}

fn disk(rack: &Rack, machine: &RackMachine) -> PathBuf {
    rack.machine_dir(&machine.name).join(DISK_FILE)
}

impl Container {
    /// Starts what is on the machine's disk. That it cannot be started shows as its end.
    pub fn start(rack: &Rack, machine: &RackMachine, cable: bool) -> Result<Self, MachineError> {
        let failed = |error: std::io::Error| MachineError::Container {
            machine: machine.name.clone(),
            reason: error.to_string(),
        };
        let socket = rack.console_socket(&machine.name);
        let terminal = Terminal::open(&rack.console_log(&machine.name), &socket).map_err(failed)?;
        let scratch = scratch(rack, machine);
        std::fs::create_dir_all(&scratch).map_err(failed)?;
        let errors = rack.machine_dir(&machine.name).join("container.log");
        let log = std::fs::File::create(&errors).map_err(failed)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", START, "container", INIT])
            .arg(disk(rack, machine))
            .args([machine.mac.to_string().as_str(), network::BRIDGE, &link(machine)])
            .arg(if cable { "up" } else { "down" })
            .arg(scratch)
            .arg(&terminal.path)
            .arg(cgroup(rack, machine))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, errors, _terminal: terminal })
    }

    /// Process id of what the container ends with.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. Cancel-safe.
    pub async fn ended(&mut self) -> Ending {
        self.child.wait().await.map_or(Ending::Off, ending)
    }

    /// Why it never came to its init; `None` if it did.
    pub async fn complaint(&mut self) -> Option<String> {
        let status = self.child.wait().await.ok()?;
        status.code().filter(|code| *code != 0)?;
        let words = std::fs::read_to_string(&self.errors).unwrap_or_default();
        // mount goes on about dmesg(1) in an indented line.
        let last = words.lines().rev().find(|line| !line.is_empty() && !line.starts_with(' '));
        Some(last.map_or_else(|| status.to_string(), str::to_owned))
    }

    /// Presses the power button.
    pub async fn press_button(&self) -> Result<(), LabError> {
        let Some(pid) = self.id() else { return Ok(()) };
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(&children).map_err(super::at(Path::new(&children)))?;
        match children.split_whitespace().next() {
            Some(init) => host::run("kill", &[POWER_BUTTON, init]).await.map(drop),
            None => Ok(()),
        }
    }

    /// Cuts the power: the kernel kills everything in it.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

/// Waits until nothing of the machine's container is there, and removes what outlives its processes. Fine if there was none.
pub async fn clean(rack: &Rack, machine: &RackMachine) -> Result<(), LabError> {
    let scratch = scratch(rack, machine);
    if !scratch.is_dir() {
        return Ok(());
    }
    let (disk, at) = (disk(rack, machine).display().to_string(), scratch.display().to_string());
    let arguments = ["--mount", "--propagation", "private", "sh", "-c", CLEAN, "container-clean", &disk, &at];
    let result = host::run("unshare", &[&arguments[..], &[&cgroup(rack, machine)]].concat()).await;
    result.map(drop).map_err(|error| match error {
        // The command is a script of many lines.
        LabError::Command { reason, .. } => {
            LabError::Command { command: format!("cleaning up after {}'s container", machine.name), reason }
        }
        other => other,
    })
}

/// reboot(2) in a PID namespace ends its init by a signal that says what was asked for (reboot(2), BUGS; pid_namespaces(7)), and
/// unshare ends as its child did.
fn ending(status: ExitStatus) -> Ending {
    match status.signal() {
        Some(signal) if signal == Signal::HUP.as_raw() => Ending::GuestReset,
        _ => Ending::Off,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rack::tests::options;
    use super::*;

    #[test]
    fn a_reboot_is_told_from_the_end() {
        assert_eq!(ending(ExitStatus::from_raw(1)), Ending::GuestReset);
        assert_eq!(ending(ExitStatus::from_raw(2)), Ending::Off);
        assert_eq!(ending(ExitStatus::from_raw(9)), Ending::Off);
        assert_eq!(ending(ExitStatus::from_raw(256)), Ending::Off);
    }

    #[test]
    fn a_blank_or_wiped_disk_is_not_installed() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_installed(disk.path()));
        disk.as_file().set_len(4096).unwrap();
        assert!(!is_installed(disk.path()));
        std::os::unix::fs::FileExt::write_all_at(disk.as_file(), &[0x55, 0xAA], 510).unwrap();
        assert!(is_installed(disk.path()));
        assert!(!is_installed(Path::new("/no/such/disk")));
    }

    #[test]
    fn names_are_its_own() {
        let rack = Rack::plan(options()).unwrap();
        assert_eq!(link(&rack.machines[1]), "veth2");
        assert_eq!(cgroup(&rack, &rack.machines[1]), "metalgate-lab-t-node2");
    }
}
