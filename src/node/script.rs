//! One step on a machine: a script that looks whether there is anything to do, does it, and looks again.

use super::ssh::{Session, SshError};
use crate::secret::Secret;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A script's exit code when there was nothing to do; any other but 0 is a failure.
const UNCHANGED: u32 = 76;
/// Lines of a failed script's output that its error shows; the rest is in the machine's log.
const TAIL: usize = 12;

/// A step: `check` and `apply` of a file of `templates/node/`, filled in.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is about, for people: `container images`.
    pub title: &'static str,
    /// The shell functions.
    pub script: Secret<String>,
    /// How long it may take.
    pub limit: Duration,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing: all was as it should be.
    Unchanged,
    /// It changed something, and it took effect.
    Changed,
}

impl From<Done> for bool {
    /// Whether something was changed.
    fn from(done: Done) -> Self {
        done == Done::Changed
    }
}

/// A step that did not work.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The machine cannot be reached, or is not the right one.
    #[error("{title}")]
    Ssh {
        /// The step.
        title: &'static str,
        /// Why.
        #[source]
        source: Box<SshError>,
    },
    /// The script failed, or what it did took no effect.
    #[error("{title} failed: {output}")]
    Failed {
        /// The step.
        title: &'static str,
        /// The end of what it printed.
        output: String,
    },
    /// The machine's log cannot be written.
    #[error("cannot keep the output of {title} in {path}")]
    Log {
        /// The step.
        title: &'static str,
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl StepError {
    /// Whether it was the connection that failed, and not the step.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Ssh { .. })
    }
}

impl Step {
    /// Takes the step on the machine of `session`; what it prints goes to the end of `log`, and `note` is given its progress.
    pub async fn run(
        &self,
        session: &Session,
        log: &Path,
        mut note: impl FnMut(&str) + Send,
    ) -> Result<Done, StepError> {
        let started = Instant::now();
        let progress = |line: &str| {
            if let Some(text) = line.strip_prefix("::") {
                note(text);
            }
        };
        let output = session.run_as_root(&self.whole(), self.limit, progress).await;
        let output = output.map_err(|source| StepError::Ssh { title: self.title, source: Box::new(source) })?;
        let how = match output.status {
            Some(0) => Ok(Done::Changed),
            Some(UNCHANGED) => Ok(Done::Unchanged),
            _ => Err(StepError::Failed { title: self.title, output: tail(&output.text) }),
        };
        if !matches!(how, Ok(Done::Unchanged)) {
            self.keep(log, &output.text, started.elapsed())?;
        }
        how
    }

    /// All of it is read before any of it runs, and what it runs cannot read the rest of it from stdin.
    fn whole(&self) -> Secret<String> {
        Secret::new(format!(
            "{{\nset -eu\nexport LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n{}\n\
             if check; then exit {UNCHANGED}; fi\napply\nif check; then exit 0; fi\n\
             echo 'it ran, but did not take effect'\nexit 1\n}} </dev/null\n",
            self.script.expose()
        ))
    }

    fn keep(&self, log: &Path, output: &str, took: Duration) -> Result<(), StepError> {
        let write = || {
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
            let now = jiff::Timestamp::now();
            write!(file, "==== {now:.0} {} ({:.1} s)\n{}\n", self.title, took.as_secs_f64(), output.trim_end())
        };
        write().map_err(|source| StepError::Log { title: self.title, path: log.to_owned(), source })
    }
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("::")).collect();
    let shown = &lines[lines.len().saturating_sub(TAIL)..];
    if shown.is_empty() { String::from("it printed nothing") } else { shown.join("\n") }
}
