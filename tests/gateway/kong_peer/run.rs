//! What plugins do to requests and responses: the simple forms of key-auth, acl, request-transformer,
//! response-transformer and request-termination (kong/plugins/*/handler.lua). A request that meets any other plugin
//! gets status 500, so that nobody believes that it ran.

use super::proxy::{Config, Passage};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::Response;
use serde_json::{Value, json};

/// An answer of the proxy itself.
pub struct Exit {
    pub status: u16,
    pub headers: Vec<(HeaderName, String)>,
    pub body: String,
}

impl Exit {
    /// As Kong words it.
    pub fn message(status: u16, message: &str) -> Self {
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        let body = json!({ "message": message, "request_id": request_id });
        Self { status, headers: vec![(header::CONTENT_TYPE, JSON.to_owned())], body: body.to_string() }
    }
}

const JSON: &str = "application/json; charset=utf-8";
/// Plugins by what runs first.
const ORDER: [(&str, u32); 5] = [
    ("key-auth", 1250),
    ("acl", 950),
    ("request-transformer", 801),
    ("response-transformer", 800),
    ("request-termination", 2),
];

/// A plugin that is configured.
pub struct Plugin(pub Value);

impl Plugin {
    pub fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    pub fn priority(&self) -> u32 {
        // What is not known is met first.
        ORDER.iter().find(|(name, _)| *name == self.name()).map_or(u32::MAX, |(_, priority)| *priority)
    }

    pub fn applies(&self, route: &Value, consumer: Option<&Value>) -> bool {
        let is_for = |field: &str, id: &Value| self.0[field].is_null() || self.0[field] == *id;
        let consumer = consumer.map_or(&Value::Null, |consumer| &consumer["id"]);
        self.0["enabled"] == json!(true)
            && is_for("route", &route["id"])
            && is_for("service", &route["service"])
            && is_for("consumer", consumer)
    }

    /// How many entities it is for; among as many, a consumer goes before a route, and a route before a service.
    pub fn particularity(&self) -> (usize, [bool; 3]) {
        let names = ["consumer", "route", "service"].map(|field| !self.0[field].is_null());
        (names.iter().filter(|named| **named).count(), names)
    }

    fn list(&self, action: &str, what: &str) -> Vec<&str> {
        self.0["config"][action][what].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn pairs(&self, action: &str, what: &str) -> Vec<(&str, &str)> {
        self.list(action, what).into_iter().filter_map(|pair| pair.split_once(':')).collect()
    }

    /// The simple forms leave bodies alone.
    fn touches(&self, what: &str) -> bool {
        ["remove", "rename", "replace", "add", "append"].iter().any(|action| !self.list(action, what).is_empty())
    }
}

/// Runs the plugins of a route on a request. Who the consumer is may bring in other plugins.
pub fn request(config: &Config, route: &Value, passage: &mut Passage) -> Result<(), Exit> {
    for (name, _) in ORDER {
        let plugins = config.plugins(route, passage.consumer.as_ref());
        if let Some(foreign) = plugins.iter().find(|plugin| plugin.priority() == u32::MAX) {
            return Err(Exit::message(500, &format!("this peer does not run plugin {}", foreign.name())));
        }
        let Some(plugin) = plugins.into_iter().find(|plugin| plugin.name() == name) else { continue };
        match name {
            "key-auth" => key_auth(config, plugin, passage)?,
            "acl" => acl(config, plugin, passage)?,
            "request-transformer" => transform_request(plugin, passage)?,
            "request-termination" => terminate(plugin, passage)?,
            _ => {}
        }
    }
    Ok(())
}

/// Runs them on a response, the proxy's own ones included.
pub fn respond(config: &Config, route: &Value, consumer: Option<&Value>, response: &mut Response) {
    for plugin in config.plugins(route, consumer) {
        if plugin.name() == "response-transformer" && !plugin.touches("json") {
            change_headers(plugin, response.headers_mut());
        }
    }
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &Value) {
    match value.as_str().and_then(|value| HeaderValue::from_str(value).ok()) {
        Some(value) => headers.insert(HeaderName::from_static(name), value),
        None => headers.remove(name),
    };
}

fn key_auth(config: &Config, plugin: &Plugin, passage: &mut Passage) -> Result<(), Exit> {
    let told = &plugin.0["config"];
    let refuse = |message: &str| {
        let mut exit = Exit::message(401, message);
        exit.headers.push((header::WWW_AUTHENTICATE, "Key".to_owned()));
        exit
    };
    if told["run_on_preflight"] == json!(false) && passage.method == Method::OPTIONS {
        return Ok(());
    }
    let is_on = |name: &str| told[name] == json!(true);
    let names = told["key_names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let found = names.into_iter().find_map(|name| {
        let header = passage.headers.get(name).filter(|_| is_on("key_in_header"));
        let header = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let query = || passage.query.iter().find(|(key, _)| key == name && is_on("key_in_query"));
        let key = header.or_else(|| query().map(|(_, value)| value.clone()))?;
        Some((name.to_owned(), key))
    });
    let Some((name, key)) = found else { return Err(refuse("No API key found in request")) };
    if is_on("hide_credentials") {
        passage.headers.remove(&name);
        passage.query.retain(|(key, _)| *key != name);
    }
    let Some(credential) = config.keys.iter().find(|known| known["key"] == json!(key)) else {
        return Err(refuse("Unauthorized"));
    };
    let consumer = config.consumers.iter().find(|consumer| consumer["id"] == credential["consumer"]);
    let Some(consumer) = consumer else { return Err(refuse("Unauthorized")) };
    set(&mut passage.headers, "x-consumer-id", &consumer["id"]);
    set(&mut passage.headers, "x-consumer-username", &consumer["username"]);
    set(&mut passage.headers, "x-consumer-custom-id", &consumer["custom_id"]);
    set(&mut passage.headers, "x-credential-identifier", &credential["id"]);
    passage.consumer = Some(consumer.clone());
    Ok(())
}

