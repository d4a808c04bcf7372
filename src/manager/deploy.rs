//! Puts the manager into a cluster: account, rights and Deployment, from `templates/manager/`.

use crate::api::apply::{self, ApplyError};
use crate::api::{MachineRole, MetalCluster, NAMESPACE};
use crate::template;
use kube::{Client, ResourceExt};
use minijinja::context;

const TEMPLATE: &str = include_str!("../../templates/manager/manager.yaml");
/// Port of probes and metrics, on the nodes' addresses.
pub const PROBE_PORT: u16 = 9440;

/// A manager that cannot be deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The template.
    #[error("cannot make the manager's objects")]
    Template(#[from] minijinja::Error),
    /// Its YAML.
    #[error("cannot read the manager's objects")]
    Yaml(#[from] Box<serde_saphyr::Error>),
    /// The API server.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Applies the manager of `cluster`, with the image called `image`, by server-side apply.
pub async fn apply(client: &Client, cluster: &MetalCluster, image: &str) -> Result<(), DeployError> {
    let control_plane = cluster.spec.groups.iter().find(|group| group.role == MachineRole::ControlPlane);
    let nodes = control_plane.map_or(1, |group| group.count);
    let values = context! {
        namespace => NAMESPACE, cluster => cluster.name_any(), image => image,
        // One acts, the others wait; more than two wait for nothing.
        replicas => nodes.min(2), port => PROBE_PORT, gateway => cluster.spec.gateway.is_some(),
    };
    let text = template::render(TEMPLATE, &values)?;
    let documents = serde_saphyr::from_multiple::<serde_json::Value>(&text).map_err(Box::new)?;
    for document in documents {
        apply::document(client, &document).await?;
    }
    Ok(())
}
