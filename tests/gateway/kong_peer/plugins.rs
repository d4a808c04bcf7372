//! The plugins of Kong 3.9: their names, and the configuration of those that this peer runs
//! (kong/plugins/*/schema.lua).

use super::schema::Kind::{Boolean, Choice, Integer, List, Record, Text};
use super::schema::{Field, Kind, Object, field};
use super::values;
use serde_json::json;

/// What an open-source Kong 3.9 has. The data plane of this peer runs those that `config` knows; the configuration of
/// the others is not looked at.
pub const NAMES: &[&str] = &[
    "acl",
    "acme",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-request-transformer",
    "ai-response-transformer",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "hmac-auth",
    "http-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "ldap-auth",
    "loggly",
    "oauth2",
    "opentelemetry",
    "post-function",
    "pre-function",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
    "session",
    "standard-webhooks",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// What has to hold within a plugin's configuration.
pub fn rules(plugin: &Object, entity: &mut Vec<&'static str>, fields: &mut Object) {
    let config = &plugin["config"];
    let is_set = |name: &str| config[name].as_str().is_some_and(|text| !text.is_empty());
    let words = match plugin["name"].as_str() {
        Some("request-termination") if is_set("message") && (is_set("content_type") || is_set("body")) => {
            "message cannot be used with content_type or body"
        }
        Some("request-termination") if is_set("content_type") && !is_set("body") => "content_type requires a body",
        Some("acl") if config["allow"].is_null() && config["deny"].is_null() => {
            entity.push("at least one of these fields must be non-empty: 'config.allow', 'config.deny'");
            return;
        }
        Some("acl") if !config["allow"].is_null() && !config["deny"].is_null() => {
            entity.push("only one or none of these fields must be set: 'config.allow', 'config.deny'");
            return;
        }
        _ => return,
    };
    fields.insert("config".to_owned(), json!(words));
}

/// Only what the data planes have can be configured.
pub fn name(name: &str) -> Result<(), String> {
    if NAMES.contains(&name) {
        return Ok(());
    }
    Err(format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property"))
}

const TEXTS: Kind = List(&Text(values::anything));
const PAIRS: Kind = List(&Text(values::pair));
const REQUEST_CHANGES: Kind =
    Record(&[field("body", PAIRS).or("[]"), field("headers", PAIRS).or("[]"), field("querystring", PAIRS).or("[]")]);
const RESPONSE_CHANGES: Kind = Record(&[
    field("json", PAIRS).or("[]"),
    field("json_types", List(&Choice(&["boolean", "number", "string"]))).or("[]"),
    field("headers", PAIRS).or("[]"),
]);

/// What a plugin can be told, of those that this peer runs.
pub fn config(name: &str) -> Option<&'static [Field]> {
    Some(match name {
        "request-termination" => REQUEST_TERMINATION,
        "key-auth" => KEY_AUTH,
        "acl" => ACL,
        "request-transformer" => REQUEST_TRANSFORMER,
        "response-transformer" => RESPONSE_TRANSFORMER,
        _ => return None,
    })
}

const REQUEST_TERMINATION: &[Field] = &[
    field("status_code", Integer(100, 599)).or("503"),
    field("message", Text(values::anything)),
    field("content_type", Text(values::anything)),
    field("body", Text(values::anything)),
    field("echo", Boolean).required().or("false"),
    field("trigger", Text(values::header_name)),
];
const KEY_AUTH: &[Field] = &[
    field("key_names", List(&Text(values::header_name))).required().or("[\"apikey\"]"),
    field("hide_credentials", Boolean).required().or("false"),
    field("anonymous", Text(values::anything)),
    field("key_in_header", Boolean).required().or("true"),
    field("key_in_query", Boolean).required().or("true"),
    field("key_in_body", Boolean).required().or("false"),
    field("run_on_preflight", Boolean).required().or("true"),
    field("realm", Text(values::anything)),
];
const ACL: &[Field] = &[
    field("allow", TEXTS),
    field("deny", TEXTS),
    field("hide_groups_header", Boolean).required().or("false"),
    field("include_consumer_groups", Boolean).required().or("false"),
    field("always_use_authenticated_groups", Boolean).required().or("false"),
];
const REQUEST_TRANSFORMER: &[Field] = &[
    field("http_method", Text(values::method)),
    field(
        "remove",
        Record(&[
            field("body", TEXTS).or("[]"),
            field("headers", TEXTS).or("[]"),
            field("querystring", TEXTS).or("[]"),
        ]),
    ),
    field("rename", REQUEST_CHANGES),
    field(
        "replace",
        Record(&[
            field("body", PAIRS).or("[]"),
            field("headers", PAIRS).or("[]"),
            field("querystring", PAIRS).or("[]"),
            field("uri", Text(values::anything)),
        ]),
    ),
    field("add", REQUEST_CHANGES),
    field("append", REQUEST_CHANGES),
];
const RESPONSE_TRANSFORMER: &[Field] = &[
    field("remove", Record(&[field("json", TEXTS).or("[]"), field("headers", TEXTS).or("[]")])),
    field("rename", Record(&[field("json", PAIRS).or("[]"), field("headers", PAIRS).or("[]")])),
    field("replace", RESPONSE_CHANGES),
    field("add", RESPONSE_CHANGES),
    field("append", RESPONSE_CHANGES),
];
