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

/// A published file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Version of what is in it.
    pub version: String,
    /// The file.
    pub url: url::Url,
    /// Its sum, as published beside it.
    pub sha256_url: url::Url,
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
    use std::collections::HashSet;

    #[test]
    fn the_catalogue_is_readable_and_names_each_path_and_kind_once() {
        let entries = entries().unwrap();
        let paths: HashSet<_> = entries.iter().map(|entry| &entry.path).collect();
        let kinds: HashSet<_> = entries.iter().map(|entry| (entry.kind, entry.arch)).collect();
        assert_eq!((paths.len(), kinds.len()), (entries.len(), entries.len()));
    }
}
