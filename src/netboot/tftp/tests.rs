//! Requests as firmware writes them: for each that is taken, a twin that is not.

use super::*;
use proptest::prelude::*;

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2070);

fn server() -> (tempfile::TempDir, tokio::runtime::Runtime, TftpServer) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![7u8; 3000]).unwrap();
    let files = BTreeMap::from([(String::from("ipxe/undionly.kpxe"), path)]);
    let config = TftpConfig { address: Ipv4Addr::LOCALHOST, port: 0, files, autoexec: Bytes::from_static(b"#!ipxe\n") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(TftpServer::bind(config, BootTable::default(), EventBus::default())).unwrap();
    (dir, runtime, server)
}

fn read_request(name: &[u8], mode: &str, options: &[&str]) -> Vec<u8> {
    let mut packet = vec![0, 1];
    packet.extend(name);
    for text in [mode].iter().chain(options) {
        packet.push(0);
        packet.extend(text.as_bytes());
    }
    packet.push(0);
    packet
}

#[test]
fn a_file_is_found_by_the_names_that_firmware_gives_it() {
    let (_dir, _runtime, server) = server();
    for name in
        [&b"ipxe/undionly.kpxe"[..], b"/ipxe/undionly.kpxe", b"ipxe/undionly.kpxe\xff", b"ipxe/undionly.kpxe\xff\xff"]
    {
        let packet = read_request(name, "OCTET", &["blksize", "1024", "x-unknown", "1"]);
        let request = server.accept(&packet, CLIENT, 0).unwrap_or_else(|refusal| panic!("{}", refusal.message));
        assert_eq!((request.file.as_str(), request.negotiated.block_size), ("ipxe/undionly.kpxe", 1024));
    }
}

#[test]
fn ipxe_finds_its_script_wherever_it_looks() {
    let (_dir, _runtime, server) = server();
    for name in ["autoexec.ipxe", "/autoexec.ipxe", "ipxe/amd64/autoexec.ipxe"] {
        let request = server.accept(&read_request(name.as_bytes(), "octet", &[]), CLIENT, 0).ok().expect(name);
        assert_eq!(request.content, "#!ipxe\n");
    }
    assert!(server.accept(&read_request(b"my-autoexec.ipxe", "octet", &[]), CLIENT, 0).is_err());
}

#[test]
fn everything_else_is_refused_with_the_reason() {
    let (_dir, _runtime, server) = server();
    let name = b"ipxe/undionly.kpxe";
    let mut write = read_request(name, "octet", &[]);
    write[1] = 2;
    let refused = [
        (write, 0, "nothing can be written here"),
        (read_request(b"../ipxe/undionly.kpxe", "octet", &[]), 0, "no such file"),
        (read_request(name, "netascii", &[]), 0, "only mode octet: boot programs are no text"),
        (read_request(name, "octet", &[]), TRANSFERS, "too many transfers, come again"),
        (vec![0, 3, 0, 1], 0, "a request is expected on this port"),
        (vec![0], 0, "malformed request"),
        (vec![0, 9, 0], 0, "malformed request"),
        (b"\0\x01no end".to_vec(), 0, "malformed request"),
    ];
    for (packet, running, reason) in refused {
        let refusal = server.accept(&packet, CLIENT, running).err().unwrap_or_else(|| panic!("taken: {packet:?}"));
        assert_eq!(refusal.message, reason);
    }
}

#[test]
fn no_bytes_break_the_server() {
    let (_dir, _runtime, server) = server();
    let pieces = prop::collection::vec(
        prop_oneof![Just(vec![0]), Just(b"octet".to_vec()), Just(b"blksize".to_vec()), any::<Vec<u8>>()],
        0..8,
    );
    proptest!(|(opcode in 0u8..7, pieces in pieces)| {
        let packet: Vec<u8> = [vec![0, opcode], pieces.concat()].concat();
        let _ = server.accept(&packet, CLIENT, 0);
    });
}
