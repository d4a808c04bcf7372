//! Events are data: everything that happens to a machine or a run is one [`Event`], and the terminal, the JSON log, object
//! status and the timeline all read the same stream.
//!
//! Fed by every module that does something; read by `workflow` (journal and progress) and `cli` (printing, `status`).

use crate::hardware::{Arch, BootMode, MacAddr};
use crate::preflight::{Finding, Name};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use tokio::sync::broadcast;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the admin machine's clock.
    pub at: Timestamp,
    /// The machine's hostname, where the event concerns a machine of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. New variants go at the end of their group; names are part of the JSON log's interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum EventKind {
    /// A phase of the run began.
    PhaseStarted { phase: String, title: String },
    /// A phase ended well.
    PhaseDone { phase: String, seconds: f64 },
    /// A phase ended the run.
    PhaseFailed { phase: String, error: String },
    /// Part of a long step that concerns no machine (a download, a checksum): bytes so far and in all.
    Progress { what: String, done: u64, total: Option<u64> },
    /// What a preflight check found.
    Checked { check: Name, finding: Finding },
    /// What is done on the gateway, or was seen of it.
    Gateway { detail: String },
    /// The same for what is counted: objects so far and in all.
    Count { what: String, done: u64, total: u64 },

    /// The machine entered a state; the reason says what it waits for.
    State { state: String, reason: String },
    /// An order to a BMC, and how it went (`None`: well).
    Power { action: String, bmc: String, error: Option<String> },
    /// The machine was powered on to be installed.
    PoweredOn,

    /// A DHCP message came in and was answered with `reply`, or was not, because of `ignored`.
    Dhcp {
        mac: MacAddr,
        message: String,
        reply: Option<String>,
        address: Option<Ipv4Addr>,
        client: Option<String>,
        arch: Option<String>,
        boot_file: Option<String>,
        ignored: Option<String>,
    },
    /// A TFTP read request was accepted.
    TftpStarted { client: IpAddr, file: String, bytes: u64, block_size: u16, window: u16 },
    /// A TFTP transfer ended well.
    TftpDone { client: IpAddr, file: String, bytes: u64, seconds: f64, retransmits: u64 },
    /// A TFTP request was refused or a transfer broke.
    TftpFailed { client: IpAddr, file: String, error: String },
    /// A boot script was given out.
    BootScript { client: IpAddr, mac: MacAddr },
    /// An HTTP exchange ended.
    Http { client: IpAddr, method: String, path: String, status: u16, bytes: u64, seconds: f64 },

    /// The agent presented its token and was accepted.
    AgentClaimed { client: IpAddr, arch: Arch, firmware: BootMode, memory_bytes: u64, disks: usize },
    /// The agent was turned away.
    AgentRefused { client: IpAddr, error: String },
    /// The agent began a step.
    AgentStep { step: String, detail: String },
    /// The agent's progress within a step, in bytes.
    AgentProgress { step: String, done: u64, total: Option<u64>, bytes_per_second: u64 },
    /// The image is on the disk and was read back.
    ImageWritten { bytes: u64, seconds: f64, disk: String, sha256: String },
    /// The agent stopped with an error; the machine stays where it is.
    AgentFailed { step: String, error: String },
    /// The agent is about to start the installed system.
    Rebooting { how: String },

    /// An SSH connection was tried and did not work yet.
    SshTried { address: IpAddr, error: String },
    /// The machine answered SSH with the host key that it was given.
    SshVerified { address: IpAddr, fingerprint: String },
    /// Something is done on the installed machine; `detail` is its progress.
    NodeStep { step: String, detail: String },
    /// A step on the installed machine ended well.
    NodeStepDone { step: String, changed: bool },
    /// The machine is a Ready node.
    NodeReady,
    /// The machine is no part of the cluster any more.
    MachineRemoved,
    /// The machine had failed; a spare takes its place.
    MachineReplaced { by: String },
    /// Nothing was heard of the machine for a while; `diagnosis` says what that usually means.
    Stalled { seconds: u64, last: String, diagnosis: String },
    /// The machine cannot go on.
    MachineFailed { error: String },
}

impl Event {
    /// An event of now that concerns no machine.
    pub fn now(kind: EventKind) -> Self {
        Self { at: Timestamp::now(), machine: None, kind }
    }

    /// An event of now that concerns `machine`.
    pub fn of(machine: impl Into<String>, kind: EventKind) -> Self {
        Self { at: Timestamp::now(), machine: Some(machine.into()), kind }
    }
}

/// Where events go in and come out: cheap to clone, never blocks the sender.
///
/// A reader that falls behind by more than the capacity is told how many it missed; the journal reads from its own task
/// and keeps up.
#[derive(Clone, Debug)]
pub struct EventBus(broadcast::Sender<Event>);

impl EventBus {
    /// A bus that holds `capacity` events for readers that are slow.
    pub fn new(capacity: usize) -> Self {
        Self(broadcast::Sender::new(capacity))
    }

    /// Sends `event` to whoever reads; nobody reading is fine.
    pub fn send(&self, event: Event) {
        // An error means only that there is no reader at the moment.
        let _ = self.0.send(event);
    }

    /// An event of now for `machine`, or for none.
    pub fn emit(&self, machine: Option<&str>, kind: EventKind) {
        self.send(Event { at: Timestamp::now(), machine: machine.map(str::to_owned), kind });
    }

    /// A reader of all events from here on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new(16_384)
    }
}
