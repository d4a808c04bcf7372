//! The gateway of the cluster that we run in: put back what has drifted, renew its certificates, and say how it is. `create` waits for
//! what this writes.

use super::{Context, ReconcileError};
use crate::api::{ApiError, FIELD_MANAGER, GatewayStatus, MetalCluster};
use crate::gateway::Stack;
use crate::gateway::cluster::Clusters;
use crate::gateway::reach::Reach;
use crate::gateway::reconcile::{self, PROPAGATION, Settings};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a gateway that is as it should be is looked at: drift lasts no longer than this.
const LOOK: Duration = Duration::from_secs(60);
/// How soon one that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(15);
/// The longest that one step may take; the next round goes on.
const MOST: Duration = Duration::from_secs(15 * 60);

/// Keeps the gateways of all clusters, until `cancel`.
pub async fn keep(context: Arc<Context>, client: Client, cancel: CancellationToken) {
    loop {
        let wait = match cancel.run_until_cancelled(look(&context, &client)).await {
            None => return,
            Some(Ok(true)) => LOOK,
            Some(Ok(false)) => AGAIN,
            Some(Err(error)) => {
                tracing::warn!("{}", crate::error::chain(&error));
                AGAIN
            }
        };
        if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Reconciles every gateway once. Gives whether all are as they should be.
async fn look(context: &Context, client: &Client) -> Result<bool, ReconcileError> {
    let clusters = context.objects::<MetalCluster>().list(&ListParams::default()).await;
    let clusters = clusters.map_err(ApiError::of("the list of MetalClusters"))?;
    let mut all = true;
    for cluster in &clusters {
        let name = cluster.name_any();
        let Some(gateway) = cluster.spec.gateway.clone() else { continue };
        let initialized = cluster.metadata.deletion_timestamp.is_none() && context.epoch(&name).await?.is_some();
        if !initialized {
            continue;
        }
        let stack = Stack { name: name.clone(), gateway };
        let (ready, message) = match reconcile_once(context, client, &stack).await {
            Ok(()) => (true, String::from("control plane, data planes and routes are in place")),
            Err(error) => (false, crate::error::chain(error.as_ref())),
        };
        all &= ready;
        let generation = cluster.metadata.generation.unwrap_or_default();
        write(context, cluster, GatewayStatus { observed_generation: generation, ready, message }).await?;
    }
    Ok(all)
}

async fn reconcile_once(
    context: &Context,
    client: &Client,
    stack: &Stack,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let clusters = Clusters::connect(client.clone(), stack).await?;
    // As from outside of the cluster: Kong's Admin API is for nobody else, and a network policy knows no pod on a host's network.
    let reach = |client: &Client| Reach::Forward(client.clone());
    let settings = Settings {
        reach: &reach,
        definitions: context.supplies.definitions.clone(),
        most: MOST,
        propagation: PROPAGATION,
        report: &|text| tracing::info!(gateway = stack.name, "{text}"),
    };
    Ok(reconcile::reconcile(&clusters, stack, &settings).await?)
}

async fn write(context: &Context, cluster: &MetalCluster, status: GatewayStatus) -> Result<(), ReconcileError> {
    if cluster.status.as_ref().and_then(|status| status.gateway.as_ref()) == Some(&status) {
        return Ok(());
    }
    let name = cluster.name_any();
    let patch = Patch::Merge(serde_json::json!({"status": {"gateway": status}}));
    let api = context.objects::<MetalCluster>();
    let written = api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER), &patch).await;
    written.map_err(ApiError::of(format!("the status of MetalCluster {name}")))?;
    Ok(())
}
