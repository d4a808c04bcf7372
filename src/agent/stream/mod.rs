//! From the server to the disk: fetches the image, unpacks it while it comes, and writes what it holds.
//!
//! ```text
//! fetch (sum of the file) -> Wire -> image::format or image::qcow2 -> 4 MiB at a time -> write (sums of the parts)
//!   task of the runtime             thread                                             thread
//! ```
//! The three run at once and wait for each other, so memory holds a few chunks of the image and no more.

use super::disk::Target;
use super::fetch::{FetchError, Fetched, Piece, Source};
use super::partition;
use super::protocol::{ImageOrder, Step};
use super::report::{Meter, Reporter};
use super::write::{self, DiskError, Extent, Writer};
use crate::image::format::{MAGIC_BYTES, sniff, unpack};
use crate::image::qcow2::{self, Qcow2Error};
use crate::spec::ImageFormat;
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::sync::{Arc, mpsc as threads};
use std::thread;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Written at once.
const CHUNK: usize = 4 << 20;
/// Chunks between the threads.
const AHEAD: usize = 4;
/// Pieces of the network between the download and the unpacking, of some 16 KiB each.
const PIECES: usize = 256;

/// The image did not get onto the disk.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The image cannot be fetched.
    #[error("cannot fetch the image")]
    Fetch(#[source] FetchError),
    /// The file is packed in another way than the specification says.
    #[error("{url} is {found:?}, not {expected:?}: correct the image's format in cluster.yaml")]
    Format {
        /// The image.
        url: String,
        /// By the specification.
        expected: ImageFormat,
        /// By the file's beginning.
        found: ImageFormat,
    },
    /// The file is not the one that the specification means.
    #[error(
        "{url} has the SHA-256 sum {found}, not {expected} as it should: the image was damaged, or changed after its sum was \
         taken{note}"
    )]
    Checksum {
        /// The image.
        url: String,
        /// By the specification.
        expected: String,
        /// Of the bytes that came.
        found: String,
        /// What else went wrong with it, in brackets.
        note: String,
    },
    /// The file is what it should be, but makes no sense.
    #[error("cannot unpack the image, though its sum is right")]
    Unpack(#[source] io::Error),
    /// The same, for QCOW2.
    #[error("cannot read the image")]
    Qcow2(#[source] Qcow2Error),
    /// The disk's side.
    #[error("cannot write the image")]
    Disk(#[source] DiskError),
    /// One of our own threads died.
    #[error("the agent failed while it wrote the image; please report this")]
    Died,
}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> Self {
        Self::Unpack(error)
    }
}

impl From<Qcow2Error> for ImageError {
    fn from(error: Qcow2Error) -> Self {
        Self::Qcow2(error)
    }
}

impl From<DiskError> for ImageError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// Writes the image that `order` names, out of `source`, to `target`. If anything goes wrong after the first byte was
/// written, nothing on the disk can be booted.
pub async fn install(
    mut source: Source,
    order: &ImageOrder,
    target: Arc<Target>,
    reporter: &Reporter,
) -> Result<Vec<Extent>, ImageError> {
    let beginning = source.part(0..qcow2::HEADER_BYTES as u64).await.map_err(ImageError::Fetch)?;
    let found = sniff(&beginning);
    if found != order.format {
        return Err(ImageError::Format { url: order.url.clone(), expected: order.format, found });
    }
    let map = match order.format {
        ImageFormat::Qcow2 => {
            let header = qcow2::Header::parse(&beginning)?;
            write::check_size(&target, header.virtual_bytes)?;
            Some(qcow2_map(&mut source, header, beginning).await?)
        }
        ImageFormat::Raw => {
            write::check_size(&target, source.length().unwrap_or(0))?;
            None
        }
        _ => None,
    };
    let (send, receive) = mpsc::channel(PIECES);
    let meter = Meter::new(reporter, Step::Write, source.length());
    let mut wire = Wire { pieces: receive, current: Bytes::new(), ended: false, meter };
    let (format, disk) = (order.format, target.clone());
    let writing = spawn_blocking(move || {
        let written = match map {
            Some(map) => write_mapped(&map, &mut wire, disk),
            None => write_stream(format, &mut wire, disk),
        };
        // What follows the packed data belongs to the sum; and the sum tells a damaged image from a wrong one.
        if !matches!(written, Err(ImageError::Disk(_))) {
            let _ = io::copy(&mut wire, &mut io::sink());
        }
        written
    });
    let (fetched, written) = tokio::join!(source.download(send), writing);
    let written = written.map_err(|_| ImageError::Died)?;
    let writer = judge(fetched, written, order)?;
    let finished = spawn_blocking(move || writer.finish()).await.map_err(|_| ImageError::Died)?;
    finished.map_err(ImageError::Disk)
}

/// Which of several errors is the cause: the network's before the unpacking's that follows from it, a wrong sum before
/// what it leads to.
fn judge(
    fetched: Result<Fetched, FetchError>,
    written: Result<Writer, ImageError>,
    order: &ImageOrder,
) -> Result<Writer, ImageError> {
    match fetched {
        Err(FetchError::Unwanted { .. }) if written.is_err() => written,
        Err(error) => Err(ImageError::Fetch(error)),
        Ok(fetched) if hex::encode(fetched.sha256) != order.sha256.to_ascii_lowercase() => {
            let note = written.err().map(|error| format!(" ({})", crate::error::chain(&error))).unwrap_or_default();
            let (url, expected) = (order.url.clone(), order.sha256.clone());
            Err(ImageError::Checksum { url, expected, found: hex::encode(fetched.sha256), note })
        }
        Ok(_) => written,
    }
}

async fn qcow2_map(source: &mut Source, header: qcow2::Header, beginning: Vec<u8>) -> Result<qcow2::Map, ImageError> {
    let l1 = source.part(header.l1_table()).await.map_err(ImageError::Fetch)?;
    let mut l2 = Vec::new();
    for (guest, range) in header.l2_tables(&l1) {
        l2.push((guest, range.start, source.part(range).await.map_err(ImageError::Fetch)?));
    }
    Ok(qcow2::Map::new(&header, beginning, l1, l2)?)
}

/// Writes a QCOW2 file's sectors as they come by.
fn write_mapped(map: &qcow2::Map, wire: &mut Wire, target: Arc<Target>) -> Result<Writer, ImageError> {
    let mut writer = Writer::begin(target)?;
    for zeros in map.zeros() {
        writer.zero(zeros.clone())?;
    }
    map.read::<ImageError>(wire, |offset, bytes| Ok(writer.write(offset, bytes)?))?;
    Ok(writer)
}

/// Writes what the packed stream holds, from the disk's beginning on.
fn write_stream(format: ImageFormat, wire: &mut Wire, target: Arc<Target>) -> Result<Writer, ImageError> {
    let mut image = unpack(format, wire)?;
    // Looked at before the disk is touched: a disk that is too small keeps what it has.
    let first = chunk(&mut image)?;
    let inside = sniff(&first[..first.len().min(MAGIC_BYTES)]);
    if inside != ImageFormat::Raw {
        let text = format!("it holds another packed file ({inside:?}): unpack it once and take the sum of that");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
    }
    if let Some(bytes) = partition::described_bytes(&first) {
        write::check_size(&target, bytes)?;
    }
    let mut writer = Writer::begin(target)?;
    let (send, receive) = threads::sync_channel::<Vec<u8>>(AHEAD);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut offset = 0;
            for bytes in receive {
                writer.write(offset, &bytes)?;
                offset += bytes.len() as u64;
            }
            Ok::<_, DiskError>(writer)
        });
        let read = hand_on(first, &mut image, &send);
        drop(send);
        // The disk's error counts first: it is the one that stops the reading.
        let writer = writing.join().map_err(|_| ImageError::Died)??;
        read?;
        Ok(writer)
    })
}

/// Hands `first` and the rest of the image to the thread that writes, until the end or until that one has given up.
fn hand_on(first: Vec<u8>, image: &mut impl Read, send: &threads::SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut bytes = first;
    while !bytes.is_empty() {
        if send.send(bytes).is_err() {
            break;
        }
        bytes = chunk(image)?;
    }
    Ok(())
}

/// The next [`CHUNK`] bytes; fewer at the end, none after it.
fn chunk(image: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHUNK);
    image.take(CHUNK as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file as it comes over the network, for a thread that reads it. A download that broke off is an error.
struct Wire {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    meter: Meter,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the download ended early")),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        self.meter.add(length as u64);
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
