//! The work directory: all that a cluster keeps on the admin machine. Mode 0700, one run at a time.

use super::pivot::KUBECONFIG;
use crate::kubeconfig::{self, ClientError};
use crate::secret::Secret;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A work directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// It cannot be made or opened.
    #[error("cannot use the work directory {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another run has it.
    #[error("another metalgate works on {0}; `metalgate status` shows what it does")]
    Busy(PathBuf),
    /// There is no cluster yet.
    #[error("there is no {0}: the cluster has no API server yet, or was made with another --work-dir")]
    NoKubeconfig(PathBuf),
    /// The kubeconfig makes no client.
    #[error("cannot use {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// Neither HOME nor XDG_STATE_HOME is set.
    #[error("cannot tell where to keep the cluster's files: set HOME or give --work-dir")]
    NoHome,
}

/// An open work directory; its lock ends with the process, however it ends.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: File,
}

/// Where the cluster called `name` keeps its files: below XDG_STATE_HOME, else below ~/.local/state.
pub fn default_path(name: &str) -> Result<PathBuf, WorkDirError> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Ok(state.or_else(home).ok_or(WorkDirError::NoHome)?.join("metalgate").join(name))
}

/// The administrator's kubeconfig in the work directory at `path`.
pub fn read_kubeconfig(path: &Path) -> Result<Secret<String>, WorkDirError> {
    let path = path.join(KUBECONFIG);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(WorkDirError::NoKubeconfig(path)),
        Err(source) => Err(WorkDirError::Io { path, source }),
    }
}

/// A client with the administrator's kubeconfig in the work directory at `path`.
pub async fn administrator(path: &Path) -> Result<kube::Client, WorkDirError> {
    let failed = |source| WorkDirError::Kubeconfig { path: path.join(KUBECONFIG), source };
    kubeconfig::client(&read_kubeconfig(path)?).await.map_err(failed)
}

impl WorkDir {
    /// Makes the directory if need be, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, WorkDirError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkDirError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(WorkDirError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(WorkDirError::Io { path: lock_path, source }),
        }
    }

    /// Whether a run holds the lock of the directory at `path` right now.
    pub fn is_busy(path: &Path) -> bool {
        File::open(path.join("lock")).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A client of the cluster that manages itself, as its administrator.
    pub async fn kubeconfig_client(&self) -> Result<kube::Client, WorkDirError> {
        administrator(&self.path).await
    }

    /// A directory in it, made if need be.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, WorkDirError> {
        let path = self.join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| WorkDirError::Io { path: path.clone(), source })?;
        Ok(path)
    }

    /// Removes everything in it, and itself.
    pub fn clear(&self) -> Result<(), WorkDirError> {
        std::fs::remove_dir_all(&self.path).map_err(|source| WorkDirError::Io { path: self.path.clone(), source })
    }

    /// Writes a file that only its owner may read, whole or not at all.
    pub fn write_private(&self, name: &str, content: &str) -> Result<PathBuf, WorkDirError> {
        let (path, new) = (self.join(name), self.join(&format!("{name}.new")));
        let write = || {
            // A leftover of a killed run may have been opened with another mode.
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
            io::Write::write_all(&mut file, content.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|source| WorkDirError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_run_at_a_time_and_private_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rack-a");
        assert!(!WorkDir::is_busy(&path));
        let open = WorkDir::open(&path).unwrap();
        assert!(WorkDir::is_busy(&path));
        assert!(matches!(WorkDir::open(&path), Err(WorkDirError::Busy(_))));
        for content in ["one", "two"] {
            let file = open.write_private("key", content).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(open);
        assert!(!WorkDir::is_busy(&path));
    }
}
