//! Files: only those that were named at the start, with Range, HEAD and ETag by `tower_http`.
//!
//! A file's ETag is its SHA-256, so that a broken download is resumed only on the same bytes (RFC 9110, 13.1.5).

use super::{Shared, script};
use axum::extract::{Path, Request, State};
use axum::http::header::{ETAG, IF_NONE_MATCH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::path::PathBuf;
use std::sync::Arc;
use tower::ServiceExt;
use tower_http::services::ServeFile;

/// One file that is served.
#[derive(Clone, Debug)]
pub struct ServedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its sum, lower case hexadecimal.
    pub sha256: String,
}

pub async fn artifact(State(shared): State<Arc<Shared>>, Path(path): Path<String>, request: Request) -> Response {
    serve(shared.artifacts.get(&path), request).await
}

pub async fn ipxe(State(shared): State<Arc<Shared>>, Path(path): Path<String>, request: Request) -> Response {
    if path.ends_with("/autoexec.ipxe") {
        return script::chain(State(shared)).await;
    }
    serve(shared.artifacts.get(&format!("ipxe/{path}")), request).await
}

pub async fn image(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Response {
    serve(shared.images.get(&name), request).await
}

/// Serves one file. A name that was not given at the start is not looked for, so no path can lead out of what is served.
async fn serve(file: Option<&ServedFile>, mut request: Request) -> Response {
    let Some(file) = file else { return (StatusCode::NOT_FOUND, "no such file\n").into_response() };
    let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", file.sha256)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = request.headers_mut();
    if holds(headers, &IF_NONE_MATCH, &etag) {
        return (StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response();
    }
    if headers.remove(IF_RANGE).is_some_and(|known| known != etag) {
        headers.remove(RANGE);
    }
    headers.remove(IF_NONE_MATCH);
    // Multiple ranges may be answered with the whole file (RFC 9110, 14.2); nobody here asks for them in earnest.
    if headers.get(RANGE).is_some_and(|range| range.as_bytes().contains(&b',')) {
        headers.remove(RANGE);
    }
    let Ok(response) = ServeFile::new(&file.path).with_buf_chunk_size(256 * 1024).oneshot(request).await;
    let mut response = response.into_response();
    response.headers_mut().insert(ETAG, etag);
    response
}

/// Whether a list of entity tags holds this one.
fn holds(headers: &HeaderMap, name: &HeaderName, etag: &HeaderValue) -> bool {
    let (Some(list), Ok(etag)) = (headers.get(name).and_then(|list| list.to_str().ok()), etag.to_str()) else {
        return false;
    };
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag)
}
