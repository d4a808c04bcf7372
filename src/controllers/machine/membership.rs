//! Which machine makes the cluster, and whether there is one to join.

use super::{Context, Machine};
use crate::api::{ApiError, MachineRole, MachineState, MetalMachine};
use crate::controllers::ReconcileError;
use kube::ResourceExt;
use kube::api::ListParams;

/// The machines of the same control plane.
struct ControlPlane(Vec<MetalMachine>);

impl ControlPlane {
    async fn of(context: &Context, cluster: &str) -> Result<Self, ReconcileError> {
        let all = context.objects::<MetalMachine>().list(&ListParams::default()).await;
        let all = all.map_err(ApiError::of("the list of MetalMachines"))?;
        let member = |machine: &MetalMachine| {
            machine.spec.cluster == cluster
                && machine.spec.role == MachineRole::ControlPlane
                && machine.state() != MachineState::Failed
        };
        Ok(Self(all.into_iter().filter(member).collect()))
    }

    /// A node that is being removed counts: while it is there, nobody may make a second cluster.
    fn is_there(&self) -> bool {
        use MachineState::{Deleting, Ready, Starting};
        self.0.iter().any(|machine| matches!(machine.state(), Starting | Ready | Deleting))
    }

    /// The one that makes the cluster: whoever has begun, else the first by name.
    fn founder(&self) -> Option<String> {
        let begun = self.0.iter().find(|machine| machine.state() == MachineState::Initializing);
        begun.map(ResourceExt::name_any).or_else(|| self.0.iter().map(ResourceExt::name_any).min())
    }
}

/// Whether there is a control plane that machines can join.
pub async fn is_initialized(context: &Context, cluster: &str) -> Result<bool, ReconcileError> {
    Ok(ControlPlane::of(context, cluster).await?.is_there())
}

/// The state in which a prepared machine becomes a node.
pub async fn next(context: &Context, machine: &Machine) -> Result<MachineState, ReconcileError> {
    let control_plane = ControlPlane::of(context, &machine.object.spec.cluster).await?;
    let founder = !control_plane.is_there() && control_plane.founder().as_ref() == Some(&machine.name);
    Ok(if founder { MachineState::Initializing } else { MachineState::Joining })
}
