//! The provisioning segment, frame by frame: what RFC 5227's probes and a DHCP client without an address need, which
//! the kernel's own sockets neither send (from 0.0.0.0) nor show (answers from foreign networks, packets that a firewall drops).

use crate::hardware::MacAddr;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::LinkAddr;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use tokio::net::UdpSocket;

/// EtherTypes that can be listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// ARP.
    Arp = 0x0806,
    /// IPv4.
    Ipv4 = 0x0800,
}

/// The segment cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// No such interface, or one without frames.
    #[error("{0} is no Ethernet interface of this machine")]
    Interface(String),
    /// Packet sockets are for root.
    #[error("cannot send frames on {interface}; run it as root")]
    Socket {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Our end of the segment.
#[derive(Debug)]
pub struct Segment {
    /// A packet socket. Tokio has no type for it, but send and receive are the same calls for every socket of datagrams.
    socket: UdpSocket,
    /// Our hardware address there.
    pub mac: MacAddr,
}

impl Segment {
    /// Listens on `interface` from now on.
    pub fn open(interface: &str, frames: Frames) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Socket { interface: interface.to_owned(), source };
        let (address, mac) = links()
            .map_err(failed)?
            .into_iter()
            .find_map(|(name, address, mac)| (name == interface).then_some((address, mac)))
            .ok_or_else(|| SegmentError::Interface(interface.to_owned()))?;
        Ok(Self { socket: open(frames, &address).map_err(failed)?, mac })
    }

    /// Sends a whole frame.
    pub async fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).await.map(drop)
    }

    /// Receives a frame; what does not fit into `buffer` is cut off.
    pub async fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.socket.recv(buffer).await?;
        Ok(&buffer[..length])
    }
}

/// Hardware addresses of all our interfaces.
pub fn own_macs() -> io::Result<Vec<MacAddr>> {
    Ok(links()?.into_iter().map(|(_, _, mac)| mac).collect())
}

/// Our interfaces that have a hardware address.
fn links() -> io::Result<Vec<(String, LinkAddr, MacAddr)>> {
    let all = getifaddrs().map_err(io::Error::from)?;
    let link = |one: nix::ifaddrs::InterfaceAddress| {
        let address = *one.address.as_ref()?.as_link_addr()?;
        Some((one.interface_name, address, MacAddr(address.addr()?)))
    };
    Ok(all.filter_map(link).collect())
}

fn open(frames: Frames, address: &LinkAddr) -> io::Result<UdpSocket> {
    let protocol = Protocol::from(i32::from((frames as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    nix::sys::socket::bind(socket.as_raw_fd(), address)?;
    // Until it was bound, it heard every interface.
    let mut before = &socket;
    loop {
        match before.read(&mut [0u8; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return UdpSocket::from_std(socket.into()),
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}
