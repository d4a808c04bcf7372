//! The entities of Kong 3.9's Admin API: their fields and defaults (kong/db/schema/entities), and what has to hold
//! between fields.

use super::schema::Kind::{Boolean, Choice, Code, Foreign, Headers, Integer, List, Number, PluginConfig, Record, Text};
use super::schema::{Field, Kind, Object, field};
use super::{plugins, values};
use serde_json::{Value, json};

/// Kong's largest number of seconds, requests and the like.
const MANY: i64 = 2_147_483_646;
const TAGS: Field = field("tags", List(&Text(values::tag)));
const ID: Field = field("id", Text(values::uuid));
const CREATED: Field = field("created_at", Integer(0, i64::MAX));
const UPDATED: Field = field("updated_at", Integer(0, i64::MAX));

/// A kind of entity.
pub struct Table {
    /// As in `config_table` of what is pushed.
    pub name: &'static str,
    /// As in a URL.
    pub path: &'static str,
    /// The field that can stand for the id in a URL.
    pub key: Option<&'static str>,
    /// Fields of which no two entities have the same value, each for itself.
    pub unique: &'static [&'static str],
    /// Fields of which no two entities have the same values, all together.
    pub unique_together: &'static [&'static str],
    pub fields: &'static [Field],
    /// Adds what is wrong between fields: words for the entity, and for fields.
    pub rules: fn(&Object, &mut Vec<&'static str>, &mut Object),
}

impl Table {
    /// Fields that name other entities, with the kind of those.
    pub fn references(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.fields.iter().filter_map(|field| match field.kind {
            Foreign(to) => Some((field.name, to)),
            _ => None,
        })
    }
}

const PLAIN: Table =
    Table { name: "", path: "", key: None, unique: &[], unique_together: &[], fields: &[], rules: |_, _, _| {} };

pub static SERVICES: Table = Table {
    name: "services",
    path: "services",
    key: Some("name"),
    unique: &["name"],
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("name", Text(values::name)),
        field("retries", Integer(0, 32767)).or("5"),
        field("protocol", Choice(&["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]))
            .required()
            .or("\"http\""),
        field("host", Text(values::host)).required(),
        field("port", Integer(0, 65535)).required().or("80"),
        field("path", Text(values::path)),
        field("connect_timeout", Integer(1, MANY)).or("60000"),
        field("write_timeout", Integer(1, MANY)).or("60000"),
        field("read_timeout", Integer(1, MANY)).or("60000"),
        TAGS,
        field("client_certificate", Foreign("certificates")),
        field("tls_verify", Boolean),
        field("tls_verify_depth", Integer(0, 64)),
        field("ca_certificates", List(&Text(values::uuid))),
        field("enabled", Boolean).required().or("true"),
    ],
    rules: service_rules,
    ..PLAIN
};

pub static ROUTES: Table = Table {
    name: "routes",
    path: "routes",
    key: Some("name"),
    unique: &["name"],
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("name", Text(values::name)),
        field("protocols", List(&Choice(&["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"])))
            .required()
            .or("[\"http\",\"https\"]"),
        field("methods", List(&Text(values::method))),
        field("hosts", List(&Text(values::host_pattern))),
        field("paths", List(&Text(values::router_path))),
        field("headers", Headers),
        field("https_redirect_status_code", Code(&[426, 301, 302, 307, 308])).required().or("426"),
        field("regex_priority", Integer(i64::MIN, i64::MAX)).or("0"),
        field("strip_path", Boolean).required().or("true"),
        field("path_handling", Choice(&["v0", "v1"])).or("\"v0\""),
        field("preserve_host", Boolean).required().or("false"),
        field("request_buffering", Boolean).required().or("true"),
        field("response_buffering", Boolean).required().or("true"),
        field("snis", List(&Text(values::sni))),
        field("sources", List(&Record(&[]))),
        field("destinations", List(&Record(&[]))),
        TAGS,
        field("service", Foreign("services")),
    ],
    rules: route_rules,
    ..PLAIN
};

pub static UPSTREAMS: Table = Table {
    name: "upstreams",
    path: "upstreams",
    key: Some("name"),
    unique: &["name"],
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("name", Text(values::upstream_name)).required(),
        field("algorithm", Choice(&["consistent-hashing", "least-connections", "round-robin", "latency"]))
            .or("\"round-robin\""),
        field("hash_on", HASH_ON).or("\"none\""),
        field("hash_fallback", HASH_ON).or("\"none\""),
        field("hash_on_header", Text(values::header_name)),
        field("hash_fallback_header", Text(values::header_name)),
        field("hash_on_cookie", Text(values::anything)),
        field("hash_on_cookie_path", Text(values::path)).or("\"/\""),
        field("hash_on_query_arg", Text(values::anything)),
        field("hash_fallback_query_arg", Text(values::anything)),
        field("hash_on_uri_capture", Text(values::anything)),
        field("hash_fallback_uri_capture", Text(values::anything)),
        field("slots", Integer(10, 65536)).or("10000"),
        field("healthchecks", Record(HEALTHCHECKS)),
        TAGS,
        field("host_header", Text(values::anything)),
        field("client_certificate", Foreign("certificates")),
        field("use_srv_name", Boolean).or("false"),
    ],
    ..PLAIN
};

