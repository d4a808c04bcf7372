//! The fields of `gateway:`, how they have to fit each other, and what the chosen provider can do with them.

use super::reader::{Fields, Reader, Value};
use super::{gateway_values as rules, values};
use crate::diagnostic::Problem;
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{
    Ai, AiProvider, AiRoute, AiTarget, Backend, Consumer, ControlPlane, DataPlane, Database, Edition, Expose, ExposeBy,
    ExternalDatabase, Gateway, HeaderChanges, KeyAuth, KeyPlace, KubernetesService, Listener, ListenerTls, PathMatch,
    PathMatchBy, Pki, PkiMode, Protocol, Provider, ProviderName, Route, SecretKey, Service, UpstreamTls,
};
use crate::names::{self, Labels, one_of};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most replicas of a plane, services of a gateway, and weight of a backend: the smallest that a provider has.
const MAX_REPLICAS: u32 = 100;
const MAX_WEIGHT: u32 = 65_535;
const MAX_TIMEOUT: u32 = 86_400;
/// Lives of certificates, in days. Above 397 days clients may refuse a leaf (CA/Browser Forum's limit of today).
const LEAF_DAYS: (u32, std::ops::RangeInclusive<u32>) = (90, 1..=397);
const CA_DAYS: (u32, std::ops::RangeInclusive<u32>) = (3650, 30..=7300);
/// What Kong's own `kong hybrid gen_cert` gives its shared certificate.
const SHARED_DAYS: (u32, std::ops::RangeInclusive<u32>) = (1095, 1..=3650);

/// The names that other fields may refer to, and the provider that has to be able to do it all.
struct Context {
    provider: Provider,
    listeners: Option<BTreeSet<String>>,
    services: Option<BTreeMap<String, Option<UpstreamTls>>>,
    consumers: Option<BTreeSet<String>>,
}

/// Reads the mapping.
pub(super) fn read(reader: &mut Reader, value: &Value) -> Option<Gateway> {
    let mut fields = reader.fields(value)?;
    let provider = reader.required(&mut fields, "provider").and_then(|value| provider(reader, &value));
    let Some(provider) = provider else {
        // What the rest may say depends on the provider.
        return None;
    };
    let namespace = match reader.optional(&mut fields, "namespace") {
        Some(value) => reader.parse(&value, names::dns_label),
        None => Some(String::from(match provider.name {
            ProviderName::KongHybrid => "kong",
            ProviderName::EnvoyGateway => "envoy-gateway-system",
        })),
    };
    let mut context = Context { provider, listeners: None, services: None, consumers: None };
    let planes = reader.required(&mut fields, "planes").and_then(|value| planes(reader, &context, &value));
    let pki = match reader.optional(&mut fields, "pki") {
        Some(value) => pki(reader, &context, &value),
        None => Some(Pki { mode: PkiMode::Pki, ca_days: CA_DAYS.0, leaf_days: LEAF_DAYS.0 }),
    };
    let listeners = reader.required(&mut fields, "listeners").and_then(|value| listeners(reader, &context, &value));
    context.listeners = listeners.as_ref().map(|all| all.iter().map(|one| one.name.clone()).collect());
    let services = list(reader, &mut fields, "services", service);
    context.services = services.as_ref().map(|all| all.iter().map(|one| (one.name.clone(), one.tls.clone())).collect());
    let consumers = list(reader, &mut fields, "consumers", consumer);
    context.consumers = consumers.as_ref().map(|all| all.iter().map(|one| one.name.clone()).collect());
    let routes = list(reader, &mut fields, "routes", |reader, item, seen| route(reader, &context, item, seen));
    let ai = match reader.optional(&mut fields, "ai") {
        Some(value) => ai(reader, &context, &value),
        None => Some(Ai::default()),
    };
    reader.finish(fields);
    let (control_plane, data_planes) = planes?;
    Some(Gateway {
        provider: context.provider,
        namespace: namespace?,
        control_plane,
        data_planes,
        pki: pki?,
        listeners: listeners?,
        services: services?,
        routes: routes?,
        consumers: consumers?,
        ai: ai?,
    })
}

