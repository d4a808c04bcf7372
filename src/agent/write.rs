//! Puts an image's sectors on the disk, so that at no moment a half-written disk can boot.
//!
//! The first MiB (partition table, boot code) and the last one (the table's copy) are zeroed before anything else is
//! written. The image's first MiB is kept in memory, and goes to the disk only after the whole image is there and its sum
//! is right. What was written is remembered by sums, for `verify`.

use super::disk::{Target, size};
use rustix::fs::{FallocateFlags, fallocate};
use sha2::{Digest, Sha256};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What of the image is written last, and what of the disk is zeroed at both its ends.
const EDGE: u64 = 1 << 20;
/// Runs of zeros are found in units of this.
const BLOCK: usize = 64 << 10;
/// Zeros are written at most so many at once, so that progress does not stand still.
const LONGEST_ZERO: u64 = 256 << 20;
/// Where the device cannot zero by itself.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// The disk does not take the image.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image does not fit.
    #[error("the image needs {}, but {} has {} only", size(*image), path.display(), size(*disk))]
    TooSmall {
        /// The disk.
        path: PathBuf,
        /// Size of the image, or how far it has come.
        image: u64,
        /// Size of the disk.
        disk: u64,
    },
    /// The disk fails.
    #[error("cannot write to {} at byte {offset}: the disk may be failing, or write-protected", path.display())]
    Write {
        /// The disk.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Part of the disk, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of it; `None` where it is all zeros.
    pub sum: Option<[u8; 32]>,
}

/// Writes one image to one disk. One that is dropped before it has finished destroys what it has written.
#[derive(Debug)]
pub struct Writer {
    target: Arc<Target>,
    /// The image's beginning, which is written last.
    head: Vec<u8>,
    /// Zeros that are not written yet, because more may follow.
    zeros: Range<u64>,
    /// Whether the device can zero without being sent the zeros.
    can_zero: bool,
    extents: Vec<Extent>,
    finished: bool,
}

/// Refuses an image of `image` bytes that is larger than the disk.
pub fn check_size(target: &Target, image: u64) -> Result<(), DiskError> {
    if image > target.bytes {
        return Err(DiskError::TooSmall { path: target.path.clone(), image, disk: target.bytes });
    }
    Ok(())
}

/// Zeroes both ends of the disk, so that firmware finds nothing to boot there, nor an assembler of RAID sets.
pub fn destroy(target: &Target) -> Result<(), DiskError> {
    let edge = EDGE.min(target.bytes);
    for offset in [0, target.bytes - edge] {
        put(target, offset, &ZEROS[..edge as usize])?;
    }
    sync(target)
}

/// Whether there are only zeros in `bytes`. Goes by whole vectors: this looks at every byte of an image twice.
pub fn blank(bytes: &[u8]) -> bool {
    let (vectors, rest) = bytes.as_chunks::<32>();
    vectors.iter().all(|vector| *vector == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}

fn put(target: &Target, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
    let failed = |source| DiskError::Write { path: target.path.clone(), offset, source };
    target.file.write_all_at(bytes, offset).map_err(failed)
}

fn sync(target: &Target) -> Result<(), DiskError> {
    let failed = |source| DiskError::Write { path: target.path.clone(), offset: 0, source };
    target.file.sync_all().map_err(failed)
}

impl Writer {
    /// Destroys what is on the disk, and is ready for an image.
    pub fn begin(target: Arc<Target>) -> Result<Self, DiskError> {
        destroy(&target)?;
        Ok(Self { target, head: Vec::new(), zeros: 0..0, can_zero: true, extents: Vec::new(), finished: false })
    }

    /// Writes `bytes` of the image at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        check_size(&self.target, offset + bytes.len() as u64)?;
        let late = EDGE.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (late, now) = bytes.split_at(late);
        if !late.is_empty() {
            let end = offset as usize + late.len();
            self.head.resize(self.head.len().max(end), 0);
            self.head[offset as usize..end].copy_from_slice(late);
        }
        let mut at = offset + late.len() as u64;
        let blocks: Vec<(bool, usize)> = now.chunks(BLOCK).map(|block| (blank(block), block.len())).collect();
        let mut rest = now;
        for run in blocks.chunk_by(|a, b| a.0 == b.0) {
            let length = run.iter().map(|(_, length)| length).sum();
            let (bytes, next) = rest.split_at(length);
            if run[0].0 {
                self.zero(at..at + length as u64)?;
            } else {
                put(&self.target, at, bytes)?;
                self.remember(at, bytes);
            }
            rest = next;
            at += length as u64;
        }
        Ok(())
    }

    /// Makes a part of the disk zero; it is not so before, since disks have a past.
    pub fn zero(&mut self, range: Range<u64>) -> Result<(), DiskError> {
        check_size(&self.target, range.end)?;
        if range.start < EDGE {
            // Zero already, and `head` is filled with zeros where nothing else comes.
            let end = range.end.min(EDGE);
            self.head.resize(self.head.len().max(end as usize), 0);
        }
        let mut range = range.start.max(EDGE.min(range.end))..range.end;
        while !range.is_empty() {
            if self.zeros.end != range.start || self.zeros.end - self.zeros.start >= LONGEST_ZERO {
                self.write_zeros()?;
                self.zeros = range.start..range.start;
            }
            let room = LONGEST_ZERO - (self.zeros.end - self.zeros.start);
            self.zeros.end += room.min(range.end - range.start);
            range.start = self.zeros.end;
        }
        Ok(())
    }

    fn write_zeros(&mut self) -> Result<(), DiskError> {
        let zeros = std::mem::take(&mut self.zeros);
        if zeros.is_empty() {
            return Ok(());
        }
        let length = zeros.end - zeros.start;
        self.extents.push(Extent { offset: zeros.start, length, sum: None });
        // Asks the device to do it: seconds for gigabytes. Whether it did is read back like everything else.
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if self.can_zero && fallocate(&self.target.file, flags, zeros.start, length).is_ok() {
            return Ok(());
        }
        self.can_zero = false;
        for offset in zeros.clone().step_by(ZEROS.len()) {
            let length = (zeros.end - offset).min(ZEROS.len() as u64);
            put(&self.target, offset, &ZEROS[..length as usize])?;
        }
        Ok(())
    }

    fn remember(&mut self, offset: u64, bytes: &[u8]) {
        let sum = Some(Sha256::digest(bytes).into());
        self.extents.push(Extent { offset, length: bytes.len() as u64, sum });
    }

    /// Makes the disk whole: writes what was kept back, and waits until the device has everything. Returns what is where.
    pub fn finish(mut self) -> Result<Vec<Extent>, DiskError> {
        self.write_zeros()?;
        sync(&self.target)?;
        let head = std::mem::take(&mut self.head);
        put(&self.target, 0, &head)?;
        self.remember(0, &head);
        sync(&self.target)?;
        self.finished = true;
        let mut extents = std::mem::take(&mut self.extents);
        extents.sort_by_key(|extent| extent.offset);
        Ok(extents)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The image's own copy of its partition table may be at the disk's end by now.
        if let Err(error) = destroy(&self.target) {
            tracing::error!("the disk may still boot: {}", crate::error::chain(&error));
        }
    }
}
