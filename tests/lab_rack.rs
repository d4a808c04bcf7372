//! `metalgate lab` for real: namespaces, QEMU, curl as the Redfish client, dnsmasq as the DHCP and TFTP server.
//!
//! Needs root, qemu-system-x86, qemu-utils, ovmf, ipxe, iproute2, curl and dnsmasq-base.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Firmware under TCG, on a host that runs other tests too.
const SLOW: Duration = Duration::from_secs(240);
const QUICK: Duration = Duration::from_secs(20);

fn metalgate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metalgate")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A lab of this process's own, taken down when dropped.
struct Lab {
    name: String,
    dir: tempfile::TempDir,
}

impl Lab {
    /// Names a lab; `suffix` tells the labs of one test run apart.
    fn new(suffix: &str) -> Self {
        Self { name: format!("t{}{suffix}", std::process::id()), dir: tempfile::tempdir().unwrap() }
    }

    /// The lab's directory; it does not exist until the lab is up.
    fn dir(&self) -> PathBuf {
        self.dir.path().join("lab")
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        metalgate(&[&["lab", command, "--name", self.name.as_str()], more].concat())
    }

    fn up(&self, more: &[&str]) -> Output {
        let dir = self.dir().display().to_string();
        self.run("up", &[&["--dir", dir.as_str(), "--memory", "256", "--disk", "1"], more].concat())
    }

    fn status(&self) -> Value {
        let output = self.run("status", &["--output", "json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the status of machine `index` satisfies `wanted`.
    fn wait(&self, index: usize, patience: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + patience;
        loop {
            let machine = self.status()["machines"][index].clone();
            if wanted(&machine) {
                return machine;
            }
            let console = fs::read(self.dir().join(format!("node{}/console.log", index + 1))).unwrap_or_default();
            assert!(Instant::now() < end, "{machine}\n{}", String::from_utf8_lossy(&console));
            sleep(Duration::from_millis(300));
        }
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("mg-{}", self.name), program]);
        command
    }

    /// One request to the BMC of machine `index`, by curl; the status code and the body.
    fn redfish(&self, index: usize, method: &str, path: &str, body: Value) -> (u32, Value) {
        let csv = fs::read_to_string(self.dir().join("hardware.csv")).unwrap();
        let row: Vec<&str> = csv.lines().nth(index + 1).unwrap().split(',').collect();
        let mut curl = self.inside("curl");
        curl.args(["-sk", "-m", "5", "-w", "\n%{http_code}", "-X", method, "-u", &format!("{}:{}", row[2], row[3])]);
        if !body.is_null() {
            curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let output = stdout(&curl.arg(format!("https://{}/redfish/v1{path}", row[1])).output().unwrap());
        let (body, code) = output.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    fn reset(&self, index: usize, kind: &str) {
        let path = "/Systems/1/Actions/ComputerSystem.Reset";
        assert_eq!(self.redfish(index, "POST", path, json!({"ResetType": kind})).0, 204);
    }

    fn boot_once(&self, index: usize, target: &str) {
        let boot = json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target}});
        assert_eq!(self.redfish(index, "PATCH", "/Systems/1", boot).0, 204);
    }

    fn run_dir(&self) -> PathBuf {
        Path::new("/run/metalgate/lab").join(&self.name)
    }

    /// Fails if anything of the lab is left.
    fn assert_gone(&self) {
        let namespace = format!("mg-{}", self.name);
        assert!(!Path::new("/run/netns").join(&namespace).exists());
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(&namespace));
        assert!(!self.run_dir().exists() && !self.run_dir().with_extension("lock").exists());
        assert!(!self.dir().exists());
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    /// Command lines of processes of this lab, tests aside.
    fn processes(&self) -> Vec<String> {
        let line = |entry: fs::DirEntry| {
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
        };
        let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| line(entry.ok()?));
        let ours = [format!("-name {}-node", self.name), format!("lab serve --name {} ", self.name)];
        lines.filter(|line| ours.iter().any(|mark| line.contains(mark))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run("down", &[]);
    }
}

