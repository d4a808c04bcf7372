//! Partition tables that sgdisk and sfdisk made, changed here, and checked by sgdisk and sfdisk.

use super::*;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// Runs a program that has to end well, with `input`, and returns what it writes.
fn run(program: &str, args: &[&str], input: &str) -> String {
    let input_file = tempfile::NamedTempFile::new().unwrap();
    fs::write(input_file.path(), input).unwrap();
    let input = Stdio::from(fs::File::open(input_file.path()).unwrap());
    let output = Command::new(program).args(args).stdin(input).output().unwrap_or_else(|it| panic!("{program}: {it}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An image of `image` MiB, made by `make`, on a disk of `disk` MiB.
fn disk(dir: &Path, image: u64, disk: u64, make: impl Fn(&str)) -> Target {
    let path: PathBuf = dir.join("disk");
    fs::write(&path, vec![0; (image * MIB) as usize]).unwrap();
    make(path.to_str().unwrap());
    OpenOptions::new().write(true).open(&path).unwrap().set_len(disk * MIB).unwrap();
    Target::open(&path).unwrap()
}

/// What a distribution's image looks like: slots out of order, a name, a hybrid of BIOS and UEFI.
fn debian(file: &str) {
    let args = "-n14:2048:+3M -t14:ef02 -n15:0:+8M -t15:ef00 -n1:0:0 -t1:8300 -c1:root -A1:set:2".split(' ');
    run("sgdisk", &args.chain([file]).collect::<Vec<_>>(), "");
}

fn slots(file: &str) -> Vec<(u32, u64, u64, String)> {
    let dump: serde_json::Value = serde_json::from_str(&run("sfdisk", &["-J", file], "")).unwrap();
    let number = |node: &str| node.trim_start_matches(|c: char| !c.is_ascii_digit() || c == '/').to_owned();
    let partitions = dump["partitiontable"]["partitions"].as_array().unwrap().iter().map(|partition| {
        let node = partition["node"].as_str().unwrap().strip_prefix(file).unwrap().to_owned();
        let name = partition["name"].as_str().unwrap_or_default().to_owned();
        (
            number(&node).parse().unwrap(),
            partition["start"].as_u64().unwrap(),
            partition["size"].as_u64().unwrap(),
            name,
        )
    });
    let mut partitions: Vec<_> = partitions.collect();
    partitions.sort();
    partitions
}

fn grown(target: &Target) -> Table {
    let mut table = Table::read(target).unwrap();
    table.grow(target);
    table
}

#[test]
fn gpt_grows_to_the_disk_and_keeps_its_slots() {
    let dir = tempfile::tempdir().unwrap();
    for size in [32, 33, 4096] {
        let target = disk(dir.path(), 32, size, debian);
        let file = target.path.to_str().unwrap();
        let before = slots(file);
        grown(&target).write(&target).unwrap();
        assert!(run("sgdisk", &["-v", file], "").contains("No problems found"), "{size}");
        assert_eq!(slots(file), before);
        assert_eq!(before.iter().map(|slot| slot.0).collect::<Vec<_>>(), [1, 14, 15]);
        let root = run("sgdisk", &["-i1", file], "");
        assert!(
            root.contains("Partition name: 'root'") && root.contains("Attribute flags: 0000000000000004"),
            "{root}"
        );
        // The protective MBR spans the disk as well.
        let mbr = fs::read(file).unwrap()[446 + 12..446 + 16].to_vec();
        assert_eq!(u64::from(u32::from_le_bytes(mbr.try_into().unwrap())), size * 2048 - 1);
    }
}

#[test]
fn the_seed_gets_the_end_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let target = disk(dir.path(), 32, 100, debian);
    let mut table = grown(&target);
    assert_eq!(table.seed_by_name(512), None);
    let place = table.add_seed(&target).unwrap();
    table.write(&target).unwrap();
    let file = target.path.to_str().unwrap();
    assert!(run("sgdisk", &["-v", file], "").contains("No problems found"));
    assert_eq!(slots(file)[1], (2, 91 * 2048, 8 * 2048, String::from("CIDATA")));
    assert_eq!((place.number, place.bytes.clone()), (2, 91 * MIB..99 * MIB));
    // The next installation of the same disk finds it, whatever the case.
    assert_eq!(Table::read(&target).unwrap().seed_by_name(512), Some(place));
    run("sgdisk", &["-c2:cidata", file], "");
    assert!(Table::read(&target).unwrap().seed_by_name(512).is_some());
}

#[test]
fn a_disk_of_4096_byte_sectors_needs_an_image_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut target = disk(dir.path(), 32, 100, debian);
    target.sector = 4096;
    let error = Table::read(&target).unwrap_err();
    assert!(matches!(error, PartitionError::Sector { image: 512, disk: 4096 }), "{error}");

    // The crate makes such a table, since the programs make it on such devices only.
    let make = |file: &str| {
        let device = OpenOptions::new().read(true).write(true).open(file).unwrap();
        let size = block_size(4096).unwrap();
        gpt::mbr::ProtectiveMBR::with_lb_size(8191).overwrite_lba0(&mut device.try_clone().unwrap()).unwrap();
        let config = gpt::GptConfig::new().writable(true).logical_block_size(size);
        let mut table = config.create_from_device(device, None).unwrap();
        table.add_partition("root", 16 << 20, partition_types::LINUX_FS, 0, None).unwrap();
        table.write().unwrap();
    };
    let mut target = disk(dir.path(), 32, 100, make);
    target.sector = 4096;
    let mut table = grown(&target);
    let place = table.add_seed(&target).unwrap();
    table.write(&target).unwrap();
    assert_eq!(place.bytes, 91 * MIB..99 * MIB);
    let device = OpenOptions::new().read(true).write(true).open(&target.path).unwrap();
    let config = gpt::GptConfig::new().logical_block_size(block_size(4096).unwrap()).only_valid_headers(true);
    assert_eq!(config.open_from_device(device).unwrap().partitions().len(), 2);
}

#[test]
fn an_mbr_gets_the_seed_where_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let one = "label: dos\nstart=2048, size=20480, type=83, bootable\n";
    let target = disk(dir.path(), 32, 64, |file| drop(run("sfdisk", &["-q", file], one)));
    let mut table = grown(&target);
    assert_eq!(table.places(512).len(), 1);
    let place = table.add_seed(&target).unwrap();
    table.write(&target).unwrap();
    let file = target.path.to_str().unwrap();
    assert_eq!(place.bytes, 56 * MIB..64 * MIB);
    assert_eq!(slots(file)[1], (2, 56 * 2048, 8 * 2048, String::new()));
    let dump = run("sfdisk", &["-d", file], "");
    assert!(dump.contains("type=83, bootable") && dump.contains("type=c"), "{dump}");

    let four = "label: dos\nsize=1M\nsize=1M\nsize=1M\nsize=1M\n";
    let target = disk(dir.path(), 32, 64, |file| drop(run("sfdisk", &["-q", file], four)));
    assert!(grown(&target).add_seed(&target).unwrap_err().to_string().contains("four partitions"));
}

