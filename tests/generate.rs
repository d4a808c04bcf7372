//! `metalgate generate` by the real binary: schemas that are the committed ones and fit the examples, and specs and
//! inventories that `metalgate validate` takes.
//!
//! `METALGATE_BLESS=1 cargo test --test generate` writes the schemas anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdAYLLdAjo9tBgZwj3uEcc/iVNXP0QyhPuyU8kPfvN6 ops@admin";

fn examples_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware-examples")
}

fn examples(kind: &str) -> Vec<PathBuf> {
    let folders = fs::read_dir(examples_dir().join(kind)).unwrap();
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

/// Runs `metalgate` in a folder, for a user who has nothing but that folder.
fn metalgate(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metalgate"));
    command.current_dir(dir).args(arguments).env("HOME", dir);
    for name in ["HARDWARE_CSV", "METALGATE_ARTIFACTS", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn done(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

fn generated(kind: &str) -> Value {
    serde_json::from_str(&done(metalgate(Path::new("/"), &["generate", "schema", kind]))).unwrap()
}

fn tree(path: &Path) -> Option<Value> {
    serde_saphyr::from_slice(&fs::read(path).unwrap()).ok()
}

fn complaints(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn the_committed_schemas_are_the_generated_ones() {
    for kind in ["cluster", "gateway"] {
        let path = examples_dir().join(format!("{kind}.schema.json"));
        let text = done(metalgate(Path::new("/"), &["generate", "schema", kind]));
        if std::env::var_os("METALGATE_BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
        jsonschema::meta::validate(&serde_json::from_str(&text).unwrap()).unwrap();
    }
}

#[test]
fn accepted_examples_fit_their_schemas_and_name_them() {
    for (folder, file, kind) in
        [("accepted", "cluster.yaml", "cluster"), ("gateway/accepted", "gateway.yaml", "gateway")]
    {
        let schema = generated(kind);
        for example in examples(folder) {
            let path = example.join(file);
            assert_eq!(complaints(&schema, &tree(&path).unwrap()), [""; 0], "{}", path.display());
            let text = fs::read_to_string(&path).unwrap();
            let named = text.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=");
            let named = named.unwrap_or_else(|| panic!("{} names no schema", path.display()));
            let named = fs::canonicalize(example.join(named)).unwrap();
            assert_eq!(named, examples_dir().join(format!("{kind}.schema.json")), "{}", path.display());
        }
    }
}

/// Whether a schema can see this mistake: it is in the shape of the file, and not in how its values fit together.
fn is_structural(message: &str) -> bool {
    let parts = ["unknown field", "` has no `", "has to be a mapping", "has to be a list", "has to be a text"];
    let more = ["has to be a number", "has no value", "unknown apiVersion", "unknown kind", "not a SHA-256 sum"];
    parts.iter().chain(&more).any(|part| message.contains(part)) || message.ends_with("` is missing")
}

#[test]
fn rejected_examples_fit_no_schema_where_the_shape_is_wrong() {
    let schema = generated("cluster");
    let (mut refused, mut fine) = (0, 0);
    for example in examples("rejected") {
        let report = fs::read_to_string(example.join("validate.json")).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let of_spec = |one: &&Value| one["file"] == "cluster.yaml";
        let messages = report["diagnostics"].as_array().unwrap().iter().filter(of_spec);
        let messages: Vec<&str> = messages.map(|one| one["message"].as_str().unwrap()).collect();
        // What is no YAML has no shape; a file of several documents is no one document.
        let Some(document) = tree(&example.join("cluster.yaml")) else { continue };
        let complaints = complaints(&schema, &document);
        if messages.iter().any(|message| is_structural(message)) {
            assert!(!complaints.is_empty(), "{}: {messages:?}", example.display());
            refused += 1;
        } else if messages.is_empty() {
            assert_eq!(complaints, [""; 0], "{}", example.display());
            fine += 1;
        }
    }
    assert!(refused >= 5 && fine >= 10, "{refused} refused, {fine} fine");
}

/// An artifact directory with nothing but a manifest.
fn artifacts(dir: &Path) {
    let artifact = |path: &str, kind: &str, version: &str| {
        json!({"path": path, "kind": kind, "arch": "amd64", "version": version, "sha256": "ab".repeat(32), "size": 1,
            "source": "build"})
    };
    let manifest = json!({"schema": 1, "artifacts": [
        artifact("images/debian-13.raw.zst", "os-image", "13"),
        artifact("kubernetes/amd64/kubeadm", "kubeadm", "v1.36.4"),
    ]});
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
}

fn hardware(workers: usize) -> String {
    let mut csv = String::from("hostname,mac,ip_address,netmask,gateway,nameservers,labels,disk\n");
    for n in 0..=workers {
        let kind = if n == 0 { "cp" } else { "worker" };
        let row = format!("node-{n},52:54:00:aa:00:0{n},10.20.0.2{n},24,10.20.0.1,9.9.9.9,type={kind},/dev/sda\n");
        csv.push_str(&row);
    }
    csv
}

#[test]
fn a_generated_spec_is_valid_where_everything_is_known() {
    let schema = generated("cluster");
    for (gateway, workers) in [(None, 1), (Some("envoy"), 2), (Some("kong"), 1), (None, 0)] {
        let dir = tempfile::tempdir().unwrap();
        artifacts(dir.path());
        fs::create_dir(dir.path().join(".ssh")).unwrap();
        fs::write(dir.path().join(".ssh/id_ed25519.pub"), format!("{KEY}\n")).unwrap();
        fs::write(dir.path().join("hardware.csv"), hardware(workers)).unwrap();
        let count = workers.to_string();
        let mut arguments = vec!["generate", "cluster", "--name", "edge", "-o", "cluster.yaml", "--artifacts", "."];
        arguments.extend(["--endpoint", "10.20.0.10", "--interface", "eno2", "--workers", &count]);
        arguments.extend(gateway.iter().flat_map(|gateway| ["--gateway", gateway]));
        done(metalgate(dir.path(), &arguments));
        let said = done(metalgate(dir.path(), &["validate", "-f", "cluster.yaml", "-z", "hardware.csv"]));
        assert!(said.contains("cluster edge is valid: 1 control-plane machine"), "{said}");
        let path = dir.path().join("cluster.yaml");
        assert!(
            !fs::read_to_string(&path).unwrap().lines().any(|line| line.contains("FILL IN") && !line.starts_with('#'))
        );
        assert_eq!(complaints(&schema, &tree(&path).unwrap()), [""; 0]);
        if gateway.is_some() {
            done(metalgate(dir.path(), &["gateway", "plan", "-f", "cluster.yaml"]));
        }
        // What the user has done to it since is not lost.
        let again = metalgate(dir.path(), &arguments);
        assert_eq!(again.status.code(), Some(1));
        assert!(stderr(&again).contains("cluster.yaml is there already, and is not overwritten"), "{}", stderr(&again));
    }
}

#[test]
fn what_a_generated_spec_does_not_know_is_marked_and_validate_points_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hardware.csv"), hardware(1)).unwrap();
    let text = done(metalgate(dir.path(), &["generate", "cluster"]));
    fs::write(dir.path().join("cluster.yaml"), &text).unwrap();
    let output = metalgate(dir.path(), &["validate", "-f", "cluster.yaml", "-z", "hardware.csv", "--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<&str> = report["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert_eq!(one["file"], "cluster.yaml", "{one}");
            text.lines().nth(one["line"].as_u64().unwrap() as usize - 1).unwrap()
        })
        .collect();
    // The sum and the key; interface and endpoint are marked, but might be right.
    assert_eq!(lines.len(), 2, "{report}");
    assert!(lines.iter().all(|line| line.contains("FILL IN")), "{lines:?}");
    assert_eq!(text.lines().filter(|line| line.contains("FILL IN") && !line.starts_with('#')).count(), 4);
}

/// Two machines that told what they are, one that was only heard, and somebody's laptop.
fn discovered() -> Value {
    let nic = |mac: &str| json!({"name": "eno1", "mac": mac, "link": true, "driver": null, "speedMbps": null});
    let disk = |path: &str, serial: &str, wwn: Option<&str>| json!({"path": path, "bytes": 480_000_000_000u64, "kind": "ssd", "model": null, "serial": serial, "wwn": wwn});
    let facts = |nics: Vec<Value>, disks: Vec<Value>| {
        json!({"arch": "amd64", "firmware": "bios", "cpuModel": "Xeon", "cpuThreads": 8, "memoryBytes": 1u64 << 33,
            "product": null, "serial": null, "nics": nics, "disks": disks})
    };
    let found = |mac: &str, boots: bool, second: u32, facts: Value| {
        // What the agent tells of the firmware counts more than what its DHCP client asked for.
        let mode = if facts.is_null() { "uefi" } else { "bios" };
        json!({"mac": mac, "uuid": null, "client": null, "boots": boots, "arch": "amd64", "bootMode": mode,
            "firstSeen": format!("2026-01-01T00:00:{second:02}Z"), "lastSeen": "2026-01-01T00:01:00Z", "facts": facts})
    };
    let (a, b, c) = ("52:54:00:aa:00:01", "52:54:00:aa:00:02", "52:54:00:aa:00:03");
    json!([
        found(
            a,
            true,
            1,
            facts(vec![nic(a), nic("52:54:00:aa:01:01")], vec![disk("/dev/sda", "S1", Some("eui.0025"))])
        ),
        found("52:54:00:aa:01:01", true, 2, Value::Null),
        found(b, true, 3, facts(vec![nic(b)], vec![disk("/dev/sda", "S2", None), disk("/dev/sdb", "S3", None)])),
        found(c, true, 4, Value::Null),
        found("52:54:00:aa:00:99", false, 5, Value::Null),
    ])
}

#[test]
fn an_inventory_is_made_of_what_was_discovered_and_its_holes_are_found() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("found.json"), discovered().to_string()).unwrap();
    let mut arguments = vec!["generate", "hardware", "--discovered", "found.json", "-o", "hardware.csv"];
    arguments.extend(["--addresses", "10.20.0.20-10.20.0.30/24", "--gateway", "10.20.0.1"]);
    arguments.extend(["--nameservers", "10.20.0.1,9.9.9.9", "--labels", "type=worker,rack=a"]);
    let output = metalgate(dir.path(), &arguments);
    let said = stderr(&output);
    done(output);
    let path = dir.path().join("hardware.csv");
    let csv = fs::read_to_string(&path).unwrap();
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    let common = ",255.255.255.0,10.20.0.1,10.20.0.1|9.9.9.9,rack=a|type=worker,";
    assert_eq!(
        rows,
        [
            format!("node-1,,,,52:54:00:aa:00:01,10.20.0.20{common}wwn=eui.0025,amd64,bios"),
            format!("node-2,,,,52:54:00:aa:00:02,10.20.0.21{common},amd64,bios"),
            format!("node-3,,,,52:54:00:aa:00:03,10.20.0.22{common},amd64,uefi"),
        ]
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(said.contains("left out, as they did not boot from the network: 52:54:00:aa:00:99"), "{said}");
    assert!(said.contains("node-2: one of its disks has to be chosen: serial=S2, serial=S3"), "{said}");

    let spec = examples_dir().join("accepted/single-node/cluster.yaml");
    let spec = spec.to_str().unwrap();
    let report = metalgate(dir.path(), &["validate", "-f", spec, "-z", "hardware.csv"]);
    assert_eq!(report.status.code(), Some(2));
    for line in [3, 4] {
        assert!(stderr(&report).contains(&format!("hardware.csv:{line}:")), "{}", stderr(&report));
    }
    assert_eq!(stderr(&report).matches("`disk` is empty").count(), 2, "{}", stderr(&report));

    let again = metalgate(dir.path(), &arguments);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("hardware.csv is there already"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&path).unwrap(), csv);

    // With a disk for all of them, one label for the control plane and the endpoint's address it is whole.
    let mut whole = vec!["generate", "hardware", "--discovered", "found.json", "--disk", "size>=100GB type=ssd"];
    whole.extend(["--addresses", "10.20.0.11-10.20.0.30/24", "--gateway", "10.20.0.1", "--nameservers", "9.9.9.9"]);
    let csv = done(metalgate(dir.path(), &[&whole[..], &["--labels", "type=cp"]].concat()));
    let one: String = csv.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(dir.path().join("one.csv"), one).unwrap();
    done(metalgate(dir.path(), &["validate", "-f", spec, "-z", "one.csv"]));
}
