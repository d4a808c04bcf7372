//! Kong's entities, made of the neutral model, and put in place by idempotent orders to the Admin API: what is as it should be is
//! left alone (every change is pushed to every data plane), what is ours and no longer wanted is deleted. Ours is what has our tag.

use super::super::Stack;
use super::super::model::{
    AiProvider, AiProviderKind, AiRoute, AiTarget, HeaderChanges, KeyAuth, KeyPlace, Listener, PathMatch, PathMatchBy,
    Protocol, Route, Service,
};
use super::admin::{Admin, AdminError};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// An entity that is to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// `services`, `upstreams/ID/targets`.
    pub collection: String,
    /// Its id, made of its name: the same at every run.
    pub id: String,
    /// Its fields.
    pub body: Value,
}

/// Values of Secrets that entities need.
#[derive(Default)]
pub struct Secrets {
    /// Keys of consumers, by the consumer's name.
    pub keys: BTreeMap<String, String>,
    /// Keys of AI providers, by the provider's name.
    pub ai: BTreeMap<String, String>,
    /// Certificate and key of HTTPS listeners, by the listener's name.
    pub certificates: BTreeMap<String, (String, String)>,
    /// Authorities of services, by the service's name.
    pub authorities: BTreeMap<String, String>,
}

/// Lists with a tag, in an order in which nothing is deleted that another still refers to.
const COLLECTIONS: [&str; 10] = [
    "plugins",
    "routes",
    "services",
    "upstreams",
    "key-auths",
    "acls",
    "consumers",
    "snis",
    "certificates",
    "ca_certificates",
];

/// The tag of everything that belongs to a gateway.
pub fn tag(stack: &Stack) -> String {
    format!("metalgate-{}", stack.name)
}

/// An id of a name: a UUID of version 8 (RFC 9562).
pub fn id(stack: &Stack, what: &str) -> String {
    let digest = Sha256::digest(format!("metalgate/{}/{what}", stack.name));
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// All entities, in an order in which each finds what it refers to.
pub fn desired(stack: &Stack, secrets: &Secrets) -> Vec<Entity> {
    let mut maker = Maker { stack, tag: tag(stack), made: Vec::new() };
    for listener in &stack.gateway.listeners {
        if let Some((cert, key)) = secrets.certificates.get(&listener.name) {
            maker.certificate(listener, cert, key);
        }
    }
    for consumer in &stack.gateway.consumers {
        maker.consumer(&consumer.name, secrets.keys.get(&consumer.name));
    }
    for route in &stack.gateway.routes {
        maker.route(route, secrets);
    }
    for route in &stack.gateway.ai.routes {
        maker.ai_route(route, secrets);
    }
    maker.made
}

/// Makes the Admin API's entities the desired ones. Gives how many were written and deleted.
pub async fn sync(admin: &Admin<'_>, stack: &Stack, desired: &[Entity]) -> Result<(usize, usize), AdminError> {
    let mut there: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut collections: Vec<String> = COLLECTIONS.map(str::to_owned).to_vec();
    for collection in COLLECTIONS {
        for entity in admin.list(collection, Some(&tag(stack))).await? {
            let id = entity["id"].as_str().unwrap_or_default().to_owned();
            if collection == "upstreams" {
                collections.insert(0, format!("upstreams/{id}/targets"));
            }
            there.insert((collection.to_owned(), id), entity);
        }
    }
    for collection in collections.iter().filter(|collection| collection.ends_with("/targets")) {
        for target in admin.list(collection, None).await? {
            there.insert((collection.clone(), target["id"].as_str().unwrap_or_default().to_owned()), target);
        }
    }
    let mut written = 0;
    let mut wanted = BTreeSet::new();
    for entity in desired {
        let list = list_of(&entity.collection);
        let key = (list.to_owned(), entity.id.clone());
        let present = there.get(&key);
        if !present.is_some_and(|there| holds(there, &entity.body)) {
            // A PUT makes everything but targets, which it only changes (Kong/kong#12987).
            if entity.collection.ends_with("/targets") && present.is_none() {
                let mut body = entity.body.clone();
                body["id"] = json!(entity.id);
                admin.post(&format!("/{}", entity.collection), &body).await?;
            } else {
                admin.put(&format!("/{}/{}", entity.collection, entity.id), &entity.body).await?;
            }
            written += 1;
        }
        wanted.insert(key);
    }
    let mut deleted = 0;
    for collection in &collections {
        let surplus = there.keys().filter(|key| key.0 == *collection && !wanted.contains(*key));
        for (_, id) in surplus {
            admin.delete(&format!("/{collection}/{id}")).await?;
            deleted += 1;
        }
    }
    Ok((written, deleted))
}

/// The list that shows the entities of a collection: credentials are made below their consumer, and listed together.
fn list_of(collection: &str) -> &str {
    match collection.rsplit_once('/') {
        Some((above, "key-auth")) if above.starts_with("consumers/") => "key-auths",
        Some((above, "acls")) if above.starts_with("consumers/") => "acls",
        _ => collection,
    }
}

/// Whether an entity has all fields that it should have; what else it has are Kong's defaults.
fn holds(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| holds(there.get(key).unwrap_or(&Value::Null), wanted))
        }
        // Kong's lists of tags and hosts are sets.
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && wanted.iter().all(|one| there.iter().any(|other| holds(other, one)))
        }
        (there, wanted) => there == wanted,
    }
}

