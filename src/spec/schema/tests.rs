use super::*;
use crate::diagnostic::Diagnostics;
use pretty_assertions::assert_eq;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Specs in which every field there is stands somewhere.
const CLUSTERS: [&str; 2] = [
    include_str!("../../../hardware-examples/accepted/external-dhcp-and-image/cluster.yaml"),
    include_str!("../../../hardware-examples/accepted/worker-groups/cluster.yaml"),
];
const GATEWAYS: [&str; 4] = [
    include_str!("../../../hardware-examples/gateway/accepted/kong-enterprise/gateway.yaml"),
    include_str!("../../../hardware-examples/gateway/accepted/kong-lab/gateway.yaml"),
    include_str!("../../../hardware-examples/gateway/accepted/kong-shared/gateway.yaml"),
    include_str!("../../../hardware-examples/gateway/accepted/envoy-outside/gateway.yaml"),
];
/// Fields that one of the providers needs: that is more than the schema tells.
const OF_KONG: [&str; 2] = ["planes/controlPlane", "controlPlane/database"];
/// A field that nothing has, and that is near no other.
const NONSENSE: &str = "qqqqqqqqqqqqqqqqqqqqqqqq";

fn tree(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// What the reader says to a document.
fn found(kind: Kind, document: &Value) -> Diagnostics {
    let bytes = serde_json::to_vec(document).unwrap();
    match kind {
        Kind::Cluster => crate::spec::read("f", bytes).diagnostics,
        Kind::GatewayStack => crate::spec::read_gateway("f", bytes).err().unwrap_or_default(),
    }
}

/// The examples of a kind. A cluster's gateway is each of the gateways.
fn documents(kind: Kind) -> Vec<Value> {
    let gateways: Vec<Value> = GATEWAYS.iter().map(|text| tree(text)).collect();
    if kind == Kind::GatewayStack {
        return gateways;
    }
    let mut clusters: Vec<Value> = CLUSTERS.iter().map(|text| tree(text)).collect();
    for gateway in gateways {
        let mut cluster = clusters[0].clone();
        cluster["spec"]["gateway"] = gateway["spec"].clone();
        clusters.push(cluster);
    }
    clusters
}

/// The schemas that a value may have, with references followed.
fn alternatives<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return alternatives(root, root.pointer(reference.trim_start_matches('#')).unwrap());
    }
    let all = ["anyOf", "allOf"].iter().filter_map(|word| schema[word].as_array()).flatten();
    std::iter::once(schema).chain(all.flat_map(|one| alternatives(root, one))).collect()
}

/// The schema of a mapping with fields of ours; a mapping whose keys the user chooses has none.
fn fields_of<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Map<String, Value>> {
    alternatives(root, schema).into_iter().find_map(|schema| schema["properties"].as_object())
}

/// Every mapping of a document with fields of ours: where it stands, and its schema's fields.
fn mappings<'s>(
    root: &'s Value,
    schema: &'s Value,
    value: &Value,
    at: String,
) -> Vec<(String, &'s Map<String, Value>)> {
    let mut found = Vec::new();
    if let (Value::Object(entries), Some(fields)) = (value, fields_of(root, schema)) {
        for (key, value) in entries {
            let schema = fields.get(key).unwrap_or_else(|| panic!("{at}/{key} is not in the schema"));
            found.extend(mappings(root, schema, value, format!("{at}/{key}")));
        }
        found.push((at, fields));
    } else if let Value::Array(items) = value {
        let schema = alternatives(root, schema).into_iter().find(|schema| schema["items"].is_object()).unwrap();
        for (index, item) in items.iter().enumerate() {
            found.extend(mappings(root, &schema["items"], item, format!("{at}/{index}")));
        }
    }
    found
}

/// A place without the numbers of list items: what stands there is read by the same code in every example.
fn kind_of_place(at: &str) -> String {
    at.split('/').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join("/")
}

/// The fields that the reader knows in the mapping at `at`: it lists them where one is unknown.
fn known_to_the_reader(kind: Kind, document: &Value, at: &str) -> BTreeSet<String> {
    let mut document = document.clone();
    document.pointer_mut(at).unwrap()[NONSENSE] = Value::from(1);
    let found = found(kind, &document);
    let unknown = found.iter().find(|one| one.message.contains(NONSENSE));
    let hint = unknown.and_then(|one| one.hint.as_deref()).unwrap_or_else(|| panic!("{at}: {}", found.render(false)));
    hint.strip_prefix("known here: ").unwrap().split(", ").map(str::to_owned).collect()
}

/// Every object with fields of ours that the schema has.
fn objects(schema: &Value) -> Vec<&Map<String, Value>> {
    let inner = match schema {
        Value::Object(entries) => entries.values().flat_map(objects).collect(),
        Value::Array(items) => items.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    };
    inner.into_iter().chain(schema["properties"].as_object()).collect()
}

#[test]
fn the_schema_has_the_fields_that_the_reader_knows_and_no_others() {
    for kind in [Kind::Cluster, Kind::GatewayStack] {
        let root = schema(kind);
        let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
        for document in documents(kind) {
            assert!(!found(kind, &document).has_errors(), "{}", found(kind, &document).render(false));
            for (at, fields) in mappings(&root, &root, &document, String::new()) {
                if !places.insert(kind_of_place(&at)) {
                    continue;
                }
                let of_schema: BTreeSet<String> = fields.keys().cloned().collect();
                assert_eq!(of_schema, known_to_the_reader(kind, &document, &at), "{kind:?} {at}");
                seen.insert(std::ptr::from_ref(fields));
            }
        }
        // The examples have a mapping for each object of the schema, so nothing of it was left out.
        for object in objects(&root) {
            assert!(seen.contains(&std::ptr::from_ref(object)), "{kind:?}: no example has {:?}", object.keys());
        }
    }
}

#[test]
fn what_has_to_be_there_has_to_be_there_for_both() {
    for (kind, documents) in [
        (Kind::Cluster, CLUSTERS.iter().map(|text| tree(text)).collect()),
        (Kind::GatewayStack, documents(Kind::GatewayStack)),
    ] {
        let root = schema(kind);
        let validator = jsonschema::validator_for(&root).unwrap();
        let mut places = BTreeSet::new();
        for document in documents {
            assert!(validator.is_valid(&document), "{:?}", validator.iter_errors(&document).next());
            for (at, fields) in mappings(&root, &root, &document, String::new()) {
                let mut more = document.clone();
                more.pointer_mut(&at).unwrap()[NONSENSE] = Value::from(1);
                assert!(!validator.is_valid(&more), "{kind:?} {at}");
                for field in fields.keys() {
                    let (mut less, path) = (document.clone(), format!("{at}/{field}"));
                    let removed = less.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(field);
                    if removed.is_none() || !places.insert(kind_of_place(&path)) {
                        continue;
                    }
                    let (found, valid) = (found(kind, &less), validator.is_valid(&less));
                    // What is left may not fit together any more, which the reader alone can tell.
                    assert!(valid || found.has_errors(), "{kind:?}: {path} is required by the schema alone");
                    let messages = [format!("has no `{field}`"), format!("`{field}` is missing")];
                    let missing = found.iter().any(|one| messages.iter().any(|end| one.message.ends_with(end)));
                    let excused = OF_KONG.iter().any(|end| path.ends_with(end));
                    assert!(!missing || !valid || excused, "{kind:?}: {path} is required by the reader alone");
                }
            }
        }
    }
}
