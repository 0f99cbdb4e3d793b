//! Notifications: who is told of a record, in which form, signed how, and what may be reached.
//!
//! Pure. The shell keeps the queues and sends.

pub mod form;
pub mod guard;
mod sign;

use std::time::Duration;

use gantry_api::{Notification, NotificationSpec, labels, notification::EventFilter};
use gantry_records::{Object, Outcome, Record, Verb, Who};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// Whether a Notification of `namespace` tells of `record`.
pub fn wants(namespace: &str, spec: &NotificationSpec, record: &Record) -> bool {
    let object = &record.object;
    let in_sight = namespace == labels::SYSTEM_NAMESPACE || namespace == object.namespace;
    in_sight
        && !spec.paused
        && (spec.events.is_empty() || spec.events.iter().any(|e| fits(e, record)))
}

fn fits(filter: &EventFilter, record: &Record) -> bool {
    let object = &record.object;
    let among = |list: &[String], word: &str| list.is_empty() || list.iter().any(|w| w == word);
    let about = if object.group.is_empty() && object.kind == "Group" {
        &object.name
    } else {
        &object.group
    };
    among(&filter.kinds, &object.kind)
        && among(&filter.verbs, record.verb.as_str())
        && among(&filter.outcomes, record.outcome.as_str())
        && among(&filter.groups, about)
}

/// The id of what is told: a run is told of twice, when it begins and when it has ended.
pub fn event_id(record: &Record) -> String {
    if record.outcome == Outcome::Running {
        format!("{}-begin", record.id)
    } else {
        record.id.clone()
    }
}

/// Annotation of a Notification: when a test was asked for, RFC 3339. Another value asks again.
pub const TEST: &str = "gantry.dev/test";

/// A wish for a test that is older was made of another hub, or is long forgotten.
const TEST_FRESH: SignedDuration = SignedDuration::from_secs(60);

/// The event that a test sends, where it was asked for just now.
pub fn test(notification: &Notification, asked: &str, now: Timestamp) -> Option<Record> {
    let at: Timestamp = asked.parse().ok()?;
    if now.duration_since(at).abs() > TEST_FRESH {
        return None;
    }
    let (namespace, name) = (
        notification.namespace().unwrap_or_default(),
        notification.name_any(),
    );
    let by = notification.annotations().get(labels::CHANGED_BY);
    Some(Record {
        id: format!("test-{namespace}-{name}-{}", at.as_millisecond()),
        at,
        who: Who {
            user: by.cloned().unwrap_or_default(),
            ..Who::default()
        },
        verb: Verb::Change,
        object: Object {
            kind: "Notification".to_owned(),
            namespace,
            name,
            uid: notification.uid().unwrap_or_default(),
            group: String::new(),
        },
        why: "a test".to_owned(),
        before: None,
        after: None,
        outcome: Outcome::Done,
        message: "this is a test: nothing has happened".to_owned(),
        started: None,
        finished: None,
    })
}

/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(600);

/// How long to wait after the `tries`th try has failed: doubling from a second; `spread`, from 0 to 1, moves it
/// between half of that and all of it, so that not all come back at once.
pub fn pause(tries: u32, spread: f64) -> Duration {
    let most = Duration::from_secs(1).saturating_mul(1 << tries.saturating_sub(1).min(10));
    most.min(LONGEST)
        .mul_f64(0.5 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests;