/// dnsmasq: gives a plain PXE client iPXE by TFTP, and iPXE a script that resets the machine.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(lab: &Lab) -> Self {
        let root = lab.dir.path().join("tftp");
        fs::create_dir(&root).unwrap();
        for file in ["undionly.kpxe", "snponly.efi"] {
            fs::copy(Path::new("/usr/lib/ipxe").join(file), root.join(file)).unwrap();
        }
        fs::write(root.join("boot.ipxe"), "#!ipxe\nreboot\n").unwrap();
        let mut dnsmasq = lab.inside("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--enable-tftp"]);
        dnsmasq.args(["--interface=br0", "--bind-interfaces", "--dhcp-range=10.77.0.10,10.77.0.50", "--log-dhcp"]);
        dnsmasq.args(["--dhcp-userclass=set:ipxe,iPXE", "--dhcp-match=set:efi,option:client-arch,7"]);
        dnsmasq.args(["--dhcp-boot=tag:ipxe,boot.ipxe", "--dhcp-boot=tag:!ipxe,tag:efi,snponly.efi"]);
        dnsmasq.args(["--dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe"]);
        dnsmasq.arg(format!("--tftp-root={}", root.display()));
        dnsmasq.arg(format!("--dhcp-leasefile={}", lab.dir.path().join("leases").display()));
        dnsmasq.arg(format!("--log-facility={}", lab.dir.path().join("dnsmasq.log").display()));
        Self(dnsmasq.spawn().unwrap())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The whole life of a rack: up, a network boot, the machine's own reset from its disk, off, down.
#[test]
fn a_one_time_network_boot_ends_with_the_machines_own_reset() {
    let lab = Lab::new("a");
    let made = lab.up(&["--machines", "uefi,bios"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&made).contains(&format!("ip netns exec mg-{} metalgate create cluster", lab.name)));
    let dnsmasq = Dnsmasq::start(&lab);
    for index in [0, 1] {
        assert_eq!(lab.redfish(index, "GET", "/Systems/1", Value::Null).1["PowerState"], "Off");
        lab.boot_once(index, "Pxe");
        lab.reset(index, "On");
    }
    let system = lab.redfish(0, "GET", "/Systems/1", Value::Null).1;
    assert_eq!(
        (&system["PowerState"], &system["Boot"]["BootSourceOverrideEnabled"]),
        (&json!("On"), &json!("Disabled"))
    );
    assert_eq!(lab.processes().iter().filter(|line| line.contains("qemu-system")).count(), 2);
    assert_eq!(qmp_status(&lab, "node1"), "running");

    for (index, first_stage) in [(0, "snponly.efi"), (1, "undionly.kpxe")] {
        let machine = lab.wait(index, SLOW, |machine| machine["starts"] == 2);
        assert_eq!((&machine["power"], &machine["bootedFrom"]), (&json!("on"), &json!("disk")));
        let console = String::from_utf8_lossy(&fs::read(machine["console"].as_str().unwrap()).unwrap()).into_owned();
        let (network, disk) = console.split_once("start from Disk").unwrap();
        assert!(network.contains("boot.ipxe... ok") && !disk.contains("iPXE"), "{console}");
        let served = fs::read_to_string(lab.dir.path().join("dnsmasq.log")).unwrap();
        assert!(served.contains(&format!("{first_stage} to 10.77.0.")), "{served}");
    }
    drop(dnsmasq);

    lab.reset(0, "ForceOff");
    assert_eq!(lab.wait(0, QUICK, |machine| machine["power"] == "off")["pid"], Value::Null);
    assert_eq!(lab.processes().iter().filter(|line| line.contains("qemu-system")).count(), 1);
    assert!(lab.run("down", &[]).status.success());
    lab.assert_gone();
}

fn qmp_status(lab: &Lab, machine: &str) -> String {
    let mut monitor = UnixStream::connect(lab.run_dir().join(format!("{machine}.qmp"))).unwrap();
    monitor.set_read_timeout(Some(QUICK)).unwrap();
    monitor.write_all(b"{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"query-status\"}\n").unwrap();
    let lines = BufReader::new(monitor).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let status = lines.map(|line| line["return"]["status"].clone()).find(Value::is_string).unwrap();
    status.as_str().unwrap().to_owned()
}

