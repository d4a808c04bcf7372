//! What machines fetch from us to become nodes: Kubernetes' programs and container images, out of the artifact directory.
//!
//! Made once, before a machine is touched: whatever a node would miss later is an error here.

use crate::api::MachineRole;
use crate::gateway::Stack;
use crate::hardware::Arch;
use crate::image::manifest::{Artifact, Kind, Manifest, ManifestError};
use crate::manager;
use crate::spec::Cni;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Programs of a node, by kind; all of Kubernetes' own version.
const PROGRAMS: [Kind; 4] = [Kind::Kubeadm, Kind::Kubelet, Kind::Kubectl, Kind::Crictl];
/// Images of Kubernetes' own version.
const VERSIONED: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"];
/// Images of other versions, whatever version is there.
const OTHERS: [&str; 3] = ["etcd", "coredns/coredns", "pause"];
/// Where Kubernetes' images are named from.
const REGISTRY: &str = "registry.k8s.io";
/// The image that moves the virtual address.
const KUBE_VIP: &str = "ghcr.io/kube-vip/kube-vip";
/// Images that only control-plane nodes run.
const CONTROL_PLANE_ONLY: [&str; 5] = [
    "registry.k8s.io/kube-apiserver",
    "registry.k8s.io/kube-controller-manager",
    "registry.k8s.io/kube-scheduler",
    "registry.k8s.io/etcd",
    manager::image::REPOSITORY,
];

/// Something that nodes need and the artifact directory lacks.
#[derive(Debug, thiserror::Error)]
pub enum SuppliesError {
    /// A file.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another version.
    #[error(
        "the artifacts in {dir} have {what} {found}, but the spec wants Kubernetes {wanted} (spec.kubernetes.version)"
    )]
    Version {
        /// The artifact directory.
        dir: PathBuf,
        /// The program or image.
        what: String,
        /// Its version.
        found: String,
        /// The spec's.
        wanted: String,
    },
    /// Container images.
    #[error(
        "the artifacts in {dir} lack container images:{}; run `metalgate artifacts fill`, or bring them with `metalgate artifacts \
         add`", .missing.iter().map(|image| format!("\n  {image}")).collect::<String>()
    )]
    Images {
        /// The artifact directory.
        dir: PathBuf,
        /// References, or repositories of which any version would do, each with who needs it.
        missing: BTreeSet<String>,
    },
    /// The container network's manifest.
    #[error(
        "the artifacts in {dir} have no manifest of the container network {name}: bring it with `metalgate artifacts add \
             --kind cni-manifest`"
    )]
    NoNetwork {
        /// The artifact directory.
        dir: PathBuf,
        /// Its name.
        name: &'static str,
    },
    /// The definitions of the gateway's resources.
    #[error("the artifacts in {dir} have no {name}, which spec.gateway needs: run `metalgate artifacts fill`")]
    NoDefinitions {
        /// The artifact directory.
        dir: PathBuf,
        /// The file.
        name: &'static str,
    },
    /// A manifest cannot be read.
    #[error("cannot read the manifest {path}")]
    Network {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A file that a node fetches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeFile {
    /// Below our HTTP server's root.
    pub url: String,
    /// Below the node's artifact directory.
    pub path: String,
    /// Its sum.
    pub sha256: String,
}

/// A container image that a node imports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeImage {
    /// As pods name it.
    pub reference: String,
    /// The archive, below the node's artifact directory.
    pub path: String,
}

/// The container network's manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Sum of the file.
    pub sha256: String,
    /// Its documents.
    pub documents: Vec<Value>,
}

/// Everything that nodes of one cluster fetch.
#[derive(Clone, Debug, Default)]
pub struct Supplies {
    manifest: Manifest,
    virtual_ip: bool,
    /// The container network; none where the user brings one.
    pub network: Option<Network>,
    /// Definitions of the gateway's resources.
    pub definitions: Vec<Value>,
}

