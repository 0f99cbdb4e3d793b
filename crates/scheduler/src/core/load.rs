//! Real usage beside requests: what nodes were measured to use, what is estimated of pods that no measurement shows
//! yet, nodes too hot for more, and a score that prefers the cooler ones. Off unless a profile (or a placement policy)
//! asks for it.
//!
//! A measurement of a node shows the pods that had started before its window began. Every other pod of the node counts
//! by an estimate: a share of its requests. A measurement older than it may be is ignored: the node then counts by the
//! estimates of all its pods, and no threshold keeps pods from it. The rules and defaults are those of Koordinator's
//! LoadAwareScheduling, whose arguments are read as they are.

use super::cluster::{Cluster, Event};
use super::nodes::{NodeId, Nodes};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The resources that are measured: CPU in millicores, memory in bytes.
pub const MEASURED: [&str; 2] = ["cpu", "memory"];

/// Where measurements come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Source {
    /// `metrics.k8s.io`, asked again and again.
    #[default]
    MetricsApi,
    /// NodeMetric objects of `slo.koordinator.sh`, watched.
    NodeMetric,
}

/// How a profile looks at usage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadArgs {
    /// Per cent of what a node has, of CPU and memory, up to which it takes pods; `None` sets no bound.
    pub thresholds: [Option<i64>; 2],
    /// How much each resource weighs in the score.
    pub weights: [i64; 2],
    /// What a pod is estimated to use, in per cent of its request.
    pub factors: [i64; 2],
    /// Age in seconds from which a measurement is ignored.
    pub expiry: i64,
    pub source: Source,
}

impl Default for LoadArgs {
    fn default() -> Self {
        Self {
            thresholds: [Some(65), Some(95)],
            weights: [1, 1],
            factors: [85, 70],
            expiry: 180,
            source: Source::default(),
        }
    }
}

/// Bounds of usage for the pods of one placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub thresholds: [Option<i64>; 2],
    pub factors: [i64; 2],
}

/// What is known of a node's usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// As it was measured last.
    pub measured: [i64; 2],
    /// When, in seconds since 1970.
    pub at: i64,
    /// Requests, as scores count them, of the pods that the measurement does not show.
    pub unseen: [i64; 2],
    /// Pods started after this second are not shown.
    pub horizon: i64,
    /// The measurement is young enough to count.
    pub fresh: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            measured: [0; 2],
            at: i64::MIN,
            unseen: [0; 2],
            horizon: i64::MIN,
            fresh: false,
        }
    }
}

impl Load {
    fn count(&mut self, assumed: [i64; 2], started: i64, sign: i64) {
        if started > self.horizon {
            for (slot, amount) in self.unseen.iter_mut().zip(assumed) {
                *slot += sign * amount;
            }
        }
    }
}

pub(super) fn share(amount: i64, percent: i64) -> i64 {
    amount.saturating_mul(percent) / 100
}

/// All nodes' loads.
#[derive(Default)]
pub struct Loads {
    /// By node; empty while nobody asks.
    pub all: Vec<Load>,
    /// Whether usage is looked at at all.
    pub on: bool,
    /// Age in seconds from which a measurement is ignored.
    pub expiry: i64,
    /// When which measurement becomes too old.
    expiries: BTreeSet<(i64, u32)>,
    /// The latest second that was told.
    now: i64,
}

impl Nodes {
    /// The slot is another node's from now on: nothing was measured of that one.
    pub(super) fn forget_load(&mut self, id: NodeId) {
        let loads = &mut self.loads;
        if let Some(load) = loads.all.get_mut(id.0 as usize) {
            loads
                .expiries
                .remove(&(load.at.saturating_add(loads.expiry), id.0));
            *load = Load::default();
        }
    }

    /// A pod came to the node (`sign` 1) or left it (-1).
    pub(super) fn count_load(&mut self, id: NodeId, assumed: [i64; 2], started: i64, sign: i64) {
        if self.loads.on {
            let at = id.0 as usize;
            if self.loads.all.len() <= at {
                self.loads.all.resize(at + 1, Load::default());
            }
            self.loads.all[at].count(assumed, started, sign);
        }
    }
}

impl Cluster {
    /// Looks at usage from now on, if it did not already: the pods that are there count by their estimates until
    /// measurements come.
    pub fn watch_load(&mut self, expiry: i64) {
        if self.nodes.loads.on {
            return;
        }
        self.nodes.loads.on = true;
        self.nodes.loads.expiry = expiry;
        for placed in self.pods.values() {
            let assumed = self.classes[placed.class.0 as usize].request.shape.assumed;
            self.nodes
                .count_load(placed.node, assumed, placed.started, 1);
        }
    }

