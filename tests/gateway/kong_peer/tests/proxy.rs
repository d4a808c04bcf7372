//! The proxy: routes, services, and what plugins do on the way.

use super::{Rig, backend, eventually, pod};
use crate::kong_peer::DataPlane;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Asks with headers; gives status, headers and body.
async fn ask(
    rig: &Rig,
    data_plane: &DataPlane,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, BTreeMap<String, String>, Value) {
    let mut request = rig.client.request(Method::GET, format!("http://{}{path}", data_plane.proxy_addr));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.collect();
    (status, headers, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

/// Until the data plane has what the control plane has.
async fn in_sync(rig: &Rig, data_plane: &DataPlane) {
    let nonce = Uuid::new_v4().to_string();
    assert!(rig.canary(data_plane, &nonce, std::time::Duration::from_secs(20)).await);
    let path = format!("/.metalgate/{nonce}");
    eventually("the canary is gone", async || rig.proxied(data_plane, &path).await.1["message"] != nonce.as_str())
        .await;
}

#[tokio::test]
async fn routes_by_host_path_method_and_header() {
    let rig = Rig::new(60).await;
    let data_plane = rig.started(rig.data_plane(2)).await;
    let services = ["prefix", "pattern", "host", "header", "strip"];
    let mut backends = Vec::new();
    for (service, number) in services.into_iter().zip(10..) {
        backends.push(backend(service, pod(60, number, 8080)).await);
        rig.put(&format!("/services/{service}"), json!({ "host": format!("127.0.60.{number}"), "port": 8080 })).await;
    }
    let route = async |service: &str, body: Value| {
        let mut body = body;
        body["service"] = json!({ "name": service });
        body["protocols"] = json!(["http"]);
        rig.put(&format!("/routes/{service}"), body).await;
    };
    route("prefix", json!({ "paths": ["/a"], "strip_path": false })).await;
    route("pattern", json!({ "paths": ["~/a/[0-9]+$"], "strip_path": false, "methods": ["GET"] })).await;
    route("host", json!({ "hosts": ["*.example.com"], "preserve_host": true })).await;
    route("header", json!({ "paths": ["/a"], "headers": { "x-version": ["2"] } })).await;
    route("strip", json!({ "paths": ["/strip"], "strip_path": true })).await;
    in_sync(&rig, &data_plane).await;

    let served = async |path: &str, headers: &[(&str, &str)]| {
        let (_, _, body) = ask(&rig, &data_plane, path, headers).await;
        (body["service"].clone(), body["uri"].clone(), body["headers"]["host"].clone())
    };
    let own = |number: u8| json!(format!("127.0.60.{number}:8080"));
    assert_eq!(served("/a/b?c=d", &[]).await, (json!("prefix"), json!("/a/b?c=d"), own(10)));
    assert_eq!(served("/ab", &[]).await.0, "prefix");
    assert_eq!(served("/a/17", &[]).await.0, "pattern");
    assert_eq!(served("/a/17x", &[]).await.0, "prefix");
    assert_eq!(served("/a/17", &[("x-version", "2")]).await.0, "header");
    assert_eq!(
        served("/x", &[("host", "shop.example.com")]).await,
        (json!("host"), json!("/x"), json!("shop.example.com"))
    );
    assert_eq!(served("/strip/x", &[]).await, (json!("strip"), json!("/x"), own(14)));
    assert_eq!(served("/strip", &[]).await.1, "/");
    let (status, headers, body) = ask(&rig, &data_plane, "/x", &[]).await;
    assert_eq!((status, &body["message"]), (404, &json!("no Route matched with those values")));
    assert_eq!(headers["server"], "kong/3.9.3");
    let (_, headers, _) = ask(&rig, &data_plane, "/a", &[]).await;
    assert_eq!(headers["via"], "1.1 kong/3.9.3");

    rig.put("/services/strip", json!({ "host": "127.0.60.14", "port": 8080, "path": "/api" })).await;
    rig.put("/routes/tls", json!({ "paths": ["/tls"], "protocols": ["https"], "https_redirect_status_code": 308 }))
        .await;
    in_sync(&rig, &data_plane).await;
    assert_eq!(served("/strip/x", &[]).await.1, "/api/x");
    let (status, headers, _) = ask(&rig, &data_plane, "/tls", &[("host", "shop.example.org")]).await;
    assert_eq!((status, headers["location"].as_str()), (308, "https://shop.example.org/tls"));
}

#[tokio::test]
async fn weights_share_requests_and_unreachable_targets_are_passed_over() {
    let rig = Rig::new(61).await;
    let mut settings = rig.data_plane(2);
    settings.hosts.insert("green.shop.svc".to_owned(), [127, 0, 61, 11].into());
    let data_plane = rig.started(settings).await;
    let _blue = backend("blue", pod(61, 10, 8080)).await;
    let _green = backend("green", pod(61, 11, 8080)).await;
    rig.put("/upstreams/shop", json!({})).await;
    for (target, weight) in [("127.0.61.10:8080", 80), ("green.shop.svc:8080", 20), ("127.0.61.12:8080", 0)] {
        let (status, _) =
            rig.admin("POST", "/upstreams/shop/targets", json!({ "target": target, "weight": weight })).await;
        assert_eq!(status, 201);
    }
    rig.put("/services/shop", json!({ "host": "shop" })).await;
    rig.put("/services/shop/routes/shop", json!({ "paths": ["/shop"], "protocols": ["http"] })).await;
    in_sync(&rig, &data_plane).await;
    let mut counts = BTreeMap::new();
    let count = async |counts: &mut BTreeMap<String, u32>| {
        for _ in 0..100 {
            let (status, _, body) = ask(&rig, &data_plane, "/shop", &[]).await;
            assert_eq!(status, 200);
            *counts.entry(body["service"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    };
    count(&mut counts).await;
    assert_eq!((counts["blue"], counts["green"]), (80, 20));
    let (_, _, body) = ask(&rig, &data_plane, "/shop", &[]).await;
    assert!(body["headers"]["host"] == "127.0.61.10:8080" || body["headers"]["host"] == "green.shop.svc:8080");

    let (_, changed) = rig.admin("PUT", "/upstreams/shop/targets/127.0.61.12:8080", json!({ "weight": 100 })).await;
    assert_eq!(changed["weight"], 100);
    in_sync(&rig, &data_plane).await;
    count(&mut BTreeMap::new()).await;
    for target in ["127.0.61.10:8080", "green.shop.svc:8080"] {
        rig.admin("DELETE", &format!("/upstreams/shop/targets/{target}"), Value::Null).await;
    }
    in_sync(&rig, &data_plane).await;
    assert_eq!(ask(&rig, &data_plane, "/shop", &[]).await.0, 502);
    rig.admin("DELETE", "/upstreams/shop/targets/127.0.61.12:8080", Value::Null).await;
    in_sync(&rig, &data_plane).await;
    assert_eq!(ask(&rig, &data_plane, "/shop", &[]).await.0, 503);
}

#[tokio::test]
async fn keys_and_groups_open_a_route() {
    let rig = Rig::new(62).await;
    let data_plane = rig.started(rig.data_plane(2)).await;
    let _backend = backend("web", pod(62, 10, 8080)).await;
    rig.put("/services/web", json!({ "host": "127.0.62.10", "port": 8080 })).await;
    rig.put("/services/web/routes/web", json!({ "paths": ["/"], "protocols": ["http"] })).await;
    for (name, key) in [("alice", "key-a"), ("bob", "key-b")] {
        rig.put(&format!("/consumers/{name}"), json!({})).await;
        rig.put(&format!("/consumers/{name}/key-auth/{}", Uuid::new_v4()), json!({ "key": key })).await;
    }
    rig.put("/consumers/alice/acls/web", json!({})).await;
    let config = json!({ "key_names": ["x-key"], "hide_credentials": true });
    let plugins = [("key-auth", config), ("acl", json!({ "allow": ["web"] }))];
    for (name, config) in plugins {
        let plugin = json!({ "name": name, "route": { "name": "web" }, "config": config });
        rig.put(&format!("/plugins/{}", Uuid::new_v4()), plugin).await;
    }
    in_sync(&rig, &data_plane).await;
    let (status, headers, body) = ask(&rig, &data_plane, "/", &[]).await;
    assert_eq!((status, &body["message"]), (401, &json!("No API key found in request")));
    assert!(headers["www-authenticate"].starts_with("Key"));
    assert_eq!(ask(&rig, &data_plane, "/", &[("x-key", "wrong")]).await.0, 401);
    let (status, _, body) = ask(&rig, &data_plane, "/", &[("x-key", "key-b")]).await;
    assert_eq!((status, &body["message"]), (403, &json!("You cannot consume this service")));
    let (status, _, body) = ask(&rig, &data_plane, "/?x-key=key-a&q=1", &[]).await;
    assert_eq!((status, &body["uri"]), (200, &json!("/?q=1")));
    assert_eq!(body["headers"]["x-consumer-username"], "alice");
    let (status, _, body) = ask(&rig, &data_plane, "/", &[("x-key", "key-a")]).await;
    assert_eq!((status, body["headers"].get("x-key")), (200, None));
}

#[tokio::test]
async fn headers_change_both_ways() {
    let rig = Rig::new(63).await;
    let data_plane = rig.started(rig.data_plane(2)).await;
    let _backend = backend("web", pod(63, 10, 8080)).await;
    rig.put("/services/web", json!({ "host": "127.0.63.10", "port": 8080 })).await;
    rig.put("/services/web/routes/web", json!({ "paths": ["/"], "protocols": ["http"] })).await;
    let changes = json!({
        "remove": { "headers": ["x-secret"] },
        "replace": { "headers": ["x-there:new", "x-absent:new"] },
        "add": { "headers": ["x-there:not", "x-added:yes"] },
        "append": { "headers": ["x-list:two"] },
    });
    for name in ["request-transformer", "response-transformer"] {
        let plugin = json!({ "name": name, "route": { "name": "web" }, "config": changes });
        rig.put(&format!("/plugins/{}", Uuid::new_v4()), plugin).await;
    }
    in_sync(&rig, &data_plane).await;
    let given = [("x-secret", "s"), ("x-there", "old"), ("x-list", "one")];
    let (status, headers, body) = ask(&rig, &data_plane, "/", &given).await;
    assert_eq!(status, 200);
    let seen = &body["headers"];
    assert_eq!((&seen["x-there"], &seen["x-added"]), (&json!("new"), &json!("yes")));
    assert_eq!((seen.get("x-secret"), seen.get("x-absent")), (None, None));
    assert_eq!((headers["x-added"].as_str(), headers["x-list"].as_str()), ("yes", "two"));
    assert!(!headers.contains_key("x-absent"));

    // What the peer cannot do, it does not pass over.
    rig.put(&format!("/plugins/{}", Uuid::new_v4()), json!({ "name": "cors", "route": { "name": "web" } })).await;
    in_sync(&rig, &data_plane).await;
    let (status, _, body) = ask(&rig, &data_plane, "/", &[]).await;
    assert_eq!((status, &body["message"]), (500, &json!("this peer does not run plugin cors")));
}
