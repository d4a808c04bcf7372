//! The lab's daemon, `metalgate lab serve`: lives inside the namespace, answers as every BMC, runs QEMU as its children.
//!
//! Started by [`super::up`], which waits until the control socket answers; ended by SIGTERM from [`super::down`]. When it
//! dies in any other way, the kernel kills its QEMU processes (`setpriv --pdeathsig`).

use super::control::{self, Controlled};
use super::machine::{Machine, MachineHandle};
use super::process::ProcessRecord;
use super::qemu::Firmware;
use super::rack::{self, Rack};
use super::redfish::{self, Bmc, Fault};
use super::{LabError, at, files, host, up};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where the daemon's pid stands.
pub fn record(name: &str) -> PathBuf {
    rack::run_dir(name).join("serve.process")
}

/// Runs the daemon of the lab called `name` until SIGTERM, or until a part of it fails.
pub async fn serve(name: &str) -> Result<(), LabError> {
    let rack = Arc::new(up::load(name)?.ok_or_else(|| LabError::NotUp(name.to_owned()))?);
    let path = record(name);
    if let Some(process) = ProcessRecord::of(std::process::id()) {
        process.save(&path)?;
    }
    // Away from the terminal and its signals. Fails only for the leader of a process group, who has no need of it.
    let _ = rustix::process::setsid();
    let mut terminated = signal(SignalKind::terminate()).map_err(at(&path))?;

    let stop = CancellationToken::new();
    let mut tasks = start(&rack, &stop)?;
    let result = tokio::select! {
        _ = terminated.recv() => Ok(()),
        Some(ended) = tasks.join_next() => ended.unwrap_or_else(|error| Err(crashed(&rack, &error))),
    };
    stop.cancel();
    // Every task ends within the patience it has for QEMU.
    while tasks.join_next().await.is_some() {}
    result
}

/// Starts a machine and a BMC for each of the rack, and the control socket.
fn start(rack: &Arc<Rack>, stop: &CancellationToken) -> Result<JoinSet<Result<(), LabError>>, LabError> {
    let firmware = firmware(rack)?;
    let mut tasks = JoinSet::new();
    let mut controlled = Vec::new();
    for machine in &rack.machines {
        let (handle, orders, view) = MachineHandle::new();
        let (fault, injected) = watch::channel(Fault::None);
        let bmc = Bmc::new(rack, machine.clone(), handle.clone(), injected);
        let address = SocketAddr::from((machine.bmc_address, 443));
        tasks.spawn(redfish::serve(Arc::new(bmc), address, stop.clone()));
        let task = Machine::new(rack.clone(), machine.clone(), firmware.clone(), view).run(orders, stop.clone());
        tasks.spawn(async {
            task.await;
            Ok(())
        });
        controlled.push(Controlled { name: machine.name.clone(), handle, fault });
    }
    let (rack, stop) = (rack.clone(), stop.clone());
    tasks.spawn(async move { control::serve(&rack, controlled, stop).await });
    Ok(tasks)
}

/// The firmware files that this rack needs; those it does not need may be missing.
fn firmware(rack: &Rack) -> Result<Firmware, LabError> {
    let needed = host::Needed::of(rack);
    Ok(Firmware {
        ovmf_code: if needed.ovmf { host::ovmf()?.0.to_owned() } else { PathBuf::new() },
        ipxe_kernel: if needed.ipxe_kernel { host::ipxe_kernel()? } else { PathBuf::new() },
        pxe_client: rack.dir.join(files::PXE_CLIENT_FILE),
    })
}

fn crashed(rack: &Rack, error: &tokio::task::JoinError) -> LabError {
    LabError::Daemon { lab: rack.name.clone(), reason: error.to_string(), log: rack.log() }
}
