//! `metalgate manager`: what the Deployment in the cluster runs. Not for people.

use super::Failure;
use crate::manager::{self, Settings, deploy};
use std::net::Ipv4Addr;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's name
    #[arg(long)]
    cluster: String,
    /// This node's address in the provisioning network
    #[arg(long, env = "METALGATE_NODE_ADDRESS")]
    address: Ipv4Addr,
    /// This replica's name
    #[arg(long, env = "METALGATE_IDENTITY")]
    identity: String,
    /// Where node preparation has put the artifacts
    #[arg(long, default_value = "/var/lib/metalgate/artifacts")]
    artifacts: PathBuf,
    /// Where certificates and logs are kept
    #[arg(long, default_value = "/var/lib/metalgate/manager")]
    state: PathBuf,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    tracing_subscriber::fmt().json().with_writer(std::io::stdout).init();
    crate::tls::install_provider();
    let Args { cluster, address, identity, artifacts, state } = args;
    let client = kube::Client::try_default().await?;
    let settings = Settings { cluster, identity, address, artifacts, state, probe_port: deploy::PROBE_PORT };
    manager::run(client, settings, super::interrupted()?).await.map_err(Failure::Failed)
}
