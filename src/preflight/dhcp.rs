//! Check: who answers DHCP on the segment. Where we give the addresses another server is in the way; where another one is to give
//! them, it has to be there.
//!
//! We ask as a machine would that boots by PXE: once for ourselves, whom no reservation knows, and once for each machine that
//! has yet to boot, because many servers answer only those they know. A DISCOVER binds nobody to anything (RFC 2131, 3.1).

mod judge;

use super::segment::{Frames, Segment};
use super::{Check, Finding, NO_INTERFACE, Name, Subject, awaits_netboot};
use crate::hardware::{Arch, BootMode, MacAddr};
use crate::spec::DhcpMode;
use async_trait::async_trait;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use judge::{Network, judge};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long answers are awaited. dnsmasq and ISC's server ping an address for up to three seconds before they offer it.
const LISTEN: Duration = Duration::from_secs(6);
/// The same where an answer is wanted: a server pings the addresses of many machines one after the other.
const AWAIT: Duration = Duration::from_secs(12);
/// When everything is asked again, for a packet that was lost.
const AGAIN: Duration = Duration::from_secs(3);
/// Between two messages: a server's queue holds a few dozen.
const PACE: Duration = Duration::from_millis(5);
/// What BOOTP relays and old servers take (RFC 1542, 2.1).
const SMALLEST: usize = 300;

pub struct Dhcp;

/// Somebody we ask for.
#[derive(Clone, Debug)]
struct Client {
    /// Hostname; `None` is this machine.
    machine: Option<String>,
    mac: MacAddr,
    /// Its architecture as PXE says it (RFC 4578, 2.1).
    arch: u16,
}

/// An answer to one of our questions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    /// For whom: an index into the clients.
    client: usize,
    /// The server, by option 54 or its address.
    server: Ipv4Addr,
    /// Who sent the frame: the server, or the relay in front of it.
    mac: MacAddr,
    /// The address offered; none by a proxy, which tells only what to boot.
    address: Option<Ipv4Addr>,
    /// Next server (siaddr), TFTP server name and boot file: all that leads to a boot program.
    boot: Vec<String>,
}

#[async_trait]
impl Check for Dhcp {
    fn name(&self) -> Name {
        Name::Dhcp
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let Some(interface) = subject.interface() else { return vec![Finding::skipped(NO_INTERFACE)] };
        let segment = match Segment::open(interface, Frames::Ipv4) {
            Ok(segment) => segment,
            Err(error) => {
                let reason = crate::error::chain(&error);
                return vec![Finding::failed(interface, reason, "name the right interface, and run it as root")];
            }
        };
        let planned = &subject.request.plan.machines;
        let machines = planned.iter().filter(|machine| awaits_netboot(machine)).map(|machine| Client {
            machine: Some(machine.hostname.clone()),
            mac: machine.mac,
            arch: arch(machine.boot_mode, machine.arch),
        });
        let ourselves = Client { machine: None, mac: segment.mac, arch: arch(BootMode::Uefi, Arch::Amd64) };
        let clients: Vec<Client> = std::iter::once(ourselves).chain(machines).collect();
        let mode = subject.request.spec.provisioning.dhcp;
        match ask(&segment, &clients, mode).await {
            Ok(offers) => {
                // After the pivot the manager answers on the machine that it runs on.
                let ours = planned.iter().filter(|machine| !awaits_netboot(machine));
                let manager: BTreeSet<Ipv4Addr> = ours.map(|machine| machine.address.addr()).collect();
                let offers: Vec<Offer> = offers.into_iter().filter(|offer| !manager.contains(&offer.server)).collect();
                judge(&Network { mode, us: subject.address(), clients: &clients, listened: patience(mode) }, &offers)
            }
            Err(error) => {
                let reason = format!("cannot ask for DHCP servers: {error}");
                vec![Finding::failed(interface, reason, "see that the interface is up")]
            }
        }
    }
}

fn patience(mode: DhcpMode) -> Duration {
    if mode == DhcpMode::Reservation { LISTEN } else { AWAIT }
}

fn arch(boot_mode: BootMode, arch: Arch) -> u16 {
    match (boot_mode, arch) {
        (BootMode::Bios, _) => 0,
        (BootMode::Uefi, Arch::Amd64) => 7,
        (BootMode::Uefi, Arch::Arm64) => 11,
    }
}

