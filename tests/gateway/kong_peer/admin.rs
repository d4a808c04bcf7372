//! The control plane's Admin API, as far as a deployer needs it: entities, the list of data planes, and what the node
//! says of itself (kong/api). Bodies are JSON; Kong would take forms as well.

use super::control_plane::Plane;
use super::entities::{TABLES, Table, table};
use super::plugins;
use super::schema::{Object, Refusal};
use super::store::{Page, Parent, paged};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn router(plane: Arc<Plane>) -> Router {
    Router::new().fallback(serve).with_state(plane)
}

async fn serve(State(plane): State<Arc<Plane>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path: Vec<String> = uri.path().split('/').filter(|part| !part.is_empty()).map(decode).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let query = uri.query().unwrap_or_default();
    let mut query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let page = Page { tags: query.remove("tags"), size: query.remove("size"), offset: query.remove("offset") };
    let (status, body) = match json_object(&headers, &body) {
        Ok(object) => answer(&plane, &method, &path, &page, object),
        Err(refusal) => Err(refusal),
    }
    .unwrap_or_else(|refusal| (refusal.status, refusal.body));
    let server = [(header::SERVER, format!("kong/{}", plane.settings.version))];
    let status = StatusCode::from_u16(status).unwrap();
    match status {
        StatusCode::NO_CONTENT => (status, server).into_response(),
        _ => (status, server, axum::Json(body)).into_response(),
    }
}

/// Percent-encoding of one part of a path.
fn decode(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = std::str::from_utf8(tail.get(..2).unwrap_or_default()).unwrap_or_default();
        match u8::from_str_radix(escaped, 16) {
            Ok(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn json_object(headers: &HeaderMap, body: &[u8]) -> Result<Object, Refusal> {
    if body.is_empty() {
        return Ok(Object::new());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(Refusal::message(415, "Unsupported media type"));
    }
    serde_json::from_slice(body).map_err(|_| Refusal::message(400, "Cannot parse JSON body"))
}

type Answer = Result<(u16, Value), Refusal>;

fn answer(plane: &Plane, method: &Method, path: &[&str], page: &Page, body: Object) -> Answer {
    let is_get = method == Method::GET;
    match path {
        [] if is_get => Ok((200, node(plane))),
        ["status"] if is_get => Ok((200, status())),
        ["clustering", "data-planes"] if is_get => Ok((200, paged(plane.rows(), page, "/clustering/data-planes")?)),
        ["clustering", "status"] if is_get => {
            let short = |row: Value| {
                let wanted = ["config_hash", "hostname", "ip", "last_seen"];
                let fields = wanted.map(|field| (field.to_owned(), row[field].clone()));
                (row["id"].as_str().unwrap_or_default().to_owned(), Value::Object(Object::from_iter(fields)))
            };
            Ok((200, Value::Object(plane.rows().into_iter().map(short).collect())))
        }
        ["plugins", "enabled"] if is_get => Ok((200, json!({ "enabled_plugins": plugins::NAMES }))),
        [name] => collection(plane, method, page, body, top(name)?, None, &format!("/{name}")),
        [name, key] => entity(plane, method, key, body, top(name)?, None),
        [name, key, child] => {
            let (parent, children) = family(plane, name, key, child)?;
            let url = format!("/{name}/{}/{child}", parent.id);
            collection(plane, method, page, body, children, Some(parent), &url)
        }
        [name, key, child, child_key] => {
            let (parent, children) = family(plane, name, key, child)?;
            entity(plane, method, child_key, body, children, Some(parent))
        }
        _ => Err(Refusal::not_found()),
    }
}

/// A kind of entity that has URLs of its own; targets have them below their upstream only.
fn top(path: &str) -> Result<&'static Table, Refusal> {
    let table = TABLES.into_iter().find(|table| table.path == path && path != "targets");
    table.ok_or_else(Refusal::not_found)
}

/// The entity in the URL, and the kind of what belongs to it.
fn family(plane: &Plane, name: &str, key: &str, child: &str) -> Result<(Parent, &'static Table), Refusal> {
    let (field, children) = match (name, child) {
        ("services", "routes") => ("service", "routes"),
        ("services", "plugins") => ("service", "plugins"),
        ("routes", "plugins") => ("route", "plugins"),
        ("consumers", "plugins") => ("consumer", "plugins"),
        ("consumers", "key-auth") => ("consumer", "keyauth_credentials"),
        ("consumers", "acls") => ("consumer", "acls"),
        ("upstreams", "targets") => ("upstream", "targets"),
        ("certificates", "snis") => ("certificate", "snis"),
        _ => return Err(Refusal::not_found()),
    };
    let store = plane.store();
    let parent = store.find(top(name)?, key, None).ok_or_else(Refusal::not_found)?;
    let id = parent["id"].as_str().unwrap_or_default().to_owned();
    Ok((Parent { field, id }, table(children)))
}

fn collection(
    plane: &Plane,
    method: &Method,
    page: &Page,
    body: Object,
    table: &'static Table,
    parent: Option<Parent>,
    url: &str,
) -> Answer {
    match *method {
        Method::GET => Ok((200, plane.store().page(table, parent.as_ref(), page, url)?)),
        Method::POST => plane.change(|store| Ok((201, store.post(table, body, parent.as_ref())?))),
        _ => Err(Refusal::message(405, "Method not allowed")),
    }
}

fn entity(
    plane: &Plane,
    method: &Method,
    key: &str,
    body: Object,
    table: &'static Table,
    parent: Option<Parent>,
) -> Answer {
    let parent = parent.as_ref();
    let known = plane.store().find(table, key, parent).cloned();
    let id = known.as_ref().and_then(|known| known["id"].as_str());
    // What belongs to something is there or is not; but DELETE of `/services/NAME` says nothing if it is not.
    let wants_it = match method.as_str() {
        // PUT makes no target: https://github.com/Kong/kong/issues/12987.
        "PUT" => table.name == "targets",
        "DELETE" => parent.is_some(),
        _ => true,
    };
    match (method.as_str(), id) {
        (_, None) if wants_it => Err(Refusal::not_found()),
        ("DELETE", None) => Ok((204, Value::Null)),
        ("GET", Some(_)) => {
            let store = plane.store();
            Ok((200, store.shown(table, &known.unwrap_or_default())))
        }
        ("PUT", Some(id)) if table.name == "targets" => plane.change(|store| Ok((200, store.patch(table, id, body)?))),
        ("PUT", _) => plane.change(|store| Ok((200, store.put(table, key, body, parent)?))),
        ("PATCH", Some(id)) => plane.change(|store| Ok((200, store.patch(table, id, body)?))),
        ("DELETE", Some(id)) => plane.change(|store| store.delete(table, id).map(|()| (204, Value::Null))),
        _ => Err(Refusal::message(405, "Method not allowed")),
    }
}

fn node(plane: &Plane) -> Value {
    let available: BTreeMap<_, _> = plugins::NAMES.iter().map(|name| (*name, json!({ "priority": 0 }))).collect();
    json!({
        "version": plane.settings.version,
        "edition": "community",
        "tagline": "Welcome to kong",
        "hostname": "control-plane",
        "node_id": plane.node_id,
        "lua_version": "LuaJIT 2.1.0-20231117",
        "configuration": { "role": "control_plane", "database": "postgres" },
        "plugins": { "available_on_server": available, "enabled_in_cluster": plane.store().plugins() },
    })
}

fn status() -> Value {
    json!({
        "database": { "reachable": true },
        "memory": { "lua_shared_dicts": {}, "workers_lua_vms": [] },
        "server": { "connections_active": 1, "total_requests": 1 },
    })
}
