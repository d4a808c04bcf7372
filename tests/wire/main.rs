//! DHCP and TFTP between network namespaces, against clients that we did not write: udhcpc, dhclient, dhcrelay, tftp-hpa,
//! atftp, busybox and curl. Root is needed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod namespaces;

use metalgate::event::{Event, EventBus, EventKind};
use metalgate::hardware::{Arch, BootMode};
use metalgate::netboot::dhcp::{DhcpConfig, DhcpServer};
use metalgate::netboot::tftp::{TftpConfig, TftpServer};
use metalgate::netboot::{BootEntry, BootTable};
use metalgate::spec::DhcpMode;
use namespaces::{Link, Namespace};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

const US: &str = "10.91.0.1";
const KNOWN: &str = "52:54:00:91:00:01";
const INSTALLED: &str = "52:54:00:91:00:02";
const STRANGER: &str = "52:54:00:91:00:99";

/// Both servers in a namespace, and a client's namespace on the other end of a cable.
struct Wire {
    link: Link,
    dir: tempfile::TempDir,
    events: Receiver<Event>,
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

fn content() -> Vec<u8> {
    // Not a multiple of any block size, and more blocks than 16 bits count at 8 bytes each.
    (0..700_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

impl Wire {
    fn new(mode: DhcpMode, client_mac: &str) -> Self {
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
        let files = ["big", "even", "empty"].map(|name| (format!("ipxe/{name}"), dir.path().join(name)));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stop = cancel.clone();
        let thread = link.server.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let address = US.parse().unwrap();
                let config = DhcpConfig { interface, address, http_port: 8080, mode };
                let dhcp = DhcpServer::bind(config, table.clone(), bus.clone()).unwrap();
                let config = TftpConfig { address, port: 69, files: BTreeMap::from(files) };
                let tftp = TftpServer::bind(config, table, bus).await.unwrap();
                ready.send(()).unwrap();
                let (dhcp, tftp) = tokio::join!(dhcp.run(stop.clone()), tftp.run(stop));
                dhcp.unwrap();
                tftp.unwrap();
            });
        });
        is_ready.recv_timeout(Duration::from_secs(10)).expect("the servers start");
        Self { link, dir, events, cancel, thread: Some(thread) }
    }

    /// Runs a program of the client's, for half a minute at most.
    fn client(&self, program: &str, args: &[&str]) -> Output {
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
    fn address(&self, address: &str) {
        self.link.client.run("ip", &["addr", "add", address, "dev", &self.link.client_interface]);
    }

    /// udhcpc once, with what its script is told; `None` if it gets no lease.
    fn udhcpc(&self, args: &[&str]) -> Option<String> {
        let script = self.dir.path().join("udhcpc.sh");
        std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && env\nexit 0\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut all = vec!["udhcpc", "-f", "-q", "-n", "-t", "3", "-T", "1", "-i", &self.link.client_interface, "-s"];
        all.push(script.to_str().unwrap());
        all.extend(args);
        let output = self.client("busybox", &all);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn seen(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// What is seen until `count` events of a kind were among it; a client ends before the server has said that it did.
    fn seen_until(&mut self, count: usize, is: impl Fn(&EventKind) -> bool) -> Vec<Event> {
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
fn exchanges(events: &[Event]) -> Vec<String> {
    let dhcp = events.iter().filter_map(|event| match &event.kind {
        EventKind::Dhcp { message, reply, .. } => Some(format!("{message}>{}", reply.as_deref().unwrap_or("none"))),
        _ => None,
    });
    dhcp.collect()
}

#[test]
fn udhcpc_gets_its_reservation_and_its_boot_program() {
    let mut wire = Wire::new(DhcpMode::Reservation, KNOWN);
    let lease = wire.udhcpc(&["-V", "PXEClient:Arch:00000:UNDI:002001"]).expect("a lease");
    for line in [
        "ip=10.91.0.11",
        "subnet=255.255.255.0",
        "router=10.91.0.1",
        "dns=10.91.0.1",
        "hostname=node-1",
        "lease=3600",
        "siaddr=10.91.0.1",
        "boot_file=ipxe/undionly.kpxe",
    ] {
        assert!(lease.lines().any(|found| found == line), "{line} is not in\n{lease}");
    }
    let events = wire.seen();
    assert_eq!(exchanges(&events), ["DISCOVER>OFFER", "REQUEST>ACK"]);
    assert!(events.iter().all(|event| event.machine.as_deref() == Some("node-1")));
}

#[test]
fn strangers_and_installed_machines_hear_nothing() {
    for (mac, reason) in [(STRANGER, "not in the inventory"), (INSTALLED, "not being installed")] {
        let mut wire = Wire::new(DhcpMode::Reservation, mac);
        assert_eq!(wire.udhcpc(&[]), None, "{mac}");
        let events = wire.seen();
        let EventKind::Dhcp { ignored: Some(why), .. } = &events[0].kind else { panic!("{events:?}") };
        assert!(why.contains(reason), "{why}");
        // A stranger is reported once, a machine of ours each time.
        assert_eq!(events.len(), if mac == STRANGER { 1 } else { 3 });
    }
}

#[test]
fn dhclient_gets_renews_and_releases_and_is_refused_a_foreign_address() {
    let mut wire = Wire::new(DhcpMode::Reservation, KNOWN);
    let leases = wire.dir.path().join("leases");
    let interface = wire.link.client_interface.clone();
    let lease = |wire: &Wire, args: &[&str]| {
        let mut all = vec!["-4", "-1", "-v", "-sf", "/bin/true", "-pf", "pid", "-cf", "/dev/null", "-lf"];
        all.push(leases.to_str().unwrap());
        all.extend(args);
        all.push(&interface);
        let output = wire.client("dhclient", &all);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = lease(&wire, &[]);
    assert!(said.contains("bound to 10.91.0.11"), "{said}");
    lease(&wire, &["-x"]);
    // Its old lease makes it ask for the same address again (init-reboot).
    let said = lease(&wire, &[]);
    assert!(said.contains("bound to 10.91.0.11"), "{said}");
    lease(&wire, &["-x"]);
    let text = std::fs::read_to_string(&leases).unwrap().replace("10.91.0.11", "10.91.0.77");
    std::fs::write(&leases, text).unwrap();
    let said = lease(&wire, &[]);
    assert!(said.contains("DHCPNAK") && said.contains("bound to 10.91.0.11"), "{said}");
    // Its script puts no address on the interface, without which a release finds no way to us.
    wire.address("10.91.0.11/24");
    lease(&wire, &["-r"]);
    let release = |kind: &EventKind| matches!(kind, EventKind::Dhcp { message, .. } if message == "RELEASE");
    let exchanges = exchanges(&wire.seen_until(1, release));
    for exchange in ["DISCOVER>OFFER", "REQUEST>ACK", "REQUEST>NAK", "RELEASE>none"] {
        assert!(exchanges.iter().any(|found| found == exchange), "{exchange} is not in {exchanges:?}");
    }
}

#[test]
fn a_relay_in_another_network_carries_both_ways() {
    let mut wire = Wire::new(DhcpMode::Reservation, "52:54:00:91:00:50");
    // The client's namespace becomes the relay; behind it is a second network with the machine.
    wire.address("10.91.0.2/24");
    let far = Namespace::new("far");
    let (near_end, far_end) = namespaces::cable(&wire.link.client, &far, KNOWN);
    wire.link.client.run("ip", &["addr", "add", "10.92.0.1/24", "dev", &near_end]);
    wire.link.server.run("ip", &["route", "add", "10.92.0.0/24", "via", "10.91.0.2"]);
    let mut relay = wire
        .link
        .client
        .command("dhcrelay")
        .args(["-4", "-d", "--no-pid", "-id", &near_end, "-iu", &wire.link.client_interface, US])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut got = false;
    while !got && Instant::now() < deadline {
        let output = far
            .command("busybox")
            .args(["udhcpc", "-f", "-q", "-n", "-t", "2", "-T", "1", "-s", "/bin/true", "-i", &far_end])
            .output()
            .unwrap();
        got = output.status.success();
    }
    relay.kill().unwrap();
    relay.wait().unwrap();
    assert!(got, "no lease through the relay: {:?}", exchanges(&wire.seen()));
}

#[test]
fn a_proxy_leaves_addresses_to_the_other_server() {
    let mut wire = Wire::new(DhcpMode::Proxy, KNOWN);
    assert_eq!(wire.udhcpc(&[]), None, "an address by a proxy");
    assert_eq!(wire.udhcpc(&["-V", "PXEClient:Arch:00007:UNDI:003016"]), None, "udhcpc wants an address");
    let exchanges = exchanges(&wire.seen());
    assert!(exchanges.iter().any(|found| found == "DISCOVER>OFFER"), "{exchanges:?}");
    assert!(exchanges.iter().any(|found| found == "DISCOVER>none"), "{exchanges:?}");
}

fn same(dir: &Path, file: &str, wanted: &[u8]) {
    let got = std::fs::read(dir.join(file)).unwrap_or_default();
    assert!(got == wanted, "{file}: {} bytes instead of {}", got.len(), wanted.len());
    std::fs::remove_file(dir.join(file)).unwrap();
}

#[test]
fn foreign_tftp_clients_get_every_byte() {
    let mut wire = Wire::new(DhcpMode::Reservation, KNOWN);
    wire.address("10.91.0.11/24");
    let whole = content();
    for (file, wanted) in [("big", &whole[..]), ("even", &whole[..1024]), ("empty", &[])] {
        let remote = format!("ipxe/{file}");
        wire.client("tftp", &["-m", "binary", US, "-c", "get", &remote, "got"]);
        same(wire.dir.path(), "got", wanted);
        wire.client("busybox", &["tftp", "-g", "-b", "1468", "-r", &remote, "-l", "got", US]);
        same(wire.dir.path(), "got", wanted);
        // Told that a file is empty, curl leaves without a word.
        if !wanted.is_empty() {
            wire.client("curl", &["-sS", "-o", "got", &format!("tftp://{US}/{remote}")]);
            same(wire.dir.path(), "got", wanted);
        }
    }
    for options in [
        &["--option", "blksize 8"][..],
        &["--option", "blksize 1024", "--option", "windowsize 16"],
        &["--option", "tsize 0", "--option", "timeout 2", "--option", "windowsize 64"],
    ] {
        let mut args = options.to_vec();
        args.extend(["--get", "--remote-file", "ipxe/big", "--local-file", "got", US]);
        let output = wire.client("atftp", &args);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        same(wire.dir.path(), "got", &whole);
    }
    let events = wire.seen_until(11, |kind| matches!(kind, EventKind::TftpDone { .. }));
    assert!(events.iter().all(|event| event.machine.as_deref() == Some("node-1")));
}

#[test]
fn what_tftp_may_not_give_or_take_is_refused() {
    let mut wire = Wire::new(DhcpMode::Reservation, KNOWN);
    wire.address("10.91.0.11/24");
    for (name, code) in [("ipxe/none", 68), ("../etc/passwd", 68), ("/etc/passwd", 68)] {
        let output = wire.client("curl", &["-sS", "--path-as-is", "-o", "got", &format!("tftp://{US}/{name}")]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let write = wire.client("curl", &["-sS", "-T", "even", &format!("tftp://{US}/ipxe/even")]);
    assert_eq!(write.status.code(), Some(69), "{}", String::from_utf8_lossy(&write.stderr));
    wire.seen_until(4, |kind| matches!(kind, EventKind::TftpFailed { .. }));
}

#[test]
fn two_hundred_clients_at_once_are_all_served() {
    let mut wire = Wire::new(DhcpMode::Reservation, KNOWN);
    wire.address("10.91.0.11/24");
    let url = format!("tftp://{US}/ipxe/even");
    let fetch = |_| {
        let mut curl = wire.link.client.command("curl");
        curl.args(["-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{size_download}\n", &url]);
        curl.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let clients: Vec<_> = (0..200).map(fetch).collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1024\n");
    }
    wire.seen_until(200, |kind| matches!(kind, EventKind::TftpDone { .. }));
}

#[test]
fn a_lost_packet_is_sent_again_even_the_oack() {
    use std::net::UdpSocket;
    let mut wire = Wire::new(DhcpMode::Reservation, KNOWN);
    wire.address("10.91.0.11/24");
    let (sent, received) = std::sync::mpsc::channel();
    let client = wire.link.client.thread(move || {
        let socket = UdpSocket::bind("10.91.0.11:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(b"\0\x01ipxe/even\0octet\0blksize\x00512\0windowsize\x004\0", (US, 69)).unwrap();
        let mut buffer = [0u8; 600];
        let mut receive = || {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            (buffer[..length].to_vec(), from)
        };
        // The OACK comes again although it was not answered; then each block of the window, and the last one.
        let (first, server) = receive();
        let (second, _) = receive();
        socket.send_to(&[0, 4, 0, 0], server).unwrap();
        // A stranger on the transfer's port is told so, and the transfer goes on.
        let stranger = UdpSocket::bind("10.91.0.11:0").unwrap();
        stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let blocks: Vec<u8> = (0..3).map(|_| receive().0[3]).collect();
        stranger.send_to(&[0, 4, 0, 3], server).unwrap();
        let mut told = [0u8; 100];
        let length = stranger.recv(&mut told).unwrap();
        // Block 2 was "lost": an acknowledgement of 1 brings it again, with what follows.
        socket.send_to(&[0, 4, 0, 1], server).unwrap();
        let again: Vec<u8> = (0..2).map(|_| receive().0[3]).collect();
        socket.send_to(&[0, 4, 0, 3], server).unwrap();
        sent.send((first, second, blocks, again, told[..length].to_vec())).unwrap();
    });
    let (first, second, blocks, again, told) = received.recv_timeout(Duration::from_secs(30)).unwrap();
    client.join().unwrap();
    assert!(first.starts_with(&[0, 6]) && first == second, "{first:?} {second:?}");
    assert_eq!((blocks, again), (vec![1, 2, 3], vec![2, 3]));
    assert!(told.starts_with(&[0, 5, 0, 5]), "{told:?}");
    let events = wire.seen_until(1, |kind| matches!(kind, EventKind::TftpDone { .. }));
    let retransmits = events.iter().find_map(|event| match event.kind {
        EventKind::TftpDone { retransmits, .. } => Some(retransmits),
        _ => None,
    });
    assert_eq!(retransmits, Some(3));
}

#[test]
fn a_port_that_is_taken_is_an_error_with_its_interface() {
    let wire = Wire::new(DhcpMode::Reservation, KNOWN);
    let interface = wire.link.server_interface.clone();
    let second = wire.link.server.thread(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let address = US.parse().unwrap();
        let config = DhcpConfig { interface, address, http_port: 8080, mode: DhcpMode::Reservation };
        let error = DhcpServer::bind(config, BootTable::default(), EventBus::default()).unwrap_err().to_string();
        assert!(error.contains("UDP port 67 of mgs"), "{error}");
    });
    second.join().unwrap();
}
