//! The Admin API: what is accepted, and the words of what is refused.

use super::{Authority, Rig, shared_identity};
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn put_makes_or_replaces_an_entity_under_its_name() {
    let rig = Rig::new(40).await;
    let body = json!({ "host": "web.example.com", "retries": 2, "tags": ["metalgate"] });
    let first = rig.put("/services/web", body).await;
    let again = rig.put("/services/web", json!({ "host": "web.example.org", "name": "another" })).await;
    assert_eq!(first["id"], again["id"]);
    // What is not said has its default again, and the name is the URL's.
    assert_eq!((&again["retries"], &again["tags"], &again["name"]), (&json!(5), &Value::Null, &json!("web")));
    assert_eq!((&again["port"], &again["protocol"], &again["tls_verify"]), (&json!(80), &json!("http"), &Value::Null));

    let id = again["id"].as_str().unwrap();
    let (status, got) = rig.admin("GET", &format!("/services/{id}"), Value::Null).await;
    assert_eq!((status, got), (200, again.clone()));
    let (status, patched) = rig.admin("PATCH", "/services/web", json!({ "port": 8080 })).await;
    assert_eq!((status, &patched["port"], &patched["host"]), (200, &json!(8080), &json!("web.example.org")));

    let route = rig.put("/services/web/routes/shop", json!({ "paths": ["/shop"] })).await;
    assert_eq!(route["service"]["id"], again["id"]);
    assert_eq!(route["protocols"], json!(["http", "https"]));
    let (_, list) = rig.admin("GET", "/services/web/routes", Value::Null).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(rig.admin("GET", "/services/absent/routes", Value::Null).await.0, 404);

    // A service goes after its routes; what is gone may be deleted again.
    let (status, refused) = rig.admin("DELETE", "/services/web", Value::Null).await;
    assert_eq!((status, &refused["code"]), (400, &json!(4)));
    assert_eq!(refused["message"], "an existing 'routes' entity references this 'services' entity");
    for path in ["/routes/shop", "/services/web", "/services/web"] {
        assert_eq!(rig.admin("DELETE", path, Value::Null).await.0, 204, "{path}");
    }
    let (status, absent) = rig.admin("GET", "/services/web", Value::Null).await;
    assert_eq!((status, absent), (404, json!({ "message": "Not found" })));
}

