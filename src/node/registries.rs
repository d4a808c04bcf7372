//! containerd's files for registries: a hosts.toml for each mirror
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>), and a proxy in the environment of its service.

use super::placed::File;
use super::prepare::{self, PrepareError};
use super::script::Step;
use crate::api::MetalClusterSpec;
use crate::spec::{Mirror, Proxy, Registries};
use minijinja::context;
use minijinja::value::Serde;
use std::fmt::Write;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5 * 60);
/// Where containerd looks for mirrors.
const CERTS: &str = "/etc/containerd/certs.d";
const PROXY: &str = "/etc/systemd/system/containerd.service.d/metalgate-proxy.conf";

/// The step that puts the files in place.
pub fn step(cluster: &MetalClusterSpec) -> Result<Step, PrepareError> {
    // What is in the cluster is never behind the proxy.
    let endpoint = cluster.endpoint.rsplit_once(':').map_or(cluster.endpoint.as_str(), |(host, _)| host);
    let files = files(&cluster.registries, &[endpoint, &cluster.pod_cidr, &cluster.service_cidr]);
    let script =
        concat!(include_str!("../../templates/node/place.sh"), include_str!("../../templates/node/registries.sh"));
    prepare::step("registries", script, LIMIT, context! { files => Serde(files) })
}

/// The files that nodes have; `own` is reached without a proxy.
pub fn files(registries: &Registries, own: &[&str]) -> Vec<File> {
    let mut files = Vec::new();
    for mirror in &registries.mirrors {
        let dir = format!("{CERTS}/{}", mirror.registry.as_deref().unwrap_or("_default"));
        let authority = mirror.ca.as_ref().map(|ca| File::new(format!("{dir}/ca.crt"), "644", ca));
        let path = authority.as_ref().map(|file| file.path.as_str());
        files.push(File::new(format!("{dir}/hosts.toml"), "644", hosts(mirror, path)));
        files.extend(authority);
    }
    if let Some(proxy) = &registries.proxy {
        files.push(File::new(PROXY, "644", environment(proxy, own)));
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

fn environment(proxy: &Proxy, own: &[&str]) -> String {
    let cluster = ["localhost", "127.0.0.1", ".svc", ".cluster.local"].iter().chain(own).copied();
    let none: Vec<&str> = cluster.chain(proxy.no_proxy.iter().map(String::as_str)).collect();
    let none = none.join(",");
    let variables = [("HTTP_PROXY", proxy.http.as_deref()), ("HTTPS_PROXY", proxy.https.as_deref())];
    let mut text = String::from("[Service]\n");
    for (name, value) in variables.into_iter().chain([("NO_PROXY", Some(none.as_str()))]) {
        if let Some(value) = value {
            let _ = writeln!(text, "Environment=\"{name}={value}\"");
        }
    }
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
        let registries: Registries = serde_json::from_value(proxy).unwrap();
        let files = files(&registries, &["10.20.0.10", "10.244.0.0/16"]);
        let [file] = files.as_slice() else { panic!("one file") };
        assert_eq!(file.path, "/etc/systemd/system/containerd.service.d/metalgate-proxy.conf");
        assert_eq!(
            file.content,
            "[Service]\nEnvironment=\"HTTPS_PROXY=http://10.0.0.2:3128\"\nEnvironment=\"NO_PROXY=localhost,127.0.0.1,.svc,\
             .cluster.local,10.20.0.10,10.244.0.0/16,.example.org\"\n"
        );
        assert!(super::files(&Registries::default(), &["10.20.0.10"]).is_empty());
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
