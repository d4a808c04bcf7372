//! Preparing a machine for kubeadm: kernel settings, files from us, programs, containerd, container images, kubelet's service.

use super::registries;
use super::script::Step;
use super::supplies::{NodeFile, Supplies};
use crate::api::{MachineRole, MetalClusterSpec, OsImage};
use crate::hardware::Arch;
use crate::image::manifest::ManifestError;
use crate::secret::Secret;
use crate::template;
use minijinja::value::Serde;
use minijinja::{Value, context};
use std::time::Duration;

/// A step that only changes settings.
const SHORT: Duration = Duration::from_secs(5 * 60);
/// A step that moves gigabytes.
const LONG: Duration = Duration::from_secs(60 * 60);

/// Where a node keeps the OS image, below its artifact directory, for machines that it installs.
pub const OS_IMAGES: &str = "os";

/// Steps that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Something to be fetched is not there.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A template.
    #[error("cannot make the step `{title}`")]
    Template {
        /// The step.
        title: &'static str,
        /// Why.
        #[source]
        source: minijinja::Error,
    },
}

/// What a machine is prepared for.
pub struct Preparation<'a> {
    /// What it fetches.
    pub supplies: &'a Supplies,
    /// Our HTTP server, `http://ADDRESS:PORT`.
    pub server: String,
    /// What it will be.
    pub role: MachineRole,
    /// Its architecture.
    pub arch: Arch,
    /// The cluster; control-plane nodes keep its OS image for later machines.
    pub cluster: &'a MetalClusterSpec,
}

impl Preparation<'_> {
    /// The steps, in order.
    pub fn steps(&self) -> Result<Vec<Step>, PrepareError> {
        let (programs, cni_plugins) = self.supplies.programs(self.arch)?;
        let images = self.supplies.images(self.role, self.arch);
        let nothing = || context! {};
        let mut steps = vec![
            step("swap", include_str!("../../templates/node/swap.sh"), SHORT, nothing())?,
            step("kernel settings", include_str!("../../templates/node/kernel.sh"), SHORT, nothing())?,
            step(
                "fetching files",
                include_str!("../../templates/node/fetch.sh"),
                LONG,
                context! { files => Serde(self.files()) },
            )?,
            step(
                "programs",
                include_str!("../../templates/node/binaries.sh"),
                SHORT,
                context! { programs => Serde(programs), cni_plugins => cni_plugins.to_owned() },
            )?,
            registries::step(self.cluster)?,
            step(
                "containerd",
                include_str!("../../templates/node/containerd.sh"),
                SHORT,
                context! { pause => self.supplies.pause(self.arch) },
            )?,
            step(
                "container images",
                include_str!("../../templates/node/images.sh"),
                LONG,
                context! { images => Serde(images) },
            )?,
            step("kubelet's service", include_str!("../../templates/node/kubelet.sh"), SHORT, nothing())?,
        ];
        if self.role == MachineRole::ControlPlane {
            let manifest = self.supplies.manifest().subset(self.supplies.served());
            let values = context! { manifest => Serde(manifest) };
            let template = include_str!("../../templates/node/artifact-directory.sh");
            steps.push(step("the manager's artifacts", template, SHORT, values)?);
        }
        Ok(steps)
    }

    fn files(&self) -> Vec<NodeFile> {
        let mut files = self.supplies.files(self.role, self.arch);
        if self.role == MachineRole::ControlPlane {
            let OsImage { name, sha256, .. } = &self.cluster.image;
            let (url, path) = (format!("images/{name}"), format!("{OS_IMAGES}/{name}"));
            files.push(NodeFile { url, path, sha256: sha256.clone() });
        }
        files.iter_mut().for_each(|file| file.url = format!("{}/{}", self.server, file.url));
        files
    }
}

/// The step that takes the machine out of the cluster again.
pub fn reset() -> Result<Step, PrepareError> {
    step("leaving the cluster", include_str!("../../templates/node/reset.sh"), SHORT, context! {})
}

/// The step that makes the disk unreadable; the machine has to be switched off after it.
pub fn wipe() -> Result<Step, PrepareError> {
    step("wiping the disk", include_str!("../../templates/node/wipe.sh"), SHORT, context! {})
}

/// A step, filled in.
pub(super) fn step(title: &'static str, text: &str, limit: Duration, values: Value) -> Result<Step, PrepareError> {
    let script = template::render(text, &values).map_err(|source| PrepareError::Template { title, source })?;
    Ok(Step { title, script: Secret::new(script), limit })
}
