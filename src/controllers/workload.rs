//! The cluster that is being made, as a cluster: its API server, its nodes, tokens for joins.

use super::{Context, ReconcileError};
use crate::api::{ApiError, MetalCluster, secrets};
use crate::kubeconfig;
use crate::node::kubeadm::Token;
use crate::pki::{Authority, LeafRequest, PkiError, Usage};
use crate::secret::Secret;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::sync::Mutex;

/// The group that kubeadm binds to cluster-admin, and that its administrator can unbind.
const ADMINS: &str = "kubeadm:cluster-admins";
/// How long our own certificate lasts; a run makes a new one.
const OWN: Duration = Duration::from_secs(24 * 3600);
/// How long the administrator's kubeconfig lasts.
const ADMINISTRATOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A token that is not taken back, because we were killed, ends by itself.
const TOKEN: jiff::SignedDuration = jiff::SignedDuration::from_mins(30);

/// How we reach the API server of a cluster that we make.
pub enum Workload {
    /// As administrators, by the cluster's own authority, which is in our objects. Clients by cluster.
    Administrator(Mutex<HashMap<String, Client>>),
    /// It is the cluster that we run in: with the rights of our service account.
    Own(Client),
}

impl Workload {
    /// From outside of the cluster.
    pub fn administrator() -> Self {
        Self::Administrator(Mutex::default())
    }

    /// A client of the API server of `cluster`.
    pub async fn client(&self, context: &Context, cluster: &MetalCluster) -> Result<Client, ReconcileError> {
        let clients = match self {
            Self::Own(client) => return Ok(client.clone()),
            Self::Administrator(clients) => clients,
        };
        let name = cluster.name_any();
        let mut clients = clients.lock().await;
        if let Some(client) = clients.get(&name) {
            return Ok(client.clone());
        }
        let authority = Authority::of(secrets::read_authorities(&context.client, &name).await?.cluster);
        let text = administrator(&name, &cluster.spec.endpoint, &authority, OWN)?;
        let client = kubeconfig::client(&text).await?;
        clients.insert(name, client.clone());
        Ok(client)
    }
}

/// A kubeconfig for the administrator of `cluster`, whose API server is at `endpoint` (`host:port`).
pub fn administrator_kubeconfig(
    cluster: &str,
    endpoint: &str,
    authority: &Authority,
) -> Result<Secret<String>, PkiError> {
    administrator(cluster, endpoint, authority, ADMINISTRATOR)
}

fn administrator(
    cluster: &str,
    endpoint: &str,
    authority: &Authority,
    lifetime: Duration,
) -> Result<Secret<String>, PkiError> {
    let request = LeafRequest {
        common_name: String::from("metalgate-admin"),
        organizations: vec![ADMINS.to_owned()],
        dns_names: Vec::new(),
        addresses: Vec::new(),
        usage: Usage::Client,
        lifetime,
    };
    let identity = authority.issue(&request)?;
    Ok(kubeconfig::render(cluster, &format!("https://{endpoint}"), authority.cert(), "metalgate-admin", &identity))
}

/// A token that lets one machine join, until it is taken back or half an hour has passed.
pub async fn grant_token(client: &Client, machine: &str) -> Result<Token, ApiError> {
    let token = Token::generate();
    let expiration = jiff::Timestamp::now() + TOKEN;
    let data = [
        ("token-id", token.id.clone()),
        ("token-secret", token.secret.expose().clone()),
        ("description", format!("metalgate: {machine} joins")),
        ("expiration", format!("{expiration:.0}")),
        ("usage-bootstrap-authentication", String::from("true")),
        ("usage-bootstrap-signing", String::from("true")),
        ("auth-extra-groups", String::from("system:bootstrappers:kubeadm:default-node-token")),
    ];
    let secret = KubeSecret {
        metadata: ObjectMeta { name: Some(name(&token)), ..ObjectMeta::default() },
        type_: Some(String::from("bootstrap.kubernetes.io/token")),
        data: Some(BTreeMap::from(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))))),
        ..KubeSecret::default()
    };
    let created = tokens(client).create(&PostParams::default(), &secret).await;
    created.map_err(ApiError::of(format!("the join token of {machine}")))?;
    Ok(token)
}

/// Takes a token back.
pub async fn revoke_token(client: &Client, token: &Token) -> Result<(), ApiError> {
    match tokens(client).delete(&name(token), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(drop).map_err(ApiError::of("the removal of a join token")),
    }
}

fn name(token: &Token) -> String {
    format!("bootstrap-token-{}", token.id)
}

fn tokens(client: &Client) -> Api<KubeSecret> {
    Api::namespaced(client.clone(), "kube-system")
}
