//! The proxy of a data plane: which route a request takes (kong/router), what its plugins do to it (`run`), and the
//! service that answers it. Plain HTTP on both sides.

use super::data_plane::DataPlaneSettings;
use super::run::{self, Exit, Plugin};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use regex::Regex;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// Longer bodies are refused.
const BODY: usize = 16 << 20;

/// The proxy, and what it has been told.
pub struct Proxy {
    version: String,
    hosts: BTreeMap<String, IpAddr>,
    client: reqwest::Client,
    config: RwLock<Arc<Config>>,
}

/// A configuration as pushed: entities name others by their id.
#[derive(Default)]
pub struct Config {
    routes: Vec<Route>,
    services: Vec<Value>,
    upstreams: Vec<Upstream>,
    plugins: Vec<Plugin>,
    pub consumers: Vec<Value>,
    pub keys: Vec<Value>,
    pub acls: Vec<Value>,
}

struct Route {
    entity: Value,
    paths: Vec<Path>,
    headers: Vec<(String, Vec<String>)>,
}

enum Path {
    Prefix(String),
    Pattern(Regex),
}

struct Upstream {
    entity: Value,
    /// Address, weight, and how far it is behind its share.
    targets: Mutex<Vec<(String, i64, i64)>>,
}

/// A request on its way to a service.
pub struct Passage {
    pub method: Method,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What the service is asked for, if it is not for the proxy to say.
    pub host: Option<String>,
    /// The service's own path, in place of what follows from the route.
    pub replaced_path: Option<String>,
    pub consumer: Option<Value>,
}

pub fn router(proxy: Arc<Proxy>) -> Router {
    Router::new().fallback(serve).with_state(proxy)
}

fn texts<'v>(entity: &'v Value, name: &str) -> Vec<&'v str> {
    entity[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

impl Proxy {
    pub fn new(settings: &DataPlaneSettings) -> Arc<Self> {
        // reqwest asks for a provider, TLS or not.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Arc::new(Self {
            version: settings.version.clone(),
            hosts: settings.hosts.clone(),
            client: client.build().unwrap(),
            config: RwLock::default(),
        })
    }

    /// Takes a configuration from now on.
    pub fn apply(&self, config: &Value) -> Result<(), regex::Error> {
        let config = Config::read(config)?;
        *self.config.write().unwrap() = Arc::new(config);
        Ok(())
    }

    fn own(&self, exit: Exit) -> Response {
        let mut response = exit.into_response();
        let server = HeaderValue::from_str(&format!("kong/{}", self.version)).unwrap();
        response.headers_mut().insert(header::SERVER, server);
        response
    }
}

impl Config {
    fn read(config: &Value) -> Result<Self, regex::Error> {
        let all = |name: &str| config[name].as_array().cloned().unwrap_or_default();
        let targets = all("targets");
        let upstream = |entity: Value| {
            let targets = targets.iter().filter(|target| target["upstream"] == entity["id"]);
            let targets = targets.filter_map(|target| {
                let weight = target["weight"].as_i64().filter(|weight| *weight > 0)?;
                Some((target["target"].as_str()?.to_owned(), weight, 0))
            });
            let targets = Mutex::new(targets.collect());
            Upstream { entity, targets }
        };
        Ok(Self {
            routes: all("routes").into_iter().map(Route::read).collect::<Result<_, _>>()?,
            services: all("services"),
            upstreams: all("upstreams").into_iter().map(upstream).collect(),
            plugins: all("plugins").into_iter().map(Plugin).collect(),
            consumers: all("consumers"),
            keys: all("keyauth_credentials"),
            acls: all("acls"),
        })
    }

    /// The route of a request, with how much of its path the route has named.
    fn route(&self, request: &Passage, host: &str) -> Option<(&Route, usize)> {
        let enabled = |route: &&Route| self.service(route).is_none_or(|service| service["enabled"] != json!(false));
        let candidates = self.routes.iter().filter(enabled).flat_map(|route| route.matches(request, host));
        candidates.max_by_key(|(_, _, rank)| *rank).map(|(route, length, _)| (route, length))
    }

    fn service(&self, route: &Route) -> Option<&Value> {
        self.services.iter().find(|service| service["id"] == route.entity["service"])
    }

    /// The plugins of a route in the order in which Kong runs them, the most particular one of each name.
    pub fn plugins(&self, route: &Value, consumer: Option<&Value>) -> Vec<&Plugin> {
        let mut chosen: Vec<&Plugin> = Vec::new();
        let mut plugins: Vec<_> = self.plugins.iter().filter(|plugin| plugin.applies(route, consumer)).collect();
        plugins.sort_by_key(|plugin| (Reverse(plugin.priority()), Reverse(plugin.particularity())));
        for plugin in plugins {
            if chosen.iter().all(|other| other.name() != plugin.name()) {
                chosen.push(plugin);
            }
        }
        chosen
    }
}

