//! What Kong 3.9 takes for a name, a path, a host, a tag and so on (kong/db/schema/typedefs.lua), in Kong's words.

use rcgen::KeyPair;
use regex::Regex;
use std::net::IpAddr;
use x509_parser::pem::parse_x509_pem;

type Check = Result<(), String>;

fn refuse_unless(holds: bool, words: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(words()) }
}

pub fn anything(_: &str) -> Check {
    Ok(())
}

pub fn uuid(text: &str) -> Check {
    refuse_unless(is_uuid(text), || String::from("expected a valid UUID"))
}

/// With hyphens: Kong knows no other form.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::parse_str(text).is_ok()
}

pub fn name(text: &str) -> Check {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c) || !c.is_ascii();
    refuse_unless(text.chars().all(is_allowed), || {
        format!("invalid value '{text}': the only accepted ascii characters are alphanumerics or ., -, _, and ~")
    })
}

/// A comma and a slash would mean something in `?tags=`.
pub fn tag(text: &str) -> Check {
    let is_allowed = |c: char| (c == ' ' || c.is_ascii_graphic() || !c.is_ascii()) && c != ',' && c != '/';
    refuse_unless(text.chars().all(is_allowed), || {
        format!("invalid tag '{text}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences")
    })
}

fn is_hostname(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.chars().all(is_allowed) && text.split('.').all(|label| !label.is_empty() && !label.ends_with('-'))
}

/// The host and the port of `HOST[:PORT]`, where an IPv6 address with a port has brackets.
pub fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(IpAddr::V6(address)) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some((format!("[{address}]"), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let is_v6 = host.starts_with('[') && host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    (is_v6 || is_hostname(host)).then(|| (host.to_owned(), port))
}

/// A name or an address without a port.
pub fn host(text: &str) -> Check {
    match host_and_port(text) {
        Some((_, None)) => Ok(()),
        Some((_, Some(_))) => Err(String::from("must not have a port")),
        None => Err(format!("invalid value: {text}")),
    }
}

/// A host of a route: one wildcard, at an end, is allowed.
pub fn host_pattern(text: &str) -> Check {
    let is_at_an_end = text.starts_with("*.") || text.ends_with(".*") || !text.contains('*');
    refuse_unless(text.matches('*').count() <= 1, || String::from("invalid wildcard: must have at most one wildcard"))?;
    refuse_unless(is_at_an_end, || String::from("invalid wildcard: must be placed at leftmost or rightmost label"))?;
    refuse_unless(host_and_port(&text.replace('*', "abc")).is_some(), || format!("invalid hostname: {text}"))
}

fn plain_path(text: &str) -> Check {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "/._~:@!$&'()*+,;=%-".contains(c);
    refuse_unless(text.chars().all(is_allowed), || {
        format!("invalid path: '{text}' (characters outside of the reserved list of RFC 3986 found)")
    })?;
    for (at, _) in text.match_indices('%') {
        let escape: String = text[at..].chars().take(3).collect();
        let is_escape = escape.len() == 3 && escape[1..].chars().all(|c| c.is_ascii_hexdigit());
        refuse_unless(is_escape, || format!("invalid url-encoded value: '{escape}'"))?;
    }
    Ok(())
}

/// A path of a service.
pub fn path(text: &str) -> Check {
    refuse_unless(text.starts_with('/'), || String::from("should start with: /"))?;
    refuse_unless(!text.contains("//"), || String::from("must not have empty segments"))?;
    plain_path(text)
}

/// A path of a route: the beginning of paths, or a regular expression after `~`.
pub fn router_path(text: &str) -> Check {
    refuse_unless(!text.contains("//"), || String::from("must not have empty segments"))?;
    if let Some(pattern) = text.strip_prefix("~/") {
        let pattern = format!("/{pattern}");
        return Regex::new(&pattern).map(drop).map_err(|error| format!("invalid regex: '{pattern}' ({error})"));
    }
    refuse_unless(text.starts_with('/'), || String::from("should start with: / (fixed path) or ~/ (regex path)"))?;
    plain_path(text)?;
    let is_normal = !text.split('/').any(|segment| segment == "." || segment == "..");
    refuse_unless(is_normal, || String::from("non-normalized path"))
}

pub fn method(text: &str) -> Check {
    refuse_unless(text.chars().all(|c| c.is_ascii_uppercase()), || format!("invalid value: {text}"))
}

pub fn header_name(text: &str) -> Check {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    refuse_unless(text.chars().all(is_allowed), || {
        format!("bad header name '{text}', allowed characters are A-Z, a-z, 0-9, '_', and '-'")
    })
}

/// `name:value`.
pub fn pair(text: &str) -> Check {
    let is_pair = text.split_once(':').is_some_and(|(name, _)| !name.is_empty());
    refuse_unless(is_pair, || format!("invalid value: {text}"))
}

pub fn upstream_name(text: &str) -> Check {
    match host_and_port(text) {
        None => Err(String::from("Invalid name; must be a valid hostname")),
        Some((host, _)) if host.starts_with('[') || host.parse::<IpAddr>().is_ok() => {
            Err(String::from("Invalid name; no ip addresses allowed"))
        }
        Some((_, Some(_))) => Err(String::from("Invalid name; no port allowed")),
        Some((_, None)) => Ok(()),
    }
}

pub fn target(text: &str) -> Check {
    refuse_unless(host_and_port(text).is_some(), || {
        format!("Invalid target ('{text}'); not a valid hostname or ip address")
    })
}

/// A name of a certificate: one wildcard, at an end, is allowed, and `*` alone is what no other name is for.
pub fn sni_pattern(text: &str) -> Check {
    let is_at_an_end = text.find('*').is_none_or(|at| at == 0 || at + 1 == text.len());
    refuse_unless(is_at_an_end, || String::from("wildcard must be leftmost or rightmost character"))?;
    refuse_unless(text.matches('*').count() <= 1, || String::from("only one wildcard must be specified"))?;
    sni(&text.replace('*', "wildcard"))
}

/// A name that a client asks for.
pub fn sni(text: &str) -> Check {
    match host_and_port(text) {
        None => Err(format!("invalid value: {text}")),
        Some((host, _)) if host.starts_with('[') || host.parse::<IpAddr>().is_ok() => {
            Err(String::from("must not be an IP"))
        }
        Some((_, Some(_))) => Err(String::from("must not have a port")),
        Some((_, None)) => Ok(()),
    }
}

pub fn certificate(text: &str) -> Check {
    let parsed = parse_x509_pem(text.as_bytes()).is_ok_and(|(_, pem)| pem.parse_x509().is_ok());
    refuse_unless(parsed, || String::from("invalid certificate: not a certificate in PEM"))
}

pub fn key(text: &str) -> Check {
    refuse_unless(KeyPair::from_pem(text).is_ok(), || String::from("invalid key: not a key in PEM"))
}

/// Whether a key, in PEM, is the one of a certificate.
pub fn is_pair(certificate: &str, key: &str) -> bool {
    let (Ok((_, pem)), Ok(key)) = (parse_x509_pem(certificate.as_bytes()), KeyPair::from_pem(key)) else {
        return false;
    };
    pem.parse_x509().is_ok_and(|cert| cert.public_key().subject_public_key.data == key.public_key_raw())
}
