//! The partition table: grown to the disk that the image landed on, and given room for the seed.
//!
//! An image's table ends where the image ends; GPT keeps a copy at the disk's end, so that it has to move. Partitions are
//! not resized: only the installed system knows which of them to grow, and its cloud-init does. Slots are kept as they are,
//! since boot loaders and firmware name partitions by number. The kernel is not told: nothing here uses its partitions,
//! and the next thing that the machine does is to start anew.

use super::disk::{Target, size};
use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::mbr::{PartRecord, ProtectiveMBR};
use gpt::partition::{Partition, file_read_partitions};
use gpt::partition_types;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor};
use std::ops::Range;
use uuid::Uuid;

/// Partitions begin at multiples of this.
const ALIGNMENT: u64 = 1 << 20;
/// Size of a partition that is added for the seed.
pub const SEED_BYTES: u64 = 8 << 20;
/// The label by which cloud-init finds the seed.
pub const SEED_LABEL: &str = "CIDATA";

/// A partition table that cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Neither GPT nor MBR.
    #[error("the image has no partition table: it must be the image of a whole disk, not of one file system")]
    NoTable,
    /// GPT for another size of sectors.
    #[error(
        "the image is made for disks with sectors of {image} bytes, and this disk's have {disk}: make an image for these"
    )]
    Sector {
        /// Of the image.
        image: u64,
        /// Of the disk.
        disk: u64,
    },
    /// A table that is damaged, or of a kind that nobody makes.
    #[error("cannot read the image's partition table ({0})")]
    Damaged(String),
    /// No place for the seed.
    #[error("no room for the seed's partition of {}: {why}", size(SEED_BYTES))]
    NoRoom {
        /// What is full.
        why: &'static str,
    },
    /// The disk fails.
    #[error("cannot change the partition table")]
    Disk(#[source] io::Error),
}

fn damaged(error: impl std::fmt::Display) -> PartitionError {
    PartitionError::Damaged(error.to_string())
}

/// How large the disk is that the image with this beginning was made for, if a GPT tells.
pub fn described_bytes(beginning: &[u8]) -> Option<u64> {
    [512, 4096].into_iter().find_map(|sector| {
        let header = read_header_from_arbitrary_device(&mut Cursor::new(beginning), block_size(sector)?).ok()?;
        header.backup_lba.checked_add(1)?.checked_mul(sector)
    })
}

fn block_size(sector: u64) -> Option<LogicalBlockSize> {
    LogicalBlockSize::try_from(sector).ok()
}

/// The partition table of a disk, in memory. Nothing is changed before [`Table::write`].
#[derive(Debug)]
pub enum Table {
    /// GUID partition table.
    Gpt {
        /// The main header.
        header: Box<Header>,
        /// By slot, from 1.
        partitions: BTreeMap<u32, Partition>,
        /// Where the table's copy was before the table grew.
        old_backup: u64,
    },
    /// Master boot record, with primary partitions that can be added to.
    Mbr(Box<ProtectiveMBR>),
}

/// A partition, as the rest of the agent needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Slot, from 1.
    pub number: u32,
    /// Bytes on the disk.
    pub bytes: Range<u64>,
    /// Its own GUID, with GPT.
    pub guid: Option<Uuid>,
}

impl Table {
    /// Reads the disk's table.
    pub fn read(target: &Target) -> Result<Self, PartitionError> {
        let mut device = device(target)?;
        let size = block_size(target.sector).ok_or_else(|| damaged("the disk's sectors are of an odd size"))?;
        let mbr = ProtectiveMBR::from_disk(&mut device, size).map_err(|_| PartitionError::NoTable)?;
        let header = match read_header_from_arbitrary_device(&mut device, size) {
            Ok(header) => header,
            Err(error) => {
                let other = if target.sector == 512 { 4096 } else { 512 };
                let elsewhere =
                    block_size(other).and_then(|size| read_header_from_arbitrary_device(&mut device, size).ok());
                return match elsewhere {
                    Some(_) => Err(PartitionError::Sector { image: other, disk: target.sector }),
                    None if records(&mbr).any(|record| record.os_type == PROTECTIVE) => Err(damaged(error)),
                    None if plausible(&mbr) => Ok(Self::Mbr(Box::new(mbr))),
                    None => Err(PartitionError::NoTable),
                };
            }
        };
        // The crate below would stop the program.
        if header.part_size != 128 || header.num_parts > 4096 {
            return Err(damaged(format!("{} entries of {} bytes", header.num_parts, header.part_size)));
        }
        let partitions = file_read_partitions(&mut device, &header, size).map_err(damaged)?;
        let wrong = |part: &&Partition| part.first_lba > part.last_lba || part.last_lba >= target.bytes / target.sector;
        if let Some(partition) = partitions.values().find(wrong) {
            return Err(damaged(format!("partition {} lies outside the disk", partition.part_guid)));
        }
        let old_backup = header.backup_lba;
        Ok(Self::Gpt { header: Box::new(header), partitions, old_backup })
    }

