//! The boot services' view of the installations that are under way: who may install, with what, and what agents report.
//!
//! `controllers` implements this on the API objects, `discover` for machines that only tell what they are; the HTTP server
//! calls it. The fake for tests is `memory`.

use crate::agent::protocol::{Claim, Report, WorkOrder};
use crate::secret::Secret;
use async_trait::async_trait;

/// Why an agent or a boot script was turned away.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// No machine of that name is being installed now.
    #[error("{0} is not being installed now")]
    NotInstalling(String),
    /// The token or the session's key is unknown, used, or of an earlier boot.
    #[error("the token or session is not valid (any more); the machine must boot from the network again")]
    Refused,
    /// The installer's own store did not answer; the agent may try again.
    #[error("the installer's object store does not answer")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The installations that are under way.
#[async_trait]
pub trait Installations: Send + Sync {
    /// A fresh one-time token for `machine`; every token before it stops working.
    async fn mint_token(&self, machine: &str) -> Result<Secret<String>, InstallationError>;
    /// Spends the token and hands out the work order. An agent that lost our answer must netboot again.
    async fn claim(&self, claim: Claim) -> Result<WorkOrder, InstallationError>;
    /// Takes what a machine says of itself that was started for nothing else; an installer has no such machines.
    async fn inventory(&self, _: Claim) -> Result<(), InstallationError> {
        Err(InstallationError::Refused)
    }
    /// Takes what the agent with this session says.
    async fn report(&self, session: &Secret<String>, report: Report) -> Result<(), InstallationError>;
}
