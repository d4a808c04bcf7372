//! Names and labels by Kubernetes' rules, and the name somebody may have meant.
//!
//! Used by `spec` and `inventory`. Each rule says what is wrong with a text; where the text stands its caller knows.

use crate::diagnostic::Problem;
use std::collections::BTreeMap;

/// Labels of a machine or node.
pub type Labels = BTreeMap<String, String>;

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// One part of a host name: RFC 1123, lower case, 63 characters at most.
pub fn dns_label(text: &str) -> Result<String, Problem> {
    dns(text, false).map_err(|reason| {
        Problem::new(format!("`{text}` is not a DNS label: {reason}"))
            .maybe_hint(suggested(text, |text| dns(text, false).is_ok()))
    })?;
    Ok(text.to_owned())
}

/// A host name: DNS labels joined by dots, 253 characters at most.
pub fn dns_subdomain(text: &str) -> Result<String, Problem> {
    dns(text, true).map_err(|reason| {
        Problem::new(format!("`{text}` is not a host name: {reason}"))
            .maybe_hint(suggested(text, |text| dns(text, true).is_ok()))
    })?;
    Ok(text.to_owned())
}

fn dns(text: &str, dots: bool) -> Result<(), &'static str> {
    let allowed = |byte: u8| alphanumeric(byte) || byte == b'-' || (dots && byte == b'.');
    if text.is_empty() {
        return Err("it is empty");
    }
    if !text.bytes().all(allowed) {
        return Err(match dots {
            true => "only a-z, 0-9, `-` and `.` are allowed",
            false => "only a-z, 0-9 and `-` are allowed",
        });
    }
    if text.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    for label in text.split('.') {
        if label.len() > 63 {
            return Err(if dots { "a part is longer than 63 characters" } else { "it is longer than 63 characters" });
        }
        if !label.bytes().next().is_some_and(alphanumeric) || !label.bytes().last().is_some_and(alphanumeric) {
            return Err("it must begin and end with a letter or a digit");
        }
    }
    Ok(())
}

/// The text in lower case with dashes, where that makes it right.
fn suggested(text: &str, right: impl Fn(&str) -> bool) -> Option<String> {
    let text = text.trim().to_lowercase().replace(['_', ' '], "-");
    right(&text).then(|| format!("`{text}` would do"))
}

/// A label's key: a name of 63 characters at most, after a DNS prefix and `/` if there is one.
pub fn label_key(text: &str) -> Result<(), Problem> {
    let wrong = |reason: &str| Err(Problem::new(format!("`{text}` is not a label key: {reason}")));
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) => {
            if let Err(reason) = dns(prefix, true) {
                return wrong(&format!("of the part before `/`, {reason}"));
            }
            name
        }
    };
    match qualified(name) {
        Ok(()) if name.is_empty() => wrong("it is empty"),
        Ok(()) => Ok(()),
        Err(reason) => wrong(reason),
    }
}

/// A label's value: like a key's name, but it may be empty.
pub fn label_value(text: &str) -> Result<(), Problem> {
    qualified(text).map_err(|reason| Problem::new(format!("`{text}` is not a label value: {reason}")))
}

fn qualified(text: &str) -> Result<(), &'static str> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    if text.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    if !text.bytes().all(inner) {
        return Err("only letters, digits, `-`, `_` and `.` are allowed");
    }
    if !outer(text.bytes().next()) || !outer(text.bytes().last()) {
        return Err("it must begin and end with a letter or a digit");
    }
    Ok(())
}

/// A taint: `key=value:Effect`, or `key:Effect`.
pub fn taint(text: &str) -> Result<String, Problem> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let Some((rest, effect)) = text.rsplit_once(':') else {
        return Err(Problem::new(format!("`{text}` is not a taint")).hint("write it as key=value:NoSchedule"));
    };
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    label_key(key)?;
    label_value(value)?;
    if !EFFECTS.contains(&effect) {
        return Err(Problem::new(format!("`{effect}` is not an effect of a taint")).hint(one_of(effect, &EFFECTS)));
    }
    Ok(text.to_owned())
}

/// The known name that somebody may have meant, where one is near enough.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A text that long is no misspelt name, and the distance takes time by the square of it.
    if given.len() > 64 {
        return None;
    }
    let folded = |text: &str| text.to_lowercase().replace(['_', '-', ' '], "");
    let given = folded(given);
    let near = |name: &'a str| {
        let folded = folded(name);
        let distance = strsim::osa_distance(&given, &folded);
        // `mac_address` for `mac`, `ip` for `ip_address`: half of a name, or more than a name.
        let begins = given.len().min(folded.len()) >= 2 && (given.starts_with(&folded) || folded.starts_with(&given));
        (begins || distance * 3 <= name.len().max(3)).then_some((!begins, distance, name))
    };
    known.into_iter().filter_map(near).min().map(|(.., name)| name)
}

/// The hint for a word that is none of the known ones.
pub fn one_of(given: &str, known: &[&str]) -> String {
    match did_you_mean(given, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_follow_kubernetes_rules() {
        let long = "a".repeat(64);
        for good in ["a", "rack-a", "0", &long[1..]] {
            assert!(dns_label(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &long] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "a..b", "a.-b", &format!("{0}.{0}.{0}.{0}", &long[1..])] {
            assert!(dns_subdomain(bad).is_err(), "{bad}");
        }
        for good in ["a", "A.b_c-D", "example.org/role"] {
            assert!(label_key(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "A.org/a", &long] {
            assert!(label_key(bad).is_err(), "{bad}");
        }
        assert!(label_value("").is_ok() && label_value("a b").is_err() && label_value(&long).is_err());
    }

    #[test]
    fn taints_have_a_key_and_an_effect() {
        for good in ["a:NoSchedule", "a=b:NoExecute", "example.org/a=:PreferNoSchedule"] {
            assert_eq!(taint(good).as_deref(), Ok(good));
        }
        for bad in ["", "a", ":NoSchedule", "a=b", "a=b:", "a=b:noschedule", "a=b c:NoSchedule"] {
            assert!(taint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_meant_is_guessed_only_if_it_is_near() {
        let known = ["hostname", "bmc_ip", "mac", "ip_address", "netmask"];
        let meant = |given| did_you_mean(given, known);
        assert_eq!(meant("HostName"), Some("hostname"));
        assert_eq!(meant("netmaks"), Some("netmask"));
        assert_eq!(meant("ip"), Some("ip_address"));
        assert_eq!(meant("mac_address"), Some("mac"));
        assert_eq!(meant("colour"), None);
        assert_eq!(meant(""), None);
    }
}
