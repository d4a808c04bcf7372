//! `metalgate get kubeconfig NAME`: the administrator's kubeconfig, on stdout.

use super::Failure;
use super::arguments::WorkDirArg;
use crate::workflow::kubeconfig;
use clap::Subcommand;

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
    #[command(flatten)]
    work_dir: WorkDirArg,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let What::Kubeconfig(args) = args.what;
    let dir = args.work_dir.of(&args.name)?;
    let text = kubeconfig::current(&dir, &args.name).await.map_err(Failure::Failed)?;
    print!("{}", text.expose());
    Ok(())
}
