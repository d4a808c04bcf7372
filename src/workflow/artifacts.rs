//! Phase: everything that will be served, with the right sums, before a machine is touched.

use super::{Phase, PhaseResult, Request, Run};
use crate::bootstrap::Provider;
use crate::event::{EventBus, EventKind};
use crate::hardware::{Arch, BootMode};
use crate::image::download;
use crate::image::manifest::{self, Kind, Manifest};
use crate::inventory::Machine;
use crate::manager;
use crate::netboot::http::ServedFile;
use crate::node::supplies::Supplies;
use crate::plan::{self, Plan};
use crate::spec::{self, ClusterSpec, ImageFormat};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Error = Box<dyn std::error::Error + Send + Sync>;

pub struct Artifacts;

/// Files that nodes fetch.
const NODES: [Kind; 8] = [
    Kind::Kubeadm,
    Kind::Kubelet,
    Kind::Kubectl,
    Kind::Crictl,
    Kind::CniPlugins,
    Kind::CniManifest,
    Kind::GatewayManifest,
    Kind::ContainerImage,
];

/// The OS image as machines fetch it.
pub struct ServedImage {
    /// Its name on our HTTP server.
    pub name: String,
    /// The file.
    pub file: ServedFile,
}

/// An image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("cannot read the OS image {path} (spec.os.image.url)")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is another one.
    #[error("the OS image {path} has the sha256 {found}, but spec.os.image.sha256 is {expected}")]
    Sum {
        /// The file.
        path: PathBuf,
        /// The spec's sum.
        expected: String,
        /// The file's sum.
        found: String,
    },
    /// The artifacts were filled by another metalgate, or by one that cannot run in a cluster.
    #[error("the artifacts lack the image of this metalgate, {0}: run its `metalgate artifacts fill`")]
    Manager(String),
    /// Its address means nothing.
    #[error("`{0}` is not an address of an OS image (spec.os.image.url)")]
    Url(String),
}

#[async_trait]
impl Phase for Artifacts {
    fn name(&self) -> &'static str {
        "artifacts"
    }

    fn title(&self) -> &'static str {
        "checking what will be served"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let Verified { manifest, supplies, image } = match run.verified.take() {
            Some(verified) => verified,
            None => {
                let (manifest, supplies) = verify(&run.request, &run.events).await?;
                let image = image_file(&run.request.spec.os.image, &run.request.artifacts, &run.events).await?;
                Verified { manifest, supplies, image }
            }
        };
        let wanted = &run.request.spec.os.image;
        let file = ServedFile { path: image, sha256: wanted.sha256.clone() };
        run.image = Some(ServedImage { name: image_name(wanted), file });
        run.supplies = Some(Arc::new(supplies));
        run.manifest = Some(manifest);
        Ok(())
    }
}

/// What was found to be as it should be.
pub struct Verified {
    /// The artifacts.
    pub manifest: Manifest,
    /// What nodes fetch of them.
    pub supplies: Supplies,
    /// The OS image's file.
    pub image: PathBuf,
}

/// Reads all artifacts that `request` will need; gives what nodes fetch of them.
pub async fn verify(request: &Request, events: &EventBus) -> Result<(Manifest, Supplies), Error> {
    let manifest = Manifest::load(&request.artifacts)?;
    let wanted = wanted(request);
    for (kind, arch) in &wanted {
        manifest.find(*kind, *arch)?;
    }
    let supplies = supplies(&request.spec, &request.machines, &request.plan, manifest.clone())?;
    let events = events.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let progress = |done, total| report(&events, "artifacts", done, total);
        let is_wanted = |artifact: &manifest::Artifact| {
            wanted.contains(&(artifact.kind, artifact.arch)) || NODES.contains(&artifact.kind)
        };
        manifest.verify(is_wanted, progress).map(|()| manifest)
    });
    Ok((checked.await??, supplies))
}