/// What goes before what in Kong's traditional router: how many kinds of attributes match, which (hosts before headers
/// before paths before methods), a host without a wildcard, a regular expression, how many headers, the expression's
/// priority, the length of a prefix, and the age of the route.
type Rank = (usize, [bool; 4], bool, bool, usize, i64, usize, Reverse<i64>);

impl Route {
    fn read(entity: Value) -> Result<Self, regex::Error> {
        let path = |path: &str| match path.strip_prefix('~') {
            Some(pattern) => Ok(Path::Pattern(Regex::new(&format!("^(?:{pattern})"))?)),
            None => Ok(Path::Prefix(path.to_owned())),
        };
        let paths = texts(&entity, "paths").into_iter().map(path).collect::<Result<_, _>>()?;
        let headers = entity["headers"].as_object().into_iter().flatten();
        let values = |values: &Value| {
            values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_lowercase).collect()
        };
        let headers = headers.map(|(name, value)| (name.to_lowercase(), values(value))).collect();
        Ok(Self { entity, paths, headers })
    }

    /// Each of its paths that the request has, if all else matches.
    fn matches(&self, request: &Passage, host: &str) -> Vec<(&Self, usize, Rank)> {
        let (methods, hosts) = (texts(&self.entity, "methods"), texts(&self.entity, "hosts"));
        let host_matches = |pattern: &&str| match (pattern.strip_prefix("*."), pattern.strip_suffix(".*")) {
            (Some(domain), _) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            (_, Some(domain)) => host.strip_prefix(domain).is_some_and(|rest| rest.starts_with('.')),
            _ => host.eq_ignore_ascii_case(pattern),
        };
        let matching_host = hosts.iter().find(|pattern| host_matches(pattern));
        let header_matches = |(name, wanted): &(String, Vec<String>)| {
            let mut values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.any(|value| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(value)))
        };
        let matches = (methods.is_empty() || methods.contains(&request.method.as_str()))
            && (hosts.is_empty() || matching_host.is_some())
            && self.headers.iter().all(header_matches);
        if !matches {
            return Vec::new();
        }
        let kinds = [!hosts.is_empty(), !self.headers.is_empty(), !self.paths.is_empty(), !methods.is_empty()];
        let count = kinds.iter().filter(|is_there| **is_there).count();
        let is_plain = matching_host.is_some_and(|pattern| !pattern.contains('*'));
        let age = Reverse(self.entity["created_at"].as_i64().unwrap_or_default());
        let rank = |is_pattern: bool, length| {
            let priority = self.entity["regex_priority"].as_i64().filter(|_| is_pattern).unwrap_or_default();
            (count, kinds, is_plain, is_pattern, self.headers.len(), priority, length, age)
        };
        if self.paths.is_empty() {
            return vec![(self, 0, rank(false, 0))];
        }
        let path = |path: &Path| match path {
            Path::Prefix(prefix) => {
                request.path.starts_with(prefix).then(|| (self, prefix.len(), rank(false, prefix.len())))
            }
            Path::Pattern(pattern) => pattern.find(&request.path).map(|found| (self, found.end(), rank(true, 0))),
        };
        self.paths.iter().filter_map(path).collect()
    }
}

impl Upstream {
    /// The next target: the one that is farthest behind its share.
    fn next(&self) -> Option<String> {
        let mut targets = self.targets.lock().unwrap();
        let total: i64 = targets.iter().map(|(_, weight, _)| weight).sum();
        for (_, weight, behind) in targets.iter_mut() {
            *behind += *weight;
        }
        let (target, _, behind) = targets.iter_mut().max_by_key(|(_, _, behind)| *behind)?;
        *behind -= total;
        Some(target.clone())
    }
}

async fn serve(
    State(proxy): State<Arc<Proxy>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY).await else {
        return proxy.own(Exit::message(413, "Payload too large"));
    };
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let mut passage = Passage {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query,
        headers: parts.headers,
        body,
        host: None,
        replaced_path: None,
        consumer: None,
    };
    let config = Arc::clone(&proxy.config.read().unwrap());
    let asked = passage.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let host = asked.rsplit_once(':').map_or(asked.as_str(), |(host, _)| host);
    let Some((route, length)) = config.route(&passage, host) else {
        return proxy.own(Exit::message(404, "no Route matched with those values"));
    };
    let mut response = match proxy.answer(&config, route, length, &mut passage, &asked, peer).await {
        Ok(response) => response,
        Err(exit) => proxy.own(exit),
    };
    run::respond(&config, &route.entity, passage.consumer.as_ref(), &mut response);
    response
}

