//! Check: the ports that we serve on are free. They are taken as the servers will take them, and given back.

use super::{Check, Finding, Name, Subject};
use crate::event::EventBus;
use crate::netboot::BootTable;
use crate::netboot::dhcp::{DhcpConfig, DhcpServer};
use crate::netboot::http;
use crate::netboot::tftp::{TFTP_PORT, TftpConfig, TftpServer};
use crate::spec::DhcpMode;
use crate::workflow::network::Place;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::error::Error;

pub struct Ports;

const WAY_OUT: &str = "end the program that has it (`ss -lntup` names it), and run metalgate as root";

#[async_trait]
impl Check for Ports {
    fn name(&self) -> Name {
        Name::Ports
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let Some(Place { interface, address }) = subject.place.clone() else {
            return vec![Finding::skipped("we have no address on the provisioning interface")];
        };
        let provisioning = &subject.request.spec.provisioning;
        let (mode, http_port) = (provisioning.dhcp, provisioning.http_port);
        let (mut found, mut free) = (Vec::new(), Vec::new());
        let mut take = |what: &str, taken: Result<(), Box<dyn Error>>| match taken {
            Ok(()) => free.push(what.to_owned()),
            Err(error) => found.push(Finding::failed(what, crate::error::chain(error.as_ref()), WAY_OUT)),
        };
        if mode != DhcpMode::External {
            let config = DhcpConfig { interface, address, http_port, mode };
            let what = if mode == DhcpMode::Proxy { "UDP 67, 4011" } else { "UDP 67" };
            take(
                what,
                DhcpServer::bind(config, BootTable::default(), EventBus::default()).map(drop).map_err(Box::from),
            );
        }
        let config = TftpConfig { address, port: TFTP_PORT, files: BTreeMap::new(), autoexec: Default::default() };
        let tftp = TftpServer::bind(config, BootTable::default(), EventBus::default()).await;
        take("UDP 69", tftp.map(drop).map_err(Box::from));
        let plain = http::listen(address, http_port, "HTTP", "httpPort");
        take(&format!("TCP {http_port}"), plain.map(drop).map_err(Box::from));
        let agent = http::listen(address, provisioning.agent_port, "the agent's API", "agentPort");
        take(&format!("TCP {}", provisioning.agent_port), agent.map(drop).map_err(Box::from));
        if !free.is_empty() {
            found.push(Finding::passed(format!("free on {address}: {}", free.join(", "))));
        }
        found
    }
}
