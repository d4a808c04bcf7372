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

/// The pages cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages into {}", .dir.display())]
struct Unwritable {
    dir: PathBuf,
    source: std::io::Error,
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args.dir {
        Some(dir) => {
            let written = std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &dir));
            written.map_err(|source| Unwritable { dir, source })?;
        }
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?,
    }
    Ok(())
}
