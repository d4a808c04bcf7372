//! `registries`: how nodes get the container images that pods name. The cluster's own come from the artifacts.

use super::cluster::texts;
use super::reader::{Reader, Value};
use crate::diagnostic::Problem;
use crate::names;
use crate::pki;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use url::Url;

/// How nodes get the container images that pods name; empty: each from its own registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registries {
    /// The way to registries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Who is asked in a registry's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
}

/// An HTTP proxy that containerd uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// The proxy for `http://` addresses, `http://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The proxy for `https://` addresses, which registries have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached without it, beside those of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_proxy: Vec<String>,
}

/// A registry that has the images of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Whose images, as they are named: `docker.io`. Nothing: those of every registry that has no mirror of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// `https://HOST:PORT`, and below it the project that the images are in, if they are in one.
    pub url: String,
    /// Who has signed its certificate, in PEM, where machines would not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether its certificate is not looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_verify: bool,
}

impl Registries {
    /// Whether the nodes' own ways are left as they are.
    pub fn is_empty(&self) -> bool {
        self.proxy.is_none() && self.mirrors.is_empty()
    }
}

/// Reads the field.
pub(super) fn read(reader: &mut Reader, value: &Value) -> Option<Registries> {
    let mut fields = reader.fields(value)?;
    let proxy = match reader.optional(&mut fields, "proxy") {
        Some(value) => proxy(reader, &value).map(Some),
        None => Some(None),
    };
    let mirrors = match reader.optional(&mut fields, "mirrors") {
        Some(value) => mirrors(reader, &value),
        None => Some(Vec::new()),
    };
    reader.finish(fields);
    Some(Registries { proxy: proxy?, mirrors: mirrors? })
}

fn proxy(reader: &mut Reader, value: &Value) -> Option<Proxy> {
    let mut fields = reader.fields(value)?;
    let mut address = |field| match reader.optional(&mut fields, field) {
        Some(value) => reader.parse(&value, proxy_url).map(Some),
        None => Some(None),
    };
    let (http, https) = (address("http"), address("https"));
    let no_proxy = match reader.optional(&mut fields, "noProxy") {
        Some(value) => texts(reader, &value, no_proxy),
        None => Some(Vec::new()),
    };
    reader.finish(fields);
    if (&http, &https) == (&Some(None), &Some(None)) {
        let problem = Problem::new(format!("`{}` names no proxy", value.name));
        reader.refuse(&value.range, problem.hint("`https` is the one that registries are reached by"));
        return None;
    }
    Some(Proxy { http: http?, https: https?, no_proxy: no_proxy? })
}

fn mirrors(reader: &mut Reader, value: &Value) -> Option<Vec<Mirror>> {
    let mut seen = BTreeSet::new();
    let mirrors: Vec<Option<Mirror>> =
        reader.items(value)?.iter().map(|item| mirror(reader, item, &mut seen)).collect();
    mirrors.into_iter().collect()
}

fn mirror(reader: &mut Reader, value: &Value, seen: &mut BTreeSet<Option<String>>) -> Option<Mirror> {
    let mut fields = reader.fields(value)?;
    let registry = match reader.optional(&mut fields, "registry") {
        Some(value) => reader.parse(&value, registry).map(Some),
        None => Some(None),
    };
    let url = reader.required(&mut fields, "url").and_then(|value| reader.parse(&value, mirror_url));
    let ca = match reader.optional(&mut fields, "ca") {
        Some(value) => reader.parse(&value, authority).map(Some),
        None => Some(None),
    };
    let insecure_skip_verify = match reader.optional(&mut fields, "insecureSkipVerify") {
        Some(value) => reader.flag(&value),
        None => Some(false),
    };
    reader.finish(fields);
    let registry = registry?;
    if !seen.insert(registry.clone()) {
        let whose = registry.as_ref().map_or(String::from("of every other registry"), |name| format!("of `{name}`"));
        reader.refuse(&value.range, Problem::new(format!("a second mirror {whose}")));
        return None;
    }
    Some(Mirror { registry, url: url?, ca: ca?, insecure_skip_verify: insecure_skip_verify? })
}