/// Refuses a field that the provider can do nothing with.
fn supported(reader: &mut Reader, provider: &Provider, feature: Feature, name: &str, range: &Range<usize>) -> bool {
    let Some(why) = provider.refuses(feature) else { return true };
    let problem = Problem::new(format!("the provider {} cannot do `{name}`", provider.name.as_str()));
    reader.refuse(range, problem.hint(why));
    false
}

/// A field's value, if it is there and the provider can do it.
fn optional_of<'n>(
    reader: &mut Reader,
    fields: &mut Fields<'n>,
    field: &'static str,
    provider: &Provider,
    feature: Feature,
) -> Option<Value<'n>> {
    let value = reader.optional(fields, field)?;
    supported(reader, provider, feature, &value.name, &value.range).then_some(value)
}

/// A list of things with names, which may be left out.
fn list<T>(
    reader: &mut Reader,
    fields: &mut Fields,
    field: &'static str,
    read: impl Fn(&mut Reader, &Value, &mut BTreeSet<String>) -> Option<T>,
) -> Option<Vec<T>> {
    match reader.optional(fields, field) {
        Some(value) => items(reader, &value, read),
        None => Some(Vec::new()),
    }
}

fn items<T>(
    reader: &mut Reader,
    value: &Value,
    read: impl Fn(&mut Reader, &Value, &mut BTreeSet<String>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut seen = BTreeSet::new();
    let items = reader.items(value)?;
    // Every item is read, also after one that is wrong.
    let read: Vec<Option<T>> = items.iter().map(|item| read(reader, item, &mut seen)).collect();
    read.into_iter().collect()
}

/// A list that has something in it.
fn some<T>(reader: &mut Reader, value: &Value, list: Option<Vec<T>>) -> Option<Vec<T>> {
    let list = list?;
    if list.is_empty() {
        reader.refuse(&value.range, Problem::new(format!("`{}` is empty", value.name)));
    }
    (!list.is_empty()).then_some(list)
}

fn name(reader: &mut Reader, fields: &mut Fields, what: &str, seen: &mut BTreeSet<String>) -> Option<String> {
    super::cluster::unique_name(reader, fields, what, seen, names::dns_label)
}

/// Texts, each read by a rule; no two alike.
fn texts(reader: &mut Reader, value: &Value, rule: fn(&str) -> Result<String, Problem>) -> Option<Vec<String>> {
    items(reader, value, |reader, item, seen| {
        let text = reader.parse(item, rule)?;
        if !seen.insert(text.clone()) {
            reader.refuse(&item.range, Problem::new(format!("`{text}` is given twice")));
            return None;
        }
        Some(text)
    })
}

fn optional_texts(
    reader: &mut Reader,
    fields: &mut Fields,
    field: &'static str,
    rule: fn(&str) -> Result<String, Problem>,
) -> Option<Vec<String>> {
    match reader.optional(fields, field) {
        Some(value) => texts(reader, &value, rule),
        None => Some(Vec::new()),
    }
}

/// A field that is one of a few words.
fn word<T: Copy>(reader: &mut Reader, value: &Value, what: &'static str, words: &[(&str, T)]) -> Option<T> {
    reader.parse(value, |text| values::word(text, what, words))
}

fn truth(reader: &mut Reader, fields: &mut Fields, field: &'static str, default: bool) -> Option<bool> {
    match reader.optional(fields, field) {
        Some(value) => word(reader, &value, "true or false", &[("true", true), ("false", false)]),
        None => Some(default),
    }
}

fn number(
    reader: &mut Reader,
    fields: &mut Fields,
    field: &'static str,
    default: u32,
    allowed: std::ops::RangeInclusive<u32>,
) -> Option<u32> {
    match reader.optional(fields, field) {
        Some(value) => reader.number(&value, allowed),
        None => Some(default),
    }
}

fn port(reader: &mut Reader, fields: &mut Fields) -> Option<u16> {
    let value = reader.required(fields, "port")?;
    u16::try_from(reader.number(&value, 1..=65_535)?).ok()
}

fn secret_key(reader: &mut Reader, value: &Value) -> Option<SecretKey> {
    let mut fields = reader.fields(value)?;
    let secret = reader.required(&mut fields, "secret").and_then(|value| reader.parse(&value, names::dns_subdomain));
    let key = reader.required(&mut fields, "key").and_then(|value| reader.parse(&value, rules::secret_key));
    reader.finish(fields);
    Some(SecretKey { secret: secret?, key: key? })
}

fn optional_secret_key(reader: &mut Reader, value: Option<Value>) -> Option<Option<SecretKey>> {
    match value {
        Some(value) => secret_key(reader, &value).map(Some),
        None => Some(None),
    }
}

fn provider(reader: &mut Reader, value: &Value) -> Option<Provider> {
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

fn planes(reader: &mut Reader, context: &Context, value: &Value) -> Option<(ControlPlane, Vec<DataPlane>)> {
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
    if elsewhere && control_plane.expose.addresses.is_empty() {
        let message = "data planes of other clusters cannot reach this control plane";
        let hint = "give controlPlane an `expose` with `addresses`, and the type NodePort or LoadBalancer";
        reader.refuse(&value.range, Problem::new(message).hint(hint));
        return None;
    }
    Some((control_plane, data_planes))
}

fn node_selector(reader: &mut Reader, fields: &mut Fields) -> Option<Labels> {
    match reader.optional(fields, "nodeSelector") {
        Some(value) => super::cluster::labels(reader, &value),
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

fn pki(reader: &mut Reader, context: &Context, value: &Value) -> Option<Pki> {
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

fn listeners(reader: &mut Reader, context: &Context, value: &Value) -> Option<Vec<Listener>> {
    let (mut ports, mut protocols) = (BTreeMap::new(), BTreeSet::new());
    let mut names = BTreeSet::new();
    let all = reader.items(value)?;
    let read: Vec<Option<Listener>> = all
        .iter()
        .map(|item| {
            let listener = listener(reader, item, &mut names)?;
            if let Some(other) = ports.insert(listener.port, (listener.name.clone(), listener.protocol))
                && (other.1 != listener.protocol || context.provider.name == ProviderName::KongHybrid)
            {
                let message =
                    format!("the listeners {} and {} both have port {}", other.0, listener.name, listener.port);
                reader.refuse(&item.range, Problem::new(message));
                return None;
            }
            if !protocols.insert(listener.protocol == Protocol::Https) {
                let feature = Feature::SeveralListenersOfAProtocol;
                let what = format!("{}: a second listener of its protocol", listener.name);
                supported(reader, &context.provider, feature, &what, &item.range).then_some(())?;
            }
            Some(listener)
        })
        .collect();
    let read = read.into_iter().collect();
    some(reader, value, read)
}

fn listener(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<String>) -> Option<Listener> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "listener", seen);
    let protocol = reader.required(&mut fields, "protocol").and_then(|value| {
        word(reader, &value, "a listener's protocol", &[("HTTP", Protocol::Http), ("HTTPS", Protocol::Https)])
    });
    let port = port(reader, &mut fields);
    let hostname = match reader.optional(&mut fields, "hostname") {
        Some(value) => reader.parse(&value, rules::host_pattern).map(Some),
        None => Some(None),
    };
    let tls = reader.optional(&mut fields, "tls");
    let range = fields.range();
    reader.finish(fields);
    let tls = match (protocol?, tls) {
        (Protocol::Http, Some(tls)) => {
            let problem = Problem::new(format!("`{}` has no meaning for the protocol HTTP", tls.name));
            reader.refuse(&tls.range, problem);
            return None;
        }
        (Protocol::Https, None) => {
            let problem = Problem::new("an HTTPS listener needs `tls`");
            let hint = "tls: {generate: [www.example.org]} makes a certificate, tls: {secret: NAME} takes yours";
            reader.refuse(&range, problem.hint(hint));
            return None;
        }
        (Protocol::Http, None) => None,
        (Protocol::Https, Some(value)) => Some(listener_tls(reader, &value, hostname.as_ref()?.as_deref())?),
    };
    Some(Listener { name: name?, protocol: protocol?, port: port?, hostname: hostname?, tls })
}

fn listener_tls(reader: &mut Reader, value: &Value, hostname: Option<&str>) -> Option<ListenerTls> {
    let mut fields = reader.fields(value)?;
    let secret = match reader.optional(&mut fields, "secret") {
        Some(value) => reader.parse(&value, names::dns_subdomain).map(Some),
        None => Some(None),
    };
    let generate = reader.optional(&mut fields, "generate");
    reader.finish(fields);
    let secret = secret?;
    let generate = match (&secret, generate) {
        (None, Some(value)) => {
            let names = texts(reader, &value, rules::certificate_name);
            let names = some(reader, &value, names)?;
            if let Some(hostname) = hostname.filter(|hostname| !rules::covers(&names, hostname)) {
                let problem = Problem::new(format!("the certificate would not be good for the listener's {hostname}"));
                reader.refuse(&value.range, problem.hint(format!("add {hostname} to its names")));
                return None;
            }
            names
        }
        (Some(_), None) => Vec::new(),
        _ => {
            let problem = Problem::new(format!("`{}` has to have one of `secret` and `generate`", value.name));
            reader.refuse(&value.range, problem);
            return None;
        }
    };
    Some(ListenerTls { secret, generate })
}

fn service(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<String>) -> Option<Service> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "service", seen);
    let kubernetes = reader.optional(&mut fields, "kubernetes");
    let host = reader.optional(&mut fields, "host");
    let port = port(reader, &mut fields);
    let tls = match reader.optional(&mut fields, "tls") {
        Some(value) => upstream_tls(reader, &value).map(Some),
        None => Some(None),
    };
    let range = fields.range();
    reader.finish(fields);
    let (kubernetes, host) = match (kubernetes, host) {
        (Some(value), None) => (Some(kubernetes_service(reader, &value)?), None),
        (None, Some(value)) => (None, Some(reader.parse(&value, rules::host)?)),
        _ => {
            let problem = Problem::new("a service has to have one of `kubernetes` and `host`");
            reader.refuse(&range, problem.hint("kubernetes: {namespace: shop, name: web}, or host: api.example.org"));
            return None;
        }
    };
    Some(Service { name: name?, kubernetes, host, port: port?, tls: tls? })
}

fn kubernetes_service(reader: &mut Reader, value: &Value) -> Option<KubernetesService> {
    let mut fields = reader.fields(value)?;
    let namespace = match reader.optional(&mut fields, "namespace") {
        Some(value) => reader.parse(&value, names::dns_label),
        None => Some(String::from("default")),
    };
    let name = reader.required(&mut fields, "name").and_then(|value| reader.parse(&value, names::dns_label));
    reader.finish(fields);
    Some(KubernetesService { namespace: namespace?, name: name? })
}

fn upstream_tls(reader: &mut Reader, value: &Value) -> Option<UpstreamTls> {
    let mut fields = reader.fields(value)?;
    let verify = truth(reader, &mut fields, "verify", true);
    let sni = match reader.optional(&mut fields, "sni") {
        Some(value) => reader.parse(&value, names::dns_subdomain).map(Some),
        None => Some(None),
    };
    let ca = match reader.optional(&mut fields, "ca") {
        Some(value) => reader.parse(&value, names::dns_subdomain).map(Some),
        None => Some(None),
    };
    reader.finish(fields);
    Some(UpstreamTls { verify: verify?, sni: sni?, ca: ca? })
}

fn consumer(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<String>) -> Option<Consumer> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "consumer", seen);
    let key = reader.required(&mut fields, "key").and_then(|value| secret_key(reader, &value));
    reader.finish(fields);
    Some(Consumer { name: name?, key: key? })
}

