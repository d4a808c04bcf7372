//! QEMU's copy-on-write format, versions 2 and 3 (QEMU's docs/interop/qcow2.rst): where the guest's sectors are in a file.
//!
//! A QCOW2 file cannot be read from front to end without knowing its tables, and an installer has no room to keep it. So
//! the tables are read first, each by its place in the file; they turn into a [`Map`], the pieces of the file in the order
//! in which they lie there, so that the file itself then streams by once. The tables stream by again on that way, and are
//! held against what was read first: so the sum over the whole file covers everything that was used.

use std::io::{self, Read};
use std::ops::Range;

/// So many bytes hold the fixed part of every header.
pub const HEADER_BYTES: usize = 112;
/// Of one file; 64 MiB of L1 table are 4 PiB of disk with the usual clusters.
const MAX_L1_BYTES: u64 = 64 << 20;

const COMPRESSED: u64 = 1 << 62;
const READS_AS_ZERO: u64 = 1;
/// Bits 9 to 55: the offset in table entries.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// A file that cannot be installed from.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// Not QCOW2 at all, or an older format.
    #[error("the file is not QCOW2 version 2 or 3")]
    NotQcow2,
    /// Something that needs more than the file, or more than this program.
    #[error("the QCOW2 file {0}; make a plain one with: qemu-img convert -O qcow2 OLD NEW")]
    Feature(&'static str),
    /// A table or a piece that makes no sense.
    #[error("the QCOW2 file is damaged: {0}")]
    Damaged(String),
    /// A compressed cluster that cannot be unpacked.
    #[error("the QCOW2 file's compressed cluster at {offset} cannot be unpacked")]
    Cluster {
        /// Where in the file.
        offset: u64,
        /// The decoder's error.
        source: io::Error,
    },
}

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1951, without any header.
    Deflate,
    /// Zstandard.
    Zstd,
}

/// What the header says.
#[derive(Debug)]
pub struct Header {
    /// Size of the disk that the file describes.
    pub virtual_bytes: u64,
    cluster_bits: u32,
    l1_offset: u64,
    l1_entries: u64,
    compression: Compression,
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Header {
    /// Reads a file's first [`HEADER_BYTES`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Qcow2Error> {
        let version = be32(bytes, 4);
        if bytes.get(..4) != Some(b"QFI\xfb") || !(2..=3).contains(&version) || bytes.len() < HEADER_BYTES {
            return Err(Qcow2Error::NotQcow2);
        }
        let incompatible = if version == 3 { be64(bytes, 72) } else { 0 };
        let refusals = [
            (be64(bytes, 8) != 0, "has a backing file"),
            (be32(bytes, 32) != 0, "is encrypted"),
            (incompatible & 2 != 0, "is marked as corrupt"),
            (incompatible & 4 != 0, "keeps its data in another file"),
            (incompatible & 16 != 0, "has subclusters (extended L2 entries)"),
            (incompatible & !0x1f != 0, "has features of a newer QEMU"),
        ];
        if let Some((_, what)) = refusals.into_iter().find(|(applies, _)| *applies) {
            return Err(Qcow2Error::Feature(what));
        }
        // The byte is there only if the header is long enough and the feature bit is set.
        let compression = match (incompatible & 8 != 0, bytes[104]) {
            (false, _) | (true, 0) => Compression::Deflate,
            (true, 1) => Compression::Zstd,
            _ => return Err(Qcow2Error::Feature("is compressed in a way that a newer QEMU knows")),
        };
        let header = Self {
            virtual_bytes: be64(bytes, 24),
            cluster_bits: be32(bytes, 20),
            l1_offset: be64(bytes, 40),
            l1_entries: be32(bytes, 36).into(),
            compression,
        };
        if !(9..=21).contains(&header.cluster_bits) {
            return Err(Qcow2Error::Damaged(format!("clusters of 2^{} bytes", header.cluster_bits)));
        }
        let l1_bytes = header.l1_entries * 8;
        if l1_bytes > MAX_L1_BYTES
            || header.l1_offset > OFFSET
            || header.virtual_bytes > header.l1_entries << (header.cluster_bits * 2 - 3)
        {
            let Self { l1_entries, virtual_bytes, .. } = header;
            return Err(Qcow2Error::Damaged(format!("{l1_entries} L1 entries for a disk of {virtual_bytes} bytes")));
        }
        Ok(header)
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Where the file has the L1 table.
    pub fn l1_table(&self) -> Range<u64> {
        self.l1_offset..self.l1_offset + self.l1_entries * 8
    }

    /// Where the file has the L2 tables that `l1` names, with the guest offset that each begins at.
    pub fn l2_tables(&self, l1: &[u8]) -> Vec<(u64, Range<u64>)> {
        let span = self.cluster() / 8 * self.cluster();
        let tables =
            l1.chunks_exact(8).enumerate().map(|(index, entry)| (index as u64 * span, be64(entry, 0) & OFFSET));
        tables
            .filter(|(guest, offset)| *offset != 0 && *guest < self.virtual_bytes)
            .map(|(guest, offset)| (guest, offset..offset + self.cluster()))
            .collect()
    }
}

/// What a piece of the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Part of a table, which must be what was read before.
    Table(Vec<u8>),
    /// Sectors.
    Plain,
    /// One compressed cluster; the length is an upper bound.
    Packed,
}

