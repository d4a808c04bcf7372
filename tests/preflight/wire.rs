//! A foreign host on a rack's network, and `metalgate preflight` on its admin machine.

use crate::rack::Rack;
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A rack of small machines, which stay off.
pub fn up(machines: &str) -> Rack {
    Rack::up("p", machines, &["--memory", "256", "--disk", "1"])
}

impl Rack {
    /// Replaces a text of a file that the rack has written.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.files().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    pub fn preflight(&self, more: &[&str]) -> Report {
        let mut command = self.about_files(&["preflight", "--output", "json"], more);
        let started = Instant::now();
        Report { output: command.output().unwrap(), took: started.elapsed() }
    }

    /// Preflight with these checks only.
    pub fn only(&self, checks: &[&str]) -> Report {
        let all = ["interface", "dhcp", "addresses", "ports", "bmc", "artifacts", "clock"];
        let skipped = all.iter().filter(|check| !checks.contains(check)).flat_map(|check| ["--skip", *check]);
        self.preflight(&skipped.collect::<Vec<_>>())
    }
}

/// What a preflight said.
pub struct Report {
    pub output: Output,
    pub took: Duration,
}

impl Report {
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn findings(&self) -> Vec<Value> {
        let json: Value = serde_json::from_slice(&self.output.stdout).unwrap_or_else(|_| panic!("{}", self.stderr()));
        json["findings"].as_array().unwrap().clone()
    }

    /// `check verdict object` of everything that was not skipped.
    pub fn verdicts(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let looked = self.findings().into_iter().filter(|one| one["verdict"] != "skipped");
        looked
            .map(|one| format!("{} {} {}", text(&one["check"]), text(&one["verdict"]), text(&one["object"])))
            .collect()
    }

    /// The reason of the one finding about an object.
    pub fn reason(&self, object: &str) -> String {
        let findings = self.findings();
        let mut found = findings.iter().filter(|one| one["object"] == object);
        let one = found.next().unwrap_or_else(|| panic!("nothing about {object}: {findings:?}"));
        assert!(found.next().is_none(), "{object} is there twice: {findings:?}");
        assert!(one["wayOut"].as_str().is_some_and(|way_out| !way_out.is_empty()), "{one}");
        one["reason"].as_str().unwrap().to_owned()
    }
}

/// A foreign host in the rack's network, with a MAC address and addresses of its own; gone when this is dropped.
pub struct Stranger {
    name: String,
    running: Vec<Child>,
}

impl Stranger {
    pub fn new(rack: &Rack, mac: &str, addresses: &[&str]) -> Self {
        let id = format!("{}x{}", std::process::id() % 100_000, NEXT.fetch_add(1, Ordering::Relaxed));
        let (name, here, there) = (format!("mgpre-{id}"), format!("mp{id}"), format!("ms{id}"));
        ip(&["netns", "add", &name]);
        let host = Self { name, running: Vec::new() };
        let rack = rack.namespace();
        ip(&["link", "add", &here, "netns", &rack, "type", "veth", "peer", "name", &there, "netns", &host.name]);
        ip(&["-n", &host.name, "link", "set", &there, "name", "eth0", "address", mac]);
        for address in addresses {
            ip(&["-n", &host.name, "address", "add", address, "dev", "eth0"]);
        }
        ip(&["-n", &host.name, "link", "set", "eth0", "up"]);
        ip(&["-n", &rack, "link", "set", &here, "master", "br0", "up"]);
        host
    }

    pub fn ip(&self, args: &[&str]) {
        ip(&[&["-n", self.name.as_str()], args].concat());
    }

    /// Starts a program that is ended with this host.
    pub fn start(&mut self, program: &str, args: &[&str]) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(args).stdout(Stdio::null()).stderr(Stdio::null());
        self.running.push(command.spawn().unwrap());
    }

    /// Ends what was started here.
    pub fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop();
        ip(&["netns", "delete", &self.name]);
    }
}
