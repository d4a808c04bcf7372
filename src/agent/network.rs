//! Brings up the interface that the machine booted from, with the address of the boot script.

use crate::hardware::MacAddr;
use ipnet::Ipv4Net;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A switch port that runs spanning tree forwards after 30 s; some need longer.
const CARRIER: Duration = Duration::from_secs(90);
/// Between two looks at the link.
const POLL: Duration = Duration::from_millis(200);

/// The network does not come up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No interface has the address that the boot script named.
    #[error("no network interface has the address {mac}; there are: {present}. Is its driver in the initramfs?")]
    NoInterface {
        /// What was looked for.
        mac: MacAddr,
        /// Name and address of every interface.
        present: String,
    },
    /// The cable.
    #[error("{name} ({mac}) has no link after {} s: is the cable in, and the switch port up?", CARRIER.as_secs())]
    NoCarrier {
        /// The interface's name.
        name: String,
        /// Its address.
        mac: MacAddr,
    },
    /// The kernel's routing socket cannot be had.
    #[error("cannot talk to the kernel's routing socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused a change.
    #[error("cannot {what}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        source: rtnetlink::Error,
    },
}

/// The interface with hardware address `mac`, by its kernel name.
pub fn interface(sys: &Path, mac: MacAddr) -> Result<String, NetworkError> {
    let mut present = Vec::new();
    for entry in fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        // VLANs and bridges copy the address of the device below them; only hardware has a `device`.
        if address.trim().parse() == Ok(mac) && entry.path().join("device").exists() {
            return Ok(name);
        }
        present.push(format!("{name} {}", address.trim()));
    }
    present.sort();
    Err(NetworkError::NoInterface { mac, present: present.join(", ") })
}

/// Sets interface `name` up, waits for its link, and gives it `address` and the default route by `gateway`.
pub async fn configure(
    sys: &Path,
    (name, mac): (&str, MacAddr),
    address: Ipv4Net,
    gateway: Option<Ipv4Addr>,
) -> Result<(), NetworkError> {
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(NetworkError::Socket)?;
    let configured = async {
        let index = index_of(sys, name);
        up(&netlink, 1, "lo").await?;
        up(&netlink, index, name).await?;
        carrier(sys, name, mac).await?;
        let add = netlink.address().add(index, address.addr().into(), address.prefix_len()).execute().await;
        add.map_err(|source| NetworkError::Refused { what: format!("give {name} the address {address}"), source })?;
        let Some(gateway) = gateway else { return Ok(()) };
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        let add = netlink.route().add(route).execute().await;
        add.map_err(|source| NetworkError::Refused { what: format!("set the default route by {gateway}"), source })
    };
    // The connection is what carries the requests; it ends with them.
    tokio::select! {
        () = connection => Err(NetworkError::Socket(std::io::ErrorKind::ConnectionAborted.into())),
        result = configured => result,
    }
}

/// The kernel's number for an interface; 0, which the kernel refuses, if it has just gone.
fn index_of(sys: &Path, name: &str) -> u32 {
    let index = fs::read_to_string(sys.join("class/net").join(name).join("ifindex")).unwrap_or_default();
    index.trim().parse().unwrap_or(0)
}

async fn up(netlink: &Handle, index: u32, name: &str) -> Result<(), NetworkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    let set = netlink.link().set(message).execute().await;
    set.map_err(|source| NetworkError::Refused { what: format!("set {name} up"), source })
}

async fn carrier(sys: &Path, name: &str, mac: MacAddr) -> Result<(), NetworkError> {
    let file = sys.join("class/net").join(name).join("carrier");
    let deadline = Instant::now() + CARRIER;
    // Reading `carrier` fails with EINVAL while the interface is still going up.
    while fs::read_to_string(&file).unwrap_or_default().trim() != "1" {
        if Instant::now() > deadline {
            return Err(NetworkError::NoCarrier { name: name.to_owned(), mac });
        }
        sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_found_by_its_hardware_address() {
        let sys = tempfile::tempdir().unwrap();
        for (name, mac, hardware) in [
            ("lo", "00:00:00:00:00:00", false),
            ("vlan7", "52:54:00:aa:00:01", false),
            ("ens3", "52:54:00:aa:00:01", true),
        ] {
            let path = sys.path().join("class/net").join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("address"), format!("{mac}\n")).unwrap();
            if hardware {
                fs::create_dir(path.join("device")).unwrap();
            }
        }
        assert_eq!(interface(sys.path(), "52:54:00:aa:00:01".parse().unwrap()).unwrap(), "ens3");
        let error = interface(sys.path(), "52:54:00:aa:00:02".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("52:54:00:aa:00:02") && error.contains("ens3 52:54:00:aa:00:01"), "{error}");
    }
}
