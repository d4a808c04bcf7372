//! What the answers mean in each DHCP mode. Pure.

use super::super::Finding;
use super::{Client, Offer};
use crate::spec::DhcpMode;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

const SWITCH_OFF: &str = "switch it off for this segment, give the machines a segment of their own, or leave addresses to it: \
                          spec.provisioning.dhcp.mode `proxy`";
const SERVER_WANTED: &str = "start the DHCP server of this segment, or let metalgate give the addresses: \
                             spec.provisioning.dhcp.mode `reservation`";
const POINT_AT_US: &str = "let it name us as the next server, with the boot file `ipxe/undionly.kpxe` (BIOS) or \
                           `ipxe/amd64/snponly.efi` (UEFI)";

/// What was asked, and in which surroundings.
pub struct Network<'a> {
    /// Who is to give addresses.
    pub mode: DhcpMode,
    /// Our address.
    pub us: Option<Ipv4Addr>,
    /// Who was asked for; the first is this machine.
    pub clients: &'a [Client],
    /// For how long answers were awaited.
    pub listened: Duration,
}

/// What to tell the user.
pub fn judge(network: &Network<'_>, offers: &[Offer]) -> Vec<Finding> {
    let mut found = Vec::new();
    let gives_addresses = |offer: &&Offer| offer.address.is_some();
    match network.mode {
        DhcpMode::Reservation => {
            found.extend(rivals(network, offers.iter().filter(gives_addresses), "offers addresses"));
            // One that does both is told of once.
            let givers: BTreeSet<Ipv4Addr> = offers.iter().filter(gives_addresses).map(|one| one.server).collect();
            let proxies = offers.iter().filter(|one| one.address.is_none() && !givers.contains(&one.server));
            found.extend(rivals(network, proxies, "tells what to boot (a proxy DHCP server)"));
        }
        DhcpMode::Proxy => {
            found.extend(unanswered(network, offers));
            let proxies = offers.iter().filter(|one| one.address.is_none());
            found.extend(rivals(network, proxies, "tells what to boot (another proxy DHCP server)"));
            found.extend(distractions(network, offers));
        }
        DhcpMode::External => {
            found.extend(unanswered(network, offers));
            found.extend(astray(network, offers));
        }
    }
    // Where nothing boots from the network any more, nobody can be in its way.
    if network.clients.len() == 1 {
        found = found.into_iter().map(Finding::no_more_than_warning).collect();
    }
    if found.is_empty() {
        let servers: BTreeSet<String> = offers.iter().map(|offer| offer.server.to_string()).collect();
        let (seconds, servers) = (network.listened.as_secs(), Vec::from_iter(servers).join(", "));
        found.push(Finding::passed(match network.mode {
            DhcpMode::Reservation => format!("no other DHCP server answered within {seconds} s"),
            DhcpMode::Proxy => format!("addresses are given by {servers}"),
            DhcpMode::External => format!("addresses and the way to us are given by {servers}"),
        }));
    }
    found
}

/// Whom a client is, in a sentence.
fn whom(client: &Client) -> String {
    client.machine.clone().unwrap_or_else(|| String::from("anybody"))
}

/// Servers that should not answer, each once, with whom they answer.
fn rivals<'a>(network: &Network<'_>, offers: impl Iterator<Item = &'a Offer>, what: &str) -> Vec<Finding> {
    let mut servers: BTreeMap<Ipv4Addr, (&Offer, BTreeSet<usize>)> = BTreeMap::new();
    for offer in offers {
        servers.entry(offer.server).or_insert((offer, BTreeSet::new())).1.insert(offer.client);
    }
    let tell = |(server, (offer, clients)): (Ipv4Addr, (&Offer, BTreeSet<usize>))| {
        let clients: Vec<String> = clients.into_iter().map(|client| whom(&network.clients[client])).collect();
        let example = offer.address.map(|address| format!(", such as {address}")).unwrap_or_default();
        let reason = format!("a DHCP server ({}) {what}{example}, to {}", offer.mac, clients.join(", "));
        Finding::failed(server.to_string(), reason, SWITCH_OFF)
    };
    servers.into_iter().map(tell).collect()
}

