//! The agent for real: as PID 1 of QEMU machines, on the artifact directory's kernel, against a tiny installer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod installer;
mod machine;

use installer::{Installer, USER_DATA};
use machine::{Firmware, Machine, artifact};
use metalgate::agent::protocol::{Finish, Report, Step};
use metalgate::hardware::BootMode;
use metalgate::spec::ImageFormat;
use std::fs;
use std::path::Path;
use std::process::Command;

const MIB: usize = 1 << 20;

/// Runs a program, which must succeed, and returns what it prints.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

/// The image of a disk of 24 MiB: GPT, with an ESP in slot 15 whose boot loader is iPXE, and data in slot 1.
fn image(dir: &Path) -> Vec<u8> {
    let (path, loader) = (dir.join("image"), dir.join("loader"));
    fs::write(&path, vec![0; 24 * MIB]).unwrap();
    fs::write(&loader, artifact("ipxe/amd64/ipxe.efi")).unwrap();
    let (file, loader) = (path.to_str().unwrap(), loader.to_str().unwrap());
    run("sgdisk", &["-n15:2048:+8M", "-t15:ef00", "-n1:0:0", "-c1:root", file]);
    let esp = format!("{file}@@1M");
    run("mformat", &["-i", &esp, "-T", "16384", "-h", "64", "-s", "32", "::"]);
    run("mmd", &["-i", &esp, "::/EFI", "::/EFI/BOOT"]);
    run("mcopy", &["-i", &esp, loader, "::/EFI/BOOT/BOOTX64.EFI"]);
    let mut image = fs::read(&path).unwrap();
    let data: Vec<u8> = (0..3 * MIB as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    image[12 * MIB..15 * MIB].copy_from_slice(&data);
    image
}

/// A disk of 64 MiB with something on it already.
fn used_disk() -> Vec<u8> {
    vec![0xa5; 64 * MIB]
}

/// What the agent must have left on the disk, besides the image.
fn check_disk(disk: &Path, image: &[u8]) {
    let file = disk.to_str().unwrap();
    let found = run("sgdisk", &["-v", file]);
    assert!(found.contains("No problems found"), "{found}");
    let table = run("sgdisk", &["-p", file]);
    let slots: Vec<&str> = table
        .lines()
        .filter_map(|line| line.trim().split(' ').next()?.parse().ok().map(|_: u32| line.trim()))
        .collect();
    let numbers: Vec<&str> = slots.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["1", "2", "15"], "{table}");
    let written = fs::read(disk).unwrap();
    assert!(written[MIB..23 * MIB] == image[MIB..23 * MIB], "the image is not on the disk");
    let start = run("sgdisk", &["-i", "2", file]);
    assert!(start.contains("'CIDATA'"), "{start}");
    let sector: usize = start
        .lines()
        .find_map(|line| line.strip_prefix("First sector: "))
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let seed = format!("{file}@@{}", sector * 512);
    assert_eq!(run("mtype", &["-i", &seed, "::user-data"]), USER_DATA);
    assert_eq!(run("mtype", &["-i", &seed, "::meta-data"]), "instance-id: node-1\n");
    assert_eq!(run("mtype", &["-i", &seed, "::network-config"]), "version: 2\n");
    let offset = (sector * 512).to_string();
    let blkid = run("blkid", &["-p", "-O", &offset, "-o", "value", "-s", "LABEL", file]);
    assert_eq!(blkid.trim(), "CIDATA");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_machine_gets_its_image_and_seed_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let packed = zstd::encode_all(&image[..], 3).unwrap();
    let running = Installer::start(packed, ImageFormat::Zst, None, "serial=root-disk").await;
    let machine = Machine::new(Firmware::Bios, &used_disk());
    let mut powered = machine.start_agent(&running.command_line);
    powered.until("claim", |_| running.installer.claim.lock().unwrap().is_some()).await;
    powered.until_off().await;
    println!("{}", powered.console());

    let claim = running.installer.claim.lock().unwrap().take().unwrap();
    assert_eq!((claim.facts.firmware, claim.facts.cpu_threads), (BootMode::Bios, 1));
    let disk = &claim.facts.disks[0];
    assert_eq!((disk.path.as_str(), disk.bytes, disk.by_id[0].as_str()), ("/dev/vda", 64 << 20, "virtio-root-disk"));
    assert!(claim.facts.nics.iter().any(|nic| nic.mac.to_string() == machine::MAC && nic.link));

    let reports = running.installer.reports();
    let steps: Vec<Step> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Started { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [Step::Disk, Step::Write, Step::Verify, Step::Partition, Step::Seed, Step::Finish]);
    assert!(matches!(&reports[..], [.., Report::Leaving { how: Finish::Reboot }]), "{reports:?}");
    assert!(
        reports
            .iter()
            .any(|it| matches!(it, Report::Written { disk, bytes, .. } if disk == "/dev/vda" && *bytes == 24 << 20))
    );
    check_disk(&machine.disk(), &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uefi_machine_gets_a_boot_entry_that_starts_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let running = Installer::start(image.clone(), ImageFormat::Raw, None, "/dev/disk/by-id/virtio-root-disk").await;
    let machine = Machine::new(Firmware::Uefi, &used_disk());
    let mut powered = machine.start_agent(&running.command_line);
    powered.until("claim", |_| running.installer.claim.lock().unwrap().is_some()).await;
    powered.until_off().await;
    println!("{}", powered.console());
    assert_eq!(running.installer.claim.lock().unwrap().as_ref().unwrap().facts.firmware, BootMode::Uefi);
    assert!(running.installer.reports().iter().any(|it| matches!(it, Report::Started { step: Step::BootEntry, .. })));
    check_disk(&machine.disk(), &image);

    // The firmware says which entry it starts, and the boot loader of the image says that it runs.
    let mut powered = machine.start_disk();
    powered.until("boot loader", |machine| machine.console().contains("iPXE initialising devices")).await;
    let console = powered.console();
    assert!(console.contains("\"metalgate\" from HD(15,GPT,"), "{console}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_stops_the_machine_and_its_disk_does_not_boot() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let running = Installer::start(image, ImageFormat::Raw, Some("ab".repeat(32)), "/dev/vda").await;
    let machine = Machine::new(Firmware::Bios, &used_disk());
    let mut powered = machine.start_agent(&running.command_line);
    let failed =
        |report: &Report| matches!(report, Report::Failed { step: Step::Write, error } if error.contains("SHA-256"));
    powered.until("failure", |_| running.installer.reports().iter().any(failed)).await;
    powered
        .until("message", |machine| machine.console().contains("THE INSTALLATION OF THIS MACHINE HAS STOPPED"))
        .await;
    println!("{}", powered.console());
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(!powered.off(), "the machine restarted");
    let disk = fs::read(machine.disk()).unwrap();
    assert!(disk[..MIB].iter().all(|byte| *byte == 0) && disk[63 * MIB..].iter().all(|byte| *byte == 0));
}
