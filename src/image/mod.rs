//! Artifacts and OS images: what is served to machines, where it comes from, and how images are unpacked.
//!
//! `catalogue` says which files there are and the ways to them, `fill` goes those ways, `manifest` holds their sums and
//! checks them. Fed by release servers, mirrors or `provisioning/`; feeds `netboot` and `bootstrap`.
//!
//! `choice` is what a new spec installs, `oci` writes and reads container images as files, `registry` fetches them, `add` takes what a user brings.
//!
//! `format` and `qcow2` say how OS images are packed, and unpack them as they stream by: for `agent`, which writes what they
//! hold to a disk.

pub mod add;
pub mod catalogue;
pub mod choice;
pub mod download;
pub mod fill;
pub mod format;
pub mod manifest;
pub mod oci;
pub mod qcow2;
pub mod registry;

use std::path::PathBuf;

/// The artifact directory cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell where the artifacts are: set HOME, or METALGATE_ARTIFACTS, or give --artifacts")]
pub struct NoDirectory;

/// The artifact directory where none is named: `~/.cache/metalgate/artifacts`, or below XDG_CACHE_HOME.
pub fn default_dir() -> Result<PathBuf, NoDirectory> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache.or_else(home).ok_or(NoDirectory)?.join("metalgate/artifacts"))
}
