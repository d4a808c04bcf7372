//! The fields of a Cluster.

use super::document::{ADDRESS, BOOTSTRAP_IP, DHCP_MODE, Document, INTERFACE, KUBERNETES_VERSION};
use super::groups::{self, HEALTH_CHECK, MachineGroup, Reference};
use super::unused::{self, Shape, given};
use super::{Target, cluster_network, registries};
use crate::diagnostic::Problem;
use crate::names::dns_label;
use crate::spec::networks::{self, Placed};
use crate::spec::reader::{Fields, Reader, Value};
use crate::spec::{Argument, Cni, DhcpMode, Provisioning, Registries, values};
use std::net::Ipv4Addr;
use std::ops::Range;

/// Ports that we serve on; EKS Anywhere has no fields for them.
const HTTP_PORT: u16 = 8080;
const AGENT_PORT: u16 = 8443;

const RESOURCES: Shape = Shape::Fields(&[("cpu", Shape::Text), ("memory", Shape::Text)]);
const PACKAGES: Shape = Shape::Fields(&[
    ("disable", Shape::Flag),
    (
        "controller",
        Shape::Fields(&[
            ("repository", Shape::Text),
            ("tag", Shape::Text),
            ("digest", Shape::Text),
            ("disableWebhooks", Shape::Flag),
            ("env", Shape::List(&Shape::Text)),
            ("resources", Shape::Fields(&[("requests", RESOURCES), ("limits", RESOURCES)])),
        ]),
    ),
    (
        "cronjob",
        Shape::Fields(&[
            ("repository", Shape::Text),
            ("tag", Shape::Text),
            ("digest", Shape::Text),
            ("disable", Shape::Flag),
        ]),
    ),
]);
const BUNDLES_REF: Shape =
    Shape::Fields(&[("apiVersion", Shape::Text), ("name", Shape::Text), ("namespace", Shape::Text)]);
const ETCD: Shape = Shape::Fields(&[
    ("count", Shape::Number),
    ("machineGroupRef", Shape::Fields(&[("kind", Shape::Text), ("name", Shape::Text)])),
]);
const ENCRYPTION: Shape = Shape::List(&Shape::Fields(&[
    (
        "providers",
        Shape::List(&Shape::Fields(&[(
            "kms",
            Shape::Fields(&[
                ("name", Shape::Text),
                ("socketListenAddress", Shape::Text),
                ("cachesize", Shape::Number),
                ("timeout", Shape::Text),
            ]),
        )])),
    ),
    ("resources", Shape::List(&Shape::Text)),
]));

/// What a Cluster says; a part is there if it is right.
pub struct Cluster<'n> {
    pub name: Option<String>,
    pub version: Option<Version>,
    pub endpoint: Option<(Ipv4Addr, Range<usize>)>,
    pub external: bool,
    pub pods: Placed,
    pub services: Placed,
    pub cni: Option<Cni>,
    pub cert_sans: Option<Vec<String>>,
    pub arguments: Option<Vec<Argument>>,
    pub provisioning: Option<Provisioning>,
    /// The control plane first.
    pub groups: Option<Vec<MachineGroup<'n>>>,
    pub registries: Option<Registries>,
    pub datacenter: Option<Reference<'n>>,
    pub identity_providers: Vec<Reference<'n>>,
    pub git_ops: Option<Reference<'n>>,
}

/// The version of Kubernetes.
pub struct Version {
    /// `1.36`, as the file has it.
    pub minor: String,
    /// `v1.36.4`, if an annotation says it.
    pub full: Option<String>,
    /// Where the version without the patch release stands.
    pub range: Range<usize>,
}

