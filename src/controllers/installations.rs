//! The running installations, kept in the objects: tokens are minted and spent here, work orders made, reports taken.
//!
//! Only hashes of tokens and session keys are stored, in MetalMachine's status, so an agent goes on reporting after the
//! installer was killed and started again. Progress in bytes goes to the events only: it is no state.

use super::{Context, ReconcileError, seed, status};
use crate::agent::protocol::{Claim, Finish, ImageOrder, Report, WorkOrder};
use crate::api::{
    ApiError, BootCredentials, Failure, Hardware, InstallProgress, InstalledOs, MachineState, MetalMachine,
    MetalMachineStatus,
};
use crate::event::EventKind;
use crate::netboot::installations::{InstallationError, Installations};
use crate::secret::Secret;
use async_trait::async_trait;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// [`Installations`] on the API objects.
pub struct ApiInstallations {
    context: Arc<Context>,
    /// Machine by session hash, so that a report a second does not list the objects a second.
    sessions: Mutex<HashMap<String, String>>,
}

impl From<ApiError> for InstallationError {
    fn from(error: ApiError) -> Self {
        ReconcileError::from(error).into()
    }
}

impl From<ReconcileError> for InstallationError {
    fn from(error: ReconcileError) -> Self {
        Self::Store(Box::new(error))
    }
}

fn hash(key: &Secret<String>) -> String {
    hex::encode(Sha256::digest(key.expose().as_bytes()))
}

/// Whether an agent may start from this state. A machine that restarted in the middle starts over.
fn may_install(state: MachineState) -> bool {
    matches!(state, MachineState::Netbooting | MachineState::Installing)
}

impl ApiInstallations {
    /// The installations of this run's objects.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, sessions: Mutex::default() }
    }

    /// Changes a machine's status; a change of state is an event.
    async fn change<E>(
        &self,
        machine: &str,
        mut change: impl FnMut(&mut MetalMachineStatus) -> Result<(), E>,
    ) -> Result<Result<(), E>, ReconcileError> {
        let api = self.context.objects::<MetalMachine>();
        let object = api.get(machine).await.map_err(ApiError::of(format!("MetalMachine {machine}")))?;
        if self.context.epoch(&object.spec.cluster).await?.is_none() {
            return Err(ReconcileError::Elsewhere { cluster: object.spec.cluster });
        }
        let entered = status::update(&api, machine, |status| {
            let before = status.state;
            change(status)?;
            if status.state == before {
                return Ok(None);
            }
            status.since = Some(Timestamp::now());
            Ok(Some((status.state, status.reason.clone())))
        })
        .await?;
        Ok(entered.map(|entered| {
            if let Some((state, reason)) = entered {
                self.context.events.emit(Some(machine), EventKind::State { state: format!("{state:?}"), reason });
            }
        }))
    }

    async fn work_order(&self, name: &str, session: Secret<String>) -> Result<(WorkOrder, String), ReconcileError> {
        let machines = self.context.objects::<MetalMachine>();
        let machine = machines.get(name).await.map_err(ApiError::of(format!("MetalMachine {name}")))?;
        let hardware_name = machine.spec.hardware.clone();
        let hardware = self.context.objects::<Hardware>().get(&hardware_name).await;
        let hardware = hardware.map_err(ApiError::of(format!("Hardware {hardware_name}")))?;
        let cluster = self.context.cluster(&machine.spec.cluster).await?;
        let seed = seed::render(&self.context, &machine, &hardware, &cluster).await?;
        let order = WorkOrder {
            machine: name.to_owned(),
            session,
            image: ImageOrder {
                url: format!("{}/images/{}", self.context.server, cluster.spec.image.name),
                sha256: cluster.spec.image.sha256,
                format: cluster.spec.image.format,
            },
            disk: hardware.spec.disk,
            seed,
            finish: Finish::Reboot,
        };
        Ok((order, hardware_name))
    }

    /// The machine whose agent has this session.
    async fn machine_of(&self, session: &str) -> Result<String, InstallationError> {
        let known = |sessions: &HashMap<String, String>| sessions.get(session).cloned();
        if let Some(machine) = known(&self.sessions.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(machine);
        }
        let machines = self.context.objects::<MetalMachine>().list(&ListParams::default()).await;
        let machines = machines.map_err(ApiError::of("MetalMachines"))?;
        let owns = |machine: &MetalMachine| {
            let boot = machine.status.as_ref().and_then(|status| status.boot.as_ref());
            boot.and_then(|boot| boot.session_hash.as_deref()) == Some(session)
        };
        let machine = machines.into_iter().find(owns).and_then(|machine| machine.metadata.name);
        let machine = machine.ok_or(InstallationError::Refused)?;
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(session.to_owned(), machine.clone());
        Ok(machine)
    }
}

