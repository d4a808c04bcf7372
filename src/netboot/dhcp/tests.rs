//! Decisions on packets written by hand: for each that is answered, a twin that is not.

use super::respond::{DhcpConfig, Exchange, Service, Verdict, respond};
use super::*;
use crate::hardware::{Arch, BootMode};
use crate::netboot::BootEntry;
use dhcproto::v4::{DhcpOption, Flags, MessageType, Opcode, OptionCode, UnknownOption};
use proptest::prelude::*;

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const MINE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xaa, 0, 1]);
const BROADCAST: &str = "255.255.255.255:68";

fn config(mode: DhcpMode) -> DhcpConfig {
    DhcpConfig { interface: String::from("eno1"), address: US, http_port: 8080, mode }
}

fn table(installing: bool) -> BootTable {
    let table = BootTable::default();
    table.set(BootEntry {
        machine: String::from("node-1"),
        mac: MAC,
        address: "10.0.0.11/24".parse().unwrap(),
        gateway: US,
        nameservers: vec![US.into(), "2001:db8::1".parse().unwrap()],
        arch: Arch::Amd64,
        boot_mode: BootMode::Uefi,
        installing,
    });
    table
}

fn message(kind: MessageType, options: impl IntoIterator<Item = DhcpOption>) -> Message {
    let mut message = Message::default();
    message.set_opcode(Opcode::BootRequest).set_xid(0x1234_5678).set_chaddr(&MAC.0);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    options.into_iter().for_each(|option| drop(message.opts_mut().insert(option)));
    message
}

fn class(text: &str) -> DhcpOption {
    DhcpOption::ClassIdentifier(text.as_bytes().to_vec())
}

/// Over the wire and back, as a client's packet comes in.
fn ask(mode: DhcpMode, installing: bool, service: Service, message: &Message) -> Exchange {
    let bytes = message.to_vec().unwrap();
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 99), 4000);
    respond(&config(mode), &table(installing), service, &message, source).expect("a client's message")
}

fn reservation(message: &Message) -> Exchange {
    ask(DhcpMode::Reservation, true, Service::Dhcp, message)
}

/// The answer and where it goes.
#[track_caller]
fn answered(exchange: Exchange) -> (Message, String) {
    match exchange.verdict {
        Verdict::Reply(reply, to) => (*reply, to.to_string()),
        Verdict::Ignore(reason) => panic!("ignored: {reason}"),
    }
}

#[track_caller]
fn ignored(exchange: Exchange) -> String {
    match exchange.verdict {
        Verdict::Ignore(reason) => reason,
        Verdict::Reply(reply, to) => panic!("answered to {to}: {reply:?}"),
    }
}

#[track_caller]
fn kind(reply: &Message) -> MessageType {
    reply.opts().msg_type().unwrap()
}

fn file(reply: &Message) -> String {
    match reply.opts().get(OptionCode::BootfileName) {
        Some(DhcpOption::BootfileName(name)) => String::from_utf8(name.clone()).unwrap(),
        _ => String::new(),
    }
}

#[test]
fn discover_is_offered_the_reservation_with_all_of_the_network() {
    let (offer, to) = answered(reservation(&message(MessageType::Discover, [])));
    assert_eq!(
        (kind(&offer), offer.yiaddr(), offer.xid(), to.as_str()),
        (MessageType::Offer, MINE, 0x1234_5678, BROADCAST)
    );
    for option in [
        DhcpOption::ServerIdentifier(US),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 0, 0, 255)),
        DhcpOption::Router(vec![US]),
        DhcpOption::DomainNameServer(vec![US]),
        DhcpOption::Hostname(String::from("node-1")),
        DhcpOption::AddressLeaseTime(3600),
        DhcpOption::Renewal(1800),
        DhcpOption::Rebinding(3150),
    ] {
        assert_eq!(offer.opts().get(OptionCode::from(&option)), Some(&option));
    }
    // Not a boot client: an address, and nothing to boot.
    assert_eq!((file(&offer), offer.siaddr()), (String::new(), Ipv4Addr::UNSPECIFIED));
}

#[test]
fn a_stranger_and_a_machine_that_is_not_being_installed_get_no_answer() {
    let mut stranger = message(MessageType::Discover, []);
    stranger.set_chaddr(&[2, 0, 0, 0, 0, 9]);
    let exchange = reservation(&stranger);
    assert_eq!(exchange.machine, None);
    assert!(ignored(exchange).contains("not in the inventory"));
    let installed = ask(DhcpMode::Reservation, false, Service::Dhcp, &message(MessageType::Discover, []));
    assert_eq!(installed.machine.as_deref(), Some("node-1"));
    assert!(ignored(installed).contains("not being installed"));
    let answer = Message::default();
    assert!(
        respond(&config(DhcpMode::Reservation), &table(true), Service::Dhcp, &answer, SocketAddrV4::new(US, 67))
            .is_none()
    );
}

