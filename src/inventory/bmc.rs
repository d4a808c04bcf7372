//! `bmc_ip`: an address, an address with a port, or an URL.

use super::BmcKind;
use crate::diagnostic::Problem;
use std::net::{IpAddr, SocketAddr};
use url::Url;

/// Where IPMI listens, IPMI 2.0 section 13.1.2.
const IPMI_PORT: u16 = 623;

/// Where a BMC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmcAddress {
    pub kind: BmcKind,
    /// As in [`super::BmcAccess::url`].
    pub url: String,
    /// Its address, where it is not given by a name.
    pub host: Option<IpAddr>,
    /// Whether passwords travel to it in the clear.
    pub clear: bool,
}

/// Reads `bmc_ip`; `kind` is what `bmc_type` says.
pub fn address(text: &str, kind: Option<BmcKind>) -> Result<BmcAddress, Problem> {
    if text.contains('@') {
        let problem = Problem::new("a BMC's address cannot carry an account");
        return Err(problem.hint("that belongs into bmc_username and bmc_password"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        return match (scheme.as_str(), kind) {
            ("ipmi", Some(BmcKind::Redfish)) | ("http" | "https", Some(BmcKind::Ipmi)) => {
                let message = format!("`{scheme}:` does not fit this row's bmc_type");
                Err(Problem::new(message).hint("leave bmc_type empty, or correct one of the two"))
            }
            ("ipmi", _) => ipmi(socket(rest.trim_end_matches('/'))?),
            ("http" | "https", _) => redfish(text),
            _ => Err(Problem::new(format!("a BMC cannot be reached by `{scheme}:`")).hint("https:, http: or ipmi:")),
        };
    }
    let (host, port) = socket(text)?;
    match kind.unwrap_or_default() {
        BmcKind::Ipmi => ipmi((host, port)),
        BmcKind::Redfish => {
            let url = match port.filter(|port| *port != 443) {
                Some(port) => format!("https://{}", SocketAddr::new(host, port)),
                None => format!("https://{}", bracketed(host)),
            };
            Ok(BmcAddress { kind: BmcKind::Redfish, url, host: Some(host), clear: false })
        }
    }
}

/// An address, and a port if there is one.
fn socket(text: &str) -> Result<(IpAddr, Option<u16>), Problem> {
    if let Ok(host) = text.trim_matches(['[', ']']).parse() {
        return Ok((host, None));
    }
    match text.parse::<SocketAddr>() {
        Ok(socket) if socket.port() != 0 => Ok((socket.ip(), Some(socket.port()))),
        _ => {
            let problem = Problem::new(format!("`{text}` is not the address of a BMC"));
            Err(problem.hint("10.0.0.5, 10.0.0.5:8443, or an URL such as https://bmc-5.example.org"))
        }
    }
}

fn ipmi((host, port): (IpAddr, Option<u16>)) -> Result<BmcAddress, Problem> {
    let url = format!("ipmi://{}", SocketAddr::new(host, port.unwrap_or(IPMI_PORT)));
    Ok(BmcAddress { kind: BmcKind::Ipmi, url, host: Some(host), clear: false })
}

fn redfish(text: &str) -> Result<BmcAddress, Problem> {
    let bad = |reason: &str| Problem::new(format!("this URL of a BMC {reason}"));
    let url = Url::parse(text).map_err(|error| bad(&format!("cannot be read: {error}")))?;
    if url.query().is_some() || url.fragment().is_some() || url.port() == Some(0) {
        return Err(bad("has a query, a fragment or port 0").hint("https://10.0.0.5:8443/redfish/v1/Systems/1"));
    }
    let path = match url.path().trim_end_matches('/') {
        "" | "/redfish" | "/redfish/v1" => "",
        path => {
            let system = path.strip_prefix("/redfish/v1/Systems/").unwrap_or_default();
            if system.is_empty() || system.contains('/') {
                let hint = "name the host alone, or one system: https://10.0.0.5/redfish/v1/Systems/1";
                return Err(bad("has a path that is not a Redfish system").hint(hint));
            }
            path
        }
    };
    let host = match url.host() {
        Some(url::Host::Ipv4(host)) => Some(IpAddr::V4(host)),
        Some(url::Host::Ipv6(host)) => Some(IpAddr::V6(host)),
        _ => None,
    };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let name = url.host_str().unwrap_or_default();
    let clear = url.scheme() == "http";
    Ok(BmcAddress { kind: BmcKind::Redfish, url: format!("{}://{name}{port}{path}", url.scheme()), host, clear })
}

fn bracketed(host: IpAddr) -> String {
    match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => format!("[{host}]"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn addresses_are_kept_in_one_spelling() {
        let (redfish, ipmi) = (Some(BmcKind::Redfish), Some(BmcKind::Ipmi));
        for (given, kind, kept) in [
            ("10.0.0.5", None, "https://10.0.0.5"),
            ("10.0.0.5:443", redfish, "https://10.0.0.5"),
            ("10.0.0.5:8443", None, "https://10.0.0.5:8443"),
            ("fe80::5", None, "https://[fe80::5]"),
            ("[fe80::5]:8443", None, "https://[fe80::5]:8443"),
            ("10.0.0.5", ipmi, "ipmi://10.0.0.5:623"),
            ("fe80::5", ipmi, "ipmi://[fe80::5]:623"),
            ("IPMI://10.0.0.5:6230/", None, "ipmi://10.0.0.5:6230"),
            ("HTTPS://BMC-5.Example.org:443/", None, "https://bmc-5.example.org"),
            ("https://10.0.0.5/redfish/v1/", None, "https://10.0.0.5"),
            ("http://[::1]:8000/redfish/v1/Systems/a-b", redfish, "http://[::1]:8000/redfish/v1/Systems/a-b"),
        ] {
            assert_eq!(address(given, kind).unwrap().url, kept, "{given}");
        }
        assert!(address("http://10.0.0.5", None).unwrap().clear);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "bmc",
            "10.0.0.5:0",
            "10.0.0.5:70000",
            "10.0.0",
            "10.0.0.5/24",
            "root@10.0.0.5",
            "ftp://10.0.0.5",
            "https://",
            "https://10.0.0.5?x",
            "https://10.0.0.5/redfish/v1/Systems/1/Bios",
            "ipmi://bmc",
            "ipmi://10.0.0.5/x",
        ] {
            assert!(address(bad, None).is_err(), "{bad}");
        }
        assert!(address("https://10.0.0.5", Some(BmcKind::Ipmi)).is_err());
        assert!(address("ipmi://10.0.0.5", Some(BmcKind::Redfish)).is_err());
    }
}
