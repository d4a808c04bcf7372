//! What a new spec installs: the OS image and the Kubernetes that the artifacts have.

use super::manifest::{Kind, Manifest};
use crate::hardware::Arch;
use serde::Serialize;
use std::path::Path;

/// What a spec installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageChoice {
    /// The image's URL.
    pub url: String,
    /// Its sum; 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The version of the Kubernetes programs that are there.
    pub kubernetes: String,
}

impl ImageChoice {
    /// The OS image and the Kubernetes of the artifact directory `artifacts`; `None` where it has none yet.
    pub fn of(artifacts: &Path) -> Option<Self> {
        let manifest = Manifest::load(artifacts).ok()?;
        let image = manifest.find(Kind::OsImage, Arch::Amd64).ok()?;
        let kubernetes = manifest.find(Kind::Kubeadm, Arch::Amd64).ok()?.version.clone();
        Some(Self { url: format!("file:{}", image.path), sha256: image.sha256.clone(), kubernetes })
    }
}
