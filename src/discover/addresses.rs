//! Addresses that may be given out: `10.0.0.20-10.0.0.60/24`.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of addresses of one network, first and last among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: Ipv4Net,
    last: Ipv4Addr,
}

/// A text that is no range.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a range of addresses ({reason}); write it as 10.0.0.20-10.0.0.60/24")]
pub struct BadRange {
    text: String,
    reason: &'static str,
}

impl FromStr for AddressRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let bad = |reason| BadRange { text: text.to_owned(), reason };
        let (range, prefix) = text.split_once('/').ok_or_else(|| bad("the prefix length is missing"))?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| bad("these are no IPv4 addresses"));
        let (first, last) = (address(first)?, address(last)?);
        let prefix = prefix.parse().ok().filter(|prefix| (1..=30).contains(prefix));
        let first = prefix.and_then(|prefix| Ipv4Net::new(first, prefix).ok());
        let first = first.ok_or_else(|| bad("a prefix length is a number from 1 to 30"))?;
        if !first.contains(&last) || last < first.addr() {
            return Err(bad("the last address has to follow the first one, in the same network"));
        }
        if first.addr() == first.network() || last == first.broadcast() {
            return Err(bad("the network's first and last addresses are no machine's"));
        }
        Ok(Self { first, last })
    }
}

impl AddressRange {
    /// The network of them all.
    pub fn network(&self) -> Ipv4Net {
        self.first.trunc()
    }

    /// Its addresses, without those that are `taken`.
    pub fn free(self, taken: Vec<Ipv4Addr>) -> impl Iterator<Item = Ipv4Net> {
        let prefix = self.first.prefix_len();
        let all = (u32::from(self.first.addr())..=u32::from(self.last)).map(Ipv4Addr::from);
        all.filter(move |address| !taken.contains(address)).map(move |address| Ipv4Net::new_assert(address, prefix))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_of_one_network() {
        let range: AddressRange = "10.0.0.20-10.0.0.23/24".parse().unwrap();
        let free: Vec<String> = range.free(vec![[10, 0, 0, 21].into()]).map(|one| one.to_string()).collect();
        assert_eq!(free, ["10.0.0.20/24", "10.0.0.22/24", "10.0.0.23/24"]);
        assert_eq!("10.0.0.7/24".parse::<AddressRange>().unwrap().free(Vec::new()).count(), 1);
        for bad in
            ["", "10.0.0.20-10.0.0.23", "10.0.0.20-10.0.1.23/24", "10.0.0.9-10.0.0.8/24", "a-b/24", "10.0.0.1/31"]
        {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
        assert!("10.0.0.0-10.0.0.9/24".parse::<AddressRange>().is_err());
        assert!("10.0.0.9-10.0.0.255/24".parse::<AddressRange>().is_err());
    }
}
