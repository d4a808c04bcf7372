//! kubeadm (configuration API v1beta4): the first control-plane node, and joins.
//!
//! The cluster's authorities are made by us and written to control-plane nodes over SSH, so no certificate key is uploaded or
//! passed around. Tokens stand in files of mode 0600 that are removed with kubeadm's end.

use super::placed::File;
use super::prepare::{PrepareError, step};
use super::script::Step;
use super::supplies::Supplies;
use crate::api::{MachineRole, MetalClusterSpec};
use crate::hardware::Arch;
use crate::pki::Identity;
use crate::secret::Secret;
use crate::spec::Argument;
use crate::template;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minijinja::value::Serde;
use minijinja::{Value, context};
use rand::RngExt;
use serde::Serialize;
use std::net::Ipv4Addr;
use std::time::Duration;

/// kubeadm's own limits are minutes; an emulated machine needs many of them.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// Where the discovery file of a join lies on the node.
const DISCOVERY: &str = "/var/lib/metalgate/kubeadm/discovery.yaml";

/// What makes a cluster: its authorities and keys. They are in Secrets beside the MetalCluster.
#[derive(Clone)]
pub struct Authorities {
    /// Signs the API server, kubelets and users.
    pub cluster: Identity,
    /// Signs etcd's ends.
    pub etcd: Identity,
    /// Signs the aggregation layer's proxy.
    pub front_proxy: Identity,
    /// Key of service account tokens; `cert` is the public key.
    pub service_accounts: Identity,
    /// Key that secrets are encrypted with at rest: 32 bytes, base64.
    pub encryption: Secret<String>,
}

/// A machine that kubeadm works on.
pub struct Node<'a> {
    /// Its name, also the Node's.
    pub name: &'a str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its architecture.
    pub arch: Arch,
    /// Taints, `key=value:Effect`.
    pub taints: &'a [String],
    /// The cluster.
    pub cluster: &'a MetalClusterSpec,
    /// The cluster's name.
    pub cluster_name: &'a str,
    /// What is in the artifact directory.
    pub supplies: &'a Supplies,
}

/// How long the controllers and kube-vip of a control plane of one may miss their leases; the usual 15 s are there for others to take over.
const PATIENT: Lease = Lease { duration: 120, renew: 90, retry: 5 };
/// For kube-vip among several: the address moves within this time.
const QUICK: Lease = Lease { duration: 15, renew: 10, retry: 2 };

/// How long the holder of a lease may be silent, in seconds.
#[derive(Clone, Copy)]
struct Lease {
    /// Until another one takes it.
    duration: u32,
    /// Until the holder gives up.
    renew: u32,
    /// Between two tries.
    retry: u32,
}

impl Lease {
    /// As arguments of a component that elects a leader.
    fn arguments(self) -> [Argument; 3] {
        [("lease-duration", self.duration), ("renew-deadline", self.renew), ("retry-period", self.retry)]
            .map(|(name, seconds)| Argument { name: format!("leader-elect-{name}"), value: format!("{seconds}s") })
    }
}

/// A taint as the API has it.
#[derive(Serialize)]
struct Taint<'a> {
    key: &'a str,
    value: &'a str,
    effect: &'a str,
}

/// `key=value:Effect` or `key:Effect`.
fn taint(text: &str) -> Taint<'_> {
    let (rest, effect) = text.rsplit_once(':').unwrap_or((text, "NoSchedule"));
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Taint { key, value, effect }
}

/// A bootstrap token, `[a-z0-9]{6}.[a-z0-9]{16}`.
#[derive(Clone, Debug)]
pub struct Token {
    /// The part that may be known.
    pub id: String,
    /// The part that may not.
    pub secret: Secret<String>,
}

impl Token {
    /// A new one, 80 random bits in its secret part.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut text = |length: usize| -> String {
            let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
            (0..length).map(|_| char::from(letters[random.random_range(0..letters.len())])).collect()
        };
        Self { id: text(6), secret: Secret::new(text(16)) }
    }

    fn whole(&self) -> Secret<String> {
        Secret::new(format!("{}.{}", self.id, self.secret.expose()))
    }
}

