//! Machines that boot from the network are given the agent, which tells what they are and switches them off.
//!
//! The servers are those of an installation; that none follows is said three times over: their boot script names the task,
//! the agent then asks for no work order, and [`Desk`] would give it none.

use super::{AddressRange, DiscoverError, Found, News, Seen, over};
use crate::agent::protocol::{Claim, Report, Task, WorkOrder};
use crate::event::EventBus;
use crate::hardware::{Arch, BootMode, Facts, MacAddr};
use crate::image::manifest::{Artifact, Kind, Manifest};
use crate::netboot::dhcp::{DhcpConfig, DhcpServer, Heard};
use crate::netboot::http::{HttpConfig, HttpServer, ServedFile};
use crate::netboot::installations::{InstallationError, Installations};
use crate::netboot::tftp::{TftpConfig, TftpServer};
use crate::netboot::{BootEntry, BootTable};
use crate::pki::{Authority, LeafRequest, Usage};
use crate::secret::Secret;
use crate::spec::DhcpMode;
use crate::workflow::network;
use async_trait::async_trait;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TFTP_PORT: u16 = 69;
/// Nobody discovers for longer.
const CERTIFICATE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Messages that may wait to be read.
const WAITING: usize = 1024;
/// What a machine loads before and as the agent.
const BOOT: [Kind; 6] =
    [Kind::IpxeBios, Kind::IpxeUefi, Kind::IpxeUefiSnp, Kind::AgentKernel, Kind::AgentInitramfs, Kind::Agent];

/// How machines are started.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Our interface in the machines' network.
    pub interface: String,
    /// Addresses that they may have meanwhile.
    pub addresses: AddressRange,
    /// Beside another DHCP server: only the boot programs are ours.
    pub proxy: bool,
    /// Machines that may be started; where none are named, all that boot from the network.
    pub only: Vec<MacAddr>,
    /// Where kernel and agent lie.
    pub artifacts: PathBuf,
    /// Port of the plain HTTP server.
    pub http_port: u16,
    /// Port of the agent's API.
    pub agent_port: u16,
}

/// What a machine's agent did.
#[derive(Debug)]
enum Sign {
    /// It has its boot script.
    Started(MacAddr),
    /// It told what the machine is.
    Told(MacAddr, Box<Facts>),
}