/// A piece of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// Where in the file.
    at: u64,
    /// How long in the file.
    length: u64,
    /// Where on the guest's disk.
    guest: u64,
    content: Content,
}

/// Everything that matters in the file, in the order in which it lies there.
#[derive(Debug)]
pub struct Map {
    virtual_bytes: u64,
    cluster: u64,
    compression: Compression,
    pieces: Vec<Piece>,
    /// What of the guest's disk is zero, in order.
    zeros: Vec<Range<u64>>,
}

/// Plain pieces that lie one after another are written as one, up to this length.
const LONGEST_PLAIN: u64 = 4 << 20;

impl Map {
    /// Makes the map from the tables as they were read: each with its place in the file, the L2 tables with the guest
    /// offset that they begin at.
    pub fn new(
        header: &Header,
        beginning: Vec<u8>,
        l1: Vec<u8>,
        l2: Vec<(u64, u64, Vec<u8>)>,
    ) -> Result<Self, Qcow2Error> {
        let mut map = Self {
            virtual_bytes: header.virtual_bytes,
            cluster: header.cluster(),
            compression: header.compression,
            pieces: Vec::new(),
            zeros: Vec::new(),
        };
        let mut guest = 0;
        for (begins, _, table) in &l2 {
            // What no table describes was never written.
            map.zero(guest..*begins);
            guest = *begins;
            for entry in table.chunks_exact(8).map(|entry| be64(entry, 0)) {
                if guest < header.virtual_bytes {
                    map.entry(header, guest, entry)?;
                }
                guest += map.cluster;
            }
        }
        map.zero(guest..header.virtual_bytes);
        map.table(0, beginning);
        map.table(header.l1_offset, l1);
        l2.into_iter().for_each(|(_, at, table)| map.table(at, table));
        map.pieces.sort_by_key(|piece| piece.at);
        map.join();
        Ok(map)
    }

    fn table(&mut self, at: u64, bytes: Vec<u8>) {
        self.pieces.push(Piece { at, length: bytes.len() as u64, guest: 0, content: Content::Table(bytes) });
    }

