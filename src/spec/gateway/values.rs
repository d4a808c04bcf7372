//! What single values of `gateway:` have to look like.

use crate::diagnostic::Problem;
use crate::gateway::model::{AiProviderKind, Edition, ExternalDatabase, Provider, ProviderName, SecretKey};
use crate::names;

/// `ai.providers[].type`.
pub const AI_PROVIDERS: [(&str, AiProviderKind); 5] = [
    ("openai", AiProviderKind::Openai),
    ("anthropic", AiProviderKind::Anthropic),
    ("cohere", AiProviderKind::Cohere),
    ("mistral", AiProviderKind::Mistral),
    ("gemini", AiProviderKind::Gemini),
];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The version that is installed where the file does not say.
pub fn default_version(provider: &Provider) -> &'static str {
    match (provider.name, provider.edition) {
        (ProviderName::KongHybrid, Edition::Oss) => "3.9.3",
        (ProviderName::KongHybrid, Edition::Enterprise) => "3.14.0.13",
        (ProviderName::EnvoyGateway, _) => "1.9.0",
    }
}

/// A version that we know how to configure.
pub fn version(provider: &Provider, text: &str) -> Result<String, Problem> {
    let numbers: Option<Vec<u32>> =
        text.split('.').map(|part| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()))).collect();
    let what = provider.name.as_str();
    let numbers = numbers.filter(|numbers| numbers.len() >= 3);
    let Some([major, minor, ..]) = numbers.as_deref() else {
        let problem = Problem::new(format!("`{text}` is not a version of {what}"));
        return Err(problem.hint(format!("for example {}", default_version(provider))));
    };
    let (minors, known) = match (provider.name, provider.edition) {
        // The last minor version with an open-source edition is 3.9.
        (ProviderName::KongHybrid, Edition::Oss) => (4..=9, "3.4 to 3.9 (later ones have no open-source edition)"),
        (ProviderName::KongHybrid, Edition::Enterprise) => (4..=15, "3.4 to 3.15"),
        (ProviderName::EnvoyGateway, _) => (9..=9, "1.9"),
    };
    let first = if provider.name == ProviderName::KongHybrid { 3 } else { 1 };
    if *major != first || !minors.contains(minor) {
        return Err(Problem::new(format!("{what} {text} is not supported")).hint(format!("{known} are")));
    }
    Ok(text.to_owned())
}

/// A reference of a container image with a tag or a digest.
pub fn image(text: &str) -> Result<String, Problem> {
    let problem = || Problem::new(format!("`{text}` is not the name of an image"));
    let reference: oci_client::Reference =
        text.parse().map_err(|_| problem().hint("for example docker.io/kong:3.9.3"))?;
    let named = text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    match named && (reference.tag().is_some() || reference.digest().is_some()) {
        true => Ok(text.to_owned()),
        false => Err(problem().hint("name its tag or its digest, too")),
    }
}

/// Key of a Secret.
pub fn secret_key(text: &str) -> Result<String, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.len() <= 253 && text.bytes().all(allowed) && text != "." && text != ".." {
        true => Ok(text.to_owned()),
        false => {
            Err(Problem::new(format!("`{text}` is not a key of a Secret")).hint("letters, digits, `-`, `_` and `.`"))
        }
    }
}

/// `postgres://user@host:port/name?sslmode=require`, without a password.
pub fn database_url(text: &str) -> Result<ExternalDatabase, Problem> {
    let problem = |hint: &'static str| Problem::new("this is not where a database can be").hint(hint);
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    let url = url.ok_or_else(|| problem("for example postgres://kong@db.example.org:5432/kong?sslmode=require"))?;
    if url.password().is_some() {
        return Err(problem("leave the password out: it comes from the Secret in `password`"));
    }
    let (host, name) = (url.host_str().unwrap_or_default(), url.path().trim_start_matches('/'));
    if host.is_empty() || url.username().is_empty() || name.is_empty() || name.contains('/') {
        return Err(problem("it names the account, the host and the database: postgres://kong@db.example.org/kong"));
    }
    let mut tls = true;
    for (key, value) in url.query_pairs() {
        match (key.as_ref(), value.as_ref()) {
            ("sslmode", "disable") => tls = false,
            ("sslmode", "require" | "verify-ca" | "verify-full") => {}
            _ => return Err(problem("`sslmode` is disable, require, verify-ca or verify-full; nothing else is known")),
        }
    }
    Ok(ExternalDatabase {
        host: host.to_owned(),
        port: url.port().unwrap_or(5432),
        user: url.username().to_owned(),
        name: name.to_owned(),
        tls,
        password: SecretKey { secret: String::new(), key: String::new() },
    })
}

/// A host name, or an IPv4 address.
pub fn host(text: &str) -> Result<String, Problem> {
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(_) => crate::spec::host_address(text).map(|address| address.to_string()),
        Err(_) => names::dns_subdomain(text),
    }
}

/// A host name, whose first part may be `*`.
pub fn host_pattern(text: &str) -> Result<String, Problem> {
    names::dns_subdomain(text.strip_prefix("*.").unwrap_or(text))?;
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(_) => {
            Err(Problem::new(format!("`{text}` is an address, not a host name"))
                .hint("leave it out: every name is taken"))
        }
        Err(_) => Ok(text.to_owned()),
    }
}

