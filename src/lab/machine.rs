//! One machine: a task that owns its QEMU process, its boot override, its CD drive and its cable.
//!
//! The BMC and the control socket hold a [`MachineHandle`]: they read the [`View`] and send [`Command`]s. The task starts
//! QEMU again when the guest resets itself, with what the override says at that moment.

use super::network;
use super::process::ProcessRecord;
use super::qemu::{self, BootSource, Firmware};
use super::qmp::{Ending, Qmp, QmpError};
use super::rack::{self, Rack, RackMachine};
use crate::hardware::PowerState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How long QEMU may take to close its disks before it is killed.
const QUIT_PATIENCE: Duration = Duration::from_secs(10);

/// Why a machine did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// QEMU did not start.
    #[error("{machine}: QEMU does not start: {reason}")]
    Start {
        /// The machine.
        machine: String,
        /// QEMU's last words.
        reason: String,
    },
    /// QEMU's monitor did not do it.
    #[error("{machine}: {reason}")]
    Monitor {
        /// The machine.
        machine: String,
        /// Why.
        reason: QmpError,
    },
    /// The cable could not be pulled or plugged in.
    #[error("{machine}: {reason}")]
    Cable {
        /// The machine.
        machine: String,
        /// Why.
        reason: String,
    },
    /// The lab is being taken down.
    #[error("the lab is going down")]
    Gone,
}

/// Redfish's `ResetType`, as far as it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetType {
    /// Power on; fine if it is on already.
    On,
    /// Cut the power; fine if it is off already.
    ForceOff,
    /// Cut the power and power on.
    ForceRestart,
    /// Press the button and leave it to the operating system.
    GracefulShutdown,
    /// Press the button: on if it is off, else as above.
    PushPowerButton,
}

/// How long an override holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverrideEnabled {
    /// It does not.
    #[default]
    Disabled,
    /// For the next start only.
    Once,
    /// Until it is changed.
    Continuous,
}

/// Redfish's boot source override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootOverride {
    /// How long it holds.
    pub enabled: OverrideEnabled,
    /// What it names; `None` names nothing.
    pub target: Option<BootSource>,
}

impl BootOverride {
    /// Nothing is overridden.
    pub const NONE: Self = Self { enabled: OverrideEnabled::Disabled, target: None };

    /// Takes what the next start begins from; what holds once is used up by it.
    fn take(&mut self) -> BootSource {
        let source = match self.enabled {
            OverrideEnabled::Disabled => None,
            OverrideEnabled::Once | OverrideEnabled::Continuous => self.target,
        };
        if self.enabled == OverrideEnabled::Once {
            *self = Self::NONE;
        }
        source.unwrap_or(BootSource::Disk)
    }
}

/// What is in the virtual CD drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Medium {
    /// Where it was fetched from.
    pub url: String,
    /// The file.
    pub file: PathBuf,
}

/// A machine as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Power.
    pub power: PowerState,
    /// QEMU's process id while the machine is on.
    pub pid: Option<u32>,
    /// How often it started, resets included.
    pub starts: u64,
    /// What the last start began from.
    pub booted_from: Option<BootSource>,
    /// What the next start will begin from.
    pub boot: BootOverride,
    /// The CD.
    pub medium: Option<Medium>,
    /// Whether the network cable is in.
    pub cable: bool,
    /// Why the machine is off though it should be on.
    pub error: Option<String>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            power: PowerState::Off,
            pid: None,
            starts: 0,
            booted_from: None,
            boot: BootOverride::NONE,
            medium: None,
            cable: true,
            error: None,
        }
    }
}

/// An order to a machine.
#[derive(Debug)]
pub enum Order {
    /// Power.
    Reset(ResetType),
    /// What the next start begins from.
    Boot(BootOverride),
    /// Put in a CD, or take it out.
    Medium(Option<Medium>),
    /// Plug the network cable in, or pull it.
    Cable(bool),
}

/// An order, and where its outcome goes.
pub type Command = (Order, oneshot::Sender<Result<(), MachineError>>);

/// What the BMC and the control socket hold of a machine.
#[derive(Clone, Debug)]
pub struct MachineHandle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
}

impl MachineHandle {
    /// A handle, and the machine's ends of it.
    pub fn new() -> (Self, mpsc::Receiver<Command>, watch::Sender<View>) {
        let (commands, orders) = mpsc::channel(8);
        let (viewed, view) = watch::channel(View::default());
        (Self { commands, view }, orders, viewed)
    }

