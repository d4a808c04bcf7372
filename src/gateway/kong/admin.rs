//! Kong's Admin API (<https://developer.konghq.com/api/gateway/admin-oss/3.9/>), as much of it as entities and proof need.

use super::super::reach::{Reach, ReachError};
use super::ADMIN_PORT;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// Entities in a page of a list.
const PAGE: u32 = 500;
/// Most pages that are read: a list that never ends is not one of ours.
const MAX_PAGES: u32 = 200;

/// An order that the Admin API did not carry out.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It does not answer.
    #[error("Kong's Admin API cannot be reached")]
    Reach(#[from] ReachError),
    /// It refused.
    #[error("Kong's Admin API refuses {order}: {status}: {message}")]
    Refused {
        /// Method and path.
        order: String,
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// Its answer is none of Kong's.
    #[error("Kong's Admin API answers {order} with something that is not JSON")]
    Answer {
        /// Method and path.
        order: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A list without an end.
    #[error("the list {0} of Kong's Admin API does not end")]
    Endless(String),
}

/// The Admin API of one control-plane pod.
pub struct Admin<'a> {
    /// How the pod is reached.
    pub reach: &'a Reach,
    /// The pod.
    pub pod: &'a Pod,
}

impl Admin<'_> {
    /// An object; nothing if there is none at this path.
    pub async fn get(&self, path: &str) -> Result<Option<Value>, AdminError> {
        self.order(Method::GET, path, None).await
    }

    /// Makes or replaces an entity.
    pub async fn put(&self, path: &str, body: &Value) -> Result<(), AdminError> {
        self.write(Method::PUT, path, body).await
    }

    /// Makes an entity in a collection.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(), AdminError> {
        self.write(Method::POST, path, body).await
    }

    async fn write(&self, method: Method, path: &str, body: &Value) -> Result<(), AdminError> {
        match self.order(method.clone(), path, Some(body)).await? {
            Some(_) => Ok(()),
            // Only of what is read or deleted it is no mistake that it is not there.
            None => Err(AdminError::Refused {
                order: format!("{method} {path}"),
                status: StatusCode::NOT_FOUND,
                message: String::from("there is no such entity"),
            }),
        }
    }

    /// Deletes an entity, if it is there.
    pub async fn delete(&self, path: &str) -> Result<(), AdminError> {
        self.order(Method::DELETE, path, None).await.map(drop)
    }

    /// Every entity of a list, with or without a tag, all pages.
    pub async fn list(&self, collection: &str, tag: Option<&str>) -> Result<Vec<Value>, AdminError> {
        let mut path = format!("/{collection}?size={PAGE}");
        if let Some(tag) = tag {
            path.push_str(&format!("&tags={tag}"));
        }
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(mut page) = self.get(&path).await? else { return Ok(found) };
            if let Some(items) = page["data"].as_array_mut() {
                found.append(items);
            }
            match page["next"].as_str() {
                Some(next) => path = next.to_owned(),
                None => return Ok(found),
            }
        }
        Err(AdminError::Endless(collection.to_owned()))
    }

    async fn order(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Option<Value>, AdminError> {
        let order = format!("{method} {path}");
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(text)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(http::header::HOST, http::HeaderValue::from_static("kong-admin"));
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        let response = self.reach.http(self.pod, ADMIN_PORT, None, request).await?;
        read(order, &response)
    }
}

fn read(order: String, response: &Response<Bytes>) -> Result<Option<Value>, AdminError> {
    let status = response.status();
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if !status.is_success() {
        let said = serde_json::from_slice::<Value>(response.body()).unwrap_or_default();
        // Names of fields, never their values: a value may be a key.
        let message = said["message"].as_str().unwrap_or("without a reason").to_owned();
        return Err(AdminError::Refused { order, status, message });
    }
    if response.body().is_empty() {
        return Ok(Some(Value::Null));
    }
    serde_json::from_slice(response.body()).map(Some).map_err(|source| AdminError::Answer { order, source })
}
