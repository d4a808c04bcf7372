//! Container images as files: OCI archives, the tars that `ctr -n k8s.io images import` takes.
//!
//! [`write()`] makes one from a list of [`Entry`], such as a single static binary; [`entries`] lists a folder. [`contents`]
//! says what is in an archive that somebody else made. The same image gives the same bytes: no time and no owner of this
//! machine gets into it. The layer is not compressed: nodes fetch it over their own network, and slow ones are slow at
//! unpacking.

mod layer;
mod read;
#[cfg(test)]
mod tests;

pub use layer::{Content, Entry, entries};
pub use read::{Contents, contents};

use super::manifest;
use crate::hardware::Arch;
use oci_client::Reference;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Where containerd looks for the name of an image.
const NAME: &str = "io.containerd.image.name";
/// Where everybody else does.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What images have that say nothing else, so that a command is found by its name alone.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image to be written.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its name: `registry.k8s.io/pause:3.10.2`.
    pub reference: String,
    /// Which machines it is for.
    pub arch: Arch,
    /// The command and its first arguments.
    pub entrypoint: Vec<String>,
    /// Variables, as `NAME=VALUE`; PATH is set if it is not among them.
    pub env: Vec<String>,
    /// Whom it runs as, `UID` or `UID:GID`; root if empty.
    pub user: String,
    /// Where it runs; / if empty.
    pub workdir: String,
    /// Its files. Folders that lead to them need not be listed.
    pub entries: Vec<Entry>,
}

/// An image that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// No name of an image.
    #[error("`{reference}` is not the name of an image, such as registry.example.com/tool:v1")]
    Reference {
        /// The text.
        reference: String,
        /// Why.
        #[source]
        source: oci_client::ParseError,
    },
    /// A path that leads out of the image.
    #[error("an image cannot have a file {0:?}: the path must lead down from its root")]
    Path(PathBuf),
    /// Two different things of one name.
    #[error("an image cannot have {0:?} twice")]
    Twice(PathBuf),
    /// Sockets, devices and the like.
    #[error("{0} is neither a file, a folder nor a symbolic link: images are packed from these only")]
    Special(PathBuf),
    /// A file that shall get into an image, or the archive.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A compressed archive.
    #[error("{0} is compressed: unpack it first (gunzip, unzstd), images are imported as plain tars")]
    Compressed(PathBuf),
    /// No archive of an image.
    #[error("{path} is neither an OCI archive nor one of `docker save`: {reason}")]
    NotImage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An archive whose images have no names.
    #[error("{0} does not say the full name of its image: save it by its name, not by its ID or its digest")]
    Nameless(PathBuf),
}

/// The full form of an image's name, as containerd keeps it: `nginx` is `docker.io/library/nginx:latest`.
pub fn full_reference(reference: &str) -> Result<String, OciError> {
    match reference.parse::<Reference>() {
        Ok(parsed) => Ok(parsed.whole()),
        Err(source) => Err(OciError::Reference { reference: reference.to_owned(), source }),
    }
}

/// Writes an image, whole or not at all.
pub fn write(path: &Path, image: &Image) -> Result<(), OciError> {
    let layer = beside(path, "layer");
    let written = layer::write(&layer, &image.entries).and_then(|()| {
        let sum = manifest::sum(&layer, |_| {});
        let (size, digest) = sum.map_err(|source| OciError::Read { path: layer.clone(), source })?;
        let config = to_bytes(&config(image, &digest));
        let config_sum = (config.len() as u64, hex_sum(&config));
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config_sum),
            "layers": [descriptor(LAYER, &(size, digest.clone()))],
        }));
        let blobs = [Blob::Bytes(config), Blob::File { sha256: digest, path: layer.clone() }];
        assemble(path, &image.reference, MANIFEST, manifest, &blobs)
    });
    // It may never have been there.
    let _ = std::fs::remove_file(&layer);
    written
}

/// A file of an archive, known by its sum.
pub(super) enum Blob {
    /// In memory.
    Bytes(Vec<u8>),
    /// On disk; its sum is known already.
    File {
        /// Lower case hexadecimal.
        sha256: String,
        /// The file.
        path: PathBuf,
    },
}

/// Writes the archive of one image from its manifest and the blobs that the manifest names.
pub(super) fn assemble(
    path: &Path,
    reference: &str,
    media_type: &str,
    manifest: Vec<u8>,
    blobs: &[Blob],
) -> Result<(), OciError> {
    let name = full_reference(reference)?;
    let mut descriptor = descriptor(media_type, &(manifest.len() as u64, hex_sum(&manifest)));
    descriptor["annotations"] = json!({ NAME: name, REF_NAME: name });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] });
    let new = beside(path, "new");
    let write = || {
        let mut tar = tar::Builder::new(io::BufWriter::new(File::create(&new)?));
        layer::append(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        layer::append(&mut tar, "index.json", 0o644, &to_bytes(&index))?;
        let mut known = std::collections::BTreeSet::new();
        for blob in blobs.iter().chain([&Blob::Bytes(manifest.clone())]) {
            let sha256 = match blob {
                Blob::Bytes(bytes) => hex_sum(bytes),
                Blob::File { sha256, .. } => sha256.clone(),
            };
            // Two layers of an image may be the same one.
            if known.insert(sha256.clone()) {
                let name = format!("blobs/sha256/{sha256}");
                match blob {
                    Blob::Bytes(bytes) => layer::append(&mut tar, &name, 0o644, bytes)?,
                    Blob::File { path, .. } => layer::append_file(&mut tar, &name, 0o644, path)?,
                }
            }
        }
        tar.into_inner()?.flush()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|source| OciError::Write { path: path.to_owned(), source })
}

fn config(image: &Image, layer: &str) -> Value {
    let mut env = image.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, PATH.to_owned());
    }
    let workdir = if image.workdir.is_empty() { "/" } else { &image.workdir };
    json!({
        "architecture": image.arch,
        "os": "linux",
        "config": { "User": image.user, "Env": env, "Entrypoint": image.entrypoint, "WorkingDir": workdir },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}

fn descriptor(media_type: &str, (size, sha256): &(u64, String)) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{sha256}"), "size": size })
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn hex_sum(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

/// A name beside a file, for what is not finished.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}
