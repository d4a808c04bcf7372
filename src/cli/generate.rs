//! `metalgate generate cluster|hardware|schema`: files to start from. None that is there already is ever overwritten.

use super::Failure;
use super::arguments::ArtifactsArg;
use crate::discover::{self, AddressRange, Asked, Found, Wanted};
use crate::hardware::DiskSelector;
use crate::image::choice::ImageChoice;
use crate::inventory;
use crate::names::{self, Labels};
use crate::spec::schema::{self, Kind};
use crate::spec::start::Start;
use clap::{Subcommand, ValueEnum};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write a spec to start from, with comments; what only you can know is marked FILL IN
    Cluster(Box<ClusterArgs>),
    /// Write an inventory of machines that were discovered, or that BMCs tell of
    ///
    /// Cells that nobody could fill are empty; `metalgate validate` points to those that have to be filled. A file with
    /// BMCs holds their passwords, and is made with mode 0600.
    Hardware(Box<HardwareArgs>),
    /// Print the JSON Schema of a file, for editors: they complete and check a spec whose first line is
    /// `# yaml-language-server: $schema=cluster.schema.json`
    Schema(SchemaArgs),
}

#[derive(clap::Args)]
struct OutputArg {
    /// Write to this file, which must not be there yet [default: stdout]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    path: Option<PathBuf>,
}

