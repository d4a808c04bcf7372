//! The lab's network: a namespace with a bridge that holds our address, a tap per machine, and an address per BMC.

use super::rack::Rack;
use super::{LabError, host};
use std::path::Path;

/// Name of the bridge, inside the namespace.
pub const BRIDGE: &str = "br0";

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// Whether a namespace of that name exists.
pub fn exists(namespace: &str) -> bool {
    Path::new(NAMESPACES).join(namespace).exists()
}

/// Makes the namespace and everything in it.
pub async fn make(rack: &Rack) -> Result<(), LabError> {
    host::run("ip", &["netns", "add", &rack.namespace()]).await?;
    let ip = async |args: &[&str]| {
        let namespace = rack.namespace();
        host::run("ip", &[&["-n", namespace.as_str()], args].concat()).await.map(drop)
    };
    ip(&["link", "set", "lo", "up"]).await?;
    // Without forward_delay 0 the bridge drops what a machine sends in its first 15 seconds.
    ip(&["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"]).await?;
    ip(&["address", "add", &format!("{}/{}", rack.gateway(), rack.subnet.prefix_len()), "dev", BRIDGE]).await?;
    ip(&["link", "set", BRIDGE, "up"]).await?;
    for machine in &rack.machines {
        // On the loopback interface, so that the bridge has one address and nobody has to guess which is ours.
        ip(&["address", "add", &format!("{}/32", machine.bmc_address), "dev", "lo"]).await?;
        ip(&["tuntap", "add", "dev", &machine.tap, "mode", "tap"]).await?;
        ip(&["link", "set", &machine.tap, "master", BRIDGE, "up"]).await?;
    }
    Ok(())
}

/// Removes the namespace, and with it bridge and taps. Fine if it is gone already.
pub async fn remove(namespace: &str) -> Result<(), LabError> {
    if exists(namespace) {
        host::run("ip", &["netns", "delete", namespace]).await?;
    }
    // The first `ip netns add` of a host mounts this directory upon itself, and no command takes the mount away. The last
    // namespace does it here; where others are left, or somebody works in it, it stays.
    if std::fs::read_dir(NAMESPACES).is_ok_and(|mut names| names.next().is_none()) {
        let _ = rustix::mount::unmount(NAMESPACES, rustix::mount::UnmountFlags::empty());
    }
    Ok(())
}

/// Pulls a machine's cable, or plugs it in again. Called by the daemon, which lives inside the namespace.
pub async fn set_link(tap: &str, up: bool) -> Result<(), LabError> {
    host::run("ip", &["link", "set", tap, if up { "up" } else { "down" }]).await.map(drop)
}

/// Processes that still live in the namespace.
pub async fn processes(namespace: &str) -> Result<Vec<u32>, LabError> {
    if !exists(namespace) {
        return Ok(Vec::new());
    }
    let pids = host::run("ip", &["netns", "pids", namespace]).await?;
    Ok(pids.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}
