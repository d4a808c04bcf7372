//! A virtual rack in a folder of its own, made by the binary under test, for the tests that need machines or their BMCs.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The binary under test: cargo's, or that of `METALGATE_BIN`, such as the static release.
pub fn metalgate() -> String {
    std::env::var("METALGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_metalgate").to_owned())
}

/// The rack; it is gone when this is dropped. The admin machine is 10.77.0.1, the machines are 10.77.0.10 and up.
pub struct Rack {
    pub name: String,
    pub dir: tempfile::TempDir,
}

impl Rack {
    /// A rack whose name begins with `prefix`, with a machine for each of the boot modes in `machines`.
    pub fn up(prefix: &str, machines: &str, more: &[&str]) -> Self {
        let name = format!("{prefix}{}x{}", std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed));
        let rack = Self { name, dir: tempfile::tempdir().unwrap() };
        let files = rack.files().display().to_string();
        let up = rack.lab(&[&["up", "--machines", machines, "--dir", &files], more].concat());
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        rack
    }

    /// Where its disks, keys, hardware.csv and cluster.yaml are.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("rack")
    }

    /// The work directory of its cluster.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The admin machine's network namespace.
    pub fn namespace(&self) -> String {
        format!("mg-{}", self.name)
    }

    /// A program on the admin machine.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(), program]);
        command
    }

    /// A command of metalgate on the admin machine, about this rack's two files and its work directory.
    pub fn about_files(&self, command: &[&str], more: &[&str]) -> Command {
        let mut inside = self.inside(&metalgate());
        inside.args(command).arg("-f").arg(self.files().join("cluster.yaml"));
        inside.arg("--hardware-csv").arg(self.files().join("hardware.csv"));
        inside.arg("--work-dir").arg(self.work_dir()).args(more);
        inside
    }

    /// `metalgate lab` for this rack.
    pub fn lab(&self, args: &[&str]) -> Output {
        Command::new(metalgate()).arg("lab").args(args).args(["--name", &self.name]).output().unwrap()
    }

    /// Makes a machine's BMC misbehave.
    pub fn fault(&self, machine: &str, fault: &str) {
        let set = self.lab(&["fault", machine, fault]);
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let down = self.lab(&["down"]);
        assert!(down.status.success() || std::thread::panicking(), "{}", String::from_utf8_lossy(&down.stderr));
    }
}
