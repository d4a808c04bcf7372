//! Check: every address of the inventory, the virtual one and our own are held by nobody else, by ARP probes (RFC 5227).
//!
//! A machine that has its own address is no squatter: it is on. Whether that is fine is in the journal. Addresses of other
//! segments, behind a relay, cannot be asked for from here.

use super::segment::{Frames, Segment, own_macs};
use super::{Check, Finding, NO_INTERFACE, Name, Subject, is_begun};
use crate::hardware::MacAddr;
use crate::inventory::Machine;
use crate::plan::{self, PlannedMachine};
use async_trait::async_trait;
use etherparse::{ArpEthIpv4Packet, ArpOperation, NetSlice, PacketBuilder, SlicedPacket};
use if_addrs::{IfAddr, Interface};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::time::Instant;

/// RFC 5227, 1.1: PROBE_NUM, PROBE_MIN and ANNOUNCE_WAIT. The random pause before the first probe is for hosts that a power cut
/// starts together.
const PROBES: u32 = 3;
const INTERVAL: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(2);
/// Between two probes: switches hold back broadcasts that come in storms.
const PACE: Duration = Duration::from_micros(500);

pub struct Addresses;

/// Whose an address is to be.
#[derive(Clone, Debug)]
enum Owner<'a> {
    Machine(&'a Machine),
    /// The API server's, held by kube-vip.
    Endpoint,
    /// Ours.
    Us,
}

/// Hardware addresses that answered for an address.
type Holders = BTreeMap<Ipv4Addr, BTreeSet<MacAddr>>;

#[async_trait]
impl Check for Addresses {
    fn name(&self) -> Name {
        Name::Addresses
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let Some(interface) = subject.interface() else { return vec![Finding::skipped(NO_INTERFACE)] };
        let failed = |reason: String| {
            vec![Finding::failed(interface, reason, "see that the interface is right and up, and run it as root")]
        };
        let (host, own) = match (if_addrs::get_if_addrs(), own_macs()) {
            (Ok(host), Ok(own)) => (host, own),
            (Err(error), _) | (_, Err(error)) => return failed(format!("cannot list our addresses: {error}")),
        };
        let owners = owners(subject);
        let asked = owners.keys().copied().filter(|address| is_on_segment(&host, interface, *address));
        let asked: BTreeSet<Ipv4Addr> = asked.collect();
        let segment = match Segment::open(interface, Frames::Arp) {
            Ok(segment) => segment,
            Err(error) => return failed(crate::error::chain(&error)),
        };
        let holders = match probe(&segment, &asked).await {
            Ok(holders) => holders,
            Err(error) => return failed(format!("cannot ask for addresses: {error}")),
        };
        let mut found = judge(subject, &owners, &host, &own, &holders);
        let elsewhere = owners.len() - asked.len();
        if elsewhere > 0 {
            let reason = format!("{elsewhere} addresses are not on the segment of {interface} and cannot be asked for");
            found.push(Finding::skipped(reason));
        }
        if found.is_empty() {
            found.push(Finding::passed(format!("{} addresses are held by nobody else", asked.len())));
        }
        found
    }
}

/// Every address that is to be somebody's.
fn owners<'a>(subject: &Subject<'a>) -> BTreeMap<Ipv4Addr, Owner<'a>> {
    let request = subject.request;
    let mut owners: BTreeMap<Ipv4Addr, Owner<'a>> = BTreeMap::new();
    owners.extend(subject.address().map(|address| (address, Owner::Us)));
    owners.extend(request.machines.iter().map(|machine| (machine.address.addr(), Owner::Machine(machine))));
    if plan::has_virtual_ip(&request.spec, &request.machines) {
        owners.insert(request.spec.kubernetes.endpoint.host, Owner::Endpoint);
    }
    owners
}

fn is_on_segment(host: &[Interface], interface: &str, address: Ipv4Addr) -> bool {
    host.iter().filter(|one| one.name == interface).any(|one| match &one.addr {
        IfAddr::V4(own) => own.ip.to_bits() & own.netmask.to_bits() == address.to_bits() & own.netmask.to_bits(),
        IfAddr::V6(_) => false,
    })
}

