//! The main job on the virtual rack, with the binary that users run: machines from powered off to a Ready cluster that manages
//! itself, through DHCP, TFTP, iPXE, HTTP, the agent, kubeadm and the pivot; killed on the way, and run again.
//!
//! Root is needed. `METALGATE_BIN` names another binary than cargo's, such as the static release.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;

use cluster::{Kubectl, image};
use metalgate::event::{Event, EventKind};
use metalgate::workflow::journal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A machine that is emulated on a busy host takes minutes for what takes a server seconds.
const LIMIT: Duration = Duration::from_secs(45 * 60);

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

    /// Runs a command of metalgate on the admin machine, with the work directory of this rack.
    fn metalgate(&self, args: &[&str]) -> Output {
        self.inside(&metalgate())
            .args(args)
            .arg("--work-dir")
            .arg(self.work_dir())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let status = self.metalgate(&["status", &self.name, "--output", "json"]);
        serde_json::from_slice(&status.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&status.stderr)))
    }

    /// Writes the files for the first `machines` of the rack, with this endpoint.
    fn write_files(&self, machines: usize, endpoint: &str) {
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
    fn power(&self, machine: &str) -> String {
        let status = Command::new(metalgate())
            .args(["lab", "status", "--output", "json", "--name", &self.name])
            .output()
            .unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let machines = status["machines"].as_array().or(status.as_array()).unwrap().clone();
        let found = machines.into_iter().find(|one| one["name"] == machine).unwrap();
        found["power"].as_str().unwrap().to_lowercase()
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
/// No machine's own: kube-vip holds it.
const VIRTUAL_IP: &str = "10.77.0.5";

#[test]
fn two_machines_are_installed_though_the_run_is_killed_four_times_and_a_half_made_cluster_is_deleted() {
    let rack = Rack::up("kills", "uefi,bios");
    create_killed_four_times(&rack);
    the_machines_were_installed_once(&rack);
    secrets_stayed_secret(&rack);
    // What node preparation has put there, by the machine's own word.
    let prepared = rack.ssh(
        MACHINES[0].1,
        "sudo ctr -n k8s.io images ls -q; sudo sysctl -n net.ipv4.ip_forward; kubeadm version -o short",
    );
    let prepared = String::from_utf8_lossy(&prepared.stdout).into_owned();
    for wanted in [image("kube-apiserver"), image("metalgate.dev/manager"), String::from("\n1\n")] {
        assert!(prepared.contains(&wanted), "{wanted} is not in {prepared}");
    }
    nobody_makes_it_again_while_it_is_deleted(&rack);
    the_cluster_is_deleted(&rack, &["node1", "node2"]);
    gone(rack);
}

/// The whole of it, from powered off to switched off. Emulated on two processors, a control plane with its worker needs more than
/// there is: `make cluster-test` is for machines that have KVM, or more processors.
#[test]
#[ignore = "a whole cluster needs KVM, or more processors than two: make cluster-test"]
fn two_machines_become_a_cluster_that_manages_itself_though_the_run_is_killed_five_times() {
    let rack = Rack::up("whole", "uefi,bios,bios");
    rack.write_files(2, VIRTUAL_IP);
    let dir = rack.dir.path().to_owned();
    create_killed_four_times(&rack);
    create_killed_in_the_pivot(&rack);
    the_machines_were_installed_once(&rack);
    let kubectl = Kubectl::of(&rack, &rack.name, &dir);
    the_cluster_is_whole(&rack, &kubectl);
    pods_answer_across_nodes(&kubectl);
    nothing_of_ours_runs_here(&rack);
    secrets_stayed_secret(&rack);
    a_spare_replaces_a_deleted_machine(&rack, &kubectl);
    the_cluster_is_deleted(&rack, &["node1", "node2", "node3"]);
    gone(rack);
}

/// What a deletion leaves that was killed is there: some machines may be wiped already.
fn nobody_makes_it_again_while_it_is_deleted(rack: &Rack) {
    let begun = rack.work_dir().join("deleting.json");
    std::fs::write(&begun, "{}").unwrap();
    let (code, said) = rack.create("refused").end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is being deleted: `metalgate delete cluster"), "{said}");
    std::fs::remove_file(begun).unwrap();
}

/// Nothing of the rack is left when it is down.
fn gone(rack: Rack) {
    let (dir, name) = (rack.dir.path().to_owned(), rack.name.clone());
    drop(rack);
    assert_eq!(processes(&dir), Vec::<String>::new());
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&namespaces.stdout).contains(&name));
}

fn create_killed_four_times(rack: &Rack) {
    let any = |is: &dyn Fn(&EventKind) -> bool| MACHINES.iter().any(|(machine, _)| rack.count(machine, is) > 0);
    rack.create("first")
        .kill_when("the first answer by DHCP", || any(&|kind| matches!(kind, EventKind::Dhcp { reply: Some(_), .. })));
    rack.create("second").kill_when("an image is being written", || {
        any(&|kind| matches!(kind, EventKind::AgentProgress { done, .. } if *done > 10_000_000))
    });
    rack.create("third")
        .kill_when("a machine starts its own system", || any(&|kind| matches!(kind, EventKind::Rebooting { .. })));
    rack.create("fourth").kill_when("kubeadm init is under way", || {
        any(&|kind| matches!(kind, EventKind::NodeStep { step, detail } if step == "kubeadm init" && detail.starts_with('[')))
    });
}

fn create_killed_in_the_pivot(rack: &Rack) {
    let copied = |event: &Event| matches!(&event.kind, EventKind::Count { what, .. } if what.ends_with("receiving"));
    rack.create("fifth").kill_when("the pivot copies objects", || rack.events().iter().any(copied));
    let (code, said) = rack.create("last").end();
    assert_eq!(code, Some(0), "{said}");
    let active = |event: &Event| matches!(&event.kind, EventKind::Count { what, .. } if what.ends_with(": active"));
    assert_eq!(rack.events().iter().filter(|event| active(event)).count(), 1, "{said}");

    // Nothing is left to do, and nothing is done.
    let before = rack.events().len();
    let (code, said) = rack.create("again").end();
    assert_eq!(code, Some(0), "{said}");
    let orders = rack.events()[before..].iter().filter(|event| matches!(event.kind, EventKind::Power { .. })).count();
    assert_eq!(orders, 0, "{said}");
}

fn the_machines_were_installed_once(rack: &Rack) {
    for (machine, address) in MACHINES {
        let claimed = |kind: &EventKind| matches!(kind, EventKind::AgentClaimed { .. });
        assert_eq!(rack.count(machine, claimed), 1, "{machine} was installed more than once");
        // A look at SSH may be repeated, when its result lost a race; what is written down happens once.
        assert!(rack.count(machine, |kind| matches!(kind, EventKind::SshVerified { .. })) > 0);
        let installed = |kind: &EventKind| matches!(kind, EventKind::State { state, .. } if state == "Installed");
        assert_eq!(rack.count(machine, installed), 1, "{machine} became an installed machine more than once");
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
}

fn the_cluster_is_whole(rack: &Rack, kubectl: &Kubectl<'_>) {
    let status = rack.status();
    assert_eq!(status["managedBy"], "cluster", "{status}");
    for (machine, _) in MACHINES {
        assert_eq!(status["board"]["machines"][machine]["state"], "Ready", "{status}");
    }
    println!("{}", kubectl.run(&["get", "nodes", "-o", "wide"]));
    let nodes = kubectl.run(&["get", "nodes", "-l", "tier=web", "-o", "name"]);
    assert_eq!(nodes.trim(), "node/node2", "labels are the group's");
    let taints = kubectl.run(&["get", "node", "node1", "-o", "jsonpath={.spec.taints[*].key}"]);
    assert_eq!(taints, "node-role.kubernetes.io/control-plane");
    // Secrets are encrypted in etcd: the value is not there in the clear.
    kubectl.run(&["create", "secret", "generic", "at-rest", "--from-literal=key=in-the-clear"]);
    let etcd =
        rack.ssh(MACHINES[0].1, "sudo sync; sudo grep -c in-the-clear -r /var/lib/etcd/member/wal | cut -d: -f2");
    let found = String::from_utf8_lossy(&etcd.stdout).lines().filter(|line| line.trim() != "0").count();
    assert!(etcd.status.success() && found == 0, "{}", String::from_utf8_lossy(&etcd.stdout));
    let audit = rack.ssh(
        MACHINES[0].1,
        "sudo grep -c at-rest /var/log/kubernetes/audit.log; sudo grep -c in-the-clear /var/log/kubernetes/audit.log",
    );
    let counts: Vec<String> = String::from_utf8_lossy(&audit.stdout).lines().map(str::to_owned).collect();
    assert!(counts.len() == 2 && counts[0] != "0" && counts[1] == "0", "audit.log: {counts:?}");
    let tokens = kubectl.run(&[
        "get",
        "secrets",
        "-n",
        "kube-system",
        "--field-selector",
        "type=bootstrap.kubernetes.io/token",
        "-o",
        "jsonpath={range .items[*]}{.data.description}{end}",
    ]);
    assert_eq!(tokens, "", "join tokens are taken back");
}

fn pods_answer_across_nodes(kubectl: &Kubectl<'_>) {
    // BusyBox, which the image of flannel's plugin has: nothing is pulled from anywhere.
    let manifest = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{key: node-role.kubernetes.io/control-plane, operator: Exists}]
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}]
      containers:
        - name: web
          image: IMAGE
          imagePullPolicy: Never
          command: [/bin/busybox, sh, -c, "/bin/busybox mkdir /www && echo $NODE >/www/index.html && exec /bin/busybox httpd -f -p 8080 -h /www"]
          env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
          readinessProbe: {tcpSocket: {port: 8080}, timeoutSeconds: 10}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;
    kubectl.apply(&manifest.replace("IMAGE", &image("flannel-cni-plugin")));
    let ready = ["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"];
    kubectl.wait("two pods on two nodes", &ready, |text| text == "2");
    kubectl.wait(
        "CoreDNS",
        &["get", "deployment", "coredns", "-n", "kube-system", "-o", "jsonpath={.status.readyReplicas}"],
        |text| text.parse::<u32>().is_ok_and(|ready| ready > 0),
    );
    let pods = kubectl.run(&["get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.metadata.name} {end}"]);
    for pod in pods.split_whitespace() {
        // The name resolves, and the Service's address leads to the pod of each node: from both of them.
        let mut answered = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let get = [
                "exec",
                pod,
                "--",
                "/bin/busybox",
                "wget",
                "-q",
                "-T",
                "20",
                "-O",
                "-",
                "http://web.default.svc.cluster.local/",
            ];
            let output = kubectl.try_run(&get);
            answered.extend(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned));
            if answered.len() == 2 {
                break;
            }
        }
        assert_eq!(answered.into_iter().collect::<Vec<_>>(), ["node1", "node2"], "asked from {pod}");
    }
    kubectl.run(&["delete", "deployment,service", "web", "--wait=false"]);
}

fn nothing_of_ours_runs_here(rack: &Rack) {
    let left = rack.ssh(MACHINES[1].1, "sudo ls /var/lib/metalgate/kubeadm");
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(left.contains("done") && !left.contains("config.yaml"), "kubeadm's file with the token is left: {left}");
    let work = rack.work_dir();
    assert_eq!(processes(&work), Vec::<String>::new(), "nothing runs on the admin machine");
    assert!(!work.join("bootstrap").exists(), "the bootstrap cluster is gone");
}

fn secrets_stayed_secret(rack: &Rack) {
    for file in ["id_ed25519", "events.jsonl", "known_hosts", "machines/node1.log"] {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&rack.work_dir().join(file).metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{file} is readable by others");
    }
    let mut texts = vec![std::fs::read_to_string(rack.work_dir().join("events.jsonl")).unwrap()];
    texts.extend(
        MACHINES
            .map(|(name, _)| std::fs::read_to_string(rack.work_dir().join(format!("machines/{name}.log"))).unwrap()),
    );
    texts.extend(MACHINES.map(|(_, address)| {
        String::from_utf8_lossy(&rack.ssh(address, "sudo cat /var/log/metalgate-kubeadm.log").stdout).into_owned()
    }));
    for text in texts {
        for secret in ["metalgate.token=", "PRIVATE KEY", "Bearer", "--token"] {
            assert!(!text.contains(secret), "{secret} is in a log");
        }
    }
}

/// Without the admin machine: it only says that there is a third machine.
fn a_spare_replaces_a_deleted_machine(rack: &Rack, kubectl: &Kubectl<'_>) {
    kubectl.run(&["delete", "metalmachine", "node2", "-n", "metalgate", "--wait=false"]);
    rack.write_files(3, VIRTUAL_IP);
    let (spec, csv) = (rack.files().join("cluster.yaml"), rack.files().join("hardware.csv"));
    let applied = rack.metalgate(&["apply", "-f", spec.to_str().unwrap(), "--hardware-csv", csv.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&applied.stdout).into_owned();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert_eq!(said, "hardware node3: new\n");
    let nodes = [
        "get",
        "nodes",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type==\"Ready\")].status} {end}",
    ];
    kubectl.wait("the spare is Ready, and the deleted machine gone", &nodes, |text| text == "node1=True node3=True ");
    assert_eq!(rack.power("node2"), "off");
    let hardware = kubectl.run(&["get", "hardware", "node2", "-n", "metalgate", "-o", "jsonpath={.metadata.labels}"]);
    assert!(hardware.contains("out-of-service"), "{hardware}");
    let ready = [
        "get",
        "metalcluster",
        &rack.name,
        "-n",
        "metalgate",
        "-o",
        "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}",
    ];
    kubectl.wait("the cluster says that it is Ready", &ready, |text| text == "True");
}

fn the_cluster_is_deleted(rack: &Rack, machines: &[&str]) {
    let refused = rack.metalgate(&["delete", "cluster", &rack.name]);
    assert_eq!(refused.status.code(), Some(2), "it has to ask");
    let deleted = rack.metalgate(&["delete", "cluster", &rack.name, "--yes", "--wipe"]);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    for machine in machines {
        assert_eq!(rack.power(machine), "off", "{machine}");
    }
    assert!(!rack.work_dir().exists());
    // The first and the last one have a system that answers SSH.
    for machine in [machines[0], machines[machines.len() - 1]] {
        assert!(!has_partition_table(rack, machine), "{machine} was not wiped");
    }
}

/// Whether anything could start from the machine's disk.
fn has_partition_table(rack: &Rack, machine: &str) -> bool {
    let (disk, table) = (rack.files().join(machine).join("disk.qcow2"), rack.dir.path().join("table"));
    let mut read = Command::new("qemu-img");
    read.args(["dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=34"]);
    let read = read.arg(format!("if={}", disk.display())).arg(format!("of={}", table.display())).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    std::fs::read(table).unwrap().iter().any(|byte| *byte != 0)
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
    assert!(said.contains("2 of 2 machines cannot go on"), "{said}");
    assert!(said.contains("refuses user `admin`: check bmc_username and bmc_password"), "{said}");
    assert_eq!(rack.status()["board"]["machines"]["node1"]["state"], "Failed");
    // A password is tried once, not until the account is locked.
    let tried = rack.count("node1", |kind| matches!(kind, EventKind::Power { .. }));
    assert_eq!(tried, 1, "{said}");
}
