//! The `metalgate` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    metalgate::cli::run().await
}
