//! The pivot: a cluster's management moves from one API server to another, verified, and never in two places at once.
//!
//! ```text
//! source  Active -> Frozen ---------------------> HandedOver
//! target            Receiving: copy, verify                   -> Active
//! ```
//! `graph` says what is carried, `fence` who may act, this file moves it. Every step can be interrupted and all of it be run
//! again: what was done is found in the objects of both sides. Fed by `workflow`; the side that takes over runs the same
//! `controllers`.

pub mod fence;
pub mod graph;

use crate::api::{ApiError, FIELD_MANAGER, crds};
use crate::event::{EventBus, EventKind};
use fence::{Fence, Role};
use futures::{StreamExt, TryStreamExt, stream};
use graph::{Graph, Id};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;

/// Objects that are written at the same time.
const PARALLEL: usize = 16;

/// A move that did not work.
#[derive(Debug, thiserror::Error)]
pub enum PivotError {
    /// An API server refused or did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The target does not take our definitions.
    #[error("the new cluster cannot hold the objects")]
    Definitions(#[from] crds::CrdError),
    /// A record that says nothing.
    #[error("ConfigMap {name} does not tell who manages the cluster: delete it on the side that should not")]
    Record {
        /// Its name.
        name: String,
    },
    /// The copy is not what the original is.
    #[error("the copy differs from the original in {}: nothing was handed over, the old side still manages", list(.0))]
    Differs(Vec<Id>),
    /// Both sides believe what cannot be.
    #[error(
        "{cluster} is {source_role} here and {target_role} in the new cluster: one of them was changed by hand; decide which one \
         manages, and delete ConfigMap {cluster}-management in the other"
    )]
    Contradiction {
        /// The cluster.
        cluster: String,
        /// The source's role.
        source_role: Role,
        /// The target's role.
        target_role: Role,
    },
}

fn list(objects: &[Id]) -> String {
    objects.iter().map(|(kind, name)| format!("{kind} {name}")).collect::<Vec<_>>().join(", ")
}

/// A move of one cluster's management.
#[derive(Clone)]
pub struct Pivot {
    /// The side that manages now.
    pub source: Client,
    /// The side that takes over.
    pub target: Client,
    /// The cluster.
    pub cluster: String,
    /// Where progress goes.
    pub events: EventBus,
}

impl Pivot {
    /// Moves the management to the target; fine if it is there already.
    ///
    /// Before the hand-over, an error leaves the source managing as if nothing had been tried. A process that is killed
    /// leaves it frozen; running this again goes on, [`Pivot::thaw`] thaws it.
    pub async fn hand_over(&self) -> Result<(), PivotError> {
        let source = self.record(&self.source).await?.unwrap_or(Fence::first(0, Role::Active));
        let target = self.record(&self.target).await?;
        let epoch = source.epoch + 1;
        let receiving = match (source.role, target) {
            (Role::HandedOver, Some(target)) if target.role == Role::Active => return Ok(()),
            // Killed between the two records.
            (Role::HandedOver, Some(target)) if target.role == Role::Receiving => return self.activate(target).await,
            (Role::Active | Role::Frozen, Some(target)) if target.role == Role::Receiving => target,
            (Role::Active | Role::Frozen, None) => Fence::first(epoch, Role::Receiving),
            // It managed the cluster once, and takes it back.
            (Role::Active | Role::Frozen, Some(target))
                if target.role == Role::HandedOver && target.epoch < source.epoch =>
            {
                target.in_epoch(epoch)
            }
            (source_role, target) => {
                let target_role = target.map_or(Role::Receiving, |target| target.role);
                return Err(PivotError::Contradiction { cluster: self.cluster.clone(), source_role, target_role });
            }
        };
        let frozen = source.write(&self.source, &self.cluster, Role::Frozen).await?;
        self.step("frozen");
        match self.copy(receiving).await {
            Ok(target) => {
                frozen.write(&self.source, &self.cluster, Role::HandedOver).await?;
                self.step("handed over");
                self.activate(target).await
            }
            Err(error) => {
                // What cannot be thawed now is thawed by the next run; the cause is what the user needs.
                if let Err(thaw) = frozen.write(&self.source, &self.cluster, Role::Active).await {
                    tracing::warn!("the old side stays frozen: {}", crate::error::chain(&thaw));
                }
                Err(error)
            }
        }
    }

