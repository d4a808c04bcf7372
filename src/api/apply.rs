//! Objects of any kind, as manifests have them, by server-side apply.

use super::{ApiError, FIELD_MANAGER};
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, TypeMeta};
use kube::core::gvk::ParseGroupVersionError;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::Value;

/// A manifest's object that could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It does not say what it is.
    #[error("a document of the manifest has no apiVersion of a known form")]
    Kind(#[from] ParseGroupVersionError),
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Applies one document of a manifest; fields of it that others have set are taken over.
pub async fn document(client: &Client, document: Value) -> Result<(), ApplyError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let types = TypeMeta { api_version: text(&document["apiVersion"]), kind: text(&document["kind"]) };
    let (name, namespace) = (text(&document["metadata"]["name"]), text(&document["metadata"]["namespace"]));
    let what = || format!("{} {name}", types.kind);
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = pinned_kind(client, &kind).await.map_err(ApiError::of(what()))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced if namespace.is_empty() => Api::default_namespaced_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
    };
    let how = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &how, &Patch::Apply(&document)).await.map_err(ApiError::of(what()))?;
    Ok(())
}
