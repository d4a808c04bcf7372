//! containerd's files for registries: a hosts.toml for each mirror
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>), and a proxy in the environment of its service.

use super::prepare::{self, PrepareError};
use super::script::Step;
use crate::api::MetalClusterSpec;
use crate::spec::{Mirror, Proxy};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5 * 60);
/// Where containerd looks for mirrors.
const CERTS: &str = "/etc/containerd/certs.d";
const PROXY: &str = "/etc/systemd/system/containerd.service.d/metalgate-proxy.conf";

/// A file of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// What is in it.
    pub content: String,
}

/// The step that puts the files in place.
pub fn step(cluster: &MetalClusterSpec) -> Result<Step, PrepareError> {
    #[derive(Serialize)]
    struct Encoded {
        path: String,
        content: String,
    }
    let encoded = files(cluster).into_iter().map(|File { path, content }| {
        let content = BASE64_STANDARD.encode(content);
        Encoded { path, content }
    });
    let values = context! { files => Serde(encoded.collect::<Vec<_>>()) };
    prepare::step("registries", include_str!("../../templates/node/registries.sh"), LIMIT, values)
}

/// The files that a cluster's nodes have.
pub fn files(cluster: &MetalClusterSpec) -> Vec<File> {
    let mut files = Vec::new();
    for mirror in &cluster.registries.mirrors {
        let dir = format!("{CERTS}/{}", mirror.registry.as_deref().unwrap_or("_default"));
        let authority = mirror.ca.as_ref().map(|ca| File { path: format!("{dir}/ca.crt"), content: ca.clone() });
        let path = authority.as_ref().map(|file| file.path.as_str());
        files.push(File { path: format!("{dir}/hosts.toml"), content: hosts(mirror, path) });
        files.extend(authority);
    }
    if let Some(proxy) = &cluster.registries.proxy {
        files.push(File { path: String::from(PROXY), content: environment(proxy, cluster) });
    }
    files
}

/// The registry itself is asked where the mirror has not got an image.
fn hosts(mirror: &Mirror, ca: Option<&str>) -> String {
    let (host, project) = split(&mirror.url);
    let url = project.map_or_else(|| host.to_owned(), |project| format!("{host}/v2/{project}"));
    // Values have been checked to have neither quotes nor backslashes; writing to a String cannot fail.
    let mut text = format!("[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    if project.is_some() {
        text.push_str("  override_path = true\n");
    }
    if let Some(ca) = ca {
        let _ = writeln!(text, "  ca = \"{ca}\"");
    }
    if mirror.insecure_skip_verify {
        text.push_str("  skip_verify = true\n");
    }
    text
}

/// `https://HOST:PORT`, and the project below it.
fn split(url: &str) -> (&str, Option<&str>) {
    let begin = url.find("://").map_or(0, |at| at + 3);
    match url[begin..].find('/') {
        Some(at) => (&url[..begin + at], Some(&url[begin + at + 1..])),
        None => (url, None),
    }
}

fn environment(proxy: &Proxy, cluster: &MetalClusterSpec) -> String {
    // What is in the cluster is never behind the proxy.
    let endpoint = cluster.endpoint.rsplit_once(':').map_or(cluster.endpoint.as_str(), |(host, _)| host);
    let own = ["localhost", "127.0.0.1", ".svc", ".cluster.local", endpoint, &cluster.pod_cidr, &cluster.service_cidr];
    let none: Vec<&str> = own.into_iter().chain(proxy.no_proxy.iter().map(String::as_str)).collect();
    let mut text = String::from("[Service]\n");
    let none = none.join(",");
    for (name, value) in [("HTTP_PROXY", proxy.http.as_deref()), ("HTTPS_PROXY", proxy.https.as_deref())] {
        if let Some(value) = value {
            let _ = writeln!(text, "Environment=\"{name}={}\"", value.replace('%', "%%"));
        }
    }
    let _ = writeln!(text, "Environment=\"NO_PROXY={none}\"");
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn mirror(registry: Option<&str>, url: &str) -> Mirror {
        Mirror { registry: registry.map(str::to_owned), url: url.to_owned(), ca: None, insecure_skip_verify: false }
    }

    #[test]
    fn a_project_is_below_the_protocols_own_path() {
        let hub =
            Mirror { insecure_skip_verify: true, ..mirror(Some("docker.io"), "https://h.example.org:8443/hub/x") };
        assert_eq!(
            hosts(&hub, Some("/etc/containerd/certs.d/docker.io/ca.crt")),
            "[host.\"https://h.example.org:8443/v2/hub/x\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
             override_path = true\n  ca = \"/etc/containerd/certs.d/docker.io/ca.crt\"\n  skip_verify = true\n"
        );
        assert_eq!(
            hosts(&mirror(None, "http://10.0.0.2:5000"), None),
            "[host.\"http://10.0.0.2:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
    }

    fn cluster(registries: serde_json::Value) -> MetalClusterSpec {
        serde_json::from_value(serde_json::json!({
            "kubernetesVersion": "v1.36.4", "endpoint": "10.20.0.10:6443", "podCidr": "10.244.0.0/16",
            "serviceCidr": "10.96.0.0/12", "cni": "flannel", "image": {"name": "x.raw", "sha256": "00", "format": "raw"},
            "users": [], "groups": [], "provisioning": {"dhcp": "reservation", "httpPort": 8080, "agentPort": 8443},
            "registries": registries,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_in_the_cluster_is_not_behind_the_proxy() {
        let proxy = serde_json::json!({"proxy": {"https": "http://10.0.0.2:3128", "noProxy": [".example.org"]}});
        let path = String::from("/etc/systemd/system/containerd.service.d/metalgate-proxy.conf");
        let content = String::from(
            "[Service]\nEnvironment=\"HTTPS_PROXY=http://10.0.0.2:3128\"\nEnvironment=\"NO_PROXY=localhost,127.0.0.1,.svc,\
             .cluster.local,10.20.0.10,10.244.0.0/16,10.96.0.0/12,.example.org\"\n",
        );
        assert_eq!(files(&cluster(proxy)), [File { path, content }]);
        assert_eq!(files(&cluster(serde_json::json!({}))), []);
    }

    #[test]
    fn the_step_sees_what_is_missing_and_puts_it_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = serde_json::json!({"mirrors": [{"registry": "docker.io", "url": "https://h.example.org/hub", "ca": "CA\n"}]});
        let text =
            step(&cluster(mirrors)).unwrap().script.expose().replace("/etc/", &format!("{}/", dir.path().display()));
        let run = |what: &str| {
            let script = format!("systemctl() {{ echo \"$@\"; }}\n{text}\n{what}");
            std::process::Command::new("sh").arg("-c").arg(script).output().unwrap()
        };
        assert!(!run("check").status.success());
        let applied = run("apply");
        assert!(String::from_utf8_lossy(&applied.stdout).contains("restart containerd"), "{applied:?}");
        assert!(run("check").status.success());
        let at = dir.path().join("containerd/certs.d/docker.io");
        assert_eq!(std::fs::read_to_string(at.join("ca.crt")).unwrap(), "CA\n");
        assert!(std::fs::read_to_string(at.join("hosts.toml")).unwrap().contains("/v2/hub"));
        std::fs::write(at.join("hosts.toml"), "other").unwrap();
        assert!(!run("check").status.success());
    }
}
