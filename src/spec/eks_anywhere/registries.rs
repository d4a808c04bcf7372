//! `proxyConfiguration` and `registryMirrorConfiguration`: how nodes get the images that pods name.

use super::unused::given;
use crate::diagnostic::Problem;
use crate::spec::cluster::texts;
use crate::spec::reader::{Fields, Reader, Value};
use crate::spec::registries::{self, Mirror, Proxy, Registries};

const HTTPS: u16 = 443;

/// Reads both fields of a Cluster.
pub fn read(reader: &mut Reader, fields: &mut Fields) -> Option<Registries> {
    let proxy = match given(reader, fields, "proxyConfiguration") {
        Some(value) => proxy(reader, &value).map(Some),
        None => Some(None),
    };
    let mirrors = match given(reader, fields, "registryMirrorConfiguration") {
        Some(value) => mirrors(reader, &value),
        None => Some(Vec::new()),
    };
    Some(Registries { proxy: proxy?, mirrors: mirrors? })
}

fn proxy(reader: &mut Reader, value: &Value) -> Option<Proxy> {
    let mut fields = reader.fields(value)?;
    let mut address = |field| reader.required(&mut fields, field).and_then(|value| reader.parse(&value, proxy_url));
    let (http, https) = (address("httpProxy"), address("httpsProxy"));
    let no_proxy = match given(reader, &mut fields, "noProxy") {
        Some(value) => texts(reader, &value, registries::no_proxy),
        None => Some(Vec::new()),
    };
    reader.finish(fields);
    Some(Proxy { http: Some(http?), https: Some(https?), no_proxy: no_proxy? })
}

/// EKS Anywhere's examples have no scheme, its validation takes both.
fn proxy_url(text: &str) -> Result<String, Problem> {
    match text.contains("://") {
        true => registries::proxy_url(text),
        false => registries::proxy_url(&format!("http://{text}")),
    }
}

/// One mirror, in whose namespaces the registries are; without namespaces it has the images of all of them.
fn mirrors(reader: &mut Reader, value: &Value) -> Option<Vec<Mirror>> {
    let mut fields = reader.fields(value)?;
    let host = reader.required(&mut fields, "endpoint").and_then(|value| reader.parse(&value, registries::registry));
    let port = match given(reader, &mut fields, "port") {
        Some(value) => port(reader, &value),
        None => Some(HTTPS),
    };
    let namespaces = match given(reader, &mut fields, "ociNamespaces") {
        Some(value) => namespaces(reader, &value),
        None => Some(vec![(None, None)]),
    };
    let ca = match given(reader, &mut fields, "caCertContent") {
        Some(value) => reader.parse(&value, registries::authority).map(Some),
        None => Some(None),
    };
    let mut flag = |field| match given(reader, &mut fields, field) {
        Some(value) => reader.flag(&value).map(|flag| (flag, value.range)),
        None => Some((false, 0..0)),
    };
    let (authenticate, insecure) = (flag("authenticate"), flag("insecureSkipVerify"));
    reader.finish(fields);
    if let Some((true, range)) = authenticate {
        let problem = Problem::new(format!("`{}.authenticate` has no effect here", value.name));
        reader.warn(&range, problem.hint("nodes have no account at the mirror; pods of yours have imagePullSecrets"));
    }
    let (host, port, ca, insecure) = (host?, port?, ca?, insecure?.0);
    let mirrors = namespaces?.into_iter().map(|(registry, namespace)| {
        let address = format!("https://{host}:{port}/{}", namespace.unwrap_or_default());
        let url = registries::mirror_url(&address).map_err(|problem| reader.refuse(&value.range, problem)).ok()?;
        Some(Mirror { registry, url, ca: ca.clone(), insecure_skip_verify: insecure })
    });
    mirrors.collect()
}

/// EKS Anywhere has it as a text; its users write both.
fn port(reader: &mut Reader, value: &Value) -> Option<u16> {
    let text = reader.scalar(value)?;
    match text.parse().ok().filter(|port| *port > 0) {
        None => {
            reader.refuse(&value.range, Problem::new(format!("`{text}` is no port")));
            None
        }
        port => port,
    }
}

type Namespace = (Option<String>, Option<String>);

fn namespaces(reader: &mut Reader, value: &Value) -> Option<Vec<Namespace>> {
    let items = reader.items(value)?;
    let mut read: Vec<Option<Namespace>> = Vec::new();
    for item in &items {
        let Some(mut fields) = reader.fields(item) else { continue };
        let registry = reader.required(&mut fields, "registry");
        let place = registry.as_ref().map(|value| value.range.clone());
        let registry = registry.and_then(|value| reader.parse(&value, registries::registry));
        // It may be empty: the mirror's own root.
        let namespace = reader
            .required(&mut fields, "namespace")
            .and_then(|value| reader.scalar(&value).map(|text| text.trim_matches('/').to_owned()));
        reader.finish(fields);
        if let (Some(name), Some(place)) = (&registry, place)
            && read.iter().flatten().any(|(known, _)| known.as_ref() == Some(name))
        {
            reader.refuse(&place, Problem::new(format!("a second namespace of `{name}`")));
        }
        read.push(registry.map(Some).zip(namespace.map(Some)));
    }
    read.into_iter().collect()
}