    /// A node was measured at `at` over the `window` seconds before. Older news than is known are not taken. Returns
    /// whether the measurement counts.
    pub fn measure(&mut self, node: &str, usage: [i64; 2], at: i64, window: i64) -> bool {
        let known = self.compiler.symbols.known(node);
        let Some(id) = known.and_then(|name| self.nodes.find(name)) else {
            return false;
        };
        let index = id.0 as usize;
        if !self.nodes.loads.on || self.nodes.loads.all.get(index).is_some_and(|l| l.at >= at) {
            return false;
        }
        let horizon = at.saturating_sub(window);
        let mut unseen = [0; 2];
        for uid in self.on_node.get(index).into_iter().flatten() {
            if let Some(placed) = self.pods.get(uid).filter(|p| p.started > horizon) {
                let assumed = self.classes[placed.class.0 as usize].request.shape.assumed;
                unseen[0] += assumed[0];
                unseen[1] += assumed[1];
            }
        }
        let loads = &mut self.nodes.loads;
        if loads.all.len() <= index {
            loads.all.resize(index + 1, Load::default());
        }
        let load = &mut loads.all[index];
        loads
            .expiries
            .remove(&(load.at.saturating_add(loads.expiry), id.0));
        let until = at.saturating_add(loads.expiry);
        *load = Load {
            measured: usage,
            at,
            unseen,
            horizon,
            fresh: until > loads.now,
        };
        let fresh = load.fresh;
        if fresh {
            loads.expiries.insert((until, id.0));
        }
        self.events.push(Event::Measured);
        self.touch(id.0);
        fresh
    }

    /// It is this second (since 1970). Returns the nodes whose measurement became too old.
    pub fn pass_time(&mut self, now: i64) -> Vec<NodeId> {
        let loads = &mut self.nodes.loads;
        loads.now = now;
        let mut stale = Vec::new();
        while let Some((until, node)) = loads.expiries.first().copied().filter(|(at, _)| *at <= now)
        {
            loads.expiries.remove(&(until, node));
            if let Some(load) = loads.all.get_mut(node as usize) {
                load.fresh = false;
                stale.push(NodeId(node));
            }
        }
        for node in &stale {
            // Ignored from now on, it keeps nobody away.
            self.touch(node.0);
            self.events.push(Event::Measured);
        }
        stale
    }

    /// When a measurement will be too old next, in seconds since 1970.
    #[must_use]
    pub fn next_stale(&self) -> Option<i64> {
        self.nodes.loads.expiries.first().map(|(at, _)| *at)
    }

    /// How many known nodes count by a measurement.
    #[must_use]
    pub fn measured_nodes(&self) -> usize {
        self.nodes.loads.expiries.len()
    }

    /// Notes when a placed pod started.
    pub(super) fn set_started(&mut self, uid: &str, started: i64) {
        let Some(placed) = self.pods.get_mut(uid) else {
            return;
        };
        let before = std::mem::replace(&mut placed.started, started);
        if self.nodes.loads.on && before != started {
            let (class, node) = (placed.class, placed.node);
            let assumed = self.classes[class.0 as usize].request.shape.assumed;
            self.nodes.count_load(node, assumed, before, -1);
            self.nodes.count_load(node, assumed, started, 1);
            self.touch(node.0);
        }
    }