/// Refuses a name that nothing has.
fn known<'k>(
    reader: &mut Reader,
    value: &Value,
    what: &str,
    known: Option<impl Iterator<Item = &'k String>>,
) -> Option<String> {
    let name = reader.text(value)?.to_owned();
    // Where the others could not be read, nobody knows.
    let Some(known) = known else { return Some(name) };
    let known: Vec<&str> = known.map(String::as_str).collect();
    if !known.contains(&name.as_str()) {
        let problem = Problem::new(format!("there is no {what} `{name}`"));
        let hint = if known.is_empty() { format!("no {what} is given") } else { one_of(&name, &known) };
        reader.refuse(&value.range, problem.hint(hint));
        return None;
    }
    Some(name)
}

fn route(reader: &mut Reader, context: &Context, value: &Value, seen: &mut BTreeSet<String>) -> Option<Route> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "route", seen);
    let listeners = match reader.optional(&mut fields, "listeners") {
        Some(value) => items(reader, &value, |reader, item, _| {
            known(reader, item, "listener", context.listeners.as_ref().map(|all| all.iter()))
        }),
        None => Some(Vec::new()),
    };
    let hosts = optional_texts(reader, &mut fields, "hosts", rules::host_pattern);
    let path = match reader.optional(&mut fields, "path") {
        Some(value) => path(reader, &value),
        None => Some(PathMatch { by: PathMatchBy::Prefix, value: String::from("/") }),
    };
    let methods = optional_texts(reader, &mut fields, "methods", rules::method);
    let headers = match reader.optional(&mut fields, "headers") {
        Some(value) => headers(reader, &value),
        None => Some(BTreeMap::new()),
    };
    let strip = reader.optional(&mut fields, "stripPrefix");
    let strip_prefix = match &strip {
        Some(value) => word(reader, value, "true or false", &[("true", true), ("false", false)]),
        None => Some(false),
    };
    let preserve_host = truth(reader, &mut fields, "preserveHost", true);
    let mut changes = |reader: &mut Reader, field| match reader.optional(&mut fields, field) {
        Some(value) => header_changes(reader, &value),
        None => Some(HeaderChanges::default()),
    };
    let (request, response) = (changes(reader, "requestHeaders"), changes(reader, "responseHeaders"));
    let timeout = match reader.optional(&mut fields, "timeoutSeconds") {
        Some(value) => reader.number(&value, 1..=MAX_TIMEOUT).map(Some),
        None => Some(None),
    };
    let auth = match reader.optional(&mut fields, "auth") {
        Some(value) => key_auth(reader, context, &value).map(Some),
        None => Some(None),
    };
    let backends = reader.required(&mut fields, "backends").and_then(|value| backends(reader, context, &value));
    reader.finish(fields);
    let (path, strip_prefix) = (path?, strip_prefix?);
    if let Some(value) = strip.filter(|_| strip_prefix && path.by != PathMatchBy::Prefix) {
        let problem = Problem::new(format!("`{}` needs a path of the type prefix", value.name));
        reader.refuse(&value.range, problem);
        return None;
    }
    let (preserve_host, backends) = (preserve_host?, backends?);
    let checked = |backend: &Backend| {
        let service = context.services.as_ref().and_then(|all| all.get(&backend.service));
        service.is_some_and(|tls| tls.as_ref().is_some_and(|tls| tls.verify))
    };
    if preserve_host && backends.iter().any(checked) {
        let what = format!("{}: checked TLS with preserveHost", value.name);
        supported(reader, &context.provider, Feature::VerifiedTlsByClientsName, &what, &value.range).then_some(())?;
    }
    if !preserve_host && backends.len() > 1 {
        let problem = Problem::new("`preserveHost: false` needs one backend: several have several names");
        let at = value.node.shown_at(&["preserveHost"]).unwrap_or(value.range.clone());
        reader.refuse(&at, problem.hint("make a route for each backend, or leave preserveHost out"));
        return None;
    }
    Some(Route {
        name: name?,
        listeners: listeners?,
        hosts: hosts?,
        path,
        methods: methods?,
        headers: headers?,
        strip_prefix,
        preserve_host,
        request_headers: request?,
        response_headers: response?,
        backends,
        timeout_seconds: timeout?,
        auth: auth?,
    })
}

