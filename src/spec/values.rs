//! What single values of a spec have to look like.

use super::{Cni, DhcpMode, ImageFormat};
use crate::diagnostic::Problem;
use crate::names::{self, one_of};
use ipnet::Ipv4Net;
use russh::keys::ssh_key::{Algorithm, PublicKey, public::KeyData};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path};

/// Minor versions of Kubernetes 1 that kubeadm's configuration of today fits.
const MINORS: std::ops::RangeInclusive<u64> = 33..=37;
/// Smallest RSA key that is accepted, in bits.
const MIN_RSA_BITS: u32 = 2048;

/// `v1.36.4`.
pub fn kubernetes_version(text: &str) -> Result<String, Problem> {
    let parts: Vec<&str> = text.strip_prefix('v').unwrap_or(text).split('.').collect();
    let numbers: Option<Vec<u64>> = parts
        .iter()
        .map(|part| {
            part.parse()
                .ok()
                .filter(|_| part.bytes().all(|b| b.is_ascii_digit()) && (*part == "0" || !part.starts_with('0')))
        })
        .collect();
    let problem = || Problem::new(format!("`{text}` is not a Kubernetes version"));
    match numbers.as_deref() {
        Some([major, minor, patch]) => {
            if *major != 1 || !MINORS.contains(minor) {
                let (first, last) = (MINORS.start(), MINORS.end());
                let message = format!("Kubernetes v{major}.{minor} is not supported");
                return Err(Problem::new(message).hint(format!("v1.{first} to v1.{last} are")));
            }
            match text.starts_with('v') {
                true => Ok(text.to_owned()),
                false => Err(problem().hint(format!("write v{major}.{minor}.{patch}"))),
            }
        }
        Some([major, minor]) => Err(problem().hint(format!("name the patch release too: v{major}.{minor}.0"))),
        _ => Err(problem().hint("three numbers, as in v1.36.4")),
    }
}

/// An address that a machine can have.
pub fn host_address(text: &str) -> Result<Ipv4Addr, Problem> {
    let problem = || Problem::new(format!("`{text}` is not an IPv4 address"));
    let address: Ipv4Addr = text.parse().map_err(|_| match text {
        _ if text.parse::<std::net::Ipv6Addr>().is_ok() => problem().hint("IPv6 is not supported by this version"),
        _ if text.split_once('/').is_some_and(|(address, _)| address.parse::<Ipv4Addr>().is_ok()) => {
            problem().hint("leave out the prefix length")
        }
        _ if text.split_once(':').is_some_and(|(address, _)| address.parse::<Ipv4Addr>().is_ok()) => {
            problem().hint("leave out the port")
        }
        _ => problem().hint("four numbers from 0 to 255, as in 10.20.0.10"),
    })?;
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_broadcast() => "the broadcast address",
        _ if address.is_link_local() => "a link-local address",
        _ => return Ok(address),
    };
    Err(Problem::new(format!("{address} is {kind}, which no machine can have")))
}

/// A network whose host bits are zero, of prefix lengths that Kubernetes can use.
pub fn network(text: &str, longest: u8, why: &str) -> Result<Ipv4Net, Problem> {
    let network: Ipv4Net = text
        .parse()
        .map_err(|_| Problem::new(format!("`{text}` is not an IPv4 network")).hint("write it as 10.244.0.0/16"))?;
    if network.addr() != network.network() {
        let problem = Problem::new(format!("{network} is an address in a network, not the network"));
        return Err(problem.hint(format!("write {}", network.trunc())));
    }
    if !(8..=longest).contains(&network.prefix_len()) {
        return Err(Problem::new(format!(
            "a prefix length from 8 to {longest} is needed, not {}",
            network.prefix_len()
        ))
        .hint(why));
    }
    Ok(network)
}

/// A name that Linux can give to an interface.
pub fn interface(text: &str) -> Result<String, Problem> {
    let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
    if fits && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':') {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("`{text}` is not the name of an interface"))
        .hint("`ip link` lists them; up to 15 characters without `/`"))
}

