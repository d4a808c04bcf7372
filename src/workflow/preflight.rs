//! Phase: a look at the wire, the BMCs and the clock, before a machine is powered on.
//!
//! It comes again in every run that has machines to install. What earlier runs have begun is told by the journal, so a continued
//! run is not stopped by its own machines.

use super::work_dir::{WorkDir, WorkDirError};
use super::{Phase, PhaseResult, Request, Run, network};
use crate::event::EventBus;
use crate::preflight::{self, Report, Subject};
use async_trait::async_trait;
use std::path::Path;

pub struct Preflight;

#[async_trait]
impl Phase for Preflight {
    fn name(&self) -> &'static str {
        "preflight"
    }

    fn title(&self) -> &'static str {
        "checking the wire, the BMCs and the clock"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let subject = Subject {
            request: &run.request,
            work_dir: run.work_dir.path(),
            events: &run.events,
            place: run.network.clone(),
            image: run.image.as_ref().map(|image| image.file.path.as_path()),
        };
        Ok(preflight::run(&subject, &run.request.skip).await.into_result()?)
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
    let place = network::find(request).ok();
    let subject = Subject { request, work_dir, events, place, image: None };
    Ok(preflight::run(&subject, &request.skip).await)
}
