//! `/livez`, `/readyz` and `/metrics` of the manager.

use super::services::StartError;
use crate::controllers::Tasks;
use crate::event::EventBus;
use crate::netboot::http::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether this replica acts.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// It acts from now on.
    pub fn leads(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts to answer. A replica that waits for the lease is alive and ready, too: there is nothing else for it to do.
pub async fn start(
    address: SocketAddr,
    health: Health,
    events: &EventBus,
    tasks: &mut Tasks,
    cancel: &CancellationToken,
) -> Result<(), StartError> {
    let metrics = Metrics::default();
    let shown = metrics.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route(
            "/metrics",
            get(move |State(health): State<Health>| {
                let leads = u8::from(health.0.load(Ordering::Relaxed));
                let text = format!(
                    "# HELP metalgate_manager_leads Whether this replica acts\n# TYPE metalgate_manager_leads gauge\n\
                 metalgate_manager_leads {leads}\n{}",
                    shown.text()
                );
                async move { text }
            }),
        )
        .with_state(health);
    let listener = TcpListener::bind(address).await?;
    let (end, follow) = (cancel.clone(), cancel.clone());
    let events = events.subscribe();
    tasks.spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned()).await?;
        Ok(())
    });
    tasks.spawn(async move {
        metrics.follow(events, follow).await;
        Ok(())
    });
    Ok(())
}