/// Killed, the daemon takes its machines with it; `up` mends the lab and `down` ends it, again and again.
#[test]
fn a_lab_whose_daemon_was_killed_is_mended() {
    let lab = Lab::new("b");
    assert!(lab.up(&["--uefi", "0", "--bios", "1"]).status.success());
    let again = lab.up(&[]);
    assert!(again.status.success() && stderr(&again).contains("is up already"), "{}", stderr(&again));
    lab.reset(0, "On");
    let record: Value = serde_json::from_slice(&fs::read(lab.run_dir().join("serve.process")).unwrap()).unwrap();
    Command::new("kill").args(["-KILL", &record["pid"].to_string()]).status().unwrap();
    let end = Instant::now() + QUICK;
    while !lab.processes().is_empty() {
        assert!(Instant::now() < end, "{:?}", lab.processes());
        sleep(Duration::from_millis(50));
    }
    let broken = lab.run("status", &[]);
    assert!(!broken.status.success() && stderr(&broken).contains("the daemon does not answer"), "{}", stderr(&broken));
    assert!(lab.up(&["--bios", "1"]).status.success());
    assert_eq!(lab.status()["machines"][0]["power"], "off");
    for _ in 0..2 {
        assert!(lab.run("down", &[]).status.success());
        lab.assert_gone();
    }
}

#[test]
fn faults_are_seen_by_clients_and_end_on_request() {
    let lab = Lab::new("c");
    let password = lab.dir.path().join("password");
    fs::write(&password, "calvin\n").unwrap();
    let made = lab.up(&["--bios", "1", "--bmc-password-file", &password.display().to_string()]);
    assert!(made.status.success(), "{}", stderr(&made));
    let fault = |kind: &str| metalgate(&["lab", "fault", "node1", kind, "--name", &lab.name]);
    let get = || lab.redfish(0, "GET", "/Systems/1", Value::Null).0;
    assert_eq!(get(), 200);
    for (kind, code) in [("wrong-password", 401), ("error", 500), ("hang", 0), ("none", 200)] {
        assert!(fault(kind).status.success());
        assert_eq!(get(), code, "{kind}");
    }
    let link = || {
        stdout(&Command::new("ip").args(["-n", &format!("mg-{}", lab.name), "link", "show", "tap1"]).output().unwrap())
    };
    assert!(link().contains(",UP>"), "{}", link());
    assert!(fault("unplug").status.success());
    assert!(!link().contains("UP>"), "{}", link());
    assert_eq!(lab.status()["machines"][0]["cable"], false);
    assert!(fault("none").status.success());
    assert!(link().contains(",UP>"), "{}", link());
    let unknown = metalgate(&["lab", "fault", "node7", "hang", "--name", &lab.name]);
    assert!(stderr(&unknown).contains("has no machine node7: it has node1"), "{}", stderr(&unknown));
}

#[test]
fn up_overwrites_nothing_and_down_keeps_on_request() {
    let lab = Lab::new("d");
    fs::create_dir(lab.dir()).unwrap();
    fs::write(lab.dir().join("cluster.yaml"), "mine").unwrap();
    let refused = lab.up(&["--bios", "1"]);
    assert!(stderr(&refused).contains("cluster.yaml exists already"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(lab.dir().join("cluster.yaml")).unwrap(), "mine");
    fs::remove_file(lab.dir().join("cluster.yaml")).unwrap();

    let namespace = format!("mg-{}", lab.name);
    assert!(Command::new("ip").args(["netns", "add", &namespace]).status().unwrap().success());
    let refused = lab.up(&["--bios", "1"]);
    assert!(Command::new("ip").args(["netns", "del", &namespace]).status().unwrap().success());
    assert!(stderr(&refused).contains("exists already and is no lab's"), "{}", stderr(&refused));

    assert!(lab.up(&["--bios", "1"]).status.success());
    assert!(lab.run("down", &["--keep"]).status.success());
    assert!(lab.dir().join("node1/disk.raw").exists() && lab.dir().join("hardware.csv").exists());
    assert_eq!(lab.processes(), Vec::<String>::new());
}

#[test]
fn options_that_cannot_be_are_bad_usage() {
    let lab = Lab::new("e");
    for (options, expected) in [
        (vec!["--uefi", "0", "--bios", "0"], "1 to 50 machines, not 0"),
        (vec!["--bios", "1", "--subnet", "10.77.0.0/28"], "needs a /24 or larger"),
        (vec!["--machines", "bios", "--uefi", "1"], "cannot be used with"),
        (vec!["--machines", "coreboot"], "invalid value"),
    ] {
        let refused = lab.up(&options);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    }
    lab.assert_gone();
}