    fn zero(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.virtual_bytes);
        match self.zeros.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.zeros.push(range),
        }
    }

    /// Adds the cluster at `guest`, by its entry in an L2 table.
    fn entry(&mut self, header: &Header, guest: u64, entry: u64) -> Result<(), Qcow2Error> {
        // The last cluster may reach beyond the disk.
        let length = self.cluster.min(self.virtual_bytes - guest);
        if entry & COMPRESSED != 0 {
            // The offset has as many bits as it needs; what is above it counts further sectors of 512 bytes.
            let bits = 62 - (header.cluster_bits - 8);
            let at = entry & ((1 << bits) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> bits;
            let length = (sectors + 1) * 512 - at % 512;
            self.pieces.push(Piece { at, length, guest, content: Content::Packed });
            return Ok(());
        }
        let at = entry & OFFSET;
        if entry & READS_AS_ZERO != 0 || at == 0 {
            self.zero(guest..guest + length);
        } else if !at.is_multiple_of(self.cluster) {
            return Err(Qcow2Error::Damaged(format!("a cluster at {at}, which is no multiple of {}", self.cluster)));
        } else {
            self.pieces.push(Piece { at, length, guest, content: Content::Plain });
        }
        Ok(())
    }

    /// Joins plain pieces that follow each other in the file and on the disk.
    fn join(&mut self) {
        let mut joined: Vec<Piece> = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces.drain(..) {
            match joined.last_mut() {
                Some(last)
                    if (&last.content, &piece.content) == (&Content::Plain, &Content::Plain)
                        && (last.at + last.length, last.guest + last.length) == (piece.at, piece.guest)
                        && last.length + piece.length <= LONGEST_PLAIN =>
                {
                    last.length += piece.length;
                }
                _ => joined.push(piece),
            }
        }
        self.pieces = joined;
    }

    /// What of the disk is zero, and so need not come from the file.
    pub fn zeros(&self) -> &[Range<u64>] {
        &self.zeros
    }

    /// Reads the whole file from its beginning and hands out the sectors that it holds, each with its place on the disk.
    /// `file` is left at the last piece's end; what follows matters to nobody but the sum over the file.
    pub fn read<E: From<Qcow2Error> + From<io::Error>>(
        &self,
        file: impl Read,
        mut sectors: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut window = Window { file, start: 0, bytes: Vec::new() };
        let mut cluster = vec![0; self.cluster as usize];
        for Piece { at, length, guest, content } in &self.pieces {
            window.skip_to(*at)?;
            let bytes = window.fill(*length)?;
            match content {
                Content::Table(expected) if bytes == expected => {}
                Content::Table(_) => {
                    return Err(Qcow2Error::Damaged(format!("the table at {at} changed while it was read")).into());
                }
                // What lies beyond the end of the file reads as zero, as in QEMU.
                Content::Plain if bytes.len() < *length as usize => {
                    let mut padded = bytes.to_vec();
                    padded.resize(*length as usize, 0);
                    sectors(*guest, &padded)?;
                }
                Content::Plain => sectors(*guest, bytes)?,
                Content::Packed => {
                    let unpacked = unpack(self.compression, bytes, &mut cluster);
                    unpacked.map_err(|source| Qcow2Error::Cluster { offset: *at, source })?;
                    let length = self.cluster.min(self.virtual_bytes - guest) as usize;
                    sectors(*guest, &cluster[..length])?;
                }
            }
        }
        Ok(())
    }
}

/// Fills `cluster` from its compressed form, which may be followed by other bytes.
fn unpack(compression: Compression, packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    match compression {
        Compression::Deflate => flate2::read::DeflateDecoder::new(packed).read_exact(cluster),
        Compression::Zstd => zstd::Decoder::with_buffer(packed)?.read_exact(cluster),
    }
}

/// The part of a file that is being looked at, while the file is read from front to end.
struct Window<R> {
    file: R,
    /// Where `bytes` begins.
    start: u64,
    bytes: Vec<u8>,
}

impl<R: Read> Window<R> {
    /// Drops what lies before `at`. Compressed clusters share sectors, so a piece may begin before the last one's end.
    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        let held = self.bytes.len() as u64;
        let drop = at.saturating_sub(self.start);
        if drop <= held {
            self.bytes.drain(..drop as usize);
        } else {
            self.bytes.clear();
            io::copy(&mut (&mut self.file).take(drop - held), &mut io::sink())?;
        }
        self.start = at;
        Ok(())
    }

    /// The next `length` bytes, or fewer at the end of the file.
    fn fill(&mut self, length: u64) -> io::Result<&[u8]> {
        let missing = length.saturating_sub(self.bytes.len() as u64);
        (&mut self.file).take(missing).read_to_end(&mut self.bytes)?;
        let end = self.bytes.len().min(length as usize);
        Ok(&self.bytes[..end])
    }
}

#[cfg(test)]
mod tests;