#[tokio::test]
async fn what_does_not_fit_the_schema_is_refused_in_kongs_words() {
    let rig = Rig::new(41).await;
    let cases = [
        ("/services/s", json!({ "host": "h", "foo": 1 }), "foo: unknown field"),
        ("/services/s", json!({}), "host: required field missing"),
        ("/services/s", json!({ "host": "h:80" }), "host: must not have a port"),
        ("/services/s", json!({ "host": "h", "port": "80" }), "port: expected an integer"),
        ("/services/s", json!({ "host": "h", "path": "x" }), "path: should start with: /"),
        (
            "/services/s",
            json!({ "host": "h", "tags": ["a/b"] }),
            "tags.1: invalid tag 'a/b': expected printable ascii (except `,` and `/`) or valid utf-8 sequences",
        ),
        (
            "/services/a%20b",
            json!({ "host": "h" }),
            "name: invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
        ),
        ("/routes/r", json!({ "paths": ["a"] }), "paths.1: should start with: / (fixed path) or ~/ (regex path)"),
        ("/routes/r", json!({ "paths": ["/a", "/b//c"] }), "paths.2: must not have empty segments"),
        ("/routes/r", json!({ "paths": ["/a"], "methods": ["get"] }), "methods.1: invalid value: get"),
        (
            "/routes/r",
            json!({}),
            "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'",
        ),
        (
            "/routes/r",
            json!({ "protocols": ["http"] }),
            "must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'",
        ),
        (
            "/routes/r",
            json!({ "paths": ["/a"], "https_redirect_status_code": 303 }),
            "https_redirect_status_code: expected one of: 426, 301, 302, 307, 308",
        ),
        ("/upstreams/u_1..x", json!({}), "name: Invalid name; must be a valid hostname"),
        ("/upstreams/10.0.0.1", json!({}), "name: Invalid name; no ip addresses allowed"),
        (
            "/plugins/5f1d7e76-2fed-4806-a6af-869984f025cb",
            json!({ "name": "ai-proxy-advanced" }),
            "name: plugin 'ai-proxy-advanced' not enabled; add it to the 'plugins' configuration property",
        ),
        (
            "/plugins/5f1d7e76-2fed-4806-a6af-869984f025cb",
            json!({ "name": "key-auth", "config": { "keys": ["a"] } }),
            "config.keys: unknown field",
        ),
        (
            "/plugins/5f1d7e76-2fed-4806-a6af-869984f025cb",
            json!({ "name": "request-termination", "config": { "message": "a", "body": "b" } }),
            "config: message cannot be used with content_type or body",
        ),
    ];
    for (path, body, words) in cases {
        let (status, refused) = rig.admin("PUT", path, body).await;
        assert_eq!(
            (status, &refused["code"], &refused["name"]),
            (400, &json!(2), &json!("schema violation")),
            "{path}"
        );
        assert_eq!(refused["message"], format!("schema violation ({words})"));
    }
    // Two at once; and a value that says what is true anyway is refused where there is no TLS.
    let (_, refused) = rig.admin("PUT", "/services/s", json!({ "host": "h", "tls_verify": false })).await;
    let words = "2 schema violations (failed conditional validation given value of field 'protocol'; \
        tls_verify: value must be null)";
    assert_eq!(refused["message"], words);
    let fields = json!({
        "tls_verify": "value must be null",
        "@entity": ["failed conditional validation given value of field 'protocol'"],
    });
    assert_eq!(refused["fields"], fields);
    rig.put("/services/s", json!({ "host": "h", "protocol": "https", "tls_verify": false })).await;

    let url = format!("http://{}/services/s", rig.control_plane.admin_addr);
    let broken = rig.client.put(&url).header("content-type", "application/json").body("{").send().await.unwrap();
    assert_eq!(broken.status(), 400);
    assert_eq!(broken.json::<Value>().await.unwrap(), json!({ "message": "Cannot parse JSON body" }));
    assert_eq!(rig.admin("PUT", "/services", json!({ "host": "h" })).await.0, 405);
    assert_eq!(rig.admin("GET", "/nothing", Value::Null).await.0, 404);
}

#[tokio::test]
async fn targets_are_made_by_post_and_changed_by_put() {
    let rig = Rig::new(42).await;
    rig.put("/upstreams/shop", json!({})).await;
    let path = "/upstreams/shop/targets";
    // Kong's PUT of a target is no upsert: https://github.com/Kong/kong/issues/12987.
    assert_eq!(rig.admin("PUT", &format!("{path}/10.0.0.1:80"), json!({ "weight": 1 })).await.0, 404);
    let (status, target) = rig.admin("POST", path, json!({ "target": "10.0.0.1:80", "weight": 1 })).await;
    assert_eq!((status, &target["weight"]), (201, &json!(1)));
    let (status, refused) = rig.admin("POST", path, json!({ "target": "10.0.0.1:80" })).await;
    assert_eq!((status, &refused["code"], &refused["name"]), (409, &json!(5), &json!("unique constraint violation")));
    let (status, changed) = rig.admin("PUT", &format!("{path}/10.0.0.1:80"), json!({ "weight": 7 })).await;
    assert_eq!((status, &changed["weight"], &changed["id"]), (200, &json!(7), &target["id"]));
    // Without a port it is 8000.
    let (_, target) = rig.admin("POST", path, json!({ "target": "web.example.com" })).await;
    assert_eq!(target["target"], "web.example.com:8000");
    let (status, refused) = rig.admin("POST", path, json!({ "target": "10.0.0.2:80", "weight": 65536 })).await;
    assert_eq!((status, &refused["fields"]["weight"]), (400, &json!("value should be between 0 and 65535")));
    assert_eq!(rig.admin("DELETE", &format!("{path}/10.0.0.1%3A80"), Value::Null).await.0, 204);
    assert_eq!(rig.admin("DELETE", &format!("{path}/10.0.0.1:80"), Value::Null).await.0, 404);
    assert_eq!(rig.admin("GET", "/targets", Value::Null).await.0, 404);
    assert_eq!(rig.admin("DELETE", "/upstreams/shop", Value::Null).await.0, 204);
}

