//! What single cells of an inventory have to look like.

use super::BmcKind;
use crate::diagnostic::Problem;
use crate::hardware::{Arch, BootMode, DiskSelector, MacAddr};
use crate::names::{self, Labels};
use ipnet::ipv4_mask_to_prefix;
use std::net::{IpAddr, Ipv4Addr};

/// A host name that Kubernetes can keep as a label's value too.
pub fn hostname(text: &str) -> Result<String, Problem> {
    let name = names::dns_subdomain(text)?;
    if text.parse::<IpAddr>().is_ok() {
        return Err(Problem::new(format!("`{text}` is an address, not a host name")));
    }
    if text.len() > 63 {
        let message = format!("`{text}` is longer than 63 characters");
        return Err(Problem::new(message).hint("the name becomes a label of the node, and those end there"));
    }
    Ok(name)
}

/// The address of one interface.
pub fn mac(text: &str) -> Result<MacAddr, Problem> {
    let mac: MacAddr = text.parse().map_err(|error: crate::hardware::BadMac| Problem::new(error.to_string()))?;
    match mac.0 {
        [0, 0, 0, 0, 0, 0] => Err(Problem::new(format!("{mac} is no interface's address"))),
        [first, ..] if first & 1 == 1 => Err(Problem::new(format!("{mac} is a group address, not one interface's"))),
        _ => Ok(mac),
    }
}

/// `255.255.255.0`, `/24` or `24`, as a prefix length.
pub fn netmask(text: &str) -> Result<u8, Problem> {
    let problem = || Problem::new(format!("`{text}` is not a netmask"));
    let prefix = match text.parse::<Ipv4Addr>() {
        Ok(mask) => ipv4_mask_to_prefix(mask)
            .map_err(|_| problem().hint("its one bits have to come before its zero bits, as in 255.255.255.0"))?,
        Err(_) => {
            let number = text.strip_prefix('/').unwrap_or(text).parse::<u8>();
            number.ok().filter(|prefix| *prefix <= 32).ok_or_else(|| problem().hint("255.255.255.0, or /24"))?
        }
    };
    match prefix {
        1..=30 => Ok(prefix),
        _ => Err(problem().hint(format!("/{prefix} has no room for a machine and its gateway"))),
    }
}

/// Resolvers, joined by `|`.
pub fn nameservers(text: &str) -> Result<Vec<IpAddr>, Problem> {
    let parse = |part: &str| {
        let part = part.trim();
        let problem = Problem::new(match part {
            "" => String::from("an empty entry between `|`"),
            part => format!("`{part}` is not the address of a resolver"),
        });
        part.parse().map_err(|_| problem.hint("addresses joined by `|`, as in 10.20.0.1|9.9.9.9"))
    };
    text.split('|').map(parse).collect()
}

/// `key=value` pairs joined by `|`; may be empty.
pub fn labels(text: &str) -> Result<Labels, Problem> {
    let mut labels = Labels::new();
    if text.trim().is_empty() {
        return Ok(labels);
    }
    for pair in text.split('|').map(str::trim) {
        let Some((key, value)) = pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            let problem = Problem::new(format!("`{pair}` is not a label"));
            return Err(problem.hint("key=value pairs joined by `|`, as in type=worker|rack=a"));
        };
        names::label_key(key)?;
        names::label_value(value).map_err(|problem| match value.contains('=') {
            true => problem.hint("labels are joined by `|`"),
            false => problem,
        })?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Problem::new(format!("label `{key}` is given twice")));
        }
    }
    Ok(labels)
}

/// A device or hints.
pub fn disk(text: &str) -> Result<DiskSelector, Problem> {
    text.parse().map_err(|error: crate::hardware::BadDisk| Problem::new(error.to_string()))
}

/// An 802.1Q tag.
pub fn vlan(text: &str) -> Result<u16, Problem> {
    let tag = text.parse().ok().filter(|tag| (1..=4094).contains(tag));
    tag.ok_or_else(|| Problem::new(format!("`{text}` is not a VLAN")).hint("a number from 1 to 4094, or nothing"))
}

/// Architecture, by the names that are in use.
pub fn arch(text: &str) -> Result<Arch, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "amd64" => Ok(Arch::Amd64),
        "arm64" => Ok(Arch::Arm64),
        other => {
            let hint = match other {
                "x86_64" | "x86-64" | "x64" => "write amd64",
                "aarch64" => "write arm64",
                _ => "amd64 (the default) or arm64",
            };
            Err(Problem::new(format!("`{text}` is not an architecture that can be installed")).hint(hint))
        }
    }
}

/// Firmware.
pub fn boot_mode(text: &str) -> Result<BootMode, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "uefi" => Ok(BootMode::Uefi),
        "bios" => Ok(BootMode::Bios),
        other => {
            let hint = if ["legacy", "csm"].contains(&other) { "write bios" } else { "uefi (the default) or bios" };
            Err(Problem::new(format!("`{text}` is not a boot mode")).hint(hint))
        }
    }
}

/// Protocol of a BMC.
pub fn bmc_type(text: &str) -> Result<BmcKind, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "redfish" => Ok(BmcKind::Redfish),
        "ipmi" => Ok(BmcKind::Ipmi),
        _ => Err(Problem::new(format!("`{text}` is not a kind of BMC")).hint("redfish (the default) or ipmi")),
    }
}