fn path(reader: &mut Reader, value: &Value) -> Option<PathMatch> {
    let mut fields = reader.fields(value)?;
    let by = match reader.optional(&mut fields, "type") {
        Some(value) => {
            let words = [("prefix", PathMatchBy::Prefix), ("exact", PathMatchBy::Exact), ("regex", PathMatchBy::Regex)];
            word(reader, &value, "a way to compare paths", &words)
        }
        None => Some(PathMatchBy::Prefix),
    };
    let value = reader.required(&mut fields, "value");
    reader.finish(fields);
    let by = by?;
    let value = value.and_then(|value| {
        reader.parse(&value, |text| match by {
            PathMatchBy::Regex => rules::path_regex(text),
            PathMatchBy::Prefix | PathMatchBy::Exact => rules::path(text),
        })
    });
    Some(PathMatch { by, value: value? })
}

fn headers(reader: &mut Reader, value: &Value) -> Option<BTreeMap<String, String>> {
    let entries = reader.entries(value)?;
    let mut seen = BTreeSet::new();
    let read: Vec<Option<(String, String)>> = entries
        .iter()
        .map(|(entry, value)| {
            let name = rules::header_name(&entry.key).map_err(|problem| reader.refuse(&entry.range, problem)).ok()?;
            if !seen.insert(name.to_lowercase()) {
                reader.refuse(&entry.range, Problem::new(format!("the header `{name}` is given twice")));
                return None;
            }
            Some((name, reader.parse(value, rules::header_value)?))
        })
        .collect();
    read.into_iter().collect()
}

