//! A machine's own firmware, from DHCP to its boot script: OVMF by PXE beside another DHCP server (dnsmasq), and OVMF by
//! UEFI HTTP boot. The machine has no kernel to load: it ends where iPXE has its script.

use crate::namespaces::{self, Link, Namespace};
use crate::wire::{KNOWN, US, Wire, exchanges};
use metalgate::event::{Event, EventKind};
use metalgate::spec::DhcpMode;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What the machine does in half a minute on a quiet host.
const LIMIT: Duration = Duration::from_secs(240);
/// The client namespace's own end of the cable; the machine has the address that we know.
const SWITCH: &str = "52:54:00:91:00:50";

/// A QEMU machine on a bridge in the client's namespace, with the other end of our cable.
pub struct Machine(Child);

impl Machine {
    /// Its console goes to the file `console` in `dir`.
    pub fn start(link: &Link, dir: &Path, firmware_settings: &[&str], more: &[&str]) -> Self {
        let client = &link.client;
        client.run("ip", &["link", "add", "lan", "type", "bridge"]);
        client.run("ip", &["link", "set", "lan", "up"]);
        client.run("ip", &["link", "set", &link.client_interface, "master", "lan"]);
        client.run("ip", &["tuntap", "add", "tap", "mode", "tap"]);
        client.run("ip", &["link", "set", "tap", "up", "master", "lan"]);
        let variables = dir.join("vars.fd");
        std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).expect("OVMF: run `tests/setup test`");
        let mut qemu = client.command("qemu-system-x86_64");
        qemu.args(["-machine", "q35,graphics=off", "-accel", "tcg,thread=multi", "-m", "512", "-no-reboot"])
            .args(["-nodefaults", "-display", "none", "-serial"])
            .arg(format!("file:{}", dir.join("console").display()))
            .args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive"])
            .arg(format!("if=pflash,format=raw,file={}", variables.display()))
            .args(["-netdev", "tap,id=lan,ifname=tap,script=no,downscript=no", "-device"])
            .arg(format!("virtio-net-pci,netdev=lan,mac={KNOWN},romfile=,bootindex=0"))
            .args(["-device", "virtio-rng-pci", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"]);
        for setting in firmware_settings {
            qemu.args(["-fw_cfg", setting]);
        }
        Self(qemu.args(more).stdin(Stdio::null()).spawn().expect("QEMU: run `tests/setup test`"))
    }
}

impl Machine {
    /// Whether it has switched itself off.
    pub fn off(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that was seen until the machine had its boot script.
fn until_boot_script(wire: &mut Wire) -> Vec<Event> {
    let deadline = Instant::now() + LIMIT;
    let mut events = Vec::new();
    loop {
        events.extend(wire.seen());
        let script = |event: &Event| matches!(&event.kind, EventKind::Http { path, status: 200, .. } if path.ends_with("boot.ipxe"));
        if events.iter().any(script) {
            return events;
        }
        let console = std::fs::read(wire.dir.path().join("console")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{events:#?}\n{}", String::from_utf8_lossy(&console));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn boot_files(events: &[Event]) -> Vec<String> {
    let files = events.iter().filter_map(|event| match &event.kind {
        EventKind::Dhcp { boot_file: Some(file), .. } => Some(file.clone()),
        _ => None,
    });
    files.collect()
}

#[test]
fn uefi_http_boot_needs_no_tftp() {
    let mut wire = Wire::new(DhcpMode::Reservation, SWITCH);
    let _machine =
        Machine::start(&wire.link, wire.dir.path(), &["name=opt/org.tianocore/IPv4PXESupport,string=n"], &[]);
    let events = until_boot_script(&mut wire);
    let first = boot_files(&events).into_iter().next();
    assert_eq!(first, Some(format!("http://{US}:8080/ipxe/amd64/snponly.efi")), "{events:#?}");
    let program = |kind: &EventKind| matches!(kind, EventKind::Http { path, status: 200, bytes, .. } if path == "/ipxe/amd64/snponly.efi" && *bytes > 100_000);
    assert!(events.iter().any(|event| program(&event.kind)), "{events:#?}");
    let tftp = |kind: &EventKind| matches!(kind, EventKind::TftpStarted { .. } | EventKind::TftpFailed { .. });
    assert!(!events.iter().any(|event| tftp(&event.kind)), "{events:#?}");
    assert!(events.iter().all(|event| event.machine.as_deref() == Some("node-1")), "{events:#?}");
}

/// Another DHCP server on the same network, with these settings of its own.
struct OtherServer {
    _namespace: Namespace,
    dnsmasq: Child,
}

impl OtherServer {
    fn start(wire: &Wire, settings: &[&str]) -> Self {
        let namespace = Namespace::new("other");
        let (near_end, far_end) = namespaces::cable(&wire.link.client, &namespace, "52:54:00:91:00:60");
        wire.link.client.run("ip", &["link", "set", &near_end, "master", "lan"]);
        namespace.run("ip", &["addr", "add", "10.91.0.3/24", "dev", &far_end]);
        let dnsmasq = namespace
            .command("dnsmasq")
            .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--leasefile-ro", "--bind-interfaces"])
            .args(["--interface", &far_end, "--dhcp-range=10.91.0.200,10.91.0.220,255.255.255.0,1h"])
            .args(settings)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq: run `tests/setup test`");
        Self { _namespace: namespace, dnsmasq }
    }
}

impl Drop for OtherServer {
    fn drop(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }
}

/// The machine has the other server's address, and is known by it.
#[track_caller]
fn is_known_by_its_lease(events: &[Event]) {
    for event in events {
        if let EventKind::TftpDone { client, .. } | EventKind::Http { client, .. } = &event.kind {
            assert!(client.to_string().starts_with("10.91.0.2"), "{event:#?}");
        }
        if let EventKind::BootScript { .. } | EventKind::Http { .. } = &event.kind {
            assert_eq!(event.machine.as_deref(), Some("node-1"), "{event:#?}");
        }
    }
    let loaded =
        |event: &Event| matches!(&event.kind, EventKind::TftpDone { file, .. } if file == "ipxe/amd64/snponly.efi");
    assert!(events.iter().any(loaded), "{events:#?}");
}

#[test]
fn beside_another_dhcp_server_only_the_boot_program_is_ours() {
    let mut wire = Wire::new(DhcpMode::Proxy, SWITCH);
    let _machine =
        Machine::start(&wire.link, wire.dir.path(), &["name=opt/org.tianocore/IPv4HTTPSupport,string=n"], &[]);
    let _other = OtherServer::start(&wire, &[]);
    let events = until_boot_script(&mut wire);
    assert_eq!(boot_files(&events).first().map(String::as_str), Some("ipxe/amd64/snponly.efi"), "{events:#?}");
    assert!(exchanges(&events).contains(&String::from("DISCOVER>OFFER")), "{events:#?}");
    let gave_address = |event: &Event| matches!(&event.kind, EventKind::Dhcp { address: Some(_), .. });
    assert!(!events.iter().any(gave_address), "{events:#?}");
    is_known_by_its_lease(&events);
    let tftp = |event: &Event| matches!(&event.kind, EventKind::TftpDone { .. }) && event.machine.is_none();
    assert!(!events.iter().any(tftp), "its REQUEST told us its address: {events:#?}");
}

#[test]
fn a_server_of_the_operators_needs_to_know_no_more_than_one_file() {
    let mut wire = Wire::new(DhcpMode::External, SWITCH);
    let _machine =
        Machine::start(&wire.link, wire.dir.path(), &["name=opt/org.tianocore/IPv4HTTPSupport,string=n"], &[]);
    // The same file for every client, iPXE too: autoexec.ipxe is what ends the circle.
    let _other = OtherServer::start(&wire, &["--dhcp-boot=ipxe/amd64/snponly.efi,metalgate,10.91.0.1"]);
    let events = until_boot_script(&mut wire);
    assert_eq!(exchanges(&events), Vec::<String>::new());
    is_known_by_its_lease(&events);
}
