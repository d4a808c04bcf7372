//! Kubeconfigs with a client certificate: for kubectl, and for our own clients.

use crate::pki::Identity;
use crate::secret::Secret;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A kubeconfig that makes no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be understood.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[from] Box<KubeconfigError>),
    /// What it says cannot be done.
    #[error("cannot make a client of the kubeconfig")]
    Client(#[from] Box<kube::Error>),
}

/// The kubeconfig of `user` on the cluster called `name`, as JSON, which is YAML too. `server` is its URL, `authority` the
/// certificate that signs it, PEM.
pub fn render(name: &str, server: &str, authority: &str, user: &str, identity: &Identity) -> Secret<String> {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": encode(authority)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encode(&identity.cert),
            "client-key-data": encode(identity.key.expose()),
        }}],
    });
    Secret::new(format!("{config:#}\n"))
}

/// A client of a kubeconfig's text. Racks are reached directly: no HTTPS_PROXY is asked for.
pub async fn client(text: &Secret<String>) -> Result<Client, ClientError> {
    crate::tls::install_provider();
    let config = Kubeconfig::from_yaml(text.expose()).map_err(Box::new)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(config, &options).await.map_err(Box::new)?;
    config.proxy_url = None;
    config.connect_timeout = Some(CONNECT);
    Ok(Client::try_from(config).map_err(Box::new)?)
}

/// The client certificate and key of a kubeconfig that [`render`] made.
pub fn identity(text: &Secret<String>) -> Option<Identity> {
    let config: Value = serde_json::from_str(text.expose()).ok()?;
    let user = &config["users"][0]["user"];
    let field = |name: &str| String::from_utf8(BASE64_STANDARD.decode(user[name].as_str()?).ok()?).ok();
    Some(Identity { cert: field("client-certificate-data")?, key: Secret::new(field("client-key-data")?) })
}