/// A name that a certificate can have: a host name, one with `*.`, or an address.
pub fn certificate_name(text: &str) -> Result<String, Problem> {
    host(text.strip_prefix("*.").unwrap_or(text)).map(|_| text.to_owned())
}

/// Whether one of a certificate's names is good for a host name or pattern (RFC 6125: `*` is one part).
pub fn covers(names: &[String], hostname: &str) -> bool {
    let parent = hostname.split_once('.').map(|(_, parent)| parent);
    names.iter().any(|name| name == hostname || name.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent))
}

/// A path.
pub fn path(text: &str) -> Result<String, Problem> {
    let problem = || Problem::new(format!("`{text}` is not a path"));
    if !text.starts_with('/') {
        return Err(problem().hint("it begins with `/`"));
    }
    if text.contains("//") || text.split('/').any(|part| part == "." || part == "..") {
        return Err(problem().hint("`//`, `/./` and `/../` are changed before a route is looked for"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    match text.bytes().all(allowed) && text.len() <= 1024 {
        true => Ok(text.to_owned()),
        false => Err(problem().hint("RFC 3986's characters only; the rest is written as %20; 1024 at most")),
    }
}

/// A regular expression for whole paths.
pub fn path_regex(text: &str) -> Result<String, Problem> {
    let problem = |reason: String| Problem::new(format!("`{text}` is not a regular expression for paths: {reason}"));
    if !text.starts_with('/') {
        return Err(problem(String::from("it does not begin with `/`")).hint("for example /v[0-9]+/.*"));
    }
    // Look-around and back references are not in RE2, which Envoy uses; they would be refused on the data plane only.
    regex::Regex::new(text).map(|_| text.to_owned()).map_err(|error| {
        problem(error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })
}

/// An HTTP method, in capitals.
pub fn method(text: &str) -> Result<String, Problem> {
    match METHODS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(format!("`{text}` is not an HTTP method")).hint(names::one_of(text, &METHODS))),
    }
}

/// Name of a header: a token of RFC 9110.
pub fn header_name(text: &str) -> Result<String, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let problem = || Problem::new(format!("`{text}` is not the name of a header"));
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(problem().hint("letters, digits and `-`: X-Request-Id"));
    }
    match text.to_ascii_lowercase().as_str() {
        "host" => Err(problem()
            .hint("the name that a service is asked by is set by `preserveHost`; hosts are matched by `hosts`")),
        _ => Ok(text.to_owned()),
    }
}

/// Value of a header: printable ASCII.
pub fn header_value(text: &str) -> Result<String, Problem> {
    match text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.len() <= 4096 && text.trim() == text {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("this is not the value of a header")
            .hint("printable ASCII, no blanks around it, 4096 characters at most")),
    }
}

/// An http or https URL of a service.
pub fn http_url(text: &str) -> Result<String, Problem> {
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match url {
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Err(Problem::new("a URL cannot carry an account").hint("the key comes from the Secret in `apiKey`"))
        }
        Some(url) => Ok(url.to_string()),
        None => Err(Problem::new(format!("`{text}` is not an http or https URL"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_that_gateways_take() {
        for good in ["/", "/a", "/a/b-c_d", "/v1/%20x"] {
            assert!(path(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/a//b", "/a/../b", "/a b", "/ä"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path_regex("/v[0-9]+/.*").is_ok());
        for bad in ["v1", "/(", "/(?=a)", "/(a)\\1"] {
            assert!(path_regex(bad).is_err(), "{bad}");
        }
        assert!(header_name("X-A").is_ok() && header_name("Host").is_err() && header_name("a b").is_err());
        assert!(header_value("a b").is_ok() && header_value(" a").is_err() && header_value("a\r\nb").is_err());
        assert!(
            host_pattern("*.example.org").is_ok()
                && host_pattern("a.*.org").is_err()
                && host_pattern("10.0.0.1").is_err()
        );
        assert!(host("10.0.0.1").is_ok() && host("127.0.0.1").is_err() && host("a_b").is_err());
        assert!(image("docker.io/kong:3.9.3").is_ok() && image("kong").is_err() && image("a b").is_err());
    }

    #[test]
    fn a_star_covers_one_part() {
        let names = [String::from("*.example.org"), String::from("a.b")];
        assert!(covers(&names, "www.example.org") && covers(&names, "*.example.org") && covers(&names, "a.b"));
        assert!(!covers(&names, "example.org") && !covers(&names, "x.y.example.org"));
    }

    #[test]
    fn a_database_is_a_url_without_a_password() {
        let place = database_url("postgres://kong@db.example.org/gateway?sslmode=disable").unwrap();
        assert_eq!((place.host.as_str(), place.port, place.name.as_str()), ("db.example.org", 5432, "gateway"));
        assert!(!place.tls && database_url("postgresql://k@h:1/n").unwrap().tls);
        for bad in
            ["mysql://k@h/n", "postgres://k:pw@h/n", "postgres://h/n", "postgres://k@h", "postgres://k@h/n?sslmode=x"]
        {
            assert!(database_url(bad).is_err(), "{bad}");
        }
    }
}
