//! The installer, as the agent sees it: claims the work order, and carries reports.
//!
//! The installer may be killed and started again at any time, so nothing that a retry can mend stops the machine: only an
//! answer that says no does.

use super::arguments::Arguments;
use super::pinned;
use super::protocol::{Claim, Report, WorkOrder};
use crate::secret::Secret;
use reqwest::{Client, StatusCode, redirect};
use std::time::Duration;
use tokio::time::sleep;
use url::Url;

/// For one request, all in all.
const REQUEST: Duration = Duration::from_secs(30);
/// To a server in the same network.
pub const CONNECT: Duration = Duration::from_secs(10);
/// First pause after a failure; it doubles each time.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Why the installer cannot be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The TLS client cannot be made.
    #[error("cannot set up TLS")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer.
    #[error("no answer from {url}: is the installer running, and is it the one that wrote the boot script?")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// An answer that asks to come again.
    #[error("{url} answers {status}{message}")]
    Busy {
        /// What was asked.
        url: String,
        /// 5xx, 408 or 429.
        status: StatusCode,
        /// What the server said to it, with `: ` before.
        message: String,
    },
    /// An answer that says no.
    #[error("{url} answers {status}{message}")]
    Refused {
        /// What was asked.
        url: String,
        /// 401 for a token or session that is not valid (any more).
        status: StatusCode,
        /// What the server said to it, with `: ` before.
        message: String,
    },
}

impl ServerError {
    /// Whether the same request may work later.
    fn passes(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Busy { .. })
    }
}

/// The installer's API.
#[derive(Clone, Debug)]
pub struct Server {
    client: Client,
    url: Url,
}

impl Server {
    /// The installer that the boot script named; nothing is sent yet.
    pub fn new(arguments: &Arguments) -> Result<Self, ServerError> {
        let tls = pinned::client_config(arguments.certificate).map_err(|error| ServerError::Client(error.into()))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build();
        let client = client.map_err(|error| ServerError::Client(error.into()))?;
        Ok(Self { client, url: arguments.url.clone() })
    }

    /// The HTTP client, which also fetches the image: over TLS it talks to the installer only.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Trades the token for the work order. Waits for the installer for as long as it takes: when it was stopped, it is
    /// started again by a person, and goes on with the machines that wait.
    pub async fn claim(&self, claim: &Claim) -> Result<WorkOrder, ServerError> {
        persist(|| self.try_claim(claim)).await
    }

    /// Tells what the machine is, as its only message; as patient as a claim.
    pub async fn inventory(&self, claim: &Claim) -> Result<(), ServerError> {
        let url = self.endpoint("agent/v1/inventory");
        persist(async || {
            let answer = self.client.post(url.clone()).json(claim).timeout(REQUEST).send().await;
            check(&url, answer).await.map(drop)
        })
        .await
    }

    async fn try_claim(&self, claim: &Claim) -> Result<WorkOrder, ServerError> {
        let url = self.endpoint("agent/v1/claim");
        let answer = self.client.post(url.clone()).json(claim).timeout(REQUEST).send().await;
        let answer = check(&url, answer).await?;
        // The token is spent by now: an order that breaks off on the way is refused when it is asked for again, which tells
        // the operator what to do.
        answer.json().await.map_err(|source| ServerError::NoAnswer { url: url.to_string(), source })
    }

    /// Sends one report, once.
    pub async fn report(&self, session: &Secret<String>, report: &Report) -> Result<(), ServerError> {
        let url = self.endpoint("agent/v1/report");
        let request = self.client.post(url.clone()).bearer_auth(session.expose()).json(report).timeout(REQUEST);
        check(&url, request.send().await).await.map(drop)
    }

    fn endpoint(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url
    }
}

/// Tries again until the answer is yes or no.
async fn persist<T>(attempt: impl AsyncFn() -> Result<T, ServerError>) -> Result<T, ServerError> {
    let mut pause = PAUSE;
    loop {
        let error = match attempt().await {
            Err(error) if error.passes() => error,
            done => return done,
        };
        tracing::warn!("{}; trying again in {} s", crate::error::chain(&error), pause.as_secs());
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How long an answer's explanation may be, to fit a console.
const MESSAGE: usize = 500;

async fn check(url: &Url, answer: Result<reqwest::Response, reqwest::Error>) -> Result<reqwest::Response, ServerError> {
    let answer = answer.map_err(|error| ServerError::NoAnswer { url: url.to_string(), source: error.without_url() })?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let message = answer.text().await.unwrap_or_default();
    let message: String = message.trim().chars().take(MESSAGE).collect();
    let message = if message.is_empty() { message } else { format!(": {message}") };
    let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
    let url = url.to_string();
    Err(if again { ServerError::Busy { url, status, message } } else { ServerError::Refused { url, status, message } })
}

impl ServerError {
    /// Whether the installer said no, so that asking again is useless.
    pub fn refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

#[cfg(test)]
pub(crate) mod tests;
