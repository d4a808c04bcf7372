//! The virtual rack: QEMU machines with blank disks on a bridge in a network namespace, each behind a Redfish BMC.
//!
//! `metalgate lab up` plans a [`rack::Rack`], makes its files ([`files`]) and its network ([`network`]), and starts one
//! daemon inside the namespace ([`serve`]). The daemon answers as every machine's BMC ([`redfish`]) and runs QEMU as its
//! own children ([`machine`], [`emulator`], [`qemu`], [`qmp`]); where there is no KVM, a system that was installed runs as a
//! container instead ([`container`], [`terminal`]). `lab status`, `lab fault` and `lab console` talk to it over a Unix
//! socket ([`control`]); `lab down` ends exactly what was started.
//!
//! Fed by the command line; feeds `create cluster` with a hardware.csv and a cluster.yaml, like any other rack. Nothing
//! outside the namespace is touched but for loop devices and control groups of running containers. What is known of a running lab stands in `/run/metalgate/lab/NAME`, which lives as
//! long as namespaces do: until the host reboots.

pub mod accel;
pub mod console;
pub mod container;
pub mod control;
pub mod down;
pub mod emulator;
pub mod files;
pub mod host;
pub mod machine;
pub mod network;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod rack;
pub mod redfish;
pub mod serve;
pub mod terminal;
pub mod up;

use crate::pki::PkiError;
use std::path::{Path, PathBuf};

/// Why a lab could not be made, asked or ended.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error("the lab makes network namespaces and taps: run it as root")]
    NotRoot,
    /// A program of the host is missing.
    #[error("`{program}` is not installed: apt-get install {package}")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// A firmware file of the host is missing.
    #[error("{what} was not found ({searched}): apt-get install {package}")]
    MissingFirmware {
        /// What it is for.
        what: &'static str,
        /// Where it was looked for.
        searched: String,
        /// Debian's package.
        package: &'static str,
    },
    /// The rack cannot be as asked.
    #[error("{0}")]
    Options(String),
    /// A file or directory of the lab would overwrite another.
    #[error("{path} exists already and is no running lab's: remove it or choose another --dir")]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// A namespace of that name exists, and no lab made it.
    #[error("network namespace {0} exists already and is no lab's: `ip netns del {0}`, or choose another --name")]
    NamespaceTaken(String),
    /// Another `lab` command works on the same lab.
    #[error("another `metalgate lab` command is at work on lab {0}")]
    Busy(String),
    /// There is no such lab.
    #[error("there is no lab {0}: `metalgate lab up --name {0}` makes one")]
    NotUp(String),
    /// There is no such machine.
    #[error("lab {lab} has no machine {machine}: it has {known}")]
    NoMachine {
        /// The lab.
        lab: String,
        /// What was asked for.
        machine: String,
        /// What there is.
        known: String,
    },
    /// A program of the host failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// What it wrote on stderr, or its exit status.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A socket of the daemon could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address or path.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The record of a lab is not ours.
    #[error("{path} is not a lab's record ({reason}): remove {dir} by hand")]
    Record {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// The daemon did not come up.
    #[error("lab {lab} does not start: {reason}")]
    NotStarted {
        /// The lab.
        lab: String,
        /// What happened.
        reason: String,
    },
    /// The daemon is gone.
    #[error("lab {lab}: the daemon does not answer ({reason}): see {log}, then `metalgate lab down`")]
    Daemon {
        /// The lab.
        lab: String,
        /// What happened.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The SSH key could not be made.
    #[error("cannot make an SSH key")]
    SshKey(#[from] russh::keys::ssh_key::Error),
    /// A BMC's certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] PkiError),
    /// A machine did not do what it was told.
    #[error(transparent)]
    Machine(#[from] machine::MachineError),
}

/// Names the file in an I/O error.
fn at(path: &Path) -> impl FnOnce(std::io::Error) -> LabError {
    let path = path.to_owned();
    move |source| LabError::File { path, source }
}
