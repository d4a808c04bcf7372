//! The fields of `gateway:`, how they have to fit each other, and what the chosen provider can do with them.

mod ai;
mod fields;
mod listeners;
mod planes;
mod routes;
mod services;
mod values;

use self::values as rules;
use super::reader::{Reader, Value};
use crate::diagnostic::Problem;
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{Ai, Gateway, Provider, ProviderName, UpstreamTls};
use crate::names;
use fields::list;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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
    let Some(given) = reader.optional(&mut fields, "provider") else {
        let problem = Problem::new(format!("`{}` has no `provider`", value.name));
        reader.refuse(&value.range, problem.hint("provider: {name: envoy-gateway}, or {name: kong-hybrid}"));
        return None;
    };
    // What the rest may say depends on the provider.
    let provider = planes::provider(reader, &given)?;
    let namespace = match reader.optional(&mut fields, "namespace") {
        Some(value) => reader.parse(&value, names::dns_label),
        None => Some(String::from(match provider.name {
            ProviderName::KongHybrid => "kong",
            ProviderName::EnvoyGateway => "envoy-gateway-system",
        })),
    };
    let mut context = Context { provider, listeners: None, services: None, consumers: None };
    let planes = reader.required(&mut fields, "planes").and_then(|value| planes::planes(reader, &context, &value));
    let pki = reader.optional(&mut fields, "pki");
    let pki = planes::pki(reader, &context, pki.as_ref());
    let listeners =
        reader.required(&mut fields, "listeners").and_then(|value| listeners::listeners(reader, &context, &value));
    context.listeners = listeners.as_ref().map(|all| all.iter().map(|one| one.name.clone()).collect());
    let services = list(reader, &mut fields, "services", services::service);
    context.services = services.as_ref().map(|all| all.iter().map(|one| (one.name.clone(), one.tls.clone())).collect());
    let consumers = list(reader, &mut fields, "consumers", services::consumer);
    context.consumers = consumers.as_ref().map(|all| all.iter().map(|one| one.name.clone()).collect());
    let routes = list(reader, &mut fields, "routes", |reader, item, seen| routes::route(reader, &context, item, seen));
    let ai = match reader.optional(&mut fields, "ai") {
        Some(value) => ai::ai(reader, &context, &value),
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
