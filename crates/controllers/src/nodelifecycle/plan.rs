//! The planner of a node's health, and of how fast unhealthy nodes may be emptied.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::{Timing, taints};
use crate::model::node::{Lease, Node, Taint};

/// The conditions that a kubelet tells.
const TOLD: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Time between two nodes of a zone that are emptied; in a large zone in trouble.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_IN_TROUBLE: Duration = Duration::from_secs(100);
const LARGE: usize = 50;

/// When a node was last heard of, by the clock of this controller: clocks of nodes may differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    renewed: Option<Timestamp>,
    beat: Option<Timestamp>,
    pub at: Timestamp,
}

impl Heard {
    pub fn first(node: &Node, lease: Option<&Lease>, now: Timestamp) -> Self {
        Heard {
            renewed: lease.and_then(|l| l.spec.renew_time),
            beat: beat(node),
            at: now,
        }
    }

    /// Takes in the node and its lease as they are now.
    pub fn look(&mut self, node: &Node, lease: Option<&Lease>, now: Timestamp) {
        // A lease that is gone is no sign of life.
        let renewed = lease.and_then(|l| l.spec.renew_time).or(self.renewed);
        if renewed != self.renewed || beat(node) != self.beat {
            *self = Heard {
                renewed,
                beat: beat(node),
                at: now,
            };
        }
    }
}

fn beat(node: &Node) -> Option<Timestamp> {
    node.condition("Ready")?.last_heartbeat_time
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ready,
    NotReady,
    Unknown,
    /// It has not told yet.
    New,
}

/// How a node is: what it told last, unless it has been silent for too long.
pub fn health(node: &Node, heard: Timestamp, timing: Timing, now: Timestamp) -> Health {
    let silent = Duration::try_from(now.duration_since(heard)).unwrap_or_default();
    let told = node.condition("Ready");
    let grace = match told {
        Some(_) => timing.grace,
        None => timing.startup_grace,
    };
    if silent > grace {
        return Health::Unknown;
    }
    match told.map(|c| c.status.as_str()) {
        Some("True") => Health::Ready,
        Some("False") => Health::NotReady,
        Some(_) => Health::Unknown,
        None => Health::New,
    }
}

/// The conditions to write of a node that is unknown: those that do not say so yet.
pub fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<Value> {
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    TOLD.into_iter()
        .filter_map(|kind| match node.condition(kind) {
            Some(condition) if condition.status == "Unknown" => None,
            Some(_) => Some(
                json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.", "lastTransitionTime": at}),
            ),
            None => Some(
                json!({"type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastTransitionTime": at,
                "lastHeartbeatTime": node.metadata.created}),
            ),
        })
        .collect()
}

/// How the nodes of one zone are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    pub ready: usize,
    pub unready: usize,
}

/// Label of nodes that do not count when their zone is weighed, whatever its value.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// Weighs zones by their nodes. A zone of which no node counts is not among them.
pub fn zones<'a>(
    nodes: impl Iterator<Item = (&'a Node, Health, &'a str)>,
) -> BTreeMap<&'a str, Zone> {
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
    for (node, health, zone) in nodes {
        if node.metadata.labels.get(EXCLUDED).is_some() {
            continue;
        }
        let zone = zones.entry(zone).or_default();
        match health {
            Health::Ready => zone.ready += 1,
            _ => zone.unready += 1,
        }
    }
    zones
}

/// What may be done to the pods of unhealthy nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// One node each so often.
    Every(Duration),
    /// No further node.
    Stop,
    /// No node, and those that were to be emptied are not to be: all nodes of all zones are
    /// unhealthy, so the trouble is likelier to be the network of this controller.
    Retract,
}

impl Pace {
    /// That of a zone that is well, or of which no node counts.
    pub const USUAL: Pace = Pace::Every(INTERVAL);
}

/// The pace of each zone.
pub fn paces(zones: &[Zone]) -> Vec<Pace> {
    let down = |zone: &Zone| zone.ready == 0 && zone.unready > 0;
    if !zones.is_empty() && zones.iter().all(down) {
        return vec![Pace::Retract; zones.len()];
    }
    zones
        .iter()
        .map(|zone| {
            let size = zone.ready + zone.unready;
            let partial = !down(zone) && zone.unready > 2 && zone.unready * 100 >= size * 55;
            match (partial, size > LARGE) {
                (false, _) => Pace::USUAL,
                (true, true) => Pace::Every(INTERVAL_IN_TROUBLE),
                (true, false) => Pace::Stop,
            }
        })
        .collect()
}

/// When a node of each zone was last set to be emptied.
#[derive(Debug, Default)]
pub struct Limits {
    last: FxHashMap<String, Timestamp>,
}

impl Limits {
    /// Whether a further node of `zone` may be set to be emptied now; if so, that is noted.
    pub fn take(&mut self, zone: &str, pace: Pace, now: Timestamp) -> bool {
        let Pace::Every(interval) = pace else {
            return false;
        };
        let free = self.last.get(zone).is_none_or(|last| {
            Duration::try_from(now.duration_since(*last)).is_ok_and(|d| d >= interval)
        });
        if free {
            self.last.insert(zone.to_owned(), now);
        }
        free
    }
}

/// The taints that a node should have, if they are not those that it has. `take` is asked before a
/// NoExecute taint comes where none of this controller was.
pub fn wanted_taints(
    node: &Node,
    health: Health,
    pace: Pace,
    take: impl FnOnce() -> bool,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let old = &node.spec.taints;
    let mut wanted = taints::no_schedule(node, health);
    let reach = match health {
        Health::Unknown => Some(taints::UNREACHABLE),
        Health::NotReady => Some(taints::NOT_READY),
        Health::Ready | Health::New => None,
    };
    let own = |t: &Taint| {
        t.effect == "NoExecute" && (t.key == taints::UNREACHABLE || t.key == taints::NOT_READY)
    };
    if health == Health::New {
        wanted.extend(
            old.iter()
                .filter(|t| own(t))
                .map(|t| taints::name(&t.key, &t.effect)),
        );
    } else if let Some(key) = reach
        && pace != Pace::Retract
        && (old.iter().any(own) || take())
    {
        wanted.push((key.to_owned(), "NoExecute".to_owned()));
    }
    let is = |t: &Taint, w: &(String, String)| t.key == w.0 && t.effect == w.1;
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|t| !(own(t) || taints::managed(t)) || wanted.iter().any(|w| is(t, w)))
        .cloned()
        .collect();
    for want in &wanted {
        if !old.iter().any(|t| is(t, want)) {
            new.push(Taint {
                key: want.0.clone(),
                effect: want.1.clone(),
                time_added: Timestamp::from_second(now.as_second()).ok(),
                ..Taint::default()
            });
        }
    }
    (new != *old).then_some(new)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