#[tokio::test]
async fn references_are_checked_and_may_be_names() {
    let rig = Rig::new(43).await;
    let absent = Uuid::new_v4().to_string();
    let (status, refused) =
        rig.admin("PUT", "/routes/r", json!({ "paths": ["/a"], "service": { "id": absent } })).await;
    assert_eq!((status, &refused["code"], &refused["name"]), (400, &json!(4), &json!("foreign key violation")));
    let (status, refused) =
        rig.admin("PUT", "/routes/r", json!({ "paths": ["/a"], "service": { "name": "absent" } })).await;
    assert_eq!((status, &refused["code"]), (400, &json!(13)));
    let service = rig.put("/services/web", json!({ "url": "https://web.example.com/api" })).await;
    assert_eq!((&service["port"], &service["path"]), (&json!(443), &json!("/api")));
    let route = rig.put("/routes/r", json!({ "paths": ["/a"], "service": { "name": "web" } })).await;
    assert_eq!(route["service"], json!({ "id": service["id"] }));

    let plugin = json!({ "name": "key-auth", "route": { "name": "r" } });
    rig.put(&format!("/plugins/{}", Uuid::new_v4()), plugin.clone()).await;
    let (status, refused) = rig.admin("PUT", &format!("/plugins/{}", Uuid::new_v4()), plugin).await;
    assert_eq!((status, &refused["code"]), (409, &json!(5)));
    rig.admin("DELETE", "/routes/r", Value::Null).await;
    let (_, plugins) = rig.admin("GET", "/plugins", Value::Null).await;
    assert_eq!(plugins["data"], json!([]));
}

#[tokio::test]
async fn consumers_have_keys_and_groups() {
    let rig = Rig::new(44).await;
    for name in ["alice", "bob"] {
        rig.put(&format!("/consumers/{name}"), json!({ "tags": ["metalgate"] })).await;
    }
    let id = Uuid::new_v4();
    let credential = rig.put(&format!("/consumers/alice/key-auth/{id}"), json!({ "key": "secret-1" })).await;
    assert_eq!((&credential["id"], &credential["key"]), (&json!(id.to_string()), &json!("secret-1")));
    let (status, refused) =
        rig.admin("PUT", &format!("/consumers/bob/key-auth/{}", Uuid::new_v4()), json!({ "key": "secret-1" })).await;
    assert_eq!((status, &refused["message"]), (409, &json!("UNIQUE violation detected on '{key=\"secret-1\"}'")));
    rig.put("/consumers/alice/acls/shop", json!({})).await;
    rig.put("/consumers/bob/acls/shop", json!({})).await;
    let (_, list) = rig.admin("GET", "/consumers/alice/acls", Value::Null).await;
    assert_eq!(list["data"][0]["group"], "shop");
    let (_, list) = rig.admin("GET", "/key-auths?tags=metalgate", Value::Null).await;
    assert_eq!(list["data"], json!([]));
    let (_, list) = rig.admin("GET", "/key-auths", Value::Null).await;
    assert_eq!(list["data"][0]["consumer"], credential["consumer"]);
    let (_, list) = rig.admin("GET", "/acls", Value::Null).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert_eq!(rig.admin("DELETE", &format!("/consumers/bob/key-auth/{id}"), Value::Null).await.0, 404);
    assert_eq!(rig.admin("DELETE", "/key-auths/absent", Value::Null).await.0, 204);
    assert_eq!(rig.admin("PUT", "/consumers/nobody/key-auth/x", json!({})).await.0, 404);
    assert_eq!(rig.admin("DELETE", "/consumers/alice", Value::Null).await.0, 204);
    rig.put(&format!("/consumers/bob/key-auth/{}", Uuid::new_v4()), json!({ "key": "secret-1" })).await;
}