#[derive(clap::Args)]
struct ClusterArgs {
    /// The cluster's name
    #[arg(long, default_value = "rack-a", value_parser = dns_label)]
    name: String,
    /// Address of the API server: a free one of the machines' network, or that of the only control-plane machine
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<Ipv4Addr>,
    /// This machine's interface in the network of the machines
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Who may log in to the machines [default: ~/.ssh/id_ed25519.pub, or another key there]
    #[arg(long, value_name = "FILE.pub")]
    ssh_key: Option<PathBuf>,
    /// Control-plane machines, an odd number
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    control_planes: u32,
    /// Workers
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    workers: u32,
    /// An API gateway in front of the cluster
    #[arg(long, value_enum)]
    gateway: Option<Gateway>,
    #[command(flatten)]
    artifacts: ArtifactsArg,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum Gateway {
    /// Envoy Gateway
    Envoy,
    /// Kong in hybrid mode
    Kong,
}

#[derive(clap::Args)]
struct HardwareArgs {
    /// What `metalgate discover --output json` has written; - is stdin
    #[arg(long, value_name = "FILE.json", required_unless_present = "bmc")]
    discovered: Option<PathBuf>,
    /// Ask these BMCs: a CSV with the columns bmc_ip, bmc_username, bmc_password, and bmc_type where it is not redfish
    #[arg(long, value_name = "bmcs.csv")]
    bmc: Option<PathBuf>,
    /// Addresses for the machines: 10.0.0.20-10.0.0.60/24
    #[arg(long, value_name = "RANGE")]
    addresses: Option<AddressRange>,
    /// Their default route
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// Their resolvers
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    nameservers: Vec<IpAddr>,
    /// Their labels: type=worker,rack=a
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// The disk to install on, by path or hint [default: the disk of machines that have only one]
    #[arg(long, value_name = "DISK")]
    disk: Option<DiskSelector>,
    /// What the machines are called, before a number
    #[arg(long, value_name = "PREFIX", default_value = "node-", value_parser = prefix)]
    hostname: String,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(clap::Args)]
struct SchemaArgs {
    /// Of which file
    #[arg(value_enum, default_value_t)]
    kind: SchemaKind,
    #[command(flatten)]
    output: OutputArg,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum SchemaKind {
    /// cluster.yaml
    #[default]
    Cluster,
    /// A file of `kind: GatewayStack`
    Gateway,
}

fn dns_label(text: &str) -> Result<String, String> {
    names::dns_label(text).map_err(|problem| problem.message)
}

fn prefix(text: &str) -> Result<String, String> {
    dns_label(&format!("{text}1")).map(|_| text.to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    names::label_key(key).and_then(|()| names::label_value(value)).map_err(|problem| problem.message)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A file that was there before.
#[derive(Debug, thiserror::Error)]
#[error("{0} is there already, and is not overwritten: move it away, or name another file with --output")]
struct Exists(PathBuf);

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("{0} is not what `metalgate discover --output json` writes")]
    NotDiscovered(PathBuf, #[source] serde_json::Error),
}

pub async fn run(args: Args) -> Result<(), Failure> {
    match args.what {
        What::Cluster(args) => cluster(*args),
        What::Hardware(args) => hardware(*args).await,
        What::Schema(args) => {
            let kind = match args.kind {
                SchemaKind::Cluster => Kind::Cluster,
                SchemaKind::Gateway => Kind::GatewayStack,
            };
            let text = serde_json::to_string_pretty(&schema::schema(kind))? + "\n";
            write(&args.output, &text, 0o644)
        }
    }
}

fn cluster(args: ClusterArgs) -> Result<(), Failure> {
    let ssh_key = match &args.ssh_key {
        Some(path) => Some(read(path)?),
        None => own_key(),
    };
    let artifacts = args.artifacts.dir()?;
    let start = Start {
        name: args.name,
        endpoint: args.endpoint,
        interface: args.interface,
        image: ImageChoice::of(&artifacts),
        ssh_key: ssh_key.map(|key| key.trim().to_owned()),
        control_planes: args.control_planes,
        workers: args.workers,
        gateway: args.gateway.map(|gateway| match gateway {
            Gateway::Envoy => "envoy",
            Gateway::Kong => "kong",
        }),
    };
    write(&args.output, &start.render()?, 0o644)
}

/// A public key of the user's.
fn own_key() -> Option<String> {
    let dir = PathBuf::from(std::env::var_os("HOME")?).join(".ssh");
    let names = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];
    names.iter().find_map(|name| std::fs::read_to_string(dir.join(name)).ok())
}

async fn hardware(args: HardwareArgs) -> Result<(), Failure> {
    // Before BMCs are asked for minutes.
    if let Some(path) = args.output.path.as_ref().filter(|path| path.exists()) {
        return Err(Exists(path.clone()).into());
    }
    let found: Vec<Found> = match &args.discovered {
        Some(path) => {
            let text = if path == Path::new("-") { stdin()? } else { read(path)? };
            serde_json::from_str(&text).map_err(|error| FileError::NotDiscovered(path.clone(), error))?
        }
        None => Vec::new(),
    };
    let asked = match &args.bmc {
        Some(path) => ask(path).await?,
        None => Vec::new(),
    };
    let labels: Labels = args.labels.into_iter().collect();
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let wanted = Wanted {
        prefix: args.hostname,
        addresses: args.addresses,
        gateway: args.gateway,
        nameservers: args.nameservers,
        labels: labels.join("|"),
        disk: args.disk.map(|disk| disk.to_string()),
    };
    let made = discover::make(&found, &asked, &wanted)?;
    for note in &made.notes {
        eprintln!("hint: {note}");
    }
    write(&args.output, made.csv.expose(), 0o600)?;
    eprintln!("{} machines; `metalgate validate` points to what is still to be filled in", made.machines);
    Ok(())
}

/// Asks the BMCs of a list. One that does not answer is a row with holes; that none answers is a failure.
async fn ask(path: &Path) -> Result<Vec<Asked>, Failure> {
    let bmcs = inventory::read_bmcs(&path.display().to_string(), read(path)?.into_bytes())?;
    let count = bmcs.len();
    let mut asked = discover::ask(bmcs, |one, done| {
        let how = match &one.answer {
            Ok(Some(inventory)) => {
                let (nics, drives) = (inventory.nics.len(), inventory.drives.len());
                format!("{:?}, {nics} network ports, {drives} disks", inventory.power)
            }
            Ok(None) => String::from("IPMI: not asked"),
            Err(_) => String::from("no answer"),
        };
        eprintln!("[{done}/{count}] {}: {how}", one.bmc.url);
    })
    .await;
    if asked.iter().all(|one| one.answer.is_err())
        && let Some(Asked { answer: Err(error), .. }) = asked.pop()
    {
        return Err(error.into());
    }
    Ok(asked)
}

fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|error| FileError::Read(path.to_owned(), error))
}

fn stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map(|_| text)
}

/// Writes to stdout, or to a file that was not there.
fn write(output: &OutputArg, text: &str, mode: u32) -> Result<(), Failure> {
    let Some(path) = &output.path else {
        return Ok(io::stdout().write_all(text.as_bytes())?);
    };
    let file = OpenOptions::new().create_new(true).write(true).mode(mode).open(path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Exists(path.clone()).into()),
        written => Ok(written.map_err(|error| FileError::Write(path.clone(), error))?),
    }
}
