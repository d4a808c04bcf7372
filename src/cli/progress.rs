//! The live display of a run: a line per machine on a terminal, plain lines elsewhere. Both are views of the board.

use crate::event::{Event, EventBus, EventKind};
use crate::preflight::Verdict;
use crate::workflow::board::{Board, MachineBoard, Progress, between};
use indicatif::{DecimalBytes, MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinHandle;

/// How often the terminal is drawn anew.
const REDRAW: Duration = Duration::from_millis(250);
/// How often plain output says how far a machine is.
const PLAIN: Duration = Duration::from_secs(10);

/// Shows what `events` carries on stderr until every sender is gone; gives back the board as it stood then.
pub fn start(events: &EventBus) -> JoinHandle<Board> {
    let events = events.subscribe();
    if std::io::stderr().is_terminal() { tokio::spawn(live(events)) } else { tokio::spawn(plain(events)) }
}

async fn live(mut events: Receiver<Event>) -> Board {
    let mut board = Board::default();
    let screen = MultiProgress::new();
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let new_line = || screen.add(ProgressBar::no_length().with_style(style.clone()));
    let head = new_line();
    let mut lines: BTreeMap<String, ProgressBar> = BTreeMap::new();
    let mut clock = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            received = events.recv() => match received {
                Ok(event) => {
                    if let Some(text) = announcement(&event) {
                        // A closed stderr is no reason to stop a run.
                        let _ = screen.println(text);
                    }
                    board.take(&event);
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            _ = clock.tick() => {
                head.set_message(phase_line(&board));
                let width = name_width(&board);
                for (name, machine) in &board.machines {
                    let line = lines.entry(name.clone()).or_insert_with(new_line);
                    line.set_message(machine_line(name, width, machine, Timestamp::now()));
                }
            }
        }
    }
    let _ = screen.clear();
    board
}

async fn plain(mut events: Receiver<Event>) -> Board {
    let mut board = Board::default();
    let mut said: HashMap<Option<String>, Instant> = HashMap::new();
    let started = Instant::now();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => break,
        };
        board.take(&event);
        let progress = matches!(
            event.kind,
            EventKind::AgentProgress { .. } | EventKind::Progress { .. } | EventKind::Count { .. }
        );
        let due = said.get(&event.machine).is_none_or(|last| last.elapsed() >= PLAIN);
        if let Some(text) = announcement(&event).or_else(|| state_change(&event)) {
            eprintln!("[{}] {text}", clock(started.elapsed()));
        } else if progress && due {
            let progress = match &event.machine {
                Some(machine) => board.machines.get(machine).and_then(|machine| machine.progress.as_ref()),
                None => board.progress.as_ref(),
            };
            let name = event.machine.as_deref().unwrap_or("metalgate");
            eprintln!("[{}] {name}: {}", clock(started.elapsed()), progress.map(amount).unwrap_or_default());
            said.insert(event.machine.clone(), Instant::now());
        }
    }
    board
}

/// What deserves a line that stays, on a terminal too.
fn announcement(event: &Event) -> Option<String> {
    let text = match &event.kind {
        EventKind::PhaseDone { phase, seconds } => format!("{phase} done in {seconds:.1} s"),
        EventKind::PhaseFailed { .. } => return None,
        EventKind::Checked { check, finding } => match finding.verdict {
            Verdict::Warning | Verdict::Skipped => {
                let object = finding.object.iter().map(|object| format!("{object}: ")).collect::<String>();
                let way_out = finding.way_out.iter().map(|way_out| format!("; {way_out}")).collect::<String>();
                format!("preflight {check} {}: {object}{}{way_out}", finding.verdict, finding.reason)
            }
            Verdict::Passed | Verdict::Failed => return None,
        },
        EventKind::Stalled { diagnosis, last, .. } => format!("stalled: {diagnosis} (last seen: {last})"),
        EventKind::MachineFailed { error } => format!("FAILED: {error}"),
        EventKind::AgentFailed { step, error } => format!("FAILED at {step}: {error}"),
        EventKind::Power { action, bmc, error: Some(error) } => format!("{action} by {bmc}: {error}"),
        EventKind::Dhcp { mac, message, ignored: Some(ignored), .. } if event.machine.is_none() => {
            format!("DHCP {message} of {mac} not answered: {ignored}")
        }
        EventKind::AgentRefused { client, error } => format!("agent at {client} turned away: {error}"),
        EventKind::ImageWritten { bytes, seconds, disk, .. } => {
            let speed = (*bytes as f64 / seconds.max(0.001)) as u64;
            format!("{} on {disk} and read back in {seconds:.0} s ({}/s)", DecimalBytes(*bytes), DecimalBytes(speed))
        }
        EventKind::NodeReady => String::from("a Ready node"),
        EventKind::MachineReplaced { by } => format!("{by} takes its place"),
        EventKind::MachineRemoved => String::from("no part of the cluster any more"),
        EventKind::SshVerified { address, fingerprint } => format!("answers SSH at {address} ({fingerprint})"),
        _ => return None,
    };
    Some(match &event.machine {
        Some(machine) => format!("{machine}: {text}"),
        None => text,
    })
}

