//! The board: where every machine stands, folded from events. The live display, `metalgate status` and the timeline at
//! the end are all views of it.

use crate::event::{Event, EventKind};
use crate::preflight::{Finding, Name, Verdict};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where a run and its machines stand.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Board {
    /// The phase under way, or the last one.
    pub phase: Option<String>,
    /// Progress of something that concerns no machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The error that ended the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Preflight checks that the last run left out, or could not make, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_checked: BTreeMap<Name, String>,
    /// Machines by hostname.
    pub machines: BTreeMap<String, MachineBoard>,
}

/// How far something is, in bytes, or in objects where it is `counted`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it is.
    pub what: String,
    /// So far.
    pub done: u64,
    /// In all, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Whether it is objects, not bytes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
    /// Speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// Where one machine stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineBoard {
    /// State, as in the MetalMachine's status.
    pub state: String,
    /// What it waits for.
    pub reason: String,
    /// When it entered the state.
    pub since: Timestamp,
    /// Progress within a step of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The last thing seen of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<LastSeen>,
    /// Why it cannot go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it reached what, since it was powered on last.
    pub timeline: Timeline,
}

/// The last thing seen of a machine.
#[derive(Clone, Debug, Serialize)]
pub struct LastSeen {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// Moments on the way from power-on to a Ready node; `None` was not reached, or not seen.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// The BMC took the order to power on.
    pub power_on: Option<Timestamp>,
    /// The first DHCP message that was answered.
    pub dhcp: Option<Timestamp>,
    /// The first TFTP transfer ended.
    pub tftp: Option<Timestamp>,
    /// iPXE fetched its script.
    pub ipxe: Option<Timestamp>,
    /// The kernel was fetched.
    pub kernel: Option<Timestamp>,
    /// The agent was accepted.
    pub agent: Option<Timestamp>,
    /// The image was written and read back.
    pub image: Option<Timestamp>,
    /// Bytes of the image on the disk.
    pub image_bytes: Option<u64>,
    /// Seconds it took to write them.
    pub image_seconds: Option<f64>,
    /// The agent left for the installed system.
    pub reboot: Option<Timestamp>,
    /// The first SSH login with the right host key.
    pub ssh: Option<Timestamp>,
    /// All that kubeadm needs was in place.
    pub prepared: Option<Timestamp>,
    /// kubeadm was done.
    pub joined: Option<Timestamp>,
    /// The node was Ready.
    pub ready: Option<Timestamp>,
}

impl Timeline {
    /// The moments in order, with their names.
    pub fn moments(&self) -> [(&'static str, Option<Timestamp>); 12] {
        [
            ("power on", self.power_on),
            ("DHCP", self.dhcp),
            ("TFTP", self.tftp),
            ("iPXE", self.ipxe),
            ("kernel", self.kernel),
            ("agent", self.agent),
            ("image", self.image),
            ("reboot", self.reboot),
            ("first SSH", self.ssh),
            ("prepared", self.prepared),
            ("joined", self.joined),
            ("Ready", self.ready),
        ]
    }
}

impl MachineBoard {
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            state: String::from("Pending"),
            reason: String::new(),
            since: at,
            progress: None,
            last_seen: None,
            error: None,
            timeline: Timeline::default(),
        }
    }

    fn take(&mut self, at: Timestamp, kind: &EventKind) {
        self.mark(at, kind);
        match kind {
            EventKind::State { state, reason } => {
                if *state != self.state {
                    self.since = at;
                    self.progress = None;
                    if state != "Failed" {
                        self.error = None;
                    }
                }
                (self.state, self.reason) = (state.clone(), reason.clone());
            }
            EventKind::AgentStep { step, detail } => {
                self.progress = None;
                self.reason = format!("{step}: {detail}");
            }
            EventKind::AgentProgress { step, done, total, bytes_per_second } => {
                self.progress = Some(Progress {
                    what: step.clone(),
                    done: *done,
                    total: *total,
                    counted: false,
                    bytes_per_second: Some(*bytes_per_second),
                });
            }
            EventKind::Stalled { diagnosis, .. } => self.reason = diagnosis.clone(),
            EventKind::NodeStep { step, detail } => self.reason = format!("{step}: {detail}"),
            EventKind::MachineFailed { error } | EventKind::AgentFailed { error, .. } => {
                self.error = Some(error.clone());
            }
            _ => {}
        }
        if let Some(what) = seen(kind) {
            self.last_seen = Some(LastSeen { at, what });
        }
    }

    /// Sets the moments that an event marks; all but the image's and SSH's are the first of their kind.
    fn mark(&mut self, at: Timestamp, kind: &EventKind) {
        let line = &mut self.timeline;
        let first = |moment: &mut Option<Timestamp>| *moment = moment.or(Some(at));
        match kind {
            EventKind::PoweredOn => *line = Timeline { power_on: Some(at), ..Timeline::default() },
            EventKind::Dhcp { reply: Some(_), .. } => first(&mut line.dhcp),
            EventKind::TftpDone { .. } => first(&mut line.tftp),
            EventKind::BootScript { .. } => first(&mut line.ipxe),
            EventKind::Http { path, status: 200, .. } if path.ends_with("/vmlinuz") => first(&mut line.kernel),
            EventKind::AgentClaimed { .. } => first(&mut line.agent),
            EventKind::ImageWritten { bytes, seconds, .. } => {
                line.image = Some(at);
                line.image_bytes = Some(*bytes);
                line.image_seconds = Some(*seconds);
            }
            EventKind::Rebooting { .. } => first(&mut line.reboot),
            EventKind::SshVerified { .. } => line.ssh = Some(at),
            EventKind::State { state, .. } if state == "Initializing" || state == "Joining" => {
                first(&mut line.prepared)
            }
            EventKind::State { state, .. } if state == "Starting" => first(&mut line.joined),
            EventKind::NodeReady => line.ready = Some(at),
            _ => {}
        }
    }
}

