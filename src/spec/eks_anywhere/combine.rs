//! Makes the cluster of what its documents say.

use super::document::{Document, IMAGE_FORMAT, IMAGE_SHA256, KUBERNETES_VERSION};
use super::image::{self, OsImage};
use super::references::Parts;
use super::{Target, agree};
use crate::diagnostic::Problem;
use crate::spec::reader::Reader;
use crate::spec::{ClusterSpec, Endpoint, Group, Image, Kubernetes, Os, networks, values};

/// The API server's port; EKS Anywhere knows no other.
const PORT: u16 = 6443;

/// Makes the cluster.
pub fn combine(reader: &mut Reader, documents: &[Document], target: &mut Target) -> Option<ClusterSpec> {
    let parts = Parts::read(reader, documents, target)?;
    agree::check(reader, &parts, target);
    let images = images(reader, &parts);
    let version = version(reader, &parts, &images);
    let image = image(reader, &images);
    let users = agree::alike(reader, &parts, "users", agree::users);
    let ntp_servers = agree::alike(reader, &parts, "time servers", |machine| machine.ntp_servers.clone());
    let groups = groups(reader, &parts, target);
    let Parts { cluster, arguments, .. } = parts;
    let mut groups = groups?.into_iter();
    Some(ClusterSpec {
        name: cluster.name?,
        kubernetes: Kubernetes {
            version: version?,
            endpoint: Endpoint { host: cluster.endpoint?.0, port: PORT, external: cluster.external },
            pod_cidr: cluster.pods?.0,
            service_cidr: cluster.services?.0,
            cni: cluster.cni?,
            cert_sans: cluster.cert_sans?,
            api_server_extra_args: cluster.arguments?.into_iter().chain(arguments?).collect(),
        },
        provisioning: cluster.provisioning?,
        os: Os { image: image?, users: users?, ntp_servers: ntp_servers? },
        control_plane: groups.next()?,
        workers: groups.collect(),
        registries: cluster.registries?,
        gateway: None,
    })
}

/// The images that are named, at the one level where they may be.
fn images<'p>(reader: &mut Reader, parts: &'p Parts) -> Vec<&'p OsImage> {
    let datacenter = parts.datacenter.as_ref();
    let common = datacenter.and_then(|one| one.content.as_ref()?.image.as_ref());
    let own: Vec<(&Document, Option<&OsImage>)> =
        parts.used_machines().map(|(document, machine)| (document, machine.image.as_ref())).collect();
    if let Some(common) = common {
        for (_, image) in own {
            let Some(image) = image else { continue };
            let problem = Problem::new("`osImageURL` is given here and in the TinkerbellDatacenterConfig");
            reader.refuse(&image.range, problem.hint("keep it in one place"));
        }
        return vec![common];
    }
    let named: Vec<&OsImage> = own.iter().filter_map(|(_, image)| *image).collect();
    match (named.is_empty(), datacenter) {
        (true, Some(datacenter)) if !own.is_empty() => {
            let problem = Problem::new("no `osImageURL` says what goes on the disks");
            reader.refuse(&datacenter.document.range, problem.hint("name the image in `spec.osImageURL`"));
        }
        (true, _) => {}
        (false, _) => {
            for (document, _) in own.iter().filter(|(_, image)| image.is_none()) {
                let problem = Problem::new(format!("the {} has no `osImageURL`, but others have", document.called()));
                reader.refuse(
                    &document.range,
                    problem.hint("give it to all, or to the TinkerbellDatacenterConfig alone"),
                );
            }
        }
    }
    named
}

