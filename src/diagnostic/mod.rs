//! Mistakes in what the user wrote: where, what stands there, what is wrong with it, and the way out.
//!
//! The readers of `spec` and `inventory` and the checks of `plan` push into one [`Diagnostics`] and go on, so that every
//! mistake is reported in one run. Shown by `cli`, as text with the line and a caret, or as JSON.

mod render;
mod source;

pub use source::{Excerpt, Place, Source};

use serde::{Serialize, Serializer};

/// Whether the files can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// They cannot.
    Error,
    /// They can, but the user should know.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What is wrong, without the place.
    pub message: String,
    /// The way out, where we know one.
    pub hint: Option<String>,
}

/// What is wrong with a value, said by one who does not know where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// The way out, where we know one.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds the way out.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds the way out, if there is one.
    pub fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Says where.
    pub fn at(self, place: Place) -> Diagnostic {
        Diagnostic { severity: Severity::Error, place, message: self.message, hint: self.hint }
    }
}

impl Diagnostic {
    /// An error without a hint.
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place, message: message.into(), hint: None }
    }

    /// A warning without a hint.
    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, place, message: message.into(), hint: None }
    }

    /// Adds the way out.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            severity: Severity,
            file: &'a str,
            line: Option<u64>,
            column: Option<u64>,
            text: &'a str,
            message: &'a str,
            hint: Option<&'a str>,
        }
        Flat {
            severity: self.severity,
            file: &self.place.file,
            line: self.place.position.map(|(line, _)| line),
            column: self.place.position.map(|(_, column)| column),
            text: &self.place.text,
            message: &self.message,
            hint: self.hint.as_deref(),
        }
        .serialize(serializer)
    }
}

/// All that was found, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Just this one.
    pub fn of(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Whether the files cannot be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// By line and column of the files, which come in this order; one that was found twice is kept once.
    pub fn sorted(mut self, files: &[&str]) -> Self {
        let file = |diagnostic: &Diagnostic| files.iter().position(|file| *file == diagnostic.place.file);
        self.0.sort_by(|one, other| {
            let key = |of: &Diagnostic| (file(of), of.place.position, of.severity);
            key(one).cmp(&key(other)).then_with(|| one.message.cmp(&other.message))
        });
        self.0.dedup();
        self
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        self.0.extend(diagnostics);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