#[async_trait]
impl Installations for ApiInstallations {
    async fn mint_token(&self, machine: &str) -> Result<Secret<String>, InstallationError> {
        let token = Secret::random();
        let token_hash = hash(&token);
        self.change(machine, |status| {
            if !may_install(status.state) && status.state != MachineState::PoweringOn {
                return Err(InstallationError::NotInstalling(machine.to_owned()));
            }
            status.boot.get_or_insert_default().token_hash = Some(token_hash.clone());
            Ok(())
        })
        .await??;
        Ok(token)
    }

    async fn claim(&self, claim: Claim) -> Result<WorkOrder, InstallationError> {
        let machine = self.context.table.get(claim.mac).ok_or(InstallationError::Refused)?.machine;
        // The order is made first: if that fails, the token is not spent.
        let session = Secret::random();
        let session_hash = hash(&session);
        let (order, hardware) = self.work_order(&machine, session).await?;
        let token_hash = hash(&claim.token);
        self.change(&machine, |status| {
            let valid = status.boot.as_ref().and_then(|boot| boot.token_hash.as_ref()) == Some(&token_hash);
            if !valid || !may_install(status.state) {
                return Err(InstallationError::Refused);
            }
            status.boot = Some(BootCredentials { token_hash: None, session_hash: Some(session_hash.clone()) });
            status.state = MachineState::Installing;
            status.reason = String::from("the agent has its work order");
            status.os = None;
            Ok(())
        })
        .await??;
        let patch = Patch::Merge(serde_json::json!({ "status": { "facts": claim.facts } }));
        let written = self.context.objects::<Hardware>().patch_status(&hardware, &PatchParams::default(), &patch).await;
        written.map_err(ApiError::of(format!("the status of Hardware {hardware}")))?;
        Ok(order)
    }

    async fn report(&self, session: &Secret<String>, report: Report) -> Result<(), InstallationError> {
        let session_hash = hash(session);
        let machine = self.machine_of(&session_hash).await?;
        let now = Timestamp::now();
        if !matches!(report, Report::Progress { .. }) {
            self.change(&machine, |status| {
                let current = status.boot.as_ref().and_then(|boot| boot.session_hash.as_ref());
                if current != Some(&session_hash) {
                    return Err(InstallationError::Refused);
                }
                apply(status, &report, now);
                Ok(())
            })
            .await??;
        }
        self.context.events.emit(Some(&machine), report.into());
        Ok(())
    }
}

/// What a report changes in the machine's status.
fn apply(status: &mut MetalMachineStatus, report: &Report, now: Timestamp) {
    match report {
        Report::Started { step, detail } => {
            status.install = Some(InstallProgress { step: *step, heard: now });
            status.reason = format!("{step}: {detail}");
        }
        Report::Progress { .. } => {}
        Report::Written { disk, sha256, .. } => {
            let os = InstalledOs { image_sha256: sha256.clone(), disk: disk.clone(), written: now };
            status.os = Some(os);
        }
        Report::Failed { step, error } => {
            status.state = MachineState::Failed;
            status.reason = format!("{step}: {error}");
            status.failure = Some(Failure { message: error.clone(), at: now });
        }
        Report::Leaving { .. } => {
            status.state = MachineState::Rebooting;
            status.reason = String::from("starts from its disk; waiting for SSH");
            status.boot = None;
            status.install = None;
        }
    }
}
