//! Fetches the image over HTTP, in spite of everything between here and there.
//!
//! A transfer that breaks off or falls silent goes on where it stopped (RFC 9110, section 14), as long as the server still
//! has the same file; the installer may be stopped and started again meanwhile. A body that ends early is a broken
//! transfer, never a short image. Feeds `write` through a channel, with the sum over all bytes.

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use sha2::{Digest, Sha256};
use std::ops::{ControlFlow, Range};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A transfer without a byte for so long is broken off and begun again.
    pub stall: Duration,
    /// First pause after a failure; it doubles, up to sixteen times as much.
    pub pause: Duration,
    /// Without a single byte for so long, the file is given up.
    pub give_up: Duration,
}

impl Default for Patience {
    /// Long enough for somebody to start the installer again.
    fn default() -> Self {
        Self { stall: Duration::from_secs(30), pause: Duration::from_secs(1), give_up: Duration::from_secs(15 * 60) }
    }
}

/// Why a file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server said no.
    #[error("{url} answers {status}")]
    Refused {
        /// The file.
        url: String,
        /// The server's answer.
        status: StatusCode,
    },
    /// The rest would be of another file.
    #[error("{url} is no longer the file that it was when the transfer began: start the installation again")]
    Changed {
        /// The file.
        url: String,
    },
    /// The file has parts that must be read before others, and the server gives it from its beginning only.
    #[error("the server of {url} does not know Range requests, which QCOW2 images need")]
    NoRange {
        /// The file.
        url: String,
    },
    /// Nothing came for too long.
    #[error("gave up on {url} after {} s without a byte, {have} bytes having come", patience.as_secs())]
    GaveUp {
        /// The file.
        url: String,
        /// How much of it had come.
        have: u64,
        /// How long nothing came.
        patience: Duration,
        /// The last failure.
        source: Broken,
    },
    /// Whoever takes the bytes is gone; its own error says why.
    #[error("the transfer of {url} is no longer wanted")]
    Unwanted {
        /// The file.
        url: String,
    },
}

/// Why a transfer broke; another one may work.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// No connection, or one that broke.
    #[error("the connection failed")]
    Connection(#[source] reqwest::Error),
    /// Nothing came.
    #[error("nothing came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The server is there but cannot serve.
    #[error("the server answers {0}")]
    Busy(StatusCode),
    /// The body ended before its end.
    #[error("the transfer ended after {have} of {length} bytes")]
    Short {
        /// Bytes that came.
        have: u64,
        /// Bytes that should have.
        length: u64,
    },
    /// An answer that does not fit the question.
    #[error("the server gives other bytes than it was asked for ({0})")]
    WrongRange(String),
}

/// Ends a transfer, or only one attempt at it.
#[derive(Debug)]
enum Failure {
    Final(FetchError),
    Passing(Broken),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Passing(broken)
    }
}

/// By what a file is known to be the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    length: Option<u64>,
    etag: Option<String>,
}

/// A file on an HTTP server.
#[derive(Debug)]
pub struct Source {
    client: Client,
    url: Url,
    patience: Patience,
    identity: Option<Identity>,
}

/// What came of a whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
}

/// What a download hands on. Without `End` it broke off.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// That was all of it.
    End,
}

impl Source {
    /// The file at `url`; nothing is asked yet.
    pub fn new(client: Client, url: Url, patience: Patience) -> Self {
        Self { client, url, patience, identity: None }
    }

    /// The file's length in bytes, once something was read and if the server told.
    pub fn length(&self) -> Option<u64> {
        self.identity.as_ref()?.length
    }

    /// Where the file is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Reads part of the file; less comes only where the file ends before.
    pub async fn part(&mut self, range: Range<u64>) -> Result<Vec<u8>, FetchError> {
        let mut part = Vec::new();
        let sink = async |bytes: Bytes| {
            part.extend_from_slice(&bytes);
            ControlFlow::Continue(())
        };
        self.transfer(range.start, Some(range.end), sink).await?;
        Ok(part)
    }

    /// Reads the whole file into `sink`.
    pub async fn download(&mut self, sink: mpsc::Sender<Piece>) -> Result<Fetched, FetchError> {
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let hand_on = async |piece: Bytes| {
            hash.update(&piece);
            bytes += piece.len() as u64;
            match sink.send(Piece::Bytes(piece)).await {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        self.transfer(0, None, hand_on).await?;
        // Nobody listens any more: then nobody needs to know that this is the end.
        let _ = sink.send(Piece::End).await;
        Ok(Fetched { bytes, sha256: hash.finalize().into() })
    }

    /// Reads from `start` to `end`, or to the end of the file, in as many attempts as it takes.
    async fn transfer(
        &mut self,
        start: u64,
        end: Option<u64>,
        mut sink: impl AsyncFnMut(Bytes) -> ControlFlow<()>,
    ) -> Result<(), FetchError> {
        let mut position = start;
        let mut pause = self.patience.pause;
        let mut last_byte = Instant::now();
        loop {
            let before = position;
            let broken = match self.attempt(&mut position, start, end, &mut sink).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(broken)) => broken,
            };
            if position > before {
                (pause, last_byte) = (self.patience.pause, Instant::now());
            }
            if last_byte.elapsed() >= self.patience.give_up {
                let (url, patience) = (self.url.to_string(), self.patience.give_up);
                return Err(FetchError::GaveUp { url, have: position, patience, source: broken });
            }
            tracing::warn!(
                "{} after {position} bytes: {}; going on from there",
                self.url,
                crate::error::chain(&broken)
            );
            sleep(pause).await;
            pause = (pause * 2).min(self.patience.pause * 16);
        }
    }

