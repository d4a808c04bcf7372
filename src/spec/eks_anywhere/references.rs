//! Reads each document, and finds the ones that others refer to.

use super::cluster::{self, Cluster};
use super::datacenter::{self, Datacenter};
use super::document::{Document, Kind};
use super::groups::Reference;
use super::machine::{self, Machine};
use super::{Target, identity, template, unused};
use crate::diagnostic::Problem;
use crate::names::did_you_mean;
use crate::spec::Argument;
use crate::spec::reader::Reader;

/// A document with what was read of it.
pub struct Read<'d, 'n, T> {
    pub document: &'d Document<'n>,
    pub content: Option<T>,
    /// Whether anything refers to it.
    used: bool,
}

/// The documents that a cluster is made of.
pub struct Parts<'d, 'n> {
    pub cluster: Cluster<'n>,
    pub datacenter: Option<Read<'d, 'n, Datacenter>>,
    /// All TinkerbellMachineConfigs.
    pub machines: Vec<Read<'d, 'n, Machine<'n>>>,
    /// Of each group of the cluster, its place among them.
    pub group_machines: Vec<Option<usize>>,
    /// What the identity providers add to the API server's flags.
    pub arguments: Option<Vec<Argument>>,
}

impl<'d, 'n> Parts<'d, 'n> {
    /// Reads the documents.
    pub fn read(reader: &mut Reader, documents: &'d [Document<'n>], target: &mut Target) -> Option<Self> {
        let clusters = all(reader, documents, Kind::Cluster, |reader, one| cluster::read(reader, one, target));
        let mut datacenters = all(reader, documents, Kind::Datacenter, datacenter::read);
        let mut machines = all(reader, documents, Kind::Machine, machine::read);
        let mut templates = all(reader, documents, Kind::Template, template::read);
        let mut oidc = all(reader, documents, Kind::Oidc, identity::oidc);
        let mut aws_iam = only_names(reader, documents, Kind::AwsIam, &identity::AWS_IAM);
        let cluster = only_one(reader, clusters)?;
        git_ops(reader, documents, &cluster);
        let arguments = identity_providers(reader, &cluster, &mut oidc, &mut aws_iam);
        let datacenter = cluster.datacenter.as_ref();
        let datacenter = datacenter.and_then(|one| find(reader, one, Kind::Datacenter, &mut datacenters));
        let groups = cluster.groups.as_deref().unwrap_or_default();
        let references = groups.iter().map(|group| group.machine.as_ref());
        let group_machines =
            references.map(|reference| find(reader, reference?, Kind::Machine, &mut machines)).collect();
        for machine in machines.iter().filter_map(|machine| machine.content.as_ref()) {
            if let Some(reference) = &machine.template {
                find(reader, reference, Kind::Template, &mut templates);
            }
        }
        warn_unreferenced(reader, &datacenters);
        warn_unreferenced(reader, &machines);
        warn_unreferenced(reader, &oidc);
        warn_unreferenced(reader, &aws_iam);
        let datacenter = datacenter.map(|index| datacenters.swap_remove(index));
        Some(Self { cluster, datacenter, machines, group_machines, arguments })
    }

    /// The documents of machines that groups refer to, each once.
    pub fn used_machines(&self) -> impl Iterator<Item = (&'d Document<'n>, &Machine<'n>)> {
        let used = self.machines.iter().filter(|machine| machine.used);
        used.filter_map(|machine| Some((machine.document, machine.content.as_ref()?)))
    }
}

/// The documents of one kind, read.
fn all<'d, 'n, T>(
    reader: &mut Reader,
    documents: &'d [Document<'n>],
    kind: Kind,
    mut read: impl FnMut(&mut Reader, &'d Document<'n>) -> Option<T>,
) -> Vec<Read<'d, 'n, T>> {
    let documents = documents.iter().filter(|document| document.kind == kind);
    documents.map(|document| Read { document, content: read(reader, document), used: false }).collect()
}

/// The documents of a kind of which only the fields' names matter.
fn only_names<'d, 'n>(
    reader: &mut Reader,
    documents: &'d [Document<'n>],
    kind: Kind,
    shape: &unused::Shape,
) -> Vec<Read<'d, 'n, ()>> {
    all(reader, documents, kind, |reader, document| {
        document.spec.as_ref().map(|spec| unused::check(reader, spec, shape))
    })
}

