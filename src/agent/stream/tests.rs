//! Images of every format, from a server with faults, onto a file that stands for a disk.

use super::*;
use crate::agent::fetch::tests::{Answer, FileServer, PATIENCE, client};
use crate::agent::verify::verify;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

const MIB: usize = 1 << 20;

/// What was on the disk before.
const OLD: u8 = 0xa5;

fn image() -> Vec<u8> {
    let mut image = vec![0; 13 * MIB + 512];
    let noise = |n: usize| (n as u32).wrapping_mul(2_654_435_761).rotate_left(n as u32 % 31) as u8;
    (0..6_000_000).for_each(|n| image[n] = noise(n));
    (9 * MIB..10 * MIB).for_each(|n| image[n] = (n / 1000) as u8);
    image[13 * MIB + 511] = 1;
    image
}

/// A disk of 16 MiB that was used before.
fn disk(dir: &Path) -> Arc<Target> {
    let path = dir.join("disk");
    fs::write(&path, vec![OLD; 16 * MIB]).unwrap();
    Arc::new(Target::open(&path).unwrap())
}

fn content(target: &Target) -> Vec<u8> {
    fs::read(&target.path).unwrap()
}

/// Packs `image` by a program that everybody has.
fn packed(dir: &Path, format: ImageFormat, image: &[u8]) -> Vec<u8> {
    let (raw, out) = (dir.join("raw"), dir.join("packed"));
    fs::write(&raw, image).unwrap();
    let (raw, out) = (raw.to_str().unwrap(), out.to_str().unwrap());
    let command = match format {
        ImageFormat::Raw => format!("cp {raw} {out}"),
        ImageFormat::Gz => format!("gzip -1c {raw} > {out}"),
        ImageFormat::Xz => format!("xz -0c {raw} > {out}"),
        ImageFormat::Zst => format!("zstd -qc {raw} > {out}"),
        ImageFormat::Qcow2 => format!("qemu-img convert -f raw -O qcow2 -c {raw} {out}"),
    };
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    fs::read(out).unwrap()
}

struct Installed {
    target: Arc<Target>,
    result: Result<Vec<Extent>, ImageError>,
    reporter: Reporter,
    _dir: tempfile::TempDir,
}

/// Installs `file` from a server with this script; `change` makes the order wrong.
async fn installed(
    file: &[u8],
    format: ImageFormat,
    script: &[Answer],
    change: impl FnOnce(&mut ImageOrder),
) -> Installed {
    let dir = tempfile::tempdir().unwrap();
    let target = disk(dir.path());
    let server = FileServer::start(file.to_vec(), script).await;
    let mut order = ImageOrder { url: server.url.to_string(), sha256: hex::encode(Sha256::digest(file)), format };
    change(&mut order);
    let source = Source::new(client(), server.url.clone(), PATIENCE);
    let reporter = Reporter::default();
    let result = install(source, &order, target.clone(), &reporter).await;
    Installed { target, result, reporter, _dir: dir }
}

const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Raw, ImageFormat::Gz, ImageFormat::Xz, ImageFormat::Zst, ImageFormat::Qcow2];

impl Installed {
    fn error(&self) -> String {
        crate::error::chain(self.result.as_ref().unwrap_err())
    }

    fn untouched(&self) -> bool {
        content(&self.target).iter().all(|byte| *byte == OLD)
    }

