//! The installed system's first settings: a cloud-init NoCloud seed, rendered from `templates/cloud-init/`.
//!
//! Every value goes through JSON, which YAML contains, so that no name or key can break out of its place.

use super::{Context, ReconcileError};
use crate::agent::protocol::Seed;
use crate::api::{Hardware, MetalCluster, MetalMachine};
use crate::node::ssh;
use crate::secret::Secret;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, context};

const META_DATA: &str = include_str!("../../templates/cloud-init/meta-data");
const USER_DATA: &str = include_str!("../../templates/cloud-init/user-data");
const NETWORK_CONFIG: &str = include_str!("../../templates/cloud-init/network-config");

/// The seed of one machine, with the host key from its Secret and the installer's key among the authorised ones.
pub async fn render(
    context: &Context,
    machine: &MetalMachine,
    hardware: &Hardware,
    cluster: &MetalCluster,
) -> Result<Seed, ReconcileError> {
    let hostname = machine.metadata.name.clone().unwrap_or_default();
    let secret_name = &machine.spec.host_key;
    let secret = context.objects::<KubeSecret>().get(secret_name).await;
    let secret = secret.map_err(ReconcileError::api(format!("Secret {secret_name}")))?;
    let data = secret.data.unwrap_or_default();
    let key = |name: &str| {
        let missing = || ReconcileError::Missing {
            object: format!("MetalMachine {hostname}"),
            missing: format!("key {name} of Secret {secret_name}"),
        };
        data.get(name).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).ok_or_else(missing)
    };
    let installer = ssh::public_key(&context.ssh_key).unwrap_or_default();
    let values = context! {
        hostname => &hostname,
        host_key => key("hostKey")?,
        host_key_pub => key("hostKey.pub")?,
        users => Serde(&cluster.spec.users),
        installer_key => installer,
        hardware => Serde(&hardware.spec),
    };
    let syntax = block_syntax()
        .map_err(|source| ReconcileError::Seed { machine: hostname.clone(), source: Box::new(source) })?;
    let render = |text: &str| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(syntax.clone());
        environment
            .render_str(text, &values)
            .map_err(|source| ReconcileError::Seed { machine: hostname.clone(), source: Box::new(source) })
    };
    Ok(Seed {
        meta_data: render(META_DATA)?,
        user_data: Secret::new(render(USER_DATA)?),
        network_config: render(NETWORK_CONFIG)?,
    })
}

/// Lines that hold only a block tag leave no line behind.
fn block_syntax() -> Result<SyntaxConfig, minijinja::Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()
}
