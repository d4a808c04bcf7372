//! Objects of any kind, as manifests have them, by server-side apply.

use super::{ApiError, FIELD_MANAGER};
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, TypeMeta};
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

/// Applies one document of a manifest; fields of it that others have set are taken over. Gives the object as it is then.
pub async fn document(client: &Client, document: &Value) -> Result<DynamicObject, ApplyError> {
    patch(client, document, PatchParams::apply(FIELD_MANAGER).force()).await
}

/// What [`document`] would give, without a change.
pub async fn rehearse(client: &Client, document: &Value) -> Result<DynamicObject, ApplyError> {
    patch(client, document, PatchParams::apply(FIELD_MANAGER).force().dry_run()).await
}

async fn patch(client: &Client, document: &Value, how: PatchParams) -> Result<DynamicObject, ApplyError> {
    let (api, name, what) = find(client, document).await?;
    Ok(api.patch(&name, &how, &Patch::Apply(document)).await.map_err(ApiError::of(what))?)
}

/// The object of a document as it is; nothing if it is not there, or its kind is not.
pub async fn current(client: &Client, document: &Value) -> Result<Option<DynamicObject>, ApplyError> {
    match find(client, document).await {
        Ok((api, name, what)) => Ok(api.get_opt(&name).await.map_err(ApiError::of(what))?),
        Err(ApplyError::Api(error)) if is_unknown_kind(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes the object of a document, with all that belongs to it; it may be gone.
pub async fn delete(client: &Client, document: &Value) -> Result<(), ApplyError> {
    let (api, name, what) = match find(client, document).await {
        Err(ApplyError::Api(error)) if is_unknown_kind(&error) => return Ok(()),
        found => found?,
    };
    match api.delete(&name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => Ok(result.map(drop).map_err(ApiError::of(what))?),
    }
}

/// Whether the API server does not serve this kind.
pub fn is_unknown_kind(error: &ApiError) -> bool {
    let missing = matches!(error.source.as_ref(), kube::Error::Discovery(_));
    missing || error.code() == Some(404)
}

/// Where a document's object is.
async fn find(client: &Client, document: &Value) -> Result<(Api<DynamicObject>, String, String), ApplyError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let types = TypeMeta { api_version: text(&document["apiVersion"]), kind: text(&document["kind"]) };
    let (name, namespace) = (text(&document["metadata"]["name"]), text(&document["metadata"]["namespace"]));
    let what = format!("{} {name}", types.kind);
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = pinned_kind(client, &kind).await.map_err(ApiError::of(what.clone()))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced if namespace.is_empty() => Api::default_namespaced_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
    };
    Ok((api, name, what))
}
