//! `GET /metrics`: Prometheus counters, all of them made from events.

use super::Shared;
use crate::event::{Event, EventKind};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

/// The counters. All clones are the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    dhcp: IntCounterVec,
    tftp_transfers: IntCounterVec,
    tftp_bytes: IntCounter,
    tftp_retransmits: IntCounter,
    http: IntCounterVec,
    http_bytes: IntCounter,
    image_bytes: IntCounter,
    machines: IntCounterVec,
    power: IntCounterVec,
}

impl Default for Metrics {
    /// Counters at zero.
    fn default() -> Self {
        let registry = Registry::new();
        let several = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels);
            register(&registry, counter)
        };
        let one = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        Self {
            dhcp: several("metalgate_dhcp_messages_total", "DHCP messages by type and answer", &["message", "reply"]),
            tftp_transfers: several("metalgate_tftp_transfers_total", "TFTP transfers by result", &["result"]),
            tftp_bytes: one("metalgate_tftp_bytes_total", "Bytes sent over TFTP"),
            tftp_retransmits: one("metalgate_tftp_retransmits_total", "TFTP packets sent again"),
            http: several("metalgate_http_responses_total", "HTTP answers by status", &["status"]),
            http_bytes: one("metalgate_http_bytes_total", "Bytes of HTTP answers' bodies"),
            image_bytes: one("metalgate_image_bytes_total", "Bytes of images written to disks and read back"),
            machines: several("metalgate_machine_states_total", "States that machines entered", &["state"]),
            power: several("metalgate_power_orders_total", "Orders to BMCs by result", &["action", "result"]),
            registry,
        }
    }
}

impl Metrics {
    /// Counts events until `cancel` is cancelled.
    pub async fn follow(self, mut events: Receiver<Event>, cancel: CancellationToken) {
        while let Some(received) = cancel.run_until_cancelled(events.recv()).await {
            match received {
                Ok(event) => self.count(&event.kind),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// The counters in Prometheus' text format.
    pub fn text(&self) -> String {
        // Only a counter without a name could fail here.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    fn count(&self, kind: &EventKind) {
        match kind {
            EventKind::Dhcp { message, reply, .. } => {
                self.dhcp.with_label_values(&[message.as_str(), reply.as_deref().unwrap_or("none")]).inc();
            }
            EventKind::TftpDone { bytes, retransmits, .. } => {
                self.tftp_transfers.with_label_values(&["done"]).inc();
                self.tftp_bytes.inc_by(*bytes);
                self.tftp_retransmits.inc_by(*retransmits);
            }
            EventKind::TftpFailed { .. } => self.tftp_transfers.with_label_values(&["failed"]).inc(),
            EventKind::Http { status, bytes, .. } => {
                self.http.with_label_values(&[status.to_string().as_str()]).inc();
                self.http_bytes.inc_by(*bytes);
            }
            EventKind::ImageWritten { bytes, .. } => self.image_bytes.inc_by(*bytes),
            EventKind::State { state, .. } => self.machines.with_label_values(&[state.as_str()]).inc(),
            EventKind::Power { action, error, .. } => {
                let result = if error.is_none() { "done" } else { "failed" };
                self.power.with_label_values(&[action.as_str(), result]).inc();
            }
            _ => {}
        }
    }
}

/// Registers a counter whose name is a constant of this file.
fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    counter: prometheus::Result<C>,
) -> C {
    // Only a name that is malformed or taken can fail here, and the unit test below makes them all.
    #[allow(clippy::expect_used)]
    let counter = counter.expect("a well-formed name");
    if let Err(error) = registry.register(Box::new(counter.clone())) {
        tracing::error!("cannot register a metric: {error}");
    }
    counter
}

/// The counters as text.
pub(super) async fn show(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], shared.metrics.text()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_under_well_formed_names() {
        let metrics = Metrics::default();
        metrics.count(&EventKind::State { state: "Installed".into(), reason: "r".into() });
        metrics.count(&EventKind::Http {
            client: [10, 0, 0, 1].into(),
            method: "GET".into(),
            path: "/".into(),
            status: 206,
            bytes: 7,
            seconds: 0.1,
        });
        let text = metrics.text();
        for line in [
            "metalgate_machine_states_total{state=\"Installed\"} 1",
            "metalgate_http_responses_total{status=\"206\"} 1",
            "metalgate_http_bytes_total 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
