//! The one layer of an image: a tar with sorted names, root as the owner of everything, and no times.

use super::OciError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// A file, folder or symbolic link of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the image; a leading slash changes nothing.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file with this content.
    Bytes(Vec<u8>),
    /// A file with the content of a file here.
    File(PathBuf),
    /// A symbolic link to this path, which is not looked at.
    Link(PathBuf),
}

impl Entry {
    /// A program: the file `from` here, that anybody can run.
    pub fn program(path: impl Into<PathBuf>, from: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: 0o755, content: Content::File(from.into()) }
    }

    /// A text that anybody can read.
    pub fn text(path: impl Into<PathBuf>, text: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode: 0o644, content: Content::Bytes(text.into()) }
    }
}

/// Everything below a folder, as the entries of an image with that folder as its root.
pub fn entries(root: &Path) -> Result<Vec<Entry>, OciError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let here = root.join(&folder);
        let read = |source| OciError::Read { path: here.clone(), source };
        for file in std::fs::read_dir(&here).map_err(read)? {
            let file = file.map_err(read)?;
            let (path, from) = (folder.join(file.file_name()), file.path());
            let unreadable = |source| OciError::Read { path: from.clone(), source };
            let metadata = from.symlink_metadata().map_err(unreadable)?;
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                Content::Folder
            } else if metadata.is_symlink() {
                Content::Link(std::fs::read_link(&from).map_err(unreadable)?)
            } else if metadata.is_file() {
                Content::File(from)
            } else {
                return Err(OciError::Special(from));
            };
            found.push(Entry { path, mode: metadata.permissions().mode() & 0o7777, content });
        }
    }
    Ok(found)
}

/// Writes the layer as a file.
pub(super) fn write(path: &Path, entries: &[Entry]) -> Result<(), OciError> {
    let failed = |source| OciError::Write { path: path.to_owned(), source };
    let mut tar = Builder::new(BufWriter::new(File::create(path).map_err(failed)?));
    for (path, entry) in sorted(entries)? {
        let (mode, content) = entry.map_or((0o755, &Content::Folder), |entry| (entry.mode, &entry.content));
        match content {
            Content::Folder => {
                tar.append_data(&mut header(EntryType::Directory, mode, 0), &path, io::empty()).map_err(failed)?;
            }
            Content::Link(to) => {
                tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), &path, to).map_err(failed)?;
            }
            Content::Bytes(bytes) => append(&mut tar, &path, mode, bytes).map_err(failed)?,
            Content::File(from) => append_file(&mut tar, &path, mode, from)
                .map_err(|source| OciError::Read { path: from.clone(), source })?,
        }
    }
    tar.into_inner().and_then(|mut file| file.flush()).map_err(failed)
}

/// The entries by path, and the folders that lead to them, without an entry where none was given.
fn sorted(entries: &[Entry]) -> Result<BTreeMap<PathBuf, Option<&Entry>>, OciError> {
    let mut sorted: BTreeMap<PathBuf, Option<&Entry>> = BTreeMap::new();
    for entry in entries {
        let path = entry.path.strip_prefix("/").unwrap_or(&entry.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return Err(OciError::Path(entry.path.clone()));
        }
        if sorted.insert(path.to_owned(), Some(entry)).flatten().is_some() {
            return Err(OciError::Twice(entry.path.clone()));
        }
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            sorted.entry(parent.to_owned()).or_default();
        }
    }
    Ok(sorted)
}

pub(super) fn append(tar: &mut Builder<impl Write>, path: impl AsRef<Path>, mode: u32, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, mode, bytes.len() as u64), path, bytes)
}

pub(super) fn append_file(
    tar: &mut Builder<impl Write>,
    path: impl AsRef<Path>,
    mode: u32,
    from: &Path,
) -> io::Result<()> {
    let file = File::open(from)?;
    let size = file.metadata()?.len();
    let mut exact = Exact { left: size, file };
    tar.append_data(&mut header(EntryType::Regular, mode, size), path, &mut exact)
}

/// A file that must not change its size while it is read: its size stands in the tar before its content.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let short = read == 0 && self.left > 0 && !buffer.is_empty();
        match self.left.checked_sub(read as u64) {
            Some(left) if !short => self.left = left,
            _ => return Err(io::Error::other("it changed while it was packed")),
        }
        Ok(read)
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