/// What nodes fetch; all that they would miss is an error now.
pub fn supplies(spec: &ClusterSpec, machines: &[Machine], plan: &Plan, manifest: Manifest) -> Result<Supplies, Error> {
    let arches = plan.machines.iter().map(|machine| machine.arch).collect();
    let kubernetes = &spec.kubernetes;
    let virtual_ip = plan::has_virtual_ip(spec, machines);
    let stack = spec.stack();
    let supplies = Supplies::new(manifest, &kubernetes.version, kubernetes.cni, virtual_ip, stack.as_ref(), &arches)?;
    let manager = manager::image::reference()?;
    if supplies.manifest().image(&manager, Arch::Amd64).is_none() {
        return Err(ImageError::Manager(manager).into());
    }
    Ok(supplies)
}

fn report(events: &EventBus, what: &str, done: u64, total: u64) {
    events.emit(None, EventKind::Progress { what: what.to_owned(), done, total: Some(total) });
}

/// An OS image's name on our HTTP server.
pub fn image_name(image: &spec::Image) -> String {
    format!("{}{}", image.sha256, ending(image.format))
}

/// What this plan's machines, and we, will ask for.
fn wanted(request: &Request) -> BTreeSet<(Kind, Arch)> {
    let mut wanted = BTreeSet::new();
    for machine in &request.plan.machines {
        let ipxe = match (machine.boot_mode, machine.arch) {
            (BootMode::Bios, _) => Kind::IpxeBios,
            (BootMode::Uefi, Arch::Amd64) => Kind::IpxeUefiSnp,
            (BootMode::Uefi, Arch::Arm64) => Kind::IpxeUefi,
        };
        wanted.extend([ipxe, Kind::AgentKernel, Kind::AgentInitramfs, Kind::Agent].map(|kind| (kind, machine.arch)));
    }
    if request.bootstrap == Provider::Embedded {
        wanted.extend([(Kind::Etcd, Arch::Amd64), (Kind::KubeApiserver, Arch::Amd64)]);
    }
    wanted
}

/// The image's file on this machine (relative ones are below `artifacts`), with the right sum; downloaded once if it is elsewhere.
pub async fn image_file(image: &spec::Image, artifacts: &Path, events: &EventBus) -> Result<PathBuf, Error> {
    if let Some(path) = image.url.strip_prefix("file:") {
        let path = artifacts.join(path.strip_prefix("//").unwrap_or(path));
        return Ok(check(path, image.sha256.clone(), events).await?);
    }
    let url: url::Url = image.url.parse().map_err(|_| ImageError::Url(image.url.clone()))?;
    let path = artifacts.join("images").join(image_name(image));
    if path.exists() {
        return Ok(check(path, image.sha256.clone(), events).await?);
    }
    let progress = |done, total| {
        events.emit(None, EventKind::Progress { what: String::from("downloading the OS image"), done, total });
    };
    download::file(&download::client()?, &url, &path, &image.sha256, progress).await?;
    Ok(path)
}

async fn check(path: PathBuf, expected: String, events: &EventBus) -> Result<PathBuf, ImageError> {
    let (events, reading) = (events.clone(), path.clone());
    let summed = tokio::task::spawn_blocking(move || {
        let total = std::fs::metadata(&reading)?.len();
        manifest::sum(&reading, |done| report(&events, "OS image", done, total))
    });
    let (_, found) = match summed.await.map_err(io::Error::other) {
        Ok(Ok(sum)) => sum,
        Ok(Err(source)) | Err(source) => return Err(ImageError::Read { path, source }),
    };
    if found == expected { Ok(path) } else { Err(ImageError::Sum { path, expected, found }) }
}

/// The usual ending of a file packed this way.
fn ending(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Raw => ".raw",
        ImageFormat::Gz => ".raw.gz",
        ImageFormat::Xz => ".raw.xz",
        ImageFormat::Zst => ".raw.zst",
        ImageFormat::Qcow2 => ".qcow2",
    }
}
