//! Container images from registries, into the archives that nodes import. Manifest, configuration and layers stay as they
//! are published, so the image keeps its digest; every one of them is checked by its SHA-256.

use super::oci::{self, Blob, OciError, beside};
use crate::hardware::Arch;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciDescriptor, OciImageManifest, OciManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration is a short text.
const MAX_CONFIG: i64 = 4 << 20;
const ACCEPTED: [&str; 4] =
    [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];

/// An image that cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry.
    #[error(
        "cannot fetch the image {image}; is there a way to the registry, and a proxy in HTTPS_PROXY if it needs one?"
    )]
    Registry {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: OciDistributionError,
    },
    /// The registry sends something that cannot be an image.
    #[error("the registry's manifest of {image} cannot be used: {reason}")]
    Manifest {
        /// The image.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// There is none for these machines.
    #[error("{image} is not published for linux/{arch}")]
    Platform {
        /// The image.
        image: String,
        /// Which machines.
        arch: Arch,
    },
    /// Its name, or its archive.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// It cannot be stored.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A manifest as it was published.
struct Published {
    text: Vec<u8>,
    media_type: String,
    manifest: OciImageManifest,
}

/// One image in one registry.
struct Pull<'a> {
    client: Client,
    reference: Reference,
    image: &'a str,
    arch: Arch,
}

/// Fetches `image` for linux/`arch` into the archive `path`, whole or not at all. `progress` is told bytes so far, and of
/// how many. With a digest in its name an image is exactly that one; by a tag alone it is what its registry says.
pub async fn pull(
    image: &str,
    arch: Arch,
    path: &Path,
    mut progress: impl FnMut(u64, Option<u64>) + Send,
) -> Result<(), PullError> {
    crate::tls::install_provider();
    let reference: Reference = oci::full_reference(image)?
        .parse()
        .map_err(|source| OciError::Reference { reference: image.to_owned(), source })?;
    let client = Client::new(ClientConfig {
        protocol: protocol(reference.resolve_registry()),
        platform_resolver: None,
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(Duration::from_secs(30)),
        ..ClientConfig::default()
    });
    let pull = Pull { client, reference, image, arch };
    let published = pull.manifest().await?;
    let config = pull.config(&published.manifest.config).await?;
    let parts = beside(path, "parts");
    let io = |source| PullError::Io { path: parts.clone(), source };
    tokio::fs::create_dir_all(&parts).await.map_err(io)?;
    let mut blobs = vec![Blob::Bytes(config)];
    let total = published.manifest.layers.iter().map(|layer| layer.size.unsigned_abs()).sum();
    let mut done = 0;
    for layer in &published.manifest.layers {
        let sha256 = pull.sha256(layer)?;
        let file = parts.join(&sha256);
        // A run that broke left the ones before: each was checked before it got its name.
        if !file.is_file() {
            pull.layer(layer, &file).await?;
        }
        done += layer.size.unsigned_abs();
        progress(done, Some(total));
        blobs.push(Blob::File { sha256, path: file });
    }
    let (path, name) = (path.to_owned(), without_digest(&pull.reference));
    let assemble = move || oci::assemble(&path, &name, &published.media_type, published.text, &blobs);
    tokio::task::spawn_blocking(assemble).await.map_err(io::Error::other).map_err(io)??;
    tokio::fs::remove_dir_all(&parts).await.map_err(io)
}

impl Pull<'_> {
    fn failed(&self, source: OciDistributionError) -> PullError {
        PullError::Registry { image: self.image.to_owned(), source }
    }

    fn unusable(&self, reason: impl ToString) -> PullError {
        PullError::Manifest { image: self.image.to_owned(), reason: reason.to_string() }
    }

    /// The image's manifest, through an index if there is one.
    async fn manifest(&self) -> Result<Published, PullError> {
        let mut reference = self.reference.clone();
        for _ in 0..2 {
            let raw = self.client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &ACCEPTED).await;
            let (text, _) = raw.map_err(|source| self.failed(source))?;
            match serde_json::from_slice(&text).map_err(|error| self.unusable(error))? {
                OciManifest::Image(manifest) => {
                    let media_type = manifest.media_type.clone().unwrap_or_else(|| OCI_IMAGE_MEDIA_TYPE.to_owned());
                    return Ok(Published { text: text.to_vec(), media_type, manifest });
                }
                OciManifest::ImageIndex(index) => {
                    let arch = self.arch.to_string();
                    let entry = index.manifests.into_iter().find(|entry| {
                        entry.platform.as_ref().is_some_and(|platform| {
                            platform.os.to_string() == "linux" && platform.architecture.to_string() == arch
                        })
                    });
                    let missing = || PullError::Platform { image: self.image.to_owned(), arch: self.arch };
                    reference = self.reference.clone_with_digest(entry.ok_or_else(missing)?.digest);
                }
            }
        }
        Err(self.unusable("an index names another one"))
    }

    /// The configuration, which says what the image is for: without an index nothing else does.
    async fn config(&self, descriptor: &OciDescriptor) -> Result<Vec<u8>, PullError> {
        self.sha256(descriptor)?;
        if descriptor.size > MAX_CONFIG {
            return Err(self.unusable(format!("its configuration has {} bytes", descriptor.size)));
        }
        let mut text = Vec::new();
        let pulled = self.client.pull_blob(&self.reference, descriptor, &mut text).await;
        pulled.map_err(|source| self.failed(source))?;
        let config: serde_json::Value = serde_json::from_slice(&text).map_err(|error| self.unusable(error))?;
        if config["architecture"] != self.arch.to_string() || config["os"] != "linux" {
            return Err(PullError::Platform { image: self.image.to_owned(), arch: self.arch });
        }
        Ok(text)
    }

    async fn layer(&self, descriptor: &OciDescriptor, path: &Path) -> Result<(), PullError> {
        let part = beside(path, "part");
        let io = |source| PullError::Io { path: part.clone(), source };
        let mut file = tokio::fs::File::create(&part).await.map_err(io)?;
        let pulled = self.client.pull_blob(&self.reference, descriptor, &mut file).await;
        pulled.map_err(|source| self.failed(source))?;
        tokio::fs::rename(&part, path).await.map_err(io)
    }

    /// The sum of a blob, checked before it becomes the name of a file.
    fn sha256(&self, descriptor: &OciDescriptor) -> Result<String, PullError> {
        let sum = descriptor.digest.strip_prefix("sha256:");
        let sum = sum.filter(|sum| sum.len() == 64 && sum.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')));
        sum.map(str::to_owned).ok_or_else(|| self.unusable(format!("{:?} is no sha256 digest", descriptor.digest)))
    }
}

/// TLS, but not for a registry on this machine: that is how container tools see it too.
fn protocol(registry: &str) -> ClientProtocol {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    match host {
        "localhost" | "127.0.0.1" | "[::1]" => ClientProtocol::Http,
        _ => ClientProtocol::Https,
    }
}

/// The name under which an image is imported: nodes ask for it by its tag.
fn without_digest(reference: &Reference) -> String {
    match reference.tag() {
        Some(tag) => format!("{}/{}:{tag}", reference.registry(), reference.repository()),
        None => reference.whole(),
    }
}

#[cfg(test)]
mod tests;
