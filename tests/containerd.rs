//! A real containerd imports the images that metalgate writes, names them as nodes ask for them, and gets others from mirrors. Root is needed, and
//! Debian's containerd; the artifact directory is METALGATE_ARTIFACTS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use metalgate::image::manifest::{Kind, Manifest};
use metalgate::image::oci::{self, Entry, Image};
use metalgate::node::registries;
use metalgate::pki::{Authority, Identity, LeafRequest, Usage};
use metalgate::spec::Registries;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
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

/// A registry (<https://github.com/opencontainers/distribution-spec>) that has one image, by whatever name it is asked for; it
/// notes what it is asked.
struct Registry {
    blobs: std::path::PathBuf,
    asked: Mutex<Vec<String>>,
}

impl Registry {
    /// `archive` is an OCI archive with one image.
    fn new(dir: &Path, archive: &Path) -> Arc<Self> {
        let unpacked = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(dir).status().unwrap();
        assert!(unpacked.success());
        Arc::new(Self { blobs: dir.to_owned(), asked: Mutex::default() })
    }

    fn answer(&self, uri: &Uri) -> Response {
        self.asked.lock().unwrap().push(uri.to_string());
        let Some((_, what)) = uri.path().rsplit_once('/') else { return StatusCode::OK.into_response() };
        let index: Value = serde_json::from_slice(&std::fs::read(self.blobs.join("index.json")).unwrap()).unwrap();
        let manifest = &index["manifests"][0];
        let digest = match what.contains(':') {
            true => what,
            false => manifest["digest"].as_str().unwrap(),
        };
        let Ok(content) = std::fs::read(self.blobs.join("blobs").join(digest.replace(':', "/"))) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let kind = match Some(digest) == manifest["digest"].as_str() {
            true => manifest["mediaType"].as_str().unwrap(),
            false => "application/octet-stream",
        };
        let headers = [("content-type", kind), ("docker-content-digest", digest)];
        (headers, content).into_response()
    }

    /// Serves until the test ends, with TLS or without; gives the port.
    fn serve(self: &Arc<Self>, identity: Option<Identity>) -> u16 {
        let registry = self.clone();
        let app = Router::new().fallback(move |uri: Uri| async move { registry.answer(&uri) });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let Some(Identity { cert, key }) = identity else {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                return axum::serve(listener, app).await.unwrap();
            };
            let config = RustlsConfig::from_pem(cert.into_bytes(), key.expose().clone().into_bytes()).await.unwrap();
            axum_server::from_tcp_rustls(listener, config).unwrap().serve(app.into_make_service()).await.unwrap();
        });
        port
    }
}

/// What a pod names, and where it comes from, by the files that node preparation makes.
#[tokio::test(flavor = "multi_thread")]
async fn images_come_from_the_mirrors() {
    // Only the first one that asks for it can have installed another.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("tool.tar");
    let text = Entry::text("etc/tool.conf", "configured");
    let image = Image { reference: String::from("docker.io/library/tool:v1"), entries: vec![text], ..Image::default() };
    oci::write(&archive, &image).unwrap();
    let blobs = dir.path().join("registry");
    std::fs::create_dir(&blobs).unwrap();
    let registry = Registry::new(&blobs, &archive);
    let authority = Authority::new("the mirror's").unwrap();
    let request = LeafRequest {
        common_name: String::from("mirror"),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        usage: Usage::Server,
        lifetime: Duration::from_secs(3600),
    };
    let secured = registry.serve(Some(authority.issue(&request).unwrap()));
    let plain = registry.serve(None);
    let unknown = format!("https://127.0.0.1:{secured}/hub");
    let wanted: Registries = serde_json::from_value(json!({
        "mirrors": [
            {"registry": "docker.io", "url": unknown, "ca": authority.cert()},
            {"registry": "ghcr.io", "url": unknown},
            {"registry": "gcr.io", "url": unknown, "insecureSkipVerify": true},
            {"url": format!("http://127.0.0.1:{plain}")},
        ],
    }))
    .unwrap();
    let certs = dir.path().join("certs.d");
    let here = |text: &str| text.replace("/etc/containerd/certs.d", certs.to_str().unwrap());
    for file in registries::files(&wanted, &[]) {
        let path = std::path::PathBuf::from(here(&file.path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, here(&file.content)).unwrap();
    }
    let containerd = Containerd::start();
    let pull = |name: &str| {
        let hosts = ["images", "pull", "--snapshotter", "native", "--hosts-dir", certs.to_str().unwrap(), name];
        registry.asked.lock().unwrap().clear();
        let pulled = tokio::task::block_in_place(|| containerd.ctr(&hosts));
        (pulled, registry.asked.lock().unwrap().first().cloned().unwrap_or_default())
    };
    for (name, first) in [
        ("docker.io/library/tool:v1", "/v2/hub/library/tool/manifests/v1?ns=docker.io"),
        ("gcr.io/some/tool:v1", "/v2/hub/some/tool/manifests/v1?ns=gcr.io"),
        ("quay.io/some/tool:v1", "/v2/some/tool/manifests/v1?ns=quay.io"),
    ] {
        let (pulled, asked) = pull(name);
        pulled.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(asked, first);
    }
    let (refused, asked) = pull("ghcr.io/some/tool:v1");
    assert!(refused.is_err() && asked.is_empty(), "nobody has signed that certificate");
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
