//! What the network shows of machines that nobody has written down yet: for `metalgate discover` and `generate hardware`.
//!
//! Machines are heard by DHCP ([`netboot::dhcp`](crate::netboot::dhcp)); with [`Boot`] those that boot from the network are
//! started with the agent, which tells what they are and switches them off again ([`boot`]). `bmcs` asks BMCs instead.
//! `hardware` makes an inventory of all that was found; what nobody could tell stays empty there, and `metalgate validate`
//! points to it.

mod addresses;
mod bmcs;
mod boot;
mod hardware;

pub use addresses::{AddressRange, BadRange};
pub use bmcs::{Asked, ask};
pub use boot::Boot;
pub use hardware::{Made, Wanted, make};

use crate::hardware::{Arch, BootMode, Facts, MacAddr};
use crate::image::manifest::ManifestError;
use crate::netboot::dhcp::{DhcpError, Heard, Listener};
use crate::netboot::http::HttpError;
use crate::netboot::tftp::TftpError;
use crate::pki::PkiError;
use crate::workflow::network::{self, NetworkError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A network interface that was heard, and the machine behind it as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its address.
    pub mac: MacAddr,
    /// The machine's UUID by SMBIOS.
    pub uuid: Option<Uuid>,
    /// What the client calls itself (DHCP option 60).
    pub client: Option<String>,
    /// Whether it asked for something to boot.
    pub boots: bool,
    /// The machine's architecture, by what its firmware asks for.
    pub arch: Option<Arch>,
    /// The machine's firmware.
    pub boot_mode: Option<BootMode>,
    /// First message.
    pub first_seen: Timestamp,
    /// Last message.
    pub last_seen: Timestamp,
    /// What the agent found on the machine.
    pub facts: Option<Facts>,
}

/// What happened to one that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was heard for the first time.
    Heard,
    /// It has its boot script: the agent comes next.
    Started,
    /// Its agent told what the machine is.
    Told,
}

/// Nothing can be heard.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The interface.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// DHCP.
    #[error(transparent)]
    Dhcp(#[from] DhcpError),
    /// TFTP.
    #[error(transparent)]
    Tftp(#[from] TftpError),
    /// HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The certificate of the agent's API.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What machines would boot.
    #[error(transparent)]
    Artifacts(#[from] ManifestError),
    /// One of the services panicked.
    #[error("one of the boot services ended")]
    Service(#[from] tokio::task::JoinError),
}

/// Listens on `interface` until `cancel`, or for `limit`; `say` is told what happens. Nobody is answered.
pub async fn listen(
    interface: &str,
    limit: Option<Duration>,
    cancel: &CancellationToken,
    mut say: impl FnMut(News, &Found),
) -> Result<Vec<Found>, DiscoverError> {
    network::known(interface)?;
    let listener = Listener::bind(interface)?;
    let (mut seen, end) = (Seen::default(), limit.map(|limit| Instant::now() + limit));
    loop {
        tokio::select! {
            heard = listener.next() => seen.hear(heard?, &mut say),
            () = over(end, cancel) => return Ok(seen.into_list()),
        }
    }
}

/// Waits for the end of a discovery.
async fn over(end: Option<Instant>, cancel: &CancellationToken) {
    let limit = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! { () = limit => {}, () = cancel.cancelled() => {} }
}

/// All that was found so far.
#[derive(Debug, Default)]
struct Seen(BTreeMap<MacAddr, Found>);

impl Seen {
    fn hear(&mut self, heard: Heard, say: &mut impl FnMut(News, &Found)) {
        let (now, client) = (Timestamp::now(), heard.client);
        let boots = client.boots();
        let machine = client.arch.and_then(|arch| arch.machine());
        let mut is_new = false;
        let found = self.0.entry(heard.mac).or_insert_with(|| {
            is_new = true;
            Found {
                mac: heard.mac,
                uuid: None,
                client: None,
                boots: false,
                arch: None,
                boot_mode: None,
                first_seen: now,
                last_seen: now,
                facts: None,
            }
        });
        // An installed system asks for an address too, and says less of the machine than its firmware did.
        if boots || found.client.is_none() {
            found.client = client.class;
        }
        found.uuid = client.uuid.or(found.uuid);
        found.arch = machine.map(|(arch, _)| arch).or(found.arch);
        found.boot_mode = machine.map(|(_, mode)| mode).or(found.boot_mode);
        let begins_to_boot = boots && !found.boots;
        found.boots |= boots;
        found.last_seen = now;
        if is_new || begins_to_boot {
            say(News::Heard, found);
        }
    }

    fn started(&self, mac: MacAddr, say: &mut impl FnMut(News, &Found)) {
        if let Some(found) = self.0.get(&mac) {
            say(News::Started, found);
        }
    }

    fn told(&mut self, mac: MacAddr, facts: Facts, say: &mut impl FnMut(News, &Found)) {
        if let Some(found) = self.0.get_mut(&mac) {
            (found.arch, found.boot_mode) = (Some(facts.arch), Some(facts.firmware));
            found.last_seen = Timestamp::now();
            found.facts = Some(facts);
            say(News::Told, found);
        }
    }

    /// In the order in which they were heard.
    fn into_list(self) -> Vec<Found> {
        let mut list: Vec<Found> = self.0.into_values().collect();
        list.sort_by_key(|found| found.first_seen);
        list
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::netboot::dhcp::{BootClass, Client, ClientArch};

    fn heard(class: &str, boot: Option<BootClass>, arch: Option<ClientArch>) -> Heard {
        let client = Client { class: Some(class.to_owned()), boot, arch, ipxe: false, uuid: None };
        Heard { mac: MacAddr([2, 0, 0, 0, 0, 1]), message: String::from("DISCOVER"), client }
    }

    #[test]
    fn what_firmware_says_is_kept_when_the_system_on_the_disk_speaks() {
        let (mut seen, mut news) = (Seen::default(), Vec::new());
        let mut say = |what: News, found: &Found| news.push((what, found.boots));
        seen.hear(heard("udhcp 1.36", None, None), &mut say);
        seen.hear(heard("PXEClient:Arch:00007", Some(BootClass::Pxe), Some(ClientArch::UefiX64)), &mut say);
        seen.hear(heard("udhcp 1.36", None, None), &mut say);
        assert_eq!(news, [(News::Heard, false), (News::Heard, true)]);
        let [found] = &seen.into_list()[..] else { panic!("one machine") };
        assert_eq!(found.client.as_deref(), Some("PXEClient:Arch:00007"));
        assert_eq!((found.arch, found.boot_mode, found.boots), (Some(Arch::Amd64), Some(BootMode::Uefi), true));
        assert!(found.last_seen >= found.first_seen);
    }
}
