//! The main job on the virtual rack, with the binary that users run: machines from powered off to SSH, through DHCP, TFTP,
//! iPXE, HTTP and the agent; killed on the way, and run again.
//!
//! Root is needed. `METALGATE_BIN` names another binary than cargo's, such as the static release.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use metalgate::event::{Event, EventKind};
use metalgate::workflow::journal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A machine that is emulated on a busy host takes minutes for what takes a server seconds.
const LIMIT: Duration = Duration::from_secs(25 * 60);

fn metalgate() -> String {
    std::env::var("METALGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_metalgate").to_owned())
}

/// A virtual rack in a folder of its own; it is gone when this is dropped.
struct Rack {
    name: String,
    dir: tempfile::TempDir,
}

impl Rack {
    fn up(name: &str, machines: &str) -> Self {
        let rack = Self { name: format!("{name}{}", std::process::id()), dir: tempfile::tempdir().unwrap() };
        let up = Command::new(metalgate())
            .args(["lab", "up", "--name", &rack.name, "--machines", machines, "--dir"])
            .arg(rack.files())
            .output()
            .unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        rack
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("rack")
    }

    fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("mg-{}", self.name), program]);
        command
    }

    /// Starts `create cluster`; what it says goes to files of this name.
    fn create(&self, run: &str) -> Create {
        let output = |ending: &str| File::create(self.dir.path().join(format!("{run}.{ending}"))).unwrap();
        let mut command = self.inside(&metalgate());
        command.args(["create", "cluster", "--output", "json", "-f"]).arg(self.files().join("cluster.yaml"));
        command.arg("--hardware-csv").arg(self.files().join("hardware.csv"));
        command.arg("--work-dir").arg(self.work_dir());
        command.stdin(Stdio::null()).stdout(output("json")).stderr(output("log"));
        Create { child: command.spawn().unwrap(), log: self.dir.path().join(format!("{run}.log")) }
    }

    fn events(&self) -> Vec<Event> {
        journal::read(&self.work_dir()).unwrap()
    }

    fn count(&self, machine: &str, is: impl Fn(&EventKind) -> bool) -> usize {
        self.events().iter().filter(|event| event.machine.as_deref() == Some(machine) && is(&event.kind)).count()
    }

    fn status(&self) -> serde_json::Value {
        let status = Command::new(metalgate())
            .args(["status", "any", "--output", "json", "--work-dir"])
            .arg(self.work_dir())
            .output()
            .unwrap();
        serde_json::from_slice(&status.stdout).unwrap()
    }

    /// Logs in as the user of the spec, with OpenSSH and the known_hosts that `create` wrote.
    fn ssh(&self, address: &str, command: &str) -> Output {
        let mut ssh = self.inside("ssh");
        ssh.args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=30", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", self.work_dir().join("known_hosts").display()));
        ssh.arg("-i").arg(self.files().join("id_ed25519")).args([&format!("ops@{address}"), command]);
        ssh.output().unwrap()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        let down = Command::new(metalgate()).args(["lab", "down", "--name", &self.name]).output().unwrap();
        assert!(down.status.success() || std::thread::panicking(), "{}", String::from_utf8_lossy(&down.stderr));
    }
}

/// A `create cluster` under way.
struct Create {
    child: Child,
    log: PathBuf,
}

