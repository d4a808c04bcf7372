//! Reads back what was written, from the device itself, and compares.

use super::disk::{Target, size};
use super::report::Meter;
use super::write::{Extent, blank};
use rustix::fs::{Advice, OFlags, fadvise};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Read at once.
const CHUNK: usize = 4 << 20;
/// Where direct input needs its memory to begin.
const ALIGNMENT: usize = 4096;

/// The disk does not hold what was written to it.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Other bytes came back.
    #[error(
        "{} does not read back what was written to it, between {} and {} from its beginning: replace the disk, or look for a \
         fault of its controller or cable",
        path.display(), size(*from), size(*to)
    )]
    Different {
        /// The disk.
        path: PathBuf,
        /// First byte of the part that differs.
        from: u64,
        /// End of it.
        to: u64,
    },
    /// Nothing came back.
    #[error("cannot read back {} at byte {offset}: replace the disk", path.display())]
    Read {
        /// The disk.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Compares the disk with `written`, part by part, in order. Everything written must have been synced.
pub fn verify(target: &Target, written: &[Extent], mut meter: Meter) -> Result<(), VerifyError> {
    let start = std::time::Instant::now();
    let unreadable = |offset| move |source| VerifyError::Read { path: target.path.clone(), offset, source };
    let device = Uncached::open(&target.path, target.sector).map_err(unreadable(0))?;
    let mut buffer = Aligned::new(CHUNK);
    for Extent { offset, length, sum } in written {
        let mut hash = Sha256::new();
        let mut same = true;
        let end = offset + length;
        let mut at = *offset;
        while at < end {
            let bytes = device.read(&mut buffer, at, end).map_err(unreadable(at))?;
            match sum {
                Some(_) => hash.update(bytes),
                None => same &= blank(bytes),
            }
            at += bytes.len() as u64;
            meter.add(bytes.len() as u64);
        }
        if !same || sum.is_some_and(|sum| hash.finalize()[..] != sum) {
            return Err(VerifyError::Different { path: target.path.clone(), from: *offset, to: end });
        }
    }
    meter.finish(start);
    Ok(())
}

/// Reads that do not come from the kernel's memory: by direct input, or, where a file system has none, after the kernel was
/// asked to forget the file's pages.
struct Uncached {
    file: File,
    /// Direct reads begin and end at multiples of this.
    sector: u64,
}

impl Uncached {
    fn open(path: &Path, sector: u64) -> io::Result<Self> {
        let direct = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path);
        let file = match direct {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let file = File::open(path)?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
                file
            }
            direct => direct?,
        };
        Ok(Self { file, sector })
    }

    /// Bytes from `at`, as many as fit the buffer, up to `end`.
    fn read<'a>(&self, buffer: &'a mut Aligned, at: u64, end: u64) -> io::Result<&'a [u8]> {
        let start = at - at % self.sector;
        let whole = (end.next_multiple_of(self.sector) - start).min(CHUNK as u64) as usize;
        let buffer = &mut buffer.bytes()[..whole];
        let mut filled = 0;
        while filled < whole {
            match self.file.read_at(&mut buffer[filled..], start + filled as u64) {
                // A file may end within a sector; a direct read gives what is there.
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let skip = (at - start) as usize;
        let wanted = (end - start).min(filled as u64) as usize;
        match buffer.get(skip..wanted) {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Memory that begins at a multiple of [`ALIGNMENT`].
struct Aligned {
    memory: Vec<u8>,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        Self { memory: vec![0; length + ALIGNMENT], length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(ALIGNMENT);
        &mut self.memory[skip..skip + self.length]
    }
}
