//! Phase: DHCP, TFTP, HTTP and the agent's API, on the provisioning network.

use super::{Phase, PhaseResult, Run, RunError};
use crate::controllers::Workload;
use crate::manager::services::Side;
use async_trait::async_trait;
use std::collections::BTreeMap;

pub struct Netboot;

#[async_trait]
impl Phase for Netboot {
    fn name(&self) -> &'static str {
        "netboot"
    }

    fn title(&self) -> &'static str {
        "starting DHCP, TFTP and HTTP"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        if run.handed_over {
            return Ok(());
        }
        let network = run.network.as_ref().ok_or(RunError::Order("provisioning network"))?;
        let image = run.image.as_ref().ok_or(RunError::Order("image"))?;
        let side = Side {
            client: run.cluster.as_ref().ok_or(RunError::Order("bootstrap cluster"))?.client(),
            workload: Workload::administrator(),
            events: run.events.clone(),
            interface: network.interface.clone(),
            address: network.address,
            provisioning: super::objects::provisioning(&run.request.spec),
            supplies: run.supplies.clone().ok_or(RunError::Order("artifacts"))?,
            os_images: BTreeMap::from([(image.name.clone(), image.file.clone())]),
            pki: run.work_dir.subdirectory("pki")?,
            logs: run.work_dir.subdirectory("machines")?,
            ssh_key: run.installer_key.take().ok_or(RunError::Order("installer key"))?,
        };
        run.context = Some(side.serve(&mut run.tasks, &run.cancel).await?);
        Ok(())
    }
}