#[test]
fn no_room_and_no_table_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for size in [32, 39] {
        let target = disk(dir.path(), 32, size, debian);
        let error = grown(&target).add_seed(&target).unwrap_err().to_string();
        assert!(error.contains("the image fills the disk"), "{error}");
    }
    for make in ["mkfs.ext4 -q", "mkfs.vfat", ":"] {
        let target = disk(dir.path(), 32, 64, |file| drop(run("sh", &["-c", &format!("{make} {file}")], "")));
        assert!(matches!(Table::read(&target), Err(PartitionError::NoTable)), "{make}");
    }
    let target = disk(dir.path(), 32, 64, debian);
    for (at, name) in [(520, "header"), (1024 + 40, "entry")] {
        let mut bytes = fs::read(&target.path).unwrap();
        bytes[at] ^= 0x10;
        let damaged = disk(dir.path(), 32, 64, |file| fs::write(file, &bytes).unwrap());
        assert!(matches!(Table::read(&damaged), Err(PartitionError::Damaged(_))), "{name}");
        bytes[at] ^= 0x10;
        fs::write(&target.path, &bytes).unwrap();
    }
    // Shorter than its table says.
    let short = disk(dir.path(), 32, 16, debian);
    assert!(matches!(Table::read(&short), Err(PartitionError::Damaged(_))));
}

#[test]
fn the_size_of_the_image_is_known_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let target = disk(dir.path(), 32, 64, debian);
    let bytes = fs::read(&target.path).unwrap();
    assert_eq!(described_bytes(&bytes[..4096]), Some(32 * MIB));
    assert_eq!(described_bytes(&bytes[..600]), None);
    assert_eq!(described_bytes(&[0; 8192]), None);
}
