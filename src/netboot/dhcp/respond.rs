//! The decision: what a DHCP message is answered with, and where the answer goes. No socket, no clock.

use super::client::{BootClass, Client, ClientArch};
use crate::hardware::MacAddr;
use crate::netboot::{BootEntry, BootTable};
use crate::spec::DhcpMode;
use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// How long an address is given for, in seconds: longer than an installation, shorter than a day's rearranging.
const LEASE: u32 = 3600;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// What the server is.
#[derive(Clone, Debug)]
pub struct DhcpConfig {
    /// Interface that it listens on.
    pub interface: String,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// Port of our HTTP server.
    pub http_port: u16,
    /// Reservation or proxy; with `External` no server runs.
    pub mode: DhcpMode,
}

/// Which of our ports a message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// 67.
    Dhcp,
    /// 4011: a PXE client asks the proxy that it chose (PXE 2.1, 2.2.3).
    Proxy,
}

impl Service {
    /// Its UDP port.
    pub fn port(self) -> u16 {
        match self {
            Self::Dhcp => SERVER_PORT,
            Self::Proxy => 4011,
        }
    }
}

/// What became of a message.
#[derive(Debug)]
pub enum Verdict {
    /// It is answered, to this address.
    Reply(Box<Message>, SocketAddrV4),
    /// It is not, for this reason.
    Ignore(String),
}

/// One message and what became of it.
#[derive(Debug)]
pub struct Exchange {
    /// Who sent it.
    pub mac: MacAddr,
    /// The machine, if it is ours.
    pub machine: Option<String>,
    /// What was sent.
    pub message: MessageType,
    /// What the client is.
    pub client: Client,
    /// The address it was given.
    pub address: Option<Ipv4Addr>,
    /// The boot program it was given.
    pub boot_file: Option<String>,
    /// The answer.
    pub verdict: Verdict,
}

/// A message type as the RFC writes it, without its `DHCP`.
pub fn name(message: MessageType) -> String {
    format!("{message:?}").to_uppercase()
}

/// The address that the client of a REQUEST will have if it is granted, by whichever server.
pub fn wanted(message: &Message) -> Option<Ipv4Addr> {
    let held = Some(message.ciaddr()).filter(|address| !address.is_unspecified());
    held.or_else(|| asked(message)).filter(|_| message.opts().msg_type() == Some(MessageType::Request))
}

/// Option 50.
fn asked(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => None,
    }
}

/// The client that a message is of, and what it says. `None`: not a client's message at all (BOOTP, another server's answer,
/// no Ethernet).
pub fn sender(message: &Message) -> Option<(MacAddr, MessageType)> {
    // The length before the address: dhcproto cuts the address to a length that it has not checked.
    if message.opcode() != Opcode::BootRequest || message.htype() != HType::Eth || message.hlen() != 6 {
        return None;
    }
    Some((MacAddr(message.chaddr().try_into().ok()?), message.opts().msg_type()?))
}

/// Decides. `None`: not a client's message at all (BOOTP, another server's answer, no Ethernet).
pub fn respond(
    config: &DhcpConfig,
    table: &BootTable,
    service: Service,
    message: &Message,
    source: SocketAddrV4,
) -> Option<Exchange> {
    let (mac, kind) = sender(message)?;
    let client = Client::of(message.opts());
    let entry = table.get(mac);
    let machine = entry.as_ref().map(|entry| entry.machine.clone());
    let mut exchange = Exchange {
        mac,
        machine,
        message: kind,
        client,
        address: None,
        boot_file: None,
        verdict: Verdict::Ignore(String::from("this MAC address is not in the inventory")),
    };
    let Some(entry) = entry else { return Some(exchange) };
    let conversation = Conversation { config, service, message, client: exchange.client.clone(), entry: &entry };
    let answer = if !entry.installing {
        Err(String::from("the machine is not being installed now"))
    } else if config.mode == DhcpMode::Proxy {
        conversation.as_proxy(kind)
    } else {
        conversation.as_server(kind)
    };
    exchange.verdict = match answer {
        Err(reason) => Verdict::Ignore(reason),
        Ok(answer) => {
            let reply = conversation.message(&answer);
            exchange.address = Some(reply.yiaddr()).filter(|address| !address.is_unspecified());
            exchange.boot_file = reply.fname_str().and_then(Result::ok).map(str::to_owned);
            let to = conversation.destination(&answer, source);
            Verdict::Reply(Box::new(reply), to)
        }
    };
    Some(exchange)
}

