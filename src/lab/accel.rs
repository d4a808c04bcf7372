//! Whether KVM works here: found out by booting something, because `/dev/kvm` may be there and still run no firmware
//! (nested under a paravirtual hypervisor it ends in `KVM internal error`).

use super::qemu::EMULATED_CPU;
use super::rack::Accelerator;
use super::{LabError, host};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// With KVM the firmware speaks within a second or two; with TCG on a loaded host it may take this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// OVMF says this on the serial line when it looks for something to boot.
const FIRMWARE_SPEAKS: &[u8] = b"BdsDxe";

/// What to run machines with: KVM if it boots firmware, else TCG.
pub async fn choose() -> Result<Accelerator, LabError> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let works = boots(Accelerator::Kvm).await?;
    tracing::debug!(works, "KVM probe");
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// Boots OVMF without a disk and sees whether it gets as far as looking for one.
async fn boots(accelerator: Accelerator) -> Result<bool, LabError> {
    let (code, vars) = host::ovmf()?;
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", EMULATED_CPU),
    };
    let firmware = format!("if=pflash,format=raw,readonly=on,file={}", code.display());
    // A snapshot: nothing is written to the template.
    let variables = format!("if=pflash,format=raw,snapshot=on,file={}", vars.display());
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-net", "none", "-m", "256"])
        .args(["-machine", "q35,graphics=off", "-accel", accel, "-cpu", cpu, "-serial", "stdio"])
        .args(["-drive", &firmware, "-drive", &variables])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| LabError::Command { command: "qemu-system-x86_64".into(), reason: error.to_string() })?;
    let Some(mut serial) = qemu.stdout.take() else { return Ok(false) };
    let mut seen = Vec::new();
    let spoke = tokio::time::timeout(PATIENCE, async {
        // The end of the stream is QEMU's own end: it gave up.
        while !seen.windows(FIRMWARE_SPEAKS.len()).any(|window| window == FIRMWARE_SPEAKS) {
            if serial.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    })
    .await
    .unwrap_or(false);
    // Ends within milliseconds, or is killed when dropped.
    let _ = qemu.kill().await;
    Ok(spoke)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_probe_tells_what_boots() {
        assert!(boots(Accelerator::Tcg).await.unwrap());
        if !Path::new("/dev/kvm").exists() {
            assert!(!boots(Accelerator::Kvm).await.unwrap());
            assert_eq!(choose().await.unwrap(), Accelerator::Tcg);
        }
    }
}
