//! Check: this machine's clock can be right. Certificates are made and judged by it, on every machine; the BMCs' clocks are
//! compared with it by the check `bmc`.

use super::{Check, Finding, Name, Subject};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::pem::Pem;

/// For `timedatectl`, which may wait for a bus that is not there.
const ASK: Duration = Duration::from_secs(5);
/// A file's time may be another machine's, whose clock is a little ahead.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
const WAY_OUT: &str = "set the clock (`timedatectl set-ntp true`)";

pub struct Clock;

#[async_trait]
impl Check for Clock {
    fn name(&self) -> Name {
        Name::Clock
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let now = Timestamp::now();
        let mut found = Vec::new();
        let program = &subject.request.metalgate;
        let written = std::fs::metadata(program).and_then(|file| file.modified()).ok();
        if let Some(written) = written.and_then(|time| Timestamp::try_from(time).ok())
            && now + TOLERANCE < written
        {
            let reason = format!("it shows {now:.0}, but {} was written at {written:.0}", program.display());
            found.push(Finding::failed("clock", reason, WAY_OUT));
        }
        for (path, begins) in certificates(subject.work_dir).into_iter().filter(|(_, begins)| now < *begins) {
            let reason = format!("it shows {now:.0}, but {} begins at {begins:.0}", path.display());
            found.push(Finding::failed("clock", reason, WAY_OUT));
        }
        let synchronized = synchronized().await;
        if synchronized == Some(false) {
            let reason = "it is not synchronized with any other";
            found.push(Finding::warning(
                "clock",
                reason,
                "start an NTP client: the machines' clocks will be set by theirs",
            ));
        }
        if found.is_empty() {
            let by = if synchronized.is_some() { "synchronized" } else { "whether by NTP is not known" };
            found.push(Finding::passed(format!("{now:.0}, {by}")));
        }
        found
    }
}

/// Certificates of earlier runs, and since when they hold.
fn certificates(work_dir: &Path) -> Vec<(PathBuf, Timestamp)> {
    let dirs = [work_dir.join("pki"), work_dir.join("bootstrap/pki")];
    let files = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten().map(|entry| entry.path());
    let certificates = files.filter(|path| path.extension().is_some_and(|ending| ending == "crt"));
    let begins = |path: &Path| {
        let pem = std::fs::read(path).ok()?;
        let pem = Pem::iter_from_buffer(&pem).next()?.ok()?;
        let begins = pem.parse_x509().ok()?.validity().not_before.timestamp();
        Timestamp::from_second(begins).ok()
    };
    certificates.filter_map(|path| begins(&path).map(|begins| (path, begins))).collect()
}

/// Whether the kernel's clock is disciplined by NTP, as systemd tells it; `None` where there is no systemd.
async fn synchronized() -> Option<bool> {
    let mut program = tokio::process::Command::new("timedatectl");
    program
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(ASK, program.output()).await.ok()?.ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pki::Authority;

    #[test]
    fn certificates_of_earlier_runs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        assert!(certificates(dir.path()).is_empty());
        let pki = dir.path().join("pki");
        std::fs::create_dir(&pki).unwrap();
        Authority::keep(&pki, "agent-ca", "test").unwrap();
        std::fs::write(pki.join("torn.crt"), "no certificate").unwrap();
        let found = certificates(dir.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].0.ends_with("pki/agent-ca.crt") && found[0].1 < Timestamp::now());
    }
}
