//! EventRateLimit: how many events the server, a namespace, a user, or a source about one object may
//! write.

use std::collections::HashMap;

use gantry_machinery::status::{Details, Failure};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::object;

/// Whose events are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOn {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

/// One limit: so many a second, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimit {
    pub on: LimitOn,
    pub qps: u32,
    pub burst: u32,
    /// The most keys that are remembered.
    pub keys: usize,
}

struct Bucket {
    left: f64,
    at: Timestamp,
}

/// The limits with what has been taken of them.
#[derive(Default)]
pub struct EventLimits(Vec<(EventLimit, Mutex<HashMap<String, Bucket>>)>);

impl EventLimits {
    pub fn new(limits: &[EventLimit]) -> EventLimits {
        EventLimits(limits.iter().map(|l| (*l, Mutex::default())).collect())
    }

    /// Counts an event, unless a limit is reached. All limits are counted on.
    pub fn take(
        &self,
        namespace: &str,
        user: &str,
        event: &Value,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let mut full = vec![];
        for (limit, buckets) in &self.0 {
            let key = match limit.on {
                LimitOn::Server => String::new(),
                LimitOn::Namespace => namespace.to_owned(),
                LimitOn::User => user.to_owned(),
                LimitOn::SourceAndObject => source_and_object(event),
            };
            if !one(limit, &mut buckets.lock(), &key, now) {
                full.push(format!(
                    "limit reached on type {:?} for key {key}",
                    limit.on
                ));
            }
        }
        match full.as_slice() {
            [] => Ok(()),
            [one] => Err(refusal(one)),
            many => Err(refusal(&format!("[{}]", many.join(", ")))),
        }
    }
}

fn refusal(why: &str) -> Failure {
    Failure::new(429, "TooManyRequests", why).with_details(Details::default())
}

fn source_and_object(event: &Value) -> String {
    let either = |core: &str, events: &str| match object::text(event, core) {
        "" => object::text(event, events).to_owned(),
        text => text.to_owned(),
    };
    let mut key = either("/source/component", "/deprecatedSource/component");
    key += &either("/source/host", "/deprecatedSource/host");
    for part in ["kind", "namespace", "name", "uid", "apiVersion"] {
        key += &either(
            &format!("/involvedObject/{part}"),
            &format!("/regarding/{part}"),
        );
    }
    key
}

fn one(
    limit: &EventLimit,
    buckets: &mut HashMap<String, Bucket>,
    key: &str,
    now: Timestamp,
) -> bool {
    let burst = f64::from(limit.burst);
    if !buckets.contains_key(key) && buckets.len() >= limit.keys.max(1) {
        forget(buckets, limit.keys / 2);
    }
    let bucket = buckets.entry(key.to_owned()).or_insert(Bucket {
        left: burst,
        at: now,
    });
    let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
    bucket.left = (bucket.left + passed * f64::from(limit.qps)).min(burst);
    bucket.at = now;
    let allowed = bucket.left >= 1.0;
    if allowed {
        bucket.left -= 1.0;
    }
    allowed
}

/// Keeps those that were used last.
fn forget(buckets: &mut HashMap<String, Bucket>, most: usize) {
    let mut by_age: Vec<(Timestamp, String)> =
        buckets.iter().map(|(key, b)| (b.at, key.clone())).collect();
    by_age.sort_unstable();
    let many = by_age.len().saturating_sub(most);
    for (_, key) in by_age.into_iter().take(many) {
        buckets.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_let_through_as_buckets_fill() {
        let limit = |on| EventLimit {
            on,
            qps: 2,
            burst: 3,
            keys: 4,
        };
        for (on, same, other) in [
            (LimitOn::Server, ("a", "u", "x"), None),
            (LimitOn::Namespace, ("a", "u", "x"), Some(("b", "u", "x"))),
            (LimitOn::User, ("a", "u", "x"), Some(("a", "v", "x"))),
            (
                LimitOn::SourceAndObject,
                ("a", "u", "x"),
                Some(("a", "u", "y")),
            ),
        ] {
            let limits = EventLimits::new(&[limit(on)]);
            let event = |name: &str| json!({"source": {"component": "k"}, "involvedObject": {"name": name}});
            let start = Timestamp::UNIX_EPOCH;
            let at = |(namespace, user, name): (&str, &str, &str), millis: i64| {
                let now = start + SignedDuration::from_millis(millis);
                limits.take(namespace, user, &event(name), now).is_ok()
            };
            assert_eq!(
                [(); 4].map(|()| at(same, 0)),
                [true, true, true, false],
                "{on:?}"
            );
            if let Some(other) = other {
                assert!(at(other, 0), "{on:?}");
            }
            // One in half a second.
            assert_eq!([(); 2].map(|()| at(same, 500)), [true, false], "{on:?}");
        }
    }

    #[test]
    fn keys_are_forgotten_when_there_are_many() {
        let limit = EventLimit {
            on: LimitOn::Namespace,
            qps: 1,
            burst: 1,
            keys: 10,
        };
        let limits = EventLimits::new(&[limit]);
        for i in 0..1000_i64 {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(i);
            let taken = limits.take(&format!("ns-{i}"), "u", &json!({}), now);
            assert!(taken.is_ok(), "{i}");
            assert!(limits.0[0].1.lock().len() <= 10);
        }
        let why = limits.take("ns-999", "u", &json!({}), Timestamp::UNIX_EPOCH);
        let why = why.expect_err("refused").message;
        assert_eq!(why, "limit reached on type Namespace for key ns-999");
    }
}
