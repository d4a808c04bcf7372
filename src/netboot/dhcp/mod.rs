//! DHCP (RFC 2131) for the machines of the inventory, and for them only: addresses by reservation, boot programs by what
//! the client says that it is (RFC 4578), or boot programs alone beside another server (proxy DHCP).
//!
//! `client` reads what a client is, `respond` decides without a socket or a clock, this file holds the sockets. Fed by the
//! boot table; every message is an event, with the reason where it was not answered.

mod client;
mod listen;
mod respond;

pub use client::{BootClass, Client, ClientArch};
pub use listen::{Heard, Listener};
pub use respond::{DhcpConfig, Service};

use super::BootTable;
use crate::event::{EventBus, EventKind};
use crate::hardware::MacAddr;
use crate::spec::DhcpMode;
use dhcproto::v4::Message;
use dhcproto::{Decodable, Decoder, Encodable};
use respond::{Verdict, respond};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Clients older than RFC 2131 take nothing smaller than a BOOTP message (RFC 1542, 2.1).
const SMALLEST: usize = 300;
/// A stranger is reported once in this time.
const STRANGER: Duration = Duration::from_secs(60);
/// Strangers that are remembered; with more than these, all are forgotten.
const STRANGERS: usize = 1024;

/// A server that cannot be started, or broke.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The port is taken, or we may not have it.
    #[error(
        "cannot listen on UDP port {port} of {interface}: another DHCP server on this machine, or not run as root? (with \
         spec.provisioning.dhcp.mode `external` metalgate needs no DHCP port)"
    )]
    Bind {
        /// The port.
        port: u16,
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It broke while it ran.
    #[error("the DHCP server on {interface} broke")]
    Broke {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A DHCP server, bound and not yet running.
#[derive(Debug)]
pub struct DhcpServer {
    config: DhcpConfig,
    main: UdpSocket,
    /// Port 4011, in proxy mode.
    proxy: Option<UdpSocket>,
    table: BootTable,
    events: EventBus,
    heard: Option<mpsc::Sender<Heard>>,
}

impl DhcpServer {
    /// Takes the ports on the interface.
    pub fn bind(config: DhcpConfig, table: BootTable, events: EventBus) -> Result<Self, DhcpError> {
        let open = |service: Service| {
            let port = service.port();
            socket(&config.interface, port, Sharing::Alone).map_err(|source| DhcpError::Bind {
                port,
                interface: config.interface.clone(),
                source,
            })
        };
        let main = open(Service::Dhcp)?;
        let proxy = match config.mode {
            DhcpMode::Proxy => Some(open(Service::Proxy)?),
            DhcpMode::Reservation | DhcpMode::External => None,
        };
        Ok(Self { config, main, proxy, table, events, heard: None })
    }

    /// Tells of every client's message, whoever sent it, before it is answered or not.
    pub fn telling(self, heard: mpsc::Sender<Heard>) -> Self {
        Self { heard: Some(heard), ..self }
    }

    /// Serves until `cancel` is cancelled.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), DhcpError> {
        let mut strangers = Strangers::default();
        let (mut main_buffer, mut proxy_buffer) = (vec![0u8; 4096], vec![0u8; 4096]);
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                received = self.main.recv_from(&mut main_buffer) => received.map(|got| (Service::Dhcp, got)),
                received = receive(self.proxy.as_ref(), &mut proxy_buffer) => received.map(|got| (Service::Proxy, got)),
            };
            let broke = |source| DhcpError::Broke { interface: self.config.interface.clone(), source };
            let (service, (length, source)) = received.map_err(broke)?;
            let buffer = if service == Service::Dhcp { &main_buffer } else { &proxy_buffer };
            if let SocketAddr::V4(source) = source {
                self.answer(service, &buffer[..length], source, &mut strangers).await;
            }
        }
    }

    async fn answer(&self, service: Service, packet: &[u8], source: SocketAddrV4, strangers: &mut Strangers) {
        let message = match Message::decode(&mut Decoder::new(packet)) {
            Ok(message) => message,
            Err(error) => return tracing::debug!("no DHCP message from {source}: {error}"),
        };
        if let (Some(sender), Some(heard)) = (&self.heard, Heard::of(&message)) {
            // Clients repeat themselves: what is lost when nobody keeps up is no loss.
            let _ = sender.try_send(heard);
        }
        let Some(exchange) = respond(&self.config, &self.table, service, &message, source) else { return };
        if let (Some(_), Some(address)) = (&exchange.machine, respond::wanted(&message)) {
            self.table.seen_at(exchange.mac, address);
        }
        let sent = match &exchange.verdict {
            Verdict::Reply(reply, to) => Some(self.send(service, reply, *to).await),
            Verdict::Ignore(_) => None,
        };
        if exchange.machine.is_none() && !strangers.is_news(exchange.mac) {
            return;
        }
        let (reply, ignored) = match (&exchange.verdict, sent) {
            (_, Some(Err(error))) => (None, Some(format!("the answer could not be sent: {error}"))),
            (Verdict::Reply(reply, _), _) => (reply.opts().msg_type().map(respond::name), None),
            (Verdict::Ignore(reason), _) => (None, Some(reason.clone())),
        };
        let kind = EventKind::Dhcp {
            mac: exchange.mac,
            message: respond::name(exchange.message),
            reply,
            address: exchange.address,
            client: exchange.client.class,
            arch: exchange.client.arch.map(|arch| arch.to_string()),
            boot_file: exchange.boot_file,
            ignored,
        };
        self.events.emit(exchange.machine.as_deref(), kind);
    }

    async fn send(&self, service: Service, reply: &Message, to: SocketAddrV4) -> io::Result<()> {
        let mut bytes = reply.to_vec().map_err(io::Error::other)?;
        bytes.resize(bytes.len().max(SMALLEST), 0);
        let socket = match (service, &self.proxy) {
            (Service::Proxy, Some(socket)) => socket,
            _ => &self.main,
        };
        socket.send_to(&bytes, to).await.map(drop)
    }
}

/// Waits for a packet on a socket; for ever, if there is none.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// Who else may have a socket's port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Nobody: two DHCP servers on one port would both answer.
    Alone,
    /// Whoever shares it too.
    Shared,
}

/// A socket that hears broadcasts of one interface only.
fn socket(interface: &str, port: u16, sharing: Sharing) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(sharing == Sharing::Shared)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    UdpSocket::from_std(socket.into())
}

/// MAC addresses that are not ours, so that each is reported now and then and not with every packet.
#[derive(Debug, Default)]
struct Strangers(HashMap<MacAddr, Instant>);

impl Strangers {
    fn is_news(&mut self, mac: MacAddr) -> bool {
        if self.0.get(&mac).is_some_and(|last| last.elapsed() < STRANGER) {
            return false;
        }
        if self.0.len() >= STRANGERS {
            self.0.clear();
        }
        self.0.insert(mac, Instant::now());
        true
    }
}

#[cfg(test)]
mod tests;
