//! `lab down`: ends exactly what `lab up` and its daemon started, whatever state it is in. Running it again is fine.

use super::process::ProcessRecord;
use super::rack::{self, Rack};
use super::{LabError, at, container, files, network, serve, up};
use std::time::Duration;

/// The daemon closes every disk before it ends.
const DAEMON_PATIENCE: Duration = Duration::from_secs(30);

/// What of the lab's directory stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Everything: disks, logs, hardware.csv, cluster.yaml.
    Everything,
}

/// How `down` found things.
#[derive(Debug)]
pub enum Outcome {
    /// There was no such lab.
    WasDown,
    /// The lab is gone. Of the processes that others started in its namespace, these still run.
    Down(Vec<u32>),
}

/// Takes the lab called `name` down.
pub async fn down(name: &str, keep: Keep) -> Result<Outcome, LabError> {
    rack::check_name(name)?;
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let _lock = up::Lock::take(name)?;
    match up::load(name)? {
        Some(rack) => take_down(&rack, keep).await.map(Outcome::Down),
        None => Ok(Outcome::WasDown),
    }
}

/// Ends processes, network and files of `rack`, in this order, its record last. Gives the pids that were not ours to end.
pub async fn take_down(rack: &Rack, keep: Keep) -> Result<Vec<u32>, LabError> {
    if let Some(daemon) = ProcessRecord::load(&serve::record(&rack.name)) {
        daemon.end(DAEMON_PATIENCE).await?;
    }
    let run_dir = rack::run_dir(&rack.name);
    for entry in std::fs::read_dir(&run_dir).into_iter().flatten().flatten() {
        // QEMU's own, of a daemon that died: the kernel has sent them SIGKILL, and this makes sure.
        if entry.path().extension().is_some_and(|extension| extension == "process")
            && let Some(process) = ProcessRecord::load(&entry.path())
        {
            process.end(Duration::from_secs(5)).await?;
        }
    }
    for machine in &rack.machines {
        container::clean(rack, machine).await?;
    }
    let namespace = rack.namespace();
    let strangers = network::processes(&namespace).await?;
    network::remove(&namespace).await?;
    if keep == Keep::Nothing {
        files::remove(rack)?;
    }
    match std::fs::remove_dir_all(&run_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&run_dir)(error)),
        _ => Ok(strangers),
    }
}
