//! A cluster as its user sees it: kubectl, with the kubeconfig that `metalgate get kubeconfig` prints.

use crate::LIMIT;
use crate::rack::{Rack, metalgate};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The artifact directory that the stage before has filled.
pub fn artifacts() -> PathBuf {
    std::env::var("METALGATE_ARTIFACTS").expect("METALGATE_ARTIFACTS").into()
}

/// The image among the artifacts whose name has `part` in it.
pub fn image(part: &str) -> String {
    let text = std::fs::read_to_string(artifacts().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let images =
        manifest["artifacts"].as_array().unwrap().iter().flat_map(|one| one["images"].as_array().into_iter().flatten());
    let found = images.filter_map(|image| image.as_str()).find(|image| image.contains(part));
    found.unwrap_or_else(|| panic!("no image {part} among the artifacts")).to_owned()
}

pub struct Kubectl<'a> {
    rack: &'a Rack,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl<'a> Kubectl<'a> {
    pub fn of(rack: &'a Rack, cluster: &str, scratch: &Path) -> Self {
        let got = Command::new(metalgate())
            .args(["get", "kubeconfig", cluster, "--work-dir"])
            .arg(rack.work_dir())
            .output()
            .unwrap();
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        let (kubeconfig, program) = (scratch.join("kubeconfig"), scratch.join("kubectl"));
        std::fs::write(&kubeconfig, got.stdout).unwrap();
        std::fs::copy(artifacts().join("node/amd64/kubectl"), &program).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { rack, program, kubeconfig }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.rack.inside(self.program.to_str().unwrap());
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--request-timeout=60s").args(args);
        command
    }

    pub fn try_run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn apply(&self, manifest: &str) {
        let mut command = self.command(&["apply", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Asks until what kubectl prints is `good`; an emulated API server may be busy for a while.
    pub fn wait(&self, what: &str, args: &[&str], good: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let output = self.try_run(args);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && good(&text) {
                println!("{what}: after {} s", started.elapsed().as_secs());
                return text;
            }
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(started.elapsed() < LIMIT, "{what} did not come: {text}{error}");
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}
