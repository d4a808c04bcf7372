//! Where the embedded cluster keeps its files, in `bootstrap/` of the work directory (mode 0700):
//!
//! ```text
//! pki/            two authorities, a certificate for each end, the key of service accounts
//! etcd/           the data
//! *.log, *.old    what both printed, this run and the one before
//! kubeconfig      for us and for kubectl, written anew at each start
//! ```

use super::{EmbeddedError, LOOPBACK};
use crate::kubeconfig;
use crate::pki::{self, Authority, Identity, LeafRequest, PkiError, Usage};
use crate::secret::Secret;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Leaves are renewed at each start when two thirds of this are over.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long the etcd of a run that was killed may take to be gone.
const FREE: Duration = Duration::from_secs(10);

/// Where the pieces are.
#[derive(Debug)]
pub struct Layout {
    pub dir: PathBuf,
    pub pki: PathBuf,
    pub etcd: PathBuf,
}

impl Layout {
    /// Makes the directories if need be, and sees to it that they are private: etcd holds the BMCs' passwords.
    pub fn open(work_dir: &Path) -> Result<Self, EmbeddedError> {
        let dir = work_dir.join("bootstrap");
        let layout = Self { pki: dir.join("pki"), etcd: dir.join("etcd"), dir };
        for dir in [&layout.dir, &layout.pki, &layout.etcd] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            let made = made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)));
            made.map_err(|source| EmbeddedError::Io { path: dir.clone(), source })?;
        }
        Ok(layout)
    }

    /// Waits until no etcd works on the data: that of a killed run dies with it, but not in the same instant.
    pub async fn wait_until_free(&self) -> Result<(), EmbeddedError> {
        let path = self.etcd.join("member/snap/db");
        let started = Instant::now();
        loop {
            let database = match File::open(&path) {
                Ok(database) => database,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(source) => return Err(EmbeddedError::Io { path, source }),
            };
            // etcd holds the same lock (flock) as long as it runs; ours ends with this scope.
            match database.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if started.elapsed() > FREE => return Err(EmbeddedError::InUse(path)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(TryLockError::Error(source)) => return Err(EmbeddedError::Io { path, source }),
            }
        }
    }

    /// Every certificate that the two processes and we need; good ones are kept. Returns ours.
    pub fn issue_certificates(&self) -> Result<Identity, PkiError> {
        let dir = &self.pki;
        let leaf = |common_name: &str, organization: Option<&str>, usage| LeafRequest {
            common_name: common_name.to_owned(),
            organizations: organization.map(str::to_owned).into_iter().collect(),
            dns_names: ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(str::to_owned)
                .into(),
            addresses: vec![LOOPBACK],
            usage,
            lifetime: LEAF_LIFETIME,
        };
        let etcd = Authority::keep(dir, "etcd-ca", "metalgate bootstrap etcd CA")?;
        etcd.keep_leaf(dir, "etcd", &leaf("etcd", None, Usage::Both))?;
        etcd.keep_leaf(dir, "etcd-client", &leaf("kube-apiserver", None, Usage::Client))?;
        let cluster = Authority::keep(dir, "ca", "metalgate bootstrap CA")?;
        cluster.keep_leaf(dir, "apiserver", &leaf("kube-apiserver", None, Usage::Server))?;
        pki::keep_signing_key(dir, "service-accounts")?;
        cluster.keep_leaf(dir, "admin", &leaf("metalgate", Some("system:masters"), Usage::Client))
    }

    /// Writes the kubeconfig, mode 0600; gives its path and its text.
    pub fn write_kubeconfig(&self, admin: &Identity, port: u16) -> Result<(PathBuf, Secret<String>), EmbeddedError> {
        let ca = self.pki.join("ca.crt");
        let ca = std::fs::read_to_string(&ca).map_err(|source| EmbeddedError::Io { path: ca, source })?;
        let text = kubeconfig::render("bootstrap", &format!("https://{LOOPBACK}:{port}"), &ca, "metalgate", admin);
        let path = self.dir.join("kubeconfig");
        pki::write(&path, text.expose(), 0o600)?;
        Ok((path, text))
    }

    /// Deletes all of it.
    pub fn remove(self) -> Result<(), EmbeddedError> {
        std::fs::remove_dir_all(&self.dir).map_err(|source| EmbeddedError::Io { path: self.dir, source })
    }
}