    /// The machine as it is now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Sends an order and waits until it is carried out.
    pub async fn order(&self, order: Order) -> Result<(), MachineError> {
        let (done, outcome) = oneshot::channel();
        self.commands.send((order, done)).await.map_err(|_| MachineError::Gone)?;
        outcome.await.map_err(|_| MachineError::Gone)?
    }
}

/// QEMU while it runs.
struct Running {
    child: Child,
    qmp: Qmp,
    record: PathBuf,
}

/// The task behind a [`MachineHandle`].
pub struct Machine {
    rack: Arc<Rack>,
    machine: RackMachine,
    firmware: Firmware,
    view: watch::Sender<View>,
    running: Option<Running>,
}

impl Machine {
    /// A machine that is off.
    pub fn new(rack: Arc<Rack>, machine: RackMachine, firmware: Firmware, view: watch::Sender<View>) -> Self {
        Self { rack, machine, firmware, view, running: None }
    }

    /// Carries out orders until `stop`, then cuts the power.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Command>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                order = orders.recv() => match order {
                    // The sender may have given up; the order was carried out all the same.
                    Some((order, done)) => drop(done.send(self.carry_out(order).await)),
                    None => break,
                },
                ending = ended(&mut self.running) => self.has_ended(ending).await,
            }
        }
        self.power_off().await;
    }

    async fn carry_out(&mut self, order: Order) -> Result<(), MachineError> {
        match order {
            Order::Reset(reset) => self.reset(reset).await,
            Order::Boot(boot) => {
                self.view.send_modify(|view| view.boot = boot);
                Ok(())
            }
            Order::Medium(medium) => self.change_medium(medium).await,
            Order::Cable(up) => {
                network::set_link(&self.machine.tap, up).await.map_err(|error| MachineError::Cable {
                    machine: self.machine.name.clone(),
                    reason: error.to_string(),
                })?;
                self.view.send_modify(|view| view.cable = up);
                Ok(())
            }
        }
    }

    async fn reset(&mut self, reset: ResetType) -> Result<(), MachineError> {
        match (reset, self.running.is_some()) {
            (ResetType::On | ResetType::PushPowerButton, false) | (ResetType::ForceRestart, false) => {
                self.power_on().await
            }
            (ResetType::On, true) | (ResetType::ForceOff | ResetType::GracefulShutdown, false) => Ok(()),
            (ResetType::ForceOff, true) => {
                self.power_off().await;
                Ok(())
            }
            (ResetType::ForceRestart, true) => {
                self.power_off().await;
                self.power_on().await
            }
            (ResetType::GracefulShutdown | ResetType::PushPowerButton, true) => {
                self.monitor("system_powerdown", None).await
            }
        }
    }

    async fn power_on(&mut self) -> Result<(), MachineError> {
        let mut source = BootSource::Disk;
        self.view.send_modify(|view| source = view.boot.take());
        let started = self.start(source).await;
        self.view.send_modify(|view| match &started {
            Ok(pid) => {
                view.power = PowerState::On;
                view.pid = *pid;
                view.starts += 1;
                view.booted_from = Some(source);
                view.error = None;
            }
            Err(error) => view.error = Some(error.to_string()),
        });
        started.map(drop)
    }

    /// Starts QEMU and waits until its monitor answers; gives its pid.
    async fn start(&mut self, source: BootSource) -> Result<Option<u32>, MachineError> {
        let name = self.machine.name.clone();
        let failed = |reason: String| MachineError::Start { machine: name.clone(), reason };
        let io = |error: std::io::Error| failed(error.to_string());
        let medium = self.view.borrow().medium.as_ref().map(|medium| medium.file.clone());
        let arguments = qemu::arguments(&self.rack, &self.machine, &self.firmware, source, medium.as_deref());
        let dir = self.rack.machine_dir(&self.machine.name);
        mark_console(&self.rack.console_log(&self.machine.name), source).map_err(io)?;
        let errors = dir.join("qemu.log");
        let mut child = command(&arguments, &errors).map_err(io)?.spawn().map_err(io)?;
        let pid = child.id();
        let record = rack::run_dir(&self.rack.name).join(format!("{}.process", self.machine.name));
        if let Some(process) = pid.and_then(ProcessRecord::of) {
            process.save(&record).map_err(|error| failed(error.to_string()))?;
        }
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("its monitor has no pipe".to_owned()));
        };
        tracing::info!(machine = %self.machine.name, pid, ?source, "power on");
        match Qmp::open(input, output).await {
            Ok(qmp) => self.running = Some(Running { child, qmp, record }),
            Err(error) => {
                // Dropping the child kills it, if it is still there.
                let words = std::fs::read_to_string(&errors).unwrap_or_default();
                return Err(failed(words.lines().last().map_or_else(|| error.to_string(), str::to_owned)));
            }
        }
        Ok(pid)
    }

    /// Cuts the power. QEMU is asked first: killed, it would leave its disk's qcow2 tables half written.
    async fn power_off(&mut self) {
        if let Some(mut running) = self.running.take() {
            let quit = async {
                // It ends in the middle of its answer.
                let _ = running.qmp.execute("quit", None).await;
                running.child.wait().await
            };
            if tokio::time::timeout(QUIT_PATIENCE, quit).await.is_err() {
                let _ = running.child.kill().await;
            }
            self.note_off(&running.record);
        }
    }

    /// QEMU ended by itself.
    async fn has_ended(&mut self, ending: Ending) {
        if let Some(mut running) = self.running.take() {
            // Its pipes are closed, so this takes no longer than closing the disks.
            if tokio::time::timeout(QUIT_PATIENCE, running.child.wait()).await.is_err() {
                let _ = running.child.kill().await;
            }
            self.note_off(&running.record);
        }
        if ending == Ending::GuestReset
            && let Err(error) = self.power_on().await
        {
            tracing::error!(machine = %self.machine.name, %error, "no start after the guest's reset");
        }
    }

    fn note_off(&self, record: &Path) {
        tracing::info!(machine = %self.machine.name, "power off");
        let _ = std::fs::remove_file(record);
        self.view.send_modify(|view| {
            view.power = PowerState::Off;
            view.pid = None;
        });
    }

    async fn change_medium(&mut self, medium: Option<Medium>) -> Result<(), MachineError> {
        if self.running.is_some() {
            let drive = json!(qemu::CD_DRIVE);
            match &medium {
                Some(medium) => {
                    let change =
                        json!({"id": drive, "filename": medium.file, "format": "raw", "read-only-mode": "retain"});
                    self.monitor("blockdev-change-medium", Some(change)).await?;
                }
                None => self.monitor("eject", Some(json!({"id": drive, "force": true}))).await?,
            }
        }
        self.view.send_modify(|view| view.medium = medium);
        Ok(())
    }

    async fn monitor(&mut self, command: &str, arguments: Option<serde_json::Value>) -> Result<(), MachineError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let machine = self.machine.name.clone();
        let result = running.qmp.execute(command, arguments).await;
        result.map(drop).map_err(|reason| MachineError::Monitor { machine, reason })
    }
}

