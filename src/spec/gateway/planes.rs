//! The provider, its control plane and data planes, and the certificates between them.

use super::fields::{
    items, name, number, optional_of, optional_secret_key, optional_texts, secret_key, some, truth, word,
};
use super::{Context, rules, supported};
use crate::diagnostic::Problem;
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{
    ControlPlane, DataPlane, Database, Edition, Expose, ExposeBy, ExternalDatabase, Pki, PkiMode, Provider,
    ProviderName,
};
use crate::names::{self, Labels};
use crate::spec::cluster;
use crate::spec::reader::{Fields, Reader, Value};
use std::collections::BTreeSet;

/// Most replicas of a plane, services of a gateway, and weight of a backend: the smallest that a provider has.
const MAX_REPLICAS: u32 = 100;
/// Lives of certificates, in days. Above 397 days clients may refuse a leaf (CA/Browser Forum's limit of today).
const LEAF_DAYS: (u32, std::ops::RangeInclusive<u32>) = (90, 1..=397);
const CA_DAYS: (u32, std::ops::RangeInclusive<u32>) = (3650, 30..=7300);
/// What Kong's own `kong hybrid gen_cert` gives its shared certificate.
const SHARED_DAYS: (u32, std::ops::RangeInclusive<u32>) = (1095, 1..=3650);

pub(super) fn provider(reader: &mut Reader, value: &Value) -> Option<Provider> {
    let mut fields = reader.fields(value)?;
    let name = reader.required(&mut fields, "name").and_then(|value| {
        let words = [("kong-hybrid", ProviderName::KongHybrid), ("envoy-gateway", ProviderName::EnvoyGateway)];
        word(reader, &value, "a gateway provider", &words)
    });
    let version = reader.optional(&mut fields, "version");
    let options = reader.optional(&mut fields, "options");
    reader.finish(fields);
    let mut provider = Provider {
        name: name?,
        version: String::new(),
        edition: Edition::Oss,
        image: None,
        license: None,
        class_name: None,
    };
    let options = match options {
        Some(value) => provider_options(reader, &mut provider, &value),
        None => Some(()),
    };
    provider.version = match version {
        Some(value) => reader.parse(&value, |text| rules::version(&provider, text))?,
        None => String::from(rules::default_version(&provider)),
    };
    options.map(|()| provider)
}

fn provider_options(reader: &mut Reader, provider: &mut Provider, value: &Value) -> Option<()> {
    let mut fields = reader.fields(value)?;
    let edition = optional_of(reader, &mut fields, "edition", provider, Feature::Edition);
    if let Some(value) = edition {
        let words = [("oss", Edition::Oss), ("enterprise", Edition::Enterprise)];
        provider.edition = word(reader, &value, "an edition", &words)?;
    }
    let image = optional_of(reader, &mut fields, "image", provider, Feature::Image);
    let license = optional_of(reader, &mut fields, "license", provider, Feature::License);
    let class_name = optional_of(reader, &mut fields, "className", provider, Feature::ClassName);
    reader.finish(fields);
    if let Some(value) = image {
        provider.image = Some(reader.parse(&value, rules::image)?);
    }
    if let Some(value) = class_name {
        provider.class_name = Some(reader.parse(&value, names::dns_subdomain)?);
    }
    provider.license = optional_secret_key(reader, license)?;
    Some(())
}

pub(super) fn planes(reader: &mut Reader, context: &Context, value: &Value) -> Option<(ControlPlane, Vec<DataPlane>)> {
    let mut fields = reader.fields(value)?;
    let control_plane = match reader.optional(&mut fields, "controlPlane") {
        Some(value) => control_plane(reader, context, &value),
        None if context.provider.refuses(Feature::Database).is_none() => {
            let problem = Problem::new(format!("`{}` has no `controlPlane`", value.name));
            let hint = "Kong's control plane needs a database: controlPlane: {database: {embedded: true}} for a lab";
            reader.refuse(&fields.range(), problem.hint(hint));
            None
        }
        None => {
            Some(ControlPlane { replicas: 1, node_selector: Labels::new(), expose: Expose::default(), database: None })
        }
    };
    let data_planes = reader.required(&mut fields, "dataPlanes").and_then(|value| {
        let planes = items(reader, &value, |reader, item, seen| data_plane(reader, context, item, seen));
        some(reader, &value, planes)
    });
    reader.finish(fields);
    let (control_plane, data_planes) = (control_plane?, data_planes?);
    let elsewhere = data_planes.iter().any(|plane| plane.kubeconfig.is_some());
    if let Some(hint) = unreachable(context, &control_plane.expose).filter(|_| elsewhere) {
        let message = "data planes of other clusters cannot reach this control plane";
        let at = value.node.shown_at(&["controlPlane", "expose"]).unwrap_or(value.range.clone());
        reader.refuse(&at, Problem::new(message).hint(hint));
        return None;
    }
    Some((control_plane, data_planes))
}

