//! The manager's image: this very program on nothing else, written by ourselves, so that no registry is needed.

use crate::hardware::Arch;
use crate::image::manifest::{self, Artifact, Kind, Manifest, ManifestError};
use crate::image::oci::{self, Entry, OciError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Its repository.
pub const REPOSITORY: &str = "metalgate.dev/manager";
/// Its archive, below the artifact directory.
const ARCHIVE: &str = "containers/amd64/metalgate-manager.tar";
/// Characters of the program's sum that its tag shows.
const SHOWN: usize = 12;

/// An image that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Our own program cannot be read.
    #[error("cannot read metalgate's own program {program}")]
    Program {
        /// Where it should be.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It would not run in an image that holds nothing else.
    #[error(
        "{0} is not a static binary, so it cannot be the manager in the cluster: use the release build (`make build`)"
    )]
    Dynamic(PathBuf),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] OciError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Our own program, and its image's reference: the version with the start of its sum, so that it is always this program.
fn own() -> Result<(PathBuf, String), ImageError> {
    let unreadable = |program: &Path, source| ImageError::Program { program: program.to_owned(), source };
    let program = std::env::current_exe().map_err(|source| unreadable(Path::new("metalgate"), source))?;
    let (_, sum) = manifest::sum(&program, |_| {}).map_err(|source| unreadable(&program, source))?;
    let sum = sum.get(..SHOWN).unwrap_or(&sum);
    let reference = format!("{REPOSITORY}:v{}-{sum}", env!("CARGO_PKG_VERSION"));
    Ok((program, reference))
}

/// The reference of the image of this program.
pub fn reference() -> Result<String, ImageError> {
    Ok(own()?.1)
}

/// Whether a program asks for an interpreter (ELF's PT_INTERP names it by its path): then it needs libraries.
fn is_dynamic(program: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    std::fs::File::open(program)?.take(4096).read_to_end(&mut head)?;
    Ok(head.windows(8).any(|bytes| bytes == b"/lib64/l" || bytes == b"/lib/ld-"))
}

/// Writes the image into the artifact directory, unless it is there.
pub fn pack(manifest: &mut Manifest) -> Result<(), ImageError> {
    let (program, reference) = own()?;
    let path = manifest.dir().join(ARCHIVE);
    if manifest.image(&reference, Arch::Amd64).is_some() && path.exists() {
        return Ok(());
    }
    let unreadable = |source| ImageError::Program { program: program.clone(), source };
    if is_dynamic(&program).map_err(unreadable)? {
        return Err(ImageError::Dynamic(program));
    }
    let image = oci::Image {
        reference: reference.clone(),
        arch: Arch::Amd64,
        entrypoint: vec![String::from("/metalgate")],
        entries: vec![Entry::program("/metalgate", &program)],
        ..oci::Image::default()
    };
    oci::write(&path, &image)?;
    let (size, sha256) = manifest::sum(&path, |_| {}).map_err(unreadable)?;
    manifest.set(Artifact {
        path: ARCHIVE.to_owned(),
        kind: Kind::ContainerImage,
        arch: Arch::Amd64,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sha256,
        size,
        source: String::from("packed"),
        images: vec![reference],
    });
    Ok(manifest.save()?)
}
