//! Taints that follow from a node's conditions, and when they drive a pod away.

use jiff::{SignedDuration, Timestamp};

use super::plan::Health;
use crate::model::Pod;
use crate::model::node::{Node, Taint};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they are True.
const PRESSURE: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

pub(super) fn name(key: &str, effect: &str) -> (String, String) {
    (key.to_owned(), effect.to_owned())
}

/// Whether a taint is one of those by which conditions keep new pods away.
pub fn managed(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    taint.effect == "NoSchedule"
        && (matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE)
            || PRESSURE.iter().any(|(_, k)| *k == key))
}

/// The taints (key, effect) that keep new pods away from a node.
pub fn no_schedule(node: &Node, health: Health) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    match health {
        Health::NotReady => keys.push(NOT_READY),
        Health::Unknown => keys.push(UNREACHABLE),
        Health::Ready => {}
        // What it came with (admission taints new nodes) stays until it has told how it is.
        Health::New => keys.extend(
            [NOT_READY, UNREACHABLE]
                .into_iter()
                .filter(|k| node.spec.taints.iter().any(|t| managed(t) && t.key == *k)),
        ),
    }
    for (condition, key) in PRESSURE {
        if node
            .condition(condition)
            .is_some_and(|c| c.status == "True")
        {
            keys.push(key);
        }
    }
    if node.spec.unschedulable {
        keys.push(UNSCHEDULABLE);
    }
    keys.into_iter().map(|k| name(k, "NoSchedule")).collect()
}

/// When a pod must leave a node with these taints; `None` if it may stay.
pub fn leaves_at(pod: &Pod, taints: &[Taint]) -> Option<Timestamp> {
    let made = pod.meta.created.unwrap_or(Timestamp::MIN);
    taints
        .iter()
        .filter(|t| t.effect == "NoExecute")
        .filter_map(|taint| {
            let since = taint.time_added.unwrap_or(Timestamp::MIN).max(made);
            let toleration = pod
                .tolerations
                .iter()
                .find(|t| t.tolerates(&taint.key, &taint.value, &taint.effect));
            match toleration {
                None => Some(since),
                Some(toleration) => {
                    let seconds = toleration.toleration_seconds?.max(0);
                    Some(
                        since
                            .checked_add(SignedDuration::from_secs(seconds))
                            .unwrap_or(Timestamp::MAX),
                    )
                }
            }
        })
        .min()
}