struct Maker<'s> {
    stack: &'s Stack,
    tag: String,
    made: Vec<Entity>,
}

impl Maker<'_> {
    /// Makes an entity, and gives its id.
    fn make(&mut self, collection: &str, name: &str, mut body: Value) -> String {
        let id = id(self.stack, &format!("{collection}/{name}"));
        body["tags"] = json!([self.tag]);
        self.made.push(Entity { collection: collection.to_owned(), id: id.clone(), body });
        id
    }

    fn certificate(&mut self, listener: &Listener, cert: &str, key: &str) {
        let id = self.make("certificates", &listener.name, json!({"cert": cert, "key": key}));
        let generated = listener.tls.as_ref().map(|tls| tls.generate.clone()).unwrap_or_default();
        let names = if generated.is_empty() { Vec::from_iter(listener.hostname.clone()) } else { generated };
        // `*` is Kong's certificate for names that no other has; clients that ask for an address send no name.
        let names = names.into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_err());
        let names: BTreeSet<String> = match listener.hostname {
            Some(_) => names.collect(),
            None => names.chain([String::from("*")]).collect(),
        };
        for name in names {
            self.make("snis", &name, json!({"name": name, "certificate": {"id": id}}));
        }
    }

    fn consumer(&mut self, name: &str, key: Option<&String>) {
        let username = format!("{}.{name}", self.stack.name);
        let id = self.make("consumers", name, json!({"username": username}));
        if let Some(key) = key {
            self.make(&format!("consumers/{id}/key-auth"), name, json!({"key": key}));
        }
        self.make(&format!("consumers/{id}/acls"), name, json!({"group": username}));
    }

    fn route(&mut self, route: &Route, secrets: &Secrets) {
        let backends: Vec<(&Service, u32)> = route
            .backends
            .iter()
            .filter_map(|backend| Some((self.stack.gateway.service(&backend.service)?, backend.weight)))
            .collect();
        let Some((first, _)) = backends.first().copied() else { return };
        let name = first.tls.as_ref().and_then(|tls| tls.sni.as_deref()).filter(|_| !route.preserve_host);
        let (host, port) = match (backends.as_slice(), name) {
            ([_], None) => (first.address(), first.port),
            _ => (self.upstream(route, &backends, name), if first.tls.is_some() { 443 } else { 80 }),
        };
        let milliseconds = route.timeout_seconds.map_or(60_000, |seconds| u64::from(seconds) * 1000);
        let mut service = json!({
            "name": format!("{}.{}", self.stack.name, route.name), "host": host, "port": port,
            "protocol": if first.tls.is_some() { "https" } else { "http" },
            "read_timeout": milliseconds, "write_timeout": milliseconds,
        });
        if let Some(tls) = &first.tls {
            service["tls_verify"] = json!(tls.verify);
            if let Some(authority) = secrets.authorities.get(&first.name) {
                let id = self.make("ca_certificates", &first.name, json!({"cert": authority}));
                service["ca_certificates"] = json!([id]);
            }
        }
        let service = self.make("services", &route.name, service);
        let id = self.kong_route(route, &service);
        self.plugins(&route.name, &id, route.auth.as_ref(), &route.request_headers, &route.response_headers);
    }

    /// Several targets, or one that is asked by another name than its own.
    fn upstream(&mut self, route: &Route, backends: &[(&Service, u32)], asked: Option<&str>) -> String {
        let name = format!("{}.{}.metalgate", route.name, self.stack.name);
        let body = json!({"name": name, "algorithm": "round-robin", "host_header": asked});
        let upstream = self.make("upstreams", &route.name, body);
        for (service, weight) in backends {
            let target = format!("{}:{}", service.address(), service.port);
            let collection = format!("upstreams/{upstream}/targets");
            self.make(&collection, &target, json!({"target": target, "weight": weight}));
        }
        name
    }

    fn kong_route(&mut self, route: &Route, service: &str) -> String {
        let gateway = &self.stack.gateway;
        let protocols: BTreeSet<&str> = gateway
            .listeners_of(route)
            .map(|listener| if listener.protocol == Protocol::Https { "https" } else { "http" })
            .collect();
        let headers: Map<String, Value> =
            route.headers.iter().map(|(name, value)| (name.clone(), json!([value]))).collect();
        let (paths, priority) = paths(&route.path);
        let body = json!({
            "name": format!("{}.{}", self.stack.name, route.name), "service": {"id": service},
            "protocols": protocols, "hosts": or_null(hosts(self.stack, route)), "paths": paths,
            "methods": or_null(route.methods.clone()),
            "headers": if headers.is_empty() { Value::Null } else { Value::Object(headers) },
            "strip_path": route.strip_prefix, "preserve_host": route.preserve_host,
            "path_handling": "v0", "regex_priority": priority,
        });
        self.make("routes", &route.name, body)
    }

    fn plugins(
        &mut self,
        name: &str,
        route: &str,
        auth: Option<&KeyAuth>,
        request: &HeaderChanges,
        response: &HeaderChanges,
    ) {
        for (plugin, changes) in [("request-transformer", request), ("response-transformer", response)] {
            if !changes.is_empty() {
                self.plugin(plugin, name, route, transformation(changes));
            }
        }
        let Some(auth) = auth else { return };
        let config = json!({
            "key_names": [auth.name], "key_in_header": auth.place == KeyPlace::Header,
            "key_in_query": auth.place == KeyPlace::Query, "key_in_body": false, "hide_credentials": true,
        });
        self.plugin("key-auth", name, route, config);
        let allowed: Vec<String> =
            auth.consumers.iter().map(|consumer| format!("{}.{consumer}", self.stack.name)).collect();
        self.plugin("acl", name, route, json!({"allow": allowed, "hide_groups_header": true}));
    }

    fn plugin(&mut self, plugin: &str, name: &str, route: &str, config: Value) {
        let body = json!({"name": plugin, "route": {"id": route}, "enabled": true, "config": config});
        self.make("plugins", &format!("{name}/{plugin}"), body);
    }

    fn ai_route(&mut self, route: &AiRoute, secrets: &Secrets) {
        let name = format!("ai-{}", route.name);
        let full = format!("{}.{name}", self.stack.name);
        // The plugin asks its provider instead; Kong wants every route to have a service.
        let service = json!({"name": full, "host": "localhost", "port": 32000, "protocol": "http"});
        let service = self.make("services", &name, service);
        let (paths, priority) = paths(&PathMatch { by: PathMatchBy::Prefix, value: route.path.clone() });
        let protocols: BTreeSet<&str> = self
            .stack
            .gateway
            .listeners
            .iter()
            .map(|listener| if listener.protocol == Protocol::Https { "https" } else { "http" })
            .collect();
        let body = json!({
            "name": full, "service": {"id": service}, "protocols": protocols, "hosts": or_null(route.hosts.clone()),
            "paths": paths, "methods": ["POST"], "strip_path": true, "preserve_host": false, "path_handling": "v0",
            "regex_priority": priority,
        });
        let id = self.make("routes", &name, body);
        let providers = &self.stack.gateway.ai.providers;
        let targets: Vec<(Value, u32)> = route
            .targets
            .iter()
            .filter_map(|target| {
                let provider = providers.iter().find(|provider| provider.name == target.provider)?;
                Some((ai_target(provider, target, secrets.ai.get(&provider.name)), target.weight))
            })
            .collect();
        match targets.as_slice() {
            [(target, _)] => self.plugin("ai-proxy", &name, &id, target.clone()),
            several => {
                let targets: Vec<Value> = several
                    .iter()
                    .map(|(target, weight)| {
                        let mut target = target.clone();
                        target["weight"] = json!(weight);
                        target
                    })
                    .collect();
                let config = json!({"targets": targets, "balancer": {"algorithm": "round-robin"}});
                self.plugin("ai-proxy-advanced", &name, &id, config);
            }
        }
        let none = HeaderChanges::default();
        self.plugins(&name, &id, route.auth.as_ref(), &none, &none);
    }
}

