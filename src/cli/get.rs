//! `metalgate get kubeconfig NAME`: the administrator's kubeconfig, on stdout.

use super::Failure;
use crate::workflow::kubeconfig;
use crate::workflow::work_dir;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print the administrator's kubeconfig; its certificate is renewed when two thirds of its year are over
    Kubeconfig(KubeconfigArgs),
}

#[derive(clap::Args)]
struct KubeconfigArgs {
    /// The cluster's name, as in its spec
    name: String,
    /// The cluster's work directory, if `create` was given one
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let What::Kubeconfig(args) = args.what;
    let dir = match args.work_dir {
        Some(dir) => dir,
        None => work_dir::default_path(&args.name)?,
    };
    let text = kubeconfig::current(&dir, &args.name).await.map_err(Failure::Failed)?;
    print!("{}", text.expose());
    Ok(())
}
