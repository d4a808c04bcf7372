//! What the boot script told the agent, from the kernel command line.

use super::protocol::{Task, cmdline};
use crate::hardware::MacAddr;
use crate::secret::Secret;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use url::Url;

/// The agent's words of the kernel command line.
#[derive(Debug)]
pub struct Arguments {
    /// Where the installer's API is; always https.
    pub url: Url,
    /// SHA-256 of the certificate that the API must show.
    pub certificate: [u8; 32],
    /// One-time token.
    pub token: Secret<String>,
    /// Interface that the machine booted from.
    pub mac: MacAddr,
    /// Address to use while installing.
    pub address: Ipv4Net,
    /// Default route, where there is one.
    pub gateway: Option<Ipv4Addr>,
    /// What the machine was started for.
    pub task: Task,
}

/// A kernel command line that the agent cannot work with.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// A word that must be there.
    #[error("the kernel command line has no `{0}=`: this machine was not started by the installer's boot script")]
    Missing(&'static str),
    /// A word whose value means nothing.
    #[error("`{word}` on the kernel command line is not {expected}")]
    Value {
        /// The word.
        word: &'static str,
        /// What would be right.
        expected: &'static str,
    },
}

impl Arguments {
    /// Reads the agent's words; those of the kernel and of others are passed over. Of a word given twice the last counts,
    /// as for the kernel.
    pub fn parse(line: &str) -> Result<Self, ArgumentError> {
        let optional = |name: &'static str| {
            let value = |word: &'_ str| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            line.split_whitespace().filter_map(value).next_back()
        };
        let word = |name| optional(name).ok_or(ArgumentError::Missing(name));
        let bad = |word, expected| ArgumentError::Value { word, expected };

        let url = word(cmdline::URL)?;
        let url = Url::parse(&url).ok().filter(|url| url.scheme() == "https" && url.has_host());
        let mut certificate = [0; 32];
        hex::decode_to_slice(word(cmdline::CERT)?, &mut certificate)
            .map_err(|_| bad(cmdline::CERT, "a SHA-256 sum in hexadecimal"))?;
        let gateway = optional(cmdline::GATEWAY).filter(|gateway| !gateway.is_empty());
        let task = match optional(cmdline::TASK).as_deref() {
            None => Task::Install,
            Some(Task::INVENTORY) => Task::Inventory,
            Some(_) => return Err(bad(cmdline::TASK, "a task that this agent knows (inventory)")),
        };
        Ok(Self {
            url: url.ok_or_else(|| bad(cmdline::URL, "an https:// URL"))?,
            certificate,
            token: Secret::new(word(cmdline::TOKEN)?),
            mac: word(cmdline::MAC)?.parse().map_err(|_| bad(cmdline::MAC, "a MAC address"))?,
            address: word(cmdline::IP)?.parse().map_err(|_| bad(cmdline::IP, "an address with prefix length"))?,
            gateway: gateway
                .map(|gateway| gateway.parse().map_err(|_| bad(cmdline::GATEWAY, "an IPv4 address")))
                .transpose()?,
            task,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> String {
        format!(
            "BOOT_IMAGE=vmlinuz console=ttyS0 metalgate.url=https://10.0.0.1:8443 metalgate.cert={} \
             metalgate.token=abc metalgate.mac=52:54:00:aa:00:01 metalgate.ip=10.0.0.5/24 metalgate.gateway=10.0.0.1 quiet\n",
            "ab".repeat(32)
        )
    }

    #[test]
    fn reads_its_words_between_those_of_the_kernel() {
        let arguments = Arguments::parse(&line()).unwrap();
        assert_eq!(arguments.url.as_str(), "https://10.0.0.1:8443/");
        assert_eq!(arguments.certificate, [0xab; 32]);
        assert_eq!(arguments.address.to_string(), "10.0.0.5/24");
        assert_eq!(arguments.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        let without = Arguments::parse(&line().replace("metalgate.gateway=10.0.0.1", "metalgate.gateway=")).unwrap();
        assert_eq!((without.gateway, without.task), (None, Task::Install));
        let inventory = Arguments::parse(&line().replace("quiet", "metalgate.task=inventory")).unwrap();
        assert_eq!(inventory.task, Task::Inventory);
    }

    #[test]
    fn names_the_word_that_is_missing_or_wrong() {
        let error = |from: &str, to: &str| Arguments::parse(&line().replace(from, to)).unwrap_err().to_string();
        assert!(error("metalgate.token=abc", "").contains("`metalgate.token=`"));
        assert!(error("https://", "http://").contains("`metalgate.url`"));
        assert!(error("abab", "zz").contains("`metalgate.cert`"));
        assert!(error("10.0.0.5/24", "10.0.0.5").contains("`metalgate.ip`"));
        assert!(error("52:54", "52").contains("`metalgate.mac`"));
        assert!(error("gateway=10.0.0.1", "gateway=here").contains("`metalgate.gateway`"));
        assert!(error("quiet", "metalgate.task=wipe").contains("`metalgate.task`"));
    }
}
