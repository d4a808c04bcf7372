//! The installation, step by step: what is done, in which order, and which of it may fail without harm.

use super::boot_entry::{self, Variables};
use super::disk::{self, ChoiceError, Target, size};
use super::facts::Disk;
use super::fetch::{Patience, Source};
use super::partition::Table;
use super::protocol::{Report, Step, WorkOrder};
use super::report::{Meter, Reporter};
use super::write::Extent;
use super::{seed, stream, verify, write};
use crate::hardware::Arch;
use reqwest::Client;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use url::Url;

/// Controllers with many disks show them one by one; this long we wait for the one that is wanted.
const DISKS: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What stopped the installation, and in which step.
#[derive(Debug, thiserror::Error)]
#[error("step `{step}` failed")]
pub struct InstallError {
    /// Where.
    pub step: Step,
    /// Why.
    #[source]
    pub cause: Box<dyn Error + Send + Sync>,
}

/// The work order itself is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the work order's image address `{url}` is no URL: correct it in cluster.yaml")]
struct BadUrl {
    url: String,
    source: url::ParseError,
}

fn at<E: Into<Box<dyn Error + Send + Sync>>>(step: Step) -> impl Fn(E) -> InstallError {
    move |cause| InstallError { step, cause: cause.into() }
}

/// The machine under the installation.
#[derive(Clone, Debug)]
pub struct Machine {
    /// For the boot loader's name.
    pub arch: Arch,
    /// Directory of the firmware's variables, where it is UEFI.
    pub variables: Option<PathBuf>,
    /// How long to wait for the server.
    pub patience: Patience,
}

/// Installs what `order` says. `disks` looks for the machine's disks, and is asked again while the right one is missing.
///
/// After an error the disk holds what it held, or nothing that boots.
pub async fn run(
    order: &WorkOrder,
    machine: &Machine,
    client: &Client,
    disks: impl FnMut() -> Vec<Disk>,
    reporter: &Reporter,
) -> Result<(), InstallError> {
    let target = Arc::new(choose(order, disks, reporter).await?);
    let start = Instant::now();
    let extents = write_image(order, machine, client, &target, reporter).await?;
    let complete = block_in_place(|| complete(order, machine, &target, &extents, start, reporter));
    complete.inspect_err(|_| {
        // It would start, but nobody could log in.
        if let Err(error) = block_in_place(|| write::destroy(&target)) {
            tracing::error!("the disk may still boot: {}", super::chain(&error));
        }
    })
}

async fn choose(
    order: &WorkOrder,
    mut disks: impl FnMut() -> Vec<Disk>,
    reporter: &Reporter,
) -> Result<Target, InstallError> {
    reporter.started(Step::Disk, order.disk.to_string());
    let deadline = Instant::now() + DISKS;
    loop {
        let present = block_in_place(&mut disks);
        match disk::choose(&order.disk, &present) {
            Ok(disk) => return Target::open(disk.facts.path.as_ref()).map_err(at(Step::Disk)),
            Err(ChoiceError::None { .. }) if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(at(Step::Disk)(error)),
        }
    }
}

async fn write_image(
    order: &WorkOrder,
    machine: &Machine,
    client: &Client,
    target: &Arc<Target>,
    reporter: &Reporter,
) -> Result<Vec<Extent>, InstallError> {
    let image = &order.image;
    reporter.started(Step::Write, format!("{} to {} ({})", image.url, target.path.display(), size(target.bytes)));
    let url = Url::parse(&image.url).map_err(|source| BadUrl { url: image.url.clone(), source });
    let source = Source::new(client.clone(), url.map_err(at(Step::Write))?, machine.patience);
    stream::install(source, image, target.clone(), reporter).await.map_err(at(Step::Write))
}

/// What is left to do when the image is on the disk.
fn complete(
    order: &WorkOrder,
    machine: &Machine,
    target: &Target,
    extents: &[Extent],
    start: Instant,
    reporter: &Reporter,
) -> Result<(), InstallError> {
    let bytes = extents.iter().map(|extent| extent.length).sum();
    let path = target.path.display().to_string();
    reporter.started(Step::Verify, format!("{} of {path}", size(bytes)));
    verify::verify(target, extents, Meter::new(reporter, Step::Verify, Some(bytes))).map_err(at(Step::Verify))?;
    let seconds = start.elapsed().as_secs_f64();
    reporter.send(Report::Written { disk: path.clone(), bytes, seconds, sha256: order.image.sha256.clone() });

    reporter.started(Step::Partition, path.clone());
    let mut table = Table::read(target).map_err(at(Step::Partition))?;
    table.grow(target);

    let labelled = || table.places(target.sector).into_iter().find(|place| seed::is_labelled(target, place));
    let place = match table.seed_by_name(target.sector).or_else(labelled) {
        Some(place) => place,
        None => table.add_seed(target).map_err(at(Step::Seed))?,
    };
    table.write(target).map_err(at(Step::Partition))?;
    reporter.started(Step::Seed, format!("partition {} of {path}", place.number));
    seed::write(target, &place, &order.seed).map_err(at(Step::Seed))?;

    set_boot_entry(machine, target, &table, reporter);
    Ok(())
}

/// Makes the disk the firmware's first choice. That this fails is no reason to stop: firmware finds \EFI\BOOT on a disk
/// by itself, as a rule.
fn set_boot_entry(machine: &Machine, target: &Target, table: &Table, reporter: &Reporter) {
    let Some(variables) = &machine.variables else { return };
    let Some(esp) = table.esp(target.sector) else {
        tracing::warn!("the firmware is UEFI, but the image has no EFI system partition: it may not boot");
        return;
    };
    reporter.started(Step::BootEntry, format!("partition {} of {}", esp.number, target.path.display()));
    match boot_entry::set(&Variables::new(variables), &esp, target.sector, machine.arch) {
        Ok(name) => tracing::info!("{name} starts the installed system, and is the first in the boot order"),
        Err(error) => {
            tracing::warn!("no boot entry: {}; the firmware has to find the disk itself", super::chain(&error))
        }
    }
}
