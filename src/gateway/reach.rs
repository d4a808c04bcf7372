//! Talking to pods: over the API server's port forwarding from outside of the cluster, or straight to their addresses from within.

use super::cluster::what_pod;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest exchange; a gateway that is slower is told to be broken.
const EXCHANGE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(15);
/// Largest answer that is read: a page of Kong's entities is far smaller.
const MAX_BODY: usize = 16 << 20;

/// How pods are reached.
#[derive(Clone)]
pub enum Reach {
    /// By their addresses.
    Direct,
    /// Through the API server and kubelet.
    Forward(Client),
}

/// A pod that does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// No connection.
    #[error("no connection to port {port} of {pod}")]
    Connect {
        /// The pod.
        pod: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A connection, but no answer.
    #[error("no answer from port {port} of {pod}")]
    Exchange {
        /// The pod.
        pod: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// TLS to a pod.
#[derive(Clone)]
pub struct Tls {
    /// Whom to trust.
    pub config: Arc<ClientConfig>,
    /// The name that is asked for.
    pub name: ServerName<'static>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Reach {
    /// One HTTP exchange with a port of a pod.
    ///
    /// # Errors
    /// No answer within half a minute. An answer of any status is none.
    pub async fn http(
        &self,
        pod: &Pod,
        port: u16,
        tls: Option<&Tls>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ReachError> {
        let name = || what_pod(pod);
        let connecting = tokio::time::timeout(CONNECT, self.connect(pod, port, tls));
        let stream = connecting.await.map_err(BoxError::from).and_then(|result| result);
        let stream = stream.map_err(|source| ReachError::Connect { pod: name(), port, source })?;
        let exchange = tokio::time::timeout(EXCHANGE, exchange(stream, request));
        let response = exchange.await.map_err(BoxError::from).and_then(|result| result);
        response.map_err(|source| ReachError::Exchange { pod: name(), port, source })
    }

    async fn connect(&self, pod: &Pod, port: u16, tls: Option<&Tls>) -> Result<Box<dyn Stream>, BoxError> {
        let stream: Box<dyn Stream> = match self {
            Self::Direct => {
                let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
                let address: std::net::IpAddr = address.ok_or("it has no address yet")?.parse()?;
                Box::new(TcpStream::connect((address, port)).await?)
            }
            Self::Forward(client) => {
                let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
                let mut forwarder = pods.portforward(&pod.name_any(), &[port]).await?;
                let stream = forwarder.take_stream(port).ok_or("the API server forwards no port")?;
                // Ends with the stream.
                tokio::spawn(async move { drop(forwarder.join().await) });
                Box::new(stream)
            }
        };
        match tls {
            Some(tls) => Ok(Box::new(TlsConnector::from(tls.config.clone()).connect(tls.name.clone(), stream).await?)),
            None => Ok(stream),
        }
    }
}

async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, BoxError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let (head, body) = match response {
        Ok(response) => response.into_parts(),
        Err(error) => {
            driver.abort();
            return Err(error.into());
        }
    };
    let body = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes());
    drop(sender);
    driver.abort();
    Ok(Response::from_parts(head, body?))
}

/// A GET without a body.
pub fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    // What does not fit is answered by the pod with 400, which is told.
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(http::header::HOST, host);
    }
    request
}

/// Whether an answer says that a thing is not there.
pub fn is_missing(response: &Response<Bytes>) -> bool {
    response.status() == StatusCode::NOT_FOUND
}
