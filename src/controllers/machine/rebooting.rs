//! The installed system starts. It counts as installed when it answers SSH with the host key that it was given.

use super::{Context, Machine, Outcome};
use crate::api::{MachineState, MetalCluster};
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use crate::node::ssh::{self, SshError, Target};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use std::net::IpAddr;
use std::time::Duration;

/// Between two tries of SSH.
const RECHECK: Duration = Duration::from_secs(3);
/// For one try of SSH: an emulated machine needs seconds for a key exchange.
const TRY: Duration = Duration::from_secs(20);

pub async fn step(context: &Context, machine: &Machine) -> Result<Outcome, ReconcileError> {
    let address = IpAddr::V4(machine.hardware.spec.address.addr());
    let host_key = host_key(context, machine).await?;
    let user = user(context, machine).await?;
    let target = Target { address, port: 22, user };
    let error = match ssh::verify(&target, &context.ssh_key, &host_key, TRY).await {
        Ok(verified) => {
            let kind = EventKind::SshVerified { address, fingerprint: verified.fingerprint };
            context.events.emit(Some(&machine.name), kind);
            return Ok(Outcome::to(MachineState::Installed, "installed, and answers SSH with its own host key"));
        }
        Err(error) => error,
    };
    let message = crate::cli::chain(&error);
    if matches!(error, SshError::HostKeyMismatch { .. }) {
        return Ok(Outcome::Fail(message));
    }
    context.events.emit(Some(&machine.name), EventKind::SshTried { address, error: message.clone() });
    if machine.in_state() > context.limits.first_boot {
        let minutes = context.limits.first_boot.as_secs() / 60;
        return Ok(Outcome::Fail(format!(
            "the installed system does not answer SSH {minutes} minutes after its reboot ({message}): does it start from \
             the right disk? See its console"
        )));
    }
    Ok(Outcome::wait("starts from its disk; waiting for SSH", RECHECK))
}

/// The public host key that the machine was given.
async fn host_key(context: &Context, machine: &Machine) -> Result<String, ReconcileError> {
    let name = &machine.object.spec.host_key;
    let secret =
        context.objects::<KubeSecret>().get(name).await.map_err(ReconcileError::api(format!("Secret {name}")))?;
    let key = secret.data.as_ref().and_then(|data| data.get("hostKey.pub"));
    key.map(|key| String::from_utf8_lossy(&key.0).into_owned()).ok_or_else(|| ReconcileError::Missing {
        object: format!("MetalMachine {}", machine.name),
        missing: format!("key hostKey.pub of Secret {name}"),
    })
}

/// The account to log in with: the first of the spec, which is there because the spec must have one.
async fn user(context: &Context, machine: &Machine) -> Result<String, ReconcileError> {
    let name = &machine.object.spec.cluster;
    let cluster = context.objects::<MetalCluster>().get(name).await;
    let cluster = cluster.map_err(ReconcileError::api(format!("MetalCluster {name}")))?;
    cluster.spec.users.first().map(|user| user.name.clone()).ok_or_else(|| ReconcileError::Missing {
        object: format!("MetalCluster {name}"),
        missing: String::from("a user account"),
    })
}
