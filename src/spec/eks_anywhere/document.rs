//! The documents of a file by kind, with what all kinds have in common: name, namespace and annotations.

use super::API_VERSION;
use crate::diagnostic::Problem;
use crate::names::{did_you_mean, dns_subdomain, one_of};
use crate::spec::reader::{Reader, Value};
use crate::spec::yaml;
use std::ops::Range;

/// What annotations of ours begin with.
const OURS: &str = "metalgate.dev/";
/// The patch release of Kubernetes, on the Cluster.
pub const KUBERNETES_VERSION: &str = "metalgate.dev/kubernetes-version";
/// Our interface in the provisioning network, on the Cluster.
pub const INTERFACE: &str = "metalgate.dev/provisioning-interface";
/// Our address there, on the Cluster.
pub const ADDRESS: &str = "metalgate.dev/provisioning-address";
/// The same by the name that EKS Anywhere's command line gives it.
pub const BOOTSTRAP_IP: &str = "anywhere.eks.amazonaws.com/tinkerbell-bootstrap-ip";
/// How machines get their addresses while they are installed, on the Cluster.
pub const DHCP_MODE: &str = "metalgate.dev/dhcp-mode";
/// Sum of the image, on the document that has its URL.
pub const IMAGE_SHA256: &str = "metalgate.dev/os-image-sha256";
/// How the image is packed, on the document that has its URL.
pub const IMAGE_FORMAT: &str = "metalgate.dev/os-image-format";

/// Fields of metadata and of a document that the API server writes.
const SERVERS: [&str; 8] = [
    "creationTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The kinds that a file of bare metal can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cluster,
    Datacenter,
    Machine,
    Template,
    Oidc,
    AwsIam,
    Flux,
    GitOps,
}

const KINDS: [(&str, Kind); 8] = [
    ("Cluster", Kind::Cluster),
    ("TinkerbellDatacenterConfig", Kind::Datacenter),
    ("TinkerbellMachineConfig", Kind::Machine),
    ("TinkerbellTemplateConfig", Kind::Template),
    ("OIDCConfig", Kind::Oidc),
    ("AWSIamConfig", Kind::AwsIam),
    ("FluxConfig", Kind::Flux),
    ("GitOpsConfig", Kind::GitOps),
];

impl Kind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map(|(name, _)| *name).unwrap_or_default()
    }

    /// The annotations of ours that a document of this kind can have.
    fn annotations(self) -> &'static [&'static str] {
        match self {
            Self::Cluster => &[KUBERNETES_VERSION, INTERFACE, ADDRESS, DHCP_MODE],
            Self::Datacenter | Self::Machine => &[IMAGE_SHA256, IMAGE_FORMAT],
            _ => &[],
        }
    }
}

/// A document.
pub struct Document<'n> {
    /// What it is.
    pub kind: Kind,
    /// Where that stands: what to point at where the whole document is meant.
    pub range: Range<usize>,
    /// `metadata.name`; there if it is a name.
    pub name: Option<String>,
    /// `metadata.namespace`, or its default; with its place, or the document's.
    pub namespace: (String, Range<usize>),
    /// Annotations of ours, and those of EKS Anywhere that mean something here.
    pub annotations: Vec<Value<'n>>,
    /// `spec`, if it is there.
    pub spec: Option<Value<'n>>,
}

impl<'n> Document<'n> {
    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&Value<'n>> {
        self.annotations.iter().find(|value| value.name.strip_prefix("metadata.annotations.") == Some(key))
    }

    /// How messages call it.
    pub fn called(&self) -> String {
        let name = self.name.as_deref().map(|name| format!(" `{name}`")).unwrap_or_default();
        format!("{}{name}", self.kind.as_str())
    }
}

/// The documents that are of a known kind.
pub fn sort<'n>(reader: &mut Reader, documents: &'n [yaml::Document]) -> Vec<Document<'n>> {
    let mut sorted: Vec<Document<'n>> = Vec::new();
    for document in documents {
        let Some(read) = read(reader, &Value::root(&document.root)) else { continue };
        let first = sorted.iter().find(|one| one.kind == read.kind && one.name.is_some() && one.name == read.name);
        if let Some(first) = first {
            let line = reader.source.line(first.range.start);
            let message = format!("{} is given twice; the first time in line {line}", read.called());
            reader.refuse(&read.range, Problem::new(message).hint("keep one of them"));
            continue;
        }
        sorted.push(read);
    }
    sorted
}