/// Asks for all addresses, and gives who answered or asks for one himself (RFC 5227, 2.1.1).
async fn probe(segment: &Segment, addresses: &BTreeSet<Ipv4Addr>) -> std::io::Result<Holders> {
    let started = Instant::now();
    let ask = async {
        for round in 0..PROBES {
            tokio::time::sleep_until(started + INTERVAL * round).await;
            for address in addresses {
                segment.send(&question(segment.mac, *address).map_err(std::io::Error::other)?).await?;
                tokio::time::sleep(PACE).await;
            }
        }
        tokio::time::sleep(WAIT).await;
        Ok::<(), std::io::Error>(())
    };
    let mut holders = Holders::new();
    let listen = async {
        let mut buffer = [0u8; 128];
        loop {
            match segment.receive(&mut buffer).await.map(holder) {
                Ok(Some((address, mac))) if addresses.contains(&address) && mac != segment.mac => {
                    holders.entry(address).or_default().insert(mac);
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        }
    };
    tokio::select! {
        asked = ask => asked.map(|()| holders),
        error = listen => Err(error),
    }
}

/// An ARP probe: a request that tells nobody of an address of ours.
fn question(ours: MacAddr, address: Ipv4Addr) -> Result<Vec<u8>, etherparse::err::packet::BuildWriteError> {
    let probe = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: ours.0,
        sender_ipv4: [0; 4],
        target_mac: [0; 6],
        target_ipv4: address.octets(),
    };
    let packet = PacketBuilder::ethernet2(ours.0, [0xff; 6]).arp(probe.into());
    let mut frame = Vec::with_capacity(packet.size());
    packet.write(&mut frame)?;
    Ok(frame)
}

/// The address that an ARP frame shows to be somebody's, or about to be.
fn holder(frame: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(NetSlice::Arp(arp)) = &packet.net else { return None };
    let mac = MacAddr(arp.sender_hw_addr().try_into().ok()?);
    let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    match address(arp.sender_protocol_addr())? {
        Ipv4Addr::UNSPECIFIED if arp.operation() == ArpOperation::REQUEST => {
            Some((address(arp.target_protocol_addr())?, mac))
        }
        sender => Some((sender, mac)),
    }
}

/// What to tell of each address that somebody has.
fn judge(
    subject: &Subject<'_>,
    owners: &BTreeMap<Ipv4Addr, Owner<'_>>,
    host: &[Interface],
    own: &[MacAddr],
    holders: &Holders,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (address, owner) in owners {
        let ours = host.iter().find(|one| one.ip() == IpAddr::V4(*address));
        if let (Some(ours), false) = (ours, matches!(owner, Owner::Us)) {
            let reason = format!("{address} is this machine's own address on {}", ours.name);
            found.push(Finding::failed(name(owner), reason, "take it from this machine, or write another one"));
        }
        // Our other interfaces on the same segment answer, too (Linux answers for the host, not for the interface).
        for mac in holders.get(address).into_iter().flatten().filter(|mac| !own.contains(mac)) {
            found.extend(held(subject, *address, owner, *mac));
        }
    }
    found
}

fn name(owner: &Owner<'_>) -> String {
    match owner {
        Owner::Machine(machine) => machine.hostname.clone(),
        Owner::Endpoint => String::from("kubernetes.endpoint"),
        Owner::Us => String::from("provisioning.address"),
    }
}

/// What to tell of an address that `mac` has; nothing, where it has it by right.
fn held(subject: &Subject<'_>, address: Ipv4Addr, owner: &Owner<'_>, mac: MacAddr) -> Option<Finding> {
    let holder = subject.request.machines.iter().find(|machine| machine.mac == mac);
    let planned = holder.and_then(|machine| subject.planned(&machine.hostname));
    let begun = planned.is_some_and(is_begun);
    let who = holder.map(|machine| format!(" ({})", machine.hostname)).unwrap_or_default();
    let object = name(owner);
    match owner {
        Owner::Machine(machine) if machine.mac == mac => running(planned.filter(|_| !begun), address),
        Owner::Endpoint if begun => None,
        Owner::Endpoint if planned.is_some() => {
            let reason = format!("{address} is held by {mac}{who}, which is on");
            Some(Finding::warning(
                object,
                reason,
                "nothing is to be done if it has the address from an earlier cluster",
            ))
        }
        Owner::Us => {
            let reason = format!("{address}, which is this machine's own, is held by {mac}{who}, too");
            Some(Finding::failed(object, reason, "give one of the two another address"))
        }
        Owner::Machine(machine) => {
            let reason = format!("{address} is held by {mac}{who}, and not by {}", machine.mac);
            let finding = Finding::failed(object, reason, "free it, or give the machine another one in the inventory");
            // It works already: a bond answers with the address of another of its cards.
            let installed = subject.planned(&machine.hostname).is_some_and(|one| !super::awaits_netboot(one));
            Some(if installed { finding.no_more_than_warning() } else { finding })
        }
        Owner::Endpoint => {
            let reason = format!("{address} is held by {mac}{who}");
            Some(Finding::failed(object, reason, "free it, or write another one into kubernetes.endpoint.host"))
        }
    }
}

/// A machine that nothing was done to yet has its address.
fn running(machine: Option<&PlannedMachine>, address: Ipv4Addr) -> Option<Finding> {
    let machine = machine?;
    let reason = format!("it is on, with its address {address}");
    let way_out = "its disk will be overwritten; take it out of the inventory if that is not meant";
    Some(Finding::warning(&machine.hostname, reason, way_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn arp(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let (sender_mac, target_mac) = ([2, 0, 0, 0, 0, 9], [0; 6]);
        let arp = ArpEthIpv4Packet { operation, sender_mac, sender_ipv4: sender, target_mac, target_ipv4: target };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(sender_mac, OURS.0).arp(arp.into()).write(&mut frame).unwrap();
        frame
    }

    #[test]
    fn a_probe_claims_no_address() {
        let frame = question(OURS, [10, 0, 0, 5].into()).unwrap();
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[28..32], [0; 4], "the sender's address");
        assert_eq!(&frame[38..42], [10, 0, 0, 5], "the target's");
    }

    #[test]
    fn answers_announcements_and_probes_of_others_show_a_holder() {
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let (five, none, us) = ([10, 0, 0, 5], [0; 4], [10, 0, 0, 1]);
        for frame in [
            arp(ArpOperation::REPLY, five, none),
            arp(ArpOperation::REQUEST, five, five),
            arp(ArpOperation::REQUEST, five, us),
            arp(ArpOperation::REQUEST, none, five),
        ] {
            assert_eq!(holder(&frame), Some((five.into(), mac)));
            for length in 0..frame.len() {
                assert_eq!(holder(&frame[..length]), None);
            }
        }
    }
}
