//! The installed system starts. It counts as installed when it answers SSH with the host key that it was given.

use super::{Context, Machine, Outcome, login};
use crate::api::MachineState;
use crate::controllers::ReconcileError;
use crate::event::EventKind;
use crate::node::ssh::{self, SshError};
use std::time::Duration;

/// Between two tries of SSH.
const RECHECK: Duration = Duration::from_secs(3);

pub async fn step(context: &Context, machine: &mut Machine) -> Result<Outcome, ReconcileError> {
    let (target, host_key) = login::target(context, machine).await?;
    let address = target.address;
    let error = match ssh::verify(&target, &context.ssh_key, &host_key, login::LOGIN).await {
        Ok(verified) => {
            machine.news.push(EventKind::SshVerified { address, fingerprint: verified.fingerprint });
            return Ok(Outcome::to(MachineState::Installed, "installed, and answers SSH with its own host key"));
        }
        Err(error) => error,
    };
    let message = crate::error::chain(&error);
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
