//! manifest.json of an artifact directory: every file with its size and SHA-256.

use crate::hardware::Arch;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Name of the file in the artifact directory.
pub const FILE: &str = "manifest.json";

/// What an artifact is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// iPXE for BIOS, over the card's own UNDI driver.
    IpxeBios,
    /// iPXE for UEFI with drivers of its own.
    IpxeUefi,
    /// iPXE for UEFI, over the firmware's network protocol.
    IpxeUefiSnp,
    /// Kernel that the agent runs on.
    AgentKernel,
    /// Drivers: the initramfs' first segment.
    AgentInitramfs,
    /// The agent: the initramfs' second segment.
    Agent,
    /// Operating system image.
    OsImage,
    /// etcd.
    Etcd,
    /// Kubernetes' API server.
    KubeApiserver,
    /// kubeadm.
    Kubeadm,
    /// kubelet.
    Kubelet,
    /// kubectl.
    Kubectl,
    /// crictl: a look at what the container runtime does.
    Crictl,
    /// The usual CNI plugins: a gzipped tar of programs.
    CniPlugins,
    /// What is applied to a new cluster so that its pods have a network: Kubernetes objects in YAML.
    CniManifest,
    /// Container images: an OCI archive, or one of `docker save`.
    ContainerImage,
    /// Envoy Gateway, as a program outside of a cluster.
    EnvoyGateway,
    /// Envoy, as a program outside of a cluster.
    Envoy,
    /// What is applied to a cluster before its API gateway starts: Kubernetes objects in YAML.
    GatewayManifest,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path below the artifact directory.
    pub path: String,
    /// What it is for.
    pub kind: Kind,
    /// Which machines it is for.
    pub arch: Arch,
    /// Version of what is in it.
    pub version: String,
    /// Sum, lower case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    /// Where it came from: `build`, `added`, or an URL.
    pub source: String,
    /// Full names of the container images in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// `source` of what its user brought; filling leaves it alone.
pub const ADDED: &str = "added";

impl Artifact {
    /// Whether its user brought it.
    pub fn is_added(&self) -> bool {
        self.source == ADDED
    }
}

/// manifest.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format: 1.
    pub schema: u32,
    /// The files, by path.
    pub artifacts: Vec<Artifact>,
    /// The directory it was read from.
    #[serde(skip)]
    dir: PathBuf,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No manifest there.
    #[error("there are no artifacts in {0}: run `metalgate artifacts fill` first, or give --artifacts")]
    Missing(PathBuf),
    /// It cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not ours.
    #[error("{path} is not a manifest of artifacts (schema 1)")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// It names a file outside its directory.
    #[error("{manifest} names {path:?}, which is not below its directory")]
    Outside {
        /// The manifest.
        manifest: PathBuf,
        /// The path it names.
        path: String,
    },
    /// Files that are not what the manifest says.
    #[error("{} in {dir} are not what its manifest says:{}; `metalgate artifacts fill` mends them", count(.damaged.len()), list(.damaged))]
    Damaged {
        /// The artifact directory.
        dir: PathBuf,
        /// Each damaged file, and what is wrong with it.
        damaged: BTreeMap<String, Damage>,
    },
    /// Something that is needed is not there.
    #[error("the artifacts in {dir} have no {kind} for {arch}: run `metalgate artifacts fill`")]
    Lacking {
        /// The artifact directory.
        dir: PathBuf,
        /// What is needed.
        kind: Kind,
        /// For which machines.
        arch: Arch,
    },
}

fn count(files: usize) -> String {
    if files == 1 { String::from("1 file") } else { format!("{files} files") }
}

fn list(damaged: &BTreeMap<String, Damage>) -> String {
    damaged.iter().map(|(path, damage)| format!("\n  {path}: {damage}")).collect()
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is not there, or cannot be read.
    Unreadable(String),
    /// It has another size.
    Size {
        /// In bytes, by the manifest.
        expected: u64,
        /// In bytes.
        found: u64,
    },
    /// It has another sum.
    Sum {
        /// By the manifest.
        expected: String,
        /// Of the file.
        found: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Size { expected, found } => write!(f, "it has {found} bytes instead of {expected}"),
            Self::Sum { expected, found } => write!(f, "its sha256 is {found} instead of {expected}"),
        }
    }
}

