//! `metalgate lab up|down|status|fault|console`: the virtual rack.

use super::arguments::ArtifactsArg;
use super::{Failure, OutputFormat};
use crate::hardware::{BootMode, PowerState};
use crate::image::choice::ImageChoice;
use crate::lab::control::{Client, MachineStatus};
use crate::lab::files;
use crate::lab::rack::{Accelerator, BiosPxe, Installed, Rack, RackOptions};
use crate::lab::redfish::Fault;
use crate::lab::{LabError, accel, console, down, host, serve, up};
use crate::secret::Secret;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use ipnet::Ipv4Net;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a rack of powered-off virtual machines with BMCs, and the files that describe it
    Up(Box<UpArgs>),
    /// End a rack: its machines, its network, its files
    Down(DownArgs),
    /// Show a rack's machines
    Status(StatusArgs),
    /// Break a machine or its BMC, or mend it again
    Fault(FaultArgs),
    /// Attach to a machine's serial console
    Console(ConsoleArgs),
    /// The daemon of a rack, inside its network namespace
    #[command(hide = true)]
    Serve(NameArgs),
}

#[derive(ClapArgs)]
struct NameArgs {
    /// The rack's name; its network namespace is mg-NAME
    #[arg(long, default_value = "rack")]
    name: String,
}

#[derive(ClapArgs)]
struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Firmware of each machine, in order; the first machine is the control plane
    #[arg(long, value_delimiter = ',', value_name = "uefi|bios", conflicts_with_all = ["uefi", "bios"])]
    machines: Vec<Firmware>,
    /// Number of UEFI machines [default: 1]
    #[arg(long)]
    uefi: Option<usize>,
    /// Number of BIOS machines [default: 1]
    #[arg(long)]
    bios: Option<usize>,
    /// Memory of each machine, in MiB; the host gives what a machine touches
    #[arg(long, default_value_t = 6144, value_name = "MIB")]
    memory: u32,
    /// Processors of each machine; without KVM, more than one makes two machines slower, not faster
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Disk of each machine, in GB; takes space only as it is written
    #[arg(long, default_value_t = 10, value_name = "GB")]
    disk: u32,
    /// Where disks, logs, hardware.csv and cluster.yaml go [default: /var/lib/metalgate/lab/NAME]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The network of the machines and their BMCs, inside the namespace
    #[arg(long, default_value = "10.77.0.0/24")]
    subnet: Ipv4Net,
    /// File with one password for all BMCs; else each gets a random one
    #[arg(long, value_name = "FILE")]
    bmc_password_file: Option<PathBuf>,
    /// What runs the machines' code; auto takes KVM if firmware boots with it
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    accel: Accel,
    /// What BIOS machines boot from the network with
    #[arg(long, value_enum, default_value_t = BiosPxe::Pxe)]
    bios_pxe: BiosPxe,
    /// What runs an installed system: the machine itself, or a container with the host's kernel [default: native without KVM]
    #[arg(long, value_enum)]
    installed: Option<Installed>,
    #[command(flatten)]
    artifacts: ArtifactsArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum Firmware {
    Uefi,
    Bios,
}

#[derive(Clone, Copy, ValueEnum)]
enum Accel {
    Auto,
    Kvm,
    Tcg,
}

#[derive(ClapArgs)]
struct DownArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Keep disks, logs, hardware.csv and cluster.yaml
    #[arg(long)]
    keep: bool,
}

#[derive(ClapArgs)]
struct StatusArgs {
    #[command(flatten)]
    name: NameArgs,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(ClapArgs)]
struct FaultArgs {
    /// The machine, as in node1
    machine: String,
    /// What is to be wrong with it
    #[arg(value_enum)]
    fault: Fault,
    #[command(flatten)]
    name: NameArgs,
}

#[derive(ClapArgs)]
struct ConsoleArgs {
    /// The machine, as in node1
    machine: String,
    #[command(flatten)]
    name: NameArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Up(args) => up(*args).await,
        Command::Down(args) => down(args).await,
        Command::Status(args) => status(args).await,
        Command::Fault(args) => {
            let rack = load(&args.name.name)?;
            Ok(Client::new(&rack)?.set_fault(&args.machine, args.fault).await?)
        }
        Command::Console(args) => {
            let rack = load(&args.name.name)?;
            Ok(console::attach(&rack, rack.machine(&args.machine)?).await?)
        }
        Command::Serve(args) => {
            // To the log that `up` made of its standard error; whoever set up a subscriber before wins.
            let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).try_init();
            Ok(serve::serve(&args.name).await?)
        }
    }
}

fn load(name: &str) -> Result<Rack, LabError> {
    up::load(name)?.ok_or_else(|| LabError::NotUp(name.to_owned()))
}