impl Proxy {
    async fn answer(
        &self,
        config: &Config,
        route: &Route,
        length: usize,
        passage: &mut Passage,
        asked: &str,
        peer: SocketAddr,
    ) -> Result<Response, Exit> {
        if texts(&route.entity, "protocols") == ["https"] {
            return Err(Exit::https(&route.entity, asked, passage));
        }
        let whole = passage.path.clone();
        run::request(config, &route.entity, passage)?;
        let Some(service) = config.service(route) else {
            return Err(Exit::message(503, "no Service found with those values"));
        };
        let rest = if route.entity["strip_path"] == json!(true) { &whole[length..] } else { &whole };
        let path = passage.replaced_path.take().unwrap_or_else(|| rest.to_owned());
        passage.path = joined(service["path"].as_str().unwrap_or_default(), &path);
        if route.entity["preserve_host"] == json!(true) {
            passage.host.get_or_insert_with(|| asked.to_owned());
        }
        forwarded(&mut passage.headers, peer, asked, &whole);
        if service["protocol"] != "http" {
            return Err(Exit::message(502, "this peer asks services in plain HTTP only"));
        }
        self.ask(config, service, passage).await
    }

    /// Asks the service; the next target, if one cannot be reached.
    async fn ask(&self, config: &Config, service: &Value, passage: &Passage) -> Result<Response, Exit> {
        let name = service["host"].as_str().unwrap_or_default();
        let port = service["port"].as_u64().unwrap_or(80);
        let upstream = config.upstreams.iter().find(|upstream| upstream.entity["name"] == name);
        for _ in 0..=service["retries"].as_u64().unwrap_or_default() {
            let target = match upstream {
                Some(upstream) => upstream.next(),
                None => Some(format!("{name}:{port}")),
            };
            let Some(target) = target else {
                return Err(Exit::message(503, "failure to get a peer from the ring-balancer"));
            };
            let own_host = upstream.and_then(|upstream| upstream.entity["host_header"].as_str()).unwrap_or(&target);
            let host = passage.host.as_deref().unwrap_or_else(|| own_host.trim_end_matches(":80"));
            let Some(address) = self.resolve(&target) else {
                return Err(Exit::message(503, "name resolution failed"));
            };
            let mut url = url::Url::parse(&format!("http://{address}{}", passage.path)).unwrap();
            if !passage.query.is_empty() {
                url.query_pairs_mut().extend_pairs(&passage.query);
            }
            let mut headers = passage.headers.clone();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            let timeout = Duration::from_millis(service["read_timeout"].as_u64().unwrap_or(60_000));
            let request = self.client.request(passage.method.clone(), url).headers(headers).timeout(timeout);
            match request.body(passage.body.clone()).send().await {
                Ok(answer) => return Ok(self.relayed(answer).await),
                Err(error) if error.is_timeout() => {
                    return Err(Exit::message(504, "The upstream server is timing out"));
                }
                Err(_) => {}
            }
        }
        Err(Exit::message(502, "An invalid response was received from the upstream server"))
    }

    fn resolve(&self, target: &str) -> Option<SocketAddr> {
        if let Ok(address) = target.parse() {
            return Some(address);
        }
        let (host, port) = target.rsplit_once(':')?;
        let address = self.hosts.get(host).copied().or_else(|| host.parse().ok())?;
        Some(SocketAddr::new(address, port.parse().ok()?))
    }

    async fn relayed(&self, answer: reqwest::Response) -> Response {
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for hop in [header::TRANSFER_ENCODING, header::CONNECTION, header::CONTENT_LENGTH] {
            headers.remove(hop);
        }
        headers.insert(header::VIA, HeaderValue::from_str(&format!("1.1 kong/{}", self.version)).unwrap());
        let body = answer.bytes().await.unwrap_or_default();
        (status, headers, Body::from(body)).into_response()
    }
}

/// The paths of a service and of a request, with one slash between them (`path_handling: v0`).
fn joined(service: &str, path: &str) -> String {
    match (service.trim_end_matches('/'), path.trim_start_matches('/')) {
        ("", path) => format!("/{path}"),
        (_, "") if path.is_empty() => service.to_owned(),
        (service, path) => format!("{service}/{path}"),
    }
}

/// What a service is told of the request's way; headers that belong to the connection go no further.
fn forwarded(headers: &mut HeaderMap, peer: SocketAddr, host: &str, path: &str) {
    for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE] {
        headers.remove(hop);
    }
    let ip = peer.ip().to_string();
    for (name, value) in [
        ("x-real-ip", ip.as_str()),
        ("x-forwarded-for", &ip),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", host),
        ("x-forwarded-path", path),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl Exit {
    /// A route that is for HTTPS alone.
    fn https(route: &Value, host: &str, passage: &Passage) -> Self {
        let status = route["https_redirect_status_code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let status = status.unwrap_or(426);
        let mut exit = Self::message(status, "Please use HTTPS protocol");
        match status {
            426 => exit.headers.push((header::UPGRADE, "TLS/1.2, HTTP/1.1".to_owned())),
            _ => exit.headers.push((header::LOCATION, format!("https://{host}{}", passage.path))),
        }
        exit
    }
}

impl IntoResponse for Exit {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap();
        let mut response = (status, self.body).into_response();
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in self.headers {
            response.headers_mut().append(name, HeaderValue::from_str(&value).unwrap());
        }
        response
    }
}
