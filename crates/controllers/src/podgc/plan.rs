//! The planner of pod garbage collection.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::Pod;

/// Finished pods that are kept.
pub const FINISHED_KEPT: usize = 12_500;
/// How long a node must be missing: it may just have been made again, or not be seen yet.
pub const QUARANTINE: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its node is gone.
    Orphaned,
    /// It is terminating on a node that is not ready and bears the taint out-of-service.
    OutOfService,
    /// It is terminating and was never bound to a node.
    Unscheduled,
    /// It has finished, and more recent ones fill the number that is kept.
    Finished,
}

pub struct World<'a> {
    pub pods: &'a [Arc<Pod>],
    /// Nodes that are gone for good.
    pub gone: &'a FxHashSet<Arc<str>>,
    pub out_of_service: &'a FxHashSet<Arc<str>>,
    pub finished_kept: usize,
}

/// The pods to remove, each once.
pub fn plan(world: &World<'_>) -> Vec<(Arc<Pod>, Why)> {
    let mut removed = Vec::new();
    let mut finished = Vec::new();
    for pod in world.pods {
        let why = match &pod.node {
            Some(node) if world.gone.contains(node) => Why::Orphaned,
            Some(node) if pod.terminating() && world.out_of_service.contains(node) => {
                Why::OutOfService
            }
            None if pod.terminating() => Why::Unscheduled,
            _ => {
                if pod.finished() {
                    finished.push(pod.clone());
                }
                continue;
            }
        };
        removed.push((pod.clone(), why));
    }
    let surplus = finished.len().saturating_sub(world.finished_kept);
    if surplus > 0 {
        // Evicted ones first, then the oldest.
        finished.sort_by_cached_key(|pod| {
            (
                &*pod.reason != "Evicted",
                pod.meta.created,
                pod.meta.name.clone(),
            )
        });
        finished.truncate(surplus);
        removed.extend(finished.into_iter().map(|pod| (pod, Why::Finished)));
    }
    removed
}

/// The nodes that pods name and that are not there, and since when.
#[derive(Debug, Default)]
pub struct Quarantine {
    since: FxHashMap<Arc<str>, Timestamp>,
}

impl Quarantine {
    /// Takes in which nodes are missing now; those that have been for long enough.
    pub fn look(&mut self, missing: &FxHashSet<Arc<str>>, now: Timestamp) -> Vec<Arc<str>> {
        self.since.retain(|node, _| missing.contains(node));
        for node in missing {
            self.since.entry(node.clone()).or_insert(now);
        }
        let long_enough = |since: &Timestamp| {
            Duration::try_from(now.duration_since(*since)).is_ok_and(|d| d >= QUARANTINE)
        };
        let mut ripe: Vec<Arc<str>> = self
            .since
            .iter()
            .filter(|(_, since)| long_enough(since))
            .map(|(node, _)| node.clone())
            .collect();
        ripe.sort();
        ripe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn set(names: &[&str]) -> FxHashSet<Arc<str>> {
        names.iter().map(|n| Arc::from(*n)).collect()
    }

    #[rstest]
    #[case::runs(json!({"metadata": {}, "spec": {"nodeName": "here"}}), None)]
    #[case::not_bound(json!({"metadata": {}}), None)]
    #[case::node_gone(json!({"metadata": {}, "spec": {"nodeName": "gone"}}), Some(Why::Orphaned))]
    #[case::never_bound(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Some(Why::Unscheduled))]
    #[case::leaves(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "here"}}), None)]
    #[case::cannot_leave(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "out"}}), Some(Why::OutOfService))]
    #[case::stays_on_what_is_out(json!({"metadata": {}, "spec": {"nodeName": "out"}}), None)]
    fn removes(#[case] value: Value, #[case] why: Option<Why>) {
        let pods = [pod(value)];
        let planned = plan(&World {
            pods: &pods,
            gone: &set(&["gone"]),
            out_of_service: &set(&["out"]),
            finished_kept: 0,
        });
        assert_eq!(planned.first().map(|(_, why)| *why), why);
    }

    #[test]
    fn of_the_finished_the_evicted_and_the_oldest_go() {
        let finished = |name: &str, at: u8, reason: &str| {
            pod(
                json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{at}Z")},
                "spec": {"nodeName": "here"}, "status": {"phase": "Failed", "reason": reason}}),
            )
        };
        let pods = [
            finished("new", 5, ""),
            finished("old", 1, ""),
            finished("older", 0, ""),
            finished("evicted", 9, "Evicted"),
        ];
        let names = |kept: usize| -> Vec<String> {
            plan(&World {
                pods: &pods,
                gone: &set(&[]),
                out_of_service: &set(&[]),
                finished_kept: kept,
            })
            .iter()
            .map(|(pod, _)| pod.meta.name.to_string())
            .collect()
        };
        assert_eq!(names(4), [""; 0]);
        assert_eq!(names(2), ["evicted", "older"]);
    }

    #[test]
    fn a_node_must_be_missing_for_long() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let mut quarantine = Quarantine::default();
        assert!(quarantine.look(&set(&["a"]), at(0)).is_empty());
        assert!(quarantine.look(&set(&["a", "b"]), at(39)).is_empty());
        assert_eq!(quarantine.look(&set(&["a", "b"]), at(40)), ["a".into()]);
        assert!(quarantine.look(&set(&[]), at(41)).is_empty());
        assert!(
            quarantine.look(&set(&["a"]), at(99)).is_empty(),
            "its return was seen"
        );
    }
}
