//! A child process that dies with us, even when we are killed with SIGKILL.
//!
//! The kernel can send a process a signal when its parent dies (PR_SET_PDEATHSIG), but only the process itself can ask
//! for it. So a child is started through a hidden command of ours that asks and then becomes the program (`exec` keeps
//! the request). The request is tied to the parent *thread*: a child started from a pool thread would die with that, so
//! each is started, and waited for, by a thread of its own that lives as long as the child.

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// The hidden command of `metalgate` that becomes another program.
pub const COMMAND: &str = "supervise";
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How much of the end of a log is shown when a child dies.
const TAIL: u64 = 2_000;

/// The hidden command: asks to die with the parent, then becomes `program`. Returns only if that fails.
pub fn become_program(program: &OsString, args: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    Command::new(program).args(args).exec()
}

/// A program that runs as our child, with its output in a log file.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    pid: Pid,
    log: PathBuf,
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

impl Child {
    /// Starts `program` through the `metalgate` executable; what it prints goes to `log`, which is begun anew.
    pub async fn start(
        metalgate: &Path,
        name: &'static str,
        program: &Path,
        args: Vec<String>,
        log: &Path,
    ) -> Result<Self, ChildError> {
        let failed = |source| ChildError::Start { program: program.to_owned(), source };
        let mut options = OpenOptions::new();
        let output = options.create(true).write(true).truncate(true).mode(0o600).open(log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let mut command = Command::new(metalgate);
        command.arg(COMMAND).arg(program).args(args).stdin(Stdio::null()).stdout(output).stderr(errors);
        let (started, pid) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let thread = std::thread::Builder::new().name(format!("child {name}"));
        let live = move || match command.spawn() {
            Err(error) => drop(started.send(Err(error))),
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let status = child.wait().unwrap_or_default();
                let _ = end.send(Some(status));
            }
        };
        thread.spawn(live).map_err(failed)?;
        let pid = pid.await.unwrap_or_else(|_| Err(io::Error::other("its thread died"))).map_err(failed)?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| failed(io::Error::other("no pid")))?;
        Ok(Self { name, pid, log: log.to_owned(), ended })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ChildError {
        // The sender is gone only after it has sent.
        let status = self.ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        ChildError::Ended { name: self.name, status, log: self.log.clone(), tail: tail(&self.log) }
    }

    /// Asks it to end, and ends it if it does not.
    pub async fn stop(mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if self.ended.borrow().is_none() {
                // It may have ended in between; its pid is not reused before our thread has waited for it.
                let _ = kill_process(self.pid, signal);
            }
            if tokio::time::timeout(GRACE, self.ended.wait_for(Option::is_some)).await.is_ok() {
                return;
            }
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
}
