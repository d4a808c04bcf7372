//! `metalgate delete cluster NAME`: the machines are switched off, and nothing of the cluster is left here.

use super::arguments::{ArtifactsArg, WorkDirArg};
use super::{Failure, progress};
use crate::event::EventBus;
use crate::workflow::delete::{self, Request};
use crate::workflow::journal;
use crate::workflow::work_dir::WorkDir;
use clap::Subcommand;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Switch off a cluster's machines and forget it; also one that is half made
    Cluster(ClusterArgs),
}

#[derive(clap::Args)]
struct ClusterArgs {
    /// The cluster's name, as in its spec
    name: String,
    /// Also make the machines' disks unreadable, over SSH, before they are switched off
    #[arg(long)]
    wipe: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    work_dir: WorkDirArg,
    #[command(flatten)]
    artifacts: ArtifactsArg,
    #[command(flatten)]
    bootstrap: super::create::BootstrapArgs,
}

/// Nothing is known of a cluster of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no cluster `{name}` in {dir}; is the name right, or was --work-dir given?")]
struct NoSuchCluster {
    name: String,
    dir: PathBuf,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let What::Cluster(args) = args.what;
    let dir = args.work_dir.of(&args.name)?;
    if !dir.join("events.jsonl").exists() {
        return Err(NoSuchCluster { name: args.name, dir }.into());
    }
    let work_dir = WorkDir::open(&dir)?;
    let artifacts = args.artifacts.dir()?;
    let (cluster, wipe) = (args.name, args.wipe);
    let (metalgate, bootstrap) = (std::env::current_exe()?, args.bootstrap.into());
    let request = Request { cluster, wipe, artifacts, metalgate, bootstrap };
    let plan = delete::plan(&request, &work_dir).await.map_err(Failure::Failed)?;
    let machines = plan.machines();
    if !args.yes {
        confirm(&request, &machines)?;
    }
    let events = EventBus::default();
    let journal = journal::start(&dir, &events)?;
    let display = progress::start(&events);
    let result = delete::run(&request, plan, &work_dir, &events).await;
    drop(events);
    display.await?;
    let _ = tokio::task::spawn_blocking(move || journal.join()).await?;
    result.map_err(Failure::Failed)?;
    eprintln!("cluster {} is deleted; {} machines are switched off", request.cluster, machines.len());
    Ok(())
}

fn confirm(request: &Request, machines: &[String]) -> Result<(), Failure> {
    let what = if request.wipe { "WIPED and switched off" } else { "switched off" };
    let question = format!("These machines are {what}: {}.", machines.join(", "));
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Input(format!("{question}\nerror: nobody can be asked; give --yes\n")));
    }
    eprint!("{question}\nType the cluster's name to go on: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() == request.cluster {
        true => Ok(()),
        false => Err(Failure::Input(String::from("nothing was done\n"))),
    }
}
