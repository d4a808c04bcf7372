//! Fields of kinds that `gateway:` has many of: lists of named things, words, numbers, places in Secrets.

use super::{rules, supported};
use crate::diagnostic::Problem;
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{Provider, SecretKey};
use crate::names::{self, one_of};
use crate::spec::reader::{Fields, Reader, Value};
use crate::spec::{cluster, values};
use std::collections::BTreeSet;

/// A field's value, if it is there and the provider can do it.
pub(super) fn optional_of<'n>(
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
pub(super) fn list<T>(
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

pub(super) fn items<T>(
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
pub(super) fn some<T>(reader: &mut Reader, value: &Value, list: Option<Vec<T>>) -> Option<Vec<T>> {
    let list = list?;
    if list.is_empty() {
        reader.refuse(&value.range, Problem::new(format!("`{}` is empty", value.name)));
    }
    (!list.is_empty()).then_some(list)
}

pub(super) fn name(
    reader: &mut Reader,
    fields: &mut Fields,
    what: &str,
    seen: &mut BTreeSet<String>,
) -> Option<String> {
    cluster::unique_name(reader, fields, what, seen, names::dns_label)
}

pub(super) fn optional_texts(
    reader: &mut Reader,
    fields: &mut Fields,
    field: &'static str,
    rule: fn(&str) -> Result<String, Problem>,
) -> Option<Vec<String>> {
    match reader.optional(fields, field) {
        Some(value) => cluster::texts(reader, &value, rule),
        None => Some(Vec::new()),
    }
}

/// A field that is one of a few words.
pub(super) fn word<T: Copy>(reader: &mut Reader, value: &Value, what: &'static str, words: &[(&str, T)]) -> Option<T> {
    reader.parse(value, |text| values::word(text, what, words))
}

pub(super) fn truth(reader: &mut Reader, fields: &mut Fields, field: &'static str, default: bool) -> Option<bool> {
    match reader.optional(fields, field) {
        Some(value) => word(reader, &value, "true or false", &[("true", true), ("false", false)]),
        None => Some(default),
    }
}

pub(super) fn number(
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

pub(super) fn port(reader: &mut Reader, fields: &mut Fields) -> Option<u16> {
    let value = reader.required(fields, "port")?;
    u16::try_from(reader.number(&value, 1..=65_535)?).ok()
}

pub(super) fn secret_key(reader: &mut Reader, value: &Value) -> Option<SecretKey> {
    let mut fields = reader.fields(value)?;
    let secret = reader.required(&mut fields, "secret").and_then(|value| reader.parse(&value, names::dns_subdomain));
    let key = reader.required(&mut fields, "key").and_then(|value| reader.parse(&value, rules::secret_key));
    reader.finish(fields);
    Some(SecretKey { secret: secret?, key: key? })
}

pub(super) fn optional_secret_key(reader: &mut Reader, value: Option<Value>) -> Option<Option<SecretKey>> {
    match value {
        Some(value) => secret_key(reader, &value).map(Some),
        None => Some(None),
    }
}

/// Refuses a name that nothing has.
pub(super) fn known<'k>(
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