/// Hosts of a route: its own, else those of its listeners where every one of them has one.
fn hosts(stack: &Stack, route: &Route) -> Vec<String> {
    if !route.hosts.is_empty() {
        return route.hosts.clone();
    }
    let listeners: Option<BTreeSet<String>> =
        stack.gateway.listeners_of(route).map(|listener| listener.hostname.clone()).collect();
    listeners.unwrap_or_default().into_iter().collect()
}

fn or_null(list: Vec<String>) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// Kong's own prefixes do not end at a `/`, so ours are two paths; and where regular expressions compete, the longer wins.
fn paths(path: &PathMatch) -> (Vec<String>, usize) {
    let value = path.value.as_str();
    match path.by {
        PathMatchBy::Prefix => match value.trim_end_matches('/') {
            "" => (vec![String::from("/")], 0),
            prefix => (vec![format!("~{}$", regex::escape(prefix)), format!("{prefix}/")], prefix.len()),
        },
        PathMatchBy::Exact => (vec![format!("~{}$", regex::escape(value))], 10_000 + value.len()),
        PathMatchBy::Regex => (vec![format!("~{value}$")], 0),
    }
}

/// Kong replaces only what is there and adds only what is not: set is both.
fn transformation(changes: &HeaderChanges) -> Value {
    let pairs = |map: &BTreeMap<String, String>| -> Vec<String> {
        map.iter().map(|(name, value)| format!("{name}:{value}")).collect()
    };
    json!({
        "remove": {"headers": changes.remove}, "replace": {"headers": pairs(&changes.set)},
        "add": {"headers": pairs(&changes.set)}, "append": {"headers": pairs(&changes.add)},
    })
}

