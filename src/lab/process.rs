//! Processes of the lab by pid and start time, so that a pid which the kernel gave to somebody else is never signalled.

use super::{LabError, at};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// A process as it was when it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessRecord {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks from the boot of the host to the start of the process.
    pub start_time: u64,
}

impl ProcessRecord {
    /// The process `pid` as it is now; `None` if there is none, or only a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid: i32::try_from(pid).ok()?, start_time })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        u32::try_from(self.pid).ok().and_then(Self::of) == Some(*self)
    }

    /// Writes the record where `lab down` looks for it.
    pub fn save(&self, path: &Path) -> Result<(), LabError> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::from).map_err(at(path))?;
        std::fs::write(path, text).map_err(at(path))
    }

    /// Reads a record; one that is missing or half written names no process.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Asks the process to end, waits up to `patience`, then kills it. Fine if it is gone already.
    pub async fn end(&self, patience: Duration) -> Result<(), LabError> {
        if self.signal(Signal::TERM)? && !self.gone_within(patience).await {
            self.signal(Signal::KILL)?;
            self.gone_within(Duration::from_secs(10)).await;
        }
        Ok(())
    }

    /// Sends a signal to this very process; false if it is gone.
    fn signal(&self, signal: Signal) -> Result<bool, LabError> {
        let failed = |errno: rustix::io::Errno| LabError::Command {
            command: format!("kill {}", self.pid),
            reason: errno.to_string(),
        };
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        // The descriptor pins the process: once the start time is right, the signal cannot reach a later one.
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&descriptor, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }

    async fn gone_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn ends_the_process_it_recorded() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let record = ProcessRecord::of(child.id()).unwrap();
        assert!(record.is_alive());
        record.end(Duration::from_secs(5)).await.unwrap();
        assert!(!record.is_alive());
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn leaves_alone_a_process_that_got_the_same_pid() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let now = ProcessRecord::of(child.id()).unwrap();
        let earlier = ProcessRecord { start_time: now.start_time - 1, ..now };
        earlier.end(Duration::from_secs(1)).await.unwrap();
        assert!(now.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
