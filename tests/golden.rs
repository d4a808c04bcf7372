//! What users see, held equal to committed files: the folders of `hardware-examples/` through the real binary.
//!
//! `METALGATE_BLESS=1 cargo test --test golden` writes the files anew; read the difference before committing it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use metalgate::plan::{Recorded, plan};
use pretty_assertions::assert_eq;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn examples(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware-examples").join(kind);
    let mut examples: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    assert!(!examples.is_empty());
    examples
}

fn name(example: &Path) -> String {
    example.file_name().unwrap().to_string_lossy().into_owned()
}

/// Runs `metalgate` in a folder, as a user would there.
fn metalgate(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metalgate"));
    command.current_dir(dir).args(arguments).env_remove("HARDWARE_CSV").output().unwrap()
}

/// The spec of an example: EKS Anywhere's or ours.
fn spec(dir: &Path) -> &'static str {
    if dir.join("ClusterSpec.yml").exists() { "ClusterSpec.yml" } else { "cluster.yaml" }
}

fn validate(dir: &Path, more: &[&str]) -> Output {
    let arguments = ["validate", "-f", spec(dir), "--hardware-csv", "hardware.csv"];
    metalgate(dir, &[&arguments, more].concat())
}

/// What `create cluster --dry-run` prints where nothing was done yet; it leaves nothing behind.
fn dry_run(dir: &Path, spec: &str, format: &str) -> String {
    let state = tempfile::tempdir().unwrap();
    let work_dir = state.path().join("work").display().to_string();
    let mut arguments = vec!["create", "cluster", "-f", spec, "-z", "hardware.csv", "--dry-run"];
    arguments.extend(["--work-dir", &work_dir, "--output", format]);
    let output = metalgate(dir, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    String::from_utf8(output.stdout).unwrap()
}

fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    format!("exit code {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

fn assert_golden(file: &Path, found: &str) {
    if std::env::var_os("METALGATE_BLESS").is_some() {
        fs::write(file, found).unwrap();
    }
    let committed = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(committed, found, "{}", file.display());
}

#[test]
fn accepted_examples_are_valid_and_planned_as_committed() {
    for example in examples("accepted") {
        let output = validate(&example, &[]);
        assert_golden(&example.join("validate.txt"), &transcript(&output));
        assert_eq!(output.status.code(), Some(0), "{}", name(&example));
        for (file, format) in [("plan.txt", "text"), ("plan.json", "json")] {
            let planned = dry_run(&example, "cluster.yaml", format);
            assert_golden(&example.join(file), &planned);
            assert_eq!(dry_run(&example, "cluster.yaml", format), planned);
        }
    }
}

#[test]
fn the_order_of_the_rows_makes_no_difference_to_the_plan() {
    for example in examples("accepted") {
        let (spec, csv) = (example.join("cluster.yaml"), example.join("hardware.csv"));
        let input = metalgate::cli::validate::load(&spec, &csv).unwrap();
        let mut machines = input.machines;
        machines.reverse();
        assert_eq!(plan(&input.spec, &machines, &Recorded::new()).unwrap(), input.plan);
    }
}

#[test]
fn rejected_examples_say_why_as_committed() {
    for example in examples("rejected") {
        let output = validate(&example, &[]);
        assert_golden(&example.join("validate.txt"), &transcript(&output));
        assert_eq!(output.status.code(), Some(2), "{}", name(&example));
        assert!(output.stdout.is_empty(), "{}", name(&example));
        let json = validate(&example, &["--output", "json"]);
        assert_golden(&example.join("validate.json"), &String::from_utf8(json.stdout).unwrap());
        assert_eq!(json.status.code(), Some(2), "{}", name(&example));
        assert!(json.stderr.is_empty(), "{}", name(&example));
    }
}

#[test]
fn documents_of_eks_anywhere_are_planned_and_converted_to_the_same_spec() {
    for example in examples("eks-anywhere/accepted") {
        let output = validate(&example, &[]);
        assert_golden(&example.join("validate.txt"), &transcript(&output));
        assert_eq!(output.status.code(), Some(0), "{}", name(&example));
        let planned = dry_run(&example, "ClusterSpec.yml", "text");
        assert_golden(&example.join("plan.txt"), &planned);
        let converted = metalgate(&example, &["convert", "-f", "ClusterSpec.yml"]);
        assert_eq!(converted.status.code(), Some(0), "{}", transcript(&converted));
        assert_golden(&example.join("converted.yaml"), &String::from_utf8(converted.stdout).unwrap());
        let read = |file: &str| metalgate::spec::read(file, fs::read(example.join(file)).unwrap());
        let (given, converted) = (read("ClusterSpec.yml"), read("converted.yaml"));
        assert!(converted.diagnostics.is_empty(), "{}", converted.diagnostics.render(false));
        assert_eq!(converted.cluster, given.cluster, "{}", name(&example));
        assert_eq!(dry_run(&example, "converted.yaml", "text"), planned);
    }
}

#[test]
fn convert_replaces_no_file_that_it_was_not_told_to_and_nothing_of_ours() {
    let example = examples("eks-anywhere/accepted").into_iter().next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.yaml");
    let convert = |from: &str, more: &[&str]| {
        let to = file.display().to_string();
        metalgate(&example, &[&["convert", "-f", from, "--output", &to], more].concat())
    };
    assert_eq!(convert("ClusterSpec.yml", &[]).status.code(), Some(0));
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(written, fs::read_to_string(example.join("converted.yaml")).unwrap());
    fs::write(&file, "mine").unwrap();
    let refused = convert("ClusterSpec.yml", &[]);
    assert_eq!((refused.status.code(), fs::read_to_string(&file).unwrap().as_str()), (Some(2), "mine"));
    assert!(transcript(&refused).contains("is there already; --overwrite replaces it"), "{}", transcript(&refused));
    assert_eq!(convert("ClusterSpec.yml", &["--overwrite"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    let ours = convert("converted.yaml", &["--overwrite"]);
    assert_eq!(ours.status.code(), Some(2), "{}", transcript(&ours));
}

#[test]
fn rejected_documents_of_eks_anywhere_say_why_as_committed() {
    for example in examples("eks-anywhere/rejected") {
        let output = validate(&example, &[]);
        assert_golden(&example.join("validate.txt"), &transcript(&output));
        assert_eq!(output.status.code(), Some(2), "{}", name(&example));
        let report: serde_json::Value =
            serde_json::from_slice(&validate(&example, &["--output", "json"]).stdout).unwrap();
        for diagnostic in report["diagnostics"].as_array().unwrap() {
            assert!(diagnostic["line"].as_u64().unwrap() >= 1, "{diagnostic}");
            assert!(diagnostic["column"].as_u64().unwrap() >= 1, "{diagnostic}");
        }
        let convert = metalgate(&example, &["convert", "-f", "ClusterSpec.yml"]);
        assert!(convert.status.code() == Some(0) || convert.stdout.is_empty(), "{}", name(&example));
    }
}

#[test]
fn every_accepted_example_has_a_rejected_twin_and_all_are_explained() {
    let names = |kind| examples(kind).iter().map(|example| name(example)).collect::<BTreeSet<_>>();
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware-examples/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    for pair in [["accepted", "rejected"], ["eks-anywhere/accepted", "eks-anywhere/rejected"]] {
        let [accepted, rejected] = pair.map(names);
        assert_eq!(accepted.difference(&rejected).collect::<Vec<_>>(), Vec::<&String>::new());
        for example in accepted.union(&rejected) {
            assert!(readme.contains(&format!("`{example}`")), "README.md does not name {example}");
        }
    }
}

#[test]
fn no_password_is_ever_shown() {
    let secrets = ["s3cret", "PrZ8W93i", "calvin", "quoted", "b3BlbnNzaC1rZXkt", "never closed", "t0ken"];
    let kinds = ["accepted", "rejected", "eks-anywhere/accepted", "eks-anywhere/rejected"];
    for example in kinds.into_iter().flat_map(examples) {
        for more in [&[][..], &["--output", "json"]] {
            let shown = transcript(&validate(&example, more));
            for secret in secrets {
                let allowed = secret == "never closed" && !shown.contains("\"never closed");
                assert!(allowed || !shown.contains(secret), "{}: {secret}", name(&example));
            }
        }
    }
}

#[test]
fn twenty_mistakes_are_reported_in_one_run() {
    let example = examples("rejected").into_iter().find(|example| name(example) == "twenty-mistakes").unwrap();
    let output = validate(&example, &["--output", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let diagnostics = report["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 20, "{}", diagnostics.len());
    assert_eq!(report["errors"].as_u64(), Some(diagnostics.len() as u64));
    for diagnostic in diagnostics {
        assert!(diagnostic["line"].as_u64().unwrap() >= 1, "{diagnostic}");
        assert!(diagnostic["column"].as_u64().unwrap() >= 1, "{diagnostic}");
        assert!(!diagnostic["text"].as_str().unwrap().is_empty(), "{diagnostic}");
    }
    for file in ["cluster.yaml", "hardware.csv"] {
        assert!(diagnostics.iter().any(|diagnostic| diagnostic["file"] == file), "{file}");
    }
}

#[test]
fn twenty_mistakes_of_different_kinds_are_reported_of_an_inventory_of_eks_anywhere() {
    let examples = examples("eks-anywhere/rejected");
    let example = examples.iter().find(|example| name(example) == "twenty-mistakes-csv").unwrap();
    let output = validate(example, &["--output", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let diagnostics = report["diagnostics"].as_array().unwrap().iter();
    let of_csv = diagnostics.filter(|one| one["file"] == "hardware.csv" && one["severity"] == "error");
    let kinds: BTreeSet<&str> = of_csv.map(|one| one["message"].as_str().unwrap()).collect();
    assert!(kinds.len() >= 20, "{kinds:#?}");
}

/// Runs `metalgate gateway COMMAND` in an example's folder.
fn gateway(dir: &Path, command: &str, more: &[&str]) -> Output {
    metalgate(dir, &[&["gateway", command, "-f", "gateway.yaml"], more].concat())
}

#[test]
fn accepted_gateways_are_planned_and_rendered_as_committed() {
    for example in examples("gateway/accepted") {
        for (command, file) in [("plan", "plan.txt"), ("render", "objects.yaml")] {
            let output = gateway(&example, command, &[]);
            assert_eq!(output.status.code(), Some(0), "{}", transcript(&output));
            assert_golden(&example.join(file), &String::from_utf8(output.stdout).unwrap());
        }
        let json: serde_json::Value =
            serde_json::from_slice(&gateway(&example, "render", &["--output", "json"]).stdout).unwrap();
        assert!(json.as_array().unwrap().iter().all(|object| object["kind"].is_string()));
    }
}

#[test]
fn rejected_gateways_give_every_mistake_with_its_place() {
    for example in examples("gateway/rejected") {
        let output = gateway(&example, "plan", &[]);
        assert_eq!(output.status.code(), Some(2), "{}", transcript(&output));
        assert_golden(&example.join("errors.txt"), &transcript(&output));
    }
}

#[test]
fn manual_pages_are_written_for_every_command_and_completions_know_them() {
    let dir = tempfile::tempdir().unwrap();
    let written = metalgate(dir.path(), &["man", "--dir", "share/man1"]);
    assert_eq!(written.status.code(), Some(0), "{}", transcript(&written));
    for page in ["metalgate.1", "metalgate-create-cluster.1", "metalgate-gateway-rotate.1"] {
        assert!(fs::read_to_string(dir.path().join("share/man1").join(page)).unwrap().contains(".SH NAME"), "{page}");
    }
    let refused = metalgate(dir.path(), &["man", "--dir", "share/man1/metalgate.1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(transcript(&refused).contains("into share/man1/metalgate.1: "), "{}", transcript(&refused));
    let completions = metalgate(dir.path(), &["completions", "bash"]);
    assert!(transcript(&completions).contains("metalgate__subcmd__gateway__subcmd__rotate"), "{completions:?}");
}
