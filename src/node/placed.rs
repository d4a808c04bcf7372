//! Files that a step writes on a machine; `templates/node/place.sh` writes them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Serialize, Serializer};

/// A file of a machine. Its content may be a secret, so it is not for logs.
#[derive(Serialize)]
pub struct File {
    /// Where it is; without blanks.
    pub path: String,
    /// Its permissions, in octal.
    pub mode: &'static str,
    /// What is in it; in base64 where a script has it.
    #[serde(serialize_with = "base64")]
    pub content: String,
}

impl File {
    /// A file.
    pub fn new(path: impl Into<String>, mode: &'static str, content: impl Into<String>) -> Self {
        Self { path: path.into(), mode, content: content.into() }
    }
}

fn base64<S: Serializer>(content: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(content))
}
