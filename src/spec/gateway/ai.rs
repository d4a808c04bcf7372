//! Language models behind one API.

use super::fields::{items, known, list, name, number, optional_secret_key, optional_texts, some, word};
use super::routes::{MAX_WEIGHT, key_auth};
use super::{Context, rules, supported};
use crate::gateway::capabilities::Feature;
use crate::gateway::model::{Ai, AiProvider, AiRoute, AiTarget};
use crate::spec::reader::{Reader, Value};
use std::collections::BTreeSet;

pub(super) fn ai(reader: &mut Reader, context: &Context, value: &Value) -> Option<Ai> {
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
