//! Check: what will be served is there with the right sums, the OS image is packed as the spec says, and there is room to work.

use super::{Check, Finding, Name, Subject};
use crate::error::chain;
use crate::image::format::{self, MAGIC_BYTES};
use crate::workflow::artifacts::{Verified, image_file, verify};
use async_trait::async_trait;
use indicatif::BinaryBytes;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The bootstrap cluster's etcd keeps up to 2 GiB (its default quota), beside journal and logs; a cluster of a few machines needs
/// a tenth.
const ROOMY: u64 = 2 << 30;
const ROOM: u64 = 256 << 20;

pub struct Artifacts;

#[async_trait]
impl Check for Artifacts {
    fn name(&self) -> Name {
        Name::Artifacts
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let mut found: Vec<Finding> = room(subject.work_dir).into_iter().collect();
        let (request, events) = (subject.request, subject.events);
        let verified = verify(request, events).await.map_err(|error| {
            let reason = chain(error.as_ref());
            found.push(Finding::failed("artifacts", reason, "fill them: `metalgate artifacts fill`"));
        });
        let image = image_file(&request.spec.os.image, &request.artifacts, events).await.map_err(|error| {
            let reason = chain(error.as_ref());
            found.push(Finding::failed("OS image", reason, "correct spec.os.image"));
        });
        found.extend(image.as_ref().ok().and_then(|image| packed(subject, image)));
        if let (Ok((manifest, supplies)), Ok(image)) = (verified, image) {
            // This check runs once.
            let _ = subject.verified.set(Verified { manifest, supplies, image });
        }
        if found.is_empty() {
            found.push(Finding::passed("all is there with the right sums, and there is room"));
        }
        found
    }
}

/// Whether the image is packed in another way than the spec says: the agent would write garbage, or stop.
fn packed(subject: &Subject<'_>, image: &Path) -> Option<Finding> {
    let (path, wanted) = (image.display().to_string(), subject.request.spec.os.image.format);
    let mut beginning = Vec::with_capacity(MAGIC_BYTES);
    let read = File::open(image).and_then(|file| file.take(MAGIC_BYTES as u64).read_to_end(&mut beginning));
    match (read, format::sniff(&beginning)) {
        (Err(error), _) => Some(Finding::failed(path, format!("cannot be read: {error}"), "see spec.os.image.url")),
        (Ok(_), is) if is == wanted => None,
        (Ok(_), is) => {
            let (wanted, is) = (name(wanted), name(is));
            let reason = format!("the OS image should be {wanted}, but looks like {is}");
            Some(Finding::failed(
                path,
                reason,
                format!("write `format: {is}` into spec.os.image, or name another image"),
            ))
        }
    }
}

fn name(format: crate::spec::ImageFormat) -> String {
    serde_json::to_value(format).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Whether the file system of the work directory is nearly full.
fn room(work_dir: &Path) -> Option<Finding> {
    let (path, free) = match free(work_dir) {
        Ok(found) => found,
        Err(error) => {
            let reason = format!("cannot tell the room for the work directory: {error}");
            return Some(Finding::warning(work_dir.display().to_string(), reason, "see --work-dir"));
        }
    };
    let reason = format!("{} are free for the work directory", BinaryBytes(free));
    let way_out = format!("make room for {}, or give another --work-dir", BinaryBytes(ROOMY));
    let path = path.display().to_string();
    match free {
        ..ROOM => Some(Finding::failed(path, reason, way_out)),
        ROOM..ROOMY => Some(Finding::warning(path, reason, way_out)),
        ROOMY.. => None,
    }
}

/// Bytes that are free for us where `dir` is or will be, and the directory that was asked.
fn free(dir: &Path) -> io::Result<(PathBuf, u64)> {
    let dir = std::path::absolute(dir)?;
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let space = rustix::fs::statvfs(there)?;
    Ok((there.to_owned(), space.f_bavail * space.f_frsize))
}
