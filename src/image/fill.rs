//! Filling an artifact directory: from release servers, from a mirror, or built from package registries. All three end in
//! the same files and manifest.

use super::catalogue::{self, Entry, Published};
use super::download::{self, DownloadError};
use super::manifest::{self, Artifact, Kind, Manifest, ManifestError};
use super::oci::{self, OciError};
use super::registry::{self, PullError};
use crate::event::{EventBus, EventKind};
use crate::manager;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;
use url::Url;

/// Where the files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Release servers; what is published nowhere is built.
    Release,
    /// A copy of an artifact directory on a web server.
    Mirror(Url),
    /// Built by `provisioning/build`.
    Build,
}

/// What to fill, and where.
#[derive(Clone, Debug)]
pub struct Request {
    /// The artifact directory.
    pub dir: PathBuf,
    /// Where the files come from.
    pub source: Source,
    /// Only these kinds; all if empty.
    pub only: BTreeSet<Kind>,
    /// The folder with `build`, of this repository.
    pub provisioning: PathBuf,
}

/// A directory that could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The compiled-in catalogue is broken.
    #[error("metalgate's own catalogue of artifacts cannot be read")]
    Catalogue(#[source] Box<serde_saphyr::Error>),
    /// The HTTP client cannot be made.
    #[error("cannot set up downloads")]
    Client(#[source] reqwest::Error),
    /// A download.
    #[error(transparent)]
    Download(#[from] Box<DownloadError>),
    /// A container image from a registry.
    #[error(transparent)]
    Pull(#[from] Box<PullError>),
    /// An archive of a container image.
    #[error(transparent)]
    Image(#[from] OciError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manager's image.
    #[error(transparent)]
    Manager(#[from] Box<manager::image::ImageError>),
    /// A published sum that is none.
    #[error("{url} does not hold a sha256 sum")]
    NoSum {
        /// Where it should be.
        url: Url,
    },
    /// The mirror's address is not a folder's.
    #[error("`{mirror}` cannot be the base of {path}")]
    Base {
        /// The mirror.
        mirror: Url,
        /// The file.
        path: String,
    },
    /// The build script cannot be run.
    #[error("cannot run {script}: give the provisioning folder of metalgate's repository with --provisioning")]
    NoScript {
        /// The script.
        script: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The build failed; what it printed is on stderr.
    #[error("building {piece} failed ({status}); what it printed stands above")]
    Build {
        /// The piece.
        piece: String,
        /// How the script ended.
        status: std::process::ExitStatus,
    },
    /// A file that should have been made was not, or cannot be read.
    #[error("{piece} was built, but {path} cannot be read")]
    NotMade {
        /// The piece.
        piece: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Fills the directory, and writes its manifest after every piece, so that a killed run keeps what it has. What its user
/// added stays as it is.
pub async fn fill(request: &Request, events: &EventBus) -> Result<Manifest, FillError> {
    let mut manifest = match Manifest::load(&request.dir) {
        Err(ManifestError::Missing(_)) => Manifest::new(&request.dir),
        loaded => loaded?,
    };
    if let Source::Mirror(mirror) = &request.source {
        from_mirror(request, mirror, &mut manifest, events).await?;
        pack_manager(request, &mut manifest)?;
        return Ok(manifest);
    }
    let entries = catalogue::entries().map_err(|source| FillError::Catalogue(Box::new(source)))?;
    let wanted = entries.into_iter().filter(|entry| request.only.is_empty() || request.only.contains(&entry.kind));
    let (released, built): (Vec<Entry>, Vec<Entry>) =
        wanted.partition(|entry| matches!(request.source, Source::Release) && entry.release.is_some());
    for entry in released {
        from_release(request, entry, &mut manifest, events).await?;
        manifest.save()?;
    }
    let pieces: BTreeSet<&str> = built.iter().map(|entry| entry.piece.as_str()).collect();
    for piece in pieces {
        let entries = built.iter().filter(|entry| entry.piece == piece);
        from_build(request, piece, entries, &mut manifest).await?;
        manifest.save()?;
    }
    pack_manager(request, &mut manifest)?;
    Ok(manifest)
}

/// This program, as the image that runs in clusters. One that could not run there fills the rest all the same.
fn pack_manager(request: &Request, manifest: &mut Manifest) -> Result<(), FillError> {
    if !request.only.is_empty() && !request.only.contains(&Kind::ContainerImage) {
        return Ok(());
    }
    match manager::image::pack(manifest) {
        Err(error @ manager::image::ImageError::Dynamic(_)) => tracing::warn!("{error}"),
        packed => packed.map_err(Box::new)?,
    }
    Ok(())
}

fn report<'a>(events: &'a EventBus, what: &'a str) -> impl FnMut(u64, Option<u64>) + Send + 'a {
    move |done, total| events.emit(None, EventKind::Progress { what: what.to_owned(), done, total })
}

async fn from_release(
    request: &Request,
    entry: Entry,
    manifest: &mut Manifest,
    events: &EventBus,
) -> Result<(), FillError> {
    let Some(release) = entry.release.clone() else { return Ok(()) };
    let path = request.dir.join(&entry.path);
    let client = download::client().map_err(FillError::Client)?;
    let (url, sha256) = match release.from {
        Published::Image { image } => {
            registry::pull(&image, entry.arch, &path, report(events, &image)).await.map_err(Box::new)?;
            return record(manifest, &entry, release.version, format!("https://{image}"));
        }
        Published::Pinned { url, sha256 } => (url, sha256),
        Published::Summed { url, sha256_url } => (url, published_sum(&client, sha256_url).await?),
    };
    download::file(&client, &url, &path, &sha256, report(events, &entry.path)).await.map_err(Box::new)?;
    record(manifest, &entry, release.version, url.to_string())
}

async fn published_sum(client: &reqwest::Client, url: Url) -> Result<String, FillError> {
    let text = download::text(client, &url).await.map_err(Box::new)?;
    let sum =
        text.split_whitespace().next().filter(|sum| sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit()));
    Ok(sum.ok_or(FillError::NoSum { url })?.to_ascii_lowercase())
}

/// Puts a file that is there now into the manifest.
fn record(manifest: &mut Manifest, entry: &Entry, version: String, source: String) -> Result<(), FillError> {
    let path = manifest.dir().join(&entry.path);
    let (size, sha256) = manifest::sum(&path, |_| {}).map_err(|source| FillError::NotMade {
        piece: entry.piece.clone(),
        path: path.clone(),
        source,
    })?;
    let images = match entry.kind {
        Kind::ContainerImage => oci::contents(&path)?.references,
        _ => Vec::new(),
    };
    let (path, kind, arch) = (entry.path.clone(), entry.kind, entry.arch);
    manifest.set(Artifact { path, kind, arch, version, sha256, size, source, images });
    Ok(())
}

/// Copies what the mirror's manifest names; files that are here already with the right sum are kept.
async fn from_mirror(
    request: &Request,
    mirror: &Url,
    manifest: &mut Manifest,
    events: &EventBus,
) -> Result<(), FillError> {
    let client = download::client().map_err(FillError::Client)?;
    let mut base = mirror.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let join =
        |path: &str| base.join(path).map_err(|_| FillError::Base { mirror: base.clone(), path: path.to_owned() });
    let url = join(manifest::FILE)?;
    let text = download::text(&client, &url).await.map_err(Box::new)?;
    let theirs = Manifest::parse(text.as_bytes(), &request.dir, PathBuf::from(url.as_str()))?;
    let wanted = |artifact: &Artifact| request.only.is_empty() || request.only.contains(&artifact.kind);
    for artifact in theirs.artifacts.iter().filter(|artifact| wanted(artifact)) {
        if manifest.is_added(&artifact.path) {
            continue;
        }
        let here = theirs.verify(|candidate| candidate.path == artifact.path, |_, _| {});
        if here.is_err() {
            let path = request.dir.join(&artifact.path);
            let url = join(&artifact.path)?;
            download::file(&client, &url, &path, &artifact.sha256, report(events, &artifact.path))
                .await
                .map_err(Box::new)?;
        }
        manifest.set(Artifact { source: mirror.to_string(), ..artifact.clone() });
        manifest.save()?;
    }
    Ok(())
}

async fn from_build(
    request: &Request,
    piece: &str,
    entries: impl Iterator<Item = &Entry>,
    manifest: &mut Manifest,
) -> Result<(), FillError> {
    let script = request.provisioning.join("build");
    let mut command = Command::new(&script);
    // It packs container images with this program.
    if let Ok(program) = std::env::current_exe() {
        command.env("METALGATE", program);
    }
    // The script talks on stderr, which stays the user's; its one line of stdout is the version.
    command.arg(piece).arg(&request.dir).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let output = command.spawn().map_err(|source| FillError::NoScript { script: script.clone(), source });
    let output = output?.wait_with_output().await.map_err(|source| FillError::NoScript { script, source })?;
    if !output.status.success() {
        return Err(FillError::Build { piece: piece.to_owned(), status: output.status });
    }
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    for entry in entries {
        record(manifest, entry, version.clone(), String::from("build"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Arch;
    use axum::Router;
    use axum::extract::{Path as UrlPath, State};
    use axum::http::StatusCode;
    use std::path::Path;
    use std::sync::Arc;

    /// A web server with the files of a folder, at http://127.0.0.1:PORT/.
    async fn serve(dir: PathBuf) -> Url {
        let get = |UrlPath(path): UrlPath<String>, State(dir): State<Arc<PathBuf>>| async move {
            std::fs::read(dir.join(path)).map_err(|_| StatusCode::NOT_FOUND)
        };
        let router = Router::new().route("/{*path}", axum::routing::get(get)).with_state(Arc::new(dir));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(axum::serve(listener, router).into_future());
        url
    }

    fn mirrored(dir: &Path, content: &str) -> Manifest {
        std::fs::create_dir_all(dir.join("bootstrap")).unwrap();
        std::fs::write(dir.join("bootstrap/etcd"), content).unwrap();
        let (size, sha256) = manifest::sum(&dir.join("bootstrap/etcd"), |_| {}).unwrap();
        let mut manifest = Manifest::new(dir);
        let (path, version, source) = ("bootstrap/etcd".into(), "1".into(), "build".into());
        let (kind, arch, images) = (Kind::Etcd, Arch::Amd64, Vec::new());
        manifest.set(Artifact { path, kind, arch, version, sha256, size, source, images });
        manifest.save().unwrap();
        manifest
    }

    fn request(dir: &Path, source: Source) -> Request {
        Request { dir: dir.to_owned(), source, only: BTreeSet::new(), provisioning: PathBuf::from("/nonexistent") }
    }

    #[tokio::test]
    async fn a_mirror_fills_a_directory_and_a_changed_file_is_refused() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        mirrored(theirs.path(), "what etcd is");
        let url = serve(theirs.path().to_owned()).await;
        let filled = fill(&request(ours.path(), Source::Mirror(url.clone())), &EventBus::default()).await.unwrap();
        filled.verify(|_| true, |_, _| {}).unwrap();
        assert_eq!(std::fs::read_to_string(ours.path().join("bootstrap/etcd")).unwrap(), "what etcd is");

        // Damaged here: fetched again. Changed there: refused, and nothing of it is left.
        std::fs::write(ours.path().join("bootstrap/etcd"), "what etcd isnt").unwrap();
        fill(&request(ours.path(), Source::Mirror(url.clone())), &EventBus::default()).await.unwrap();
        std::fs::write(ours.path().join("bootstrap/etcd"), "").unwrap();
        std::fs::write(theirs.path().join("bootstrap/etcd"), "what evil is").unwrap();
        let error = fill(&request(ours.path(), Source::Mirror(url)), &EventBus::default()).await.unwrap_err();
        assert!(
            matches!(&error, FillError::Download(cause) if matches!(**cause, DownloadError::Sum { .. })),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(ours.path().join("bootstrap")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_release_is_fetched_by_the_sum_beside_it_or_by_ours() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        mirrored(theirs.path(), "what etcd is");
        let (_, sum) = manifest::sum(&theirs.path().join("bootstrap/etcd"), |_| {}).unwrap();
        std::fs::write(theirs.path().join("good"), format!("{sum}  etcd\n")).unwrap();
        std::fs::write(theirs.path().join("nonsense"), "<html>").unwrap();
        let base = serve(theirs.path().to_owned()).await;
        let url = base.join("bootstrap/etcd").unwrap();
        let get = async |from: Published| {
            let request = request(ours.path(), Source::Release);
            let release = Some(catalogue::Release { version: "v1".into(), from });
            let (path, kind, arch, piece) = ("etcd".into(), Kind::Etcd, Arch::Amd64, "etcd".into());
            let mut manifest = Manifest::new(ours.path());
            let entry = Entry { path, kind, arch, piece, release };
            from_release(&request, entry, &mut manifest, &EventBus::default()).await.map(|()| manifest)
        };
        let beside = |name: &str| Published::Summed { url: url.clone(), sha256_url: base.join(name).unwrap() };
        let filled = get(beside("good")).await.unwrap();
        assert_eq!((filled.artifacts[0].version.as_str(), &filled.artifacts[0].sha256), ("v1", &sum));
        assert!(matches!(get(beside("nonsense")).await, Err(FillError::NoSum { .. })));
        get(Published::Pinned { url: url.clone(), sha256: sum }).await.unwrap();
        let other = Published::Pinned { url: url.clone(), sha256: "0".repeat(64) };
        assert!(matches!(get(other).await, Err(FillError::Download(_))));
    }

    #[tokio::test]
    async fn a_mirror_tells_the_names_of_images_and_what_was_added_here_stays() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut manifest = mirrored(theirs.path(), "what etcd is");
        let image = "registry.example.com/tool:v1";
        manifest.artifacts[0].images = vec![image.into()];
        manifest.artifacts[0].kind = Kind::ContainerImage;
        manifest.save().unwrap();
        let url = serve(theirs.path().to_owned()).await;
        let from_mirror = request(ours.path(), Source::Mirror(url));
        let filled = fill(&from_mirror, &EventBus::default()).await.unwrap();
        assert_eq!(filled.image(image, Arch::Amd64).unwrap().path, "bootstrap/etcd");

        let mut own = mirrored(ours.path(), "what we brought");
        own.artifacts[0].source = manifest::ADDED.into();
        own.save().unwrap();
        let filled = fill(&from_mirror, &EventBus::default()).await.unwrap();
        assert_eq!(filled.artifacts, own.artifacts);
        filled.verify(|_| true, |_, _| {}).unwrap();
    }

    #[tokio::test]
    async fn a_build_that_fails_and_a_folder_without_a_script_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = fill(&request(dir.path(), Source::Build), &EventBus::default()).await.unwrap_err();
        assert!(matches!(missing, FillError::NoScript { .. }), "{missing}");
        let script = dir.path().join("build");
        std::fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let failing = Request { provisioning: dir.path().to_owned(), ..request(dir.path(), Source::Build) };
        let failed = fill(&failing, &EventBus::default()).await.unwrap_err();
        assert!(matches!(&failed, FillError::Build { status, .. } if status.code() == Some(3)), "{failed}");
    }
}