/// What another cluster's data planes lack to reach a control plane.
fn unreachable(context: &Context, expose: &Expose) -> Option<&'static str> {
    let has_telemetry = context.provider.edition == Edition::Enterprise;
    let ports_known = expose.http_node_port.is_some() && (!has_telemetry || expose.https_node_port.is_some());
    match expose.by {
        _ if expose.addresses.is_empty() => {
            Some("give controlPlane an `expose` with `addresses`, and the type NodePort or LoadBalancer")
        }
        ExposeBy::ClusterIp | ExposeBy::HostNetwork => Some("the type has to be NodePort or LoadBalancer"),
        ExposeBy::NodePort if !ports_known && has_telemetry => {
            Some("give `configNodePort` and `telemetryNodePort`: they have to be known before Kubernetes chooses them")
        }
        ExposeBy::NodePort if !ports_known => {
            Some("give `configNodePort`: it has to be known before Kubernetes chooses it")
        }
        ExposeBy::NodePort | ExposeBy::LoadBalancer => None,
    }
}

fn node_selector(reader: &mut Reader, fields: &mut Fields) -> Option<Labels> {
    match reader.optional(fields, "nodeSelector") {
        Some(value) => cluster::labels(reader, &value),
        None => Some(Labels::new()),
    }
}

fn control_plane(reader: &mut Reader, context: &Context, value: &Value) -> Option<ControlPlane> {
    let mut fields = reader.fields(value)?;
    let replicas = number(reader, &mut fields, "replicas", 1, 1..=MAX_REPLICAS);
    let node_selector = node_selector(reader, &mut fields);
    let given = optional_of(reader, &mut fields, "expose", &context.provider, Feature::ExposedControlPlane);
    let expose = match given {
        Some(value) => expose(reader, &value, ("configNodePort", "telemetryNodePort")),
        None => Some(Expose::default()),
    };
    let has_database = context.provider.refuses(Feature::Database).is_none();
    let database = match has_database {
        true => reader.required(&mut fields, "database").map(|value| database(reader, &value)),
        false => optional_of(reader, &mut fields, "database", &context.provider, Feature::Database).map(|_| None),
    };
    reader.finish(fields);
    let database = match database {
        Some(database) => Some(database?),
        None if has_database => return None,
        None => None,
    };
    Some(ControlPlane { replicas: replicas?, node_selector: node_selector?, expose: expose?, database })
}

fn database(reader: &mut Reader, value: &Value) -> Option<Database> {
    let mut fields = reader.fields(value)?;
    let embedded = truth(reader, &mut fields, "embedded", false)?;
    let url = reader.optional(&mut fields, "url");
    let password = reader.optional(&mut fields, "password");
    let range = fields.range();
    reader.finish(fields);
    if embedded {
        if let Some(value) = url.or(password) {
            let problem = Problem::new(format!("`{}` has no meaning beside `embedded: true`", value.name));
            reader.refuse(&value.range, problem);
            return None;
        }
        return Some(Database { external: None });
    }
    let (Some(url), Some(password)) = (url, password) else {
        let problem = Problem::new("a database is given by `url` and `password`, or is `embedded: true`");
        let hint =
            "for example {url: \"postgres://kong@db.example.org/kong\", password: {secret: kong-db, key: password}}";
        reader.refuse(&range, problem.hint(hint));
        return None;
    };
    let password = secret_key(reader, &password);
    let place = reader.parse(&url, rules::database_url)?;
    let password = password?;
    Some(Database { external: Some(ExternalDatabase { password, ..place }) })
}

