//! `metalgate status NAME`: where a cluster's machines stand, from another terminal, while `create` runs or after it.
//!
//! Until the cluster manages itself the journal tells; from then on the cluster does, and the journal only how it was made.

use super::arguments::WorkDirArg;
use super::progress::{machine_line, name_width, phase_line, timeline};
use super::{Failure, OutputFormat};
use crate::workflow::board::Board;
use crate::workflow::journal;
use crate::workflow::managed;
use crate::workflow::pivot::SELF_MANAGED;
use crate::workflow::work_dir::WorkDir;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's name, as in its spec
    name: String,
    #[command(flatten)]
    work_dir: WorkDirArg,
    /// Show it again every second, until the run ends or the command is interrupted
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
    let dir = args.work_dir.of(&args.name)?;
    loop {
        let events = journal::read(&dir)?;
        if events.is_empty() {
            return Err(NoSuchCluster { name: args.name, dir }.into());
        }
        let (mut board, running) = (Board::of(&events), WorkDir::is_busy(&dir));
        let managed = match dir.join(SELF_MANAGED).exists() {
            true => Some(managed::look(&dir, &args.name, &mut board).await.map_err(Failure::Failed)?),
            false => None,
        };
        match args.output {
            OutputFormat::Text => print!("{}", text(&board, running, managed.as_deref())),
            OutputFormat::Json => {
                let by = if managed.is_some() { "cluster" } else { "create" };
                let status = serde_json::json!({
                    "cluster": args.name, "running": running, "managedBy": by, "conditions": managed, "board": board,
                });
                println!("{status}");
            }
        }
        if !args.watch || (managed.is_none() && !running) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn text(board: &Board, running: bool, managed: Option<&[Condition]>) -> String {
    let mut text = match (&board.error, running) {
        _ if managed.is_some() => String::from("managed by the manager in the cluster\n"),
        (_, true) => format!("running: {}\n", phase_line(board)),
        (Some(error), false) => format!("stopped: {error}\n"),
        (None, false) => format!("no run at the moment; the last phase was: {}\n", phase_line(board)),
    };
    for condition in managed.unwrap_or_default() {
        text.push_str(&format!("{:<24} {:<6} {}\n", condition.type_, condition.status, condition.message));
    }
    for (check, reason) in &board.not_checked {
        text.push_str(&format!("preflight did not check {check}: {reason}\n"));
    }
    let (width, now) = (name_width(board), Timestamp::now());
    for (name, machine) in &board.machines {
        text.push_str(&machine_line(name, width, machine, now));
        text.push('\n');
        if let Some(seen) = machine.last_seen.as_ref().filter(|_| machine.state != "Ready") {
            let ago = crate::workflow::board::between(seen.at, now).as_secs();
            text.push_str(&format!("{:width$}  last seen {ago} s ago: {}\n", "", seen.what));
        }
    }
    text.push('\n');
    text.push_str(&timeline(board));
    text
}