fn header_changes(reader: &mut Reader, value: &Value) -> Option<HeaderChanges> {
    let mut fields = reader.fields(value)?;
    let mut map = |reader: &mut Reader, field| match reader.optional(&mut fields, field) {
        Some(value) => headers(reader, &value),
        None => Some(BTreeMap::new()),
    };
    let (set, add) = (map(reader, "set"), map(reader, "add"));
    let remove = optional_texts(reader, &mut fields, "remove", rules::header_name);
    reader.finish(fields);
    let changes = HeaderChanges { set: set?, add: add?, remove: remove? };
    let mut seen = BTreeSet::new();
    for name in changes.set.keys().chain(changes.add.keys()).chain(&changes.remove) {
        if !seen.insert(name.to_lowercase()) {
            let problem = Problem::new(format!("the header `{name}` is changed in two ways"));
            reader.refuse(&value.range, problem);
            return None;
        }
    }
    Some(changes)
}

fn backends(reader: &mut Reader, context: &Context, value: &Value) -> Option<Vec<Backend>> {
    let mut seen = BTreeSet::new();
    let backends = items(reader, value, |reader, item, _| backend(reader, context, item));
    let backends = some(reader, value, backends)?;
    let mut tls = Vec::new();
    for backend in &backends {
        if !seen.insert(backend.service.clone()) {
            let problem = Problem::new(format!("the service `{}` is a backend twice", backend.service));
            reader.refuse(&value.range, problem.hint("add the weights up"));
            return None;
        }
        tls.extend(context.services.as_ref().and_then(|all| all.get(&backend.service)));
    }
    if backends.iter().all(|backend| backend.weight == 0) {
        reader.refuse(&value.range, Problem::new(format!("`{}`: every weight is 0", value.name)));
        return None;
    }
    if tls.windows(2).any(|pair| pair[0] != pair[1]) {
        let what = format!("{}: backends with different TLS", value.name);
        supported(reader, &context.provider, Feature::MixedBackends, &what, &value.range).then_some(())?;
    }
    Some(backends)
}