/// The version with its patch release: EKS Anywhere's files do not have it, but an annotation or the image's name may.
fn version(reader: &mut Reader, parts: &Parts, images: &[&OsImage]) -> Option<String> {
    let version = parts.cluster.version.as_ref()?;
    let minor = &version.minor;
    for image in images.iter().filter(|image| !image::names_version(&image.text, minor)) {
        let problem = Problem::new(format!("`osImageURL` does not name Kubernetes {minor}"));
        reader.refuse(&image.range, problem.hint(format!("EKS Anywhere wants {minor} in the image's name")));
    }
    let found = version.full.clone().or_else(|| image::patch_release(&images.first()?.text, minor));
    // That there is no image was said already; with it, its name may say the release.
    if found.is_none() && !images.is_empty() {
        let problem = Problem::new(format!("which patch release of {minor} is not said anywhere"));
        let hint = format!(
            "add the annotation `{KUBERNETES_VERSION}: v{minor}.N` to the Cluster; `metalgate artifacts list` shows what \
             there is"
        );
        reader.refuse(&version.range, problem.hint(hint));
    }
    found
}

/// The one image, with its sum.
fn image(reader: &mut Reader, images: &[&OsImage]) -> Option<Image> {
    let first = images.first()?;
    let mut right = true;
    for other in images.iter().filter(|image| image.url != first.url) {
        if other.url.is_some() && first.url.is_some() {
            let line = reader.source.line(first.range.start);
            let problem = Problem::new(format!("another image than in line {line}"));
            reader.refuse(&other.range, problem.hint("metalgate installs the same image on all machines"));
        }
        right = false;
    }
    let mut sums = Vec::new();
    let mut formats = Vec::new();
    for image in images {
        sums.push(image.sha256.clone()?);
        formats.push(image.format?);
    }
    let mut sums: Vec<String> = sums.into_iter().flatten().collect();
    let formats: Vec<_> = formats.into_iter().flatten().collect();
    sums.dedup();
    let format = match formats.first() {
        Some(format) => Some(*format),
        None => first.url.as_ref().and_then(|url| {
            let problem = |problem: Problem| problem.hint(format!("add the annotation `{IMAGE_FORMAT}` beside it"));
            values::format_of(url).map_err(|found| reader.refuse(&first.range, problem(found))).ok()
        }),
    };
    if sums.len() > 1 || formats.iter().any(|other| Some(other) != formats.first()) {
        let problem = Problem::new("the annotations about this image contradict each other");
        reader.refuse(&first.range, problem.hint("one of them is enough"));
        return None;
    }
    let Some(sha256) = sums.pop() else {
        let hint = format!(
            "add the annotation `{IMAGE_SHA256}` to the metadata of this document; `curl -sL URL | sha256sum` prints it"
        );
        reader.refuse(&first.range, Problem::new("this image has no SHA-256 sum to be checked by").hint(hint));
        return None;
    };
    Some(Image { url: first.url.clone()?, sha256, format: format? }).filter(|_| right)
}

/// The groups, with the labels that their machines have to carry.
fn groups(reader: &mut Reader, parts: &Parts, target: &mut Target) -> Option<Vec<Group>> {
    let groups = parts.cluster.groups.as_ref()?;
    let made: Vec<Option<Group>> = groups
        .iter()
        .zip(&parts.group_machines)
        .enumerate()
        .map(|(index, (group, machine))| {
            let selector = parts.machines[(*machine)?].content.as_ref()?.selector.as_ref()?;
            let path = match index {
                0 => String::from("spec.controlPlane.selector"),
                index => format!("spec.workers.{}.selector", index - 1),
            };
            target.note(path, &selector.name, &selector.range);
            Some(Group {
                name: group.name.clone()?,
                count: group.count?,
                selector: selector.labels.clone(),
                labels: group.labels.clone()?,
                taints: group.taints.clone()?,
            })
        })
        .collect();
    let made: Vec<Group> = made.into_iter().collect::<Option<_>>()?;
    let at = target.origins.get("spec.kubernetes.podCIDR").map(|origin| origin.range.clone());
    networks::leave_room(reader, &target.known, &made, &at.unwrap_or(0..0));
    target.known.groups = Some(made.clone());
    Some(made)
}
