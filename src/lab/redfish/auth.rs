//! Who may ask: Basic authentication (RFC 7617) and Redfish sessions (DSP0266, 13.3).

use super::message::RedfishError;
use super::{Bmc, Fault};
use crate::lab::rack::BMC_USER;
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
/// Real BMCs have few; the oldest makes room.
const MOST_SESSIONS: usize = 16;

/// Open sessions: number and token.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<BTreeMap<u64, String>>);

impl Sessions {
    /// Opens a session; gives its number and token.
    fn open(&self) -> (u64, String) {
        let token = hex::encode(rand::random::<[u8; 16]>());
        let mut sessions = self.lock();
        let number = sessions.last_key_value().map_or(1, |(last, _)| last + 1);
        sessions.insert(number, token.clone());
        if sessions.len() > MOST_SESSIONS {
            sessions.pop_first();
        }
        (number, token)
    }

    fn knows(&self, token: &str) -> bool {
        self.lock().values().any(|known| known == token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a request through if it needs no account or has one.
pub async fn require(State(bmc): State<Arc<Bmc>>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), "/redfish" | "/redfish/v1" | "/redfish/v1/")
        || (request.method() == Method::POST && request.uri().path() == SESSIONS);
    if open || is_known(&bmc, request.headers()) {
        next.run(request).await
    } else {
        RedfishError::unauthorized().into_response()
    }
}

fn is_known(bmc: &Bmc, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if *bmc.fault.borrow() == Fault::WrongPassword {
        return false;
    }
    if let Some(token) = text("x-auth-token") {
        return bmc.sessions.knows(token);
    }
    let Some(encoded) = text(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Basic ")) else {
        return false;
    };
    let decoded = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    decoded.split_once(':').is_some_and(|(user, password)| is_account(bmc, user, password))
}

fn is_account(bmc: &Bmc, user: &str, password: &str) -> bool {
    user == BMC_USER && password == bmc.machine.bmc_password.expose() && *bmc.fault.borrow() != Fault::WrongPassword
}

/// `GET SessionService`.
pub async fn service() -> Json<Value> {
    Json(json!({
        "@odata.id": "/redfish/v1/SessionService",
        "@odata.type": "#SessionService.v1_1_9.SessionService",
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": true,
        "Sessions": {"@odata.id": SESSIONS},
    }))
}

/// `GET Sessions`.
pub async fn list(State(bmc): State<Arc<Bmc>>) -> Json<Value> {
    let numbers: Vec<u64> = bmc.sessions.lock().keys().copied().collect();
    Json(json!({
        "@odata.id": SESSIONS,
        "@odata.type": "#SessionCollection.SessionCollection",
        "Name": "Session Collection",
        "Members@odata.count": numbers.len(),
        "Members": numbers.iter().map(|n| json!({"@odata.id": format!("{SESSIONS}/{n}")})).collect::<Vec<_>>(),
    }))
}

/// The body of a login.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    user_name: String,
    password: String,
}

/// `POST Sessions`: the token comes back in `X-Auth-Token`.
pub async fn log_in(State(bmc): State<Arc<Bmc>>, body: String) -> Result<Response, RedfishError> {
    let login: Credentials = serde_json::from_str(&body).map_err(|_| RedfishError::malformed())?;
    if !is_account(&bmc, &login.user_name, &login.password) {
        return Err(RedfishError::unauthorized());
    }
    let (number, token) = bmc.sessions.open();
    let id = format!("{SESSIONS}/{number}");
    let session = json!({
        "@odata.id": id,
        "@odata.type": "#Session.v1_7_1.Session",
        "Id": number.to_string(),
        "Name": "User Session",
        "UserName": BMC_USER,
    });
    let headers = [("x-auth-token", token), (header::LOCATION.as_str(), id)];
    Ok((StatusCode::CREATED, headers, Json(session)).into_response())
}

/// `DELETE Sessions/{id}`.
pub async fn log_out(
    State(bmc): State<Arc<Bmc>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<StatusCode, RedfishError> {
    let closed = id.parse().ok().and_then(|number: u64| bmc.sessions.lock().remove(&number));
    closed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| RedfishError::not_found(&uri))
}