const HASH_ON: Kind = Choice(&["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"]);
const SECONDS: Kind = Number(0.0, 65535.0);
const COUNT: Kind = Integer(0, 255);
const STATUSES: Kind = List(&Integer(100, 999));
const HEALTHCHECKS: &[Field] = &[
    field("threshold", Number(0.0, 100.0)).or("0"),
    field(
        "active",
        Record(&[
            field("type", Choice(&["tcp", "http", "https", "grpc", "grpcs"])).or("\"http\""),
            field("timeout", SECONDS).or("1"),
            field("concurrency", Integer(1, MANY)).or("10"),
            field("http_path", Text(values::path)).or("\"/\""),
            field("https_sni", Text(values::sni)),
            field("https_verify_certificate", Boolean).or("true"),
            field("headers", Headers),
            field(
                "healthy",
                Record(&[
                    field("interval", SECONDS).or("0"),
                    field("http_statuses", STATUSES).or("[200,302]"),
                    field("successes", COUNT).or("0"),
                ]),
            ),
            field(
                "unhealthy",
                Record(&[
                    field("interval", SECONDS).or("0"),
                    field("http_statuses", STATUSES).or("[429,404,500,501,502,503,504,505]"),
                    field("tcp_failures", COUNT).or("0"),
                    field("timeouts", COUNT).or("0"),
                    field("http_failures", COUNT).or("0"),
                ]),
            ),
        ]),
    ),
    field(
        "passive",
        Record(&[
            field("type", Choice(&["tcp", "http", "https", "grpc", "grpcs"])).or("\"http\""),
            field(
                "healthy",
                Record(&[
                    field("http_statuses", STATUSES)
                        .or("[200,201,202,203,204,205,206,207,208,226,300,301,302,303,304,305,306,307,308]"),
                    field("successes", COUNT).or("0"),
                ]),
            ),
            field(
                "unhealthy",
                Record(&[
                    field("http_statuses", STATUSES).or("[429,500,503]"),
                    field("tcp_failures", COUNT).or("0"),
                    field("timeouts", COUNT).or("0"),
                    field("http_failures", COUNT).or("0"),
                ]),
            ),
        ]),
    ),
];

pub static TARGETS: Table = Table {
    name: "targets",
    path: "targets",
    key: Some("target"),
    unique_together: &["target", "upstream"],
    fields: &[
        ID,
        field("created_at", Number(0.0, f64::MAX)),
        field("updated_at", Number(0.0, f64::MAX)),
        field("upstream", Foreign("upstreams")).required(),
        field("target", Text(values::target)).required(),
        field("weight", Integer(0, 65535)).or("100"),
        TAGS,
    ],
    ..PLAIN
};

pub static CONSUMERS: Table = Table {
    name: "consumers",
    path: "consumers",
    key: Some("username"),
    unique: &["username", "custom_id"],
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("username", Text(values::anything)),
        field("custom_id", Text(values::anything)),
        TAGS,
    ],
    rules: |consumer, entity, _| {
        if consumer["username"].is_null() && consumer["custom_id"].is_null() {
            entity.push("at least one of these fields must be non-empty: 'custom_id', 'username'");
        }
    },
    ..PLAIN
};

pub static KEYS: Table = Table {
    name: "keyauth_credentials",
    path: "key-auths",
    key: Some("key"),
    unique: &["key"],
    fields: &[
        ID,
        CREATED,
        field("consumer", Foreign("consumers")).required(),
        field("key", Text(values::anything)),
        TAGS,
        field("ttl", Integer(0, 100_000_000)),
    ],
    ..PLAIN
};

pub static ACLS: Table = Table {
    name: "acls",
    path: "acls",
    key: Some("group"),
    unique_together: &["consumer", "group"],
    fields: &[
        ID,
        CREATED,
        field("consumer", Foreign("consumers")).required(),
        field("group", Text(values::anything)).required(),
        TAGS,
    ],
    ..PLAIN
};

