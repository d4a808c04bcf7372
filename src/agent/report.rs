//! Reports on their way to the installer. Installing never waits for them: they queue up here while the installer is away,
//! and of progress only the newest is kept.

use super::protocol::{Report, Step};
use super::server::Server;
use crate::secret::Secret;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Progress is sent at most so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a report that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Takes reports, from any thread, at once. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reporter(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Pending>,
    /// Something was added, or everything was sent.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// A handful in a whole installation, so it needs no bound.
    reports: VecDeque<Report>,
    /// Newest progress of the current step.
    progress: Option<Report>,
    sending: bool,
    /// The installer does not want to hear from this session again.
    refused: bool,
}

impl Reporter {
    /// Queues a report.
    pub fn send(&self, report: Report) {
        let mut pending = self.pending();
        if pending.refused {
            return;
        }
        if matches!(report, Report::Progress { .. }) {
            pending.progress = Some(report);
        } else {
            // A step's last progress stays before what comes after it.
            let last = pending.progress.take();
            pending.reports.extend(last.into_iter().chain([report]));
        }
        drop(pending);
        self.0.changed.notify_waiters();
    }

    /// Queues the beginning of a step.
    pub fn started(&self, step: Step, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::info!("{step}: {detail}");
        self.send(Report::Started { step, detail });
    }

    /// Sends what is queued, for as long as it runs.
    pub async fn run(self, server: Server, session: Secret<String>) {
        loop {
            // Registered before the look at the queue, so that nothing falls between.
            let changed = self.0.changed.notified();
            let Some(report) = self.next() else {
                changed.await;
                continue;
            };
            let sent = server.report(&session, &report).await;
            let pause = match &sent {
                Ok(()) if matches!(report, Report::Progress { .. }) => INTERVAL,
                Ok(()) => Duration::ZERO,
                Err(_) => PAUSE,
            };
            if let Err(error) = &sent {
                tracing::warn!("a report was not taken: {}", crate::error::chain(error));
            }
            self.done(report, sent.is_err(), sent.is_err_and(|error| error.refused()));
            sleep(pause).await;
        }
    }

    /// Waits until everything queued was sent or refused; false if that took longer than `patience`.
    pub async fn flush(&self, patience: Duration) -> bool {
        let sent = async {
            loop {
                let changed = self.0.changed.notified();
                if self.pending().idle() {
                    return;
                }
                changed.await;
            }
        };
        timeout(patience, sent).await.is_ok()
    }

    fn next(&self) -> Option<Report> {
        let mut pending = self.pending();
        let report = pending.reports.pop_front().or_else(|| pending.progress.take());
        pending.sending = report.is_some();
        report
    }

    fn done(&self, report: Report, failed: bool, refused: bool) {
        let mut pending = self.pending();
        pending.sending = false;
        if refused {
            *pending = Pending { refused, ..Pending::default() };
        } else if failed && !matches!(report, Report::Progress { .. }) {
            pending.reports.push_front(report);
        }
        drop(pending);
        self.0.changed.notify_waiters();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn idle(&self) -> bool {
        self.reports.is_empty() && self.progress.is_none() && !self.sending
    }
}

/// Counts the bytes of a step and reports them, at most once a second.
#[derive(Debug)]
pub struct Meter {
    reporter: Reporter,
    step: Step,
    total: Option<u64>,
    done: u64,
    /// Time and count of the last report.
    last: (Instant, u64),
}

impl Meter {
    /// A meter at zero of `total` bytes, where that is known.
    pub fn new(reporter: &Reporter, step: Step, total: Option<u64>) -> Self {
        Self { reporter: reporter.clone(), step, total, done: 0, last: (Instant::now(), 0) }
    }

    /// So many bytes more.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let (since, before) = self.last;
        let elapsed = since.elapsed();
        if elapsed >= INTERVAL {
            self.report(((self.done - before) as f64 / elapsed.as_secs_f64()) as u64);
            self.last = (Instant::now(), self.done);
        }
    }

    /// Reports the end of the step, with the speed since `start`.
    pub fn finish(self, start: Instant) {
        self.report((self.done as f64 / start.elapsed().as_secs_f64().max(0.001)) as u64);
    }

    fn report(&self, bytes_per_second: u64) {
        let Self { step, total, done, .. } = *self;
        self.reporter.send(Report::Progress { step, done, total, bytes_per_second });
    }
}
