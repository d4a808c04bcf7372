//! DHCP against udhcpc, dhclient and dhcrelay.

use crate::namespaces::{self, Namespace};
use crate::wire::{INSTALLED, KNOWN, STRANGER, US, Wire, exchanges};
use metalgate::event::{EventBus, EventKind};
use metalgate::netboot::BootTable;
use metalgate::netboot::dhcp::{DhcpConfig, DhcpServer};
use metalgate::spec::DhcpMode;
use std::time::{Duration, Instant};

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
