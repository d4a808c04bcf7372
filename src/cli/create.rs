//! `metalgate create cluster`: the one command.

use super::arguments::RequestArgs;
use super::{Failure, OutputFormat, progress};
use crate::api::MachineState;
use crate::bootstrap::Provider;
use crate::event::EventBus;
use crate::plan;
use crate::workflow::board::Board;
use crate::workflow::work_dir::WorkDir;
use crate::workflow::{self, Request, journal};
use clap::Subcommand;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Install machines and make a cluster of them; run it again to continue where it stood
    Cluster(Box<ClusterArgs>),
}

#[derive(clap::Args)]
struct ClusterArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(clap::Args)]
pub struct BootstrapArgs {
    /// Which cluster holds the objects while the machines are installed
    #[arg(long = "bootstrap", value_enum, default_value_t)]
    kind: BootstrapKind,
    /// The kubeconfig of `--bootstrap existing`
    #[arg(long = "bootstrap-kubeconfig", value_name = "FILE", required_if_eq("kind", "existing"))]
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum BootstrapKind {
    /// etcd and kube-apiserver as our child processes
    #[default]
    Embedded,
    /// A kind cluster; needs Docker
    Kind,
    /// A cluster that is there
    Existing,
}

impl From<BootstrapArgs> for Provider {
    fn from(args: BootstrapArgs) -> Self {
        match (args.kind, args.kubeconfig) {
            (BootstrapKind::Existing, Some(kubeconfig)) => Self::Existing { kubeconfig },
            (BootstrapKind::Kind, _) => Self::Kind,
            _ => Self::Embedded,
        }
    }
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let What::Cluster(args) = args.what;
    let (request, work_dir) = args.request.request(args.bootstrap.into())?;
    if args.dry_run {
        match args.output {
            OutputFormat::Text => print!("{}", plan::render_text(&request.plan)),
            OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&request.plan)?),
        }
        return Ok(());
    }
    create(request, WorkDir::open(&work_dir)?, args.output).await
}

/// How far earlier runs brought each machine, by the journal.
pub fn recorded(work_dir: &Path) -> std::io::Result<plan::Recorded> {
    let board = Board::of(&journal::read(work_dir)?);
    let state = |text: &str| serde_json::from_value::<MachineState>(text.into()).ok();
    Ok(board.machines.into_iter().filter_map(|(name, machine)| Some((name, state(&machine.state)?))).collect())
}

async fn create(request: Request, work_dir: WorkDir, output: OutputFormat) -> Result<(), Failure> {
    let events = EventBus::default();
    let journal = journal::start(work_dir.path(), &events)?;
    let display = progress::start(&events);
    let dir = work_dir.path().to_owned();
    eprintln!("cluster {}: files and journal in {}", request.spec.name, dir.display());
    let result = workflow::create(request, work_dir, events, super::interrupted()?).await;
    // The bus is gone with the run: both readers see its end, and have read all of it.
    let board = display.await?;
    let journal = tokio::task::spawn_blocking(move || journal.join()).await?;
    if journal.is_err() {
        tracing::warn!("the journal's thread panicked");
    }
    let whole = Board::of(&journal::read(&dir)?);
    match output {
        OutputFormat::Text => print!("{}", progress::timeline(&whole)),
        OutputFormat::Json => println!("{}", serde_json::to_string(&whole)?),
    }
    drop(board);
    Ok(result?)
}