/// Asks for every client, and gives what was offered; each server's answer to each client once.
async fn ask(segment: &Segment, clients: &[Client], mode: DhcpMode) -> std::io::Result<Vec<Offer>> {
    let first: u32 = rand::random();
    let exchange = |client: usize| first.wrapping_add(client as u32);
    let questions: Vec<Vec<u8>> = clients
        .iter()
        .enumerate()
        .map(|(index, client)| discover(client, segment.mac, exchange(index)))
        .collect::<Result<_, _>>()
        .map_err(std::io::Error::other)?;
    let started = Instant::now();
    let talk = async {
        for start in [started, started + AGAIN] {
            tokio::time::sleep_until(start).await;
            for question in &questions {
                segment.send(question).await?;
                tokio::time::sleep(PACE).await;
            }
        }
        std::future::pending().await
    };
    let listen = async {
        let mut offers: BTreeMap<(usize, Ipv4Addr, MacAddr), Offer> = BTreeMap::new();
        let (mut buffer, end) = ([0u8; 2048], started + patience(mode));
        let wanted = |offers: &BTreeMap<_, Offer>| {
            let answered: BTreeSet<usize> =
                offers.values().filter(|one| one.address.is_some()).map(|one| one.client).collect();
            mode != DhcpMode::Reservation && answered.len() == clients.len() && started.elapsed() >= LISTEN
        };
        while let Ok(frame) = timeout_at(end, segment.receive(&mut buffer)).await {
            if let Some((id, offer)) = read(frame?) {
                let client = id.wrapping_sub(first) as usize;
                if client < clients.len() {
                    offers.insert((client, offer.server, offer.mac), Offer { client, ..offer });
                }
            }
            if wanted(&offers) {
                break;
            }
        }
        Ok(offers.into_values().collect())
    };
    tokio::select! {
        sent = talk => sent,
        offers = listen => offers,
    }
}

/// A client's DISCOVER as a frame of ours. The answer is to be broadcast: nobody has the address that it would go to.
fn discover(client: &Client, ours: MacAddr, id: u32) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(id, none, none, none, none, &client.mac.0);
    message.set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Discover));
    options.insert(DhcpOption::ClassIdentifier(format!("PXEClient:Arch:{:05}:UNDI:003016", client.arch).into_bytes()));
    options.insert(DhcpOption::ClientSystemArchitecture(client.arch.into()));
    options.insert(DhcpOption::ClientNetworkInterface(1, 3, 16));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::TFTPServerName,
        OptionCode::BootfileName,
        OptionCode::ClassIdentifier,
    ]));
    let mut payload = message.to_vec()?;
    payload.resize(payload.len().max(SMALLEST), 0);
    let packet = PacketBuilder::ethernet2(ours.0, [0xff; 6]).ipv4([0; 4], [255; 4], 64).udp(68, 67);
    let mut frame = Vec::with_capacity(packet.size(payload.len()));
    packet.write(&mut frame, &payload)?;
    Ok(frame)
}

/// The offer in a frame, with its exchange's number; `client` is not known here.
fn read(frame: &[u8]) -> Option<(u32, Offer)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&packet.net, &packet.transport) else {
        return None;
    };
    if udp.destination_port() != 68 {
        return None;
    }
    let message = Message::decode(&mut Decoder::new(udp.payload())).ok()?;
    let options = message.opts();
    if message.opcode() != Opcode::BootReply || options.msg_type() != Some(MessageType::Offer) {
        return None;
    }
    let server = match options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => *server,
        _ => ip.header().source_addr(),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let option = |code| match options.get(code) {
        Some(DhcpOption::TFTPServerName(bytes) | DhcpOption::BootfileName(bytes)) => Some(text(bytes)),
        _ => None,
    };
    let next = Some(message.siaddr()).filter(|address| !address.is_unspecified()).map(|address| address.to_string());
    let boot = [next, option(OptionCode::TFTPServerName), message.fname().map(text), option(OptionCode::BootfileName)];
    let mac = MacAddr(packet.link.as_ref()?.to_header()?.ethernet2()?.source);
    let address = Some(message.yiaddr()).filter(|address| !address.is_unspecified());
    let boot = boot.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    Some((message.xid(), Offer { client: 0, server, mac, address, boot }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_broadcast_of_a_pxe_client_without_an_address() {
        let (ours, mac) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 9]));
        let client = Client { machine: Some(String::from("node-1")), mac, arch: 7 };
        let frame = discover(&client, ours, 7).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("{packet:?}") };
        assert_eq!((ip.header().source_addr(), ip.header().destination_addr()), ([0; 4].into(), [255; 4].into()));
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("{packet:?}") };
        assert_eq!((udp.source_port(), udp.destination_port()), (68, 67));
        let message = Message::decode(&mut Decoder::new(udp.payload())).unwrap();
        assert_eq!((message.xid(), message.chaddr(), message.flags().broadcast()), (7, &mac.0[..], true));
        assert_eq!(read(&frame), None, "a question is no offer");
    }

    #[test]
    fn no_frame_makes_the_reader_panic() {
        let client = Client { machine: None, mac: MacAddr([2, 0, 0, 0, 0, 9]), arch: 0 };
        let frame = discover(&client, client.mac, 7).unwrap();
        for length in 0..frame.len() {
            assert_eq!(read(&frame[..length]), None);
        }
    }
}
