//! The main job on the virtual rack, with the binary that users run: machines from powered off to a Ready cluster that manages
//! itself, through DHCP, TFTP, iPXE, HTTP, the agent, kubeadm and the pivot; killed on the way, and run again.
//!
//! Root is needed. `METALGATE_BIN` names another binary than cargo's, such as the static release.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod cluster;
mod gateway;
#[path = "../rack/mod.rs"]
mod rack;

use admin::processes;
use cluster::{Kubectl, image};
use metalgate::event::{Event, EventKind};
use rack::Rack;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

/// A machine that is emulated on a busy host takes minutes for what takes a server seconds.
const LIMIT: Duration = Duration::from_secs(45 * 60);

const MACHINES: [(&str, &str); 2] = [("node1", "10.77.0.10"), ("node2", "10.77.0.11")];
/// No machine's own: kube-vip holds it.
const VIRTUAL_IP: &str = "10.77.0.5";

#[test]
fn two_machines_are_installed_and_prepared_and_a_half_made_cluster_is_deleted() {
    let rack = Rack::up("kills", "uefi,bios", &[]);
    let mirror = "{registry: docker.io, url: \"http://10.77.0.1:5000/hub\"}";
    append(&rack, &format!("  registries: {{proxy: {{https: \"http://10.77.0.1:3128\"}}, mirrors: [{mirror}]}}\n"));
    create_killed_in_kubeadm_init(&rack, "only");
    the_machines_were_installed_once(&rack);
    secrets_stayed_secret(&rack);
    // What node preparation has put there, by the machine's own word.
    let prepared = rack.ssh(
        MACHINES[0].1,
        "sudo ctr -n k8s.io images ls -q; sudo sysctl -n net.ipv4.ip_forward; kubeadm version -o short; \
         cat /etc/containerd/certs.d/docker.io/hosts.toml; systemctl show containerd -p Environment; \
         sudo containerd config dump | grep certs.d",
    );
    let prepared = String::from_utf8_lossy(&prepared.stdout).into_owned();
    let registries = [
        "http://10.77.0.1:5000/v2/hub",
        "HTTPS_PROXY=http://10.77.0.1:3128",
        "config_path = \"/etc/containerd/certs.d",
    ];
    let images = [image("kube-apiserver"), image("metalgate.dev/manager")];
    for wanted in images.into_iter().chain(registries.map(String::from)).chain([String::from("\n1\n")]) {
        assert!(prepared.contains(&wanted), "{wanted} is not in {prepared}");
    }
    nobody_makes_it_again_while_it_is_deleted(&rack);
    the_cluster_is_deleted(&rack, &["node1", "node2"]);
    gone(rack);
}

/// The whole of it, from powered off to switched off. Where there is no KVM, what is installed runs as a container: Kubernetes is
/// more than emulated processors can do.
#[test]
fn two_machines_become_a_cluster_that_manages_itself_though_the_run_is_killed_five_times() {
    let rack = Rack::up("whole", "uefi,bios,bios", &[]);
    rack.write_files(2, VIRTUAL_IP);
    append(&rack, gateway::SPEC);
    let dir = rack.dir.path().to_owned();
    create_killed_four_times(&rack);
    create_killed_in_the_pivot(&rack);
    the_machines_were_installed_once(&rack);
    let kubectl = Kubectl::of(&rack, &rack.name, &dir);
    the_cluster_is_whole(&rack, &kubectl);
    pods_answer_across_nodes(&kubectl);
    gateway::works(&rack, &kubectl);
    nothing_of_ours_runs_here(&rack);
    secrets_stayed_secret(&rack);
    a_spare_replaces_a_deleted_machine(&rack, &kubectl);
    the_cluster_is_deleted(&rack, &["node1", "node2", "node3"]);
    gone(rack);
}

/// Adds to the rack's spec.
fn append(rack: &Rack, text: &str) {
    let mut spec = std::fs::OpenOptions::new().append(true).open(rack.files().join("cluster.yaml")).unwrap();
    spec.write_all(text.as_bytes()).unwrap();
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
    create_killed_in_kubeadm_init(rack, "fourth");
}

fn create_killed_in_kubeadm_init(rack: &Rack, run: &str) {
    let is_init = |kind: &EventKind| {
        let EventKind::NodeStep { step, detail } = kind else { return false };
        step == "kubeadm init" && detail.starts_with('[')
    };
    rack.create(run).kill_when("kubeadm init is under way", || rack.count(MACHINES[0].0, is_init) > 0);
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
        assert_eq!(rack.count(machine, |kind| matches!(kind, EventKind::SshVerified { .. })), 1);
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
        assert!(!rack.has_partition_table(machine), "{machine} was not wiped");
    }
}

#[test]
fn a_wrong_password_fails_the_machines_and_is_tried_once() {
    let rack = Rack::up("bmc", "bios,bios", &[]);
    for machine in ["node1", "node2"] {
        rack.fault(machine, "wrong-password");
    }
    // Preflight finds it before anything is ordered.
    let (code, said) = rack.create("checked").end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("2 things are in the way") && said.contains("refuses user `admin`"), "{said}");
    assert_eq!(rack.count("node1", |kind| matches!(kind, EventKind::Power { .. })), 0, "{said}");
    let (code, said) = rack.create_with("refused", &["--skip", "bmc"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(rack.status()["board"]["notChecked"]["bmc"], "left out by --skip");
    assert!(said.contains("2 of 2 machines cannot go on"), "{said}");
    assert!(said.contains("refuses user `admin`: check bmc_username and bmc_password"), "{said}");
    assert_eq!(rack.status()["board"]["machines"]["node1"]["state"], "Failed");
    // A password is tried once, not until the account is locked.
    let tried = rack.count("node1", |kind| matches!(kind, EventKind::Power { .. }));
    assert_eq!(tried, 1, "{said}");
}
