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
    let accepted = accepted(client, &claim);
    match shared.installations.claim(claim).await {
        Ok(order) => {
            shared.events.emit(Some(&order.machine), accepted);
            Ok(Json(order))
        }
        Err(error) => Err(turned_away(&shared, client, machine, &error)),
    }
}

/// `POST /agent/v1/inventory`: a one-time token, and what the machine is.
pub async fn inventory(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Json(claim): Json<Claim>,
) -> Result<StatusCode, Refusal> {
    let machine = shared.table.get(claim.mac).map(|entry| entry.machine);
    let accepted = accepted(client, &claim);
    match shared.installations.inventory(claim).await {
        Ok(()) => {
            shared.events.emit(machine.as_deref(), accepted);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => Err(turned_away(&shared, client, machine, &error)),
    }
}

fn accepted(client: SocketAddr, claim: &Claim) -> EventKind {
    EventKind::AgentClaimed {
        client: client.ip(),
        arch: claim.facts.arch,
        firmware: claim.facts.firmware,
        memory_bytes: claim.facts.memory_bytes,
        disks: claim.facts.disks.len(),
    }
}

fn turned_away(shared: &Shared, client: SocketAddr, machine: Option<String>, error: &InstallationError) -> Refusal {
    let kind = EventKind::AgentRefused { client: client.ip(), error: crate::error::chain(error) };
    shared.events.emit(machine.as_deref(), kind);
    refuse(error)
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
