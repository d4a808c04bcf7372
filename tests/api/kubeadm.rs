//! What we hand to kubeadm, judged by kubeadm itself; and what nodes fetch, out of the real artifact directory.

use crate::artifacts;
use metalgate::api::{MachineRole, MetalCluster};
use metalgate::hardware::Arch;
use metalgate::image::manifest::Kind;
use metalgate::node::kubeadm::{Authorities, Node, Token};
use metalgate::node::prepare::Preparation;
use metalgate::node::script::Step;
use metalgate::node::supplies::{Supplies, SuppliesError};
use metalgate::pki::{self, Authority};
use metalgate::secret::Secret;
use metalgate::spec::Cni;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

fn version() -> String {
    artifacts().find(Kind::Kubeadm, Arch::Amd64).unwrap().version.clone()
}

fn supplies() -> Supplies {
    let arches = BTreeSet::from([Arch::Amd64]);
    Supplies::new(artifacts(), &version(), Cni::Flannel, true, None, &arches).unwrap()
}

fn cluster() -> MetalCluster {
    let spec = json!({
        "kubernetesVersion": version(), "endpoint": "10.0.0.5:6443", "virtualIp": true, "podCidr": "10.244.0.0/16",
        "serviceCidr": "10.96.0.0/12", "cni": "flannel", "image": {"name": "i", "sha256": "ab", "format": "raw"},
        "users": [], "certSans": ["api.example.org", "10.0.0.9"],
        "apiServerExtraArgs": [
            {"name": "oidc-required-claim", "value": "a=\"b\""}, {"name": "oidc-required-claim", "value": "c=d"},
        ],
        "groups": [{"name": "control-plane", "role": "ControlPlane", "count": 1, "selector": {}}], "provisioning": {"dhcp": "reservation", "httpPort": 8080, "agentPort": 8443},
    });
    MetalCluster::new("rack-a", serde_json::from_value(spec).unwrap())
}

fn authorities() -> Authorities {
    let authority = |name| Authority::new(name).unwrap().into_identity();
    Authorities {
        cluster: authority("kubernetes"),
        etcd: authority("etcd-ca"),
        front_proxy: authority("front-proxy-ca"),
        service_accounts: pki::signing_key().unwrap(),
        encryption: Secret::new("c2VjcmV0IGtleSBvZiAzMiBieXRlcyBpcyBoZXJlLi4=".into()),
    }
}