    /// Lets a side manage again after a run that was killed before its hand-over.
    pub async fn thaw(side: &Client, cluster: &str) -> Result<(), PivotError> {
        match Fence::read(side, cluster).await? {
            Some(fence) if fence.role == Role::Frozen => fence.write(side, cluster, Role::Active).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Deletes the source's objects, once the target manages. The source's record stays: it says where the cluster went.
    pub async fn clear_source(&self) -> Result<(), PivotError> {
        let roles = (self.record(&self.source).await?, self.record(&self.target).await?);
        let (Some(source), Some(target)) = roles else { return Ok(()) };
        if source.role != Role::HandedOver || target.role != Role::Active {
            let (source_role, target_role) = (source.role, target.role);
            return Err(PivotError::Contradiction { cluster: self.cluster.clone(), source_role, target_role });
        }
        let left = Graph::read(&self.source, &self.cluster).await?;
        self.delete(&self.source, left.objects.keys()).await?;
        self.step("source cleared");
        Ok(())
    }

    async fn record(&self, client: &Client) -> Result<Option<Fence>, PivotError> {
        Fence::read(client, &self.cluster).await
    }

    async fn activate(&self, target: Fence) -> Result<(), PivotError> {
        target.write(&self.target, &self.cluster, Role::Active).await?;
        self.step("active");
        Ok(())
    }

    /// Makes the target's objects equal to the source's, and makes sure that they are.
    async fn copy(&self, receiving: Fence) -> Result<Fence, PivotError> {
        crds::apply(&self.target).await?;
        // Before the first object: controllers there must not take one up.
        let receiving = receiving.write(&self.target, &self.cluster, Role::Receiving).await?;
        self.step("receiving");
        let original = Graph::read(&self.source, &self.cluster).await?;
        // An earlier run may have copied what has been deleted since.
        let there = Graph::read(&self.target, &self.cluster).await?;
        self.delete(&self.target, there.objects.keys().filter(|id| !original.objects.contains_key(*id))).await?;
        let total = original.objects.len() as u64;
        let mut done = 0;
        for resource in graph::kinds() {
            let objects: Vec<_> = original.objects.iter().filter(|((kind, _), _)| *kind == resource.kind).collect();
            let writes: Vec<_> =
                objects.into_iter().map(|(_, object)| self.write(&resource, object, &original)).collect();
            let mut written = stream::iter(writes).buffer_unordered(PARALLEL);
            while written.try_next().await?.is_some() {
                done += 1;
                let what = String::from("objects moved");
                self.events.emit(None, EventKind::Count { what, done, total });
            }
        }
        self.verify().await?;
        self.step("verified");
        Ok(receiving)
    }

    /// Writes one object and its status, with the UIDs that its owners have on this side.
    async fn write(&self, resource: &ApiResource, object: &DynamicObject, all: &Graph) -> Result<(), PivotError> {
        let mut copy = graph::content(object);
        copy.metadata.owner_references = self.owners(object, all).await?;
        let (name, api) = (copy.name_any(), graph::api(&self.target, resource));
        let what = || format!("{} {name}", resource.kind);
        let how = PatchParams::apply(FIELD_MANAGER).force();
        let status = copy.data.as_object_mut().and_then(|data| data.remove("status"));
        api.patch(&name, &how, &Patch::Apply(&copy)).await.map_err(ApiError::of(what()))?;
        if let Some(status) = status {
            let patch = json!({ "apiVersion": resource.api_version, "kind": resource.kind, "status": status });
            let patched = api.patch_status(&name, &how, &Patch::Apply(patch)).await;
            patched.map_err(ApiError::of(format!("the status of {}", what())))?;
        }
        Ok(())
    }

    /// The owners of an object, by the UIDs of the target. Owners are of earlier kinds, so they are there.
    async fn owners(
        &self,
        object: &DynamicObject,
        all: &Graph,
    ) -> Result<Option<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>>, PivotError> {
        let Some(mut owners) = object.metadata.owner_references.clone() else { return Ok(None) };
        for owner in &mut owners {
            let id = (owner.kind.clone(), owner.name.clone());
            let Some(resource) = graph::kinds().into_iter().find(|resource| resource.kind == owner.kind) else {
                continue;
            };
            if all.objects.contains_key(&id) {
                let found = graph::api(&self.target, &resource).get_metadata(&owner.name).await;
                let found = found.map_err(ApiError::of(format!("{} {}", owner.kind, owner.name)))?;
                owner.uid = found.metadata.uid.unwrap_or_default();
            }
        }
        Ok(Some(owners))
    }

    /// Reads both sides again and compares them: an object that changed although it was frozen shows here.
    async fn verify(&self) -> Result<(), PivotError> {
        let original = Graph::read(&self.source, &self.cluster).await?;
        let copy = Graph::read(&self.target, &self.cluster).await?;
        let (wanted, found) = (original.hashes(), copy.hashes());
        let differs = |(id, hash): (&&Id, &String)| found.get(*id) != Some(hash);
        let mut different: Vec<Id> =
            wanted.iter().filter(|entry| differs(*entry)).map(|(id, _)| (*id).clone()).collect();
        different.extend(found.keys().filter(|id| !wanted.contains_key(*id)).map(|id| (*id).clone()));
        if different.is_empty() { Ok(()) } else { Err(PivotError::Differs(different)) }
    }

    async fn delete<'a>(&self, client: &Client, ids: impl Iterator<Item = &'a Id>) -> Result<(), PivotError> {
        let resources: BTreeMap<String, ApiResource> =
            graph::kinds().into_iter().map(|resource| (resource.kind.clone(), resource)).collect();
        let deletion = |(kind, name): &'a Id| {
            let api = resources.get(kind).map(|resource| graph::api(client, resource));
            async move {
                let Some(api) = api else { return Ok(()) };
                // What a finalizer would do is the business of the side that manages; here it is a copy that goes.
                let freed = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
                let done = match api.patch(name, &PatchParams::default(), &freed).await {
                    Ok(_) => api.delete(name, &Default::default()).await.map(drop),
                    Err(error) => Err(error),
                };
                match done {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    done => done.map_err(ApiError::of(format!("the deletion of {kind} {name}"))),
                }
            }
        };
        let deletions: Vec<_> = ids.map(deletion).collect();
        stream::iter(deletions).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        Ok(())
    }

    fn step(&self, what: &str) {
        let what = format!("pivot of {}: {what}", self.cluster);
        self.events.emit(None, EventKind::Count { what, done: 1, total: 1 });
    }
}