/// Waits for QEMU's end; for ever while there is none.
async fn ended(running: &mut Option<Running>) -> Ending {
    match running {
        Some(running) => running.qmp.ended().await,
        None => std::future::pending().await,
    }
}

/// QEMU with its monitor on pipes; it dies with the daemon, however that ends.
fn command(arguments: &[String], errors: &Path) -> std::io::Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(errors)?);
    command.kill_on_drop(true);
    Ok(command)
}

/// Writes into the console's log where a start begins.
fn mark_console(log: &Path, source: BootSource) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let now = Timestamp::now().strftime("%FT%TZ");
    writeln!(file, "\r\n\x1b[0m--- {now} start from {source:?} ---\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_means_once() {
        let mut boot = BootOverride { enabled: OverrideEnabled::Once, target: Some(BootSource::Pxe) };
        assert_eq!(boot.take(), BootSource::Pxe);
        assert_eq!(boot, BootOverride::NONE);
        assert_eq!(boot.take(), BootSource::Disk);
    }

    #[test]
    fn continuous_holds_and_disabled_does_nothing() {
        let mut boot = BootOverride { enabled: OverrideEnabled::Continuous, target: Some(BootSource::Cd) };
        assert_eq!((boot.take(), boot.take()), (BootSource::Cd, BootSource::Cd));
        boot.enabled = OverrideEnabled::Disabled;
        assert_eq!(boot.take(), BootSource::Disk);
    }
}
