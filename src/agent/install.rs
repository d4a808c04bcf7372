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
            tracing::error!("the disk may still boot: {}", crate::error::chain(&error));
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
            tracing::warn!("no boot entry: {}; the firmware has to find the disk itself", crate::error::chain(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fetch::tests::{Answer, FileServer, PATIENCE, client};
    use crate::agent::protocol::{Finish, ImageOrder, Seed};
    use crate::hardware::{DiskFacts, DiskKind, DiskSelector};
    use crate::secret::Secret;
    use crate::spec::ImageFormat;
    use sha2::{Digest, Sha256};
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    const MIB: usize = 1 << 20;

    /// An image of 16 MiB with an ESP in slot 3 and a root in slot 1.
    fn image(dir: &Path) -> Vec<u8> {
        let path = dir.join("image");
        fs::write(&path, vec![0; 16 * MIB]).unwrap();
        let made =
            Command::new("sgdisk").args(["-n3:2048:+2M", "-t3:ef00", "-n1:0:0", path.to_str().unwrap()]).output();
        assert!(made.expect("sgdisk").status.success());
        let mut image = fs::read(&path).unwrap();
        image[5 * MIB..6 * MIB].fill(0x42);
        image
    }

    struct Rack {
        dir: tempfile::TempDir,
        server: FileServer,
        order: WorkOrder,
        reporter: Reporter,
    }

    impl Rack {
        /// One machine with a disk of 48 MiB, about to be given `image`.
        async fn new(image: &[u8]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("disk"), vec![0xa5; 48 * MIB]).unwrap();
            fs::create_dir(dir.path().join("efivars")).unwrap();
            let server = FileServer::start(image.to_vec(), &[Answer::Well, Answer::Cut(MIB)]).await;
            let order = WorkOrder {
                machine: String::from("node-1"),
                session: Secret::new(String::from("key")),
                image: ImageOrder {
                    url: server.url.to_string(),
                    sha256: hex::encode(Sha256::digest(image)),
                    format: ImageFormat::Raw,
                },
                disk: DiskSelector::Path(dir.path().join("disk").display().to_string()),
                seed: Seed {
                    meta_data: String::from("instance-id: node-1"),
                    user_data: Secret::new(String::from("#cloud-config")),
                    network_config: String::from("version: 2"),
                },
                finish: Finish::Reboot,
            };
            Self { dir, server, order, reporter: Reporter::default() }
        }

        async fn install(&self) -> Result<(), InstallError> {
            let variables = Some(self.dir.path().join("efivars"));
            let machine = Machine { arch: Arch::Amd64, variables, patience: PATIENCE };
            let mut looks = 0;
            // A disk that shows up late.
            let disks = || {
                looks += 1;
                if looks < 2 { vec![] } else { vec![self.disk()] }
            };
            run(&self.order, &machine, &client(), disks, &self.reporter).await
        }

        fn disk(&self) -> Disk {
            let path = self.dir.path().join("disk").display().to_string();
            let (bytes, kind) = (48 << 20, DiskKind::Ssd);
            let facts = DiskFacts { path, bytes, kind, model: None, serial: None, wwn: None, by_id: vec![] };
            Disk { facts, unfit: None }
        }

        fn content(&self) -> Vec<u8> {
            fs::read(self.dir.path().join("disk")).unwrap()
        }

        /// Fails in this step, with this in its chain, and leaves a disk that boots nothing.
        async fn fails(&self, step: Step, word: &str) {
            let error = self.install().await.unwrap_err();
            let chain = crate::error::chain(&error);
            assert!(error.step == step && chain.contains(word), "{chain}");
            let disk = self.content();
            assert!(write::blank(&disk[..MIB]) && write::blank(&disk[47 * MIB..]));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_step_is_done_and_a_second_installation_is_like_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path());
        let rack = Rack::new(&image).await;
        rack.install().await.unwrap();
        rack.install().await.unwrap();
        assert!(rack.server.requests.lock().unwrap().iter().any(|range| range.starts_with("bytes=1048576-")));
        let disk = rack.content();
        assert!(disk[MIB..15 * MIB] == image[MIB..15 * MIB]);
        let file = rack.dir.path().join("disk");
        let table = Table::read(&Target::open(&file).unwrap()).unwrap();
        assert_eq!(table.places(512).iter().map(|place| place.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(seed::is_labelled(&Target::open(&file).unwrap(), &table.places(512)[1]));
        let variables: Vec<_> = fs::read_dir(rack.dir.path().join("efivars")).unwrap().flatten().collect();
        assert_eq!(variables.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_fails_after_the_image_was_written_leaves_nothing_that_boots() {
        let dir = tempfile::tempdir().unwrap();
        // One file system without a table; and a table that fills the disk.
        Rack::new(&vec![7; 2 * MIB]).await.fails(Step::Partition, "no partition table").await;
        let mut full = image(dir.path());
        full.resize(48 * MIB, 0);
        let path = dir.path().join("full");
        fs::write(&path, &full).unwrap();
        let made = Command::new("sgdisk").args(["-e", "-n2:0:0", path.to_str().unwrap()]).output();
        assert!(made.expect("sgdisk").status.success());
        let full = fs::read(&path).unwrap();
        Rack::new(&full).await.fails(Step::Seed, "the image fills the disk").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn firmware_that_takes_no_boot_entry_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let rack = Rack::new(&image(dir.path())).await;
        fs::remove_dir(rack.dir.path().join("efivars")).unwrap();
        rack.install().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_order_that_makes_no_sense_changes_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut rack = Rack::new(&image(dir.path())).await;
        rack.order.image.url = String::from("images/debian.raw");
        let error = rack.install().await.unwrap_err();
        assert_eq!(error.step, Step::Write);
        assert!(rack.content().iter().all(|byte| *byte == 0xa5));
    }
}