#[test]
fn request_by_the_four_states_of_a_client() {
    let asked = DhcpOption::RequestedIpAddress;
    let other = Ipv4Addr::new(10, 0, 0, 12);
    let renewing = |address: Ipv4Addr| {
        let mut message = message(MessageType::Request, []);
        message.set_ciaddr(address);
        message
    };
    // Selecting, init-reboot, renewing or rebinding: right, and with another address.
    let selecting = |address| message(MessageType::Request, [DhcpOption::ServerIdentifier(US), asked(address)]);
    let reboot = |address| message(MessageType::Request, [asked(address)]);
    for (right, wrong, to) in [
        (selecting(MINE), selecting(other), BROADCAST),
        (reboot(MINE), reboot(other), BROADCAST),
        (renewing(MINE), renewing(other), "10.0.0.11:68"),
    ] {
        let (ack, destination) = answered(reservation(&right));
        assert_eq!((kind(&ack), ack.yiaddr(), destination.as_str()), (MessageType::Ack, MINE, to));
        let (nak, destination) = answered(reservation(&wrong));
        assert_eq!(
            (kind(&nak), nak.yiaddr(), destination.as_str()),
            (MessageType::Nak, Ipv4Addr::UNSPECIFIED, BROADCAST)
        );
        assert_eq!(nak.opts().get(OptionCode::AddressLeaseTime), None);
    }
    let elsewhere =
        message(MessageType::Request, [DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 2)), asked(MINE)]);
    assert!(ignored(reservation(&elsewhere)).contains("chose another DHCP server, 10.0.0.2"));
    assert!(ignored(reservation(&message(MessageType::Request, []))).contains("no address"));
}

#[test]
fn inform_is_told_all_but_an_address_and_decline_and_release_are_noted() {
    let mut inform = message(MessageType::Inform, []);
    inform.set_ciaddr(MINE);
    let (ack, to) = answered(reservation(&inform));
    assert_eq!((kind(&ack), ack.yiaddr(), to.as_str()), (MessageType::Ack, Ipv4Addr::UNSPECIFIED, "10.0.0.11:68"));
    assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), None);
    assert!(ack.opts().contains(OptionCode::Router));
    let decline = message(MessageType::Decline, [DhcpOption::RequestedIpAddress(MINE)]);
    assert!(ignored(reservation(&decline)).contains("another host has 10.0.0.11"));
    ignored(reservation(&message(MessageType::Release, [])));
    ignored(reservation(&message(MessageType::Offer, [])));
}

#[test]
fn each_firmware_gets_what_it_can_start() {
    for (vendor, code, wanted) in [
        ("PXEClient:Arch:00000:UNDI:002001", 0, "ipxe/undionly.kpxe"),
        ("PXEClient:Arch:00007:UNDI:003016", 7, "ipxe/amd64/snponly.efi"),
        ("PXEClient:Arch:00009:UNDI:003016", 9, "ipxe/amd64/snponly.efi"),
        ("PXEClient:Arch:00011:UNDI:003016", 11, "ipxe/arm64/ipxe.efi"),
        ("HTTPClient:Arch:00016:UNDI:003001", 16, "http://10.0.0.1:8080/ipxe/amd64/snponly.efi"),
        ("HTTPClient:Arch:00019:UNDI:003001", 19, "http://10.0.0.1:8080/ipxe/arm64/ipxe.efi"),
        ("PXEClient:Arch:00006:UNDI:003016", 6, ""),
        ("udhcp 1.36", 0, ""),
    ] {
        let arch = DhcpOption::ClientSystemArchitecture(code.into());
        let uuid = DhcpOption::ClientMachineIdentifier(vec![0; 17]);
        let (offer, _) = answered(reservation(&message(MessageType::Discover, [class(vendor), arch, uuid.clone()])));
        assert_eq!(file(&offer), wanted, "{vendor}");
        assert_eq!(offer.opts().get(OptionCode::ClientMachineIdentifier), Some(&uuid));
        if wanted.is_empty() {
            continue;
        }
        assert_eq!((offer.siaddr(), offer.fname_str().unwrap().unwrap()), (US, wanted));
        let echoed = vendor.split(':').next().unwrap();
        assert_eq!(offer.opts().get(OptionCode::ClassIdentifier), Some(&class(echoed)));
        assert_eq!(offer.opts().contains(OptionCode::VendorExtensions), echoed == "PXEClient");
    }
}

#[test]
fn ipxe_gets_the_script_of_its_machine_whatever_started_it() {
    for user_class in [&b"iPXE"[..], b"\x04iPXE"] {
        let options = [class("PXEClient:Arch:00007:UNDI:003010"), DhcpOption::UserClass(user_class.to_vec())];
        let (offer, _) = answered(reservation(&message(MessageType::Discover, options)));
        assert_eq!(file(&offer), "http://10.0.0.1:8080/boot/52:54:00:aa:00:01/boot.ipxe");
    }
}

