//! How Kong 3.9 checks an entity: kinds of fields, and the words with which Kong refuses what does not fit them
//! (kong/db/schema). Tests of a client live on these refusals, so the words are Kong's own.

use super::{plugins, values};
use serde_json::{Map, Value, json};

/// A JSON object.
pub type Object = Map<String, Value>;

/// A field of an entity.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// JSON; empty: null.
    default: &'static str,
    required: bool,
}

/// What a field may hold.
pub enum Kind {
    /// A text that passes this check, which answers with Kong's words.
    Text(fn(&str) -> Result<(), String>),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// An integer between these.
    Integer(i64, i64),
    /// One of these integers.
    Code(&'static [i64]),
    /// A number between these.
    Number(f64, f64),
    Boolean,
    List(&'static Kind),
    /// Lists of texts by name.
    Headers,
    Record(&'static [Field]),
    /// Another entity: `{"id": ...}`.
    Foreign(&'static str),
    /// What the plugin of this name can be told.
    PluginConfig,
}

/// A field that may be absent, and is null then.
pub const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, default: "", required: false }
}

impl Field {
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// With this value, in JSON, where there is none.
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }
}

/// Puts the defaults in where there is nothing. The name of a plugin says what its configuration is.
pub fn fill(fields: &[Field], object: &mut Object) {
    let plugin = object.get("name").and_then(Value::as_str).and_then(plugins::config);
    for field in fields {
        let value = object.entry(field.name).or_insert_with(|| match field.default {
            "" => Value::Null,
            default => serde_json::from_str(default).unwrap(),
        });
        let nested = match &field.kind {
            Kind::Record(fields) => Some(*fields),
            Kind::PluginConfig => plugin,
            _ => None,
        };
        // A record with fields of its own is always there.
        if let Some(fields) = nested {
            if value.is_null() {
                *value = json!({});
            }
            if let Value::Object(object) = value {
                fill(fields, object);
            }
        }
    }
}

/// What is wrong with the fields, by name; nothing if all is well.
pub fn errors(fields: &[Field], object: &Object) -> Object {
    let mut errors = Object::new();
    for name in object.keys().filter(|name| !fields.iter().any(|field| field.name == *name)) {
        errors.insert(name.clone(), json!("unknown field"));
    }
    for field in fields {
        let value = object.get(field.name).unwrap_or(&Value::Null);
        let error = match value {
            Value::Null if field.required => Err(json!("required field missing")),
            Value::Null => Ok(()),
            _ if matches!(field.kind, Kind::PluginConfig) => plugin_errors(object, value),
            _ => check(&field.kind, value),
        };
        if let Err(error) = error {
            errors.insert(field.name.to_owned(), error);
        }
    }
    errors
}

fn plugin_errors(plugin: &Object, config: &Value) -> Result<(), Value> {
    let Value::Object(config) = config else { return Err(json!("expected a record")) };
    // A plugin that this peer does not run, or a name that is refused by itself.
    let Some(fields) = plugin.get("name").and_then(Value::as_str).and_then(plugins::config) else { return Ok(()) };
    let errors = errors(fields, config);
    if errors.is_empty() { Ok(()) } else { Err(Value::Object(errors)) }
}

fn check(kind: &Kind, value: &Value) -> Result<(), Value> {
    let refuse = |words: &str| Err(json!(words));
    match (kind, value) {
        (Kind::Text(_) | Kind::Choice(_), Value::String(text)) if text.is_empty() => {
            refuse("length must be at least 1")
        }
        (Kind::Text(check), Value::String(text)) => check(text).map_err(Value::String),
        (Kind::Choice(choices), Value::String(text)) => match choices.contains(&text.as_str()) {
            true => Ok(()),
            false => Err(json!(format!("expected one of: {}", choices.join(", ")))),
        },
        (Kind::Text(_) | Kind::Choice(_), _) => refuse("expected a string"),
        (Kind::Integer(low, high), value) => match value.as_i64() {
            Some(number) if (*low..=*high).contains(&number) => Ok(()),
            Some(_) => Err(json!(format!("value should be between {low} and {high}"))),
            None => refuse("expected an integer"),
        },
        (Kind::Code(codes), value) => match value.as_i64() {
            Some(number) if codes.contains(&number) => Ok(()),
            Some(_) => {
                let codes: Vec<_> = codes.iter().map(i64::to_string).collect();
                Err(json!(format!("expected one of: {}", codes.join(", "))))
            }
            None => refuse("expected an integer"),
        },
        (Kind::Number(low, high), value) => match value.as_f64() {
            Some(number) if (*low..=*high).contains(&number) => Ok(()),
            Some(_) => Err(json!(format!("value should be between {low} and {high}"))),
            None => refuse("expected a number"),
        },
        (Kind::Boolean, Value::Bool(_)) => Ok(()),
        (Kind::Boolean, _) => refuse("expected a boolean"),
        (Kind::List(kind), Value::Array(values)) => list_errors(values.iter().map(|value| check(kind, value))),
        (Kind::List(_), _) => refuse("expected an array"),
        (Kind::Headers, Value::Object(headers)) => header_errors(headers),
        (Kind::Headers, _) => refuse("expected a map"),
        (Kind::Record(fields), Value::Object(record)) => {
            let errors = errors(fields, record);
            if errors.is_empty() { Ok(()) } else { Err(Value::Object(errors)) }
        }
        (Kind::Record(_) | Kind::PluginConfig, _) => refuse("expected a record"),
        (Kind::Foreign(_), Value::Object(reference)) => match reference.get("id") {
            Some(Value::String(id)) => values::uuid(id).map_err(|words| json!({ "id": words })),
            Some(_) => Err(json!({ "id": "expected a string" })),
            None => Err(json!({ "id": "required field missing" })),
        },
        (Kind::Foreign(_), _) => refuse("expected a record"),
    }
}

/// Kong names the wrong ones of a list by their place.
fn list_errors(checks: impl Iterator<Item = Result<(), Value>>) -> Result<(), Value> {
    let mut errors: Vec<_> = checks.map(|check| check.err().unwrap_or_default()).collect();
    while errors.last().is_some_and(Value::is_null) {
        errors.pop();
    }
    if errors.is_empty() { Ok(()) } else { Err(Value::Array(errors)) }
}

fn header_errors(headers: &Object) -> Result<(), Value> {
    for (name, value) in headers {
        values::header_name(name).map_err(Value::String)?;
        if name.eq_ignore_ascii_case("host") {
            let words = "cannot contain 'host' header, which must be specified in the 'hosts' attribute";
            return Err(json!(words));
        }
        check(&Kind::List(&Kind::Text(values::anything)), value).map_err(|error| json!({ (name): error }))?;
    }
    Ok(())
}

/// A refusal of the Admin API.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub body: Value,
}