impl Boot {
    /// Starts machines until `cancel`, or for `limit`; `say` is told what happens.
    pub async fn discover(
        self,
        limit: Option<Duration>,
        cancel: &CancellationToken,
        mut say: impl FnMut(News, &Found),
    ) -> Result<Vec<Found>, DiscoverError> {
        let ours = network::address_of(&self.interface)?;
        let end = limit.map(|limit| Instant::now() + limit);
        let table = BootTable::default();
        let ((heard, mut hears), (signs, mut signed)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
        let desk = Arc::new(Desk { table: table.clone(), tokens: Mutex::default(), signs });
        let stop = CancellationToken::new();
        let mut services = self.serve(ours, &table, desk, heard, &stop).await?;
        let mut guests = Guests { free: Box::new(self.addresses.free(vec![ours])), ours, table, only: self.only };
        let mut seen = Seen::default();
        let ended = loop {
            tokio::select! {
                Some(message) = hears.recv() => {
                    guests.admit(&message);
                    seen.hear(message, &mut say);
                }
                Some(sign) = signed.recv() => match sign {
                    Sign::Started(mac) => seen.started(mac, &mut say),
                    Sign::Told(mac, facts) => seen.told(mac, *facts, &mut say),
                },
                Some(ended) = services.join_next() => break ended?,
                () = over(end, cancel) => break Ok(()),
            }
        };
        stop.cancel();
        while services.join_next().await.is_some() {}
        ended.map(|()| seen.into_list())
    }

    /// Starts DHCP, TFTP and HTTP.
    async fn serve(
        &self,
        address: Ipv4Addr,
        table: &BootTable,
        desk: Arc<Desk>,
        heard: mpsc::Sender<Heard>,
        stop: &CancellationToken,
    ) -> Result<JoinSet<Result<(), DiscoverError>>, DiscoverError> {
        let artifacts = files(&self.artifacts)?;
        let programs = artifacts.iter().filter(|(path, _)| path.starts_with("ipxe/"));
        let programs = programs.map(|(path, file)| (path.clone(), file.path.clone())).collect();
        let identity = Authority::new("metalgate discover CA")?.issue(&LeafRequest {
            common_name: String::from("metalgate agent API"),
            organizations: Vec::new(),
            dns_names: Vec::new(),
            addresses: vec![IpAddr::V4(address)],
            usage: Usage::Server,
            lifetime: CERTIFICATE,
        })?;
        let (http_port, agent_port) = (self.http_port, self.agent_port);
        let (images, task) = (BTreeMap::new(), Task::Inventory);
        let config = HttpConfig { address, http_port, agent_port, identity, task, artifacts, images };
        let events = EventBus::default();
        let http = HttpServer::bind(config, table.clone(), desk, events.clone()).await?;
        let autoexec = http.autoexec()?.into();
        let config = TftpConfig { address, port: TFTP_PORT, files: programs, autoexec };
        let tftp = TftpServer::bind(config, table.clone(), events.clone()).await?;
        let mode = if self.proxy { DhcpMode::Proxy } else { DhcpMode::Reservation };
        let config = DhcpConfig { interface: self.interface.clone(), address, http_port, mode };
        let dhcp = DhcpServer::bind(config, table.clone(), events)?.telling(heard);
        let mut services = JoinSet::new();
        let stops = [stop.clone(), stop.clone(), stop.clone()];
        let [http_stop, tftp_stop, dhcp_stop] = stops;
        services.spawn(async move { Ok(http.run(http_stop).await?) });
        services.spawn(async move { Ok(tftp.run(tftp_stop).await?) });
        services.spawn(async move { Ok(dhcp.run(dhcp_stop).await?) });
        Ok(services)
    }
}

/// What machines load, checked.
fn files(dir: &std::path::Path) -> Result<BTreeMap<String, ServedFile>, DiscoverError> {
    let manifest = Manifest::load(dir)?;
    for kind in BOOT {
        manifest.find(kind, Arch::Amd64)?;
    }
    let is_wanted = |artifact: &Artifact| BOOT.contains(&artifact.kind);
    manifest.verify(is_wanted, |_, _| {})?;
    let file = |artifact: &Artifact| ServedFile { path: manifest.path_of(artifact), sha256: artifact.sha256.clone() };
    let wanted = manifest.artifacts.iter().filter(|artifact| is_wanted(artifact));
    Ok(wanted.map(|artifact| (artifact.path.clone(), file(artifact))).collect())
}

/// Who is answered, and with which address.
struct Guests {
    free: Box<dyn Iterator<Item = Ipv4Net> + Send>,
    ours: Ipv4Addr,
    table: BootTable,
    only: Vec<MacAddr>,
}

impl Guests {
    /// Lets a machine that wants to boot from the network in; its next message is answered. Others are only heard.
    fn admit(&mut self, heard: &Heard) {
        let allowed = self.only.is_empty() || self.only.contains(&heard.mac);
        if !heard.client.boots() || !allowed || self.table.get(heard.mac).is_some() {
            return;
        }
        let Some(address) = self.free.next() else {
            return tracing::warn!("no address is left for {}: give --addresses a larger range", heard.mac);
        };
        let machine = heard.client.arch.and_then(|arch| arch.machine());
        let (arch, boot_mode) = machine.unwrap_or((Arch::Amd64, BootMode::Uefi));
        self.table.set(BootEntry {
            machine: heard.mac.to_string().replace(':', "-"),
            mac: heard.mac,
            address,
            // They need no other network.
            gateway: self.ours,
            nameservers: Vec::new(),
            arch,
            boot_mode,
            installing: true,
        });
    }
}

/// The agents' API where nothing is installed.
struct Desk {
    table: BootTable,
    /// By MAC address.
    tokens: Mutex<HashMap<MacAddr, Secret<String>>>,
    signs: mpsc::Sender<Sign>,
}

impl Desk {
    fn tell(&self, sign: Sign) -> Result<(), InstallationError> {
        self.signs.try_send(sign).map_err(|error| InstallationError::Store(Box::new(error)))
    }
}

#[async_trait]
impl Installations for Desk {
    async fn mint_token(&self, machine: &str) -> Result<Secret<String>, InstallationError> {
        let mac: MacAddr = machine.parse().map_err(|_| InstallationError::NotInstalling(machine.to_owned()))?;
        let token = Secret::random();
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(mac, token.clone());
        self.tell(Sign::Started(mac))?;
        Ok(token)
    }