/// What ai-proxy is told about a model.
fn ai_target(provider: &AiProvider, target: &AiTarget, key: Option<&String>) -> Value {
    let mut options = Map::new();
    if let Some(url) = &provider.url {
        options.insert(String::from("upstream_url"), json!(url));
    }
    let bearer = |key: &String| json!({"header_name": "Authorization", "header_value": format!("Bearer {key}")});
    let (name, auth) = match provider.kind {
        AiProviderKind::Openai => ("openai", key.map(bearer)),
        AiProviderKind::Cohere => ("cohere", key.map(bearer)),
        AiProviderKind::Mistral => {
            options.insert(String::from("mistral_format"), json!("openai"));
            options.entry("upstream_url").or_insert_with(|| json!("https://api.mistral.ai/v1/chat/completions"));
            ("mistral", key.map(bearer))
        }
        AiProviderKind::Anthropic => {
            options.insert(String::from("anthropic_version"), json!("2023-06-01"));
            options.insert(String::from("max_tokens"), json!(1024));
            ("anthropic", key.map(|key| json!({"header_name": "x-api-key", "header_value": key})))
        }
        AiProviderKind::Gemini => {
            ("gemini", key.map(|key| json!({"param_name": "key", "param_value": key, "param_location": "query"})))
        }
    };
    let mut config = json!({
        "route_type": "llm/v1/chat",
        "model": {"provider": name, "name": target.model, "options": options},
    });
    if let Some(auth) = auth {
        config["auth"] = auth;
    }
    config
}