/// Machines that nobody offers an address, where another server is to.
fn unanswered(network: &Network<'_>, offers: &[Offer]) -> Vec<Finding> {
    let answered: BTreeSet<usize> =
        offers.iter().filter(|offer| offer.address.is_some()).map(|offer| offer.client).collect();
    let seconds = network.listened.as_secs();
    if answered.is_empty() {
        let reason = format!("mode `{}` needs a DHCP server, and none answered within {seconds} s", name(network.mode));
        return vec![Finding::failed("DHCP server", reason, SERVER_WANTED)];
    }
    let machines = network.clients.iter().enumerate().skip(1).filter(|(index, _)| !answered.contains(index));
    let tell = |(_, client): (usize, &Client)| {
        let reason = format!("no DHCP server offered an address to {} within {seconds} s", client.mac);
        Finding::warning(
            whom(client),
            reason,
            "give its MAC address a reservation there, or free addresses in the pool",
        )
    };
    machines.map(tell).collect()
}

/// Address servers that tell what to boot, too, where we do that: firmware believes one or the other.
fn distractions(network: &Network<'_>, offers: &[Offer]) -> Vec<Finding> {
    let others = |offer: &&Offer| offer.address.is_some() && !leads_to(offer, network.us);
    // dnsmasq and others name themselves as the next server without a file: no client follows that.
    let servers: BTreeMap<Ipv4Addr, &Offer> =
        offers.iter().filter(others).filter(|offer| offer.boot.len() > 1).map(|offer| (offer.server, offer)).collect();
    let tell = |(server, offer): (Ipv4Addr, &Offer)| {
        let reason = format!("it tells what to boot as well: {}", offer.boot.join(", "));
        Finding::warning(server.to_string(), reason, "take next server and boot file out of its configuration")
    };
    servers.into_iter().map(tell).collect()
}

/// Whether next server or boot file of an offer name this address.
fn leads_to(offer: &Offer, us: Option<Ipv4Addr>) -> bool {
    let addresses = offer.boot.iter().flat_map(|boot| boot.split(|c: char| !c.is_ascii_digit() && c != '.'));
    addresses.filter_map(|text| text.parse().ok()).any(|address: Ipv4Addr| Some(address) == us)
}

/// Machines that get an address and no way to us, where the other server is to tell that.
fn astray(network: &Network<'_>, offers: &[Offer]) -> Vec<Finding> {
    let Some(us) = network.us else { return Vec::new() };
    let leads_to_us =
        |client: usize| offers.iter().filter(|offer| offer.client == client).any(|offer| leads_to(offer, network.us));
    let machines = network.clients.iter().enumerate().skip(1).filter_map(|(index, client)| {
        let offer = offers.iter().find(|offer| offer.client == index && offer.address.is_some())?;
        (!leads_to_us(index)).then_some((client, offer))
    });
    let tell = |(client, offer): (&Client, &Offer)| {
        let boot = if offer.boot.is_empty() { String::from("nothing to boot") } else { offer.boot.join(", ") };
        let reason = format!("DHCP server {} leads it to {boot}, and not to {us}", offer.server);
        Finding::warning(whom(client), reason, POINT_AT_US)
    };
    machines.map(tell).collect()
}