impl Node<'_> {
    /// The step that makes this machine the cluster's first node.
    pub fn init(&self, authorities: &Authorities) -> Result<Step, PrepareError> {
        let title = "kubeadm init";
        let (host, port) = self.endpoint();
        let own = ["localhost", "127.0.0.1", host, &self.address.to_string(), self.name].map(str::to_owned);
        let names: Vec<String> = own.into_iter().chain(self.cluster.cert_sans.iter().cloned()).collect();
        let config = self.render(
            title,
            include_str!("../../templates/kubeadm/init.yaml"),
            context! {
                token => Token::generate().whole().expose(),
                names => names,
                extra_args => Serde(&self.cluster.api_server_extra_args),
                port => port,
                cluster => self.cluster_name,
                version => &self.cluster.kubernetes_version,
                endpoint => &self.cluster.endpoint,
                pod_cidr => &self.cluster.pod_cidr,
                service_cidr => &self.cluster.service_cidr,
                alone => self.is_alone(),
                patience => Serde(PATIENT.arguments()),
                coredns => self.supplies.tag("coredns/coredns", self.arch),
                etcd => self.supplies.tag("etcd", self.arch),
                ..self.values()
            },
        )?;
        let mut files = self.control_plane_files(title, authorities, "/etc/kubernetes/super-admin.conf")?;
        files.push(File::new("/var/lib/metalgate/kubeadm/config.yaml", "600", config.expose()));
        self.step(title, "init", "--skip-token-print", files)
    }

    /// The step that makes this machine a further node. `token` ends with the join.
    pub fn join(&self, role: MachineRole, authorities: &Authorities, token: &Token) -> Result<Step, PrepareError> {
        let title = "kubeadm join";
        let (_, port) = self.endpoint();
        let control_plane = role == MachineRole::ControlPlane;
        let token = token.whole();
        let values = context! {
            token => token.expose(), discovery => DISCOVERY, control_plane => control_plane, port => port, ..self.values()
        };
        let config = self.render(title, include_str!("../../templates/kubeadm/join.yaml"), values)?;
        let authority = BASE64_STANDARD.encode(&authorities.cluster.cert);
        let values = context! { endpoint => &self.cluster.endpoint, authority => authority };
        let discovery = self.render(title, include_str!("../../templates/kubeadm/discovery.yaml"), values)?;
        let mut files = match control_plane {
            true => self.control_plane_files(title, authorities, "/etc/kubernetes/admin.conf")?,
            false => Vec::new(),
        };
        files.push(File::new(DISCOVERY, "600", discovery.expose()));
        files.push(File::new("/var/lib/metalgate/kubeadm/config.yaml", "600", config.expose()));
        self.step(title, "join", "", files)
    }

    /// Whether it is the only machine of its control plane.
    fn is_alone(&self) -> bool {
        let machines = self.cluster.groups.iter().filter(|group| group.role == MachineRole::ControlPlane);
        machines.map(|group| group.count).sum::<u32>() <= 1
    }

    fn endpoint(&self) -> (&str, &str) {
        self.cluster.endpoint.rsplit_once(':').unwrap_or((&self.cluster.endpoint, "6443"))
    }

    fn values(&self) -> Value {
        let taints: Vec<Taint<'_>> = self.taints.iter().map(|text| taint(text)).collect();
        context! { name => self.name, address => self.address.to_string(), taints => Serde(taints) }
    }

    fn render(&self, title: &'static str, text: &str, values: Value) -> Result<Secret<String>, PrepareError> {
        template::render(text, &values).map(Secret::new).map_err(|source| PrepareError::Template { title, source })
    }

    fn step(&self, title: &'static str, command: &str, options: &str, files: Vec<File>) -> Result<Step, PrepareError> {
        let values = context! {
            files => Serde(files), address => self.address.to_string(), command => command, options => options,
        };
        step(
            title,
            concat!(include_str!("../../templates/node/place.sh"), include_str!("../../templates/node/kubeadm.sh")),
            LIMIT,
            values,
        )
    }

    /// Authorities, the API server's own files, and kube-vip with the kubeconfig that is there in time.
    fn control_plane_files(
        &self,
        title: &'static str,
        authorities: &Authorities,
        kubeconfig: &str,
    ) -> Result<Vec<File>, PrepareError> {
        let pki = |name: &str| format!("/etc/kubernetes/pki/{name}");
        let values = context! { key => authorities.encryption.expose() };
        let encryption = self.render(title, include_str!("../../templates/kubeadm/encryption.yaml"), values)?;
        let audit = include_str!("../../templates/kubeadm/audit-policy.yaml");
        let mut files = vec![
            File::new("/etc/kubernetes/metalgate/encryption.yaml", "600", encryption.expose()),
            File::new("/etc/kubernetes/metalgate/audit-policy.yaml", "600", audit),
            File::new(pki("sa.pub"), "644", &authorities.service_accounts.cert),
            File::new(pki("sa.key"), "600", authorities.service_accounts.key.expose()),
        ];
        let all = [
            ("ca", &authorities.cluster),
            ("etcd/ca", &authorities.etcd),
            ("front-proxy-ca", &authorities.front_proxy),
        ];
        for (name, authority) in all {
            files.push(File::new(pki(&format!("{name}.crt")), "644", &authority.cert));
            files.push(File::new(pki(&format!("{name}.key")), "600", authority.key.expose()));
        }
        if self.cluster.virtual_ip {
            let (host, port) = self.endpoint();
            let lease = if self.is_alone() { PATIENT } else { QUICK };
            let values = context! {
                image => self.supplies.kube_vip(self.arch), host => host, port => port, kubeconfig => kubeconfig,
                lease => context! {
                    duration => lease.duration.to_string(), renew => lease.renew.to_string(),
                    retry => lease.retry.to_string(),
                },
            };
            let pod = self.render(title, include_str!("../../templates/kubeadm/kube-vip.yaml"), values)?;
            files.push(File::new("/etc/kubernetes/manifests/kube-vip.yaml", "600", pod.expose()));
        }
        Ok(files)
    }
}