fn state_change(event: &Event) -> Option<String> {
    match (&event.machine, &event.kind) {
        (Some(machine), EventKind::State { state, reason }) => Some(format!("{machine}: {state}: {reason}")),
        (Some(machine), EventKind::AgentStep { step, detail }) => Some(format!("{machine}: {step}: {detail}")),
        (Some(machine), EventKind::NodeStep { step, detail }) => Some(format!("{machine}: {step}: {detail}")),
        (None, EventKind::Gateway { detail }) => Some(format!("gateway: {detail}")),
        (None, EventKind::PhaseStarted { title, .. }) => Some(format!("{title} ...")),
        _ => None,
    }
}

/// The run's own line.
pub fn phase_line(board: &Board) -> String {
    let phase = board.phase.as_deref().unwrap_or("starting");
    match &board.progress {
        Some(progress) => format!("{phase}: {}", amount(progress)),
        None => phase.to_owned(),
    }
}

/// Width of the column of names.
pub fn name_width(board: &Board) -> usize {
    board.machines.keys().map(String::len).max().unwrap_or_default()
}

/// One machine's line: name, state, how far, how long, what it waits for.
pub fn machine_line(name: &str, width: usize, machine: &MachineBoard, now: Timestamp) -> String {
    let elapsed = clock(between(machine.since, now));
    let progress = machine.progress.as_ref().map(|progress| format!("{}  ", amount(progress))).unwrap_or_default();
    let reason = machine.error.as_ref().unwrap_or(&machine.reason);
    format!("{name:width$}  {:<12}  {elapsed:>6}  {progress}{reason}", machine.state)
}

/// `write 43 % of 2.50 GB, 86.00 MB/s`.
fn amount(progress: &Progress) -> String {
    let Progress { what, done, total, counted, bytes_per_second } = progress;
    let mut text = match total {
        Some(total) if *counted => format!("{what}: {done} of {total}"),
        Some(total) if *total > 0 => {
            let percent = (*done as f64 / *total as f64 * 100.0).min(100.0);
            format!("{what} {percent:.0} % of {}", DecimalBytes(*total))
        }
        _ => format!("{what} {}", DecimalBytes(*done)),
    };
    if let Some(speed) = bytes_per_second {
        text.push_str(&format!(", {}/s", DecimalBytes(*speed)));
    }
    text
}

/// `0:07`, `12:34`, `1:02:03`.
pub fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The timeline of every machine, one row each: seconds since power-on at which it reached what.
pub fn timeline(board: &Board) -> String {
    let width = name_width(board).max("seconds since power-on".len());
    let names = crate::workflow::board::Timeline::default().moments().map(|(name, _)| name);
    let mut text = format!("{:width$}", "seconds since power-on");
    names.iter().skip(1).for_each(|name| text.push_str(&format!("  {name:>9}")));
    text.push_str("      image on disk\n");
    for (name, machine) in &board.machines {
        text.push_str(&format!("{name:width$}"));
        let line = &machine.timeline;
        for (_, moment) in line.moments().into_iter().skip(1) {
            let cell = match (line.power_on, moment) {
                (Some(start), Some(moment)) => format!("{:.1}", between(start, moment).as_secs_f64()),
                _ => String::from("-"),
            };
            text.push_str(&format!("  {cell:>9}"));
        }
        if let (Some(bytes), Some(seconds)) = (line.image_bytes, line.image_seconds) {
            let speed = (bytes as f64 / seconds.max(0.001)) as u64;
            text.push_str(&format!("  {} at {}/s", DecimalBytes(bytes), DecimalBytes(speed)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_machine_line_says_state_amount_time_and_reason() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |second, kind| Event { at: at(second), machine: Some(String::from("node-1")), kind };
        let board = Board::of(&[
            of(0, EventKind::PoweredOn),
            of(5, EventKind::State { state: "Installing".into(), reason: "write: image".into() }),
            of(
                8,
                EventKind::AgentProgress {
                    step: "write".into(),
                    done: 430,
                    total: Some(1000),
                    bytes_per_second: 86_000_000,
                },
            ),
            of(9, EventKind::ImageWritten { bytes: 1000, seconds: 2.0, disk: "/dev/vda".into(), sha256: "0".into() }),
        ]);
        assert_eq!(
            machine_line("node-1", 8, &board.machines["node-1"], at(10)),
            "node-1    Installing      0:05  write 43 % of 1.00 kB, 86.00 MB/s  write: image"
        );
        assert_eq!(
            timeline(&board),
            "seconds since power-on       DHCP       TFTP       iPXE     kernel      agent      image     reboot  first SSH   prepared     joined      Ready      image on disk\n\
             node-1                          -          -          -          -          -        9.0          -          -          -          -          -  1.00 kB at 500 B/s\n"
        );
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }
}
