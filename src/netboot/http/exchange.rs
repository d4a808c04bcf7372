//! Every HTTP exchange as an event, once its last byte is sent or its client is gone.

use super::Shared;
use crate::event::EventKind;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// What is known of an exchange when its answer begins.
struct Exchange {
    shared: Arc<Shared>,
    client: IpAddr,
    method: String,
    path: String,
    status: u16,
    bytes: u64,
    started: Instant,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let machine = match self.client {
            IpAddr::V4(address) => self.shared.table.by_address(address).map(|entry| entry.machine),
            IpAddr::V6(_) => None,
        };
        let kind = EventKind::Http {
            client: self.client,
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            status: self.status,
            bytes: self.bytes,
            seconds: self.started.elapsed().as_secs_f64(),
        };
        self.shared.events.emit(machine.as_deref(), kind);
    }
}

/// An answer's body that counts what goes out, and ends the exchange when it is dropped.
struct Counted {
    body: Body,
    exchange: Exchange,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.exchange.bytes += data.len() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Middleware that makes the event. Agents' reports are events of their own, so the exchange that carried one is none.
pub async fn observe(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if path.starts_with("/agent/") && response.status().is_success() {
        return response;
    }
    let exchange = Exchange { shared, client: client.ip(), method, path, status, bytes: 0, started };
    response.map(|body| Body::new(Counted { body, exchange }))
}
