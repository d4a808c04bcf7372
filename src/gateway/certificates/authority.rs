//! Who signs, and how one authority takes the place of another.
//!
//! It is replaced without a gap in three stages, each of which everybody has to have seen before the next one comes: `Introducing` (both
//! authorities are trusted, the old one still signs), `Retiring` (the new one signs, both are trusted), and none (only the new
//! one is). The stage is in the authority's Secret: whoever goes on, goes on from there.

use super::Issuer;
use crate::pki::{self, Authority, Identity, LeafRequest, PkiError};
use crate::secret::Secret;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far the replacement of an authority is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// One authority.
    Settled,
    /// The next one is trusted already.
    Introducing,
    /// The next one signs; the last one is still trusted.
    Retiring,
}

/// An authority with its successor or predecessor.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Who signs now.
    pub current: Identity,
    /// The other one that is trusted: the next one with its key, the last one without.
    pub(super) other: Option<(String, Option<Secret<String>>)>,
    /// How far a replacement is.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
    /// Leaves made before that are made anew.
    pub(super) reissue_before: Timestamp,
}

impl Kept {
    pub(super) fn new(current: Identity) -> Self {
        Self {
            current,
            other: None,
            stage: Stage::Settled,
            since: Timestamp::UNIX_EPOCH,
            reissue_before: Timestamp::UNIX_EPOCH,
        }
    }

    /// All certificates that are trusted, PEM.
    pub fn bundle(&self) -> String {
        match &self.other {
            Some((other, _)) => format!("{}{other}", self.current.cert),
            None => self.current.cert.clone(),
        }
    }

    /// Begins a replacement, if none is under way.
    pub fn introduce(&mut self, next: Identity, now: Timestamp) {
        if self.stage == Stage::Settled {
            self.other = Some((next.cert, Some(next.key)));
            (self.stage, self.since) = (Stage::Introducing, now);
        }
    }

    /// Goes to the next stage; everybody has seen the present one.
    pub fn advance(&mut self, now: Timestamp) {
        match (self.stage, self.other.take()) {
            (Stage::Introducing, Some((cert, Some(key)))) => {
                let last = std::mem::replace(&mut self.current, Identity { cert, key });
                self.other = Some((last.cert, None));
                (self.stage, self.since) = (Stage::Retiring, now);
            }
            _ => (self.stage, self.since) = (Stage::Settled, now),
        }
    }

    /// A leaf: the one that is there, or a new one where that is not good any more.
    pub(super) fn keep_leaf(
        &self,
        there: Option<&Identity>,
        same_request: bool,
        request: &LeafRequest,
    ) -> Result<Identity, PkiError> {
        let authority = Authority::of(self.current.clone());
        let young = |leaf: &Identity| {
            pki::details(&leaf.cert).is_ok_and(|details| details.validity.0 >= self.reissue_before.as_second())
        };
        match there {
            Some(leaf) if same_request && leaf.is_fresh() && authority.has_signed(leaf) && young(leaf) => {
                Ok(leaf.clone())
            }
            _ => authority.issue(request),
        }
    }
}

/// The authorities of a gateway.
#[derive(Clone, Debug, Default)]
pub struct Authorities(pub BTreeMap<Issuer, Kept>);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::gateway::certificates::DAY;
    use crate::pki::Usage;

    fn authority(name: &str) -> Identity {
        Authority::new(name).unwrap().into_identity()
    }

    fn request() -> LeafRequest {
        LeafRequest {
            common_name: String::from("leaf"),
            organizations: Vec::new(),
            dns_names: vec![String::from("leaf.example.org")],
            addresses: Vec::new(),
            usage: Usage::Server,
            lifetime: DAY,
        }
    }

    #[test]
    fn at_every_stage_old_and_new_leaves_are_trusted_by_everybody() {
        let (old, new) = (authority("old"), authority("new"));
        let mut kept = Kept::new(old.clone());
        let first = kept.keep_leaf(None, false, &request()).unwrap();
        assert_eq!(kept.bundle(), old.cert);
        kept.introduce(new.clone(), Timestamp::now());
        // Both are trusted before the new one signs anything.
        assert!(kept.bundle().contains(&old.cert) && kept.bundle().contains(&new.cert));
        assert_eq!(kept.keep_leaf(Some(&first), true, &request()).unwrap().cert, first.cert);
        kept.advance(Timestamp::now());
        assert!(kept.bundle().contains(&old.cert) && kept.bundle().contains(&new.cert));
        let second = kept.keep_leaf(Some(&first), true, &request()).unwrap();
        assert!(Authority::of(new.clone()).has_signed(&second));
        kept.advance(Timestamp::now());
        assert_eq!((kept.bundle(), kept.stage), (new.cert.clone(), Stage::Settled));
        assert_eq!(kept.keep_leaf(Some(&second), true, &request()).unwrap().cert, second.cert);
    }

    #[test]
    fn a_replacement_under_way_is_not_begun_again() {
        let mut kept = Kept::new(authority("old"));
        let next = authority("next");
        kept.introduce(next.clone(), Timestamp::now());
        kept.introduce(authority("other"), Timestamp::now());
        assert!(kept.bundle().contains(&next.cert));
    }

    #[test]
    fn a_changed_request_or_an_order_makes_a_new_leaf() {
        let mut kept = Kept::new(authority("ca"));
        let leaf = kept.keep_leaf(None, false, &request()).unwrap();
        assert_ne!(kept.keep_leaf(Some(&leaf), false, &request()).unwrap().cert, leaf.cert);
        kept.reissue_before = Timestamp::now();
        assert_ne!(kept.keep_leaf(Some(&leaf), true, &request()).unwrap().cert, leaf.cert);
    }
}
