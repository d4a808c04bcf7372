//! What the agent and the installer say to each other, as JSON over TLS 1.3. Both ends use these types.
//!
//! ```text
//! POST /agent/v1/claim      Claim  -> WorkOrder   the token works once; the answer carries the session's key
//! POST /agent/v1/report     Report -> 204         with `Authorization: Bearer <session>`
//! POST /agent/v1/inventory  Claim  -> 204         by a machine that was started to tell what it is, and for nothing else
//! ```
//! The agent knows the server by the SHA-256 of its certificate, given on the kernel command line; the server knows the
//! agent by its token, then by the session. Every secret of the installed machine travels in the [`WorkOrder`] only.

use crate::event::EventKind;
use crate::hardware::{DiskSelector, Facts, MacAddr};
use crate::secret::{Secret, serialize_exposed};
use crate::spec::ImageFormat;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Kernel command line words that the agent reads.
pub mod cmdline {
    /// `metalgate.url=https://10.0.0.1:8443`: where the API is.
    pub const URL: &str = "metalgate.url";
    /// `metalgate.cert=<hex>`: SHA-256 of the server's certificate in DER.
    pub const CERT: &str = "metalgate.cert";
    /// `metalgate.token=<text>`: the one-time token.
    pub const TOKEN: &str = "metalgate.token";
    /// `metalgate.mac=aa:bb:..`: the interface that booted.
    pub const MAC: &str = "metalgate.mac";
    /// `metalgate.ip=10.0.0.5/24`: address to use while installing.
    pub const IP: &str = "metalgate.ip";
    /// `metalgate.gateway=10.0.0.1`: default route, where there is one.
    pub const GATEWAY: &str = "metalgate.gateway";
    /// `metalgate.task=inventory`: what the machine was started for; without it, to be installed.
    pub const TASK: &str = "metalgate.task";
}

/// What a machine is started for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// To be installed.
    #[default]
    Install,
    /// To tell what it is, and to be switched off again. Such an agent never asks for a work order, so it writes no disk.
    Inventory,
}

impl Task {
    /// The value of [`cmdline::TASK`].
    pub const INVENTORY: &str = "inventory";
}

/// The agent's first message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The one-time token of the boot script.
    #[serde(serialize_with = "serialize_exposed")]
    pub token: Secret<String>,
    /// Interface that the machine booted from.
    pub mac: MacAddr,
    /// What the machine is.
    pub facts: Facts,
}

/// What the agent is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkOrder {
    /// Hostname; for messages on the console.
    pub machine: String,
    /// Key of the session, for every report.
    #[serde(serialize_with = "serialize_exposed")]
    pub session: Secret<String>,
    /// Image to write.
    pub image: ImageOrder,
    /// Disk to write it to.
    pub disk: DiskSelector,
    /// NoCloud seed to leave on the disk.
    pub seed: Seed,
    /// How to start the installed system.
    pub finish: Finish,
}

/// The image, as the machine fetches it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageOrder {
    /// On our HTTP server; Range requests work.
    pub url: String,
    /// Sum of the file as it comes over the wire, lower case hexadecimal.
    pub sha256: String,
    /// How it is packed.
    pub format: ImageFormat,
}

/// Files of a cloud-init NoCloud seed. The user data carries the SSH host key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// `meta-data`.
    pub meta_data: String,
    /// `user-data`.
    #[serde(serialize_with = "serialize_exposed")]
    pub user_data: Secret<String>,
    /// `network-config`, version 2.
    pub network_config: String,
}

/// How the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Finish {
    /// Through the firmware, which starts the disk.
    Reboot,
}

/// Steps of an installation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Choosing the disk.
    Disk,
    /// Fetching, unpacking and writing the image.
    Write,
    /// Reading back what was written.
    Verify,
    /// Growing the partition table to the disk.
    Partition,
    /// Writing the NoCloud seed.
    Seed,
    /// Setting the firmware's boot entry.
    BootEntry,
    /// Leaving for the installed system.
    Finish,
}

/// One message of progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Report {
    /// A step began; `detail` names its object (the disk, the image).
    Started { step: Step, detail: String },
    /// Bytes so far in a step. At most one a second.
    Progress { step: Step, done: u64, total: Option<u64>, bytes_per_second: u64 },
    /// The image is on the disk and reads back as it was written.
    Written { disk: String, bytes: u64, seconds: f64, sha256: String },
    /// The machine stops here; nothing will be booted. The error's whole chain, outermost first.
    Failed { step: Step, error: String },
    /// The last report.
    Leaving { how: Finish },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Write => "write",
            Self::Verify => "verify",
            Self::Partition => "partition",
            Self::Seed => "seed",
            Self::BootEntry => "boot entry",
            Self::Finish => "finish",
        })
    }
}

impl From<Report> for EventKind {
    fn from(report: Report) -> Self {
        match report {
            Report::Started { step, detail } => Self::AgentStep { step: step.to_string(), detail },
            Report::Progress { step, done, total, bytes_per_second } => {
                Self::AgentProgress { step: step.to_string(), done, total, bytes_per_second }
            }
            Report::Written { disk, bytes, seconds, sha256 } => Self::ImageWritten { bytes, seconds, disk, sha256 },
            Report::Failed { step, error } => Self::AgentFailed { step: step.to_string(), error },
            Report::Leaving { how } => Self::Rebooting { how: format!("{how:?}").to_lowercase() },
        }
    }
}