/// The files that a kubeadm step places, as the step's own shell functions place them, below `root`.
fn place(step: &Step, root: &std::path::Path) {
    let script = step.script.expose();
    let functions = &script[..script.find("check() {").unwrap()];
    let functions = functions.replace("place /", &format!("place {}/", root.display()));
    let mut shell = Command::new("sh").stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(format!("set -eu\n{functions}\nfiles\n").as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

#[test]
fn kubeadm_takes_our_configurations() {
    let (supplies, cluster, authorities) = (supplies(), cluster(), authorities());
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("kubeadm");
    std::fs::copy(artifacts().path_of(artifacts().find(Kind::Kubeadm, Arch::Amd64).unwrap()), &program).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let taints = [String::from("dedicated=db:NoExecute"), String::from("alone:NoSchedule")];
    let node = Node {
        name: "node-1",
        address: [10, 0, 0, 11].into(),
        arch: Arch::Amd64,
        taints: &taints,
        cluster: &cluster.spec,
        cluster_name: "rack-a",
        supplies: &supplies,
    };
    let token = Token::generate();
    let steps = [
        ("init", node.init(&authorities).unwrap()),
        ("join-cp", node.join(MachineRole::ControlPlane, &authorities, &token).unwrap()),
        ("join", node.join(MachineRole::Worker, &authorities, &token).unwrap()),
    ];
    for (name, step) in &steps {
        let root = dir.path().join(name);
        place(step, &root);
        let config = root.join("var/lib/metalgate/kubeadm/config.yaml");
        let mode = std::os::unix::fs::PermissionsExt::mode(&config.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
        // kubeadm looks whether the file is there.
        let text = std::fs::read_to_string(&config).unwrap();
        let moved = text.replace("\"/var/lib/metalgate", &format!("\"{}/var/lib/metalgate", root.display()));
        std::fs::write(&config, moved).unwrap();
        let judged = Command::new(&program).args(["config", "validate", "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8_lossy(&judged.stderr).into_owned();
        assert!(judged.status.success() && !said.contains("unknown field"), "{name}: {said}");
        assert!(text.contains("dedicated") && text.contains("10.0.0.11"), "{text}");
        let pod = root.join("etc/kubernetes/manifests/kube-vip.yaml");
        assert_eq!(pod.exists(), *name != "join", "only control planes hold the virtual address");
        assert_eq!(root.join("etc/kubernetes/pki/ca.key").exists(), *name != "join", "workers get no authority's key");
        // The command line carries no secret: everything secret is in a file.
        let after = &step.script.expose()[step.script.expose().find("check() {").unwrap()..];
        assert!(!after.contains(token.secret.expose()) && !after.contains("PRIVATE KEY"));
    }
    // Nobody else could take over from a control plane of one; among three the address moves soon.
    let lease = |step: &Step, root: &str| {
        place(step, &dir.path().join(root));
        let pod =
            std::fs::read_to_string(dir.path().join(root).join("etc/kubernetes/manifests/kube-vip.yaml")).unwrap();
        let pod: serde_json::Value = serde_saphyr::from_str(&pod).unwrap();
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap().clone();
        env.into_iter().find(|one| one["name"] == "vip_leaseduration").unwrap()["value"].clone()
    };
    assert_eq!(lease(&steps[0].1, "alone"), "120");
    let mut three = cluster.spec.clone();
    three.groups[0].count = 3;
    let node = Node { cluster: &three, ..node };
    assert_eq!(lease(&node.init(&authorities).unwrap(), "three"), "15");
    // What kubeadm asks for by itself is what is there.
    let images = Command::new(&program)
        .args(["config", "images", "list", "--config"])
        .arg(dir.path().join("init/var/lib/metalgate/kubeadm/config.yaml"))
        .output()
        .unwrap();
    let images = String::from_utf8(images.stdout).unwrap();
    assert_eq!(images.lines().count(), 7, "{images}");
    for image in images.lines() {
        assert!(artifacts().image(image, Arch::Amd64).is_some(), "{image} is not among the artifacts");
    }
}

#[test]
fn every_step_is_a_shell_script_that_a_shell_can_read() {
    let (supplies, cluster) = (supplies(), cluster());
    for role in [MachineRole::ControlPlane, MachineRole::Worker] {
        let server = "http://10.0.0.1:8080".into();
        let preparation = Preparation { supplies: &supplies, server, role, arch: Arch::Amd64, cluster: &cluster.spec };
        let mut steps = preparation.steps().unwrap();
        assert_eq!(steps.len(), if role == MachineRole::ControlPlane { 9 } else { 8 });
        steps.extend([metalgate::node::prepare::reset().unwrap(), metalgate::node::prepare::wipe().unwrap()]);
        for step in steps {
            let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            shell.stdin.take().unwrap().write_all(step.script.expose().as_bytes()).unwrap();
            assert!(shell.wait().unwrap().success(), "{}: {}", step.title, step.script.expose());
        }
    }
    // A worker fetches what it runs; a control-plane node also what its manager serves, but never the bootstrap cluster.
    let paths = |role| supplies.files(role, Arch::Amd64).into_iter().map(|file| file.path).collect::<Vec<_>>();
    let (control_plane, worker) = (paths(MachineRole::ControlPlane), paths(MachineRole::Worker));
    assert!(worker.iter().all(|path| control_plane.contains(path)));
    assert!(worker.contains(&"containers/amd64/kube-proxy.tar".into()), "{worker:?}");
    for path in ["containers/amd64/kube-apiserver.tar", "boot/amd64/vmlinuz", "manifests/cni/flannel.yaml"] {
        assert!(!worker.contains(&path.into()) && control_plane.contains(&path.into()), "{path}");
    }
    assert!(!control_plane.iter().any(|path| path.starts_with("bootstrap/")), "{control_plane:?}");
}

#[test]
fn what_nodes_would_miss_is_told_before_a_machine_is_touched() {
    let arches = BTreeSet::from([Arch::Amd64]);
    let whole = artifacts();
    let without = |parts: &[&str]| {
        whole.subset(whole.artifacts.iter().filter(|one| !parts.iter().any(|part| one.path.contains(part))))
    };
    let told = |parts: &[&str]| {
        Supplies::new(without(parts), &version(), Cni::Flannel, true, None, &arches).unwrap_err().to_string()
    };
    let missing = told(&["kube-proxy", "coredns", "kube-vip", "containers/amd64/flannel.tar"]);
    for image in [
        "registry.k8s.io/kube-proxy:v1.",
        "registry.k8s.io/coredns/coredns",
        "ghcr.io/kube-vip/kube-vip",
        "ghcr.io/flannel-io/flannel:v",
    ] {
        assert!(missing.contains(image), "{image} is not in {missing}");
    }
    assert!(missing.contains("named by the container network's manifest"), "{missing}");
    assert!(told(&["flannel.yaml"]).contains("no manifest of the container network flannel"));
    assert!(told(&["node/amd64/kubelet"]).contains("no kubelet for amd64"));
    let other = Supplies::new(artifacts(), "v1.35.9", Cni::None, false, None, &arches).unwrap_err();
    assert!(matches!(&other, SuppliesError::Version { wanted, .. } if wanted == "v1.35.9"), "{other}");
    // Without a virtual address and with a network of the user's own, those images are not asked for.
    Supplies::new(without(&["kube-vip", "flannel"]), &version(), Cni::None, false, None, &arches).unwrap();
}
