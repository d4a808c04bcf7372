//! A child process that dies with us, even when we are killed with SIGKILL.
//!
//! The kernel can send a process a signal when its parent dies (PR_SET_PDEATHSIG), but only the process itself can ask
//! for it. So a child is started through a hidden command of ours that asks and then becomes the program (`exec` keeps
//! the request). The request is tied to the parent *thread*: a child started from a pool thread would die with that, so
//! each is started, and waited for, by a thread of its own that lives as long as the child.

use super::log::{Log, Tail};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// The hidden command of `metalgate` that becomes another program.
pub const COMMAND: &str = "supervise";
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long the last words of a child that has ended may take to reach its log. They are in the pipe already; only a
/// process that the child left behind could hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The hidden command: asks to die with `parent`, then becomes `program`. Returns only if that fails.
pub fn become_program(parent: i32, program: &OsString, args: &[OsString]) -> ChildError {
    let failed = |source| ChildError::Start { program: program.into(), source };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed(error.into());
    }
    // A parent that died before we asked sends no signal.
    if getppid() != Pid::from_raw(parent) {
        return failed(io::Error::other(format!("metalgate (pid {parent}) is gone")));
    }
    failed(Command::new(program).args(args).exec())
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
struct Process {
    pid: u32,
    /// Names this very process, also when its number has gone to another.
    pidfd: OwnedFd,
}

/// A program that runs as our child, with its output in a log file. Dropped, it is killed.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: Process,
    log: PathBuf,
    tail: Tail,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// A child that could not be started or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended although it should run.
    #[error("{name} ended by itself ({status}); the end of {log}:\n{tail}")]
    Ended {
        /// The program.
        name: &'static str,
        /// How.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

impl ChildError {
    /// Whether the child ended because something else listens where it should. Go's words for EADDRINUSE.
    pub fn is_port_taken(&self) -> bool {
        matches!(self, Self::Ended { tail, .. } if tail.contains("bind: address already in use"))
    }
}

impl Child {
    /// Starts `program` through the `metalgate` executable; what it prints goes to `log`.
    ///
    /// It gets no environment: etcd takes ETCD_* for flags, and neither is to find a proxy. It gets a process group of its
    /// own: Ctrl-C is for us, and we still need it while we end in order.
    pub async fn start(
        metalgate: &Path,
        name: &'static str,
        program: &Path,
        args: Vec<String>,
        log: &Path,
    ) -> Result<Self, ChildError> {
        let failed = |source| ChildError::Start { program: program.to_owned(), source };
        let (output, printed) = io::pipe().map_err(failed)?;
        let errors = printed.try_clone().map_err(failed)?;
        let mut command = Command::new(metalgate);
        command.arg(COMMAND).arg(std::process::id().to_string()).arg(program).args(args);
        command.env_clear().process_group(0).stdin(Stdio::null()).stdout(printed).stderr(errors);

        let writer = Log::begin(log).map_err(failed)?;
        let tail = writer.tail();
        let (copied, all_copied) = mpsc::channel::<()>();
        let copy = move || {
            writer.copy(output);
            drop(copied);
        };
        std::thread::Builder::new().name(format!("log {name}")).spawn(copy).map_err(failed)?;
        let (started, start) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let live = move || live(command, started, &all_copied, &end);
        std::thread::Builder::new().name(format!("child {name}")).spawn(live).map_err(failed)?;
        let begun = start.await.unwrap_or_else(|_| Err(io::Error::other("its thread died")));
        let process = begun.map_err(|source| ChildError::Start { program: metalgate.to_owned(), source })?;
        Ok(Self { name, process, log: log.to_owned(), tail, ended })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ChildError {
        // The sender is gone only after it has sent.
        let status = self.ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        ChildError::Ended { name: self.name, status, log: self.log.clone(), tail: self.tail.lines() }
    }

    /// Asks it to end, and ends it if it does not.
    pub async fn stop(mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            self.process.send(signal);
            if tokio::time::timeout(GRACE, self.ended.wait_for(Option::is_some)).await.is_ok() {
                return;
            }
            tracing::warn!(name = self.name, pid = self.pid(), ?signal, "does not end for {} s", GRACE.as_secs());
        }
    }
}

impl Process {
    fn of(child: &std::process::Child) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Self { pid: child.id(), pidfd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    fn send(&self, signal: Signal) {
        // An error means only that it has ended.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.send(Signal::KILL);
    }
}

/// The life of a child, on a thread of its own: begins it, waits for its end, tells of both.
fn live(
    mut command: Command,
    started: oneshot::Sender<io::Result<Process>>,
    all_copied: &mpsc::Receiver<()>,
    end: &watch::Sender<Option<ExitStatus>>,
) {
    let spawned = command.spawn();
    // It holds our copies of the pipe's writing end, without which the log would never end.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let process = Process::of(&child);
    if process.is_err() {
        let _ = child.kill();
    }
    // Nobody to tell it to any more: dropped, it ends the child.
    drop(started.send(process));
    let status = child.wait().unwrap_or_default();
    let _ = all_copied.recv_timeout(LAST_WORDS);
    let _ = end.send(Some(status));
}
