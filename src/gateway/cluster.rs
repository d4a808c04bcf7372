//! Objects into clusters: in order, by server-side apply with one field manager, each step ready before the next one begins; what
//! is no longer wanted is deleted.

use super::Stack;
use super::certificates::STACK_LABEL;
use super::diff::{self, Change};
use super::model::SecretKey;
use super::object::{Object, ObjectRef, Step};
use super::readiness::{Readiness, readiness};
use super::record::{self, KEPT};
use crate::api::ApiError;
use crate::api::apply::{self, ApplyError};
use crate::kubeconfig::{self, ClientError};
use crate::secret::Secret;
use k8s_openapi::api::core::v1::{Pod, Secret as KubeSecret};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often an object is looked at that is not ready yet.
const LOOK: Duration = Duration::from_secs(2);

/// Objects that could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// An object was refused.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The kubeconfig of a data plane's cluster.
    #[error("the data plane {plane} cannot be reached by the kubeconfig in Secret {secret}")]
    Kubeconfig {
        /// The data plane.
        plane: String,
        /// The Secret.
        secret: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// There is no such kubeconfig.
    #[error("the Secret {secret} has no kubeconfig for the data plane {plane} at `{key}`")]
    NoKubeconfig {
        /// The data plane.
        plane: String,
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// An object says that it will not become ready.
    #[error("{object} failed: {reason}")]
    Failed {
        /// The object.
        object: Box<ObjectRef>,
        /// What it says.
        reason: String,
    },
    /// An object is not ready for too long.
    #[error("{object} is not ready after {} s: {reason}", .waited.as_secs())]
    NotReady {
        /// The object.
        object: Box<ObjectRef>,
        /// What it waits for.
        reason: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A data plane whose cluster is not connected.
    #[error("nobody has connected to the cluster of the data plane {0}")]
    Plane(String),
    /// The record of what was applied is not ours.
    #[error(
        "the ConfigMap {0} cannot be read: it was changed by hand; delete it if no object of this gateway is left over"
    )]
    Record(String),
}

/// The clusters that a gateway lives in.
#[derive(Clone)]
pub struct Clusters {
    /// The control plane's.
    pub here: Client,
    /// Those of data planes elsewhere, by the plane's name.
    pub planes: BTreeMap<String, Client>,
}

impl Clusters {
    /// Connects to the clusters of the data planes, with the kubeconfigs that are Secrets beside the control plane.
    pub async fn connect(here: Client, stack: &Stack) -> Result<Self, ClusterError> {
        let mut planes = BTreeMap::new();
        for plane in &stack.gateway.data_planes {
            if let Some(place) = &plane.kubeconfig {
                planes.insert(plane.name.clone(), connect(&here, stack, &plane.name, place).await?);
            }
        }
        Ok(Self { here, planes })
    }

    /// The cluster of an object or data plane.
    pub fn of(&self, plane: Option<&str>) -> Result<&Client, ClusterError> {
        match plane {
            None => Ok(&self.here),
            Some(plane) => self.planes.get(plane).ok_or_else(|| ClusterError::Plane(plane.to_owned())),
        }
    }
}

/// Connects to the cluster of a data plane by the kubeconfig in a Secret beside the control plane.
pub async fn connect(here: &Client, stack: &Stack, plane: &str, place: &SecretKey) -> Result<Client, ClusterError> {
    let SecretKey { secret, key } = place.clone();
    let api: Api<KubeSecret> = Api::namespaced(here.clone(), &stack.gateway.namespace);
    let found = api.get_opt(&secret).await.map_err(ApiError::of(format!("Secret {secret}")))?;
    let text = found.and_then(|found| String::from_utf8(found.data?.get(&key)?.0.clone()).ok());
    let plane = plane.to_owned();
    match text {
        None => Err(ClusterError::NoKubeconfig { plane, secret, key }),
        Some(text) => {
            let client = kubeconfig::client(&Secret::new(text)).await;
            client.map_err(|source| ClusterError::Kubeconfig { plane, secret, source })
        }
    }
}

