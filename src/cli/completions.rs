//! `metalgate completions SHELL`.

use super::{Cli, Failure};
use clap::CommandFactory;

#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Result<(), Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "metalgate", &mut std::io::stdout());
    Ok(())
}
