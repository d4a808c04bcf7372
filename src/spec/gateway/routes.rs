//! Which request goes where, and how it is changed on its way.

use super::fields::{items, known, name, number, optional_texts, some, truth, word};
use super::{Context, rules, supported};
use crate::diagnostic::Problem;
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{Backend, HeaderChanges, KeyAuth, KeyPlace, PathMatch, PathMatchBy, Route};
use crate::spec::reader::{Reader, Value};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const MAX_WEIGHT: u32 = 65_535;

const MAX_TIMEOUT: u32 = 86_400;

pub(super) fn route(
    reader: &mut Reader,
    context: &Context,
    value: &Value,
    seen: &mut BTreeSet<String>,
) -> Option<Route> {
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

pub(super) fn key_auth(reader: &mut Reader, context: &Context, value: &Value) -> Option<KeyAuth> {
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
