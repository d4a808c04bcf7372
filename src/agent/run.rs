//! The agent's life, from the first instruction after the kernel to the restart.

use super::arguments::{ArgumentError, Arguments};
use super::boot::{self, EFIVARS};
use super::console::Console;
use super::disk::size;
use super::facts;
use super::fetch::Patience;
use super::install::{self, InstallError, Machine};
use super::modules::{Drivers, Load, Modules, insert};
use super::network;
use super::protocol::{Claim, Report, Step, Task};
use super::report::Reporter;
use super::server::{Server, ServerError};
use crate::error::chain;
use crate::hardware::{BootMode, Facts, MacAddr};
use rustix::io::Errno;
use rustix::system::{RebootCommand, reboot, uname};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A machine that is done waits so long for an installer that does not take its last reports, before it restarts.
const LAST_REPORTS: Duration = Duration::from_secs(30 * 60);

/// What stops the machine.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the installer's boot script is wrong, or this machine was started by something else")]
    Arguments(#[source] ArgumentError),
    #[error("the network does not work")]
    Network(#[source] network::NetworkError),
    #[error("the installer gives no work order")]
    Claim(#[source] ServerError),
    #[error("the installer does not take what this machine told of itself")]
    Inventory(#[source] ServerError),
    #[error("the operating system could not be installed")]
    Install(#[source] InstallError),
    #[error("the agent's own machinery does not start")]
    Runtime(#[source] std::io::Error),
    #[error("the machine cannot be restarted or switched off")]
    Restart(#[source] Errno),
}

impl Stop {
    /// What the operator can do.
    fn hint(&self) -> &'static str {
        match self {
            Self::Claim(error) | Self::Inventory(error) if error.refused() => {
                "The token of this boot is used up or replaced. Restart the machine so that it boots from the network again."
            }
            Self::Install(_) => {
                "The machine stays as it is and will not boot from its disk. Correct the cause, then run the installer again."
            }
            _ => "Correct the cause, then restart the machine so that it boots from the network again.",
        }
    }
}

/// Runs as PID 1 of the initramfs, and returns only if it is not that.
pub fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        // Whoever starts this by hand keeps their disk.
        eprintln!("metalgate-agent is /init of a machine that is being installed; it does nothing else");
        return ExitCode::from(2);
    }
    let prepared = boot::prepare();
    let console = Console::open(Path::new("/sys"), Path::new("/dev"));
    console.show_tracing();
    if let Err(error) = prepared {
        tracing::error!("{}", chain(&error));
    }
    let left = serve(&console).and_then(|end| {
        rustix::fs::sync();
        reboot(end).map_err(Stop::Restart).inspect_err(|stop| show(&console, stop))
    });
    drop(left);
    loop {
        // PID 1 must not end: the kernel would panic, and the message be gone.
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn show(console: &Console, stop: &Stop) {
    console.stop(&["metalgate: THE INSTALLATION OF THIS MACHINE HAS STOPPED", &chain(stop), stop.hint()]);
}

/// Does what this machine was started for, and says how it ends; an error has been shown when this returns.
fn serve(console: &Console) -> Result<RebootCommand, Stop> {
    let drivers = drivers();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Stop::Runtime);
    let runtime = runtime.inspect_err(|stop| show(console, stop))?;
    runtime.block_on(async {
        let reporter = Reporter::default();
        let mut tasks = JoinSet::new();
        let end = life(drivers, &reporter, &mut tasks).await;
        if let Err(stop) = &end {
            show(console, stop);
        }
        // Whoever waits for this machine is told, be it that the installer is started again hours later.
        let patience = if end.is_ok() { LAST_REPORTS } else { Duration::MAX };
        reporter.flush(patience).await;
        end
    })
}

/// The drivers of what the machine has. A kernel may have everything built in: that there are no modules stops nothing yet.
fn drivers() -> Drivers<Load> {
    let release = uname().release().to_string_lossy().into_owned();
    let modules = Modules::read(&Path::new("/lib/modules").join(release)).unwrap_or_else(|error| {
        tracing::warn!("no drivers: {}", chain(&error));
        Modules::default()
    });
    let mut drivers = Drivers::new(modules, Path::new("/sys"), insert as Load);
    drivers.settle();
    drivers.load("efivarfs");
    if let Err(error) = boot::mount_efivars() {
        tracing::warn!("there will be no boot entry: {}", chain(&error));
    }
    drivers
}

/// From the network to the end of the installation, or of the inventory.
async fn life(mut drivers: Drivers<Load>, reporter: &Reporter, tasks: &mut JoinSet<()>) -> Result<RebootCommand, Stop> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let arguments = Arguments::parse(&line).map_err(Stop::Arguments)?;
    let sys = Path::new("/sys");
    let name = interface(sys, arguments.mac, &mut drivers).await?;
    tracing::info!("{name} ({}) gets {}", arguments.mac, arguments.address);
    let interface = (name.as_str(), arguments.mac);
    network::configure(sys, interface, arguments.address, arguments.gateway).await.map_err(Stop::Network)?;

    let server = Server::new(&arguments).map_err(Stop::Claim)?;
    if arguments.task == Task::Inventory {
        let facts = settled(&mut drivers).await;
        describe(&facts);
        let claim = Claim { token: arguments.token, mac: arguments.mac, facts };
        server.inventory(&claim).await.map_err(Stop::Inventory)?;
        tracing::info!("this machine is known now, and switches itself off");
        return Ok(RebootCommand::PowerOff);
    }
    let facts = facts::gather(Path::new("/"));
    describe(&facts);
    let machine = Machine {
        arch: facts.arch,
        variables: (facts.firmware == BootMode::Uefi).then(|| EFIVARS.into()),
        patience: Patience::default(),
    };
    let claim = Claim { token: arguments.token, mac: arguments.mac, facts };
    let order = server.claim(&claim).await.map_err(Stop::Claim)?;
    tracing::info!("this machine becomes {}", order.machine);

    tasks.spawn(reporter.clone().run(server.clone(), order.session.clone()));
    let disks = || {
        drivers.look();
        facts::disks(sys)
    };
    let installed = install::run(&order, &machine, server.client(), disks, reporter).await;
    if installed.is_ok() {
        reporter.started(Step::Finish, "the machine restarts as soon as the installer knows that it is done");
    }
    reporter.send(match &installed {
        Ok(()) => Report::Leaving { how: order.finish },
        Err(InstallError { step, cause }) => Report::Failed { step: *step, error: chain(cause.as_ref()) },
    });
    installed.map(|()| RebootCommand::Restart).map_err(Stop::Install)
}

/// Controllers show their disks one by one: a machine is described when nothing was new for so long.
const QUIET: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

async fn settled(drivers: &mut Drivers<Load>) -> Facts {
    let mut facts = facts::gather(Path::new("/"));
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        sleep(LOOK).await;
        drivers.look();
        let seen = facts::gather(Path::new("/"));
        if (&seen.disks, &seen.nics) != (&facts.disks, &facts.nics) {
            since = Instant::now();
        }
        facts = seen;
    }
    facts
}

/// Some interfaces appear only after their firmware was loaded.
const INTERFACE: Duration = Duration::from_secs(30);

async fn interface(sys: &Path, mac: MacAddr, drivers: &mut Drivers<Load>) -> Result<String, Stop> {
    let deadline = Instant::now() + INTERFACE;
    loop {
        match network::interface(sys, mac) {
            Err(_) if Instant::now() < deadline => {
                sleep(Duration::from_millis(500)).await;
                drivers.look();
            }
            found => return found.map_err(Stop::Network),
        }
    }
}

fn describe(facts: &Facts) {
    let product = facts.product.as_deref().unwrap_or("machine of unknown make");
    let (threads, model) = (facts.cpu_threads, &facts.cpu_model);
    tracing::info!("{product}, {threads} x {model}, {} memory, {}", size(facts.memory_bytes), facts.firmware);
    for disk in &facts.disks {
        let serial = disk.serial.as_deref().unwrap_or("none");
        tracing::info!("disk {} {} {:?}, serial {serial}", disk.path, size(disk.bytes), disk.kind);
    }
}
