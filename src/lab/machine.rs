//! One machine: a task that owns its process, its boot override, its CD drive and its cable.
//!
//! The BMC and the control socket hold a [`MachineHandle`]: they read the [`View`] and send [`Command`]s. The task starts
//! the machine again when the guest resets itself, with what the override says at that moment: QEMU, or a container if the
//! rack runs what is installed natively and this is a start from a disk with something on it.

use super::container::{self, Container};
use super::emulator::Emulator;
use super::network;
use super::process::ProcessRecord;
use super::qemu::{self, BootSource, DISK_FILE, Firmware};
use super::qmp::{Ending, QmpError};
use super::rack::{self, Installed, Rack, RackMachine};
use crate::hardware::PowerState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

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
    /// What is installed on its disk did not start as a container, or did not end.
    #[error("{machine}: its disk does not run as a container: {reason}")]
    Container {
        /// The machine.
        machine: String,
        /// The last words of what starts it.
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
    /// The process id of QEMU or of the container while the machine is on.
    pub pid: Option<u32>,
    /// Whether it is a container with the host's kernel that runs, in place of QEMU.
    pub native: bool,
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
            native: false,
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

/// A machine that is on.
enum Running {
    Emulated(Emulator),
    Native(Container),
}

impl Running {
    fn id(&self) -> Option<u32> {
        match self {
            Self::Emulated(emulator) => emulator.id(),
            Self::Native(container) => container.id(),
        }
    }
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
                let mut links = vec![self.machine.tap.clone()];
                if let Some(Running::Native(_)) = self.running {
                    links.push(container::link(&self.machine));
                }
                for link in links {
                    network::set_link(&link, up).await.map_err(|error| MachineError::Cable {
                        machine: self.machine.name.clone(),
                        reason: error.to_string(),
                    })?;
                }
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
            (ResetType::GracefulShutdown | ResetType::PushPowerButton, true) => self.press_button().await,
        }
    }

    async fn power_on(&mut self) -> Result<(), MachineError> {
        let mut source = BootSource::Disk;
        self.view.send_modify(|view| source = view.boot.take());
        let started = self.start(source).await;
        let (pid, native) = (self.running.as_ref().and_then(Running::id), self.is_native());
        self.view.send_modify(|view| match &started {
            Ok(()) => {
                view.power = PowerState::On;
                view.pid = pid;
                view.native = native;
                view.starts += 1;
                view.booted_from = Some(source);
                view.error = None;
            }
            Err(error) => view.error = Some(error.to_string()),
        });
        started
    }

    fn is_native(&self) -> bool {
        matches!(self.running, Some(Running::Native(_)))
    }

    /// Starts QEMU, or what is installed.
    async fn start(&mut self, source: BootSource) -> Result<(), MachineError> {
        let name = self.machine.name.clone();
        let failed = |reason: String| MachineError::Start { machine: name.clone(), reason };
        let dir = self.rack.machine_dir(&self.machine.name);
        let native = source == BootSource::Disk
            && self.rack.installed == Installed::Native
            && container::is_installed(&dir.join(DISK_FILE));
        let by = if native { " as a container" } else { "" };
        mark_console(&self.rack.console_log(&self.machine.name), source, by)
            .map_err(|error| failed(error.to_string()))?;
        let running = if native {
            let cable = self.view.borrow().cable;
            Running::Native(Container::start(&self.rack, &self.machine, cable)?)
        } else {
            let medium = self.view.borrow().medium.as_ref().map(|medium| medium.file.clone());
            let arguments = qemu::arguments(&self.rack, &self.machine, &self.firmware, source, medium.as_deref());
            let started = Emulator::start(&arguments, &dir.join("qemu.log")).await;
            Running::Emulated(started.map_err(failed)?)
        };
        let pid = running.id();
        self.running = Some(running);
        if let Some(process) = pid.and_then(ProcessRecord::of) {
            process.save(&self.record()).map_err(|error| failed(error.to_string()))?;
        }
        tracing::info!(machine = %self.machine.name, pid, ?source, native, "power on");
        Ok(())
    }

    /// Where the process stands that `lab down` ends if we did not.
    fn record(&self) -> PathBuf {
        rack::run_dir(&self.rack.name).join(format!("{}.process", self.machine.name))
    }

    /// Cuts the power.
    async fn power_off(&mut self) {
        match &mut self.running {
            Some(Running::Emulated(emulator)) => emulator.quit().await,
            Some(Running::Native(container)) => container.kill().await,
            None => return,
        }
        self.note_off(None).await;
    }

    /// It ended by itself.
    async fn has_ended(&mut self, ending: Ending) {
        let mut error = None;
        match &mut self.running {
            Some(Running::Emulated(emulator)) => emulator.reap().await,
            Some(Running::Native(container)) => error = container.complaint().await,
            None => (),
        }
        let machine = self.machine.name.clone();
        self.note_off(error.map(|reason| MachineError::Container { machine, reason })).await;
        if ending == Ending::GuestReset
            && let Err(error) = self.power_on().await
        {
            tracing::error!(machine = %self.machine.name, %error, "no start after the guest's reset");
        }
    }

    async fn note_off(&mut self, mut error: Option<MachineError>) {
        if let Some(Running::Native(_)) = self.running.take()
            && let Err(left) = container::clean(&self.rack, &self.machine).await
        {
            error = Some(MachineError::Container { machine: self.machine.name.clone(), reason: left.to_string() });
        }
        tracing::info!(machine = %self.machine.name, "power off");
        let _ = std::fs::remove_file(self.record());
        if let Some(error) = &error {
            tracing::error!(%error, "a machine ended");
        }
        self.view.send_modify(|view| {
            view.power = PowerState::Off;
            view.pid = None;
            view.native = false;
            view.error = error.map(|error| error.to_string());
        });
    }

    async fn press_button(&mut self) -> Result<(), MachineError> {
        match &mut self.running {
            Some(Running::Native(container)) => container.press_button().await.map_err(|error| {
                MachineError::Container { machine: self.machine.name.clone(), reason: error.to_string() }
            }),
            _ => self.monitor("system_powerdown", None).await,
        }
    }

    async fn change_medium(&mut self, medium: Option<Medium>) -> Result<(), MachineError> {
        if let Some(Running::Emulated(_)) = self.running {
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
        let Some(Running::Emulated(emulator)) = &mut self.running else { return Ok(()) };
        let machine = self.machine.name.clone();
        let result = emulator.execute(command, arguments).await;
        result.map(drop).map_err(|reason| MachineError::Monitor { machine, reason })
    }
}

/// Waits for the machine's end; for ever while it is off.
async fn ended(running: &mut Option<Running>) -> Ending {
    match running {
        Some(Running::Emulated(emulator)) => emulator.ended().await,
        Some(Running::Native(container)) => container.ended().await,
        None => std::future::pending().await,
    }
}

/// Writes into the console's log where a start begins.
fn mark_console(log: &Path, source: BootSource, by: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let now = Timestamp::now().strftime("%FT%TZ");
    writeln!(file, "\r\n\x1b[0m--- {now} start from {source:?}{by} ---\r")
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