/// `ports`: the fields with a node port, the one of plain HTTP first.
fn expose(reader: &mut Reader, value: &Value, ports: (&'static str, &'static str)) -> Option<Expose> {
    let mut fields = reader.fields(value)?;
    let by = reader.required(&mut fields, "type").and_then(|value| {
        let words = [
            ("ClusterIP", ExposeBy::ClusterIp),
            ("NodePort", ExposeBy::NodePort),
            ("LoadBalancer", ExposeBy::LoadBalancer),
            ("HostNetwork", ExposeBy::HostNetwork),
        ];
        word(reader, &value, "a way to reach a plane", &words)
    });
    let mut node_port = |reader: &mut Reader, field| match reader.optional(&mut fields, field) {
        None => Some(None),
        Some(value) if by.is_some_and(|by| by != ExposeBy::NodePort) => {
            let problem = Problem::new(format!("`{}` has a meaning for the type NodePort only", value.name));
            reader.refuse(&value.range, problem);
            None
        }
        Some(value) => reader.number(&value, 30_000..=32_767).and_then(|port| u16::try_from(port).ok()).map(Some),
    };
    let (http, https) = (node_port(reader, ports.0), node_port(reader, ports.1));
    let addresses = optional_texts(reader, &mut fields, "addresses", rules::host);
    reader.finish(fields);
    Some(Expose { by: by?, http_node_port: http?, https_node_port: https?, addresses: addresses? })
}

fn data_plane(reader: &mut Reader, context: &Context, value: &Value, seen: &mut BTreeSet<String>) -> Option<DataPlane> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "data plane", seen);
    let replicas = number(reader, &mut fields, "replicas", 1, 1..=MAX_REPLICAS);
    let node_selector = node_selector(reader, &mut fields);
    let expose = match reader.optional(&mut fields, "expose") {
        Some(value) => expose(reader, &value, ("httpNodePort", "httpsNodePort")),
        None => Some(Expose::default()),
    };
    let kubeconfig = optional_of(reader, &mut fields, "kubeconfig", &context.provider, Feature::RemoteDataPlane);
    reader.finish(fields);
    let kubeconfig = optional_secret_key(reader, kubeconfig);
    Some(DataPlane {
        name: name?,
        replicas: replicas?,
        node_selector: node_selector?,
        expose: expose?,
        kubeconfig: kubeconfig?,
    })
}

pub(super) fn pki(reader: &mut Reader, context: &Context, value: Option<&Value>) -> Option<Pki> {
    let Some(value) = value else {
        return Some(Pki { mode: PkiMode::Pki, ca_days: CA_DAYS.0, leaf_days: LEAF_DAYS.0 });
    };
    let mut fields = reader.fields(value)?;
    let mode = match reader.optional(&mut fields, "mode") {
        Some(value) => {
            let mode = word(reader, &value, "a mode", &[("pki", PkiMode::Pki), ("shared", PkiMode::Shared)]);
            let fits = mode != Some(PkiMode::Shared)
                || supported(reader, &context.provider, Feature::SharedPki, "mode: shared", &value.range);
            mode.filter(|_| fits)
        }
        None => Some(PkiMode::Pki),
    };
    let (leaf, leaves) = if mode == Some(PkiMode::Shared) { SHARED_DAYS } else { LEAF_DAYS };
    let leaf_days = number(reader, &mut fields, "leafDays", leaf, leaves);
    let ca_days = number(reader, &mut fields, "caDays", CA_DAYS.0, CA_DAYS.1);
    let at = value.node.shown_at(&["caDays"]).unwrap_or(fields.range());
    reader.finish(fields);
    let (mode, leaf_days, ca_days) = (mode?, leaf_days?, ca_days?);
    if mode == PkiMode::Pki && leaf_days >= ca_days {
        let message = format!("an authority of {ca_days} days cannot sign certificates of {leaf_days} days");
        reader.refuse(&at, Problem::new(message));
        return None;
    }
    Some(Pki { mode, ca_days, leaf_days })
}
