//! The definitions of our resources: generated from the types, committed as `crds.yaml`, applied server-side.

use super::{FIELD_MANAGER, Hardware, MetalCluster, MetalMachine, NAMESPACE};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, CustomResourceExt};
use std::time::Duration;

/// How long the API server may take to serve a definition.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Definitions that could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The API server refused or did not answer.
    #[error("the API server did not take {object}")]
    Apply {
        /// The object.
        object: String,
        /// Its error.
        #[source]
        source: Box<kube::Error>,
    },
    /// It took it, but does not serve it.
    #[error("the API server does not serve {name} after {} s", ESTABLISHED.as_secs())]
    NotEstablished {
        /// The definition.
        name: String,
    },
}

/// Our definitions, in the order of the file.
pub fn all() -> [CustomResourceDefinition; 3] {
    [MetalCluster::crd(), MetalMachine::crd(), Hardware::crd()]
}

/// Applies the definitions and our namespace, and waits until they are served.
pub async fn apply(client: &Client) -> Result<(), CrdError> {
    let how = PatchParams::apply(FIELD_MANAGER).force();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let applied = api.patch(&name, &how, &Patch::Apply(&crd)).await;
        applied.map_err(|source| CrdError::Apply { object: name, source: Box::new(source) })?;
    }
    for crd in all() {
        let name = crd.metadata.name.unwrap_or_default();
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        match tokio::time::timeout(ESTABLISHED, served).await {
            Ok(Ok(_)) => {}
            _ => return Err(CrdError::NotEstablished { name }),
        }
    }
    let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    let applied = Api::<Namespace>::all(client.clone()).patch(NAMESPACE, &how, &Patch::Apply(&namespace)).await;
    let object = || format!("the namespace {NAMESPACE}");
    applied.map(drop).map_err(|source| CrdError::Apply { object: object(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// METALGATE_BLESS=1 writes the file anew.
    #[test]
    fn the_committed_definitions_are_those_of_the_types() {
        let documents: Vec<String> = all().iter().map(|crd| serde_saphyr::to_string(crd).unwrap()).collect();
        let text = documents.iter().map(|document| format!("---\n{}\n", document.trim_end())).collect::<String>();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/crds.yaml");
        if std::env::var_os("METALGATE_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        pretty_assertions::assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
    }
}
