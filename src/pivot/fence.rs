//! Who manages a cluster: an epoch and a role, in a ConfigMap on each side of a pivot.
//!
//! At every moment at most one side is [`Role::Active`]: the old side is told that it has handed over before the new one is
//! told that it may begin, and a side changes its record only if it is still the one that it read (by resource version).

use super::PivotError;
use crate::api::{ApiError, CLUSTER_LABEL, NAMESPACE};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a side may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It manages the cluster.
    Active,
    /// It manages nothing for the moment: its objects are being copied.
    Frozen,
    /// It manages nothing yet: objects are being copied to it.
    Receiving,
    /// It manages nothing any more: another side has taken over.
    HandedOver,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A side's record of its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Counts the pivots that led here; the side with the higher one is the newer.
    pub epoch: u64,
    /// What the side may do in it.
    pub role: Role,
    /// The record as it was read; none if there was none.
    version: Option<String>,
}

impl Fence {
    /// The record of `cluster` on the side of `client`; a side that was never part of a pivot has none.
    pub async fn read(client: &Client, cluster: &str) -> Result<Option<Self>, PivotError> {
        let name = name(cluster);
        let found = records(client).get_opt(&name).await.map_err(ApiError::of(format!("ConfigMap {name}")))?;
        let Some(map) = found else { return Ok(None) };
        let data = map.data.unwrap_or_default();
        let parsed = || {
            let role = serde_json::from_value(data.get("role")?.as_str().into()).ok()?;
            Some(Self { epoch: data.get("epoch")?.parse().ok()?, role, version: map.metadata.resource_version })
        };
        parsed().map(Some).ok_or(PivotError::Record { name })
    }

    /// Writes the record, if it is still the one that was read.
    pub async fn write(self, client: &Client, cluster: &str, role: Role) -> Result<Self, PivotError> {
        let name = name(cluster);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(BTreeMap::from([(CLUSTER_LABEL.to_owned(), cluster.to_owned())])),
                resource_version: self.version.clone(),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (String::from("epoch"), self.epoch.to_string()),
                (String::from("role"), role.to_string()),
            ])),
            ..ConfigMap::default()
        };
        let (api, how) = (records(client), PostParams::default());
        let written = match &self.version {
            Some(_) => api.replace(&name, &how, &map).await,
            None => api.create(&how, &map).await,
        };
        let written = written.map_err(ApiError::of(format!("ConfigMap {name}")))?;
        Ok(Self { epoch: self.epoch, role, version: written.metadata.resource_version })
    }

    /// The same record in a later epoch.
    pub fn in_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// The record that a side without one begins with.
    pub fn first(epoch: u64, role: Role) -> Self {
        Self { epoch, role, version: None }
    }
}

/// The epoch in which the side of `client` manages `cluster`, if it does. A side without a record does, in the first epoch:
/// nothing was handed over yet.
pub async fn active_epoch(client: &Client, cluster: &str) -> Result<Option<u64>, PivotError> {
    Ok(match Fence::read(client, cluster).await? {
        None => Some(0),
        Some(fence) => (fence.role == Role::Active).then_some(fence.epoch),
    })
}

fn name(cluster: &str) -> String {
    format!("{cluster}-management")
}

fn records(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}
