//! The one error of talking to an API server.

/// The API server refused a request, or did not answer it.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not take or give {what}")]
pub struct ApiError {
    /// The object: `MetalMachine node-1`.
    pub what: String,
    /// Its error.
    #[source]
    pub source: Box<kube::Error>,
}

impl ApiError {
    /// Names the object that a request was about.
    pub fn of(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self { what, source: Box::new(source) }
    }

    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self.source.as_ref() {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether a write was refused because the object had changed.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}
