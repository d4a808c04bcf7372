//! What is in an archive that somebody else made: an OCI archive, one of `docker save`, or both in one, as newer Dockers
//! write it. Nothing is unpacked; only a few small files are looked at.

use super::{NAME, OciError, REF_NAME, full_reference};
use crate::hardware::Arch;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A JSON file of an archive is never as long.
const MAX_JSON: u64 = 4 << 20;
/// No archive of images has as many files.
const MAX_FILES: usize = 100_000;

/// What is in an archive of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The images' full names, sorted.
    pub references: Vec<String>,
    /// The machines that they are for, of those that metalgate knows.
    pub archs: Vec<Arch>,
}

/// Looks into an archive.
pub fn contents(path: &Path) -> Result<Contents, OciError> {
    let mut archive = Archive::open(path)?;
    let mut names = BTreeSet::new();
    let mut archs = BTreeSet::new();
    let index: Option<Index> = archive.json("index.json")?;
    let saved: Option<Vec<Saved>> = archive.json("manifest.json")?;
    if index.is_none() && saved.is_none() {
        return Err(archive.not_image("it has neither index.json nor manifest.json"));
    }
    if let Some(index) = index {
        names.extend(index.manifests.iter().filter_map(Descriptor::name));
        archs.extend(archive.archs(index)?);
    }
    for image in saved.into_iter().flatten() {
        names.extend(image.repo_tags.unwrap_or_default());
        archs.extend(archive.json::<Config>(&image.config)?.and_then(Config::arch));
    }
    let references: Result<BTreeSet<String>, OciError> = names.iter().map(|name| full_reference(name)).collect();
    let references: Vec<String> = references?.into_iter().collect();
    if references.is_empty() {
        return Err(OciError::Nameless(path.to_owned()));
    }
    Ok(Contents { references, archs: archs.into_iter().collect() })
}

/// The index of an image, or of many.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Descriptor {
    /// The name of the image; a tag alone is none.
    fn name(&self) -> Option<String> {
        let full = |name: &&String| name.contains(['/', ':']);
        self.annotations.get(NAME).or(self.annotations.get(REF_NAME).filter(full)).cloned()
    }

    /// Where its file is in the archive.
    fn file(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }
}

/// A manifest or an index: they are told apart by what they have.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
}

impl Config {
    fn arch(self) -> Option<Arch> {
        [Arch::Amd64, Arch::Arm64].into_iter().find(|arch| arch.to_string() == self.architecture)
    }
}

/// One image of `docker save`'s manifest.json.
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
}

/// A tar whose files are found by name.
struct Archive {
    path: PathBuf,
    file: BufReader<File>,
    /// Where each file begins, and its length.
    files: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path) -> Result<Self, OciError> {
        let failed = |source| OciError::Read { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
        if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err(OciError::Compressed(path.to_owned()));
        }
        file.rewind().map_err(failed)?;
        let mut archive = Self { path: path.to_owned(), file, files: HashMap::new() };
        match index(&mut archive.file) {
            Ok(files) => archive.files = files,
            Err(error) => return Err(archive.not_image(&error.to_string())),
        }
        Ok(archive)
    }

    fn not_image(&self, reason: &str) -> OciError {
        OciError::NotImage { path: self.path.clone(), reason: reason.to_owned() }
    }

    /// Reads a small file; none if there is none.
    fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, OciError> {
        let Some(&(at, size)) = self.files.get(name) else { return Ok(None) };
        if size > MAX_JSON {
            return Err(self.not_image(&format!("its {name} has {size} bytes")));
        }
        let mut text = Vec::new();
        let read =
            self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.by_ref().take(size).read_to_end(&mut text));
        read.map_err(|source| OciError::Read { path: self.path.clone(), source })?;
        serde_json::from_slice(&text).map(Some).map_err(|error| self.not_image(&format!("its {name}: {error}")))
    }

    /// The machines that the images of an index are for, as their configurations say. An index may name other indexes, and
    /// images that are not in the archive.
    fn archs(&mut self, index: Index) -> Result<BTreeSet<Arch>, OciError> {
        let (mut archs, mut seen) = (BTreeSet::new(), HashSet::new());
        let mut left = index.manifests;
        while let Some(descriptor) = left.pop() {
            let file = descriptor.file();
            if !seen.insert(file.clone()) {
                continue;
            }
            let Some(manifest) = self.json::<Manifest>(&file)? else { continue };
            if let Some(config) = manifest.config {
                archs.extend(self.json::<Config>(&config.file())?.and_then(Config::arch));
            }
            left.extend(manifest.manifests);
        }
        Ok(archs)
    }
}

fn index(file: &mut BufReader<File>) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut files = HashMap::new();
    for entry in tar::Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        files.insert(name, (entry.raw_file_position(), entry.size()));
        if files.len() > MAX_FILES {
            return Err(io::Error::other("it has too many files"));
        }
    }
    Ok(files)
}