fn only_one<'n>(reader: &mut Reader, clusters: Vec<Read<'_, 'n, Cluster<'n>>>) -> Option<Cluster<'n>> {
    if clusters.is_empty() {
        let problem = Problem::new("among these documents of EKS Anywhere there is no Cluster");
        reader.refuse(&(0..0), problem.hint("`kind: Cluster` says which machines it is made of"));
    }
    for other in clusters.iter().skip(1) {
        let problem = Problem::new("the file has more than one Cluster");
        reader.refuse(&other.document.range, problem.hint("put each cluster into a file of its own"));
    }
    clusters.into_iter().next()?.content
}

/// The document that is referred to.
fn find<T>(reader: &mut Reader, reference: &Reference, kind: Kind, documents: &mut [Read<T>]) -> Option<usize> {
    let wanted = kind.as_str();
    if let Some(given) = &reference.kind {
        let text = reader.text(given)?;
        if text != wanted {
            let message = format!("`{}` has to be {wanted}, not {text}", given.name);
            reader.refuse(&given.range, Problem::new(message));
            return None;
        }
    }
    let name = reader.text(&reference.name)?;
    let found = documents.iter().position(|one| one.document.name.as_deref() == Some(name));
    match found {
        Some(index) => documents[index].used = true,
        None => {
            let names: Vec<&str> = documents.iter().filter_map(|one| one.document.name.as_deref()).collect();
            let hint = match (did_you_mean(name, names.iter().copied()), names.as_slice()) {
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, []) => format!("add the {wanted} as a document of this file"),
                (None, names) => format!("it has {}", names.join(", ")),
            };
            reader.refuse(&reference.name.range, Problem::new(format!("the file has no {wanted} `{name}`")).hint(hint));
        }
    }
    found
}

fn warn_unreferenced<T>(reader: &mut Reader, documents: &[Read<T>]) {
    for one in documents.iter().filter(|one| !one.used) {
        reader.warn(&one.document.range, Problem::new(format!("nothing refers to the {}", one.document.called())));
    }
}

/// GitOps has no effect; its documents have to be right all the same.
fn git_ops(reader: &mut Reader, documents: &[Document], cluster: &Cluster) {
    let mut flux = only_names(reader, documents, Kind::Flux, &identity::FLUX);
    let mut older = only_names(reader, documents, Kind::GitOps, &identity::GIT_OPS);
    if let Some(reference) = &cluster.git_ops {
        match reference.kind.as_ref().and_then(|kind| kind.node.scalar_at(&[])) {
            Some("GitOpsConfig") => find(reader, reference, Kind::GitOps, &mut older),
            _ => find(reader, reference, Kind::Flux, &mut flux),
        };
    }
    warn_unreferenced(reader, &flux);
    warn_unreferenced(reader, &older);
}

/// The flags that the identity providers add.
fn identity_providers(
    reader: &mut Reader,
    cluster: &Cluster,
    oidc: &mut [Read<Vec<Argument>>],
    aws_iam: &mut [Read<()>],
) -> Option<Vec<Argument>> {
    let mut arguments = Some(Vec::new());
    let mut has_oidc = false;
    for reference in &cluster.identity_providers {
        if reference.kind.as_ref().and_then(|kind| kind.node.scalar_at(&[])) == Some(Kind::AwsIam.as_str()) {
            find(reader, reference, Kind::AwsIam, aws_iam);
            let problem = Problem::new("AWS's IAM authenticator is not brought up by metalgate");
            let hint = "leave the reference out; an OIDCConfig can be used in its place";
            reader.refuse(&reference.name.range, problem.hint(hint));
            arguments = None;
            continue;
        }
        let index = find(reader, reference, Kind::Oidc, oidc);
        if index.is_some() && std::mem::replace(&mut has_oidc, true) {
            let problem = Problem::new("more than one OIDCConfig is referred to");
            reader.refuse(&reference.name.range, problem.hint("the API server's flags know one issuer"));
            arguments = None;
        }
        let flags = index.and_then(|index| oidc[index].content.clone());
        arguments = arguments.zip(flags).map(|(given, flags)| given.into_iter().chain(flags).collect());
    }
    arguments
}