/// What kind of answer is given.
struct Answer {
    kind: MessageType,
    /// The client's address; unspecified where none is given.
    address: Ipv4Addr,
    /// Whether the lease's times are told.
    lease: bool,
    /// For a NAK: why.
    reason: Option<String>,
}

/// One message of a machine of ours that is being installed.
struct Conversation<'a> {
    config: &'a DhcpConfig,
    service: Service,
    message: &'a Message,
    client: Client,
    entry: &'a BootEntry,
}

impl Conversation<'_> {
    /// Reservation mode (RFC 2131, 4.3).
    fn as_server(&self, kind: MessageType) -> Result<Answer, String> {
        let reserved = self.entry.address.addr();
        let give = |kind| Ok(Answer { kind, address: reserved, lease: true, reason: None });
        match kind {
            MessageType::Discover => give(MessageType::Offer),
            MessageType::Request => self.request(reserved),
            // Its network is being set up by hand: it wants everything but an address (4.3.5).
            MessageType::Inform => {
                Ok(Answer { kind: MessageType::Ack, address: Ipv4Addr::UNSPECIFIED, lease: false, reason: None })
            }
            MessageType::Decline => Err(format!(
                "the machine says that another host has {}: find it, or change the CSV",
                asked(self.message).unwrap_or(reserved)
            )),
            MessageType::Release => Err(String::from("a release needs no answer")),
            other => Err(format!("{} is not a client's message", name(other))),
        }
    }

    /// DHCPREQUEST by the client's state (4.3.2).
    fn request(&self, reserved: Ipv4Addr) -> Result<Answer, String> {
        let ciaddr = self.message.ciaddr();
        let server = match self.message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
            _ => None,
        };
        let (state, wanted) = match (server, asked(self.message), ciaddr.is_unspecified()) {
            (Some(server), _, _) if server != self.config.address => {
                return Err(format!("the machine chose another DHCP server, {server}; is that one meant to be here?"));
            }
            (Some(_), asked, _) => ("selecting", asked.unwrap_or(ciaddr)),
            (None, Some(asked), true) => ("init-reboot", asked),
            (None, _, false) => ("renewing or rebinding", ciaddr),
            (None, None, true) => return Err(String::from("a request for no address")),
        };
        if wanted == reserved {
            return Ok(Answer { kind: MessageType::Ack, address: reserved, lease: true, reason: None });
        }
        let reason = format!("{state}: {wanted} is not this machine's address, which is {reserved}");
        Ok(Answer { kind: MessageType::Nak, address: Ipv4Addr::UNSPECIFIED, lease: false, reason: Some(reason) })
    }

    /// Proxy mode: boot programs for boot clients, and nothing else (PXE 2.1, 2.2).
    fn as_proxy(&self, kind: MessageType) -> Result<Answer, String> {
        if self.client.boot.is_none() && !self.client.ipxe {
            return Err(String::from("not a boot client: its address is the other DHCP server's business"));
        }
        let boot = |kind| Ok(Answer { kind, address: Ipv4Addr::UNSPECIFIED, lease: false, reason: None });
        match (kind, self.service) {
            (MessageType::Discover, _) => boot(MessageType::Offer),
            (MessageType::Request | MessageType::Inform, Service::Proxy) => boot(MessageType::Ack),
            (MessageType::Inform, Service::Dhcp) => boot(MessageType::Ack),
            (other, _) => Err(format!("{} is the other DHCP server's business", name(other))),
        }
    }

    fn message(&self, answer: &Answer) -> Message {
        let asked = self.message;
        let mut reply = Message::default();
        reply.set_opcode(Opcode::BootReply).set_xid(asked.xid()).set_flags(asked.flags());
        reply.set_giaddr(asked.giaddr()).set_chaddr(asked.chaddr());
        let options = reply.opts_mut();
        options.insert(DhcpOption::MessageType(answer.kind));
        options.insert(DhcpOption::ServerIdentifier(self.config.address));
        // Echoed for relays (RFC 3046, 2.2) and clients (RFC 6842; RFC 4578, 2.3).
        for code in
            [OptionCode::RelayAgentInformation, OptionCode::ClientIdentifier, OptionCode::ClientMachineIdentifier]
        {
            if let Some(option) = asked.opts().get(code) {
                options.insert(option.clone());
            }
        }
        if answer.kind == MessageType::Nak {
            options.insert(DhcpOption::Message(answer.reason.clone().unwrap_or_default()));
            // So that the relay broadcasts it: the client has no address of this network (RFC 2131, 4.3.2).
            if !asked.giaddr().is_unspecified() {
                reply.set_flags(Flags::default().set_broadcast());
            }
            return reply;
        }
        reply.set_yiaddr(answer.address);
        if answer.kind == MessageType::Ack {
            reply.set_ciaddr(asked.ciaddr());
        }
        if answer.lease {
            let options = reply.opts_mut();
            options.insert(DhcpOption::AddressLeaseTime(LEASE));
            options.insert(DhcpOption::Renewal(LEASE / 2));
            options.insert(DhcpOption::Rebinding(LEASE / 8 * 7));
        }
        if self.config.mode != DhcpMode::Proxy {
            self.describe_network(&mut reply);
        }
        self.describe_boot(&mut reply);
        reply
    }

    fn describe_network(&self, reply: &mut Message) {
        let entry = self.entry;
        let options = reply.opts_mut();
        options.insert(DhcpOption::SubnetMask(entry.address.netmask()));
        options.insert(DhcpOption::BroadcastAddr(entry.address.broadcast()));
        options.insert(DhcpOption::Router(vec![entry.gateway]));
        options.insert(DhcpOption::Hostname(entry.machine.clone()));
        let resolvers = entry.nameservers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        });
        let resolvers: Vec<Ipv4Addr> = resolvers.collect();
        if !resolvers.is_empty() {
            options.insert(DhcpOption::DomainNameServer(resolvers));
        }
    }

    /// The boot program, in the header's fields and in options 66 and 67: firmware reads the one or the other.
    fn describe_boot(&self, reply: &mut Message) {
        let Some(file) = self.boot_file() else { return };
        let us = self.config.address;
        reply.set_siaddr(us).set_fname_str(&file);
        let options = reply.opts_mut();
        options.insert(DhcpOption::BootfileName(file.into_bytes()));
        options.insert(DhcpOption::TFTPServerName(us.to_string().into_bytes()));
        match self.client.boot {
            Some(BootClass::Pxe) => {
                options.insert(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
                // PXE_DISCOVERY_CONTROL 8: no server discovery, just load the file (PXE 2.1, table 2-1).
                options.insert(DhcpOption::VendorExtensions(vec![6, 1, 8, 255]));
            }
            // UEFI 2.10, 24.7.2: without the echo the firmware takes this for no answer to HTTP boot.
            Some(BootClass::Http) => drop(options.insert(DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()))),
            None => {}
        }
    }

    /// What this client loads next.
    fn boot_file(&self) -> Option<String> {
        let base = format!("http://{}:{}", self.config.address, self.config.http_port);
        if self.client.ipxe {
            return Some(format!("{base}/boot/{}/boot.ipxe", self.entry.mac));
        }
        let file = match (self.client.boot?, self.client.arch?) {
            (BootClass::Pxe, ClientArch::Bios) => String::from("ipxe/undionly.kpxe"),
            // iPXE over the firmware's own driver: what started the machine works, and it is a third of the size.
            (BootClass::Pxe, ClientArch::UefiX64) => String::from("ipxe/amd64/snponly.efi"),
            (BootClass::Pxe, ClientArch::UefiArm64) => String::from("ipxe/arm64/ipxe.efi"),
            (BootClass::Http, ClientArch::HttpX64 | ClientArch::UefiX64) => format!("{base}/ipxe/amd64/snponly.efi"),
            (BootClass::Http, ClientArch::HttpArm64 | ClientArch::UefiArm64) => format!("{base}/ipxe/arm64/ipxe.efi"),
            _ => return None,
        };
        Some(file)
    }

    /// Where the answer goes (RFC 2131, 4.1).
    ///
    /// The RFC lets a server unicast to the address that it has just given, which takes an ARP entry or a raw frame for a
    /// client that does not answer ARP yet; a broadcast is allowed instead, and works for every client.
    fn destination(&self, answer: &Answer, source: SocketAddrV4) -> SocketAddrV4 {
        let asked = self.message;
        if !asked.giaddr().is_unspecified() {
            SocketAddrV4::new(asked.giaddr(), SERVER_PORT)
        } else if self.service == Service::Proxy && !source.ip().is_unspecified() {
            source
        } else if answer.kind != MessageType::Nak && !asked.ciaddr().is_unspecified() {
            SocketAddrV4::new(asked.ciaddr(), CLIENT_PORT)
        } else {
            SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT)
        }
    }
}