async fn up(args: UpArgs) -> Result<(), Failure> {
    let accelerator = match args.accel {
        Accel::Auto => accel::choose().await?,
        Accel::Kvm => Accelerator::Kvm,
        Accel::Tcg => Accelerator::Tcg,
    };
    let artifacts = args.artifacts.dir()?;
    let image = ImageChoice::of(&artifacts);
    if image.is_none() {
        eprintln!(
            "hint: {} has no OS image and no Kubernetes yet: `metalgate artifacts fill`, then `lab up`",
            artifacts.display()
        );
    }
    let rack = plan(args, accelerator)?;
    if rack.installed == Installed::Native
        && let Some(hint) = host::conntrack_hint()
    {
        eprintln!("hint: {hint}");
    }
    let rack = match up::up(&rack, image.as_ref()).await? {
        up::Outcome::Made => rack,
        up::Outcome::WasUp(rack) => {
            eprintln!("lab {} is up already, as it was made then; `metalgate lab down` ends it", rack.name);
            *rack
        }
    };
    print_machines(&rack, &Client::new(&rack)?.machines().await?);
    let file = |name| rack.dir.join(name).display().to_string();
    println!();
    println!("ip netns exec {} metalgate create cluster \\", rack.namespace());
    println!("  -f {} --hardware-csv {}", file(files::CLUSTER_YAML), file(files::HARDWARE_CSV));
    Ok(())
}

fn plan(args: UpArgs, accelerator: Accelerator) -> Result<Rack, Failure> {
    let machines = if args.machines.is_empty() {
        let (uefi, bios) = match (args.uefi, args.bios) {
            (None, None) => (1, 1),
            (uefi, bios) => (uefi.unwrap_or(0), bios.unwrap_or(0)),
        };
        [vec![BootMode::Uefi; uefi], vec![BootMode::Bios; bios]].concat()
    } else {
        let mode = |firmware: &Firmware| match firmware {
            Firmware::Uefi => BootMode::Uefi,
            Firmware::Bios => BootMode::Bios,
        };
        args.machines.iter().map(mode).collect()
    };
    let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|source| LabError::File { path, source });
    let password = args.bmc_password_file.map(read).transpose()?;
    let name = args.name.name;
    let dir = args.dir.unwrap_or_else(|| PathBuf::from("/var/lib/metalgate/lab").join(&name));
    let options = RackOptions {
        machines,
        memory_mib: args.memory,
        cpus: args.cpus,
        disk_gb: args.disk,
        dir: std::path::absolute(dir)?,
        subnet: args.subnet,
        bmc_password: password.map(|text| Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
        accelerator,
        bios_pxe: args.bios_pxe,
        installed: args.installed.unwrap_or(match accelerator {
            Accelerator::Kvm => Installed::Emulated,
            Accelerator::Tcg => Installed::Native,
        }),
        name,
    };
    Rack::plan(options).map_err(|error| Failure::Input(format!("error: {error}\n")))
}

async fn down(args: DownArgs) -> Result<(), Failure> {
    let name = &args.name.name;
    let keep = if args.keep { down::Keep::Everything } else { down::Keep::Nothing };
    match down::down(name, keep).await? {
        down::Outcome::WasDown => eprintln!("there is no lab {name}"),
        down::Outcome::Down(strangers) if strangers.is_empty() => eprintln!("lab {name} is down"),
        down::Outcome::Down(strangers) => eprintln!(
            "lab {name} is down; these processes, which it did not start, still run in what was its namespace: {}",
            strangers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
        ),
    }
    Ok(())
}

async fn status(args: StatusArgs) -> Result<(), Failure> {
    let rack = load(&args.name.name)?;
    let machines = Client::new(&rack)?.machines().await?;
    match args.output {
        OutputFormat::Text => print_machines(&rack, &machines),
        OutputFormat::Json => {
            let machines = rack.machines.iter().zip(&machines).map(|(planned, status)| {
                let mut value = serde_json::to_value(status)?;
                value["bootMode"] = json!(planned.boot_mode);
                value["mac"] = json!(planned.mac);
                value["address"] = json!(planned.address);
                value["bmc"] = json!(format!("https://{}", planned.bmc_address));
                value["console"] = json!(rack.console_log(&planned.name));
                value["qmp"] = json!(rack.qmp_socket(&planned.name));
                Ok(value)
            });
            let status = json!({
                "name": rack.name,
                "namespace": rack.namespace(),
                "dir": rack.dir,
                "accelerator": rack.accelerator,
                "installed": rack.installed,
                "machines": machines.collect::<Result<Vec<_>, serde_json::Error>>()?,
            });
            serde_json::to_writer_pretty(std::io::stdout(), &status)?;
            writeln!(std::io::stdout())?;
        }
    }
    Ok(())
}

fn print_machines(rack: &Rack, machines: &[MachineStatus]) {
    println!("{:8} {:5} {:5} {:18} {:15} {:27} CONSOLE", "MACHINE", "BOOT", "POWER", "MAC", "ADDRESS", "BMC");
    for (planned, status) in rack.machines.iter().zip(machines) {
        let power = match status.view.power {
            PowerState::On => "on",
            PowerState::Off => "off",
        };
        println!(
            "{:8} {:5} {power:5} {:18} {:15} {:27} {}",
            planned.name,
            planned.boot_mode.to_string(),
            planned.mac.to_string(),
            planned.address.to_string(),
            format!("https://{}", planned.bmc_address),
            rack.console_log(&planned.name).display(),
        );
        if status.fault != Fault::None {
            println!(
                "         fault: {}",
                status.fault.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
            );
        }
        if let Some(error) = &status.view.error {
            println!("         {error}");
        }
    }
}