/// One of a few words.
pub fn word<T: Copy>(text: &str, what: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(Problem::new(format!("`{text}` is not {what}")).hint(one_of(text, &known)))
}

/// `dhcp.mode`.
pub fn dhcp_mode(text: &str) -> Result<DhcpMode, Problem> {
    let words = [("reservation", DhcpMode::Reservation), ("proxy", DhcpMode::Proxy), ("external", DhcpMode::External)];
    word(text, "a DHCP mode", &words)
}

/// `cni.name`.
pub fn cni(text: &str) -> Result<Cni, Problem> {
    word(text, "a container network", &[("flannel", Cni::Flannel), ("cilium", Cni::Cilium), ("none", Cni::None)])
}

/// `image.format`.
pub fn image_format(text: &str) -> Result<ImageFormat, Problem> {
    let words = [
        ("raw", ImageFormat::Raw),
        ("gz", ImageFormat::Gz),
        ("xz", ImageFormat::Xz),
        ("zst", ImageFormat::Zst),
        ("qcow2", ImageFormat::Qcow2),
    ];
    word(text, "an image format", &words)
}

/// The format that the ending of an image's name says.
pub fn format_of(url: &str) -> Result<ImageFormat, Problem> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let ending =
        path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_lowercase());
    match ending.as_deref() {
        Some("raw") => Ok(ImageFormat::Raw),
        Some("gz") => Ok(ImageFormat::Gz),
        Some("xz") => Ok(ImageFormat::Xz),
        Some("zst" | "zstd") => Ok(ImageFormat::Zst),
        Some("qcow2") => Ok(ImageFormat::Qcow2),
        // Debian's .img is raw and Ubuntu's is qcow2.
        _ => Err(Problem::new(format!("the ending of `{url}` does not say how the image is packed"))
            .hint("add `format:` (raw, gz, xz, zst or qcow2) beside `url:`")),
    }
}

/// Where an image comes from, in one spelling: `file:relative`, `file:/absolute`, or an URL.
pub fn image_url(text: &str) -> Result<String, Problem> {
    if text.contains("://") && text.contains('@') {
        let problem = Problem::new("an image's URL cannot carry an account");
        return Err(problem.hint("put the image into the artifact directory, and name it with file:"));
    }
    let problem = || Problem::new(format!("`{text}` is not where an image can come from"));
    if let Some(path) = text.strip_prefix("file:") {
        let path = match path.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return Err(problem().hint("one slash for an absolute path: file:/srv/images/debian.raw.zst")),
            None => path,
        };
        let parts: Vec<Component> = Path::new(path).components().collect();
        if !parts.iter().any(|part| matches!(part, Component::Normal(_))) || path.ends_with('/') {
            return Err(problem().hint("name a file: file:images/debian.raw.zst"));
        }
        if parts.contains(&Component::ParentDir) {
            return Err(problem().hint("`..` is not allowed; give the absolute path: file:/srv/images/debian.raw.zst"));
        }
        return Ok(format!("file:{path}"));
    }
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match url {
        Some(url) if url.path().ends_with('/') => Err(problem().hint("the URL has to name a file")),
        Some(url) => Ok(url.to_string()),
        None if !text.contains("://") => {
            Err(problem()
                .hint(format!("for a file of the artifact directory write file:{}", text.trim_start_matches('/'))))
        }
        None => Err(problem().hint("file:, http: and https: are supported")),
    }
}

/// A name or address that a certificate can be for; a name may begin with `*.`.
pub fn cert_san(text: &str) -> Result<String, Problem> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    names::dns_subdomain(text.strip_prefix("*.").unwrap_or(text))?;
    Ok(text.to_owned())
}

/// The name or address of a time server.
pub fn ntp_server(text: &str) -> Result<String, Problem> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    names::dns_subdomain(text)
}

