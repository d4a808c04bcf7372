//! What the admin machine does with a rack of virtual machines.

use crate::LIMIT;
use crate::rack::{Rack, metalgate};
use metalgate::event::{Event, EventKind};
use metalgate::workflow::journal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

impl Rack {
    /// Starts `create cluster`; what it says goes to files of this name.
    pub fn create(&self, run: &str) -> Create {
        self.create_with(run, &[])
    }

    /// The same with more arguments.
    pub fn create_with(&self, run: &str, more: &[&str]) -> Create {
        let output = |ending: &str| File::create(self.dir.path().join(format!("{run}.{ending}"))).unwrap();
        let mut command = self.about_files(&["create", "cluster", "--output", "json"], more);
        command.stdin(Stdio::null()).stdout(output("json")).stderr(output("log"));
        Create { child: command.spawn().unwrap(), log: self.dir.path().join(format!("{run}.log")) }
    }

    pub fn events(&self) -> Vec<Event> {
        journal::read(&self.work_dir()).unwrap()
    }

    pub fn count(&self, machine: &str, is: impl Fn(&EventKind) -> bool) -> usize {
        self.events().iter().filter(|event| event.machine.as_deref() == Some(machine) && is(&event.kind)).count()
    }

    /// Runs a command of metalgate on the admin machine, with the work directory of this rack.
    pub fn metalgate(&self, args: &[&str]) -> Output {
        self.inside(&metalgate())
            .args(args)
            .arg("--work-dir")
            .arg(self.work_dir())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub fn status(&self) -> serde_json::Value {
        let status = self.metalgate(&["status", &self.name, "--output", "json"]);
        serde_json::from_slice(&status.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&status.stderr)))
    }

    /// Writes the files for the first `machines` of the rack, with this endpoint.
    pub fn write_files(&self, machines: usize, endpoint: &str) {
        let (csv, yaml) = (self.files().join("hardware.csv"), self.files().join("cluster.yaml"));
        let whole = self.dir.path().join("whole.csv");
        if !whole.exists() {
            std::fs::copy(&csv, &whole).unwrap();
        }
        let text = std::fs::read_to_string(&whole).unwrap();
        let rows: Vec<&str> = text.lines().take(1 + machines).collect();
        std::fs::write(&csv, rows.join("\n") + "\n").unwrap();
        let text = std::fs::read_to_string(&yaml).unwrap();
        let lines = text.lines().map(|line| match line.trim() {
            line if line.starts_with("endpoint:") => format!("    endpoint: {{host: {endpoint}, port: 6443}}"),
            line if line.starts_with("workers:") => {
                String::from("  workers: [{name: md-0, count: 1, selector: {type: worker}, labels: {tier: web}}]")
            }
            _ => line.to_owned(),
        });
        std::fs::write(&yaml, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    }

    /// What the lab says of a machine's power: `on` or `off`.
    pub fn power(&self, machine: &str) -> String {
        let status = self.lab(&["status", "--output", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let machines = status["machines"].as_array().or(status.as_array()).unwrap().clone();
        let found = machines.into_iter().find(|one| one["name"] == machine).unwrap();
        found["power"].as_str().unwrap().to_lowercase()
    }

    /// Logs in as the user of the spec, with OpenSSH and the known_hosts that `create` wrote.
    pub fn ssh(&self, address: &str, command: &str) -> Output {
        let mut ssh = self.inside("ssh");
        ssh.args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=30", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", self.work_dir().join("known_hosts").display()));
        ssh.arg("-i").arg(self.files().join("id_ed25519")).args([&format!("ops@{address}"), command]);
        ssh.output().unwrap()
    }

    /// Whether anything could start from the machine's disk.
    pub fn has_partition_table(&self, machine: &str) -> bool {
        let mut table = [0; 34 * 512];
        let disk = self.files().join(machine).join("disk.raw");
        std::io::Read::read_exact(&mut File::open(disk).unwrap(), &mut table).unwrap();
        table.iter().any(|byte| *byte != 0)
    }
}

/// A `create cluster` under way.
pub struct Create {
    child: Child,
    log: PathBuf,
}

impl Create {
    /// Kills it, as the power would, once `reached` is true.
    pub fn kill_when(mut self, what: &str, reached: impl Fn() -> bool) {
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
    pub fn end(mut self) -> (Option<i32>, String) {
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

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

/// Processes whose command line names `dir`.
pub fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(dir)).collect()
}
