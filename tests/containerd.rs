//! A real containerd imports the images that metalgate writes, and names them as nodes ask for them. Root is needed, and
//! Debian's containerd; the artifact directory is METALGATE_ARTIFACTS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use metalgate::image::manifest::{Kind, Manifest};
use metalgate::image::oci::{self, Entry, Image};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A containerd of its own, with everything it has in one folder.
struct Containerd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Containerd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let at = dir.path().display();
        // Pods are not run here: no kubelet, no network for them.
        let text = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{at}/socket\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("containerd").arg("--config").arg(&config).stderr(log).stdout(Stdio::null()).spawn();
        let containerd = Self { dir, child: child.expect("tests/setup test installs containerd") };
        let deadline = Instant::now() + Duration::from_secs(30);
        while containerd.ctr(&["version"]).is_err() {
            let log = std::fs::read_to_string(containerd.dir.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "containerd does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        containerd
    }

    /// stdout, or stderr if it failed.
    fn ctr(&self, arguments: &[&str]) -> Result<String, String> {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.dir.path().join("socket")).args(["-n", "k8s.io"]).args(arguments);
        let output = ctr.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Imports an archive, unpacked and ready to run, and checks that it brought these names.
    fn import(&self, archive: &Path, names: &[String]) {
        let archive = archive.to_str().unwrap();
        // The overlay file system does not stack on every test machine's own.
        self.ctr(&["images", "import", "--snapshotter", "native", archive]).unwrap();
        let known = self.ctr(&["images", "ls", "-q"]).unwrap();
        for name in names {
            assert!(
                known.lines().any(|line| line == name),
                "{archive} should have brought {name}, there are:\n{known}"
            );
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn an_image_of_one_program_is_imported_by_its_name_and_runs_as_whom_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("tool.tar");
    // Debian's busybox, and what it is linked with.
    let libraries = ["/lib64/ld-linux-x86-64.so.2", "libc.so.6", "libresolv.so.2"];
    let libraries = libraries.map(|name| Path::new("/lib/x86_64-linux-gnu").join(name));
    let mut entries: Vec<Entry> = libraries.into_iter().map(|path| Entry::program(&path, &path)).collect();
    entries.push(Entry::program("/usr/bin/busybox", "/bin/busybox"));
    entries.push(Entry::text("etc/tool.conf", "configured"));
    let image = Image {
        reference: String::from("registry.example.com/tool:v1"),
        entrypoint: vec![String::from("/usr/bin/busybox")],
        user: String::from("65535:65535"),
        env: vec![String::from("SPEED=fast")],
        entries,
        ..Image::default()
    };
    oci::write(&archive, &image).unwrap();
    let containerd = Containerd::start();
    containerd.import(&archive, std::slice::from_ref(&image.reference));
    // Found by PATH.
    let command = ["busybox", "sh", "-c", "busybox id -u; echo $SPEED; busybox cat /etc/tool.conf"];
    let run = [&["run", "--rm", "--snapshotter", "native", &image.reference, "tool"], command.as_slice()].concat();
    assert_eq!(containerd.ctr(&run).unwrap(), "65535\nfast\nconfigured");
}

#[test]
fn every_image_of_the_artifact_directory_is_imported_by_the_names_in_the_manifest() {
    let dir = std::env::var_os("METALGATE_ARTIFACTS").expect("METALGATE_ARTIFACTS is the artifact directory");
    let manifest = Manifest::load(Path::new(&dir)).unwrap();
    let containerd = Containerd::start();
    let mut images = manifest.artifacts.iter().filter(|artifact| artifact.kind == Kind::ContainerImage).peekable();
    assert!(images.peek().is_some(), "the artifact directory has no container images");
    for artifact in images {
        assert!(!artifact.images.is_empty(), "{}", artifact.path);
        containerd.import(&manifest.path_of(artifact), &artifact.images);
    }
}