    /// What the pods of a node add up to that its measurement does not show; for tests.
    #[must_use]
    pub fn unseen(&self, node: NodeId) -> ([i64; 2], [i64; 2]) {
        let load = self.nodes.loads.all.get(node.0 as usize);
        let load = load.copied().unwrap_or_default();
        let uids: &[Arc<str>] = self.on_node.get(node.0 as usize).map_or(&[], Vec::as_slice);
        let mut sum = [0; 2];
        for placed in uids.iter().filter_map(|uid| self.placed(uid)) {
            let assumed = self.classes[placed.class.0 as usize].request.shape.assumed;
            if placed.started > load.horizon {
                sum[0] += assumed[0];
                sum[1] += assumed[1];
            }
        }
        (load.unseen, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::object::{Node, Pod};
    use crate::core::{Profile, profile::Rule};
    use proptest::prelude::*;
    use serde_json::json;

    fn cluster(thresholds: [Option<i64>; 2]) -> Cluster {
        let load = Some(LoadArgs {
            thresholds,
            factors: [100, 100],
            ..LoadArgs::default()
        });
        let mut profile = Profile {
            load,
            ..Profile::default()
        };
        profile.weights.set(Rule::Load, 1);
        let mut cluster = Cluster::with_profiles(vec![profile]);
        for name in ["n0", "n1"] {
            let node: Node = serde_json::from_value(json!({"metadata": {"name": name},
                "status": {"allocatable": {"cpu": "10", "memory": "10Gi", "pods": "110"}}}))
            .unwrap();
            cluster.upsert_node(&node);
        }
        cluster.pass_time(1000);
        cluster
    }

    fn pod(name: &str, started: Option<i64>) -> Pod {
        let started = started.map(|at| jiff::Timestamp::from_second(at).unwrap().to_string());
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
            "status": {"startTime": started},
        }))
        .unwrap()
    }

    fn choice(cluster: &mut Cluster) -> Result<String, String> {
        let class = cluster.classify(&pod("next", None));
        match cluster.choose(class) {
            Some(node) => Ok(cluster.node_name(node).to_owned()),
            None => Err(cluster.diagnose(class).summary),
        }
    }

    const GIB: i64 = 1 << 30;

    #[test]
    fn hot_nodes_are_avoided_until_what_was_measured_is_too_old() {
        let mut cluster = cluster([Some(65), None]);
        // Without measurements both are alike; the measured one is hot.
        assert!(cluster.measure("n1", [2000, GIB], 990, 15));
        assert!(cluster.measure("n0", [5600, GIB], 990, 15));
        assert_eq!(choice(&mut cluster).as_deref(), Ok("n1"));
        assert!(cluster.measure("n1", [5600, GIB], 995, 15));
        assert_eq!(
            choice(&mut cluster).unwrap_err(),
            "0/2 nodes are available: 2 node(s) cpu usage exceed threshold."
        );
        // Older news are no news.
        assert!(!cluster.measure("n1", [0, 0], 994, 15));
        assert_eq!(cluster.next_stale(), Some(1170));
        assert_eq!(cluster.pass_time(1169), []);
        assert_eq!(cluster.pass_time(1170), [NodeId(0)]);
        assert_eq!(choice(&mut cluster).as_deref(), Ok("n0"));
        assert_eq!(cluster.measured_nodes(), 1);
        // What comes in too old never counts.
        assert_eq!(cluster.pass_time(1172), []);
        assert!(!cluster.measure("n0", [9000, GIB], 991, 15));
        assert_eq!(choice(&mut cluster).as_deref(), Ok("n0"));
    }

    #[test]
    fn a_pod_counts_by_estimate_until_its_usage_shows() {
        let mut cluster = cluster([Some(30), None]);
        for node in ["n0", "n1"] {
            cluster.measure(node, [0, 0], 990, 15);
        }
        for name in ["a", "b", "c", "d", "e", "f"] {
            let node = choice(&mut cluster).unwrap();
            cluster.observe(&pod(name, None), &node);
        }
        assert!(
            choice(&mut cluster)
                .unwrap_err()
                .contains("2 node(s) cpu usage")
        );
        // They have started; a measurement whose window began before says nothing of them.
        for name in ["a", "b", "c", "d", "e", "f"] {
            let placed = cluster.placed(name).unwrap();
            let node = cluster.node_name(placed.node).to_owned();
            cluster.observe(&pod(name, Some(1000)), &node);
        }
        cluster.measure("n0", [100, GIB], 1010, 15);
        assert!(choice(&mut cluster).is_err());
        cluster.measure("n0", [100, GIB], 1015, 15);
        assert_eq!(choice(&mut cluster).as_deref(), Ok("n0"));
    }

    #[test]
    fn the_cooler_node_scores_higher() {
        let mut cluster = cluster([None, None]);
        cluster.measure("n0", [8000, 5 * GIB], 990, 15);
        cluster.measure("n1", [1000, GIB], 990, 15);
        let class = cluster.classify(&pod("next", None));
        let explained = cluster.explain(class);
        let rows = explained.feasible.iter();
        let scores: Vec<_> = rows
            .map(|row| (row.node.0, row.by_rule[Rule::Load as usize]))
            .collect();
        // 80 % of CPU and of memory free; 10 % and 40 %.
        assert_eq!(scores, [(1, 80), (0, 25)]);
    }

    proptest! {
        /// Whatever comes in whatever order, the estimates of a node are those of exactly the pods that its
        /// measurement does not show.
        #[test]
        fn estimates_are_of_the_pods_not_shown(steps in prop::collection::vec((0..6_u8, 0..6_u8, 0..2_u8, 0..40_i64), 1..80)) {
            let mut cluster = cluster([Some(50), Some(50)]);
            for (what, which, node, at) in steps {
                let (name, node) = (format!("p{which}"), format!("n{node}"));
                match what {
                    0 | 1 => cluster.observe(&pod(&name, None), &node),
                    2 => cluster.observe(&pod(&name, Some(1000 + at)), &node),
                    3 => { cluster.remove(&name); }
                    4 => { cluster.measure(&node, [at * 100, at * GIB / 8], 1000 + at, at % 20); }
                    _ => { cluster.pass_time(1000 + 10 * at); }
                }
                for id in [NodeId(0), NodeId(1)] {
                    let (kept, counted) = cluster.unseen(id);
                    prop_assert_eq!(kept, counted);
                }
            }
        }
    }
}
