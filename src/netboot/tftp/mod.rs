//! TFTP (RFC 1350) for firmware that boots by PXE: read only, and only files that were named at the start.
//!
//! The codec is the `tftpd` crate's; `options` negotiates (RFC 2347, 2348, 2349, 7440), `transfer` sends one file to one
//! client, this file takes requests. Every transfer is an event when it begins and when it ends.

mod options;
mod transfer;

use super::BootTable;
use crate::event::{EventBus, EventKind};
use bytes::Bytes;
use options::Negotiated;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tftpd::{ErrorCode, Packet};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Transfers at once; requests beyond them are told to come again.
const TRANSFERS: usize = 1024;
/// The largest request that is looked at (RFC 2347: 512 octets).
const REQUEST: usize = 512;

/// Where TFTP listens (RFC 1350, 4).
pub const TFTP_PORT: u16 = 69;
const AUTOEXEC: &str = "autoexec.ipxe";

/// What is served, and where.
#[derive(Clone, Debug)]
pub struct TftpConfig {
    /// Our address on the provisioning network.
    pub address: Ipv4Addr,
    /// 69.
    pub port: u16,
    /// Files by the name that clients ask for.
    pub files: BTreeMap<String, PathBuf>,
    /// What iPXE gets as autoexec.ipxe, in whichever folder it believes to be. Without it, an iPXE that was started by
    /// another DHCP server, which gives every client the same file, would load itself again and again.
    pub autoexec: Bytes,
}

/// A server that cannot be started, or broke.
#[derive(Debug, thiserror::Error)]
pub enum TftpError {
    /// The port is taken, or we may not have it.
    #[error("cannot listen on UDP {address} for TFTP: another TFTP server on this machine, or not run as root?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}, which TFTP clients are to get")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It broke while it ran.
    #[error("the TFTP server broke")]
    Broke(#[source] io::Error),
}

/// A TFTP server, bound and not yet running.
#[derive(Debug)]
pub struct TftpServer {
    socket: UdpSocket,
    address: Ipv4Addr,
    /// Boot programs are small: they are kept in memory, and hundreds of clients share them.
    files: Arc<BTreeMap<String, Bytes>>,
    autoexec: Bytes,
    table: BootTable,
    events: EventBus,
}

impl TftpServer {
    /// Takes the port and reads the files.
    pub async fn bind(config: TftpConfig, table: BootTable, events: EventBus) -> Result<Self, TftpError> {
        let mut files = BTreeMap::new();
        for (name, path) in config.files {
            let content = tokio::fs::read(&path).await.map_err(|source| TftpError::File { path, source })?;
            files.insert(name, Bytes::from(content));
        }
        let address = SocketAddr::from((config.address, config.port));
        let socket = UdpSocket::bind(address).await.map_err(|source| TftpError::Bind { address, source })?;
        Ok(Self { socket, address: config.address, files: Arc::new(files), autoexec: config.autoexec, table, events })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `cancel` is cancelled; transfers under way end with it.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), TftpError> {
        let mut transfers = JoinSet::new();
        let mut buffer = [0u8; REQUEST];
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(_) = transfers.join_next() => {}
                received = self.socket.recv_from(&mut buffer) => {
                    let (length, client) = received.map_err(TftpError::Broke)?;
                    match self.accept(&buffer[..length], client, transfers.len()) {
                        Ok(request) => drop(transfers.spawn(self.send(client, request))),
                        Err(refusal) => self.refuse(client, refusal).await,
                    }
                }
            }
        }
    }

    /// Looks at a request.
    fn accept(&self, packet: &[u8], client: SocketAddr, running: usize) -> Result<Request, Refusal> {
        let refuse =
            |file: &str, code, message: &str| Refusal { file: file.to_owned(), code, message: message.to_owned() };
        // Some PXE firmware pads the name with 0xff, which no text has in it.
        let packet: Vec<u8> = packet.iter().copied().filter(|byte| *byte != 0xff).collect();
        let (filename, mode, wanted) = match Packet::deserialize(&packet) {
            Ok(Packet::Rrq { filename, mode, options }) => (filename, mode, options),
            Ok(Packet::Wrq { filename, .. }) => {
                return Err(refuse(&filename, ErrorCode::AccessViolation, "nothing can be written here"));
            }
            Ok(_) => return Err(refuse("", ErrorCode::IllegalOperation, "a request is expected on this port")),
            Err(error) => {
                tracing::debug!("no TFTP request from {client}: {error}");
                return Err(refuse("", ErrorCode::IllegalOperation, "malformed request"));
            }
        };
        if !mode.eq_ignore_ascii_case("octet") {
            return Err(refuse(&filename, ErrorCode::NotDefined, "only mode octet: boot programs are no text"));
        }
        // A name is looked up and never a path, so there is no `..` to think of. Some firmware sends a leading slash.
        let name = filename.trim_start_matches('/').to_owned();
        let script = (name.rsplit('/').next() == Some(AUTOEXEC)).then_some(&self.autoexec);
        let Some(content) = script.or_else(|| self.files.get(&name)) else {
            return Err(refuse(&filename, ErrorCode::FileNotFound, "no such file"));
        };
        if running >= TRANSFERS {
            return Err(refuse(&filename, ErrorCode::NotDefined, "too many transfers, come again"));
        }
        let negotiated = Negotiated::from_request(&wanted, content.len() as u64);
        Ok(Request { file: name, content: content.clone(), negotiated })
    }

    async fn refuse(&self, client: SocketAddr, refusal: Refusal) {
        let packet = Packet::Error { code: refusal.code, msg: refusal.message.clone() };
        if let Ok(bytes) = packet.serialize() {
            // A client that is gone needs no refusal.
            let _ = self.socket.send_to(&bytes, client).await;
        }
        let machine = machine_at(&self.table, client.ip());
        let kind = EventKind::TftpFailed { client: client.ip(), file: refusal.file, error: refusal.message };
        self.events.emit(machine.as_deref(), kind);
    }

    /// One transfer, from a port of its own (RFC 1350, 4).
    fn send(&self, client: SocketAddr, request: Request) -> impl Future<Output = ()> + Send + use<> {
        let (address, events) = (self.address, self.events.clone());
        let machine = machine_at(&self.table, client.ip());
        async move {
            let Request { file, content, negotiated } = request;
            let bytes = content.len() as u64;
            let (block_size, window) = (negotiated.block_size, negotiated.window);
            let started = EventKind::TftpStarted { client: client.ip(), file: file.clone(), bytes, block_size, window };
            events.emit(machine.as_deref(), started);
            let begin = std::time::Instant::now();
            let sent = match UdpSocket::bind((address, 0)).await {
                Ok(socket) => transfer::send(&socket, client, content, &negotiated).await,
                Err(error) => Err(transfer::TransferError::Socket(error)),
            };
            let kind = match sent {
                Ok(retransmits) => {
                    let seconds = begin.elapsed().as_secs_f64();
                    EventKind::TftpDone { client: client.ip(), file, bytes, seconds, retransmits }
                }
                Err(error) => EventKind::TftpFailed { client: client.ip(), file, error: crate::error::chain(&error) },
            };
            events.emit(machine.as_deref(), kind);
        }
    }
}

/// A request that is taken.
struct Request {
    file: String,
    content: Bytes,
    negotiated: Negotiated,
}

/// A request that is not.
struct Refusal {
    file: String,
    code: ErrorCode,
    message: String,
}

fn machine_at(table: &BootTable, client: IpAddr) -> Option<String> {
    match client {
        IpAddr::V4(address) => table.by_address(address).map(|entry| entry.machine),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
