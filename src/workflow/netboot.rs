//! Phase: DHCP, TFTP, HTTP and the agent's API, on the provisioning network.

use super::{Phase, PhaseResult, Run, RunError};
use crate::controllers::{ApiInstallations, Context, Limits, Sightings};
use crate::image::manifest::{Kind, Manifest};
use crate::netboot::BootTable;
use crate::netboot::dhcp::{DhcpConfig, DhcpServer};
use crate::netboot::http::{HttpConfig, HttpServer, ServedFile};
use crate::netboot::tftp::{TftpConfig, TftpServer};
use crate::pki::{Authority, LeafRequest, Usage};
use crate::power;
use crate::spec::DhcpMode;
use async_trait::async_trait;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub struct Netboot;

const TFTP_PORT: u16 = 69;
/// A machine that boots keeps the fingerprint for as long as its installation takes; the certificate lasts longer.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

#[async_trait]
impl Phase for Netboot {
    fn name(&self) -> &'static str {
        "netboot"
    }

    fn title(&self) -> &'static str {
        "starting DHCP, TFTP and HTTP"
    }

    async fn run(&self, run: &mut Run) -> PhaseResult {
        let client = run.cluster.as_ref().ok_or(RunError::Order("bootstrap cluster"))?.client();
        let address = run.address.ok_or(RunError::Order("address"))?;
        let context = Arc::new(Context {
            client,
            events: run.events.clone(),
            table: BootTable::default(),
            sightings: Sightings::default(),
            connect: Arc::new(power::connect),
            limits: Limits::default(),
            started: Timestamp::now(),
            ssh_key: run.installer_key.take().ok_or(RunError::Order("installer key"))?,
        });
        let autoexec = start_http(run, &context, address).await?;
        start_dhcp_and_tftp(run, &context, address, autoexec).await?;
        run.context = Some(context);
        Ok(())
    }
}

/// Gives the script that iPXE looks for beside itself.
async fn start_http(
    run: &mut Run,
    context: &Arc<Context>,
    address: Ipv4Addr,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    // Kept across runs: agents that are under way know this certificate and no other.
    let pki = run.work_dir.subdirectory("pki")?;
    let authority = Authority::keep(&pki, "agent-ca", "metalgate agent API CA")?;
    let request = LeafRequest {
        common_name: String::from("metalgate agent API"),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: vec![IpAddr::V4(address)],
        usage: Usage::Server,
        lifetime: CERTIFICATE_LIFETIME,
    };
    let identity = authority.keep_leaf(&pki, &format!("agent-api-{address}"), &request)?;
    let manifest = run.manifest.as_ref().ok_or(RunError::Order("artifacts"))?;
    let image = run.image.as_ref().ok_or(RunError::Order("image"))?;
    let provisioning = &run.request.spec.provisioning;
    let config = HttpConfig {
        address,
        http_port: provisioning.http_port,
        agent_port: provisioning.agent_port,
        identity,
        artifacts: served(manifest),
        images: BTreeMap::from([(image.name.clone(), image.file.clone())]),
    };
    let installations = Arc::new(ApiInstallations::new(context.clone()));
    let server = HttpServer::bind(config, context.table.clone(), installations, run.events.clone()).await?;
    let (autoexec, cancel) = (server.autoexec()?, run.cancel.clone());
    run.tasks.spawn(async move { Ok(server.run(cancel).await?) });
    Ok(autoexec)
}

/// What machines may fetch: boot programs, kernel, initramfs; never the bootstrap cluster's binaries.
fn served(manifest: &Manifest) -> BTreeMap<String, ServedFile> {
    let public = |kind| !matches!(kind, Kind::Etcd | Kind::KubeApiserver | Kind::OsImage);
    let artifacts = manifest.artifacts.iter().filter(|artifact| public(artifact.kind));
    let file = |artifact: &crate::image::manifest::Artifact| ServedFile {
        path: manifest.path_of(artifact),
        sha256: artifact.sha256.clone(),
    };
    artifacts.map(|artifact| (artifact.path.clone(), file(artifact))).collect()
}

async fn start_dhcp_and_tftp(
    run: &mut Run,
    context: &Arc<Context>,
    address: Ipv4Addr,
    autoexec: String,
) -> PhaseResult {
    let manifest = run.manifest.as_ref().ok_or(RunError::Order("artifacts"))?;
    let programs = manifest.artifacts.iter().filter(|artifact| artifact.path.starts_with("ipxe/"));
    let files = programs.map(|artifact| (artifact.path.clone(), manifest.path_of(artifact))).collect();
    let config = TftpConfig { address, port: TFTP_PORT, files, autoexec: autoexec.into() };
    let tftp = TftpServer::bind(config, context.table.clone(), run.events.clone()).await?;
    let cancel = run.cancel.clone();
    run.tasks.spawn(async move { Ok(tftp.run(cancel).await?) });
    let provisioning = &run.request.spec.provisioning;
    if provisioning.dhcp == DhcpMode::External {
        return Ok(());
    }
    let (interface, http_port, mode) = (provisioning.interface.clone(), provisioning.http_port, provisioning.dhcp);
    let config = DhcpConfig { interface, address, http_port, mode };
    let dhcp = DhcpServer::bind(config, context.table.clone(), run.events.clone())?;
    let cancel = run.cancel.clone();
    run.tasks.spawn(async move { Ok(dhcp.run(cancel).await?) });
    Ok(())
}