    /// Both ends of the disk are zero.
    fn destroyed(&self) -> bool {
        let content = content(&self.target);
        write::blank(&content[..MIB]) && write::blank(&content[15 * MIB..])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_every_format_land_on_the_disk_in_spite_of_a_bad_network() {
    let image = image();
    let dir = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let file = packed(dir.path(), format, &image);
        for script in [&[][..], &[Answer::Hangup, Answer::Well, Answer::Cut(100_000), Answer::Stall(50_000)]] {
            let installed = installed(&file, format, script, |_| ()).await;
            let written = installed.result.as_ref().unwrap_or_else(|_| panic!("{format:?}: {}", installed.error()));
            let disk = content(&installed.target);
            // The last sector of a QCOW2 disk is rounded up to whole sectors, and this image has those.
            assert!(disk[..image.len()] == image, "{format:?}");
            assert!(write::blank(&disk[15 * MIB..]), "the old end of the disk");
            let total: u64 = written.iter().map(|extent| extent.length).sum();
            assert_eq!(total, image.len() as u64, "{format:?}");
            verify(&installed.target, written, Meter::new(&installed.reporter, Step::Verify, Some(total))).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sum_leaves_a_disk_that_boots_nothing() {
    let image = image();
    let dir = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let file = packed(dir.path(), format, &image);
        let installed = installed(&file, format, &[], |order| order.sha256 = "00".repeat(32)).await;
        assert!(matches!(installed.result, Err(ImageError::Checksum { .. })), "{format:?}: {}", installed.error());
        assert!(installed.destroyed(), "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_way_is_a_wrong_sum_and_not_a_puzzle_of_the_decoder() {
    let dir = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let file = packed(dir.path(), format, &image());
        let sum = hex::encode(Sha256::digest(&file));
        let mut damaged = file.clone();
        // Far enough in that the disk has been written to.
        let middle = file.len() - file.len() / 8;
        damaged[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let installed = installed(&damaged, format, &[], |order| order.sha256 = sum).await;
        assert!(matches!(installed.result, Err(ImageError::Checksum { .. })), "{format:?}: {}", installed.error());
        assert!(!installed.untouched() && installed.destroyed(), "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_known_before_leaves_the_disk_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let zst = packed(dir.path(), ImageFormat::Zst, &image());
    let wrong = installed(&zst, ImageFormat::Raw, &[], |_| ()).await;
    assert!(wrong.untouched() && wrong.error().contains("is Zst, not Raw"), "{}", wrong.error());

    let nested = packed(dir.path(), ImageFormat::Gz, &packed(dir.path(), ImageFormat::Qcow2, &image()));
    let nested = installed(&nested, ImageFormat::Gz, &[], |_| ()).await;
    assert!(nested.untouched() && nested.error().contains("another packed file (Qcow2)"), "{}", nested.error());

    let missing = installed(&zst, ImageFormat::Zst, &[Answer::Status("404 Not Found")], |_| ()).await;
    assert!(missing.untouched() && missing.error().contains("404"), "{}", missing.error());

    // Larger than the disk: by the file's length, by its header, and by the partition table in it.
    let mut large = vec![0; 17 * MIB];
    large[..MIB].copy_from_slice(&image()[..MIB]);
    let path = dir.path().join("gpt");
    fs::write(&path, &large).unwrap();
    let gpt = Command::new("sgdisk").args(["-n1:0:0", path.to_str().unwrap()]).status();
    assert!(gpt.expect("sgdisk").success());
    let large = fs::read(&path).unwrap();
    for format in FORMATS {
        let file = packed(dir.path(), format, &large);
        let installed = installed(&file, format, &[], |_| ()).await;
        assert!(installed.untouched(), "{format:?}");
        assert!(installed.error().contains("the image needs 17.8 MB, but"), "{format:?}: {}", installed.error());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_shows_while_writing_leaves_a_disk_that_boots_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // No partition table tells how large this is.
    let large = packed(dir.path(), ImageFormat::Zst, &vec![7; 17 * MIB]);
    let large = installed(&large, ImageFormat::Zst, &[], |_| ()).await;
    assert!(large.destroyed() && large.error().contains("the image needs"), "{}", large.error());

    for format in [ImageFormat::Gz, ImageFormat::Xz, ImageFormat::Zst] {
        // The sum is of the file as it is, so the file is what the specification means; and yet it breaks off.
        let file = packed(dir.path(), format, &image());
        let short = installed(&file[..file.len() - 9], format, &[], |_| ()).await;
        assert!(matches!(short.result, Err(ImageError::Unpack(_))), "{format:?}: {}", short.error());
        assert!(short.destroyed(), "{format:?}");
    }

    let raw = image();
    let gone = [&[Answer::Well, Answer::Cut(8 * MIB)][..], &[Answer::Hangup; 2000]].concat();
    let gone = installed(&raw, ImageFormat::Raw, &gone, |_| ()).await;
    assert!(gone.destroyed() && gone.error().contains("gave up"), "{}", gone.error());
}
