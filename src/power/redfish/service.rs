//! The HTTP side of Redfish: requests that are repeated, redirected, refused, or made a task of.

use crate::inventory::BmcAccess;
use crate::power::{BmcError, LOOK};
use crate::secret::Secret;
use rand::RngExt;
use reqwest::header::{ETAG, IF_MATCH, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// For one request. Slow BMCs answer in seconds; one that needs longer is stuck.
const REQUEST: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
/// Tries of one request.
const TRIES: u32 = 4;
/// First pause between two tries; it doubles, and varies so that a rack does not ask in step.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a task that a BMC makes of a request may take.
const TASK: Duration = Duration::from_secs(60);
/// Redirects of one request.
const REDIRECTS: usize = 3;

/// A Redfish service and our account there.
#[derive(Debug)]
pub struct Service {
    client: Client,
    base: Url,
    user: String,
    password: Secret<String>,
}

/// A resource with what is needed to change it.
pub struct Resource {
    pub body: Value,
    pub etag: Option<String>,
}

impl Service {
    /// The service at `base`, whose path is not looked at, with the account of `access`; nothing is sent yet.
    pub fn new(mut base: Url, access: &BmcAccess) -> Result<Self, BmcError> {
        crate::tls::install_provider();
        let unusable = |reason: String| BmcError::Unreachable { bmc: access.url.clone(), reason };
        let client = Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .no_proxy()
            // Followed by `follow`: the client would make a GET of a redirected order.
            .redirect(reqwest::redirect::Policy::none())
            // Some BMCs close idle connections without a word, and the next request on one fails.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| unusable(crate::error::chain(&error)))?;
        base.set_path("/");
        base.set_query(None);
        Ok(Self { client, base, user: access.username.clone(), password: access.password.clone() })
    }

    /// Its address, for errors.
    pub fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Our account's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// An answer that Redfish does not allow.
    pub fn protocol(&self, action: &str, reason: impl Into<String>) -> BmcError {
        BmcError::Protocol { bmc: self.address(), action: action.to_owned(), reason: reason.into() }
    }

    fn failed(&self, action: &str, reason: String) -> BmcError {
        BmcError::Failed { bmc: self.address(), action: action.to_owned(), reason }
    }

    fn unreachable(&self, error: reqwest::Error) -> BmcError {
        BmcError::Unreachable { bmc: self.address(), reason: crate::error::chain(&error.without_url()) }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(path);
        self.client.request(method, url).basic_auth(&self.user, Some(self.password.expose()))
    }

    /// Reads a resource. `action` is for errors, as everywhere here.
    pub async fn get(&self, action: &str, path: &str) -> Result<Resource, BmcError> {
        let response = self.check(action, self.send(action, true, self.request(Method::GET, path)).await?).await?;
        let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let text = response.text().await.map_err(|error| self.unreachable(error))?;
        let body: Value = serde_json::from_str(&text)
            .map_err(|error| self.protocol(action, format!("what is at {path} is no JSON: {error}")))?;
        let etag = etag.or_else(|| body["@odata.etag"].as_str().map(str::to_owned));
        Ok(Resource { body, etag })
    }

    /// Sends an order, and waits until it is carried out.
    pub async fn post(&self, action: &str, path: &str, body: &Value) -> Result<(), BmcError> {
        let response = self.send(action, false, self.request(Method::POST, path).json(body)).await?;
        self.finish(action, response).await
    }

    /// Changes the resource at `path`, which was read with `etag`.
    pub async fn patch(&self, action: &str, path: &str, etag: Option<&str>, body: &Value) -> Result<(), BmcError> {
        let patch = |etag: Option<&str>| {
            let request = self.request(Method::PATCH, path).json(body);
            self.send(action, true, etag.into_iter().fold(request, |request, etag| request.header(IF_MATCH, etag)))
        };
        let unmatched =
            |status: StatusCode| matches!(status, StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED);
        let mut response = patch(etag).await?;
        if unmatched(response.status()) {
            // It was changed in between; or the service compares its own weak tag by the strong comparison, which never
            // matches; or it wants a tag without giving one.
            let fresh = self.get(action, path).await?.etag;
            response = patch(Some(fresh.as_deref().map_or("*", |tag| tag.trim_start_matches("W/")))).await?;
            if unmatched(response.status()) {
                response = patch(Some("*")).await?;
            }
        }
        self.finish(action, response).await
    }

    /// Sends a request, again where the trouble may pass and it does no harm. Gives the answer, whatever its status.
    async fn send(&self, action: &str, repeat: bool, request: RequestBuilder) -> Result<Response, BmcError> {
        let mut tries = 1;
        loop {
            let attempt = request.try_clone().ok_or_else(|| self.protocol(action, "the request cannot be repeated"))?;
            let result = self.follow(attempt).await;
            let passes = match &result {
                Ok(response) => passes(response.status()),
                // Nothing was done yet if there was no connection, so even an order may be sent again.
                Err(error) => repeat || error.is_connect(),
            };
            if tries == TRIES || !passes {
                return result.map_err(|error| self.unreachable(error));
            }
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::time::sleep((PAUSE * 2u32.pow(tries - 1)).mul_f64(jitter)).await;
            tries += 1;
        }
    }

    /// Sends a request once, and the same again to where it is redirected; many BMCs want a slash at the end.
    async fn follow(&self, request: RequestBuilder) -> Result<Response, reqwest::Error> {
        let mut request = request.build()?;
        let mut redirects = 0;
        loop {
            let again = request.try_clone();
            let response = self.client.execute(request).await?;
            match (self.redirected(&response), again) {
                (Some(url), Some(again)) if redirects < REDIRECTS => {
                    request = again;
                    *request.url_mut() = url;
                    redirects += 1;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Where `response` sends us, if that is the same BMC: the password goes to no other, nor from TLS into the clear.
    fn redirected(&self, response: &Response) -> Option<Url> {
        if !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
            return None;
        }
        let url = response.url().join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
        let downgrade = response.url().scheme() == "https" && url.scheme() != "https";
        (url.host() == self.base.host() && !downgrade).then_some(url)
    }

    /// A successful answer, else the error that its status means.
    async fn check(&self, action: &str, response: Response) -> Result<Response, BmcError> {
        let (status, bmc, user) = (response.status(), self.address(), self.user.clone());
        match status {
            StatusCode::UNAUTHORIZED => return Err(BmcError::Unauthorized { bmc, user }),
            StatusCode::FORBIDDEN => return Err(BmcError::Forbidden { bmc, user, action: action.to_owned() }),
            status if status.is_success() => return Ok(response),
            _ => {}
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let body: Value = serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default();
        let reason = match words(&body["error"]) {
            words if words.is_empty() => status.to_string(),
            words => format!("{status}: {words}"),
        };
        Err(match status {
            status if passes(status) || status == StatusCode::CONFLICT => self.failed(action, reason),
            status if status.is_redirection() => {
                self.protocol(action, format!("{reason}, to {}", location.as_deref().unwrap_or("nowhere")))
            }
            _ => BmcError::Unsupported { bmc, action: action.to_owned(), reason },
        })
    }

    /// Checks the answer to a change, and waits for the task that the BMC may make of it (202, DSP0266, 12.2).
    async fn finish(&self, action: &str, response: Response) -> Result<(), BmcError> {
        let response = self.check(action, response).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Ok(());
        }
        let monitor = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let task: Value = serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default();
        // Some give the task itself instead of its address. Without either there is nothing to wait for.
        let Some(monitor) = monitor.or_else(|| task["@odata.id"].as_str().map(str::to_owned)) else { return Ok(()) };
        // Of an address only the path is of use: behind a translated network the BMC does not know its own.
        let path = self.base.join(&monitor).map_or(monitor, |url| url.path().to_owned());
        self.watch(action, &path).await
    }

    /// Waits for the end of the task at `path`.
    async fn watch(&self, action: &str, path: &str) -> Result<(), BmcError> {
        let started = tokio::time::Instant::now();
        let mut seen = false;
        while started.elapsed() < TASK {
            let response = self.send(action, true, self.request(Method::GET, path)).await?;
            if seen && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
                // It forgets its tasks when they are done.
                return Ok(());
            }
            let response = self.check(action, response).await?;
            seen = true;
            let running = response.status() == StatusCode::ACCEPTED;
            let task: Value = serde_json::from_str(&response.text().await.unwrap_or_default()).unwrap_or_default();
            match task["TaskState"].as_str() {
                Some(state @ ("Exception" | "Killed" | "Cancelled")) => {
                    let reason = format!("its task ended as {state}: {}", words(&task));
                    return Err(self.failed(action, reason.trim_end_matches([':', ' ']).to_owned()));
                }
                Some("Completed") => return Ok(()),
                None if !running => return Ok(()),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        Err(self.failed(action, format!("its task was not done after {} s", TASK.as_secs())))
    }
}

/// Whether what this status tells may be over soon.
fn passes(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::LOCKED | StatusCode::TOO_MANY_REQUESTS)
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// The BMC's own words in an error (`@Message.ExtendedInfo`, DSP0266, 8.6) or a task (`Messages`).
fn words(body: &Value) -> String {
    let lists = ["@Message.ExtendedInfo", "Messages"].iter().filter_map(|list| body[list].as_array()).flatten();
    let messages: Vec<&str> = lists.filter_map(|message| message["Message"].as_str()).collect();
    match messages.is_empty() {
        true => body["message"].as_str().unwrap_or_default().to_owned(),
        false => messages.join(" "),
    }
}