fn acl(config: &Config, plugin: &Plugin, passage: &mut Passage) -> Result<(), Exit> {
    let told = &plugin.0["config"];
    let Some(consumer) = &passage.consumer else { return Err(Exit::message(401, "Unauthorized")) };
    let groups = config.acls.iter().filter(|acl| acl["consumer"] == consumer["id"]);
    let groups: Vec<&str> = groups.filter_map(|acl| acl["group"].as_str()).collect();
    let is_in =
        |list: &str| told[list].as_array().is_some_and(|list| groups.iter().any(|group| list.contains(&json!(group))));
    let is_allowed = if told["allow"].is_null() { !is_in("deny") } else { is_in("allow") };
    if !is_allowed {
        return Err(Exit::message(403, "You cannot consume this service"));
    }
    if told["hide_groups_header"] != json!(true) {
        set(&mut passage.headers, "x-consumer-groups", &json!(groups.join(", ")));
    }
    Ok(())
}

/// remove, rename, replace, add, append: `replace` is for headers that are there, `add` for those that are not.
fn change_headers(plugin: &Plugin, headers: &mut HeaderMap) {
    let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    let parsed = |name: &str| HeaderName::try_from(name).ok();
    for name in plugin.list("remove", "headers").into_iter().filter_map(parsed) {
        headers.remove(name);
    }
    for (old, new) in plugin.pairs("rename", "headers") {
        if let (Some(was), Some(new)) = (headers.remove(old), parsed(new)) {
            headers.insert(new, was);
        }
    }
    for (name, text) in plugin.pairs("replace", "headers") {
        if let Some(name) = parsed(name).filter(|name| headers.contains_key(name)) {
            headers.insert(name, value(text));
        }
    }
    for (name, text) in plugin.pairs("add", "headers") {
        if let Some(name) = parsed(name).filter(|name| !headers.contains_key(name)) {
            headers.insert(name, value(text));
        }
    }
    for (name, text) in plugin.pairs("append", "headers") {
        if let Some(name) = parsed(name) {
            headers.append(name, value(text));
        }
    }
}

fn transform_request(plugin: &Plugin, passage: &mut Passage) -> Result<(), Exit> {
    if plugin.touches("body") {
        return Err(Exit::message(500, "this peer transforms no bodies"));
    }
    // The service's host is told by `replace` alone.
    let hosts = plugin.pairs("replace", "headers");
    if let Some((_, host)) = hosts.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("host")) {
        passage.host = Some(host.to_owned());
    }
    let asked = passage.headers.remove(header::HOST);
    change_headers(plugin, &mut passage.headers);
    if let Some(asked) = asked {
        passage.headers.insert(header::HOST, asked);
    }
    let query = &mut passage.query;
    query.retain(|(name, _)| !plugin.list("remove", "querystring").contains(&name.as_str()));
    for (old, new) in plugin.pairs("rename", "querystring") {
        for (name, _) in query.iter_mut().filter(|(name, _)| name == old) {
            *name = new.to_owned();
        }
    }
    for (name, text) in plugin.pairs("replace", "querystring") {
        for (_, value) in query.iter_mut().filter(|(known, _)| known == name) {
            *value = text.to_owned();
        }
    }
    for (name, text) in plugin.pairs("add", "querystring") {
        if !query.iter().any(|(known, _)| known == name) {
            query.push((name.to_owned(), text.to_owned()));
        }
    }
    query.extend(
        plugin.pairs("append", "querystring").into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())),
    );
    let told = &plugin.0["config"];
    if let Some(method) = told["http_method"].as_str().and_then(|method| method.parse().ok()) {
        passage.method = method;
    }
    passage.replaced_path = told["replace"]["uri"].as_str().map(str::to_owned);
    Ok(())
}

fn terminate(plugin: &Plugin, passage: &Passage) -> Result<(), Exit> {
    let told = &plugin.0["config"];
    if let Some(trigger) = told["trigger"].as_str() {
        let is_asked = passage.headers.contains_key(trigger) || passage.query.iter().any(|(name, _)| name == trigger);
        if !is_asked {
            return Ok(());
        }
    }
    let status = told["status_code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(503);
    if let Some(body) = told["body"].as_str() {
        let headers = told["content_type"].as_str().map(|kind| (header::CONTENT_TYPE, kind.to_owned()));
        let headers = headers.into_iter().collect();
        return Err(Exit { status, headers, body: body.to_owned() });
    }
    let usual = match status {
        401 => Some("Unauthorized"),
        404 => Some("Not found"),
        405 => Some("Method not allowed"),
        500 => Some("An unexpected error occurred"),
        502 => Some("Bad Gateway"),
        503 => Some("Service unavailable"),
        _ => None,
    };
    let message = told["message"].as_str().or(usual);
    let body = message.map_or(String::new(), |message| json!({ "message": message }).to_string());
    Err(Exit { status, headers: vec![(header::CONTENT_TYPE, JSON.to_owned())], body })
}