    /// Grows the table to the disk's end.
    pub fn grow(&mut self, target: &Target) {
        let Self::Gpt { header, .. } = self else { return };
        let entries = (u64::from(header.num_parts) * u64::from(header.part_size)).div_ceil(target.sector);
        header.backup_lba = target.bytes / target.sector - 1;
        header.last_usable = header.backup_lba - entries - 1;
    }

    /// The partition that is there for the seed: by its name in the table.
    pub fn seed_by_name(&self, sector: u64) -> Option<Place> {
        let named = |place: &Place| match self {
            Self::Gpt { partitions, .. } => partitions[&place.number].name.eq_ignore_ascii_case(SEED_LABEL),
            Self::Mbr(_) => false,
        };
        self.places(sector).into_iter().find(named)
    }

    /// Every partition, by slot.
    pub fn places(&self, sector: u64) -> Vec<Place> {
        match self {
            Self::Gpt { partitions, .. } => {
                let used = partitions.iter().filter(|(_, partition)| partition.is_used());
                let place = |(number, partition): (&u32, &Partition)| Place {
                    number: *number,
                    bytes: partition.first_lba * sector..(partition.last_lba + 1) * sector,
                    guid: Some(partition.part_guid),
                };
                used.map(place).collect()
            }
            Self::Mbr(mbr) => {
                let records = (0..4).filter_map(|index| Some((index as u32 + 1, mbr.partition(index)?)));
                let used = records.filter(|(_, record)| record.os_type != 0);
                let place = |(number, record): (u32, PartRecord)| {
                    let start = u64::from(record.lb_start) * sector;
                    Place { number, bytes: start..start + u64::from(record.lb_size) * sector, guid: None }
                };
                used.map(place).collect()
            }
        }
    }

    /// The EFI system partition, of a GPT.
    pub fn esp(&self, sector: u64) -> Option<Place> {
        let Self::Gpt { partitions, .. } = self else { return None };
        let is_esp = |place: &Place| partitions[&place.number].part_type_guid.guid == partition_types::EFI.guid;
        self.places(sector).into_iter().find(is_esp)
    }

    /// Adds a partition for the seed at the disk's end, where it leaves the room before it for the others to grow into.
    pub fn add_seed(&mut self, target: &Target) -> Result<Place, PartitionError> {
        let sector = target.sector;
        let taken = self.places(sector).iter().map(|place| place.bytes.end).max().unwrap_or(0);
        let end = match self {
            Self::Gpt { header, .. } => (header.last_usable + 1) * sector,
            // Numbers of 32 bits.
            Self::Mbr(_) => target.bytes.min(u64::from(u32::MAX) * sector),
        };
        let start = end.saturating_sub(SEED_BYTES) / ALIGNMENT * ALIGNMENT;
        if start < taken.max(ALIGNMENT) {
            return Err(PartitionError::NoRoom { why: "the image fills the disk" });
        }
        let bytes = start..start + SEED_BYTES;
        let (first, length) = (start / sector, SEED_BYTES / sector);
        match self {
            Self::Gpt { header, partitions, .. } => {
                let free =
                    (1..=header.num_parts).find(|number| !partitions.get(number).is_some_and(Partition::is_used));
                let number = free.ok_or(PartitionError::NoRoom { why: "every slot of the table is taken" })?;
                let guid = Uuid::new_v4();
                let partition = Partition {
                    part_type_guid: partition_types::BASIC,
                    part_guid: guid,
                    first_lba: first,
                    last_lba: first + length - 1,
                    flags: 0,
                    name: SEED_LABEL.to_owned(),
                };
                partitions.insert(number, partition);
                Ok(Place { number, bytes, guid: Some(guid) })
            }
            Self::Mbr(mbr) => {
                let free = (0..4).find(|index| mbr.partition(*index).is_some_and(|record| record.os_type == 0));
                let index = free.ok_or(PartitionError::NoRoom { why: "the MBR has four partitions already" })?;
                // Heads and cylinders mean nothing any more; all ones say so.
                let record = PartRecord {
                    boot_indicator: 0,
                    start_head: 0xfe,
                    start_sector: 0xff,
                    start_track: 0xff,
                    os_type: FAT32_LBA,
                    end_head: 0xfe,
                    end_sector: 0xff,
                    end_track: 0xff,
                    lb_start: first as u32,
                    lb_size: length as u32,
                };
                mbr.set_partition(index, record);
                Ok(Place { number: index as u32 + 1, bytes, guid: None })
            }
        }
    }

