//! The command line: one file per command, one printer. stdout is data, stderr is talk.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage, spec or inventory.

mod apply;
mod arguments;
mod artifacts;
mod completions;
mod convert;
mod create;
mod delete;
mod discover;
mod gateway;
mod generate;
mod get;
mod lab;
mod man;
mod manager;
mod preflight;
mod progress;
mod scale;
mod status;
mod supervise;
pub mod validate;

use crate::diagnostic::Diagnostics;
use crate::error::chain;
use clap::{Parser, Subcommand};
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Turns a rack of powered-off servers into a Kubernetes cluster with an API gateway in front.
#[derive(Parser)]
#[command(name = "metalgate", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a cluster
    Create(create::Args),
    /// Change a cluster that manages itself: more hardware, other counts
    Apply(apply::Args),
    /// Give a group of a cluster that manages itself more machines, or fewer
    Scale(scale::Args),
    /// Delete a cluster
    Delete(delete::Args),
    /// Print what a cluster's administrator needs
    Get(get::Args),
    /// The API gateway in front of a cluster: make it, look at it, prove it, give it new certificates
    Gateway(gateway::Args),
    /// Write files to start from: a spec, an inventory of what the network shows, JSON Schemas for editors
    Generate(generate::Args),
    /// Show the machines of a network by their DHCP messages, or start them and see what they are
    Discover(discover::Args),
    /// Check a spec and an inventory, and report every mistake of both
    Validate(validate::Args),
    /// Look at the wire, the BMCs and the clock, and report everything that would be in a run's way
    Preflight(preflight::Args),
    /// Make a spec of metalgate's own of EKS Anywhere's documents
    Convert(convert::Args),
    /// Show where a cluster's machines stand, during a run or after it
    Status(status::Args),
    /// Fill and check the directory of things that are served
    Artifacts(artifacts::Args),
    /// The virtual rack: machines with BMCs to try everything on, without touching the host's network
    Lab(lab::Args),
    #[command(hide = true)]
    Supervise(supervise::Args),
    #[command(hide = true)]
    Manager(manager::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the manual page, or write one page per command into a directory
    Man(man::Args),
}

/// How data is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// For scripts
    Json,
}

/// How a command ends when it does not end well.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage, spec or inventory; the text was made for the user and is printed as it is. Exit code 2.
    Input(String),
    /// Something failed; the chain is printed once. Exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Input(rendered(&diagnostics))
    }
}

impl Diagnostics {
    /// Shows warnings on stderr.
    pub fn show(&self) {
        eprint!("{}", rendered(self));
    }
}

/// For stderr: in colour on a terminal whose user has not asked for none (<https://no-color.org>).
fn rendered(diagnostics: &Diagnostics) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    diagnostics.render(!plain && std::io::stderr().is_terminal())
}

/// Runs the command of this process's arguments.
pub async fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Create(args) => create::run(args).await,
        Command::Apply(args) => apply::run(args).await,
        Command::Scale(args) => scale::run(args).await,
        Command::Delete(args) => delete::run(args).await,
        Command::Get(args) => get::run(args).await,
        Command::Gateway(args) => gateway::run(args).await,
        Command::Generate(args) => generate::run(args).await,
        Command::Discover(args) => discover::run(args).await,
        Command::Validate(args) => validate::run(args),
        Command::Preflight(args) => preflight::run(args).await,
        Command::Convert(args) => convert::run(args),
        Command::Status(args) => status::run(args).await,
        Command::Artifacts(args) => artifacts::run(args).await,
        Command::Lab(args) => lab::run(args).await,
        Command::Supervise(args) => supervise::run(args),
        Command::Manager(args) => manager::run(args).await,
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input(text)) => {
            eprint!("{text}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Cancelled by the first SIGINT or SIGTERM.
fn interrupted() -> std::io::Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cancelled = cancel.clone();
    tokio::spawn(async move {
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        cancelled.cancel();
    });
    Ok(cancel)
}
