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
