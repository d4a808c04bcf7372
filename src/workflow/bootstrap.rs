//! Phase: the bootstrap cluster that holds the objects.

use super::{Phase, PhaseResult, Run, RunError};
use crate::bootstrap;
use crate::pivot::fence::{Fence, Role};
use async_trait::async_trait;

pub struct Bootstrap;

#[async_trait]
impl Phase for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn title(&self) -> &'static str {
        "starting the bootstrap cluster"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let manifest = run.manifest.as_ref().ok_or(RunError::Order("artifacts"))?;
        let name = &run.request.spec.name;
        let cluster =
            bootstrap::start(&run.request.metalgate, &run.request.bootstrap, manifest, run.work_dir.path(), name)
                .await?;
        let fence = Fence::read(&cluster.client(), name).await?;
        run.handed_over = fence.is_some_and(|fence| fence.role == Role::HandedOver);
        run.cluster = Some(cluster);
        Ok(())
    }
}