pub static PLUGINS: Table = Table {
    name: "plugins",
    path: "plugins",
    key: Some("instance_name"),
    unique: &["instance_name"],
    unique_together: &["name", "route", "service", "consumer"],
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("name", Text(plugins::name)).required(),
        field("instance_name", Text(values::name)),
        field("route", Foreign("routes")),
        field("service", Foreign("services")),
        field("consumer", Foreign("consumers")),
        field("config", PluginConfig),
        field("protocols", List(&Choice(&["grpc", "grpcs", "http", "https"])))
            .required()
            .or("[\"grpc\",\"grpcs\",\"http\",\"https\"]"),
        field("enabled", Boolean).required().or("true"),
        TAGS,
    ],
    rules: plugins::rules,
};

pub static CERTIFICATES: Table = Table {
    name: "certificates",
    path: "certificates",
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("cert", Text(values::certificate)).required(),
        field("key", Text(values::key)).required(),
        field("cert_alt", Text(values::certificate)),
        field("key_alt", Text(values::key)),
        TAGS,
        // Kong keeps these as entities of their own.
        field("snis", List(&Text(values::sni_pattern))),
    ],
    rules: |certificate, entity, _| {
        let text = |name| certificate.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_whole = values::certificate(text("cert")).is_ok() && values::key(text("key")).is_ok();
        if is_whole && !values::is_pair(text("cert"), text("key")) {
            entity.push("certificate does not match key");
        }
    },
    ..PLAIN
};

pub static CA_CERTIFICATES: Table = Table {
    name: "ca_certificates",
    path: "ca_certificates",
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("cert", Text(values::certificate)).required(),
        field("cert_digest", Text(values::anything)),
        TAGS,
    ],
    ..PLAIN
};

pub static SNIS: Table = Table {
    name: "snis",
    path: "snis",
    key: Some("name"),
    unique: &["name"],
    fields: &[
        ID,
        CREATED,
        UPDATED,
        field("name", Text(values::sni_pattern)).required(),
        TAGS,
        field("certificate", Foreign("certificates")).required(),
    ],
    ..PLAIN
};

/// All of them.
pub static TABLES: [&Table; 11] = [
    &SERVICES,
    &ROUTES,
    &UPSTREAMS,
    &TARGETS,
    &CONSUMERS,
    &KEYS,
    &ACLS,
    &PLUGINS,
    &CERTIFICATES,
    &CA_CERTIFICATES,
    &SNIS,
];

/// The kind of entity of this name.
pub fn table(name: &str) -> &'static Table {
    TABLES.into_iter().find(|table| table.name == name).unwrap()
}

/// What becomes of the entities that name one that is deleted: kind, field, and whether they are deleted with it; else
/// the deletion is refused.
pub fn dependants(table: &str) -> &'static [(&'static str, &'static str, bool)] {
    match table {
        "services" => &[("routes", "service", false), ("plugins", "service", true)],
        "routes" => &[("plugins", "route", true)],
        "upstreams" => &[("targets", "upstream", true)],
        "consumers" => {
            &[("keyauth_credentials", "consumer", true), ("acls", "consumer", true), ("plugins", "consumer", true)]
        }
        "certificates" => &[
            ("services", "client_certificate", false),
            ("upstreams", "client_certificate", false),
            ("snis", "certificate", true),
        ],
        _ => &[],
    }
}

fn list<'a>(object: &'a Object, name: &str) -> Vec<&'a str> {
    let values = object.get(name).and_then(Value::as_array);
    values.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// TLS and a path go with some protocols only: even `tls_verify: false` is refused where there is no TLS.
fn service_rules(service: &Object, entity: &mut Vec<&'static str>, fields: &mut Object) {
    let protocol = service["protocol"].as_str().unwrap_or_default();
    let mut forbidden: Vec<&str> = Vec::new();
    if ["tcp", "tls", "udp", "grpc", "grpcs"].contains(&protocol) {
        forbidden.push("path");
    }
    if !["https", "tls"].contains(&protocol) {
        forbidden.extend(["client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates"]);
    }
    for name in forbidden.into_iter().filter(|name| !service[*name].is_null()) {
        entity.push("failed conditional validation given value of field 'protocol'");
        fields.insert(name.to_owned(), json!("value must be null"));
    }
}

fn route_rules(route: &Object, entity: &mut Vec<&'static str>, fields: &mut Object) {
    let protocols = list(route, "protocols");
    if protocols.is_empty() {
        fields.insert("protocols".to_owned(), json!("length must be at least 1"));
        return;
    }
    if !protocols.contains(&"https") && !list(route, "snis").is_empty() {
        entity.push("'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'");
    }
    let is_set = |name: &&str| match &route[*name] {
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        _ => false,
    };
    let any = ["methods", "hosts", "headers", "paths"].iter().any(is_set);
    if protocols.contains(&"https") && !any && !is_set(&"snis") {
        entity.push("must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'");
    } else if protocols == ["http"] && !any {
        entity.push("must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'");
    }
}
