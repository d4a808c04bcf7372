//! What was last seen of each machine on the wire, and what its silence usually means.
//!
//! Kept in memory on purpose: a run that is resumed starts listening anew, and says so rather than repeat old news.

use crate::event::{Event, EventKind};
use crate::hardware::MacAddr;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

/// How far a machine has come on its way from power-on to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetbootStage {
    /// Nothing was heard.
    #[default]
    Silent,
    /// It asked for an address.
    Dhcp,
    /// It fetched a boot program.
    Tftp,
    /// iPXE fetched its script.
    Script,
    /// iPXE fetched the kernel or the initramfs.
    Kernel,
    /// The agent called.
    Agent,
}

impl NetbootStage {
    /// What a silence after this stage usually means.
    pub fn diagnosis(self, mac: MacAddr, silence: Duration) -> String {
        let seconds = silence.as_secs();
        match self {
            Self::Silent => format!(
                "no DHCP DISCOVER from {mac} for {seconds} s: is it set to network boot, is this its first interface, and \
                 is its port in the provisioning network?"
            ),
            Self::Dhcp => format!(
                "{mac} asked for an address but fetched no boot file for {seconds} s: does another DHCP server answer it, \
                 or does a firewall drop UDP 69 or the HTTP port?"
            ),
            Self::Tftp => format!(
                "{mac} loaded iPXE but asked for no script for {seconds} s: iPXE may lack a driver for this interface, or \
                 a firewall drops the HTTP port; its screen shows iPXE's error"
            ),
            Self::Script => format!(
                "{mac} has its boot script but fetched no kernel for {seconds} s: see its screen for iPXE's error"
            ),
            Self::Kernel => format!(
                "{mac} loaded kernel and initramfs, but the agent has not called for {seconds} s: a driver for its \
                 interface may be missing from the initramfs, or it has too little memory; see its console"
            ),
            Self::Agent => format!("the agent on {mac} has been silent for {seconds} s: see its console"),
        }
    }
}

/// The last thing seen of a machine.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// What, in words.
    pub what: String,
    /// The furthest stage since the machine was powered on.
    pub stage: NetbootStage,
}

/// What was last seen of each machine. All clones are one record.
#[derive(Clone, Debug, Default)]
pub struct Sightings(Arc<Mutex<HashMap<String, Seen>>>);

impl Sightings {
    /// The last thing seen of `machine` since it was powered on, if anything was.
    pub fn of(&self, machine: &str) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(machine).cloned()
    }

    /// Starts anew for a machine that is powered on now.
    pub fn forget(&self, machine: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
    }

    /// Reads events until `cancel` is cancelled.
    pub async fn follow(self, mut events: Receiver<Event>, cancel: CancellationToken) {
        while let Some(received) = cancel.run_until_cancelled(events.recv()).await {
            match received {
                Ok(event) => self.note(&event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Takes note of one event.
    pub fn note(&self, event: &Event) {
        let (Some(machine), Some((stage, what))) = (&event.machine, sighting(&event.kind)) else { return };
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = record.get(machine).map_or(stage, |seen| seen.stage.max(stage));
        record.insert(machine.clone(), Seen { at: Instant::now(), what, stage });
    }
}

/// What an event shows of the machine itself, if it shows anything.
fn sighting(kind: &EventKind) -> Option<(NetbootStage, String)> {
    Some(match kind {
        EventKind::Dhcp { message, .. } => (NetbootStage::Dhcp, format!("DHCP {message}")),
        EventKind::TftpStarted { file, .. } => (NetbootStage::Tftp, format!("TFTP request for {file}")),
        EventKind::TftpDone { file, .. } => (NetbootStage::Tftp, format!("TFTP transfer of {file}")),
        EventKind::TftpFailed { file, error, .. } => (NetbootStage::Dhcp, format!("failed TFTP of {file}: {error}")),
        EventKind::BootScript { .. } => (NetbootStage::Script, String::from("iPXE's boot script")),
        EventKind::Http { path, status, .. } if path.starts_with("/artifacts/boot/") => {
            (NetbootStage::Kernel, format!("HTTP {status} for {path}"))
        }
        EventKind::Http { path, status, .. } => (NetbootStage::Dhcp, format!("HTTP {status} for {path}")),
        EventKind::AgentClaimed { .. } => (NetbootStage::Agent, String::from("the agent's first call")),
        EventKind::AgentStep { step, .. } | EventKind::AgentProgress { step, .. } => {
            (NetbootStage::Agent, format!("the agent's step {step}"))
        }
        EventKind::AgentRefused { error, .. } => (NetbootStage::Kernel, format!("an agent turned away: {error}")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_explained_by_the_furthest_stage() {
        let sightings = Sightings::default();
        assert!(sightings.of("node-1").is_none());
        let mac = MacAddr([0x52, 0x54, 0, 0xaa, 0, 2]);
        sightings.note(&Event::of("node-1", EventKind::BootScript { client: [10, 0, 0, 2].into(), mac }));
        sightings.note(&Event::of("node-1", EventKind::Power { action: "on".into(), bmc: "b".into(), error: None }));
        let seen = sightings.of("node-1").unwrap();
        assert_eq!((seen.stage, seen.what.as_str()), (NetbootStage::Script, "iPXE's boot script"));
        assert!(
            NetbootStage::Silent
                .diagnosis(mac, Duration::from_secs(120))
                .starts_with("no DHCP DISCOVER from 52:54:00:aa:00:02 for 120 s")
        );
        sightings.forget("node-1");
        assert!(sightings.of("node-1").is_none());
    }
}
