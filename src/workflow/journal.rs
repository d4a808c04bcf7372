//! The journal: every event as one line of JSON in `events.jsonl` of the work directory, across runs.
//!
//! `metalgate status` reads it from another terminal; scripts may follow it. A line that a kill cut short is skipped.

use crate::event::{Event, EventBus};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use tokio::sync::broadcast::error::RecvError;

/// Name of the file in the work directory.
pub const FILE: &str = "events.jsonl";

/// Starts writing what `events` carries to the journal in `dir`; ends when every sender of the bus is gone.
///
/// It writes from a thread of its own, so that neither a slow disk nor a busy runtime loses an event.
pub fn start(dir: &Path, events: &EventBus) -> io::Result<JoinHandle<()>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(FILE))?;
    let mut events = events.subscribe();
    std::thread::Builder::new().name(String::from("journal")).spawn(move || {
        let mut file = BufWriter::new(file);
        // Ends a line that a kill cut short; an empty line means nothing.
        let _ = file.write_all(b"\n");
        loop {
            match events.blocking_recv() {
                Ok(event) => {
                    if let Err(error) = write(&mut file, &event, events.is_empty()) {
                        tracing::warn!("cannot write the journal: {error}");
                    }
                }
                Err(RecvError::Lagged(missed)) => tracing::warn!("the journal missed {missed} events"),
                Err(RecvError::Closed) => return,
            }
        }
    })
}

fn write(file: &mut BufWriter<File>, event: &Event, flush: bool) -> io::Result<()> {
    serde_json::to_writer(&mut *file, event)?;
    file.write_all(b"\n")?;
    if flush { file.flush() } else { Ok(()) }
}

/// Every event of the journal in `dir`, oldest first; none if there is no journal.
pub fn read(dir: &Path) -> io::Result<Vec<Event>> {
    match File::open(dir.join(FILE)) {
        Ok(file) => {
            let lines = BufReader::new(file).lines();
            lines.filter_map(|line| line.map(|line| serde_json::from_str(&line).ok()).transpose()).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    #[test]
    fn what_is_sent_is_read_back_and_a_torn_line_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let bus = EventBus::default();
        let writer = start(dir.path(), &bus).unwrap();
        let event = Event::of("node-1", EventKind::PoweredOn);
        bus.send(event.clone());
        drop(bus);
        writer.join().unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap();
        file.write_all(b"{\"at\":\"2026-11-2").unwrap();
        assert_eq!(read(dir.path()).unwrap(), [event]);
    }
}
