//! The Secrets beside the objects: SSH keys, and the authorities and keys that make a cluster. Each is made once and kept.

use super::{ApiError, BmcRef, CLUSTER_LABEL, NAMESPACE};
use crate::inventory::BmcAccess;
use crate::node::kubeadm::Authorities;
use crate::node::ssh::{self, SshError};
use crate::pki::{Authority, Identity, PkiError};
use crate::secret::Secret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rand::Rng;
use std::collections::BTreeMap;

/// Secret with the key that metalgate itself logs in with.
pub const INSTALLER_KEY: &str = "metalgate-ssh";

/// A Secret that cannot be made, read or understood.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A certificate or its key.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// An SSH key.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// It is not there, or lacks a field.
    #[error("Secret {name} has no {field}: it was changed by hand, or never written")]
    Missing {
        /// The Secret.
        name: String,
        /// The field.
        field: &'static str,
    },
}

/// An SSH key pair as it is kept in a Secret: `hostKey` and `hostKey.pub`.
pub struct KeyPair {
    /// OpenSSH's format.
    pub private: Secret<String>,
    /// The line of `.pub` files.
    pub public: String,
}

/// Name, namespace and cluster of an object of ours.
pub fn metadata(name: &str, cluster: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(BTreeMap::from([(CLUSTER_LABEL.to_owned(), cluster.to_owned())])),
        ..ObjectMeta::default()
    }
}

/// A Secret of ours.
pub fn secret<const N: usize>(name: &str, cluster: &str, data: [(&str, String); N]) -> KubeSecret {
    KubeSecret {
        metadata: metadata(name, cluster),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()),
        ..KubeSecret::default()
    }
}

/// Name of the Secret with a machine's SSH host key.
pub fn host_key_name(machine: &str) -> String {
    format!("{machine}-host-key")
}

/// The SSH key pair in the Secret `name`; made and stored if there is none yet.
pub async fn keep_key(client: &Client, name: &str, cluster: &str) -> Result<KeyPair, SecretsError> {
    if let Some(pair) = find(client, name).await?.and_then(|data| key_pair(&data)) {
        return Ok(pair);
    }
    let (private, public) = ssh::generate_ed25519()?;
    let data = [("hostKey", private.expose().clone()), ("hostKey.pub", public.clone())];
    create(client, secret(name, cluster, data)).await?;
    Ok(KeyPair { private, public })
}

/// The SSH key pair in the Secret `name`.
pub async fn read_key(client: &Client, name: &str) -> Result<KeyPair, SecretsError> {
    let data = find(client, name).await?.unwrap_or_default();
    key_pair(&data).ok_or_else(|| SecretsError::Missing { name: name.to_owned(), field: "hostKey" })
}

fn key_pair(data: &Data) -> Option<KeyPair> {
    Some(KeyPair { private: Secret::new(text(data, "hostKey")?), public: text(data, "hostKey.pub")? })
}

/// How to reach a machine's BMC, with the account from its Secret.
pub async fn bmc_access(client: &Client, bmc: &BmcRef) -> Result<BmcAccess, SecretsError> {
    let data = find(client, &bmc.credentials).await?.unwrap_or_default();
    let field =
        |field| text(&data, field).ok_or_else(|| SecretsError::Missing { name: bmc.credentials.clone(), field });
    let (username, password) = (field("username")?, Secret::new(field("password")?));
    Ok(BmcAccess { kind: bmc.kind, url: bmc.url.clone(), username, password })
}

/// The authorities and keys of `cluster`; what is not there yet is made and stored.
pub async fn keep_authorities(client: &Client, cluster: &str) -> Result<Authorities, SecretsError> {
    let authority = |common_name: &'static str| move || Authority::new(common_name).map(Authority::into_identity);
    let name = |what: &str| format!("{cluster}-{what}");
    Ok(Authorities {
        cluster: keep_identity(client, &name("ca"), cluster, authority("kubernetes")).await?,
        etcd: keep_identity(client, &name("etcd-ca"), cluster, authority("etcd-ca")).await?,
        front_proxy: keep_identity(client, &name("front-proxy-ca"), cluster, authority("front-proxy-ca")).await?,
        service_accounts: keep_identity(client, &name("sa"), cluster, crate::pki::signing_key).await?,
        encryption: keep_encryption_key(client, &name("encryption"), cluster).await?,
    })
}

/// The authorities and keys of `cluster`, which must be there.
pub async fn read_authorities(client: &Client, cluster: &str) -> Result<Authorities, SecretsError> {
    let read = async |what: &str| read_identity(client, &format!("{cluster}-{what}")).await;
    let name = format!("{cluster}-encryption");
    let data = find(client, &name).await?.unwrap_or_default();
    Ok(Authorities {
        cluster: read("ca").await?,
        etcd: read("etcd-ca").await?,
        front_proxy: read("front-proxy-ca").await?,
        service_accounts: read("sa").await?,
        encryption: text(&data, "key").map(Secret::new).ok_or(SecretsError::Missing { name, field: "key" })?,
    })
}

async fn read_identity(client: &Client, name: &str) -> Result<Identity, SecretsError> {
    let data = find(client, name).await?.unwrap_or_default();
    identity(&data).ok_or_else(|| SecretsError::Missing { name: name.to_owned(), field: "tls.key" })
}

async fn keep_identity(
    client: &Client,
    name: &str,
    cluster: &str,
    make: impl FnOnce() -> Result<Identity, PkiError>,
) -> Result<Identity, SecretsError> {
    if let Some(identity) = find(client, name).await?.as_ref().and_then(identity) {
        return Ok(identity);
    }
    let made = make()?;
    let data = [("tls.crt", made.cert.clone()), ("tls.key", made.key.expose().clone())];
    create(client, secret(name, cluster, data)).await?;
    Ok(made)
}

async fn keep_encryption_key(client: &Client, name: &str, cluster: &str) -> Result<Secret<String>, SecretsError> {
    if let Some(key) = find(client, name).await?.and_then(|data| text(&data, "key")) {
        return Ok(Secret::new(key));
    }
    let mut key = [0u8; 32];
    rand::rng().fill_bytes(&mut key);
    let key = BASE64_STANDARD.encode(key);
    create(client, secret(name, cluster, [("key", key.clone())])).await?;
    Ok(Secret::new(key))
}

type Data = BTreeMap<String, ByteString>;

fn text(data: &Data, field: &str) -> Option<String> {
    data.get(field).map(|value| String::from_utf8_lossy(&value.0).into_owned())
}

fn identity(data: &Data) -> Option<Identity> {
    Some(Identity { cert: text(data, "tls.crt")?, key: Secret::new(text(data, "tls.key")?) })
}

async fn find(client: &Client, name: &str) -> Result<Option<Data>, ApiError> {
    let api: Api<KubeSecret> = Api::namespaced(client.clone(), NAMESPACE);
    let found = api.get_opt(name).await.map_err(ApiError::of(format!("Secret {name}")))?;
    Ok(found.map(|secret| secret.data.unwrap_or_default()))
}

async fn create(client: &Client, secret: KubeSecret) -> Result<(), ApiError> {
    let api: Api<KubeSecret> = Api::namespaced(client.clone(), NAMESPACE);
    let what = format!("Secret {}", secret.metadata.name.clone().unwrap_or_default());
    api.create(&PostParams::default(), &secret).await.map(drop).map_err(ApiError::of(what))
}