    async fn claim(&self, _: Claim) -> Result<WorkOrder, InstallationError> {
        Err(InstallationError::Refused)
    }

    async fn inventory(&self, claim: Claim) -> Result<(), InstallationError> {
        let entry = self.table.get(claim.mac).ok_or(InstallationError::Refused)?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.get(&claim.mac) != Some(&claim.token) {
            return Err(InstallationError::Refused);
        }
        self.tell(Sign::Told(claim.mac, Box::new(claim.facts)))?;
        tokens.remove(&claim.mac);
        // Started again, it falls through to its disk.
        self.table.set(BootEntry { installing: false, ..entry });
        Ok(())
    }

    async fn report(&self, _: &Secret<String>, _: Report) -> Result<(), InstallationError> {
        Err(InstallationError::Refused)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::agent::facts;
    use crate::netboot::dhcp::{BootClass, Client, ClientArch};

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xaa, 0, 1]);

    fn heard(mac: MacAddr, boot: Option<BootClass>) -> Heard {
        let client = Client { class: None, boot, arch: Some(ClientArch::Bios), ipxe: false, uuid: None };
        Heard { mac, message: String::from("DISCOVER"), client }
    }

    fn guests(only: Vec<MacAddr>) -> Guests {
        let free = "10.0.0.20-10.0.0.21/24".parse::<AddressRange>().unwrap().free(vec![[10, 0, 0, 20].into()]);
        Guests { free: Box::new(free), ours: [10, 0, 0, 20].into(), table: BootTable::default(), only }
    }

    #[test]
    fn only_machines_that_boot_from_the_network_are_let_in_while_there_are_addresses() {
        let (mut guests, other) = (guests(Vec::new()), MacAddr([2, 0, 0, 0, 0, 9]));
        guests.admit(&heard(MAC, None));
        assert_eq!(guests.table.get(MAC), None);
        guests.admit(&heard(MAC, Some(BootClass::Pxe)));
        let entry = guests.table.get(MAC).unwrap();
        assert_eq!((entry.address.to_string().as_str(), entry.boot_mode), ("10.0.0.21/24", BootMode::Bios));
        guests.admit(&heard(other, Some(BootClass::Pxe)));
        assert_eq!(guests.table.get(other), None);
        // Where some are named, no other is.
        let mut guests = super::tests::guests(vec![other]);
        guests.admit(&heard(MAC, Some(BootClass::Pxe)));
        assert_eq!(guests.table.get(MAC), None);
    }

    #[tokio::test]
    async fn a_machine_tells_what_it_is_once_and_gets_no_work_order() {
        let mut guests = guests(Vec::new());
        guests.admit(&heard(MAC, Some(BootClass::Pxe)));
        let (signs, mut signed) = mpsc::channel(8);
        let desk = Desk { table: guests.table.clone(), tokens: Mutex::default(), signs };
        let facts = || facts::gather(std::path::Path::new("/nonexistent"));
        let claim = |token: &Secret<String>| Claim { token: token.clone(), mac: MAC, facts: facts() };
        let token = desk.mint_token("52-54-00-aa-00-01").await.unwrap();
        assert!(matches!(desk.claim(claim(&token)).await, Err(InstallationError::Refused)));
        assert!(desk.inventory(claim(&Secret::new(String::from("guess")))).await.is_err());
        desk.inventory(claim(&token)).await.unwrap();
        assert!(desk.inventory(claim(&token)).await.is_err());
        assert!(matches!(signed.recv().await, Some(Sign::Started(MAC))));
        assert!(matches!(signed.recv().await, Some(Sign::Told(MAC, _))));
        assert!(!guests.table.get(MAC).unwrap().installing);
    }
}