/// Reads the Cluster.
pub fn read<'n>(reader: &mut Reader, document: &Document<'n>, target: &mut Target) -> Option<Cluster<'n>> {
    let name = document
        .name
        .as_deref()
        .map(|name| dns_label(name).map_err(|problem| reader.refuse(&document.range, problem)).ok());
    let spec = document.spec.as_ref()?;
    let mut fields = reader.fields(spec)?;
    let version = reader.required(&mut fields, "kubernetesVersion");
    let version = version.and_then(|value| self::version(reader, document, &value));
    let network = reader.required(&mut fields, "clusterNetwork");
    let network = network.and_then(|value| cluster_network::read(reader, &value, target)).unwrap_or_default();
    let control_plane = reader.required(&mut fields, "controlPlaneConfiguration");
    let control_plane = control_plane.and_then(|value| groups::control_plane(reader, &value));
    let workers = match given(reader, &mut fields, "workerNodeGroupConfigurations") {
        Some(value) => groups::workers(reader, &value),
        None => Some(Vec::new()),
    };
    let datacenter = reader.required(&mut fields, "datacenterRef").and_then(|value| groups::reference(reader, &value));
    let identity_providers = identity_providers(reader, &mut fields);
    let git_ops = git_ops(reader, &mut fields);
    let issuer = issuer(reader, &mut fields);
    management_cluster(reader, &mut fields, document);
    let registries = registries::read(reader, &mut fields);
    without_effect(reader, &mut fields);
    refused(reader, &mut fields);
    reader.finish(fields);
    let (external, endpoint, cert_sans, arguments, control_plane) = match control_plane {
        Some(read) => (read.external, read.endpoint, read.cert_sans, read.arguments, Some(read.group)),
        None => (false, None, None, None, None),
    };
    let arguments = arguments.zip(issuer).map(|(given, issuer)| given.into_iter().chain(issuer).collect());
    let groups = control_plane.zip(workers).map(|(first, rest)| std::iter::once(first).chain(rest).collect());
    networks::keep_apart(reader, &mut target.known, &network.pods, &network.services, endpoint.clone());
    if let Some((host, range)) = &endpoint {
        target.note("spec.kubernetes.endpoint.host", "spec.controlPlaneConfiguration.endpoint.host", range);
        target.known.endpoint = Some(*host);
        target.known.external = external;
    }
    Some(Cluster {
        name: name.flatten(),
        version,
        endpoint,
        external,
        pods: network.pods,
        services: network.services,
        cni: network.cni,
        cert_sans,
        arguments,
        provisioning: provisioning(reader, document, target),
        groups,
        registries,
        datacenter,
        identity_providers,
        git_ops,
    })
}

fn identity_providers<'n>(reader: &mut Reader, fields: &mut Fields<'n>) -> Vec<Reference<'n>> {
    let Some(value) = given(reader, fields, "identityProviderRefs") else { return Vec::new() };
    let items = reader.items(&value).unwrap_or_default();
    items.iter().filter_map(|item| groups::reference(reader, item)).collect()
}

fn git_ops<'n>(reader: &mut Reader, fields: &mut Fields<'n>) -> Option<Reference<'n>> {
    let value = given(reader, fields, "gitOpsRef")?;
    let hint = "point your GitOps tool at the cluster's own API once it stands";
    reader.warn(&value.range, Problem::new(format!("`{}` has no effect here", value.name)).hint(hint));
    groups::reference(reader, &value)
}

/// EKS Anywhere names a minor version; which patch release it is, its own releases say.
fn version(reader: &mut Reader, document: &Document, value: &Value) -> Option<Version> {
    let minor = reader.parse(value, |text| match text.split('.').count() {
        2 => values::kubernetes_version(&format!("v{text}.0")).map(|_| text.to_owned()),
        _ => Err(Problem::new(format!("`{text}` is not a Kubernetes version of EKS Anywhere")).hint(format!(
            "two numbers, as in \"1.36\"; the patch release goes into the annotation {KUBERNETES_VERSION}"
        ))),
    })?;
    let full = match document.annotation(KUBERNETES_VERSION) {
        Some(annotation) => Some(reader.parse(annotation, |text| {
            let version = values::kubernetes_version(text)?;
            match version.starts_with(&format!("v{minor}.")) {
                true => Ok(version),
                false => Err(Problem::new(format!("{version} is not a patch release of `{}` {minor}", value.name))),
            }
        })?),
        None => None,
    };
    Some(Version { minor, full, range: value.range.clone() })
}

