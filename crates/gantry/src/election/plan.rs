//! What a candidate does about the lease it has just read. No clock, no client.
//!
//! The protocol is client-go's (`tools/leaderelection`): a lease counts as held for as long as the
//! candidate has *seen* no renewal, by the candidate's own clock, so that clocks of different
//! machines need not agree.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// How long a leader leads without renewing, and how it paces itself. Defaults are those of
/// kube-controller-manager.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// After this long without a renewal others take over.
    pub lease: Duration,
    /// A leader that has not renewed for this long stops leading. Less than `lease`.
    pub renew_deadline: Duration,
    /// How often a candidate looks, and a leader renews. Less than `renew_deadline`.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The lease as it was when it last changed, and when that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

impl Seen {
    /// What is remembered after `spec` was read at `now`.
    pub fn after(before: Option<Seen>, spec: &LeaseSpec, now: Instant) -> Seen {
        match before {
            Some(seen) if seen.spec == *spec => seen,
            _ => Seen {
                spec: spec.clone(),
                at: now,
            },
        }
    }
}

/// The lease that makes `me` the leader, or keeps it so; `None` while another leads.
///
/// `now` is the candidate's own clock, `wall` what is written for people.
pub fn claim(
    me: &str,
    seen: Option<&Seen>,
    timing: Timing,
    now: Instant,
    wall: Timestamp,
) -> Option<LeaseSpec> {
    let held = seen.and_then(|s| s.spec.holder_identity.as_deref());
    let held = held.filter(|h| !h.is_empty());
    if let (Some(holder), Some(seen)) = (held, seen)
        && holder != me
    {
        // How long it is good for is what its holder wrote.
        let seconds = seen.spec.lease_duration_seconds.unwrap_or_default();
        let good_for = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        if now.duration_since(seen.at) < good_for {
            return None;
        }
    }
    let before = seen.map(|s| &s.spec);
    let mine = held == Some(me);
    let transitions = before.and_then(|b| b.lease_transitions).unwrap_or_default();
    Some(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(i32::try_from(timing.lease.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: match before.filter(|_| mine) {
            Some(before) => before.acquire_time.clone(),
            None => Some(MicroTime(wall)),
        },
        renew_time: Some(MicroTime(wall)),
        lease_transitions: Some(match before {
            Some(_) if !mine => transitions.saturating_add(1),
            _ => transitions,
        }),
        ..LeaseSpec::default()
    })
}

/// The lease that a leader leaves behind who ends in order: others need not wait.
pub fn released(held: &LeaseSpec, wall: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        acquire_time: Some(MicroTime(wall)),
        renew_time: Some(MicroTime(wall)),
        ..held.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }
    }

    /// The holder of the lease, seconds since it last changed; who holds it next, after how many
    /// changes of leader.
    #[test]
    fn who_leads() {
        let cases = [
            ("nobody has led yet", None, Some(0)),
            ("another leads", Some(("b", 14)), None),
            ("another is silent", Some(("b", 15)), Some(4)),
            ("another has released it", Some(("", 0)), Some(4)),
            ("it is mine", Some(("a", 5)), Some(3)),
            ("it is mine, though late", Some(("a", 60)), Some(3)),
        ];
        let start = Instant::now();
        let wall: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (what, held, expected) in cases {
            let seen = held.map(|(holder, _)| Seen {
                spec: spec(holder, 3),
                at: start,
            });
            let later = held.map_or(0, |(_, seconds)| seconds);
            let now = start + Duration::from_secs(later);
            let claimed = claim("a", seen.as_ref(), Timing::default(), now, wall);
            let told = claimed.as_ref().map(|c| c.lease_transitions.unwrap());
            assert_eq!(told, expected, "{what}");
            if let Some(claimed) = claimed {
                assert_eq!(claimed.holder_identity.as_deref(), Some("a"), "{what}");
                assert_eq!(claimed.renew_time, Some(MicroTime(wall)), "{what}");
                let kept = held.is_some_and(|(holder, _)| holder == "a");
                let acquired = claimed.acquire_time.unwrap().0;
                assert_eq!(acquired == Timestamp::UNIX_EPOCH, kept, "{what}");
            }
        }
    }

    #[test]
    fn only_a_change_renews_what_was_seen() {
        let start = Instant::now();
        let first = Seen::after(None, &spec("b", 1), start);
        let later = start + Duration::from_secs(9);
        let same = Seen::after(Some(first.clone()), &spec("b", 1), later);
        assert_eq!(same.at, start);
        let changed = Seen::after(Some(first), &spec("b", 2), later);
        assert_eq!(changed.at, later);
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let wall = Timestamp::UNIX_EPOCH;
        let left = released(&spec("b", 7), wall);
        let now = Instant::now();
        let seen = Seen::after(None, &left, now);
        let claimed = claim("a", Some(&seen), Timing::default(), now, wall).unwrap();
        assert_eq!(claimed.lease_transitions, Some(8));
    }
}
