//! The hidden `metalgate supervise PID PROGRAM ARGS...`: becomes a program that dies with the metalgate that started it.

use super::Failure;
use crate::bootstrap::supervise;
use std::ffi::OsString;

#[derive(clap::Args)]
pub struct Args {
    parent: i32,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    Err(supervise::become_program(args.parent, &args.program, &args.args).into())
}
