//! `metalgate status NAME`: where a cluster's machines stand, from another terminal, while `create` runs or after it.

use super::progress::{machine_line, name_width, phase_line, timeline};
use super::{Failure, OutputFormat};
use crate::workflow::board::Board;
use crate::workflow::journal;
use crate::workflow::work_dir::{self, WorkDir};
use jiff::Timestamp;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's name, as in its spec
    name: String,
    /// The cluster's work directory, if `create` was given one
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Show it again every second until the run ends
    #[arg(long, short)]
    watch: bool,
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Nothing is known of a cluster of this name.
#[derive(Debug, thiserror::Error)]
#[error("no run of a cluster `{name}` is recorded in {dir}; is the name right, or was --work-dir given?")]
struct NoSuchCluster {
    name: String,
    dir: PathBuf,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let dir = match args.work_dir {
        Some(dir) => dir,
        None => work_dir::default_path(&args.name)?,
    };
    loop {
        let events = journal::read(&dir)?;
        if events.is_empty() {
            return Err(NoSuchCluster { name: args.name, dir }.into());
        }
        let (board, running) = (Board::of(&events), WorkDir::is_busy(&dir));
        match args.output {
            OutputFormat::Text => print!("{}", text(&board, running)),
            OutputFormat::Json => {
                println!("{}", serde_json::json!({ "cluster": args.name, "running": running, "board": board }));
            }
        }
        if !(args.watch && running) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn text(board: &Board, running: bool) -> String {
    let mut text = match (&board.error, running) {
        (_, true) => format!("running: {}\n", phase_line(board)),
        (Some(error), false) => format!("stopped: {error}\n"),
        (None, false) => format!("no run at the moment; the last phase was: {}\n", phase_line(board)),
    };
    let (width, now) = (name_width(board), Timestamp::now());
    for (name, machine) in &board.machines {
        text.push_str(&machine_line(name, width, machine, now));
        text.push('\n');
        if let Some(seen) = machine.last_seen.as_ref().filter(|_| machine.state != "Installed") {
            let ago = crate::workflow::board::between(seen.at, now).as_secs();
            text.push_str(&format!("{:width$}  last seen {ago} s ago: {}\n", "", seen.what));
        }
    }
    text.push('\n');
    text.push_str(&timeline(board));
    text
}