/// Name and tag of an image reference.
fn split(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

impl Supplies {
    /// What `manifest` has for nodes of `version`.
    ///
    /// # Errors
    /// Whatever of it is missing, or of another version; all missing images at once.
    pub fn new(
        manifest: Manifest,
        version: &str,
        cni: Cni,
        virtual_ip: bool,
        gateway: Option<&Stack>,
        arches: &BTreeSet<Arch>,
    ) -> Result<Self, SuppliesError> {
        let dir = || manifest.dir().to_owned();
        for arch in arches {
            for kind in PROGRAMS {
                let found = manifest.find(kind, *arch)?;
                if kind != Kind::Crictl && found.version != version {
                    let (found, wanted) = (found.version.clone(), version.to_owned());
                    return Err(SuppliesError::Version { dir: dir(), what: kind.to_string(), found, wanted });
                }
            }
            manifest.find(Kind::CniPlugins, *arch)?;
        }
        let network = network(&manifest, cni)?;
        let mut missing = BTreeSet::new();
        for arch in arches {
            for name in VERSIONED {
                let reference = format!("{REGISTRY}/{name}:{version}");
                if manifest.image(&reference, *arch).is_none() {
                    missing.insert(reference);
                }
            }
            let any = OTHERS.map(|name| format!("{REGISTRY}/{name}"));
            let any = any.into_iter().chain(virtual_ip.then(|| KUBE_VIP.to_owned()));
            missing.extend(any.filter(|repository| in_any_version(&manifest, repository, *arch).is_none()));
            for reference in network.iter().flat_map(|network| network.images()) {
                if manifest.image(&reference, *arch).is_none() {
                    missing.insert(format!("{reference} (named by the container network's manifest)"));
                }
            }
            for reference in gateway.iter().flat_map(|gateway| gateway.images()) {
                if manifest.image(&reference, *arch).is_none() {
                    missing.insert(format!("{reference} (named by spec.gateway)"));
                }
            }
        }
        if missing.is_empty() {
            let definitions = match gateway.and_then(Stack::definitions) {
                Some(name) => gateway_definitions(&manifest, name)?,
                None => Vec::new(),
            };
            Ok(Self { network, manifest, virtual_ip, definitions })
        } else {
            Err(SuppliesError::Images { dir: dir(), missing })
        }
    }

    /// The files of the artifact directory.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The reference of an image that is there in some version.
    pub fn any_version(&self, repository: &str, arch: Arch) -> Option<String> {
        in_any_version(&self.manifest, repository, arch)
    }

    /// The tag that one of Kubernetes' images has here: `coredns/coredns`, `etcd`, `pause`.
    pub fn tag(&self, name: &str, arch: Arch) -> String {
        let reference = self.any_version(&format!("{REGISTRY}/{name}"), arch);
        reference.map(|reference| split(&reference).1.to_owned()).unwrap_or_default()
    }

    /// The reference of the sandbox image.
    pub fn pause(&self, arch: Arch) -> String {
        format!("{REGISTRY}/pause:{}", self.tag("pause", arch))
    }

    /// The reference of kube-vip's image.
    pub fn kube_vip(&self, arch: Arch) -> String {
        self.any_version(KUBE_VIP, arch).unwrap_or_default()
    }

    /// Paths of the programs that go to /usr/local/bin, and of the CNI plugins' archive.
    pub fn programs(&self, arch: Arch) -> Result<(Vec<&str>, &str), ManifestError> {
        let path = |kind| self.manifest.find(kind, arch).map(|artifact| artifact.path.as_str());
        let programs = PROGRAMS.into_iter().map(path).collect::<Result<_, _>>()?;
        Ok((programs, path(Kind::CniPlugins)?))
    }

    /// The images that a node of this role imports.
    pub fn images(&self, role: MachineRole, arch: Arch) -> Vec<NodeImage> {
        let archives = self.archives(role, arch);
        let images = archives.flat_map(|artifact| {
            artifact
                .images
                .iter()
                .map(|reference| NodeImage { reference: reference.clone(), path: artifact.path.clone() })
        });
        images.collect()
    }

    fn archives(&self, role: MachineRole, arch: Arch) -> impl Iterator<Item = &Artifact> {
        let runs = move |reference: &String| match split(reference).0 {
            KUBE_VIP => role == MachineRole::ControlPlane && self.virtual_ip,
            repository => role == MachineRole::ControlPlane || !CONTROL_PLANE_ONLY.contains(&repository),
        };
        self.manifest.images(arch).filter(move |artifact| artifact.images.iter().any(runs))
    }

    /// The files that a node of this role fetches. A control-plane node fetches all that later machines may need, because a
    /// manager on it serves them.
    pub fn files(&self, role: MachineRole, arch: Arch) -> Vec<NodeFile> {
        let own = |artifact: &&Artifact| {
            let program = PROGRAMS.contains(&artifact.kind) || artifact.kind == Kind::CniPlugins;
            program && artifact.arch == arch
        };
        let mut wanted: BTreeSet<&str> = self.archives(role, arch).map(|artifact| artifact.path.as_str()).collect();
        wanted.extend(self.manifest.artifacts.iter().filter(own).map(|artifact| artifact.path.as_str()));
        if role == MachineRole::ControlPlane {
            wanted.extend(self.served().map(|artifact| artifact.path.as_str()));
        }
        let files = self.manifest.artifacts.iter().filter(|artifact| wanted.contains(artifact.path.as_str()));
        let file = |artifact: &Artifact| NodeFile {
            url: format!("artifacts/{}", artifact.path),
            path: artifact.path.clone(),
            sha256: artifact.sha256.clone(),
        };
        files.map(file).collect()
    }

    /// What machines may fetch at all: never the bootstrap cluster's programs. The OS image has an address of its own.
    pub fn served(&self) -> impl Iterator<Item = &Artifact> {
        let public =
            |kind| !matches!(kind, Kind::Etcd | Kind::KubeApiserver | Kind::OsImage | Kind::EnvoyGateway | Kind::Envoy);
        self.manifest.artifacts.iter().filter(move |artifact| public(artifact.kind))
    }
}

fn in_any_version(manifest: &Manifest, repository: &str, arch: Arch) -> Option<String> {
    let all = manifest.images(arch).flat_map(|artifact| &artifact.images);
    all.filter(|reference| split(reference).0 == repository).max().cloned()
}

fn network(manifest: &Manifest, cni: Cni) -> Result<Option<Network>, SuppliesError> {
    let name = match cni {
        Cni::None => return Ok(None),
        Cni::Flannel => "flannel",
        Cni::Cilium => "cilium",
    };
    let artifact =
        manifest.cni(name).ok_or_else(|| SuppliesError::NoNetwork { dir: manifest.dir().to_owned(), name })?;
    Ok(Some(Network { sha256: artifact.sha256.clone(), documents: documents(manifest.path_of(artifact))? }))
}

/// The definitions of a gateway's resources, in the file called `name`.
pub fn gateway_definitions(manifest: &Manifest, name: &'static str) -> Result<Vec<Value>, SuppliesError> {
    let mut all = manifest.artifacts.iter().filter(|artifact| artifact.kind == Kind::GatewayManifest);
    let found = all.find(|artifact| artifact.path.ends_with(name));
    let found = found.ok_or_else(|| SuppliesError::NoDefinitions { dir: manifest.dir().to_owned(), name })?;
    documents(manifest.path_of(found))
}

/// The documents of a YAML file.
fn documents(path: PathBuf) -> Result<Vec<Value>, SuppliesError> {
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| SuppliesError::Network { path: path.clone(), source };
    let text = std::fs::read_to_string(&path).map_err(|error| failed(error.into()))?;
    let documents = serde_saphyr::from_multiple::<Value>(&text).map_err(|error| failed(error.into()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

impl Network {
    /// Every image that its pods run.
    pub fn images(&self) -> BTreeSet<String> {
        let mut images = BTreeSet::new();
        self.documents.iter().for_each(|document| collect_images(document, &mut images));
        images
    }
}

/// The strings that are called `image`, wherever they stand; a digest beside a tag is not part of the name.
fn collect_images(value: &Value, images: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(image) if key == "image" => drop(images.insert(image.clone())),
                    value => collect_images(value, images),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_images(item, images)),
        _ => {}
    }
}
