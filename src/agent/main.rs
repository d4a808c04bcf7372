//! The `metalgate-agent` binary: /init of the installation initramfs.

use std::process::ExitCode;

fn main() -> ExitCode {
    metalgate::agent::run::main()
}
