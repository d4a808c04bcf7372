//! An oracle for certificates between the planes of Kong: real nginx with its Lua module and real OpenSSL, with the
//! directives of Kong's control plane and the calls of Kong's data plane (`nginx/`). What it accepts or refuses, and
//! with which words, is what Kong does; its own tests hold the table of what was measured.
//!
//! Feeds the tests of the certificates that metalgate issues for the planes.

mod tests;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

/// For the packages, which a fresh machine has to fetch.
const UNPACK: Duration = Duration::from_secs(600);
/// For nginx to start and to answer; it takes 50 ms on an idle machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Kong's `cluster_mtls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Both planes have the same certificate.
    Shared,
    /// Each plane's certificate is issued by an authority that the other one trusts.
    Pki,
}

/// What a data plane is told of the protocol: Kong allows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The server checks the client before the handshake ends.
    Tls12,
    /// The handshake ends for the client before the server has seen its certificate.
    Tls13,
}

/// A certificate, with what belongs to its chain behind it, and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate first.
    pub cert: String,
    /// PKCS #8.
    pub key: String,
}

/// Two planes.
#[derive(Clone, Debug)]
pub struct Case {
    /// `cluster_mtls`.
    pub mode: Mode,
    /// The control plane's `cluster_cert` and `cluster_cert_key`.
    pub control_plane: Identity,
    /// The control plane's `cluster_ca_cert`: mode pki wants it.
    pub control_plane_ca: Option<String>,
    /// The data plane's `cluster_cert` and `cluster_cert_key`.
    pub data_plane: Identity,
    /// What the data plane trusts: `lua_ssl_trusted_certificate`, with what Kong itself appends to it.
    pub data_plane_trust: String,
    /// The data plane's `cluster_server_name`; mode shared is always `kong_clustering`.
    pub server_name: String,
    /// `lua_ssl_verify_depth`: how many intermediates the data plane accepts. Kong's default is 1.
    pub verify_depth: u8,
    /// What the data plane speaks.
    pub protocol: Protocol,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The data plane is in.
    Connected,
    /// The data plane broke the handshake off, in OpenSSL's words.
    RefusedByDataPlane(String),
    /// The control plane's HTTP status after the handshake; 444 is nginx's number for no answer at all.
    RefusedByControlPlane(u16),
}

/// Lets the data plane connect to the control plane once.
pub async fn connect(case: &Case) -> Outcome {
    let root = unpacked().await;
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path();
    write_files(prefix, root, case);
    let mut nginx = Command::new(root.join("usr/sbin/nginx"))
        .arg("-p")
        .arg(prefix)
        .args(["-c", "nginx.conf"])
        .env("LD_LIBRARY_PATH", libraries(root))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(prefix.join("stderr")).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let answer = tokio::time::timeout(LIMIT, ask(prefix, &case.server_name, &mut nginx)).await;
    nginx.kill().await.unwrap();
    let log = || ["stderr", "error.log"].map(|name| fs::read_to_string(prefix.join(name)).unwrap_or_default()).concat();
    let Ok(Ok(answer)) = answer else { panic!("nginx does not answer: {answer:?}\n{}", log()) };
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim_end());
    match body.and_then(|body| body.split_once(' ')) {
        Some(("data-plane", reason)) => Outcome::RefusedByDataPlane(reason.to_owned()),
        Some(("control-plane", "200")) => Outcome::Connected,
        Some(("control-plane", status)) => Outcome::RefusedByControlPlane(status.parse().unwrap()),
        _ => panic!("the data plane says {answer}\n{}", log()),
    }
}

/// Where Debian's nginx is unpacked.
async fn unpacked() -> &'static Path {
    static ROOT: OnceCell<PathBuf> = OnceCell::const_new();
    let unpack = async || {
        let script = Command::new(scripts().join("unpack")).stderr(Stdio::inherit()).kill_on_drop(true).output();
        let output = tokio::time::timeout(UNPACK, script).await.expect("the packages arrive in time").unwrap();
        assert!(output.status.success(), "nginx/unpack: {}", output.status);
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    ROOT.get_or_init(unpack).await
}

fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/nginx")
}

fn libraries(root: &Path) -> String {
    ["usr/lib", "lib"].map(|lib| root.join(lib).join("x86_64-linux-gnu").display().to_string()).join(":")
}

fn write_files(prefix: &Path, root: &Path, case: &Case) {
    let (mode, verify_client) = match case.mode {
        Mode::Shared => ("shared", "ssl_verify_client optional_no_ca;".to_owned()),
        Mode::Pki => {
            let ca = case.control_plane_ca.as_ref().expect("mode pki has a cluster_ca_cert");
            fs::write(prefix.join("ca.crt"), ca).unwrap();
            let file = prefix.join("ca.crt");
            let check = format!("ssl_client_certificate {}; ssl_verify_depth 4;", file.display());
            ("pki", format!("ssl_verify_client on; {check}"))
        }
    };
    let protocol = match case.protocol {
        Protocol::Tls12 => "TLSv1.2",
        Protocol::Tls13 => "TLSv1.3",
    };
    let config = include_str!("nginx/nginx.conf")
        .replace("@prefix@", prefix.to_str().unwrap())
        .replace("@root@", root.to_str().unwrap())
        .replace("@scripts@", scripts().to_str().unwrap())
        .replace("@verify_client@", &verify_client)
        .replace("@verify_depth@", &case.verify_depth.to_string())
        .replace("@mode@", mode)
        .replace("@protocol@", protocol);
    let files = [
        ("nginx.conf", &config),
        ("control-plane.crt", &case.control_plane.cert),
        ("control-plane.key", &case.control_plane.key),
        ("data-plane.crt", &case.data_plane.cert),
        ("data-plane.key", &case.data_plane.key),
        ("trust.pem", &case.data_plane_trust),
    ];
    for (name, text) in files {
        fs::write(prefix.join(name), text).unwrap();
    }
}

/// The answer of the data plane, as soon as it listens; an error if nginx has ended.
async fn ask(prefix: &Path, server_name: &str, nginx: &mut Child) -> Result<String, String> {
    let mut socket = loop {
        if let Ok(socket) = UnixStream::connect(prefix.join("data-plane.sock")).await {
            break socket;
        }
        if let Some(status) = nginx.try_wait().map_err(|error| error.to_string())? {
            return Err(status.to_string());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let request = format!("GET /connect?server_name={server_name} HTTP/1.0\r\n\r\n");
    socket.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(answer)
}
