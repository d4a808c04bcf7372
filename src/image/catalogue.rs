//! Which files an artifact directory has, and the ways to each: provisioning/catalogue.yaml, compiled in.

use super::manifest::Kind;
use crate::hardware::Arch;
use serde::Deserialize;

const TEXT: &str = include_str!("../../provisioning/catalogue.yaml");

/// One file of the artifact directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path below the artifact directory.
    pub path: String,
    /// What it is for.
    pub kind: Kind,
    /// Which machines it is for.
    pub arch: Arch,
    /// What `provisioning/build` calls the piece it belongs to.
    pub piece: String,
    /// Where it is published as it is.
    #[serde(default)]
    pub release: Option<Release>,
}

/// How something is published.
#[derive(Clone, Debug, Deserialize)]
pub struct Release {
    /// Version of what is in it.
    pub version: String,
    /// From where.
    #[serde(flatten)]
    pub from: Published,
}

/// Where something is published.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Published {
    /// A file with its sum in another one.
    Summed {
        /// The file.
        url: url::Url,
        /// Its sum, as published beside it.
        sha256_url: url::Url,
    },
    /// A file whose sum nobody publishes.
    Pinned {
        /// The file.
        url: url::Url,
        /// Its sum, by us.
        sha256: String,
    },
    /// A container image in a registry.
    Image {
        /// Its name, in full.
        image: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    artifacts: Vec<Entry>,
}

/// The catalogue of this version of metalgate.
pub fn entries() -> Result<Vec<Entry>, serde_saphyr::Error> {
    serde_saphyr::from_str::<Catalogue>(TEXT).map(|catalogue| catalogue.artifacts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci;
    use std::collections::HashSet;

    /// Kinds that are looked for by more than kind and architecture.
    const MANY: [Kind; 2] = [Kind::ContainerImage, Kind::CniManifest];

    #[test]
    fn the_catalogue_is_readable_and_names_each_path_and_kind_once() {
        let entries = entries().unwrap();
        let paths: HashSet<_> = entries.iter().map(|entry| &entry.path).collect();
        assert_eq!(paths.len(), entries.len());
        let single: Vec<_> = entries.iter().filter(|entry| !MANY.contains(&entry.kind)).collect();
        let kinds: HashSet<_> = single.iter().map(|entry| (entry.kind, entry.arch)).collect();
        assert_eq!(kinds.len(), single.len());
        for entry in &entries {
            if let Some(Release { from: Published::Image { image }, .. }) = &entry.release {
                assert_eq!(entry.kind, Kind::ContainerImage, "{image}");
                assert_eq!(&oci::full_reference(image).unwrap(), image);
            }
        }
    }
}