/// Applies a step, and waits until all of it is ready. `report` is told what is waited for.
pub async fn apply(
    clusters: &Clusters,
    stack: &Stack,
    step: &Step,
    most: Duration,
    report: &(dyn Fn(&str) + Sync),
) -> Result<(), ClusterError> {
    let mut applied = Vec::new();
    for object in &step.objects {
        match apply::document(clusters.of(object.plane.as_deref())?, &labelled(stack, object)).await {
            Ok(_) => applied.push(object),
            // What stands beside a service waits for its namespace: a later round brings it.
            Err(ApplyError::Api(error)) if error.code() == Some(404) && is_beside_a_service(stack, object) => {
                report(&format!("{}: its namespace is not there yet", object.reference()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let started = Instant::now();
    for object in applied {
        ready(clusters, object, started, most, report).await?;
    }
    Ok(())
}

/// Whether an object belongs into a namespace that others make.
fn is_beside_a_service(stack: &Stack, object: &Object) -> bool {
    object.reference().namespace.is_some_and(|namespace| namespace != stack.gateway.namespace)
}

async fn ready(
    clusters: &Clusters,
    object: &Object,
    started: Instant,
    most: Duration,
    report: &(dyn Fn(&str) + Sync),
) -> Result<(), ClusterError> {
    let mut told = String::new();
    loop {
        let live = apply::current(clusters.of(object.plane.as_deref())?, &object.value).await?;
        let live = live.and_then(|live| serde_json::to_value(live).ok()).unwrap_or(Value::Null);
        let reason = match readiness(&live) {
            Readiness::Ready => return Ok(()),
            Readiness::Failed(reason) => {
                return Err(ClusterError::Failed { object: Box::new(object.reference()), reason });
            }
            Readiness::Waiting(reason) => reason,
        };
        if started.elapsed() > most {
            return Err(ClusterError::NotReady {
                object: Box::new(object.reference()),
                reason,
                waited: started.elapsed(),
            });
        }
        let text = format!("{}: {reason}", object.reference());
        if text != told {
            report(&text);
            told = text;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The object with the labels of what is ours.
pub fn labelled(stack: &Stack, object: &Object) -> Value {
    let mut value = object.value.clone();
    if !KEPT.contains(&value["kind"].as_str().unwrap_or_default()) {
        value["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("metalgate");
        value["metadata"]["labels"][STACK_LABEL] = json!(stack.name);
    }
    value
}

/// An object, and whether it is ready.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// The object.
    pub object: ObjectRef,
    /// Whether it does what it is there for.
    pub ready: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Looks at every object once.
pub async fn look(clusters: &Clusters, steps: &[Step]) -> Result<Vec<Look>, ClusterError> {
    let mut seen = Vec::new();
    for object in steps.iter().flat_map(|step| &step.objects) {
        let live = apply::current(clusters.of(object.plane.as_deref())?, &object.value).await?;
        let live = live.and_then(|live| serde_json::to_value(live).ok()).unwrap_or(Value::Null);
        let (ready, reason) = match readiness(&live) {
            Readiness::Ready => (true, None),
            Readiness::Waiting(reason) | Readiness::Failed(reason) => (false, Some(reason)),
        };
        seen.push(Look { object: object.reference(), ready, reason });
    }
    Ok(seen)
}

/// What applying the steps would change, object by object.
pub async fn rehearse(clusters: &Clusters, stack: &Stack, steps: &[Step]) -> Result<Vec<Change>, ClusterError> {
    let mut changes = Vec::new();
    for object in steps.iter().flat_map(|step| &step.objects) {
        let client = clusters.of(object.plane.as_deref())?;
        let planned = labelled(stack, object);
        let live = apply::current(client, &planned).await?;
        let live = live.and_then(|live| serde_json::to_value(live).ok());
        let result = match apply::rehearse(client, &planned).await {
            Ok(result) => serde_json::to_value(result).unwrap_or(planned),
            // Its kind or its namespace is made by an object before it.
            Err(ApplyError::Api(error)) if live.is_none() && apply::is_unknown_kind(&error) => planned,
            Err(error) => return Err(error.into()),
        };
        changes.extend(diff::change(object.reference(), live.as_ref(), Some(&result)));
    }
    for object in record::unwanted(clusters, stack, steps).await? {
        changes.push(Change { object, lines: vec![String::from("- deleted")] });
    }
    Ok(changes)
}

/// Pods with labels that are not about to end.
pub async fn pods(client: &Client, namespace: &str, labels: &Value) -> Result<Vec<Pod>, ApiError> {
    let pairs = labels.as_object().into_iter().flatten();
    let selector: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(&selector.join(","))).await;
    let list = list.map_err(ApiError::of(format!("the pods of {namespace}")))?;
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Failed" | "Succeeded"))
    };
    Ok(list.items.into_iter().filter(|pod| !ended(pod)).collect())
}

/// `Pod NAMESPACE/NAME`.
pub fn what_pod(pod: &Pod) -> String {
    format!("Pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