    /// One request. `position` moves on with every byte that was handed to `sink`.
    async fn attempt(
        &mut self,
        position: &mut u64,
        start: u64,
        end: Option<u64>,
        sink: &mut impl AsyncFnMut(Bytes) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut response = self.request(*position, end).await?;
        let mut skip = self.check(&response, *position, start, end)?;
        let end = end.into_iter().chain(self.length()).min();
        loop {
            let left = end.map(|end| end.saturating_sub(*position));
            if left == Some(0) {
                return Ok(());
            }
            let chunk = timeout(self.patience.stall, response.chunk()).await;
            let chunk = chunk.map_err(|_| Broken::Stalled(self.patience.stall))?;
            let Some(mut chunk) = chunk.map_err(|error| Broken::Connection(error.without_url()))? else {
                // Where the length is not known, HTTP's chunked coding says what a whole body is.
                return match self.length().and(end) {
                    Some(length) => Err(Broken::Short { have: *position, length }.into()),
                    None => Ok(()),
                };
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let mut chunk = chunk.split_off(skipped as usize);
            chunk.truncate(left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX)));
            let length = chunk.len() as u64;
            if length > 0 && sink(chunk).await.is_break() {
                return Err(Failure::Final(FetchError::Unwanted { url: self.url.to_string() }));
            }
            *position += length;
        }
    }

    async fn request(&self, position: u64, end: Option<u64>) -> Result<Response, Failure> {
        let mut request = self.client.get(self.url.clone()).header(ACCEPT_ENCODING, "identity");
        if position > 0 || end.is_some() {
            let last = end.map_or(String::new(), |end| end.saturating_sub(1).to_string());
            request = request.header(RANGE, format!("bytes={position}-{last}"));
            // A weak tag may be the same for different bytes: it is good for nothing here (RFC 9110, section 13.1.5).
            let etag = self.identity.as_ref().and_then(|identity| identity.etag.as_ref());
            if let Some(etag) = etag.filter(|etag| etag.starts_with('"')) {
                request = request.header(IF_RANGE, etag);
            }
        }
        let response = timeout(self.patience.stall, request.send()).await;
        let response = response.map_err(|_| Broken::Stalled(self.patience.stall))?;
        Ok(response.map_err(|error| Broken::Connection(error.without_url()))?)
    }

    /// Checks that an answer belongs to the same file, and returns how many bytes of it came before `position`.
    fn check(&mut self, response: &Response, position: u64, start: u64, end: Option<u64>) -> Result<u64, Failure> {
        let (status, url) = (response.status(), || self.url.to_string());
        let (skip, length) = match status {
            StatusCode::PARTIAL_CONTENT => {
                let (first, length) = content_range(response.headers())?;
                if first != position {
                    return Err(Broken::WrongRange(format!("from {first} instead of {position}")).into());
                }
                (0, length)
            }
            // Allowed at any time; what came before comes once more.
            StatusCode::OK if end.is_some() && start > 0 => {
                return Err(Failure::Final(FetchError::NoRange { url: url() }));
            }
            StatusCode::OK => (position, response.content_length()),
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(Failure::Final(FetchError::Changed { url: url() })),
            _ if status.is_server_error() || matches!(status.as_u16(), 408 | 429) => {
                return Err(Broken::Busy(status).into());
            }
            _ => return Err(Failure::Final(FetchError::Refused { url: url(), status })),
        };
        let etag = response.headers().get(ETAG).and_then(|etag| Some(etag.to_str().ok()?.to_owned()));
        let identity = Identity { length, etag };
        match &self.identity {
            Some(known) if *known != identity => Err(Failure::Final(FetchError::Changed { url: url() })),
            _ => {
                self.identity = Some(identity);
                Ok(skip)
            }
        }
    }
}

/// First byte and whole length in `Content-Range: bytes 5-9/100`; the length may be `*`.
fn content_range(headers: &HeaderMap) -> Result<(u64, Option<u64>), Broken> {
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parts = || {
        let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.trim().parse().ok()?, length.trim().parse().ok()))
    };
    parts().ok_or_else(|| Broken::WrongRange(format!("Content-Range: {text}")))
}

#[cfg(test)]
pub(crate) mod tests;
