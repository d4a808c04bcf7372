//! What is behind the gateway, and who may use it.

use super::fields::{name, port, secret_key, truth};
use super::rules;
use crate::diagnostic::Problem;
use crate::gateway::model::{Consumer, KubernetesService, Service, UpstreamTls};
use crate::names;
use crate::spec::reader::{Reader, Value};
use std::collections::BTreeSet;

pub(super) fn service(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<String>) -> Option<Service> {
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

pub(super) fn consumer(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<String>) -> Option<Consumer> {
    let mut fields = reader.fields(value)?;
    let name = name(reader, &mut fields, "consumer", seen);
    let key = reader.required(&mut fields, "key").and_then(|value| secret_key(reader, &value));
    reader.finish(fields);
    Some(Consumer { name: name?, key: key? })
}