    /// Writes the table to the disk: the copy first, so that at any moment one of them is whole.
    pub fn write(&self, target: &Target) -> Result<(), PartitionError> {
        let mut device = device(target)?;
        match self {
            Self::Mbr(mbr) => {
                mbr.update_conservative(&mut device).map_err(|error| PartitionError::Disk(io::Error::other(error)))?;
            }
            Self::Gpt { header, partitions, old_backup } => {
                write_gpt(&mut device, target, header, partitions, *old_backup)
                    .map_err(|error| PartitionError::Disk(io::Error::other(error)))?;
            }
        }
        device.sync_all().map_err(PartitionError::Disk)
    }
}

/// Type of a FAT partition that is addressed by sector number.
const FAT32_LBA: u8 = 0x0c;
/// Type of the one entry that keeps old programs off a GPT disk.
const PROTECTIVE: u8 = 0xee;

fn records(mbr: &ProtectiveMBR) -> impl Iterator<Item = PartRecord> {
    (0..4).filter_map(|index| mbr.partition(index)).filter(|record| record.os_type != 0)
}

/// A file system's boot sector ends like an MBR, but has code where the records would be.
fn plausible(mbr: &ProtectiveMBR) -> bool {
    let sane = |record: PartRecord| record.boot_indicator & 0x7f == 0 && record.lb_start > 0 && record.lb_size > 0;
    records(mbr).count() > 0 && records(mbr).all(sane)
}

fn device(target: &Target) -> Result<File, PartitionError> {
    target.file.try_clone().map_err(PartitionError::Disk)
}

fn write_gpt(
    device: &mut File,
    target: &Target,
    header: &Header,
    partitions: &BTreeMap<u32, Partition>,
    old_backup: u64,
) -> Result<(), gpt::GptError> {
    let size = block_size(target.sector).ok_or(gpt::GptError::Overflow("sector"))?;
    let mut backup = Header {
        current_lba: header.backup_lba,
        backup_lba: header.current_lba,
        part_start: header.last_usable + 1,
        ..header.clone()
    };
    let mut main = header.clone();
    let inside = partitions.values().any(|partition| (partition.first_lba..=partition.last_lba).contains(&old_backup));
    if old_backup < header.backup_lba && !inside {
        // Else it is taken for the table by a program that looks for a lost one.
        Partition::write_zero_entries_to_device(device, 0, 1, old_backup, size, target.sector as u32)?;
    }
    for header in [&mut backup, &mut main] {
        for slot in 1..=header.num_parts {
            let unused = Partition::zero();
            let partition = partitions.get(&slot).unwrap_or(&unused);
            partition.write_to_device(device, u64::from(slot - 1), header.part_start, size, header.part_size)?;
        }
    }
    backup.write_backup(device, size)?;
    main.write_primary(device, size)?;
    let mut mbr = ProtectiveMBR::from_disk(device, size).map_err(|error| io::Error::other(error.to_string()))?;
    // A hybrid MBR (boot loaders of some boards need one) has further entries: they stay.
    for index in 0..4 {
        if let Some(mut record) =
            mbr.partition(index).filter(|record| record.os_type == PROTECTIVE && record.lb_start == 1)
        {
            record.lb_size = u32::try_from(header.backup_lba).unwrap_or(u32::MAX);
            mbr.set_partition(index, record);
        }
    }
    mbr.update_conservative(device).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests;
