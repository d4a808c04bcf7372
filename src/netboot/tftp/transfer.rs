//! One file to one client: windows of blocks, each sent again until it is acknowledged.

use super::options::Negotiated;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tftpd::{ErrorCode, Packet};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Sendings of one packet before the client counts as gone.
const TRIES: u32 = 6;
/// Longest wait between two of them, unless the client asked for more.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A transfer that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The client stopped answering.
    #[error("no answer after {TRIES} sendings of {what}")]
    Silent {
        /// What was sent.
        what: String,
    },
    /// The client gave up; firmware does so on purpose after it has asked for a file's size.
    #[error("the client ended it: {code}, {message}")]
    Client {
        /// Its error code.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// A packet cannot be sent or received.
    #[error("the socket broke")]
    Socket(#[source] io::Error),
    /// A packet cannot be built.
    #[error("a packet cannot be built: {0}")]
    Packet(&'static str),
}

/// Sends `content` to `client`; returns how many packets had to be sent again.
pub async fn send(
    socket: &UdpSocket,
    client: SocketAddr,
    content: Bytes,
    negotiated: &Negotiated,
) -> Result<u64, TransferError> {
    let mut transfer = Transfer { socket, client, content, negotiated, retransmits: 0 };
    if !negotiated.granted.is_empty() {
        transfer.acknowledge_options().await?;
    }
    transfer.send_blocks().await?;
    Ok(transfer.retransmits)
}

struct Transfer<'a> {
    socket: &'a UdpSocket,
    client: SocketAddr,
    content: Bytes,
    negotiated: &'a Negotiated,
    retransmits: u64,
}

impl Transfer<'_> {
    /// The OACK, until it is acknowledged as block 0 (RFC 2347).
    async fn acknowledge_options(&mut self) -> Result<(), TransferError> {
        let packet = Packet::Oack(self.negotiated.acknowledgement()).serialize().map_err(TransferError::Packet)?;
        for tries in 0..TRIES {
            self.retransmits += u64::from(tries > 0);
            self.transmit(&packet).await?;
            let deadline = Instant::now() + self.wait(tries);
            while let Some(block) = self.acknowledged(deadline).await? {
                if block == 0 {
                    return Ok(());
                }
            }
        }
        Err(TransferError::Silent { what: String::from("the options") })
    }

    /// All blocks; the last is shorter than the others, and may be empty (RFC 1350, 6).
    async fn send_blocks(&mut self) -> Result<(), TransferError> {
        let blocks = (self.content.len() / usize::from(self.negotiated.block_size)) as u64 + 1;
        let window = u64::from(self.negotiated.window);
        // Blocks acknowledged, and blocks sent at least once.
        let (mut base, mut sent) = (0, 0);
        let mut tries = 0;
        while base < blocks {
            let end = (base + window).min(blocks);
            for block in base + 1..=end {
                self.retransmits += u64::from(block <= sent);
                self.transmit(&self.block(block)?).await?;
            }
            sent = sent.max(end);
            match self.progress(base, end, tries).await? {
                Some(acknowledged) => (base, tries) = (acknowledged, 0),
                None => tries += 1,
            }
            if tries == TRIES {
                return Err(TransferError::Silent { what: format!("block {}", base + 1) });
            }
        }
        Ok(())
    }

    /// Waits for an acknowledgement of a block after `base`, up to `end`; `None` if it does not come in time.
    ///
    /// A repeated acknowledgement of `base` is not answered: both sides answering each other's repeats would double every
    /// packet from there on (RFC 1123, 4.2.3.1). One in the middle of a window means that the rest was lost, and it is
    /// sent again at once (RFC 7440, 4).
    async fn progress(&self, base: u64, end: u64, tries: u32) -> Result<Option<u64>, TransferError> {
        let deadline = Instant::now() + self.wait(tries);
        while let Some(block) = self.acknowledged(deadline).await? {
            // Block numbers are 16 bits wide and roll over to 0.
            let ahead = u64::from(block.wrapping_sub(base as u16));
            if (1..=end - base).contains(&ahead) {
                return Ok(Some(base + ahead));
            }
        }
        Ok(None)
    }

    fn wait(&self, tries: u32) -> Duration {
        let first = self.negotiated.timeout;
        (first * 2u32.pow(tries)).min(LONGEST_WAIT.max(first))
    }

    /// Block `number`, counted from 1.
    fn block(&self, number: u64) -> Result<Vec<u8>, TransferError> {
        let size = usize::from(self.negotiated.block_size);
        let start = (number as usize - 1) * size;
        let data = self.content[start..self.content.len().min(start + size)].to_vec();
        Packet::Data { block_num: number as u16, data }.serialize().map_err(TransferError::Packet)
    }

    async fn transmit(&self, packet: &[u8]) -> Result<(), TransferError> {
        self.socket.send_to(packet, self.client).await.map(drop).map_err(TransferError::Socket)
    }

    /// The next acknowledgement of our client before `deadline`.
    async fn acknowledged(&self, deadline: Instant) -> Result<Option<u16>, TransferError> {
        let mut buffer = [0u8; 600];
        loop {
            let Ok(received) = timeout_at(deadline, self.socket.recv_from(&mut buffer)).await else { return Ok(None) };
            let (length, from) = match received {
                Ok(received) => received,
                // The kernel reports a port that is closed on the next call; the client may have moved on, or be gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(TransferError::Socket(error)),
            };
            if from != self.client {
                // A stranger on this port: told so, and the transfer goes on (RFC 1350, 4).
                let unknown = Packet::Error { code: ErrorCode::UnknownId, msg: String::from("unknown transfer") };
                if let Ok(bytes) = unknown.serialize() {
                    let _ = self.socket.send_to(&bytes, from).await;
                }
                continue;
            }
            match Packet::deserialize(&buffer[..length]) {
                Ok(Packet::Ack(block)) => return Ok(Some(block)),
                Ok(Packet::Error { code, msg }) => return Err(TransferError::Client { code, message: msg }),
                _ => {}
            }
        }
    }
}