/// From annotations, because EKS Anywhere takes it from its command line and from the host.
fn provisioning(reader: &mut Reader, document: &Document, target: &mut Target) -> Option<Provisioning> {
    let interface = match document.annotation(INTERFACE) {
        Some(value) => Some(reader.parse(value, values::interface)?),
        None => None,
    };
    let address = match document.annotation(ADDRESS).or(document.annotation(BOOTSTRAP_IP)) {
        Some(value) => {
            let address = reader.parse(value, values::host_address)?;
            target.known.own_address = Some(address);
            target.note("spec.provisioning.address", &value.name, &value.range);
            Some(address)
        }
        None => None,
    };
    let dhcp = match document.annotation(DHCP_MODE) {
        Some(value) => reader.parse(value, values::dhcp_mode)?,
        None => DhcpMode::default(),
    };
    Some(Provisioning { interface, address, dhcp, http_port: HTTP_PORT, agent_port: AGENT_PORT })
}

/// Tokens of service accounts are made for AWS by naming another issuer.
fn issuer(reader: &mut Reader, fields: &mut Fields) -> Option<Option<Argument>> {
    let Some(value) = given(reader, fields, "podIamConfig") else { return Some(None) };
    let mut fields = reader.fields(&value)?;
    let issuer = reader.required(&mut fields, "serviceAccountIssuer");
    reader.finish(fields);
    let value = reader.text(&issuer?)?.to_owned();
    Some(Some(Argument { name: String::from("service-account-issuer"), value }))
}

fn management_cluster(reader: &mut Reader, fields: &mut Fields, document: &Document) {
    let Some(value) = given(reader, fields, "managementCluster") else { return };
    let Some(mut fields) = reader.fields(&value) else { return };
    let name = given(reader, &mut fields, "name");
    reader.finish(fields);
    let Some(name) = name else { return };
    let Some(manager) = reader.text(&name) else { return };
    if document.name.as_deref().is_some_and(|own| own != manager) {
        let problem = Problem::new(format!("this cluster is to be managed by another one, `{manager}`"));
        let hint = "each cluster of metalgate manages itself: leave `managementCluster` out";
        reader.refuse(&name.range, problem.hint(hint));
    }
}

fn without_effect(reader: &mut Reader, fields: &mut Fields) {
    unused::warn(reader, fields, "machineHealthCheck", &HEALTH_CHECK, groups::HEALTH);
    let why = "metalgate has no curated packages: install what you need with its own charts or manifests";
    unused::warn(reader, fields, "packages", &PACKAGES, why);
    let why = "versions are those of metalgate's artifacts";
    unused::warn(reader, fields, "eksaVersion", &Shape::Text, why);
    unused::warn(reader, fields, "bundlesRef", &BUNDLES_REF, why);
    unused::warn(reader, fields, "licenseToken", &Shape::Text, "metalgate needs no licence");
    unused::warn(
        reader,
        fields,
        "overrideClusterSpecFile",
        &Shape::Text,
        "EKS Anywhere does not read it any more either",
    );
}

fn refused(reader: &mut Reader, fields: &mut Fields) {
    let (why, hint) = (
        "etcd runs on the control plane's machines here",
        "leave it out; 3 or 5 control-plane machines survive failures",
    );
    unused::refuse(reader, fields, "externalEtcdConfiguration", &ETCD, why, hint);
    let (why, hint) = (
        "KMS providers are not supported",
        "leave it out: secrets are encrypted at rest with a key of the cluster's own",
    );
    unused::refuse(reader, fields, "etcdEncryption", &ENCRYPTION, why, hint);
}
