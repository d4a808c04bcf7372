//! Downloads to a file: resumed where they broke, checked by their sum, there whole or not at all.

use super::manifest;
use futures::StreamExt;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use url::Url;

/// Tries of one download; each goes on where the one before it broke.
const TRIES: u32 = 5;
/// Without a byte for this long, a connection counts as broken.
const STALL: Duration = Duration::from_secs(30);

/// A download that did not work.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server did not send it.
    #[error("cannot download {url}")]
    Http {
        /// What.
        url: Url,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for a while, again and again.
    #[error("{url} stalled for {} s; the server or the network to it hangs", STALL.as_secs())]
    Stalled {
        /// What.
        url: Url,
    },
    /// It ended before its length.
    #[error("{url} ended after {got} of {length} bytes")]
    Truncated {
        /// What.
        url: Url,
        /// Bytes that came.
        got: u64,
        /// Bytes that were announced.
        length: u64,
    },
    /// It is not what was expected.
    #[error("{url} has the sha256 {found} instead of {expected}: it was changed, or the sum is of another version")]
    Sum {
        /// What.
        url: Url,
        /// The sum it should have.
        expected: String,
        /// The sum it has.
        found: String,
    },
    /// It cannot be stored.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A client for downloads: rustls, no proxy surprises beyond the environment's, bounded waits.
pub fn client() -> Result<Client, reqwest::Error> {
    crate::tls::install_provider();
    Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(STALL).build()
}

/// Fetches a small text, such as a published sum.
pub async fn text(client: &Client, url: &Url) -> Result<String, DownloadError> {
    let failed = |source| DownloadError::Http { url: url.clone(), source };
    let response = client.get(url.clone()).send().await.and_then(Response::error_for_status).map_err(failed)?;
    response.text().await.map_err(failed)
}

/// Fetches `url` to `path`. `progress` is told bytes so far, and of how many if the server says.
pub async fn file(
    client: &Client,
    url: &Url,
    path: &Path,
    sha256: &str,
    mut progress: impl FnMut(u64, Option<u64>) + Send,
) -> Result<(), DownloadError> {
    let io = |source| DownloadError::Io { path: path.to_owned(), source };
    let part = path.with_extension(format!("{}.part", sha256.get(..8).unwrap_or_default()));
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(io)?;
    }
    let mut tries = 1;
    while let Err(error) = attempt(client, url, &part, &mut progress).await {
        let lasting = matches!(&error, DownloadError::Io { .. })
            || matches!(&error, DownloadError::Http { source, .. } if source.status().is_some_and(|status| status.is_client_error()));
        if lasting || tries == TRIES {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(tries)).await;
        tries += 1;
    }
    let sum_of = part.clone();
    let sum = tokio::task::spawn_blocking(move || manifest::sum(&sum_of, |_| {})).await;
    let (_, found) = sum.map_err(io::Error::other).and_then(|sum| sum).map_err(io)?;
    if found != sha256 {
        // Never resumed from: its bytes are not trusted.
        tokio::fs::remove_file(&part).await.map_err(io)?;
        return Err(DownloadError::Sum { url: url.clone(), expected: sha256.to_owned(), found });
    }
    tokio::fs::rename(&part, path).await.map_err(io)
}

/// One connection: appends to `part` what is missing of it.
async fn attempt(
    client: &Client,
    url: &Url,
    part: &Path,
    progress: &mut (impl FnMut(u64, Option<u64>) + Send),
) -> Result<(), DownloadError> {
    let failed = |source: reqwest::Error| match source.is_timeout() {
        true => DownloadError::Stalled { url: url.clone() },
        false => DownloadError::Http { url: url.clone(), source },
    };
    let io = |source| DownloadError::Io { path: part.to_owned(), source };
    let mut out = OpenOptions::new().create(true).append(true).open(part).await.map_err(io)?;
    let have = out.seek(SeekFrom::End(0)).await.map_err(io)?;
    let mut request = client.get(url.clone());
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let response = request.send().await.map_err(failed)?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && have > 0 {
        // Everything is there already; the sum decides.
        return Ok(());
    }
    let response = response.error_for_status().map_err(failed)?;
    let (mut got, length) = if response.status() == StatusCode::PARTIAL_CONTENT {
        (have, whole_length(&response))
    } else {
        // A server that does not do ranges starts over, and so do we.
        out = File::create(part).await.map_err(io)?;
        (0, response.content_length())
    };
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(failed)?;
        out.write_all(&chunk).await.map_err(io)?;
        got += chunk.len() as u64;
        progress(got, length);
    }
    out.flush().await.map_err(io)?;
    match length {
        Some(length) if got != length => Err(DownloadError::Truncated { url: url.clone(), got, length }),
        _ => Ok(()),
    }
}

/// The length behind the slash of `Content-Range: bytes 5-9/10`.
fn whole_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.rsplit('/').next()?.parse().ok()
}