fn backend(reader: &mut Reader, context: &Context, value: &Value) -> Option<Backend> {
    let mut fields = reader.fields(value)?;
    let service = reader
        .required(&mut fields, "service")
        .and_then(|value| known(reader, &value, "service", context.services.as_ref().map(|all| all.keys())));
    let weight = number(reader, &mut fields, "weight", 1, 0..=MAX_WEIGHT);
    reader.finish(fields);
    Some(Backend { service: service?, weight: weight? })
}

fn key_auth(reader: &mut Reader, context: &Context, value: &Value) -> Option<KeyAuth> {
    let mut fields = reader.fields(value)?;
    let place = match reader.optional(&mut fields, "in") {
        Some(value) => {
            word(reader, &value, "where a key can be", &[("header", KeyPlace::Header), ("query", KeyPlace::Query)])
        }
        None => Some(KeyPlace::Header),
    };
    let name = match reader.optional(&mut fields, "name") {
        Some(value) => reader.parse(&value, rules::header_name),
        None => Some(String::from("apikey")),
    };
    let consumers = reader.required(&mut fields, "consumers").and_then(|value| {
        let names = items(reader, &value, |reader, item, _| {
            known(reader, item, "consumer", context.consumers.as_ref().map(|all| all.iter()))
        });
        some(reader, &value, names)
    });
    reader.finish(fields);
    Some(KeyAuth { place: place?, name: name?, consumers: consumers? })
}

