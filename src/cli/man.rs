//! `metalgate man [--dir DIR]`.

use super::{Cli, Failure};
use clap::CommandFactory;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Write metalgate.1 and one page per command here instead of printing metalgate.1
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args.dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir)?,
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
    }
    Ok(())
}
