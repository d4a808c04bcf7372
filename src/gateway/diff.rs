//! What would change, field by field.

use super::object::ObjectRef;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// Fields that the API server keeps for itself.
const KEPT_BY_SERVER: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];

/// An object that would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The object.
    pub object: ObjectRef,
    /// `~ spec.replicas: 1 -> 2`, `+ spec.x: 3`, `- spec.y: 4`.
    pub lines: Vec<String>,
}

/// The change from `live` to `planned`; nothing if there is none.
pub fn change(object: ObjectRef, live: Option<&Value>, planned: Option<&Value>) -> Option<Change> {
    let mut lines = Vec::new();
    let hidden = object.kind == "Secret";
    match (live, planned) {
        (None, Some(_)) => lines.push(String::from("+ created")),
        (Some(live), Some(planned)) => fields("", live, planned, hidden, &mut lines),
        (_, None) => {}
    }
    (!lines.is_empty()).then_some(Change { object, lines })
}

fn fields(path: &str, live: &Value, planned: &Value, hidden: bool, lines: &mut Vec<String>) {
    let shown = |value: &Value| match value {
        _ if hidden && path.starts_with("data.") => String::from("***"),
        value => value.to_string(),
    };
    match (live, planned) {
        (Value::Object(live), Value::Object(planned)) => {
            let keys: BTreeSet<&String> = live.keys().chain(planned.keys()).collect();
            for key in keys {
                let is_server = path == "metadata" && KEPT_BY_SERVER.contains(&key.as_str());
                if is_server || (path.is_empty() && key == "status") {
                    continue;
                }
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let none = Value::Null;
                fields(&path, live.get(key).unwrap_or(&none), planned.get(key).unwrap_or(&none), hidden, lines);
            }
        }
        (Value::Array(live), Value::Array(planned)) if live.len() == planned.len() => {
            for (index, (live, planned)) in live.iter().zip(planned).enumerate() {
                fields(&format!("{path}[{index}]"), live, planned, hidden, lines);
            }
        }
        (live, planned) if live == planned => {}
        (Value::Null, planned) => lines.push(format!("+ {path}: {}", shown(planned))),
        (live, Value::Null) => lines.push(format!("- {path}: {}", shown(live))),
        (live, planned) => lines.push(format!("~ {path}: {} -> {}", shown(live), shown(planned))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str) -> ObjectRef {
        ObjectRef {
            api_version: String::from("v1"),
            kind: kind.to_owned(),
            namespace: None,
            name: String::from("a"),
            plane: None,
        }
    }

    #[test]
    fn only_what_users_set_is_shown_and_secrets_are_hidden() {
        let live = json!({"metadata": {"resourceVersion": "1", "labels": {"a": "1"}}, "spec": {"x": 1, "l": [1, 2]}, "status": {"y": 1}});
        let planned =
            json!({"metadata": {"resourceVersion": "2"}, "spec": {"x": 2, "l": [1, 3], "z": true}, "status": {}});
        let change = change(object("Service"), Some(&live), Some(&planned)).unwrap();
        assert_eq!(
            change.lines,
            ["- metadata.labels: {\"a\":\"1\"}", "~ spec.l[1]: 2 -> 3", "~ spec.x: 1 -> 2", "+ spec.z: true"]
        );
        assert_eq!(super::change(object("Service"), Some(&live), Some(&live)), None);
        let (old, new) = (json!({"data": {"key": "b2xk"}}), json!({"data": {"key": "bmV3"}}));
        let change = super::change(object("Secret"), Some(&old), Some(&new)).unwrap();
        assert_eq!(change.lines, ["~ data.key: *** -> ***"]);
    }
}