#[tokio::test]
async fn certificates_have_names_and_their_own_key() {
    let rig = Rig::new(45).await;
    let (good, other) = (shared_identity(), Authority::new().identity());
    let id = Uuid::new_v4();
    let body = json!({ "cert": good.cert, "key": good.key, "snis": ["b.example.com", "*.a.example.com"] });
    let certificate = rig.put(&format!("/certificates/{id}"), body).await;
    assert_eq!(certificate["snis"], json!(["*.a.example.com", "b.example.com"]));
    let sni = rig.put("/snis/c.example.com", json!({ "certificate": { "id": id.to_string() } })).await;
    assert_eq!(sni["name"], "c.example.com");
    rig.put("/snis/*", json!({ "certificate": { "id": id.to_string() } })).await;
    for (name, words) in
        [("10.0.0.1", "must not be an IP"), ("a*b", "wildcard must be leftmost or rightmost character")]
    {
        let (status, refused) =
            rig.admin("PUT", &format!("/snis/{name}"), json!({ "certificate": { "id": id.to_string() } })).await;
        assert_eq!((status, &refused["fields"]["name"]), (400, &json!(words)));
    }
    let body = json!({ "cert": good.cert, "key": good.key });
    let kept = rig.put(&format!("/certificates/{id}"), body).await;
    assert_eq!(kept["snis"].as_array().unwrap().len(), 4);
    let body = json!({ "cert": good.cert, "key": other.key });
    let (status, refused) = rig.admin("PUT", &format!("/certificates/{id}"), body).await;
    assert_eq!((status, &refused["message"]), (400, &json!("schema violation (certificate does not match key)")));
    let body = json!({ "cert": other.cert, "key": other.key, "snis": ["b.example.com"] });
    let (status, refused) = rig.admin("PUT", &format!("/certificates/{}", Uuid::new_v4()), body).await;
    let words = format!("b.example.com already associated with existing certificate '{id}'");
    assert_eq!((status, &refused["fields"]["snis"]), (400, &json!(words)));
    rig.admin("DELETE", &format!("/certificates/{id}"), Value::Null).await;
    let (_, snis) = rig.admin("GET", "/snis", Value::Null).await;
    assert_eq!(snis["data"], json!([]));
}

#[tokio::test]
async fn lists_have_pages_and_can_be_asked_for_tags() {
    let rig = Rig::new(46).await;
    for number in 0..25 {
        let tags = if number % 2 == 0 { json!(["metalgate", "even"]) } else { json!(["metalgate"]) };
        rig.put(&format!("/services/s{number}"), json!({ "host": "h", "tags": tags })).await;
    }
    rig.put("/services/foreign", json!({ "host": "h" })).await;
    let all = async |query: &str| {
        let (mut names, mut path) = (Vec::new(), format!("/services?{query}"));
        loop {
            let (status, page) = rig.admin("GET", &path, Value::Null).await;
            assert_eq!(status, 200, "{page}");
            names.extend(page["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()));
            assert_eq!(page["next"].is_null(), page.get("offset").is_none());
            let Some(next) = page["next"].as_str() else { break names };
            path = next.to_owned();
        }
    };
    assert_eq!(all("size=10").await.len(), 26);
    assert_eq!(all("size=7&tags=metalgate").await.len(), 25);
    assert_eq!(all("size=1&tags=metalgate,even").await.len(), 13);
    assert_eq!(all("tags=even/absent").await.len(), 13);
    assert_eq!(all("tags=absent").await.len(), 0);
    for (query, code) in [("size=0", 9), ("size=x", 9), ("offset=x", 7), ("tags=a,b/c", 11)] {
        let (status, refused) = rig.admin("GET", &format!("/services?{query}"), Value::Null).await;
        assert_eq!((status, &refused["code"]), (400, &json!(code)), "{query}");
    }
}
