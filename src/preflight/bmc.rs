//! Check: every BMC answers, takes the password, and can do what will be asked of it. All are asked at the same time, and each
//! has its own time to answer.

use super::{Check, Finding, Name, Subject, awaits_netboot, is_begun};
use crate::event::EventKind;
use crate::hardware::PowerState;
use crate::inventory::{BmcAccess, Machine};
use crate::power::{self, BmcError, BootDevice, Clock, Examination};
use async_trait::async_trait;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// For all that one BMC is asked. A slow one needs ten seconds for each answer, and one that hangs is tried again before.
const PATIENCE: Duration = Duration::from_secs(75);
/// BMCs that are asked at the same time.
const AT_ONCE: usize = 64;
/// A BMC's clock that differs by more is wrong: its log tells of other times than ours.
const DRIFT: SignedDuration = SignedDuration::from_mins(5);
/// All time zones are multiples of this.
const ZONE: SignedDuration = SignedDuration::from_mins(15);
/// The zone that is farthest from UTC, UTC+14.
const FARTHEST: SignedDuration = SignedDuration::from_hours(14);

const OPERATOR: &str = "give it the Operator role or more";

pub struct Bmcs;

#[async_trait]
impl Check for Bmcs {
    fn name(&self) -> Name {
        Name::Bmc
    }

    async fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let machines = &subject.request.machines;
        let with_bmc: Vec<(&Machine, &BmcAccess)> =
            machines.iter().filter_map(|machine| Some((machine, machine.bmc.as_ref()?))).collect();
        let total = with_bmc.len();
        // Made before they are polled: each borrows its machine.
        let asked: Vec<_> = with_bmc.into_iter().map(|(machine, access)| ask(machine, access)).collect();
        let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        let (mut found, mut good) = (Vec::new(), 0);
        for done in 0.. {
            let (what, total) = (String::from("BMCs examined"), total as u64);
            subject.events.emit(None, EventKind::Count { what, done, total });
            let Some((machine, access, answer)) = answers.next().await else { break };
            let of_machine = match answer {
                Ok(examination) => judge(subject, machine, access, &examination, Timestamp::now()),
                Err(error) => vec![failed(subject, machine, &error)],
            };
            good += usize::from(of_machine.is_empty());
            found.extend(of_machine);
        }
        found.sort_by(|one, other| one.object.cmp(&other.object));
        let by_hand = machines.len() - total;
        if by_hand > 0 {
            found.push(Finding::skipped(format!("{by_hand} machines have no BMC and are started by hand")));
        }
        if good > 0 {
            found
                .push(Finding::passed(format!("{good} of {total} BMCs answer, and can do what will be asked of them")));
        }
        found
    }
}

/// Asks one BMC for all that it tells.
async fn ask<'a>(
    machine: &'a Machine,
    access: &'a BmcAccess,
) -> (&'a Machine, &'a BmcAccess, Result<Examination, BmcError>) {
    let examine = async { power::connect(access)?.examine().await };
    let answer = tokio::time::timeout(PATIENCE, examine).await.unwrap_or_else(|_| {
        let reason = format!("it has not told its state within {} s", PATIENCE.as_secs());
        Err(BmcError::Unreachable { bmc: access.url.clone(), reason })
    });
    (machine, access, answer)
}

/// A BMC that did not tell its state.
fn failed(subject: &Subject<'_>, machine: &Machine, error: &BmcError) -> Finding {
    let (reason, way_out) = match error {
        BmcError::Unreachable { bmc, reason } => {
            (format!("BMC {bmc} does not answer: {reason}"), "check bmc_ip and the management network")
        }
        BmcError::Unauthorized { bmc, user } => {
            (format!("BMC {bmc} refuses user `{user}`"), "check bmc_username and bmc_password")
        }
        BmcError::Forbidden { bmc, user, action } => {
            (format!("BMC {bmc}: user `{user}` lacks the privilege to {action}"), OPERATOR)
        }
        error => (error.to_string(), "see to the BMC, or leave bmc_ip empty and start the machine by hand"),
    };
    needed(subject, machine, Finding::failed(&machine.hostname, reason, way_out))
}

/// What is in the way only where the BMC has something to do yet.
fn needed(subject: &Subject<'_>, machine: &Machine, finding: Finding) -> Finding {
    match subject.planned(&machine.hostname).is_some_and(awaits_netboot) {
        true => finding,
        false => finding.no_more_than_warning(),
    }
}

/// What a BMC's answers mean.
fn judge(
    subject: &Subject<'_>,
    machine: &Machine,
    access: &BmcAccess,
    answer: &Examination,
    now: Timestamp,
) -> Vec<Finding> {
    let (name, bmc) = (&machine.hostname, &access.url);
    let mut found = Vec::new();
    if let Some(role) = answer.role.as_ref().filter(|role| !role.suffices) {
        let user = &access.username;
        let reason = format!(
            "BMC {bmc}: user `{user}` is {}, and may neither switch the power nor set the boot device",
            role.name
        );
        found.push(needed(subject, machine, Finding::failed(name, reason, OPERATOR)));
    }
    if answer.boots_from.as_ref().is_some_and(|devices| !devices.contains(&BootDevice::Pxe)) {
        let reason = format!("BMC {bmc} cannot make the machine start from the network once");
        let way_out = "switch network boot (PXE) on in the machine's firmware settings";
        found.push(needed(subject, machine, Finding::failed(name, reason, way_out)));
    }
    let untouched = subject.planned(name).is_some_and(|planned| !is_begun(planned));
    if answer.power == PowerState::On && untouched {
        let way_out =
            "it will be switched off and its disk overwritten; take it out of the inventory if that is not meant";
        found.push(Finding::warning(name, "the machine is on", way_out));
    }
    if let Some(off) = answer.clock.and_then(|clock| drift(clock, now)) {
        let amount = SignedDuration::from_mins((off.abs().as_secs() + 30) / 60);
        let way = if off.is_negative() { "behind" } else { "ahead" };
        let reason = format!("the clock of BMC {bmc} is {amount:#} {way}");
        found.push(Finding::warning(name, reason, "set it, or give the BMC an NTP server"));
    }
    found
}

/// By how much a clock is wrong, if it is; of one that may show local time, what no time zone explains.
fn drift(clock: Clock, now: Timestamp) -> Option<SignedDuration> {
    let mut off = clock.at.duration_since(now);
    if clock.maybe_local && off.abs() <= FARTHEST + DRIFT {
        let zones = (off.as_secs_f64() / ZONE.as_secs_f64()).round();
        off -= SignedDuration::from_secs((zones * ZONE.as_secs_f64()) as i64);
    }
    (off.abs() > DRIFT).then_some(off)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_no_wrong_clock() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let drifted = |seconds: i64, maybe_local| {
            let at = now + SignedDuration::from_secs(seconds);
            drift(Clock { at, maybe_local }, now).map(|off| off.as_secs())
        };
        assert_eq!((drifted(299, false), drifted(-301, false)), (None, Some(-301)));
        assert_eq!((drifted(7200, false), drifted(7200, true)), (Some(7200), None));
        assert_eq!((drifted(-5 * 3600 + 60, true), drifted(5 * 3600 + 1800 + 400, true)), (None, Some(400)));
        // Nobody lives that far east: it counts from its own start.
        assert_eq!((drifted(15 * 3600, true), drifted(-1_799_999_000, true)), (Some(15 * 3600), Some(-1_799_999_000)));
    }
}