fn name(mode: DhcpMode) -> &'static str {
    match mode {
        DhcpMode::Reservation => "reservation",
        DhcpMode::Proxy => "proxy",
        DhcpMode::External => "external",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Verdict;
    use super::*;
    use crate::hardware::MacAddr;
    use pretty_assertions::assert_eq;

    fn clients(machines: u8) -> Vec<Client> {
        let of = |number: u8| Client {
            machine: (number > 0).then(|| format!("node-{number}")),
            mac: MacAddr([2, 0, 0, 0, 0, number]),
            arch: 7,
        };
        (0..=machines).map(of).collect()
    }

    fn offer(client: usize, server: u8, address: Option<u8>, boot: &[&str]) -> Offer {
        Offer {
            client,
            server: [10, 0, 0, server].into(),
            mac: MacAddr([2, 0, 0, 0, 1, server]),
            address: address.map(|last| [10, 0, 0, last].into()),
            boot: boot.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    /// Verdict, object and reason of each finding.
    fn judged(mode: DhcpMode, machines: u8, offers: &[Offer]) -> Vec<(Verdict, String, String)> {
        let us = Some([10, 0, 0, 1].into());
        let network = Network { mode, us, clients: &clients(machines), listened: Duration::from_secs(6) };
        let flat = |one: Finding| (one.verdict, one.object.unwrap_or_default(), one.reason);
        judge(&network, offers).into_iter().map(flat).collect()
    }

    fn line(verdict: Verdict, object: &str, reason: &str) -> (Verdict, String, String) {
        (verdict, object.to_owned(), reason.to_owned())
    }

    #[test]
    fn where_we_give_addresses_every_other_server_is_in_the_way() {
        use DhcpMode::Reservation;
        let none = line(Verdict::Passed, "", "no other DHCP server answered within 6 s");
        assert_eq!(judged(Reservation, 1, &[]), [none]);
        let offers = [offer(0, 9, Some(50), &[]), offer(1, 9, Some(51), &[]), offer(1, 8, None, &["10.0.0.8"])];
        let wanted = [
            ("10.0.0.9", "a DHCP server (02:00:00:00:01:09) offers addresses, such as 10.0.0.50, to anybody, node-1"),
            ("10.0.0.8", "a DHCP server (02:00:00:00:01:08) tells what to boot (a proxy DHCP server), to node-1"),
        ];
        assert_eq!(
            judged(Reservation, 1, &offers),
            wanted.map(|(object, reason)| line(Verdict::Failed, object, reason))
        );
        // Every machine is installed: it can wait.
        assert_eq!(judged(Reservation, 0, &offers[..1])[0].0, Verdict::Warning);
    }

    #[test]
    fn where_another_gives_addresses_it_has_to_be_there() {
        for mode in [DhcpMode::Proxy, DhcpMode::External] {
            let found = judged(mode, 1, &[]);
            assert_eq!((found.len(), found[0].0), (1, Verdict::Failed));
            assert!(found[0].2.ends_with("needs a DHCP server, and none answered within 6 s"), "{found:?}");
        }
        let offers = [offer(1, 9, Some(51), &["10.0.0.1"])];
        let found = judged(DhcpMode::External, 2, &offers);
        let wanted = "no DHCP server offered an address to 02:00:00:00:00:02 within 6 s";
        assert_eq!(found, [line(Verdict::Warning, "node-2", wanted)]);
    }

    #[test]
    fn who_tells_what_to_boot_has_to_be_the_one_who_is_to() {
        let next_server_only = [offer(0, 9, Some(50), &[]), offer(1, 9, Some(51), &["10.0.0.9"])];
        let found = judged(DhcpMode::Proxy, 1, &next_server_only);
        assert_eq!(found, [line(Verdict::Passed, "", "addresses are given by 10.0.0.9")]);
        let found = judged(DhcpMode::External, 1, &next_server_only);
        let wanted = "DHCP server 10.0.0.9 leads it to 10.0.0.9, and not to 10.0.0.1";
        assert_eq!(found, [line(Verdict::Warning, "node-1", wanted)]);
        let file = [offer(1, 9, Some(51), &["10.0.0.9", "pxelinux.0"])];
        assert_eq!(judged(DhcpMode::Proxy, 1, &file)[0].2, "it tells what to boot as well: 10.0.0.9, pxelinux.0");
        let http = [offer(1, 9, Some(51), &["http://10.0.0.1:8080/ipxe/amd64/snponly.efi"])];
        assert_eq!(judged(DhcpMode::External, 1, &http)[0].0, Verdict::Passed);
        let proxy = [offer(1, 9, Some(51), &[]), offer(1, 8, None, &["10.0.0.8"])];
        assert_eq!(judged(DhcpMode::Proxy, 1, &proxy)[0].0, Verdict::Failed);
    }
}
