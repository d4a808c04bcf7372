//! The installed system's first settings: a cloud-init NoCloud seed, rendered from `templates/cloud-init/`.
//!
//! Every value goes through JSON, which YAML contains, so that no name or key can break out of its place.

use super::{Context, ReconcileError};
use crate::agent::protocol::Seed;
use crate::api::{ApiError, Hardware, MetalCluster, MetalMachine};
use crate::node::ssh;
use crate::secret::Secret;
use crate::template;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use minijinja::context;
use minijinja::value::Serde;

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
    let secret = secret.map_err(ApiError::of(format!("Secret {secret_name}")))?;
    let data = secret.data.unwrap_or_default();
    let key = |name: &str| {
        let missing = || ReconcileError::Missing {
            object: format!("MetalMachine {hostname}"),
            missing: format!("key {name} of Secret {secret_name}"),
        };
        data.get(name).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).ok_or_else(missing)
    };
    let installer_key = ssh::public_key(&context.ssh_key)
        .map_err(|source| ReconcileError::Key { machine: hostname.clone(), source: Box::new(source) })?;
    let given = Given {
        hostname: &hostname,
        host_key: Secret::new(key("hostKey")?),
        host_key_pub: key("hostKey.pub")?,
        installer_key,
    };
    files(&given, hardware, cluster)
        .map_err(|source| ReconcileError::Seed { machine: hostname.clone(), source: Box::new(source) })
}

/// What the seed holds besides the two specs.
struct Given<'a> {
    hostname: &'a str,
    host_key: Secret<String>,
    host_key_pub: String,
    installer_key: String,
}

fn files(given: &Given<'_>, hardware: &Hardware, cluster: &MetalCluster) -> Result<Seed, minijinja::Error> {
    let values = context! {
        hostname => given.hostname,
        host_key => given.host_key.expose(),
        host_key_pub => &given.host_key_pub,
        installer_key => &given.installer_key,
        users => Serde(&cluster.spec.users),
        ntp_servers => &cluster.spec.ntp_servers,
        hardware => Serde(&hardware.spec),
    };
    Ok(Seed {
        meta_data: template::render(META_DATA, &values)?,
        user_data: Secret::new(template::render(USER_DATA, &values)?),
        network_config: template::render(NETWORK_CONFIG, &values)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HardwareSpec, MetalClusterSpec};
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    fn seed(name: &str, vlan: Option<u16>) -> Seed {
        let hardware: HardwareSpec = serde_json::from_value(json!({
            "mac": "52:54:00:aa:00:01", "address": "10.0.0.11/24", "gateway": "10.0.0.1", "nameservers": ["10.0.0.1"],
            "disk": "/dev/sda", "arch": "amd64", "bootMode": "uefi", "vlan": vlan,
        }))
        .unwrap();
        let cluster: MetalClusterSpec = serde_json::from_value(json!({
            "kubernetesVersion": "v1.36.3", "endpoint": "10.0.0.10:6443", "podCidr": "a", "serviceCidr": "b",
            "cni": "none", "image": {"name": "c", "sha256": "d", "format": "raw"}, "groups": [],
            "provisioning": {"dhcp": "reservation", "httpPort": 8080, "agentPort": 8443}, "ntpServers": ["10.0.0.2"],
            "users": [
                {"name": name, "sshAuthorizedKeys": ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"]},
                {"name": "dev", "sshAuthorizedKeys": ["ssh-ed25519 CCCC"]},
            ],
        }))
        .unwrap();
        let given = Given {
            hostname: "node-1",
            host_key: Secret::new(String::from("-----BEGIN\nline: \"two\"\n-----END\n")),
            host_key_pub: String::from("ssh-ed25519 HOST"),
            installer_key: String::from("ssh-ed25519 INSTALLER"),
        };
        files(&given, &Hardware::new("node-1", hardware), &MetalCluster::new("test", cluster)).unwrap()
    }

    fn yaml(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn the_user_data_carries_accounts_and_the_host_key() {
        let seed = seed("ops", None);
        let user_data = seed.user_data.expose();
        assert!(user_data.starts_with("#cloud-config\n"));
        let data = yaml(user_data);
        assert_eq!(data["ssh_keys"]["ed25519_private"], "-----BEGIN\nline: \"two\"\n-----END\n");
        assert_eq!(
            data["users"][0]["ssh_authorized_keys"],
            json!(["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two", "ssh-ed25519 INSTALLER"])
        );
        assert_eq!(data["users"][1]["ssh_authorized_keys"], json!(["ssh-ed25519 CCCC"]));
        assert_eq!(data["ntp"]["servers"], json!(["10.0.0.2"]));
        assert_eq!(yaml(&seed.meta_data), json!({"instance-id": "node-1", "local-hostname": "node-1"}));
        // What is no plain word stays one value.
        let odd = self::seed("ops\nroot: true", None);
        assert_eq!(yaml(odd.user_data.expose())["users"][0]["name"], "ops\nroot: true");
    }

    #[test]
    fn the_address_is_on_the_interface_or_on_its_vlan() {
        let plain = yaml(&seed("ops", None).network_config);
        let primary = &plain["ethernets"]["primary"];
        assert_eq!(primary["match"]["macaddress"], "52:54:00:aa:00:01");
        assert_eq!(primary["addresses"], json!(["10.0.0.11/24"]));
        assert_eq!(primary["routes"], json!([{"to": "0.0.0.0/0", "via": "10.0.0.1"}]));
        assert_eq!(primary["nameservers"], json!({"addresses": ["10.0.0.1"]}));
        let tagged = yaml(&seed("ops", Some(7)).network_config);
        assert_eq!(tagged["ethernets"]["primary"].get("addresses"), None);
        assert_eq!(tagged["vlans"]["primary.7"]["addresses"], json!(["10.0.0.11/24"]));
        assert_eq!(
            (&tagged["vlans"]["primary.7"]["id"], &tagged["vlans"]["primary.7"]["link"]),
            (&json!(7), &json!("primary"))
        );
    }
}