/// What an event shows of the machine, in words.
fn seen(kind: &EventKind) -> Option<String> {
    Some(match kind {
        EventKind::Dhcp { message, reply, ignored, .. } => match (reply, ignored) {
            (Some(reply), _) => format!("DHCP {message}, answered {reply}"),
            (None, Some(ignored)) => format!("DHCP {message}, not answered: {ignored}"),
            (None, None) => format!("DHCP {message}"),
        },
        EventKind::TftpStarted { file, .. } => format!("TFTP request for {file}"),
        EventKind::TftpDone { file, .. } => format!("TFTP transfer of {file} done"),
        EventKind::TftpFailed { file, error, .. } => format!("TFTP of {file} failed: {error}"),
        EventKind::BootScript { .. } => String::from("iPXE fetched its script"),
        EventKind::Http { method, path, status, .. } => format!("HTTP {method} {path}: {status}"),
        EventKind::AgentClaimed { .. } => String::from("the agent called"),
        EventKind::AgentRefused { error, .. } => format!("an agent was turned away: {error}"),
        EventKind::AgentStep { step, .. } | EventKind::AgentProgress { step, .. } => format!("the agent's step {step}"),
        EventKind::ImageWritten { disk, .. } => format!("the image is on {disk}"),
        EventKind::Rebooting { .. } => String::from("the agent left for the installed system"),
        EventKind::SshVerified { .. } => String::from("SSH login"),
        EventKind::NodeStep { step, .. } | EventKind::NodeStepDone { step, .. } => format!("the step {step} over SSH"),
        _ => return None,
    })
}

impl Board {
    /// The board after `events`.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut board = Self::default();
        events.into_iter().for_each(|event| board.take(event));
        board
    }

    /// Takes one more event.
    pub fn take(&mut self, event: &Event) {
        if let Some(machine) = &event.machine {
            let machine = self.machines.entry(machine.clone()).or_insert_with(|| MachineBoard::new(event.at));
            return machine.take(event.at, &event.kind);
        }
        match &event.kind {
            EventKind::PhaseStarted { phase, title } => {
                if phase == "preflight" {
                    self.not_checked.clear();
                }
                self.phase = Some(title.clone());
                (self.error, self.progress) = (None, None);
            }
            EventKind::PhaseDone { .. } => self.progress = None,
            EventKind::Checked { check, finding: Finding { verdict: Verdict::Skipped, reason, .. } } => {
                self.not_checked.insert(*check, reason.clone());
            }
            EventKind::PhaseFailed { error, .. } => self.error = Some(error.clone()),
            EventKind::Progress { what, done, total } => {
                let (what, done, total) = (what.clone(), *done, *total);
                self.progress = Some(Progress { what, done, total, counted: false, bytes_per_second: None });
            }
            EventKind::Count { what, done, total } => {
                let (what, done, total) = (what.clone(), *done, Some(*total));
                self.progress = Some(Progress { what, done, total, counted: true, bytes_per_second: None });
            }
            _ => {}
        }
    }
}

/// Time from one moment to another; zero if the clock was set back in between.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: i64, kind: EventKind) -> Event {
        Event { at: Timestamp::from_second(second).unwrap(), machine: Some(String::from("node-1")), kind }
    }

    #[test]
    fn a_second_power_on_starts_the_timeline_anew() {
        let claimed = || EventKind::AgentClaimed {
            client: [10, 0, 0, 1].into(),
            arch: Default::default(),
            firmware: Default::default(),
            memory_bytes: 1,
            disks: 1,
        };
        let mut events = vec![event(1, EventKind::PoweredOn), event(9, claimed())];
        assert_eq!(Board::of(&events).machines["node-1"].timeline.agent, Timestamp::from_second(9).ok());
        events.push(event(20, EventKind::PoweredOn));
        let timeline = &Board::of(&events).machines["node-1"].timeline;
        assert_eq!((timeline.power_on, timeline.agent), (Timestamp::from_second(20).ok(), None));
        events.extend([event(31, claimed()), event(35, claimed())]);
        assert_eq!(Board::of(&events).machines["node-1"].timeline.agent, Timestamp::from_second(31).ok());
    }

    #[test]
    fn a_failed_machine_keeps_its_error_until_it_leaves_the_state() {
        let state = |state: &str| EventKind::State { state: state.into(), reason: "r".into() };
        let mut events =
            vec![event(1, EventKind::MachineFailed { error: "no disk".into() }), event(1, state("Failed"))];
        assert_eq!(Board::of(&events).machines["node-1"].error.as_deref(), Some("no disk"));
        events.push(event(2, state("Pending")));
        assert_eq!(Board::of(&events).machines["node-1"].error, None);
    }
}
