//! The NoCloud seed: a small FAT file system labelled CIDATA, from which cloud-init takes who the machine is.

use super::disk::Target;
use super::partition::{Place, SEED_BYTES, SEED_LABEL};
use super::protocol::Seed;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use std::io::{self, Cursor, Write};
use std::os::unix::fs::FileExt;

/// The seed could not be left on the disk.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The partition that the image has for it is too small.
    #[error(
        "cannot make a FAT file system of {bytes} bytes with the seed in it: the image's partition may be too small"
    )]
    Format {
        /// Size of the partition.
        bytes: u64,
        /// What failed.
        source: io::Error,
    },
    /// The disk fails.
    #[error("cannot write the seed to the disk")]
    Disk(#[source] io::Error),
}

/// Writes the seed into the partition at `place`.
pub fn write(target: &Target, place: &Place, seed: &Seed) -> Result<(), SeedError> {
    let bytes = (place.bytes.end - place.bytes.start).min(SEED_BYTES);
    let volume = render(bytes, seed).map_err(|source| SeedError::Format { bytes, source })?;
    target.file.write_all_at(&volume, place.bytes.start).map_err(SeedError::Disk)?;
    target.file.sync_all().map_err(SeedError::Disk)
}

/// The file system as it goes to the disk; smaller than its partition, perhaps, which FAT allows.
fn render(bytes: u64, seed: &Seed) -> io::Result<Vec<u8>> {
    let mut volume = vec![0; bytes as usize];
    let mut label = [b' '; 11];
    label[..SEED_LABEL.len()].copy_from_slice(SEED_LABEL.as_bytes());
    format_volume(Cursor::new(&mut volume[..]), FormatVolumeOptions::new().volume_label(label))?;
    let system = FileSystem::new(Cursor::new(&mut volume[..]), FsOptions::new())?;
    let files = [
        ("meta-data", &seed.meta_data),
        ("user-data", seed.user_data.expose()),
        ("network-config", &seed.network_config),
    ];
    for (name, content) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.write_all(content.as_bytes())?;
        file.flush()?;
    }
    system.unmount()?;
    Ok(volume)
}

/// Whether the file system in the partition at `place` is one that cloud-init takes for the seed.
pub fn is_labelled(target: &Target, place: &Place) -> bool {
    // The label stands at one offset in FAT12 and FAT16, at another in FAT32.
    let mut sector = [0; 512];
    let read = target.file.read_exact_at(&mut sector, place.bytes.start).is_ok();
    let labelled = |at: usize| sector[at..at + 11].trim_ascii_end().eq_ignore_ascii_case(SEED_LABEL.as_bytes());
    read && sector[510..] == [0x55, 0xaa] && (labelled(43) || labelled(71))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use std::fs;
    use std::process::Command;

    const MIB: u64 = 1 << 20;

    fn seed() -> Seed {
        Seed {
            meta_data: String::from("instance-id: node-1\n"),
            user_data: Secret::new(format!("#cloud-config\n# {}\n", "x".repeat(40_000))),
            network_config: String::from("version: 2\n"),
        }
    }

    fn place(bytes: std::ops::Range<u64>) -> Place {
        Place { number: 1, bytes, guid: None }
    }

    fn run(program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_seed_is_what_other_programs_read_and_stays_in_its_partition() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        for size in [MIB, 8 * MIB, 33 * MIB] {
            fs::write(&path, vec![0xa5; 64 << 20]).unwrap();
            let target = Target::open(&path).unwrap();
            let place = place(3 * MIB..3 * MIB + size);
            assert!(!is_labelled(&target, &place));
            write(&target, &place, &seed()).unwrap();
            assert!(is_labelled(&target, &place));
            let (file, offset) = (path.to_str().unwrap(), (3 * MIB).to_string());
            let image = format!("{file}@@{offset}");
            assert_eq!(run("mtype", &["-i", &image, "::user-data"]), *seed().user_data.expose());
            assert_eq!(run("mtype", &["-i", &image, "::meta-data"]), seed().meta_data);
            assert_eq!(run("mtype", &["-i", &image, "::network-config"]), seed().network_config);
            let label = ["-p", "-O", &offset, "-o", "value", "-s", "LABEL", "-s", "TYPE", file];
            assert_eq!(run("blkid", &label), "CIDATA\nvfat\n");
            let disk = fs::read(&path).unwrap();
            let volume = dir.path().join("volume");
            let end = 3 * MIB + size.min(SEED_BYTES);
            fs::write(&volume, &disk[3 << 20..end as usize]).unwrap();
            run("fsck.fat", &["-n", volume.to_str().unwrap()]);
            assert!(disk[..3 << 20].iter().chain(&disk[end as usize..]).all(|byte| *byte == 0xa5));
        }
    }

    #[test]
    fn other_programs_labels_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        for (label, bits, expected) in
            [("CIDATA", "12", true), ("cidata", "16", true), ("CIDATA", "32", true), ("ROOT", "16", false)]
        {
            fs::write(&path, vec![0; 64 << 20]).unwrap();
            run("mkfs.vfat", &["-F", bits, "-n", label, path.to_str().unwrap()]);
            assert_eq!(is_labelled(&Target::open(&path).unwrap(), &place(0..64 * MIB)), expected, "{label} {bits}");
        }
    }

    #[test]
    fn a_partition_that_is_too_small_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let error = write(&Target::open(&path).unwrap(), &place(0..32 << 10), &seed()).unwrap_err();
        assert!(matches!(error, SeedError::Format { bytes: 32_768, .. }), "{error}");
    }
}