/// A flag of kube-apiserver that neither we nor kubeadm set.
pub fn api_server_argument(text: &str) -> Result<String, Problem> {
    const OURS: [&str; 12] = [
        "advertise-address",
        "audit-",
        "bind-address",
        "client-ca-file",
        "encryption-provider-config",
        "etcd-",
        "kubelet-",
        "proxy-client-",
        "requestheader-",
        "secure-port",
        "service-cluster-ip-range",
        "tls-",
    ];
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let problem = Problem::new(format!("`{text}` is not a flag of the API server"));
    if text.starts_with('-') {
        return Err(problem.hint(format!("leave out the dashes: {}", text.trim_start_matches('-'))));
    }
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(problem.hint("its name alone, as in oidc-issuer-url"));
    }
    match OURS.iter().find(|ours| text.starts_with(**ours)) {
        Some(_) => Err(Problem::new(format!("`{text}` is set by metalgate or kubeadm")).hint("leave it out")),
        None => Ok(text.to_owned()),
    }
}

/// A SHA-256 sum, in lower case.
pub fn sha256(text: &str) -> Result<String, Problem> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    let hint = match text.len() {
        _ if text.starts_with("sha256:") => "leave out `sha256:`",
        32 | 40 | 128 if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => "this looks like MD5, SHA-1 or SHA-512",
        _ => "64 hexadecimal digits, as `sha256sum` prints them",
    };
    Err(Problem::new("this is not a SHA-256 sum").hint(hint))
}

/// A POSIX account name, as `useradd` takes them.
pub fn user_name(text: &str) -> Result<String, Problem> {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let rest = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    if first && rest && text.len() <= 32 {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("`{text}` is not an account name"))
        .hint("a-z, 0-9, `-` and `_`, a letter first, 32 characters at most"))
}

