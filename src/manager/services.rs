//! What a managing side runs: DHCP, TFTP, HTTP and the agent's API on the provisioning network, and the reconcilers. The same for
//! `create` on the admin machine and for the manager in the cluster.

use crate::agent::protocol::Task;
use crate::api::Provisioning;
use crate::controllers::{ApiInstallations, Context, JOINS, Limits, Sightings, Tasks, Workload};
use crate::event::EventBus;
use crate::image::manifest::Artifact;
use crate::netboot::BootTable;
use crate::netboot::dhcp::{DhcpConfig, DhcpServer};
use crate::netboot::http::{HttpConfig, HttpServer, ServedFile};
use crate::netboot::tftp::{TFTP_PORT, TftpConfig, TftpServer};
use crate::node::supplies::Supplies;
use crate::pki::{Authority, LeafRequest, Usage};
use crate::power;
use crate::secret::Secret;
use crate::spec::DhcpMode;
use jiff::Timestamp;
use kube::Client;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

/// A machine that boots keeps the fingerprint for as long as its installation takes; the certificate lasts longer.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Whatever ended the services' start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// What a managing side needs to know.
pub struct Side {
    /// The API server with the objects.
    pub client: Client,
    /// How the cluster's own API server is reached.
    pub workload: Workload,
    /// Where events go.
    pub events: EventBus,
    /// Our interface in the provisioning network.
    pub interface: String,
    /// Our address on it.
    pub address: Ipv4Addr,
    /// How machines are installed.
    pub provisioning: Provisioning,
    /// What machines fetch.
    pub supplies: Arc<Supplies>,
    /// OS images, by their name below `/images/`.
    pub os_images: BTreeMap<String, ServedFile>,
    /// Directory of the agent API's certificates, mode 0700.
    pub pki: PathBuf,
    /// Directory of the machines' logs.
    pub logs: PathBuf,
    /// The key that we log in with.
    pub ssh_key: Secret<String>,
}

impl Side {
    /// Starts the boot services into `tasks`, until `cancel`. The reconcilers are started by `controllers::start`.
    pub async fn serve(self, tasks: &mut Tasks, cancel: &CancellationToken) -> Result<Arc<Context>, StartError> {
        let http_port = self.provisioning.http_port;
        let context = Arc::new(Context {
            client: self.client.clone(),
            events: self.events.clone(),
            table: BootTable::default(),
            sightings: Sightings::default(),
            connect: Arc::new(power::connect),
            limits: Limits::default(),
            started: Timestamp::now(),
            ssh_key: self.ssh_key.clone(),
            supplies: self.supplies.clone(),
            server: format!("http://{}:{http_port}", self.address),
            workload: self.workload,
            logs: self.logs.clone(),
            control_plane: Mutex::default(),
            joins: Semaphore::new(JOINS),
        });
        let config = HttpConfig {
            address: self.address,
            http_port,
            agent_port: self.provisioning.agent_port,
            identity: agent_identity(&self.pki, self.address)?,
            task: Task::Install,
            artifacts: files(&self.supplies, |_| true),
            images: self.os_images,
        };
        let installations = Arc::new(ApiInstallations::new(context.clone()));
        let http = HttpServer::bind(config, context.table.clone(), installations, self.events.clone()).await?;
        let programs = files(&self.supplies, |artifact| artifact.path.starts_with("ipxe/"));
        let config = TftpConfig {
            address: self.address,
            port: TFTP_PORT,
            files: programs.into_iter().map(|(path, file)| (path, file.path)).collect(),
            autoexec: http.autoexec()?.into(),
        };
        let tftp = TftpServer::bind(config, context.table.clone(), self.events.clone()).await?;
        if self.provisioning.dhcp != DhcpMode::External {
            let (interface, address, mode) = (self.interface, self.address, self.provisioning.dhcp);
            let config = DhcpConfig { interface, address, http_port, mode };
            let dhcp = DhcpServer::bind(config, context.table.clone(), self.events.clone())?;
            let cancel = cancel.clone();
            tasks.spawn(async move { Ok(dhcp.run(cancel).await?) });
        }
        let (http_cancel, tftp_cancel) = (cancel.clone(), cancel.clone());
        tasks.spawn(async move { Ok(http.run(http_cancel).await?) });
        tasks.spawn(async move { Ok(tftp.run(tftp_cancel).await?) });
        Ok(context)
    }
}

/// The agent API's certificate. Kept across runs: agents that are under way know this one and no other.
fn agent_identity(pki: &std::path::Path, address: Ipv4Addr) -> Result<crate::pki::Identity, crate::pki::PkiError> {
    let authority = Authority::keep(pki, "agent-ca", "metalgate agent API CA")?;
    let request = LeafRequest {
        common_name: String::from("metalgate agent API"),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: vec![IpAddr::V4(address)],
        usage: Usage::Server,
        lifetime: CERTIFICATE_LIFETIME,
    };
    authority.keep_leaf(pki, &format!("agent-api-{address}"), &request)
}

fn files(supplies: &Supplies, wanted: impl Fn(&Artifact) -> bool) -> BTreeMap<String, ServedFile> {
    let manifest = supplies.manifest();
    let file = |artifact: &Artifact| ServedFile { path: manifest.path_of(artifact), sha256: artifact.sha256.clone() };
    supplies.served().filter(|artifact| wanted(artifact)).map(|one| (one.path.clone(), file(one))).collect()
}
