//! Our three servers in a namespace, and a client's namespace on the other end of a cable.

use crate::namespaces::Link;
use async_trait::async_trait;
use metalgate::agent::protocol::{Claim, Report, Task, WorkOrder};
use metalgate::event::{Event, EventBus, EventKind};
use metalgate::hardware::{Arch, BootMode};
use metalgate::image::manifest::Manifest;
use metalgate::netboot::dhcp::{DhcpConfig, DhcpServer};
use metalgate::netboot::http::{HttpConfig, HttpServer, ServedFile};
use metalgate::netboot::installations::{InstallationError, Installations};
use metalgate::netboot::tftp::{TftpConfig, TftpServer};
use metalgate::netboot::{BootEntry, BootTable};
use metalgate::pki::{Authority, LeafRequest, Usage};
use metalgate::secret::Secret;
use metalgate::spec::DhcpMode;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

pub const US: &str = "10.91.0.1";
pub const KNOWN: &str = "52:54:00:91:00:01";
pub const INSTALLED: &str = "52:54:00:91:00:02";
pub const STRANGER: &str = "52:54:00:91:00:99";

/// Both servers in a namespace, and a client's namespace on the other end of a cable.
pub struct Wire {
    pub link: Link,
    pub dir: tempfile::TempDir,
    pub events: Receiver<Event>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn entry(name: &str, mac: &str, address: &str, installing: bool) -> BootEntry {
    BootEntry {
        machine: name.to_owned(),
        mac: mac.parse().unwrap(),
        address: address.parse().unwrap(),
        gateway: US.parse().unwrap(),
        nameservers: vec![US.parse().unwrap()],
        arch: Arch::Amd64,
        boot_mode: BootMode::Uefi,
        installing,
    }
}

pub fn content() -> Vec<u8> {
    // Not a multiple of any block size, and more blocks than 16 bits count at 8 bytes each.
    (0..700_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// iPXE from the artifact directory; without it, the test fails.
fn boot_programs() -> BTreeMap<String, PathBuf> {
    let dir = std::env::var_os("METALGATE_ARTIFACTS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| metalgate::image::default_dir().expect("an artifact directory"));
    let manifest = Manifest::load(&dir).expect("artifacts: run `make artifacts`");
    let programs = manifest.artifacts.iter().filter(|artifact| artifact.path.starts_with("ipxe/"));
    programs.map(|artifact| (artifact.path.clone(), manifest.path_of(artifact))).collect()
}

fn http_config(files: &BTreeMap<String, PathBuf>) -> HttpConfig {
    let address = US.parse().unwrap();
    let request = LeafRequest {
        common_name: String::from("agent API"),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: vec![IpAddr::V4(address)],
        usage: Usage::Server,
        lifetime: Duration::from_secs(86_400),
    };
    let identity = Authority::new("wire CA").unwrap().issue(&request).unwrap();
    let served = |path: &PathBuf| ServedFile { path: path.clone(), sha256: "ab".repeat(32) };
    let artifacts = files.iter().map(|(name, path)| (name.clone(), served(path))).collect();
    HttpConfig {
        address,
        http_port: 8080,
        agent_port: 8443,
        identity,
        task: Task::Install,
        artifacts,
        images: BTreeMap::new(),
    }
}

/// Stands for the controllers, as far as a boot script needs them; no agent gets as far as here.
struct Tokens;

#[async_trait]
impl Installations for Tokens {
    async fn mint_token(&self, machine: &str) -> Result<Secret<String>, InstallationError> {
        Ok(Secret::new(format!("token-of-{machine}")))
    }

    async fn claim(&self, _: Claim) -> Result<WorkOrder, InstallationError> {
        Err(InstallationError::Refused)
    }

    async fn report(&self, _: &Secret<String>, _: Report) -> Result<(), InstallationError> {
        Err(InstallationError::Refused)
    }
}

impl Wire {
    pub fn new(mode: DhcpMode, client_mac: &str) -> Self {
        let link = Link::new(&format!("{US}/24"), client_mac);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("big"), content()).unwrap();
        std::fs::write(dir.path().join("even"), &content()[..1024]).unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        let table = BootTable::default();
        table.set(entry("node-1", KNOWN, "10.91.0.11/24", true));
        table.set(entry("node-2", INSTALLED, "10.91.0.12/24", false));
        let bus = EventBus::default();
        let (events, cancel) = (bus.subscribe(), CancellationToken::new());
        let interface = link.server_interface.clone();
        let mut files = boot_programs();
        files.extend(["big", "even", "empty"].map(|name| (format!("ipxe/{name}"), dir.path().join(name))));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stop = cancel.clone();
        let thread = link.server.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let address = US.parse().unwrap();
                let config = DhcpConfig { interface, address, http_port: 8080, mode };
                let dhcp =
                    (mode != DhcpMode::External).then(|| DhcpServer::bind(config, table.clone(), bus.clone()).unwrap());
                let dhcp_stop = stop.clone();
                let dhcp = async {
                    match dhcp {
                        Some(server) => server.run(dhcp_stop).await,
                        None => Ok(()),
                    }
                };
                let http = HttpServer::bind(http_config(&files), table.clone(), Arc::new(Tokens), bus.clone());
                let http = http.await.unwrap();
                let autoexec = http.autoexec().unwrap().into();
                let config = TftpConfig { address, port: 69, files, autoexec };
                let tftp = TftpServer::bind(config, table.clone(), bus.clone()).await.unwrap();
                ready.send(()).unwrap();
                let (dhcp, tftp, http) = tokio::join!(dhcp, tftp.run(stop.clone()), http.run(stop.clone()));
                dhcp.unwrap();
                tftp.unwrap();
                http.unwrap();
            });
        });
        is_ready.recv_timeout(Duration::from_secs(10)).expect("the servers start");
        Self { link, dir, events, cancel, thread: Some(thread) }
    }

    /// Runs a program of the client's, for half a minute at most.
    pub fn client(&self, program: &str, args: &[&str]) -> Output {
        self.link
            .client
            .command("timeout")
            .args(["30", program])
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    /// Puts an address on the client's interface, for TFTP.
    pub fn address(&self, address: &str) {
        self.link.client.run("ip", &["addr", "add", address, "dev", &self.link.client_interface]);
    }

    /// udhcpc once, with what its script is told; `None` if it gets no lease.
    pub fn udhcpc(&self, args: &[&str]) -> Option<String> {
        let script = self.dir.path().join("udhcpc.sh");
        std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && env\nexit 0\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut all = vec!["udhcpc", "-f", "-q", "-n", "-t", "3", "-T", "1", "-i", &self.link.client_interface, "-s"];
        all.push(script.to_str().unwrap());
        all.extend(args);
        let output = self.client("busybox", &all);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub fn seen(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// What is seen until `count` events of a kind were among it; a client ends before the server has said that it did.
    pub fn seen_until(&mut self, count: usize, is: impl Fn(&EventKind) -> bool) -> Vec<Event> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut events = self.seen();
        while events.iter().filter(|event| is(&event.kind)).count() < count {
            assert!(Instant::now() < deadline, "fewer than {count} of them: {events:?}");
            std::thread::sleep(Duration::from_millis(20));
            events.extend(self.seen());
        }
        events
    }
}

/// DHCP events as `MESSAGE>ANSWER`.
pub fn exchanges(events: &[Event]) -> Vec<String> {
    let dhcp = events.iter().filter_map(|event| match &event.kind {
        EventKind::Dhcp { message, reply, .. } => Some(format!("{message}>{}", reply.as_deref().unwrap_or("none"))),
        _ => None,
    });
    dhcp.collect()
}
