//! The agent's API. A refusal tells the agent whether to come again: 5xx yes, 4xx no.

use super::Shared;
use crate::agent::protocol::{Claim, Report, WorkOrder};
use crate::event::EventKind;
use crate::netboot::installations::InstallationError;
use crate::secret::Secret;
use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;

type Refusal = (StatusCode, String);

/// `POST /agent/v1/claim`: a one-time token for a work order.
pub async fn claim(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Json(claim): Json<Claim>,
) -> Result<Json<WorkOrder>, Refusal> {
    let machine = shared.table.get(claim.mac).map(|entry| entry.machine);
    let accepted = EventKind::AgentClaimed {
        client: client.ip(),
        arch: claim.facts.arch,
        firmware: claim.facts.firmware,
        memory_bytes: claim.facts.memory_bytes,
        disks: claim.facts.disks.len(),
    };
    match shared.installations.claim(claim).await {
        Ok(order) => {
            shared.events.emit(Some(&order.machine), accepted);
            Ok(Json(order))
        }
        Err(error) => {
            let kind = EventKind::AgentRefused { client: client.ip(), error: crate::cli::chain(&error) };
            shared.events.emit(machine.as_deref(), kind);
            Err(refuse(&error))
        }
    }
}

/// `POST /agent/v1/report`: what the agent with this session says.
pub async fn report(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(report): Json<Report>,
) -> Result<StatusCode, Refusal> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let session = bearer.map(|key| Secret::new(key.to_owned())).ok_or(InstallationError::Refused);
    let taken = match session {
        Ok(session) => shared.installations.report(&session, report).await,
        Err(error) => Err(error),
    };
    taken.map(|()| StatusCode::NO_CONTENT).map_err(|error| refuse(&error))
}

fn refuse(error: &InstallationError) -> Refusal {
    let status = match error {
        InstallationError::NotInstalling(_) => StatusCode::CONFLICT,
        InstallationError::Refused => StatusCode::UNAUTHORIZED,
        InstallationError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}