impl Create {
    /// Kills it, as the power would, once `reached` is true.
    fn kill_when(mut self, what: &str, reached: impl Fn() -> bool) {
        let started = Instant::now();
        while !reached() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended before {what}: {}", self.said());
            assert!(started.elapsed() < LIMIT, "{what} was not reached: {}", self.said());
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("killed after {} s: {what}", started.elapsed().as_secs());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end: its exit code and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.said());
            }
            if started.elapsed() > LIMIT {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("it did not end: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

/// Processes whose command line or environment-independent arguments name `dir`.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(dir)).collect()
}

const MACHINES: [(&str, &str); 2] = [("node1", "10.77.0.10"), ("node2", "10.77.0.11")];

#[test]
fn two_machines_go_from_off_to_ssh_though_the_run_is_killed_three_times() {
    let rack = Rack::up("kills", "uefi,bios");
    let dir = rack.dir.path().to_owned();
    let claimed = |kind: &EventKind| matches!(kind, EventKind::AgentClaimed { .. });
    let any = |is: &dyn Fn(&EventKind) -> bool| MACHINES.iter().any(|(machine, _)| rack.count(machine, is) > 0);

    rack.create("first")
        .kill_when("the first answer by DHCP", || any(&|kind| matches!(kind, EventKind::Dhcp { reply: Some(_), .. })));
    rack.create("second").kill_when("an image is being written", || {
        any(&|kind| matches!(kind, EventKind::AgentProgress { done, .. } if *done > 10_000_000))
    });
    rack.create("third")
        .kill_when("a machine starts its own system", || any(&|kind| matches!(kind, EventKind::Rebooting { .. })));
    let (code, said) = rack.create("last").end();
    assert_eq!(code, Some(0), "{said}");

    let status = rack.status();
    for (machine, address) in MACHINES {
        assert_eq!(status["board"]["machines"][machine]["state"], "Installed", "{status}");
        assert_eq!(rack.count(machine, claimed), 1, "{machine} was installed more than once");
        assert_eq!(rack.count(machine, |kind| matches!(kind, EventKind::SshVerified { .. })), 1);
        let tftp = rack.count(machine, |kind| matches!(kind, EventKind::TftpDone { .. }));
        assert!(tftp > 0, "{machine} did not load iPXE over TFTP");
        let root = rack
            .ssh(address, "cat /etc/os-release; hostname; df --output=size -BG / | tail -1; sudo -n true && echo root");
        let text = String::from_utf8_lossy(&root.stdout);
        assert!(root.status.success(), "{}", String::from_utf8_lossy(&root.stderr));
        assert!(
            text.contains("VERSION_CODENAME=trixie") && text.contains(machine) && text.contains("\nroot"),
            "{text}"
        );
        let gigabytes: u32 = text.lines().find_map(|line| line.trim().strip_suffix('G')?.parse().ok()).unwrap();
        assert!(gigabytes >= 8, "the root file system did not grow to the disk: {text}");
    }

    // Nothing is left to do, and nothing is done.
    let before = rack.events().len();
    let (code, said) = rack.create("again").end();
    assert_eq!(code, Some(0), "{said}");
    let orders = rack.events()[before..].iter().filter(|event| matches!(event.kind, EventKind::Power { .. })).count();
    assert_eq!(orders, 0, "{said}");
    for file in ["id_ed25519", "events.jsonl", "known_hosts", "bootstrap/kubeconfig"] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&rack.work_dir().join(file).metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{file} is readable by others");
    }
    let journal = std::fs::read_to_string(rack.work_dir().join("events.jsonl")).unwrap();
    for secret in ["metalgate.token=", "PRIVATE KEY", "Bearer"] {
        assert!(!journal.contains(secret), "{secret} is in the journal");
    }

    let name = rack.name.clone();
    drop(rack);
    assert_eq!(processes(&dir), Vec::<String>::new());
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&namespaces.stdout).contains(&name));
}

#[test]
fn a_wrong_password_fails_the_machines_and_is_tried_once() {
    let rack = Rack::up("bmc", "bios,bios");
    for (machine, fault) in [("node1", "wrong-password"), ("node2", "wrong-password")] {
        let set =
            Command::new(metalgate()).args(["lab", "fault", machine, fault, "--name", &rack.name]).output().unwrap();
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    }
    let (code, said) = rack.create("refused").end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("2 of 2 machines could not be installed"), "{said}");
    assert!(said.contains("refuses user `admin`: check bmc_username and bmc_password"), "{said}");
    assert_eq!(rack.status()["board"]["machines"]["node1"]["state"], "Failed");
    // A password is tried once, not until the account is locked.
    let tried = rack.count("node1", |kind| matches!(kind, EventKind::Power { .. }));
    assert_eq!(tried, 1, "{said}");
}
