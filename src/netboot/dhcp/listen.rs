//! Hears what DHCP clients say, and answers nobody.

use super::client::Client;
use super::respond::{self, Service};
use super::{DhcpError, Sharing, socket};
use crate::hardware::MacAddr;
use dhcproto::v4::Message;
use dhcproto::{Decodable, Decoder};
use tokio::net::UdpSocket;

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it.
    pub mac: MacAddr,
    /// What was sent: `DISCOVER`.
    pub message: String,
    /// What the client is.
    pub client: Client,
}

impl Heard {
    pub(super) fn of(message: &Message) -> Option<Self> {
        let (mac, kind) = respond::sender(message)?;
        Some(Self { mac, message: respond::name(kind), client: Client::of(message.opts()) })
    }
}

/// Ears on an interface, which needs no address. A DHCP server of the same machine may have the port too, if it shares it.
#[derive(Debug)]
pub struct Listener {
    interface: String,
    socket: UdpSocket,
}

impl Listener {
    /// Listens to what clients say to servers on this interface.
    pub fn bind(interface: &str) -> Result<Self, DhcpError> {
        let (interface, port) = (interface.to_owned(), Service::Dhcp.port());
        match socket(&interface, port, Sharing::Shared) {
            Ok(socket) => Ok(Self { interface, socket }),
            Err(source) => Err(DhcpError::Bind { port, interface, source }),
        }
    }

    /// The next message. Nothing is lost if this is given up.
    pub async fn next(&self) -> Result<Heard, DhcpError> {
        let mut buffer = vec![0u8; 4096];
        loop {
            let received = self.socket.recv_from(&mut buffer).await;
            let broke = |source| DhcpError::Broke { interface: self.interface.clone(), source };
            let (length, _) = received.map_err(broke)?;
            let message = Message::decode(&mut Decoder::new(&buffer[..length])).ok();
            if let Some(heard) = message.as_ref().and_then(Heard::of) {
                return Ok(heard);
            }
        }
    }
}
