//! TFTP against tftp-hpa, atftp, busybox and curl, and against a client that loses packets.

use crate::wire::{KNOWN, US, Wire, content};
use metalgate::event::EventKind;
use metalgate::spec::DhcpMode;
use std::path::Path;
use std::time::Duration;

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
