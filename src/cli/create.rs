//! `metalgate create cluster`: the one command.

use super::{Failure, OutputFormat, progress};
use crate::api::MachineState;
use crate::bootstrap::Provider;
use crate::event::EventBus;
use crate::preflight::Name;
use crate::workflow::board::Board;
use crate::workflow::work_dir::WorkDir;
use crate::workflow::{self, Request, journal};
use crate::{image, plan};
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
    /// The cluster's spec, or EKS Anywhere's documents
    #[arg(short, long, value_name = "cluster.yaml")]
    filename: PathBuf,
    /// The inventory
    #[arg(short = 'z', long, value_name = "hardware.csv", env = "HARDWARE_CSV")]
    hardware_csv: PathBuf,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Where kernel, agent, images and binaries lie [default: ~/.cache/metalgate/artifacts]
    #[arg(long, value_name = "DIR", env = "METALGATE_ARTIFACTS")]
    artifacts: Option<PathBuf>,
    #[command(flatten)]
    work_dir: super::WorkDirArg,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// A preflight check to leave out (may be repeated)
    #[arg(long, value_name = "CHECK")]
    skip: Vec<Name>,
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
    let input = super::validate::load(&args.filename, &args.hardware_csv)?;
    input.warnings.show();
    let work_path = args.work_dir.of(&input.spec.name)?;
    let plan = plan::plan(&input.spec, &input.machines, &recorded(&work_path)?)?;
    if args.dry_run {
        match args.output {
            OutputFormat::Text => print!("{}", plan::render_text(&plan)),
            OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&plan)?),
        }
        return Ok(());
    }
    let artifacts = match args.artifacts {
        Some(dir) => dir,
        None => image::default_dir()?,
    };
    let work_dir = WorkDir::open(&work_path)?;
    let request = Request {
        spec: input.spec,
        machines: input.machines,
        plan,
        artifacts,
        metalgate: std::env::current_exe()?,
        bootstrap: args.bootstrap.into(),
        skip: args.skip,
    };
    create(request, work_dir, args.output).await
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