fn ai(reader: &mut Reader, context: &Context, value: &Value) -> Option<Ai> {
    supported(reader, &context.provider, Feature::Ai, &value.name, &value.range).then_some(())?;
    let mut fields = reader.fields(value)?;
    let providers = list(reader, &mut fields, "providers", ai_provider);
    let names: Option<BTreeSet<String>> =
        providers.as_ref().map(|all| all.iter().map(|one| one.name.clone()).collect());
    let routes =
        list(reader, &mut fields, "routes", |reader, item, seen| ai_route(reader, context, names.as_ref(), item, seen));
    reader.finish(fields);
    Some(Ai { providers: providers?, routes: routes? })
}

fn ai_provider(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<String>) -> Option<AiProvider> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "AI provider", seen);
    let kind = reader
        .required(&mut fields, "type")
        .and_then(|value| word(reader, &value, "an API of language models", &rules::AI_PROVIDERS));
    let url = match reader.optional(&mut fields, "url") {
        Some(value) => reader.parse(&value, rules::http_url).map(Some),
        None => Some(None),
    };
    let key = reader.optional(&mut fields, "apiKey");
    reader.finish(fields);
    let api_key = optional_secret_key(reader, key);
    Some(AiProvider { name: name?, kind: kind?, url: url?, api_key: api_key? })
}

fn ai_route(
    reader: &mut Reader,
    context: &Context,
    providers: Option<&BTreeSet<String>>,
    value: &Value,
    seen: &mut BTreeSet<String>,
) -> Option<AiRoute> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "AI route", seen);
    let hosts = optional_texts(reader, &mut fields, "hosts", rules::host_pattern);
    let path = reader.required(&mut fields, "path").and_then(|value| reader.parse(&value, rules::path));
    let targets = reader.required(&mut fields, "targets").and_then(|value| {
        let targets = items(reader, &value, |reader, item, _| {
            let mut fields = reader.fields(item)?;
            let provider = reader.required(&mut fields, "provider");
            let provider =
                provider.and_then(|value| known(reader, &value, "AI provider", providers.map(|all| all.iter())));
            let model = reader.required(&mut fields, "model").and_then(|value| reader.text(&value).map(str::to_owned));
            let weight = number(reader, &mut fields, "weight", 1, 1..=MAX_WEIGHT);
            reader.finish(fields);
            Some(AiTarget { provider: provider?, model: model?, weight: weight? })
        });
        let targets = some(reader, &value, targets)?;
        let one =
            targets.len() == 1 || supported(reader, &context.provider, Feature::WeightedAi, &value.name, &value.range);
        one.then_some(targets)
    });
    let auth = match reader.optional(&mut fields, "auth") {
        Some(value) => key_auth(reader, context, &value).map(Some),
        None => Some(None),
    };
    reader.finish(fields);
    Some(AiRoute { name: name?, hosts: hosts?, path: path?, targets: targets?, auth: auth? })
}
