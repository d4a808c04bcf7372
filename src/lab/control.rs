//! What the daemon answers on its Unix socket, and how `lab status` and `lab fault` ask it.

use super::machine::{MachineHandle, Order, View};
use super::rack::{self, Rack};
use super::redfish::Fault;
use super::{LabError, at};
use crate::tls;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The daemon answers from memory; only pulling a cable runs a program.
const PATIENCE: Duration = Duration::from_secs(10);

/// One machine of a running lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// What is wrong with it on request.
    pub fault: Fault,
    /// The machine.
    #[serde(flatten)]
    pub view: View,
}

/// What the daemon holds of a machine.
pub struct Controlled {
    /// Its name.
    pub name: String,
    /// Orders and view.
    pub handle: MachineHandle,
    /// Its BMC's fault.
    pub fault: watch::Sender<Fault>,
}

/// Where the daemon of the lab called `name` listens.
pub fn socket(name: &str) -> PathBuf {
    rack::run_dir(name).join("control.sock")
}

/// Serves the control socket until `stop`.
pub async fn serve(rack: &Rack, machines: Vec<Controlled>, stop: CancellationToken) -> Result<(), LabError> {
    let path = socket(&rack.name);
    let listener =
        UnixListener::bind(&path).map_err(|source| LabError::Listen { address: path.display().to_string(), source })?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(at(&path))?;
    let app = Router::new()
        .route("/machines", get(list))
        .route("/machines/{name}/fault", put(set_fault))
        .with_state(Arc::new(machines));
    tokio::select! {
        result = async { axum::serve(listener, app).await } => result.map_err(at(&path)),
        () = stop.cancelled() => Ok(()),
    }
}

async fn list(State(machines): State<Arc<Vec<Controlled>>>) -> Json<Vec<MachineStatus>> {
    let status = |machine: &Controlled| MachineStatus {
        name: machine.name.clone(),
        fault: *machine.fault.borrow(),
        view: machine.handle.view(),
    };
    Json(machines.iter().map(status).collect())
}

async fn set_fault(
    State(machines): State<Arc<Vec<Controlled>>>,
    Path(name): Path<String>,
    Json(fault): Json<Fault>,
) -> Result<StatusCode, (StatusCode, String)> {
    let machine = machines
        .iter()
        .find(|machine| machine.name == name)
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no machine {name}")))?;
    let plugged = fault != Fault::Unplug;
    if machine.handle.view().cable != plugged {
        let done = machine.handle.order(Order::Cable(plugged)).await;
        done.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    }
    machine.fault.send_replace(fault);
    Ok(StatusCode::NO_CONTENT)
}

/// A client of a lab's daemon.
pub struct Client {
    rack: Rack,
    http: reqwest::Client,
}

impl Client {
    /// A client of the daemon of `rack`.
    pub fn new(rack: &Rack) -> Result<Self, LabError> {
        // The client asks for a TLS provider even where it speaks no TLS.
        tls::install_provider();
        let http = reqwest::Client::builder().unix_socket(socket(&rack.name)).timeout(PATIENCE).build();
        let http = http.map_err(|error| gone(rack, &error.to_string()))?;
        Ok(Self { rack: rack.clone(), http })
    }

    /// Every machine as it is now.
    pub async fn machines(&self) -> Result<Vec<MachineStatus>, LabError> {
        let answer = self.http.get("http://lab/machines").send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| gone(&self.rack, &reason(&error)))?;
        answer.json().await.map_err(|error| gone(&self.rack, &reason(&error)))
    }

    /// Breaks or mends a machine.
    pub async fn set_fault(&self, machine: &str, fault: Fault) -> Result<(), LabError> {
        self.rack.machine(machine)?;
        let request = self.http.put(format!("http://lab/machines/{machine}/fault")).json(&fault);
        let answer = request.send().await.map_err(|error| gone(&self.rack, &reason(&error)))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(gone(&self.rack, &answer.text().await.unwrap_or_default()))
    }
}

fn gone(rack: &Rack, reason: &str) -> LabError {
    LabError::Daemon { lab: rack.name.clone(), reason: reason.to_owned(), log: rack.log() }
}

/// The innermost cause: reqwest's own text names only the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
