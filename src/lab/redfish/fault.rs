//! What can be wrong with a BMC, on request, so that the diagnosis of it can be seen.

use super::Bmc;
use super::message::RedfishError;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long a slow BMC thinks about each request.
const SLOW: Duration = Duration::from_secs(10);

/// What is wrong with a machine, or with its BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing: the BMC answers and the cable is in
    #[default]
    None,
    /// The BMC takes connections and never answers
    Hang,
    /// The BMC answers each request after 10 seconds
    Slow,
    /// The BMC refuses the right password
    WrongPassword,
    /// The BMC's account may read everything and change nothing
    ReadOnly,
    /// The BMC's clock is a day behind
    Clock,
    /// The BMC answers every request with an internal error
    Error,
    /// The machine's network cable is pulled; the BMC is well
    Unplug,
}

/// Does to a request what the fault of the moment asks for.
pub async fn apply(State(bmc): State<Arc<Bmc>>, request: Request, next: Next) -> Response {
    let fault = *bmc.fault.borrow();
    match fault {
        Fault::ReadOnly if !request.method().is_safe() => RedfishError::insufficient_privilege().into_response(),
        Fault::None | Fault::WrongPassword | Fault::ReadOnly | Fault::Clock | Fault::Unplug => next.run(request).await,
        Fault::Slow => {
            tokio::time::sleep(SLOW).await;
            next.run(request).await
        }
        Fault::Error => RedfishError::internal("fault injected").into_response(),
        // Until the client gives up and closes the connection, which drops this future.
        Fault::Hang => std::future::pending().await,
    }
}
