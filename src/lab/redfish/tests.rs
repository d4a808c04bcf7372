//! The whole service in-process: a real router in front of a machine that notes its orders.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::hardware::PowerState;
use crate::lab::machine::{BootOverride, MachineError, Order, OverrideEnabled, ResetType, View};
use crate::lab::qemu::BootSource;
use crate::lab::rack::{Rack, tests::options};
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

/// A BMC whose machine is always as told, or refuses every reset.
struct Bench {
    router: Router,
    password: String,
    fault: watch::Sender<Fault>,
    view: watch::Receiver<View>,
}

impl Bench {
    fn new(machine: usize, refuses: bool) -> Self {
        let rack = Rack::plan(options()).unwrap();
        let (handle, mut orders, viewed) = MachineHandle::new();
        let view = viewed.subscribe();
        tokio::spawn(async move {
            while let Some((order, done)) = orders.recv().await {
                let result = match order {
                    Order::Reset(_) if refuses => {
                        Err(MachineError::Start { machine: "node1".into(), reason: "no disk".into() })
                    }
                    order => {
                        viewed.send_modify(|view| obey(view, order));
                        Ok(())
                    }
                };
                done.send(result).unwrap();
            }
        });
        let (fault, injected) = watch::channel(Fault::None);
        let bmc = Bmc::new(&rack, rack.machines[machine].clone(), handle, injected);
        let password = bmc.machine.bmc_password.expose().clone();
        Self { router: router(Arc::new(bmc)), password, fault, view }
    }

    fn uefi() -> Self {
        Self::new(0, false)
    }

    /// Sends a request as the BMC's user.
    async fn send(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let account = STANDARD.encode(format!("admin:{}", self.password));
        self.send_with(method, path, body, ("authorization", &format!("Basic {account}"))).await
    }

    async fn send_with(&self, method: &str, path: &str, body: Value, header: (&str, &str)) -> (StatusCode, Value) {
        let response = self.raw(method, path, body, header).await;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn raw(&self, method: &str, path: &str, body: Value, (name, value): (&str, &str)) -> Response<Body> {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("/redfish/v1{path}")).header(name, value);
        self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap()
    }

    /// A reset, or any other action.
    async fn act(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send("POST", path, body).await
    }

    async fn reset(&self, kind: &str) -> StatusCode {
        self.act("/Systems/1/Actions/ComputerSystem.Reset", json!({"ResetType": kind})).await.0
    }
}

fn obey(view: &mut View, order: Order) {
    match order {
        Order::Reset(ResetType::ForceOff | ResetType::GracefulShutdown) => view.power = PowerState::Off,
        Order::Reset(_) => view.power = PowerState::On,
        Order::Boot(boot) => view.boot = boot,
        Order::Medium(medium) => view.medium = medium,
        Order::Cable(up) => view.cable = up,
    }
}

/// The message id of an error body, without its registry.
fn message(body: &Value) -> &str {
    let id = body["error"]["@Message.ExtendedInfo"][0]["MessageId"].as_str().expect("an error body");
    id.rsplit('.').next().unwrap()
}

const NOBODY: (&str, &str) = ("accept", "application/json");

#[tokio::test]
async fn every_link_of_the_service_leads_somewhere() {
    let bench = Bench::uefi();
    let mut seen = std::collections::BTreeSet::new();
    let mut open = vec!["/redfish/v1/".to_owned()];
    while let Some(path) = open.pop() {
        let (status, body) = bench.send("GET", path.strip_prefix("/redfish/v1").unwrap(), Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(body["@odata.id"], path.as_str());
        links(&body, &mut |link| {
            if seen.insert(link.to_owned()) {
                open.push(link.to_owned());
            }
        });
    }
    assert!(seen.contains("/redfish/v1/Managers/1/VirtualMedia/Cd") && seen.len() > 12, "{seen:?}");
}

fn links(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| match value.as_str() {
                Some(link) if key == "@odata.id" => found(link),
                _ => links(value, found),
            });
        }
        Value::Array(values) => values.iter().for_each(|value| links(value, found)),
        _ => (),
    }
}

