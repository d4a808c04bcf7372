//! Check: the provisioning interface is usable. It has our address, a link, and frames of 1500 bytes pass through it and everything
//! below it (bridge ports, bonded cards, the card of a VLAN), as sysfs shows; and, where the machines' gateway answers an echo at all,
//! also an unfragmented one of 1500 bytes passes to it and back. Machines that are off cannot be asked.

use super::{Check, Finding, Name, Subject};
use crate::workflow::network::{self, Place};
use async_trait::async_trait;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What firmware, iPXE and the agent use; nothing here sends larger frames, and nobody can do with less.
const MTU: u32 = 1500;
/// Headers of IPv4 and ICMP.
const HEADERS: usize = 28;
/// For one echo, and how often it is tried.
const ECHO: Duration = Duration::from_secs(1);
const ECHOES: u16 = 3;

pub struct Interface;

#[async_trait]
impl Check for Interface {
    fn name(&self) -> Name {
        Name::Interface
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let Place { interface, address } = match network::find(subject.request) {
            Ok(place) => place,
            Err(error) => {
                let (reason, way_out) = (crate::error::chain(&error), "see spec.provisioning.interface and address");
                return vec![Finding::failed(subject.interface().unwrap_or("-"), reason, way_out)];
            }
        };
        let interface = interface.as_str();
        let mut found = look(Path::new("/sys"), interface);
        let gateways: BTreeSet<Ipv4Addr> = subject.request.machines.iter().map(|machine| machine.gateway).collect();
        let others = gateways.into_iter().filter(|gateway| *gateway != address);
        let mut reached = Vec::new();
        for (gateway, large) in
            futures::future::join_all(others.map(|gateway| full_frames_reach(interface, gateway))).await
        {
            match large {
                Some(true) => reached.push(gateway.to_string()),
                Some(false) => {
                    let reason = format!("gateway {gateway} answers small packets, but none of {MTU} bytes");
                    found.push(Finding::warning(interface, reason, "raise the MTU of the switch, or of the gateway"));
                }
                None => {}
            }
        }
        if found.is_empty() {
            let reached = match reached.is_empty() {
                true => String::from("no gateway answered, to try that on"),
                false => format!("and {} answers it", reached.join(", ")),
            };
            found.push(Finding::passed(format!("{interface} takes frames of {MTU} bytes; {reached}")));
        }
        found
    }
}

/// What sysfs shows of an interface and of all below it.
fn look(sys: &Path, interface: &str) -> Vec<Finding> {
    if !sys.join("class/net").join(interface).exists() {
        let reason = format!("link and MTU of {interface}: /sys is of another network namespace, and does not show it");
        return vec![Finding::skipped(reason)];
    }
    let mut found = Vec::new();
    let read = |device: &str, name: &str| fs::read_to_string(sys.join("class/net").join(device).join(name)).ok();
    let bridge = sys.join("class/net").join(interface).join("bridge").exists();
    // A bridge of machines that are all off has no link, and needs none yet; neither has an interface that is down.
    match read(interface, "carrier").as_deref().map(str::trim) {
        Some("1") => {}
        Some("0") if bridge => {}
        Some(_) => {
            let reason = "it has no link, so nobody could answer the other checks";
            found.push(Finding::warning(interface, reason, "plug the cable in, and see to the switch port"));
        }
        None => found.push(Finding::failed(interface, "it is down", format!("ip link set {interface} up"))),
    }
    for device in stack(sys, interface) {
        let mtu = read(&device, "mtu").and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(mtu) = mtu.filter(|mtu| *mtu < MTU) {
            let below = if device == interface { String::new() } else { format!(", which is below {interface},") };
            let reason = format!("{device}{below} has an MTU of {mtu}: larger frames of the machines are lost");
            found.push(Finding::failed(&device, reason, format!("ip link set {device} mtu {MTU}")));
        }
    }
    found
}

/// An interface and everything below it, by the links `lower_*` of sysfs.
fn stack(sys: &Path, interface: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut rest = vec![interface.to_owned()];
    while let Some(device) = rest.pop() {
        let dir: PathBuf = sys.join("class/net").join(&device);
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let lower = names.filter_map(|name| name.to_str()?.strip_prefix("lower_").map(str::to_owned));
        if seen.insert(device) {
            rest.extend(lower);
        }
    }
    seen
}

/// Whether an unfragmented packet of full size comes back from `gateway`; `None` if it does not answer at all.
async fn full_frames_reach(interface: &str, gateway: Ipv4Addr) -> (Ipv4Addr, Option<bool>) {
    let answers = async |bytes: usize| {
        for number in 0..ECHOES {
            match timeout(ECHO, echo(interface, gateway, number, bytes)).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => tracing::debug!("echo of {bytes} bytes to {gateway}: {error}"),
                Err(_) => {}
            }
        }
        false
    };
    let large = if answers(0).await { Some(answers(MTU as usize - HEADERS).await) } else { None };
    (gateway, large)
}

/// Sends an echo request with `bytes` of data that may not be fragmented, and waits for its reply.
async fn echo(interface: &str, to: Ipv4Addr, number: u16, bytes: usize) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    // "Probe": do not fragment, and do not believe what was learnt of the path before.
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    let (data, id) = (vec![0u8; bytes], rand::random());
    let question = IcmpEchoHeader { id, seq: number };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(question), &data);
    let packet = [&header.to_bytes()[..], &data].concat();
    // A raw socket, for which Tokio has no type; the calls are the same.
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send_to(&packet, (to, 0)).await?;
    let mut buffer = [0u8; 2048];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let header = etherparse::Ipv4HeaderSlice::from_slice(&buffer[..length]).map_err(io::Error::other)?;
        let answer = buffer.get(header.slice().len()..length).unwrap_or_default();
        let answer = Icmpv4Header::from_slice(answer).map(|(answer, _)| answer.icmp_type);
        if header.source_addr() == to && answer == Ok(Icmpv4Type::EchoReply(question)) {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_port_below_the_bridge_counts_too() {
        let sys = tempfile::tempdir().unwrap();
        let device = |name: &str, mtu: &str, carrier: Option<&str>| {
            let dir = sys.path().join("class/net").join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("mtu"), mtu).unwrap();
            if let Some(carrier) = carrier {
                fs::write(dir.join("carrier"), carrier).unwrap();
            }
            dir
        };
        let bridge = device("br0", "9000\n", Some("0\n"));
        fs::create_dir(bridge.join("bridge")).unwrap();
        std::os::unix::fs::symlink(device("eth0", "1500\n", Some("1\n")), bridge.join("lower_eth0")).unwrap();
        assert_eq!(look(sys.path(), "br0"), []);
        std::os::unix::fs::symlink(device("eth1", "1400\n", Some("1\n")), bridge.join("lower_eth1")).unwrap();
        let found = look(sys.path(), "br0");
        assert_eq!((found.len(), found[0].verdict, found[0].object.as_deref()), (1, Verdict::Failed, Some("eth1")));
        device("eno1", "1500\n", Some("0\n"));
        device("eno2", "1500\n", None);
        let verdict = |name: &str| look(sys.path(), name)[0].verdict;
        assert_eq!((verdict("eno1"), verdict("eno2")), (Verdict::Warning, Verdict::Failed));
        assert_eq!(verdict("eno3"), Verdict::Skipped, "of another network namespace");
    }
}