impl Refusal {
    pub fn message(status: u16, message: &str) -> Self {
        Self { status, body: json!({ "message": message }) }
    }

    pub fn not_found() -> Self {
        Self::message(404, "Not found")
    }

    /// One of Kong's numbered errors (kong/db/errors.lua).
    pub fn numbered(status: u16, code: u8, name: &str, message: &str, fields: Value) -> Self {
        let mut body = json!({ "code": code, "name": name, "message": message });
        if !fields.is_null() {
            body["fields"] = fields;
        }
        Self { status, body }
    }

    pub fn violation(errors: Object) -> Self {
        let mut words: Vec<String> = Vec::new();
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Some(Value::Array(entity)) = errors.get("@entity") {
            words.extend(entity.iter().map(plain));
        }
        let mut names: Vec<_> = errors.keys().filter(|name| *name != "@entity").collect();
        names.sort();
        for name in names {
            match &errors[name] {
                Value::Array(list) => {
                    let wrong = list.iter().enumerate().filter(|(_, error)| !error.is_null());
                    words.extend(wrong.map(|(place, error)| format!("{name}.{}: {}", place + 1, plain(error))));
                }
                Value::Object(record) => {
                    let mut inner: Vec<_> = record.iter().collect();
                    inner.sort_by_key(|(inner, _)| inner.as_str());
                    words.extend(inner.iter().map(|(inner, error)| format!("{name}.{inner}: {}", plain(error))));
                }
                error => words.push(format!("{name}: {}", plain(error))),
            }
        }
        let message = match words.as_slice() {
            [one] => format!("schema violation ({one})"),
            words => format!("{} schema violations ({})", words.len(), words.join("; ")),
        };
        Self::numbered(400, 2, "schema violation", &message, Value::Object(errors))
    }

    /// A value that another entity has.
    pub fn unique(fields: Value) -> Self {
        let message = format!("UNIQUE violation detected on '{}'", pretty(&fields));
        Self::numbered(409, 5, "unique constraint violation", &message, fields)
    }
}

/// A value as Lua's Penlight writes it, in Kong's messages.
pub fn pretty(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let fields: Vec<_> = object.iter().map(|(name, value)| format!("{name}={}", pretty(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        value => value.to_string(),
    }
}