/// The address of a proxy: `http://HOST:PORT`.
pub(super) fn proxy_url(text: &str) -> Result<String, Problem> {
    let url = web_address(text)?;
    if url.path() != "/" || url.query().is_some() {
        return Err(Problem::new("a proxy's address ends with its port").hint("as in http://10.0.0.2:3128"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// A host, a domain with everything below it, or a network.
pub(super) fn no_proxy(text: &str) -> Result<String, Problem> {
    let name = text.trim_start_matches("*.").trim_start_matches('.');
    match text.parse::<ipnet::IpNet>().is_ok() || host_and_port(name).is_ok() {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(format!("`{text}` is neither a host nor a domain nor a network"))
            .hint("as in registry.example.org, .example.org or 10.0.0.0/8")),
    }
}

/// A registry as images name it.
pub(super) fn registry(text: &str) -> Result<String, Problem> {
    match text {
        "*" => Err(Problem::new("`*` is no registry").hint("leave `registry` out for the images of all of them")),
        _ => host_and_port(text).map_err(|problem| problem.hint("its name alone, as in docker.io")),
    }
}

/// The address of a mirror.
pub(super) fn mirror_url(text: &str) -> Result<String, Problem> {
    let url = web_address(text)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte);
    if url.query().is_some() || url.fragment().is_some() || !url.path().bytes().all(plain) {
        return Err(Problem::new(format!("`{text}` is not the address of a registry"))
            .hint("https://HOST:PORT/PROJECT, where the project may be left out"));
    }
    if url.path().starts_with("/v2") {
        return Err(Problem::new("`/v2` is not part of it").hint("metalgate puts it where the protocol wants it"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Certificates that are trusted.
pub(super) fn authority(text: &str) -> Result<String, Problem> {
    match pki::details(text) {
        Ok(_) => Ok(format!("{}\n", text.trim())),
        Err(_) => Err(Problem::new("this is not a certificate in PEM")
            .hint("the text from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----, lines and all")),
    }
}

/// Machines get these addresses as they are: what would be a secret in them would be one no more.
fn web_address(text: &str) -> Result<Url, Problem> {
    let problem = || Problem::new("this is not the address of a web server").hint("http: and https: are supported");
    let url: Url = text.parse().map_err(|_| problem())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(problem());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::new("an account and its password cannot be given here: every machine would have them")
            .hint("let the machines' network through without; pods of yours have imagePullSecrets"));
    }
    Ok(url)
}

/// `HOST` or `HOST:PORT`.
fn host_and_port(text: &str) -> Result<String, Problem> {
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if let Some(port) = port.filter(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(Problem::new(format!("`{port}` is no port")));
    }
    if host.parse::<Ipv4Addr>().is_err() {
        names::dns_subdomain(host)?;
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_nothing_are_refused() {
        for good in ["https://harbor.example.org", "http://10.0.0.2:5000/", "https://[fd00::2]:8443/proxy-hub/x.y"] {
            assert_eq!(mirror_url(good).ok().as_deref(), Some(good.trim_end_matches('/')));
        }
        for bad in [
            "harbor.example.org",
            "ftp://harbor.example.org",
            "https://",
            "https://a:b@harbor.example.org",
            "https://harbor.example.org/v2/hub",
            "https://harbor.example.org/Hub?x=1",
            "https://harbor.example.org/a\"b",
        ] {
            assert!(mirror_url(bad).is_err(), "{bad}");
        }
        assert!(proxy_url("http://10.0.0.2:3128").is_ok() && proxy_url("http://10.0.0.2:3128/x").is_err());
        assert!(proxy_url("http://me:s3cret@10.0.0.2:3128").is_err_and(|problem| !problem.message.contains("s3cret")));
        for good in ["10.0.0.0/8", "10.0.0.1", ".example.org", "*.example.org", "a.example.org:5000", "fd00::/8"] {
            assert!(no_proxy(good).is_ok(), "{good}");
        }
        assert!(no_proxy("a b").is_err() && no_proxy("").is_err() && no_proxy("10.0.0.0/99").is_err());
        assert!(registry("docker.io").is_ok() && registry("a:5000").is_ok());
        assert!(registry("*").is_err() && registry("docker.io/library").is_err() && registry("..").is_err());
        assert!(authority("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").is_err());
    }
}
