//! Where clients come in.

use super::fields::{name, port, some, word};
use super::{Context, rules, supported};
use crate::diagnostic::Problem;
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{Listener, ListenerTls, Protocol, ProviderName};
use crate::names;
use crate::spec::cluster;
use crate::spec::reader::{Reader, Value};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn listeners(reader: &mut Reader, context: &Context, value: &Value) -> Option<Vec<Listener>> {
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
            let names = cluster::texts(reader, &value, rules::certificate_name);
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
