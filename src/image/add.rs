//! What a user brings: container images and the manifests of CNIs, taken into the artifact directory beside what `fill`
//! got. Filling leaves them alone.

use super::catalogue;
use super::manifest::{self, ADDED, Artifact, Kind, Manifest, ManifestError};
use super::oci::{self, OciError};
use crate::hardware::Arch;
use std::io;
use std::path::{Path, PathBuf};

/// A file that cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A kind that metalgate gets by itself.
    #[error("{kind} cannot be added: only container-image and cni-manifest can")]
    Kind {
        /// The kind.
        kind: Kind,
    },
    /// Not told by its name.
    #[error("what is {0}? Give --kind container-image or --kind cni-manifest")]
    Unclear(PathBuf),
    /// A name that cannot be one in the artifact directory.
    #[error("{0} needs a plain name: letters, digits, '.', '_', '+' and '-'")]
    Name(PathBuf),
    /// A name that is metalgate's own.
    #[error("{path} is filled by metalgate itself: give {file} another name")]
    Taken {
        /// In the artifact directory.
        path: String,
        /// The user's file.
        file: PathBuf,
    },
    /// Images whose machines are not known.
    #[error("{file} does not say for which one architecture its images are: give --arch")]
    Arch {
        /// The file.
        file: PathBuf,
    },
    /// Images for other machines.
    #[error("{file} has no image for {arch}")]
    OtherArch {
        /// The file.
        file: PathBuf,
        /// Which was asked for.
        arch: Arch,
    },
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The image.
    #[error(transparent)]
    Image(#[from] OciError),
    /// The compiled-in catalogue is broken.
    #[error("metalgate's own catalogue of artifacts cannot be read")]
    Catalogue(#[source] Box<serde_saphyr::Error>),
    /// It cannot be copied.
    #[error("cannot copy {file} to {to}")]
    Copy {
        /// The user's file.
        file: PathBuf,
        /// Where to.
        to: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Copies `file` into the artifact directory `dir` and its manifest, and says what it has become. What is not given is told
/// by the file: its kind by its name, its architecture by the images in it.
pub fn add(dir: &Path, file: &Path, kind: Option<Kind>, arch: Option<Arch>) -> Result<Artifact, AddError> {
    let kind = kind.or_else(|| kind_of(file)).ok_or_else(|| AddError::Unclear(file.to_owned()))?;
    let name = plain_name(file)?;
    let (path, arch, images) = match kind {
        Kind::ContainerImage => {
            let contents = oci::contents(file)?;
            let arch = arch_of(file, &contents.archs, arch)?;
            (format!("containers/{arch}/{name}.tar"), arch, contents.references)
        }
        Kind::CniManifest => (format!("manifests/cni/{name}.yaml"), arch.unwrap_or_default(), Vec::new()),
        kind => return Err(AddError::Kind { kind }),
    };
    let own = catalogue::entries().map_err(|source| AddError::Catalogue(Box::new(source)))?;
    if own.iter().any(|entry| entry.path == path) {
        return Err(AddError::Taken { path, file: file.to_owned() });
    }
    let mut manifest = match Manifest::load(dir) {
        Err(ManifestError::Missing(_)) => Manifest::new(dir),
        loaded => loaded?,
    };
    let (size, sha256) = copy(file, &dir.join(&path))?;
    let (version, source) = (String::from("-"), ADDED.to_owned());
    let artifact = Artifact { path, kind, arch, version, sha256, size, source, images };
    manifest.set(artifact.clone());
    manifest.save()?;
    Ok(artifact)
}

fn kind_of(file: &Path) -> Option<Kind> {
    match file.extension()?.to_str()? {
        "tar" => Some(Kind::ContainerImage),
        "yaml" | "yml" => Some(Kind::CniManifest),
        _ => None,
    }
}

/// The file's name without its extension.
fn plain_name(file: &Path) -> Result<&str, AddError> {
    let plain =
        |name: &&str| !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c));
    file.file_stem().and_then(|stem| stem.to_str()).filter(plain).ok_or_else(|| AddError::Name(file.to_owned()))
}

fn arch_of(file: &Path, archs: &[Arch], asked: Option<Arch>) -> Result<Arch, AddError> {
    match (asked, archs) {
        (Some(arch), archs) if archs.is_empty() || archs.contains(&arch) => Ok(arch),
        (Some(arch), _) => Err(AddError::OtherArch { file: file.to_owned(), arch }),
        (None, [arch]) => Ok(*arch),
        (None, _) => Err(AddError::Arch { file: file.to_owned() }),
    }
}

/// Copies a file, whole or not at all, and sums up the copy.
fn copy(file: &Path, to: &Path) -> Result<(u64, String), AddError> {
    let new = oci::beside(to, "new");
    let copy = || {
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(file, &new)?;
        let sum = manifest::sum(&new, |_| {})?;
        std::fs::rename(&new, to)?;
        Ok(sum)
    };
    copy().map_err(|source| AddError::Copy { file: file.to_owned(), to: to.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci::{Entry, Image};

    fn image(dir: &Path, name: &str, reference: &str, arch: Arch) -> PathBuf {
        let path = dir.join(name);
        let entries = vec![Entry::text("a", "b")];
        oci::write(&path, &Image { reference: reference.to_owned(), arch, entries, ..Image::default() }).unwrap();
        path
    }

    #[test]
    fn images_and_manifests_are_found_by_their_names_once_they_are_added() {
        let (theirs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cilium = image(theirs.path(), "cilium.tar", "quay.io/cilium/cilium:v1.19.1", Arch::Amd64);
        let arm = image(theirs.path(), "cilium-arm.tar", "quay.io/cilium/cilium:v1.19.1", Arch::Arm64);
        let yaml = theirs.path().join("cilium.yaml");
        std::fs::write(&yaml, "kind: DaemonSet").unwrap();
        assert_eq!(add(dir.path(), &cilium, None, None).unwrap().path, "containers/amd64/cilium.tar");
        assert_eq!(add(dir.path(), &arm, None, None).unwrap().path, "containers/arm64/cilium-arm.tar");
        assert_eq!(add(dir.path(), &yaml, None, None).unwrap().path, "manifests/cni/cilium.yaml");

        let manifest = Manifest::load(dir.path()).unwrap();
        manifest.verify(|_| true, |_, _| {}).unwrap();
        let found = manifest.image("quay.io/cilium/cilium:v1.19.1", Arch::Arm64).unwrap();
        assert_eq!(found.path, "containers/arm64/cilium-arm.tar");
        assert_eq!(manifest.images(Arch::Amd64).count(), 1);
        assert_eq!(manifest.image("quay.io/cilium/cilium:v1", Arch::Amd64), None);
        assert!(manifest.cni("cilium").unwrap().is_added());
        assert_eq!(manifest.cni("flannel"), None);
    }

    #[test]
    fn what_cannot_be_added_is_said_to_be_so_and_nothing_is_changed() {
        let (theirs, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let good = image(theirs.path(), "good.tar", "example.com/a:1", Arch::Amd64);
        let own = image(theirs.path(), "etcd.tar", "example.com/a:1", Arch::Amd64);
        let spaces = image(theirs.path(), "a b.tar", "example.com/a:1", Arch::Amd64);
        let refused = |file: &Path, kind, arch| add(dir.path(), file, kind, arch).unwrap_err();
        assert!(matches!(refused(&own, None, None), AddError::Taken { .. }));
        assert!(matches!(refused(&spaces, None, None), AddError::Name(_)));
        assert!(matches!(refused(&good, None, Some(Arch::Arm64)), AddError::OtherArch { .. }));
        assert!(matches!(refused(&good, Some(Kind::Etcd), None), AddError::Kind { .. }));
        assert!(matches!(refused(&theirs.path().join("a.zip"), None, None), AddError::Unclear(_)));
        assert!(matches!(refused(&theirs.path().join("none.yaml"), None, None), AddError::Copy { .. }));
        let text = theirs.path().join("text.tar");
        std::fs::write(&text, "no tar").unwrap();
        assert!(matches!(refused(&text, None, None), AddError::Image(_)));
        assert!(matches!(Manifest::load(dir.path()), Err(ManifestError::Missing(_))));
    }
}
