//! A Redfish service that answers by a script.

use super::super::Redfish;
use crate::inventory::{BmcAccess, BmcKind};
use crate::secret::Secret;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

pub const SYSTEM: &str = "/redfish/v1/Systems/1";
pub const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// An answer with a JSON body.
pub fn json(status: u16, body: Value) -> Answer {
    text(status, &body.to_string())
}

pub fn text(status: u16, body: &str) -> Answer {
    Answer { status, headers: Vec::new(), body: body.to_owned() }
}

/// No answer: the connection is closed.
pub fn hang_up() -> Answer {
    text(0, "")
}

/// The System of a machine, with this state.
pub fn system(power: &str) -> Answer {
    json(200, json!({ "@odata.id": SYSTEM, "PowerState": power }))
}

/// An error as DSP0266 wants it.
pub fn refusal(status: u16, message: &str) -> Answer {
    let info = json!([{ "MessageId": "Base.1.8.Something", "Message": message }]);
    json(
        status,
        json!({ "error": { "code": "Base.1.8.GeneralError", "message": "See", "@Message.ExtendedInfo": info } }),
    )
}

impl Answer {
    pub fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }
}

/// What was asked: `GET /redfish/v1/`, the `If-Match` header and the body.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub what: String,
    pub if_match: Option<String>,
    pub body: Value,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<Answer>>,
    asked: Vec<Asked>,
}

/// The service. It has one System that is on, and whatever else the script says.
pub struct Peer {
    script: Arc<Mutex<Script>>,
    pub url: String,
}

impl Peer {
    pub async fn new() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let member = json!({ "@odata.id": SYSTEM });
        Self { script, url }
            .on("GET /redfish/v1/", [json(200, json!({ "Systems": { "@odata.id": "/redfish/v1/Systems" } }))])
            .on("GET /redfish/v1/Systems", [json(200, json!({ "Members": [member] }))])
            .on(&format!("GET {SYSTEM}"), [system("On")])
    }

    /// Answers these in turn to `what`, and the last of them for ever.
    pub fn on<const N: usize>(self, what: &str, answers: [Answer; N]) -> Self {
        self.script.lock().unwrap().answers.insert(what.to_owned(), VecDeque::from(answers));
        self
    }

    /// A client of it.
    pub fn client(&self) -> Redfish {
        let (username, password) = (String::from("admin"), Secret::new(String::from("hunter2")));
        Redfish::new(&BmcAccess { kind: BmcKind::Redfish, url: self.url.clone(), username, password }).unwrap()
    }

    /// What was asked that starts with `what`.
    pub fn asked(&self, what: &str) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        script.asked.iter().filter(|asked| asked.what.starts_with(what)).cloned().collect()
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response<Body> {
    let account = format!("Basic {}", STANDARD.encode("admin:hunter2"));
    assert_eq!(request.headers().get(header::AUTHORIZATION).unwrap(), &account);
    let what = format!("{} {}", request.method(), request.uri());
    let if_match = request.headers().get(header::IF_MATCH).map(|tag| tag.to_str().unwrap().to_owned());
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let answer = {
        let mut script = script.lock().unwrap();
        let answer = match script.answers.get_mut(&what) {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers[0].clone(),
            None => refusal(404, &format!("the script has no {what}")),
        };
        script.asked.push(Asked { what, if_match, body });
        answer
    };
    // Ends the connection's task, and the connection with it.
    assert_ne!(answer.status, 0, "no answer, as the script says");
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
