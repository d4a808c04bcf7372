//! `metalgate discover`: the machines of a network, live on stderr, and as data on stdout in the end.

use super::Failure;
use super::arguments::ArtifactsArg;
use crate::discover::{self, AddressRange, Boot, Found, News};
use crate::hardware::MacAddr;
use indicatif::BinaryBytes;
use jiff::SignedDuration;
use std::io::Write;
use std::time::Duration;

/// Hears what machines say by DHCP, until Ctrl-C or for a time, and answers nobody.
///
/// With --boot every machine that boots from the network meanwhile is started with metalgate's agent, which writes nothing
/// to its disks: it tells what the machine has, and SWITCHES IT OFF. Name machines with --only where others must not be
/// touched. `metalgate generate hardware --discovered` makes an inventory of what was found.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// This machine's interface in the network of the machines
    #[arg(short, long, value_name = "IF")]
    interface: String,
    /// How long: 90s, 5m, 1h [default: until Ctrl-C]
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    limit: Option<Duration>,
    /// What goes to stdout
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Answer machines that boot from the network, let them tell what they have, and switch them off
    #[arg(long, requires = "addresses")]
    boot: bool,
    #[command(flatten)]
    booting: BootArgs,
}

#[derive(clap::Args)]
#[command(next_help_heading = "With --boot")]
struct BootArgs {
    /// Addresses that the machines may have meanwhile: 10.0.0.200-10.0.0.250/24
    #[arg(long, value_name = "RANGE", requires = "boot")]
    addresses: Option<AddressRange>,
    /// Beside another DHCP server: it gives addresses, and only the boot programs are ours
    #[arg(long, requires = "boot")]
    proxy: bool,
    /// Start these machines only
    #[arg(long, value_name = "MAC", value_delimiter = ',', requires = "boot")]
    only: Vec<MacAddr>,
    #[command(flatten)]
    artifacts: ArtifactsArg,
    /// Port of the HTTP server
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Port of the agent's API
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    agent_port: u16,
}

/// How what was found is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table
    #[default]
    Text,
    /// All of it, for `generate hardware --discovered`
    Json,
    /// A row per machine, for spreadsheets
    Csv,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(time).ok().filter(|time| !time.is_zero()).ok_or_else(|| String::from("it has to be more than 0"))
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let cancel = super::interrupted()?;
    let say = |news: News, found: &Found| eprintln!("{}", line(news, found));
    let (interface, limit) = (args.interface, args.limit);
    let found = match args.booting.addresses.filter(|_| args.boot) {
        Some(addresses) => {
            let BootArgs { proxy, only, artifacts, http_port, agent_port, .. } = args.booting;
            let artifacts = artifacts.dir()?;
            eprintln!(
                "{interface}: machines that boot from the network now are looked at and switched off; Ctrl-C ends"
            );
            let boot = Boot { interface, addresses, proxy, only, artifacts, http_port, agent_port };
            boot.discover(limit, &cancel, say).await?
        }
        None => {
            eprintln!("{interface}: listening to DHCP, answering nobody; Ctrl-C ends");
            discover::listen(&interface, limit, &cancel, say).await?
        }
    };
    let data = match args.output {
        Output::Text => table(&found),
        Output::Json => serde_json::to_string_pretty(&found)? + "\n",
        Output::Csv => rows(&found)?,
    };
    Ok(std::io::stdout().write_all(data.as_bytes())?)
}

/// One line of the live view.
fn line(news: News, found: &Found) -> String {
    let what = match news {
        News::Heard => format!("{} {}", firmware(found), found.client.as_deref().unwrap_or("says nothing of itself")),
        News::Started => String::from("has its boot script; its agent comes next"),
        News::Told => format!("is {}; it switches itself off", machine(found)),
    };
    // A client calls itself what it likes: a terminal is not obeyed by it.
    let what: String = what.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("{}  {what}", found.mac)
}

/// `UEFI amd64`, or what is known of it.
fn firmware(found: &Found) -> String {
    match (found.boot_mode, found.arch) {
        (Some(mode), Some(arch)) => format!("{} {arch}", mode.to_string().to_uppercase()),
        _ if found.boots => String::from("boots from the network"),
        _ => String::from("boots nothing from the network"),
    }
}

/// What the agent told, in a line.
fn machine(found: &Found) -> String {
    let Some(facts) = &found.facts else { return String::new() };
    let product = facts.product.as_deref().unwrap_or("a machine of unknown make");
    let serial = facts.serial.as_deref().map(|serial| format!(" (serial {serial})")).unwrap_or_default();
    let (threads, memory) = (facts.cpu_threads, BinaryBytes(facts.memory_bytes));
    let disks = facts.disks.iter().map(|disk| format!("{} {}", disk.path, indicatif::DecimalBytes(disk.bytes)));
    let disks = disks.collect::<Vec<_>>().join(", ");
    format!("{product}{serial}, {threads} x {}, {memory}, disks: {disks}", facts.cpu_model)
}

fn table(found: &[Found]) -> String {
    let row = |found: &Found| {
        let first = found.first_seen.strftime("%H:%M:%S");
        let last = found.last_seen.strftime("%H:%M:%S");
        let told = if found.facts.is_some() { machine(found) } else { found.client.clone().unwrap_or_default() };
        let told: String = told.chars().filter(|c| !c.is_control()).collect();
        format!("{}  {:<31}{first}  {last}  {told}\n", found.mac, firmware(found))
    };
    let header = format!("{:<19}{:<31}{:<10}{:<10}{}\n", "MAC", "FIRMWARE", "FIRST", "LAST", "MACHINE");
    header + &found.iter().map(row).collect::<String>()
}

fn rows(found: &[Found]) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "mac",
        "boots",
        "arch",
        "boot_mode",
        "client",
        "uuid",
        "first_seen",
        "last_seen",
        "product",
        "serial",
        "cpu_threads",
        "memory_bytes",
        "disks",
    ])?;
    for one in found {
        let facts = one.facts.as_ref();
        let disk = |disk: &crate::hardware::DiskFacts| {
            format!("{} {} {}", disk.path, disk.bytes, disk.serial.as_deref().unwrap_or("-"))
        };
        let disks = facts.iter().flat_map(|facts| &facts.disks).map(disk).collect::<Vec<_>>().join("|");
        writer.write_record([
            one.mac.to_string(),
            one.boots.to_string(),
            one.arch.map(|arch| arch.to_string()).unwrap_or_default(),
            one.boot_mode.map(|mode| mode.to_string()).unwrap_or_default(),
            one.client.clone().unwrap_or_default(),
            one.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
            one.first_seen.to_string(),
            one.last_seen.to_string(),
            facts.and_then(|facts| facts.product.clone()).unwrap_or_default(),
            facts.and_then(|facts| facts.serial.clone()).unwrap_or_default(),
            facts.map(|facts| facts.cpu_threads.to_string()).unwrap_or_default(),
            facts.map(|facts| facts.memory_bytes.to_string()).unwrap_or_default(),
            disks,
        ])?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