/// Size and SHA-256 of a file; `progress` is told the bytes read so far.
pub fn sum(path: &Path, mut progress: impl FnMut(u64)) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, hex::encode(hash.finalize()))),
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
                progress(size);
            }
        }
    }
}

impl Manifest {
    /// An empty manifest of `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { schema: 1, artifacts: Vec::new(), dir: dir.to_owned() }
    }

    /// Reads the manifest of the artifact directory `dir`; the files are not looked at.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing(dir.to_owned()));
            }
            Err(source) => return Err(ManifestError::Io { path, source }),
        };
        Self::parse(&text, dir, path)
    }

    /// Reads the text of a manifest; `origin` names it in errors.
    pub(super) fn parse(text: &[u8], dir: &Path, origin: PathBuf) -> Result<Self, ManifestError> {
        let manifest: Self = match serde_json::from_slice(text) {
            Ok(manifest) => manifest,
            Err(source) => return Err(ManifestError::Format { path: origin, source: Some(source) }),
        };
        if manifest.schema != 1 {
            return Err(ManifestError::Format { path: origin, source: None });
        }
        let inside = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if let Some(artifact) = manifest.artifacts.iter().find(|artifact| !inside(&artifact.path)) {
            return Err(ManifestError::Outside { manifest: origin, path: artifact.path.clone() });
        }
        Ok(Self { dir: dir.to_owned(), ..manifest })
    }

    /// The artifact directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds an artifact, or replaces the one of the same path.
    pub fn set(&mut self, artifact: Artifact) {
        self.artifacts.retain(|known| known.path != artifact.path);
        self.artifacts.push(artifact);
        self.artifacts.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// Writes the manifest into its directory, whole or not at all. The same artifacts give the same bytes.
    pub fn save(&self) -> Result<(), ManifestError> {
        let (path, new) = (self.dir.join(FILE), self.dir.join("manifest.json.new"));
        let write = || {
            let mut text = serde_json::to_string_pretty(self)?;
            text.push('\n');
            std::fs::write(&new, text)?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|source| ManifestError::Io { path: path.clone(), source })
    }

    /// Whether there is something at this path that its user brought.
    pub fn is_added(&self, path: &str) -> bool {
        self.artifacts.iter().any(|artifact| artifact.path == path && artifact.is_added())
    }

    /// The artifact of one kind for one architecture.
    pub fn find(&self, kind: Kind, arch: Arch) -> Result<&Artifact, ManifestError> {
        let fits = |artifact: &&Artifact| artifact.kind == kind && artifact.arch == arch;
        self.artifacts.iter().find(fits).ok_or_else(|| ManifestError::Lacking { dir: self.dir.clone(), kind, arch })
    }

    /// The archive that holds a container image; of several, the one that was added. `reference` is the name as containerd
    /// keeps it, in full.
    pub fn image(&self, reference: &str, arch: Arch) -> Option<&Artifact> {
        let holds = |artifact: &&Artifact| artifact.images.iter().any(|image| image == reference);
        self.images(arch).filter(holds).max_by_key(|artifact| artifact.is_added())
    }

    /// All archives of container images for one architecture.
    pub fn images(&self, arch: Arch) -> impl Iterator<Item = &Artifact> {
        self.artifacts.iter().filter(move |artifact| artifact.kind == Kind::ContainerImage && artifact.arch == arch)
    }

    /// The manifest of a CNI by its name: `flannel` is manifests/cni/flannel.yaml.
    pub fn cni(&self, name: &str) -> Option<&Artifact> {
        let named = |path: &str| Path::new(path).file_stem().is_some_and(|stem| stem == name);
        self.artifacts.iter().find(|artifact| artifact.kind == Kind::CniManifest && named(&artifact.path))
    }

    /// The architectures that nodes can have: those with a kubelet.
    pub fn arches_of_nodes(&self) -> BTreeSet<Arch> {
        self.artifacts.iter().filter(|artifact| artifact.kind == Kind::Kubelet).map(|artifact| artifact.arch).collect()
    }

    /// A manifest of some of its artifacts, in the same directory.
    pub fn subset<'a>(&self, artifacts: impl Iterator<Item = &'a Artifact>) -> Self {
        Self { schema: self.schema, artifacts: artifacts.cloned().collect(), dir: self.dir.clone() }
    }

    /// Where an artifact's file is.
    pub fn path_of(&self, artifact: &Artifact) -> PathBuf {
        self.dir.join(&artifact.path)
    }

    /// Reads every file that `wanted` names; all that is wrong is reported at once. `progress` is told bytes of all.
    pub fn verify(
        &self,
        wanted: impl Fn(&Artifact) -> bool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), ManifestError> {
        let wanted: Vec<&Artifact> = self.artifacts.iter().filter(|artifact| wanted(artifact)).collect();
        let total = wanted.iter().map(|artifact| artifact.size).sum();
        let mut before = 0;
        let mut damaged = BTreeMap::new();
        for artifact in wanted {
            if let Err(damage) = self.check(artifact, |done| progress(before + done, total)) {
                damaged.insert(artifact.path.clone(), damage);
            }
            before += artifact.size;
        }
        if damaged.is_empty() { Ok(()) } else { Err(ManifestError::Damaged { dir: self.dir.clone(), damaged }) }
    }

    fn check(&self, artifact: &Artifact, progress: impl FnMut(u64)) -> Result<(), Damage> {
        let path = self.path_of(artifact);
        let unreadable = |error: io::Error| Damage::Unreadable(error.to_string());
        let size = std::fs::metadata(&path).map_err(unreadable)?.len();
        if size != artifact.size {
            return Err(Damage::Size { expected: artifact.size, found: size });
        }
        let (_, found) = sum(&path, progress).map_err(unreadable)?;
        if found != artifact.sha256 {
            return Err(Damage::Sum { expected: artifact.sha256.clone(), found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(dir: &Path, path: &str, content: &str) -> Artifact {
        let file = dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        let (size, sha256) = sum(&file, |_| {}).unwrap();
        let (path, version, source) = (path.to_owned(), String::from("1"), String::from("build"));
        let (kind, arch, images) = (Kind::Etcd, Arch::Amd64, Vec::new());
        Artifact { path, kind, arch, version, sha256, size, source, images }
    }

    #[test]
    fn every_damaged_file_is_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new(dir.path());
        for (path, content) in [("a/good", "good"), ("a/short", "short"), ("b/other", "other"), ("gone", "gone")] {
            manifest.set(artifact(dir.path(), path, content));
        }
        manifest.save().unwrap();
        let manifest = Manifest::load(dir.path()).unwrap();
        manifest.verify(|_| true, |_, _| {}).unwrap();
        std::fs::write(dir.path().join("a/short"), "sho").unwrap();
        std::fs::write(dir.path().join("b/other"), "OTHER").unwrap();
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        let Err(ManifestError::Damaged { damaged, .. }) = manifest.verify(|_| true, |_, _| {}) else { panic!() };
        assert_eq!(damaged.keys().collect::<Vec<_>>(), ["a/short", "b/other", "gone"]);
        assert_eq!(damaged["a/short"], Damage::Size { expected: 5, found: 3 });
        assert!(matches!(damaged["b/other"], Damage::Sum { .. }));
        manifest.verify(|artifact| artifact.path == "a/good", |_, _| {}).unwrap();
    }

    #[test]
    fn a_manifest_cannot_reach_outside_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::new(dir.path());
        manifest.set(artifact(dir.path(), "good", "good"));
        for path in ["../evil", "/etc/passwd", "a/../../evil"] {
            let mut evil = manifest.clone();
            evil.artifacts[0].path = path.to_owned();
            evil.save().unwrap();
            assert!(matches!(Manifest::load(dir.path()), Err(ManifestError::Outside { .. })), "{path}");
        }
        let schema = Manifest { schema: 2, ..manifest };
        schema.save().unwrap();
        assert!(matches!(Manifest::load(dir.path()), Err(ManifestError::Format { .. })));
        assert!(matches!(Manifest::load(&dir.path().join("none")), Err(ManifestError::Missing(_))));
    }
}
