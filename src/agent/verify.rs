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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::Step;
    use crate::agent::report::Reporter;
    use crate::agent::write::Writer;
    use std::fs;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    /// A disk of 20 MiB, on which 10 MiB and a few bytes were written; and what was.
    fn written(dir: &Path) -> (Arc<Target>, Vec<Extent>) {
        let path = dir.join("disk");
        fs::write(&path, vec![0xa5; 20 << 20]).unwrap();
        let target = Arc::new(Target::open(&path).unwrap());
        let mut writer = Writer::begin(target.clone()).unwrap();
        // Out of order, as a QCOW2 file gives them, and with zeros inside.
        writer.write(6 * MIB, &vec![6; 4 << 20]).unwrap();
        writer.write(0, &vec![1; 2 << 20]).unwrap();
        writer.write(10 * MIB, &[10; 700]).unwrap();
        writer.write(2 * MIB, &[vec![0; 1 << 20], vec![2; 70_000], vec![0; 978_576]].concat()).unwrap();
        writer.zero(4 * MIB..6 * MIB).unwrap();
        (target, writer.finish().unwrap())
    }

    fn verified(target: &Target, extents: &[Extent]) -> Result<(), VerifyError> {
        verify(target, extents, Meter::new(&Reporter::default(), Step::Verify, None))
    }

    #[test]
    fn every_byte_of_the_image_is_accounted_for_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let (target, extents) = written(dir.path());
        let mut end = 0;
        for extent in &extents {
            assert_eq!(extent.offset, end);
            end += extent.length;
        }
        assert_eq!(end, 10 * MIB + 700);
        assert!(extents.iter().any(|extent| extent.sum.is_none() && extent.length >= 2 * MIB));
        verified(&target, &extents).unwrap();
        let disk = fs::read(&target.path).unwrap();
        assert_eq!((disk[0], disk[5 << 20], disk[(10 << 20) + 699], disk[(10 << 20) + 700]), (1, 0, 10, 0xa5));
    }

    #[test]
    fn one_wrong_bit_anywhere_is_found_and_placed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, extents) = written(dir.path());
        // In the beginning, in data, in zeros, in the last sector.
        for at in [0, MIB, 3 * MIB + 1, 5 * MIB + 4095, 7 * MIB, 10 * MIB + 699] {
            let mut byte = [0];
            target.file.read_exact_at(&mut byte, at).unwrap();
            target.file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            match verified(&target, &extents) {
                Err(VerifyError::Different { from, to, .. }) => {
                    assert!((from..to).contains(&at), "{at} not in {from}..{to}")
                }
                other => panic!("{at}: {other:?}"),
            }
            target.file.write_all_at(&byte, at).unwrap();
        }
        verified(&target, &extents).unwrap();
        target.file.set_len(9 * MIB).unwrap();
        assert!(matches!(verified(&target, &extents), Err(VerifyError::Read { .. })));
    }
}
