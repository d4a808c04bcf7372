//! `metalgate apply`: the files' changes for a cluster that manages itself. It installs and removes machines without us.

use super::arguments::{FilesArg, WorkDirArg};
use super::{Failure, OutputFormat};
use crate::workflow::apply::{self, Change};
use crate::workflow::managed;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: FilesArg,
    #[command(flatten)]
    work_dir: WorkDirArg,
    /// Only print what would change
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let input = args.files.load()?;
    let dir = args.work_dir.of(&input.spec.name)?;
    let client = managed::client(&dir, &input.spec.name).await.map_err(Failure::Failed)?;
    let changes = apply::changes(&client, &input.spec, &input.machines).await.map_err(Failure::Failed)?;
    match args.output {
        OutputFormat::Text if changes.is_empty() => println!("nothing changes"),
        OutputFormat::Text => changes.iter().for_each(|change: &Change| println!("{change}")),
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&changes)?),
    }
    if !args.dry_run {
        apply::apply(&client, &input.spec, &input.machines).await.map_err(Failure::Failed)?;
        eprintln!("the manager in the cluster does the rest; `metalgate status {}` shows how it goes", input.spec.name);
    }
    Ok(())
}
