//! A QEMU machine that starts the artifact directory's kernel with the agent as /init.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const MAC: &str = "52:54:00:aa:00:01";
/// The machine is emulated, on a host that may be busy.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Firmware to start with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

/// A directory with the machine's disk, firmware variables, and console log.
pub struct Machine {
    pub dir: tempfile::TempDir,
    firmware: Firmware,
}

/// A machine that is powered on; off when this is dropped.
pub struct Powered {
    qemu: Child,
    console: PathBuf,
}

fn artifacts() -> PathBuf {
    let dir = std::env::var_os("METALGATE_ARTIFACTS").map(PathBuf::from);
    dir.unwrap_or_else(|| metalgate::image::default_dir().expect("an artifact directory"))
}

/// The file `path` of the artifact directory.
pub fn artifact(path: &str) -> Vec<u8> {
    let path = artifacts().join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make artifacts`", path.display()))
}

/// The agent, built for musl: the initramfs has no other libraries.
fn agent() -> Vec<u8> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/x86_64-unknown-linux-musl/release/metalgate-agent");
    let path = std::env::var_os("METALGATE_AGENT").map_or(built, PathBuf::from);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make build`", path.display()))
}

/// An initramfs segment with one file (Linux's Documentation/driver-api/early-userspace/buffer-format.rst).
fn segment(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in [(name, 0o100_755, content), ("TRAILER!!!", 0, &[][..])] {
        let fields = [0, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        write!(archive, "070701{fields}{name}\0").unwrap();
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

impl Machine {
    /// A machine with one disk that holds `disk`.
    pub fn new(firmware: Firmware, disk: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("disk"), disk).unwrap();
        fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", dir.path().join("vars")).expect("the package ovmf");
        Self { dir, firmware }
    }

    /// The disk's content.
    pub fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Starts the agent, with `words` on its kernel command line.
    pub fn start_agent(&self, words: &str) -> Powered {
        let file = |name: &str| self.dir.path().join(name);
        fs::write(file("vmlinuz"), artifact("boot/amd64/vmlinuz")).unwrap();
        let mut initramfs = artifact("boot/amd64/initramfs.cpio.zst");
        // A segment that is not compressed begins at a multiple of four bytes.
        initramfs.resize(initramfs.len().next_multiple_of(4), 0);
        initramfs.extend(segment("init", &agent()));
        fs::write(file("initramfs"), initramfs).unwrap();
        self.start(&[
            "-kernel",
            file("vmlinuz").to_str().unwrap(),
            "-initrd",
            file("initramfs").to_str().unwrap(),
            "-append",
            &format!("console=ttyS0 panic=-1 {words}"),
        ])
    }

    /// Starts what is on the disk.
    pub fn start_disk(&self) -> Powered {
        self.start(&[])
    }

    fn start(&self, boot: &[&str]) -> Powered {
        let file = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let mut qemu = Command::new("qemu-system-x86_64");
        // No network program of the firmware's own, which would be tried before the disk.
        let nic = format!("virtio-net-pci,netdev=n0,mac={MAC},romfile=");
        qemu.args([
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-cpu",
            "Opteron_G3,-cx16,-svm,-misalignsse",
            "-m",
            "1024",
            "-no-reboot",
        ])
        .args(["-display", "none", "-monitor", "none", "-serial", &format!("file:{}", file("console"))])
        .args(["-netdev", "user,id=n0", "-device", &nic])
        .args(["-drive", &format!("file={},if=none,id=d0,format=raw,cache=unsafe", file("disk"))])
        .args(["-device", "virtio-blk-pci,drive=d0,serial=root-disk"]);
        if self.firmware == Firmware::Uefi {
            let code = "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
            let vars = format!("if=pflash,unit=1,format=raw,file={}", file("vars"));
            qemu.args(["-machine", "q35", "-drive", code, "-drive", &vars]);
        }
        let log = File::create(file("qemu.log")).unwrap();
        let qemu = qemu.args(boot).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Powered { qemu: qemu.expect("the package qemu-system-x86"), console: file("console").into() }
    }
}

impl Powered {
    /// What the machine's serial console has shown.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until `done`; a machine that is off before, or takes too long, fails the test with its console.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            let off = self.off();
            // Once more: what we wait for may have been the last thing it did.
            assert!(!off || done(self), "the machine is off before {what}:\n{}", self.console());
            assert!(started.elapsed() < TIMEOUT, "no {what} after {TIMEOUT:?}:\n{}", self.console());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("{what} after {:.1} s", started.elapsed().as_secs_f64());
    }

    /// Whether the machine has switched itself off, or restarted.
    pub fn off(&mut self) -> bool {
        self.qemu.try_wait().unwrap().is_some()
    }

    /// Waits until the machine restarts.
    pub async fn until_off(&mut self) {
        let started = Instant::now();
        while !self.off() {
            assert!(started.elapsed() < TIMEOUT, "no restart after {TIMEOUT:?}:\n{}", self.console());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("restart after {:.1} s", started.elapsed().as_secs_f64());
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