/// One line of an `authorized_keys` file, without options.
pub fn ssh_key(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        return Err(Problem::new("this is a PRIVATE key").hint("give the public one, from the file that ends in .pub"));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let kinds = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let is_kind = |word: &&str| kinds.iter().any(|kind| word.starts_with(kind));
    if text.lines().count() > 1 {
        return Err(Problem::new("a key is one line").hint("one list item for each key"));
    }
    match words.iter().position(is_kind) {
        Some(0) => {}
        Some(_) => {
            return Err(
                Problem::new("options before a key are not supported").hint("begin with the key's type (ssh-ed25519)")
            );
        }
        None if text.ends_with(".pub") || text.starts_with(['/', '~']) => {
            return Err(Problem::new("this is the name of a file, not a key").hint("paste what the file contains"));
        }
        None => {
            return Err(Problem::new("this is not an OpenSSH public key")
                .hint("ssh-ed25519 AAAA..., as in ~/.ssh/id_ed25519.pub"));
        }
    }
    let key = PublicKey::from_openssh(text).map_err(|error| {
        Problem::new(format!("this OpenSSH public key is damaged: {error}"))
            .hint("copy the whole line of the .pub file")
    })?;
    match key.key_data() {
        KeyData::Dsa(_) => {
            Err(Problem::new("DSA keys are no longer accepted by OpenSSH").hint("make one with ssh-keygen -t ed25519"))
        }
        KeyData::Rsa(rsa) if rsa.key_size() < MIN_RSA_BITS => {
            let message = format!("an RSA key of {} bits is too short", rsa.key_size());
            Err(Problem::new(message).hint(format!("{MIN_RSA_BITS} bits at least, or ssh-keygen -t ed25519")))
        }
        _ if matches!(key.algorithm(), Algorithm::Other(_)) => {
            Err(Problem::new(format!("keys of type `{}` are not known", key.algorithm())))
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        result.unwrap_err().hint.unwrap_or_default()
    }

    #[test]
    fn versions_name_a_patch_release_that_is_supported() {
        assert!(kubernetes_version("v1.33.0").is_ok() && kubernetes_version("v1.37.12").is_ok());
        assert_eq!(hint(kubernetes_version("1.36.4")), "write v1.36.4");
        assert_eq!(hint(kubernetes_version("v1.36")), "name the patch release too: v1.36.0");
        for bad in
            ["v1.32.9", "v1.38.0", "v2.36.0", "", "v", "latest", "v1.36.x", "v1.36.4-rc.1", "v1.036.4", "vv1.36.4"]
        {
            assert!(kubernetes_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_ones_that_a_machine_can_have() {
        assert!(host_address("10.20.0.10").is_ok());
        for bad in [
            "",
            "10.20.0",
            "010.20.0.1",
            "10.20.0.10:6443",
            "::1",
            "host",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "169.254.0.1",
        ] {
            assert!(host_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_come_from_files_and_web_servers_in_one_spelling() {
        for (given, kept) in [
            ("file:images/a.raw", "file:images/a.raw"),
            ("file:/srv/a.raw", "file:/srv/a.raw"),
            ("file:///srv/a.raw", "file:/srv/a.raw"),
            ("https://example.org/a.raw?x=1", "https://example.org/a.raw?x=1"),
        ] {
            assert_eq!(image_url(given).as_deref(), Ok(kept));
        }
        for bad in [
            "file:",
            "file:/",
            "file:images/",
            "file://images/a.raw",
            "file:../a.raw",
            "file:a/../../b",
            "ftp://a/b",
            "https://a/",
            "https://me:pw@a/b",
            "a.raw",
        ] {
            assert!(image_url(bad).is_err(), "{bad}");
        }
        assert_eq!(hint(image_url("/images/a.raw")), "for a file of the artifact directory write file:images/a.raw");
    }

    #[test]
    fn a_format_is_only_guessed_from_an_ending_that_is_clear() {
        for (name, format) in [
            ("a.raw", ImageFormat::Raw),
            ("a.raw.zst", ImageFormat::Zst),
            ("a.XZ", ImageFormat::Xz),
            ("http://b/a.qcow2?x=.gz", ImageFormat::Qcow2),
        ] {
            assert_eq!(format_of(name), Ok(format), "{name}");
        }
        for bad in ["a.img", "a", "b.raw/a", "a.zip"] {
            assert!(format_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_certificates_and_flags_are_told_from_other_words() {
        for good in ["api.example.org", "*.example.org", "10.0.0.1", "fd00::1"] {
            assert!(cert_san(good).is_ok(), "{good}");
        }
        for bad in ["", "a.*.org", "https://a", "a:6443", "A"] {
            assert!(cert_san(bad).is_err() && ntp_server(bad).is_err(), "{bad}");
        }
        assert!(api_server_argument("oidc-issuer-url").is_ok());
        assert_eq!(hint(api_server_argument("--oidc-issuer-url")), "leave out the dashes: oidc-issuer-url");
        for bad in ["", "a b", "audit-log-path", "tls-cert-file"] {
            assert!(api_server_argument(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sums_are_sha256() {
        let sum = "AB".repeat(32);
        assert_eq!(sha256(&sum), Ok(sum.to_lowercase()));
        assert_eq!(hint(sha256(&format!("sha256:{sum}"))), "leave out `sha256:`");
        assert_eq!(hint(sha256(&sum[..32])), "this looks like MD5, SHA-1 or SHA-512");
        assert!(sha256(&"g".repeat(64)).is_err());
    }

    #[test]
    fn keys_are_whole_public_keys_of_kinds_that_openssh_takes() {
        const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdAYLLdAjo9tBgZwj3uEcc/iVNXP0QyhPuyU8kPfvN6";
        assert_eq!(ssh_key(&format!(" {ED25519} ops@admin\n")), Ok(format!("{ED25519} ops@admin")));
        let other_kind = ED25519.replace("ssh-ed25519", "ssh-rsa");
        let broken = ED25519.replace("IIdA", "II!A");
        for bad in [
            "",
            "ssh-ed25519",
            &ED25519[..70],
            &other_kind,
            &broken,
            "no-pty ssh-ed25519 AAAA",
            "~/.ssh/id.pub",
            "hello",
        ] {
            assert!(ssh_key(bad).is_err(), "{bad}");
        }
        assert!(ssh_key(&format!("{ED25519}\n{ED25519}")).is_err());
    }
}
