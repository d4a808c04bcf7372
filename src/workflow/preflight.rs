//! Phase: a look at the wire, the BMCs, what will be served, and the clock, before a machine is powered on.
//!
//! It comes again in every run that has machines to install. What earlier runs have begun is told by the journal, so a continued
//! run is not stopped by its own machines.

use super::artifacts::Verified;
use super::work_dir::{WorkDir, WorkDirError};
use super::{Phase, PhaseResult, Request, Run, network};
use crate::event::{EventBus, EventKind};
use crate::preflight::{self, Report, Subject};
use async_trait::async_trait;
use std::path::Path;
use std::sync::OnceLock;

pub struct Preflight;

#[async_trait]
impl Phase for Preflight {
    fn name(&self) -> &'static str {
        "preflight"
    }

    fn title(&self) -> &'static str {
        "checking the wire, the BMCs, what will be served, and the clock"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let (report, verified) = look(&run.request, run.work_dir.path(), &run.events).await;
        run.verified = verified;
        for (check, finding) in report.findings() {
            run.events.emit(None, EventKind::Checked { check: *check, finding: finding.clone() });
        }
        Ok(report.into_result()?)
    }
}

/// The checks alone, for `metalgate preflight`. Nothing is written to `work_dir`, which need not be there.
///
/// # Errors
/// A run of this cluster is under way: it has the ports, and the machines are its own.
pub async fn alone(request: &Request, work_dir: &Path, events: &EventBus) -> Result<Report, WorkDirError> {
    if WorkDir::is_busy(work_dir) {
        return Err(WorkDirError::Busy(work_dir.to_owned()));
    }
    Ok(look(request, work_dir, events).await.0)
}

/// The artifacts are read once: what the check has found to be right is what the run serves.
async fn look(request: &Request, work_dir: &Path, events: &EventBus) -> (Report, Option<Verified>) {
    let place = network::find(request).ok();
    let subject = Subject { request, work_dir, events, place, verified: OnceLock::new() };
    let report = preflight::run(&subject, &request.skip).await;
    (report, subject.verified.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Provider;
    use crate::preflight::Name;
    use crate::workflow::board::Board;
    use clap::ValueEnum;

    /// A run whose interface this machine has not, with every check left out but these.
    fn run(dir: &Path, checks: &[Name]) -> Run {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware-examples/accepted/uefi-and-bios");
        let input = crate::cli::validate::load(&example.join("cluster.yaml"), &example.join("hardware.csv"));
        let mut input = input.unwrap_or_else(|found| panic!("{}", found.render(false)));
        input.spec.provisioning.interface = Some(String::from("nowhere0"));
        let request = Request {
            spec: input.spec,
            machines: input.machines,
            plan: input.plan,
            artifacts: dir.to_owned(),
            metalgate: std::env::current_exe().unwrap(),
            bootstrap: Provider::Embedded,
            skip: Name::value_variants().iter().copied().filter(|name| !checks.contains(name)).collect(),
        };
        let work_dir = WorkDir::open(&dir.join("work")).unwrap();
        Run::new(request, work_dir, EventBus::default())
    }

    /// What `status` shows as not checked after the phase, and how that ended.
    async fn outcome(checks: &[Name]) -> (Vec<Name>, PhaseResult) {
        let dir = tempfile::tempdir().unwrap();
        let mut run = run(dir.path(), checks);
        let mut events = run.events.subscribe();
        let result = Preflight.run(&mut run).await;
        let seen: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        (Board::of(&seen).not_checked.into_keys().collect(), result)
    }

    #[tokio::test]
    async fn what_was_left_out_is_on_the_board_and_what_failed_ends_the_run() {
        let (not_checked, result) = outcome(&[]).await;
        assert_eq!(not_checked, Name::value_variants());
        result.unwrap();
        let (not_checked, result) = outcome(&[Name::Interface, Name::Dhcp]).await;
        assert_eq!(not_checked.len(), Name::value_variants().len() - 2);
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("2 things are in the way"), "{error}");
        assert!(error.contains("this machine has no interface `nowhere0`"), "{error}");
        assert!(error.contains("nowhere0 is no Ethernet interface of this machine"), "{error}");
    }

    #[tokio::test]
    async fn a_run_under_way_is_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        let run = run(dir.path(), &[]);
        let busy = alone(&run.request, run.work_dir.path(), &run.events).await.unwrap_err();
        assert!(matches!(busy, WorkDirError::Busy(_)), "{busy}");
    }
}