fn read<'n>(reader: &mut Reader, root: &Value<'n>) -> Option<Document<'n>> {
    let mut fields = reader.fields(root)?;
    let version = reader.required(&mut fields, "apiVersion").map(|value| reader.parse(&value, api_version));
    if version == Some(None) {
        // The kinds of another API would all be unknown here.
        return None;
    }
    let kind_value = reader.required(&mut fields, "kind");
    let kind = kind_value.as_ref().map(|value| reader.parse(value, kind));
    if kind == Some(None) {
        return None;
    }
    let metadata = reader.required(&mut fields, "metadata");
    let spec = reader.required(&mut fields, "spec");
    let _ = reader.optional(&mut fields, "status");
    reader.finish(fields);
    let (kind, value) = (kind.flatten()?, kind_value?);
    let mut document = Document {
        kind,
        namespace: (String::from("default"), value.range.clone()),
        range: value.range,
        name: None,
        annotations: Vec::new(),
        spec,
    };
    if let Some(value) = metadata {
        self::metadata(reader, &value, &mut document);
    }
    Some(document)
}

fn api_version(text: &str) -> Result<(), Problem> {
    let problem = || Problem::new(format!("unknown apiVersion `{text}` among EKS Anywhere's documents"));
    match text {
        API_VERSION => Ok(()),
        _ if text.starts_with(OURS) => {
            Err(problem().hint("put it into a file of its own; `metalgate convert` makes a spec of ours of the others"))
        }
        _ if text.contains("tinkerbell.org/") => Err(problem().hint("machines come from --hardware-csv")),
        _ => Err(problem().hint(format!("this version reads {API_VERSION}"))),
    }
}

fn kind(text: &str) -> Result<Kind, Problem> {
    if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == text) {
        return Ok(*kind);
    }
    let elsewhere = ["VSphere", "CloudStack", "Nutanix", "Snow", "Docker", "AWS"];
    if elsewhere.iter().any(|provider| text.starts_with(provider)) {
        let problem = Problem::new(format!("`{text}` is not about bare metal"));
        return Err(problem.hint("metalgate installs servers: TinkerbellDatacenterConfig, TinkerbellMachineConfig"));
    }
    let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    Err(Problem::new(format!("unknown kind `{text}`")).hint(one_of(text, &known)))
}

fn metadata<'n>(reader: &mut Reader, value: &Value<'n>, document: &mut Document<'n>) {
    let Some(mut fields) = reader.fields(value) else { return };
    let name = reader.required(&mut fields, "name");
    document.name = name.and_then(|value| reader.parse(&value, dns_subdomain));
    if let Some(value) = reader.optional(&mut fields, "namespace")
        && let Some(namespace) = reader.text(&value)
    {
        document.namespace = (namespace.to_owned(), value.range);
    }
    if let Some(value) = reader.optional(&mut fields, "annotations") {
        annotations(reader, &value, document);
    }
    let _ = reader.optional(&mut fields, "labels");
    for field in SERVERS {
        let _ = reader.optional(&mut fields, field);
    }
    reader.finish(fields);
}

fn annotations<'n>(reader: &mut Reader, value: &Value<'n>, document: &mut Document<'n>) {
    let known = document.kind.annotations();
    for (entry, value) in reader.entries(value).unwrap_or_default() {
        let key = entry.key.as_str();
        if known.contains(&key) || (key == BOOTSTRAP_IP && document.kind == Kind::Cluster) {
            document.annotations.push(value);
        } else if key.starts_with(OURS) {
            let problem = Problem::new(format!("a {} has no annotation `{key}`", document.kind.as_str()));
            let hint = match (did_you_mean(key, known.iter().copied()), known) {
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, []) => String::from("it has none of metalgate's"),
                (None, known) => format!("known here: {}", known.join(", ")),
            };
            reader.refuse(&entry.range, problem.hint(hint));
        }
    }
}
