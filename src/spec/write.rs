//! A spec as a file: what `metalgate convert` makes of EKS Anywhere's documents. Reading it gives the same spec again.

use super::{ClusterSpec, cluster};
use crate::template;
use minijinja::context;
use minijinja::value::Serde;

/// The file, which begins with `comments`. A gateway is not written: documents that are converted have none.
pub fn yaml(spec: &ClusterSpec, comments: &[String]) -> Result<String, minijinja::Error> {
    // A line of a comment that ended early would be a field.
    let comments: Vec<String> = comments.iter().map(|line| line.replace(char::is_control, " ")).collect();
    let values = context! { spec => Serde(spec), comments => comments, api_version => cluster::API_VERSION };
    template::render(include_str!("../../templates/spec/cluster.yaml"), &values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Argument, Mirror, Proxy, Registries, read};
    use super::*;
    use crate::pki::Authority;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_is_written_reads_back_equal() {
        let text = include_str!("../../hardware-examples/accepted/worker-groups/cluster.yaml");
        let mut spec = read("f", text.into()).cluster.unwrap();
        let plain = yaml(&spec, &[String::from("one\nspec: two")]).unwrap();
        assert!(plain.starts_with("# one spec: two\napiVersion: "), "{plain}");
        assert_eq!(read("f", plain.into()).cluster, Some(spec.clone()));
        spec.kubernetes.endpoint.external = true;
        spec.kubernetes.cert_sans = vec![String::from("*.example.org"), String::from("10.0.0.1")];
        let value = String::from("a: \"b\" # <c> 'd' {e}, \\");
        spec.kubernetes.api_server_extra_args = vec![Argument { name: String::from("oidc-client-id"), value }];
        spec.os.ntp_servers = vec![String::from("10.0.0.2")];
        spec.provisioning.interface = None;
        spec.provisioning.address = Some("10.20.0.1".parse().unwrap());
        spec.workers.clear();
        let hub = Mirror {
            registry: Some(String::from("docker.io")),
            url: String::from("https://harbor.example.org/hub"),
            ca: Some(Authority::new("hub").unwrap().cert().to_owned()),
            insecure_skip_verify: true,
        };
        let rest = Mirror { registry: None, insecure_skip_verify: false, ..hub.clone() };
        let proxy = Proxy { http: None, https: Some(String::from("http://10.0.0.2:3128")), no_proxy: Vec::new() };
        spec.registries = Registries { proxy: Some(proxy), mirrors: vec![hub, rest] };
        let full = yaml(&spec, &[]).unwrap();
        assert_eq!(read("f", full.clone().into()).cluster, Some(spec), "{full}");
    }
}
