//! `metalgate artifacts fill|verify|list`.

use super::{Failure, OutputFormat, progress};
use crate::event::{EventBus, EventKind};
use crate::image;
use crate::image::fill::{self, Request, Source};
use crate::image::manifest::{Kind, Manifest};
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use url::Url;

#[derive(clap::Args)]
pub struct Args {
    /// The artifact directory [default: ~/.cache/metalgate/artifacts]
    #[arg(long, global = true, value_name = "DIR", env = "METALGATE_ARTIFACTS")]
    artifacts: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Get what is missing or damaged, and write the manifest
    Fill(FillArgs),
    /// Check every file against the manifest
    Verify,
    /// Show what is there
    List {
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
}

#[derive(clap::Args)]
struct FillArgs {
    /// Where the files come from
    #[arg(long, value_enum, default_value_t)]
    from: From,
    /// The address of a copied artifact directory, for `--from mirror`
    #[arg(long, value_name = "URL", required_if_eq("from", "mirror"))]
    mirror: Option<Url>,
    /// Only this kind (may be repeated)
    #[arg(long, value_name = "KIND")]
    only: Vec<Kind>,
    /// The provisioning folder of metalgate's repository, for what is built
    #[arg(long, value_name = "DIR", default_value = "provisioning")]
    provisioning: PathBuf,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum From {
    /// Release servers; what is published nowhere is built
    #[default]
    Release,
    /// A copy of an artifact directory on a web server
    Mirror,
    /// Built from package registries
    Build,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let dir = match args.artifacts {
        Some(dir) => dir,
        None => image::default_dir()?,
    };
    match args.what {
        What::Fill(fill) => run_fill(dir, fill).await,
        What::Verify => verify(dir).await,
        What::List { output } => list(&Manifest::load(&dir)?, output),
    }
}

async fn run_fill(dir: PathBuf, args: FillArgs) -> Result<(), Failure> {
    let source = match (args.from, args.mirror) {
        (From::Mirror, Some(url)) => Source::Mirror(url),
        (From::Build, _) => Source::Build,
        _ => Source::Release,
    };
    let request = Request { dir, source, only: args.only.into_iter().collect(), provisioning: args.provisioning };
    let events = EventBus::default();
    let display = progress::start(&events);
    let filled = fill::fill(&request, &events).await;
    drop(events);
    display.await?;
    let manifest = filled?;
    eprintln!("{} artifacts in {}", manifest.artifacts.len(), manifest.dir().display());
    Ok(())
}

async fn verify(dir: PathBuf) -> Result<(), Failure> {
    let manifest = Manifest::load(&dir)?;
    let events = EventBus::default();
    let display = progress::start(&events);
    let checked = tokio::task::spawn_blocking(move || {
        let what = String::from("checking artifacts");
        let progress = |done, total| {
            events.emit(None, EventKind::Progress { what: what.clone(), done, total: Some(total) });
        };
        manifest.verify(|_| true, progress).map(|()| manifest.artifacts.len())
    });
    let files = checked.await?;
    display.await?;
    eprintln!("{} files in {} are what the manifest says", files?, dir.display());
    Ok(())
}

fn list(manifest: &Manifest, output: OutputFormat) -> Result<(), Failure> {
    match output {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(manifest)?),
        OutputFormat::Text => {
            for artifact in &manifest.artifacts {
                let size = indicatif::DecimalBytes(artifact.size).to_string();
                println!("{:<36} {:<24} {size:>10}  {}", artifact.path, artifact.version, artifact.sha256);
            }
        }
    }
    Ok(())
}