#[test]
fn a_relay_gets_the_answer_and_its_information_back() {
    let information = DhcpOption::Unknown(UnknownOption::new(OptionCode::from(82), vec![1, 2, 7, 7]));
    let mut discover = message(MessageType::Discover, [information]);
    let relay = Ipv4Addr::new(10, 9, 0, 1);
    discover.set_giaddr(relay);
    let (offer, to) = answered(reservation(&discover));
    assert_eq!((to.as_str(), offer.giaddr()), ("10.9.0.1:67", relay));
    assert!(offer.opts().contains(OptionCode::RelayAgentInformation));
    let mut request = message(MessageType::Request, [DhcpOption::RequestedIpAddress(US)]);
    request.set_giaddr(relay);
    let (nak, to) = answered(reservation(&request));
    assert_eq!(
        (kind(&nak), to.as_str(), nak.flags()),
        (MessageType::Nak, "10.9.0.1:67", Flags::default().set_broadcast())
    );
}

#[test]
fn a_proxy_gives_boot_programs_to_boot_clients_and_no_address_to_anyone() {
    let proxy = |service, message: &Message| ask(DhcpMode::Proxy, true, service, message);
    let pxe = || [class("PXEClient:Arch:00007:UNDI:003016")];
    let (offer, to) = answered(proxy(Service::Dhcp, &message(MessageType::Discover, pxe())));
    assert_eq!((kind(&offer), offer.yiaddr(), to.as_str()), (MessageType::Offer, Ipv4Addr::UNSPECIFIED, BROADCAST));
    assert_eq!(file(&offer), "ipxe/amd64/snponly.efi");
    for code in [OptionCode::AddressLeaseTime, OptionCode::Router, OptionCode::SubnetMask] {
        assert!(!offer.opts().contains(code), "{code:?}");
    }
    let (ack, to) = answered(proxy(Service::Proxy, &message(MessageType::Request, pxe())));
    assert_eq!((kind(&ack), to.as_str()), (MessageType::Ack, "10.0.0.99:4000"));
    ignored(proxy(Service::Dhcp, &message(MessageType::Request, pxe())));
    assert!(ignored(proxy(Service::Dhcp, &message(MessageType::Discover, []))).contains("not a boot client"));
    ignored(ask(DhcpMode::Proxy, false, Service::Dhcp, &message(MessageType::Discover, pxe())));
}

proptest! {
    /// Whatever comes in, we come through it, and what we say can be read.
    #[test]
    fn no_packet_breaks_the_server(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), valid in any::<bool>()) {
        if valid && bytes.len() > 40 {
            let template = message(MessageType::Discover, [class("PXEClient:Arch:00000")]).to_vec().unwrap();
            bytes[..34].copy_from_slice(&template[..34]);
            if bytes.len() > 240 {
                bytes[236..240].copy_from_slice(&template[236..240]);
            }
        }
        if let Ok(message) = Message::decode(&mut Decoder::new(&bytes)) {
            for mode in [DhcpMode::Reservation, DhcpMode::Proxy] {
                let exchange = respond(&config(mode), &table(true), Service::Dhcp, &message, SocketAddrV4::new(US, 68));
                if let Some(Exchange { verdict: Verdict::Reply(reply, _), .. }) = exchange {
                    let bytes = reply.to_vec().unwrap();
                    Message::decode(&mut Decoder::new(&bytes)).unwrap();
                }
            }
        }
    }

    /// The same for a message of which one byte is another.
    #[test]
    fn no_damaged_byte_breaks_the_server(at in 0usize..300, byte in any::<u8>()) {
        let mut bytes = message(MessageType::Discover, [class("PXEClient:Arch:00007")]).to_vec().unwrap();
        if let Some(damaged) = bytes.get_mut(at) {
            *damaged = byte;
        }
        if let Ok(message) = Message::decode(&mut Decoder::new(&bytes)) {
            respond(&config(DhcpMode::Reservation), &table(true), Service::Dhcp, &message, SocketAddrV4::new(US, 68));
        }
    }
}

#[test]
fn an_address_of_no_length_of_ethernets_is_nobodys() {
    let valid = message(MessageType::Discover, []).to_vec().unwrap();
    for length in [0, 5, 7, 16, 17, 255] {
        let mut bytes = valid.clone();
        bytes[2] = length;
        let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
        let source = SocketAddrV4::new(US, 68);
        let exchange = respond(&config(DhcpMode::Reservation), &table(true), Service::Dhcp, &message, source);
        assert!(exchange.is_none(), "hlen {length}");
    }
}