#[tokio::test]
async fn only_the_root_answers_strangers() {
    let bench = Bench::uefi();
    assert_eq!(bench.send_with("GET", "/", Value::Null, NOBODY).await.0, StatusCode::OK);
    let refused = bench.raw("GET", "/Systems/1", Value::Null, NOBODY).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Basic realm=\"BMC\"");
    assert_eq!(refused.headers()["odata-version"], "4.0");
    let wrong = format!("Basic {}", STANDARD.encode("admin:wrong"));
    let (status, body) = bench.send_with("GET", "/Systems/1", Value::Null, ("authorization", &wrong)).await;
    assert_eq!((status, message(&body)), (StatusCode::UNAUTHORIZED, "NoValidSession"));
    assert_eq!(bench.send("GET", "/Systems/1", Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_session_lasts_from_login_to_logout() {
    let bench = Bench::uefi();
    let sessions = "/SessionService/Sessions";
    let wrong = json!({"UserName": "admin", "Password": "wrong"});
    assert_eq!(bench.send_with("POST", sessions, wrong, NOBODY).await.0, StatusCode::UNAUTHORIZED);
    let right = json!({"UserName": "admin", "Password": bench.password});
    let response = bench.raw("POST", sessions, right, NOBODY).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let token = response.headers()["x-auth-token"].to_str().unwrap().to_owned();
    let location = response.headers()["location"].to_str().unwrap().strip_prefix("/redfish/v1").unwrap().to_owned();
    let with_token = ("x-auth-token", token.as_str());
    assert_eq!(bench.send_with("GET", "/Systems/1", Value::Null, with_token).await.0, StatusCode::OK);
    assert_eq!(bench.send_with("DELETE", &location, Value::Null, with_token).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bench.send_with("GET", "/Systems/1", Value::Null, with_token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn resets_reach_the_machine_and_bad_ones_do_not() {
    let bench = Bench::uefi();
    assert_eq!(bench.reset("On").await, StatusCode::NO_CONTENT);
    assert_eq!(bench.send("GET", "/Systems/1", Value::Null).await.1["PowerState"], "On");
    assert_eq!(bench.reset("Nmi").await, StatusCode::BAD_REQUEST);
    let (status, body) = bench.act("/Systems/1/Actions/ComputerSystem.Reset", json!({})).await;
    assert_eq!((status, message(&body)), (StatusCode::BAD_REQUEST, "ActionParameterMissing"));
    assert_eq!(bench.view.borrow().power, PowerState::On);
    assert_eq!(bench.reset("ForceOff").await, StatusCode::NO_CONTENT);
    assert_eq!(bench.view.borrow().power, PowerState::Off);
}

#[tokio::test]
async fn a_machine_that_does_not_start_is_an_internal_error_with_its_reason() {
    let bench = Bench::new(0, true);
    let (status, body) = bench.act("/Systems/1/Actions/ComputerSystem.Reset", json!({"ResetType": "On"})).await;
    assert_eq!((status, message(&body)), (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
    assert!(body.to_string().contains("QEMU does not start: no disk"), "{body}");
}

#[tokio::test]
async fn the_override_changes_as_a_whole_or_not_at_all() {
    let bench = Bench::uefi();
    let once = json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe",
                               "BootSourceOverrideMode": "UEFI"}});
    assert_eq!(bench.send("PATCH", "/Systems/1", once).await.0, StatusCode::NO_CONTENT);
    let pxe = BootOverride { enabled: OverrideEnabled::Once, target: Some(BootSource::Pxe) };
    assert_eq!(bench.view.borrow().boot, pxe);
    let bad = [
        (
            json!({"Boot": {"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Floppy"}}),
            "PropertyValueNotInList",
        ),
        (
            json!({"Boot": {"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideMode": "Legacy"}}),
            "PropertyValueNotInList",
        ),
        (json!({"Boot": {"BootSourceOverrideTarget": "Hdd", "BootOrder": []}}), "PropertyUnknown"),
        (json!({"Boot": "Pxe"}), "PropertyValueNotInList"),
        (json!({"PowerState": "On"}), "PropertyNotWritable"),
        (json!({"Colour": "red"}), "PropertyUnknown"),
        (json!(["Boot"]), "MalformedJSON"),
    ];
    for (request, expected) in bad {
        let (status, body) = bench.send("PATCH", "/Systems/1", request.clone()).await;
        assert_eq!((status, message(&body)), (StatusCode::BAD_REQUEST, expected), "{request}");
        assert_eq!(bench.view.borrow().boot, pxe, "{request}");
    }
}

#[tokio::test]
async fn a_bios_has_no_http_boot() {
    let http = json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "UefiHttp"}});
    assert_eq!(Bench::uefi().send("PATCH", "/Systems/1", http.clone()).await.0, StatusCode::NO_CONTENT);
    let bios = Bench::new(1, false);
    assert_eq!(bios.send("PATCH", "/Systems/1", http).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(bios.send("GET", "/Systems/1", Value::Null).await.1["Boot"]["BootSourceOverrideMode"], "Legacy");
}

#[tokio::test]
async fn a_change_with_an_old_etag_is_refused() {
    let bench = Bench::uefi();
    let account = format!("Basic {}", STANDARD.encode(format!("admin:{}", bench.password)));
    let read = bench.raw("GET", "/Systems/1", Value::Null, ("authorization", &account)).await;
    let etag = read.headers()[header::ETAG].clone();
    let patch = || {
        Request::patch("/redfish/v1/Systems/1")
            .header("authorization", &account)
            .header("if-match", &etag)
            .body(Body::from(r#"{"Boot": {"BootSourceOverrideEnabled": "Once"}}"#))
            .unwrap()
    };
    assert_eq!(bench.router.clone().oneshot(patch()).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(bench.router.clone().oneshot(patch()).await.unwrap().status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn media_come_from_a_server_that_has_them() {
    let bench = Bench::uefi();
    let insert = "/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia";
    let (status, body) = bench.act(insert, json!({"Image": "/etc/passwd"})).await;
    assert_eq!((status, message(&body)), (StatusCode::BAD_REQUEST, "ActionParameterValueNotInList"));
    // Nothing listens on port 1.
    let (status, body) = bench.act(insert, json!({"Image": "http://127.0.0.1:1/cd.iso"})).await;
    assert_eq!((status, message(&body)), (StatusCode::BAD_REQUEST, "ResourceAtUriUnauthorized"));
    assert_eq!(bench.view.borrow().medium, None);
    let eject = "/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia";
    assert_eq!(bench.act(eject, json!({})).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn faults_come_and_go() {
    let bench = Bench::uefi();
    let get = async || bench.send("GET", "/Systems/1", Value::Null).await.0;
    bench.fault.send_replace(Fault::WrongPassword);
    assert_eq!(get().await, StatusCode::UNAUTHORIZED);
    bench.fault.send_replace(Fault::Error);
    assert_eq!(get().await, StatusCode::INTERNAL_SERVER_ERROR);
    bench.fault.send_replace(Fault::ReadOnly);
    assert_eq!(get().await, StatusCode::OK);
    assert_eq!(bench.reset("On").await, StatusCode::FORBIDDEN);
    let account = bench.send("GET", "/AccountService/Accounts/1", Value::Null).await.1;
    assert_eq!(account["RoleId"], "ReadOnly");
    for silent in [Fault::Hang, Fault::Slow] {
        bench.fault.send_replace(silent);
        assert!(tokio::time::timeout(Duration::from_millis(200), get()).await.is_err());
    }
    bench.fault.send_replace(Fault::None);
    assert_eq!(get().await, StatusCode::OK);
}

#[tokio::test]
async fn what_does_not_exist_says_so() {
    let bench = Bench::uefi();
    let (status, body) = bench.send("GET", "/Systems/2", Value::Null).await;
    assert_eq!((status, message(&body)), (StatusCode::NOT_FOUND, "ResourceMissingAtURI"));
    let (status, body) = bench.send("DELETE", "/Systems/1", Value::Null).await;
    assert_eq!((status, message(&body)), (StatusCode::METHOD_NOT_ALLOWED, "OperationNotAllowed"));
}
