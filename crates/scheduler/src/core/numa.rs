//! NUMA nodes: what a kubelet whose topology manager insists on one NUMA node would refuse is not sent to it
//! (`topology.node.k8s.io/v1alpha2` NodeResourceTopology, as NFD's topology updater writes it).
//!
//! Only pods of the Guaranteed class are given cores and memory of their own, and only whole cores; devices are aligned
//! for all. A container (or a pod, by the node's scope) must find all of that on one NUMA node. On which one a pod sits
//! is the kubelet's choice: until a report shows it, it counts on every one of them, so that nothing is promised twice.

use super::cluster::{Cluster, Event};
use super::nodes::NodeId;
use super::object;
use super::request::{Amounts, amount};
use super::symbols::{Symbol, Symbols};
use rustc_hash::FxHashMap;

/// A report may be as old as this when it comes: pods that started since are not in it. NFD's updater looks every
/// minute.
const REPORT_AGE: i64 = 60;

/// What one container needs of a NUMA node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ask {
    /// Cores of its own, in millicores; 0: it shares.
    pub cpu: i64,
    /// Memory of its own; 0: it shares.
    pub memory: i64,
    /// Devices and huge pages.
    pub other: Vec<(Symbol, i64)>,
}

impl Ask {
    /// Nothing that a NUMA node would have to give.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.other.is_empty()
    }

    fn add(&mut self, more: &Self) {
        self.cpu += more.cpu;
        self.memory += more.memory;
        for (name, amount) in &more.other {
            match self.other.iter_mut().find(|(n, _)| n == name) {
                Some(slot) => slot.1 += amount,
                None => self.other.push((*name, *amount)),
            }
        }
    }
}

/// What a pod needs of NUMA nodes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Asks {
    /// Init containers, which run one after another and leave what they had.
    pub init: Vec<Ask>,
    pub containers: Vec<Ask>,
}

impl Asks {
    /// All that runs at once.
    fn sum(&self) -> Ask {
        let mut sum = Ask::default();
        for ask in &self.containers {
            sum.add(ask);
        }
        sum
    }
}

/// What is free on one NUMA node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Zone {
    free: Amounts,
    other: Vec<(Symbol, i64)>,
    /// Whether cores and memory are reported at all: what is not cannot be aligned, and does not matter.
    cpu: bool,
    memory: bool,
}

impl Zone {
    fn fits(&self, ask: &Ask) -> bool {
        (ask.cpu == 0 || !self.cpu || ask.cpu <= self.free.cpu)
            && (ask.memory == 0 || !self.memory || ask.memory <= self.free.memory)
            && ask.other.iter().all(|(name, wanted)| {
                // What no zone reports has no place in the topology.
                let there = self.other.iter().find(|(n, _)| n == name);
                there.is_none_or(|(_, free)| wanted <= free)
            })
    }

    fn take(&mut self, ask: &Ask) {
        self.free.cpu -= ask.cpu;
        self.free.memory -= ask.memory;
        for (name, wanted) in &ask.other {
            if let Some(slot) = self.other.iter_mut().find(|(n, _)| n == name) {
                slot.1 -= wanted;
            }
        }
    }
}

/// The NUMA nodes of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// The kubelet admits only what fits on one NUMA node.
    single: bool,
    /// It looks at pods as wholes, and not at each container.
    by_pod: bool,
    zones: Vec<Zone>,
    /// Pods that started after this second are not in the report.
    horizon: i64,
}

/// All nodes that report NUMA nodes, by slot.
#[derive(Default)]
pub struct Numa {
    nodes: FxHashMap<u32, Topology>,
    pub now: i64,
}

impl Numa {
    /// Whether no node reports any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// Why a node cannot give what is to be aligned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Misfit {
    /// It does not align to one NUMA node, and the pod needs that.
    Unaligned,
    Container,
    Pod,
}

fn read(topology: &object::NodeTopology, symbols: &mut Symbols) -> Topology {
    let attribute = |name: &str| {
        let found = topology.attributes.iter().find(|a| a.name == name);
        found.map(|a| a.value.as_str())
    };
    let old = |prefix: &str| {
        topology
            .topology_policies
            .iter()
            .any(|p| p.starts_with(prefix))
    };
    let zones = topology.zones.iter().filter(|z| z.kind == "Node").map(|z| {
        let mut zone = Zone::default();
        for resource in &z.resources {
            let free = amount(&resource.name, &resource.available);
            match resource.name.as_str() {
                "cpu" => (zone.free.cpu, zone.cpu) = (free, true),
                "memory" => (zone.free.memory, zone.memory) = (free, true),
                name => zone.other.push((symbols.intern(name), free)),
            }
        }
        zone
    });
    Topology {
        single: attribute("topologyManagerPolicy") == Some("single-numa-node")
            || old("SingleNUMANode"),
        by_pod: attribute("topologyManagerScope") == Some("pod") || old("SingleNUMANodePodLevel"),
        zones: zones.collect(),
        horizon: i64::MIN,
    }
}

impl Cluster {
    /// A node told of its NUMA nodes.
    pub fn set_topology(&mut self, topology: &object::NodeTopology) {
        let name = topology.metadata.name.as_deref().unwrap_or_default();
        let name = self.compiler.symbols.intern(name);
        let node = self.nodes.slot(name);
        let mut fresh = read(topology, &mut self.compiler.symbols);
        fresh.horizon = self.numa.now - REPORT_AGE;
        self.numa.nodes.insert(node.0, fresh);
        self.events.push(Event::NodeAllocatable);
    }

    /// A node tells no more of its NUMA nodes.
    pub fn remove_topology(&mut self, name: &str) {
        let known = self.compiler.symbols.known(name);
        if let Some(node) = known.and_then(|name| self.nodes.find(name)) {
            self.numa.nodes.remove(&node.0);
            self.nodes.release(node);
            self.events.push(Event::NodeAllocatable);
        }
    }

    /// Why the node could not align what is to be aligned, if it could not.
    pub(super) fn misfit(&self, node: NodeId, asks: Option<&Asks>, must: bool) -> Option<Misfit> {
        let Some(topology) = self.numa.nodes.get(&node.0).filter(|t| t.single) else {
            return must.then_some(Misfit::Unaligned);
        };
        let asks = asks?;
        let mut zones = topology.zones.clone();
        for uid in self.on_node.get(node.0 as usize).into_iter().flatten() {
            let Some(placed) = self.placed(uid).filter(|p| p.started > topology.horizon) else {
                continue;
            };
            let request = &self.classes[placed.class.0 as usize].request;
            if let Some(other) = &request.asks {
                let sum = other.sum();
                zones.iter_mut().for_each(|zone| zone.take(&sum));
            }
        }
        if topology.by_pod || must {
            let whole = asks.sum();
            let init = asks.init.iter();
            let fits = |zone: &Zone| zone.fits(&whole) && init.clone().all(|ask| zone.fits(ask));
            return (!zones.iter().any(fits)).then_some(Misfit::Pod);
        }
        for ask in asks.init.iter().filter(|ask| !ask.is_empty()) {
            if !zones.iter().any(|zone| zone.fits(ask)) {
                return Some(Misfit::Container);
            }
        }
        // As the kubelet goes about it: container by container, the first NUMA node that has all.
        for ask in asks.containers.iter().filter(|ask| !ask.is_empty()) {
            let Some(zone) = zones.iter_mut().find(|zone| zone.fits(ask)) else {
                return Some(Misfit::Container);
            };
            zone.take(ask);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::object::{Node, Pod};
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn topology(scope: &str, policy: &str, zones: &[(&str, &str)]) -> object::NodeTopology {
        let zones: Vec<Value> = zones
            .iter()
            .enumerate()
            .map(|(i, (cpu, gpu))| {
                json!({"name": format!("node-{i}"), "type": "Node", "resources": [
                    {"name": "cpu", "capacity": "8", "allocatable": "8", "available": cpu},
                    {"name": "memory", "capacity": "16Gi", "allocatable": "16Gi", "available": "16Gi"},
                    {"name": "example.com/gpu", "capacity": "2", "allocatable": "2", "available": gpu}]})
            })
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "attributes": [
            {"name": "topologyManagerPolicy", "value": policy}, {"name": "topologyManagerScope", "value": scope}],
            "zones": zones}))
        .unwrap()
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"allocatable":
            {"cpu": "16", "memory": "32Gi", "pods": "110", "example.com/gpu": "4"}}}))
            .unwrap();
        cluster.upsert_node(&node);
        cluster.numa.now = 1000;
        cluster
    }

    /// Containers with these CPUs and GPUs, Guaranteed or not.
    fn pod(name: &str, containers: &[(&str, i64)], guaranteed: bool) -> Pod {
        let containers: Vec<Value> = containers
            .iter()
            .enumerate()
            .map(|(i, (cpu, gpu))| {
                let mut requests = json!({"cpu": cpu, "memory": "1Gi"});
                let mut limits = if guaranteed { requests.clone() } else { json!({}) };
                if *gpu > 0 {
                    requests["example.com/gpu"] = json!(gpu.to_string());
                    limits["example.com/gpu"] = json!(gpu.to_string());
                }
                json!({"name": format!("c{i}"), "resources": {"requests": requests, "limits": limits}})
            })
            .collect();
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"containers": containers}}),
        )
        .unwrap()
    }

    /// The scope, free CPUs and GPUs of the NUMA nodes, the containers, and what is said.
    #[rstest]
    #[case::one_has_it("container", &[("2", "0"), ("6", "0")], &[("6", 0)], true, None)]
    #[case::none_has_it("container", &[("4", "0"), ("4", "0")], &[("6", 0)], true, Some("container"))]
    #[case::each_on_another("container", &[("4", "0"), ("4", "0")], &[("4", 0), ("4", 0)], true, None)]
    #[case::not_as_a_whole("pod", &[("4", "0"), ("4", "0")], &[("4", 0), ("4", 0)], true, Some("pod"))]
    #[case::as_a_whole("pod", &[("4", "0"), ("8", "0")], &[("4", 0), ("4", 0)], true, None)]
    #[case::shared_cores_are_not_aligned("container", &[("4", "0"), ("4", "0")], &[("5", 0)], false, None)]
    #[case::parts_of_cores_are_not_aligned("container", &[("4", "0"), ("4", "0")], &[("5500m", 0)], true, None)]
    #[case::devices_are("container", &[("4", "1"), ("4", "1")], &[("1", 2)], false, Some("container"))]
    #[case::cores_and_devices_together("container", &[("4", "0"), ("2", "2")], &[("4", 1)], true, Some("container"))]
    #[case::greedily_in_order("container", &[("4", "2"), ("8", "2")], &[("2", 0), ("4", 0), ("4", 0)], true, None)]
    fn admitted_as_the_kubelet_would(
        #[case] scope: &str,
        #[case] zones: &[(&str, &str)],
        #[case] containers: &[(&str, i64)],
        #[case] guaranteed: bool,
        #[case] refused: Option<&str>,
    ) {
        let mut cluster = cluster();
        cluster.set_topology(&topology(scope, "single-numa-node", zones));
        let class = cluster.classify(&pod("p", containers, guaranteed));
        let node = cluster.choose(class);
        assert_eq!(node.is_none(), refused.is_some());
        if let Some(what) = refused {
            let told = cluster.diagnose(class).summary;
            let want = format!("1 node(s) cannot align {what} to a single NUMA node");
            assert!(told.contains(&want), "{told}");
        }
        // A kubelet that does not insist takes all of them.
        cluster.set_topology(&topology(scope, "best-effort", zones));
        assert!(cluster.choose(class).is_some());
    }

    #[test]
    fn what_no_report_shows_counts_on_every_numa_node() {
        let mut cluster = cluster();
        let report = topology("container", "single-numa-node", &[("8", "0"), ("8", "0")]);
        cluster.set_topology(&report);
        let first = pod("a", &[("5", 0)], true);
        let class = cluster.classify(&first);
        let node = cluster.choose(class).unwrap();
        let uid: Arc<str> = first.uid().into();
        cluster.place_at(&uid, class, node);
        // The second would fit on the NUMA node that the first is not on, whichever that is: nobody knows yet.
        let second = cluster.classify(&pod("b", &[("6", 0)], true));
        assert!(cluster.choose(second).is_none());
        // It runs, and a report of later shows where.
        let mut running = serde_json::json!({"startTime": "1970-01-01T00:16:50Z"});
        running["phase"] = json!("Running");
        let mut first = first;
        first.status = serde_json::from_value(running).unwrap();
        cluster.observe(&first, "n");
        cluster.numa.now = 1100;
        let report = topology("container", "single-numa-node", &[("3", "0"), ("8", "0")]);
        cluster.set_topology(&report);
        assert!(cluster.choose(second).is_some());
        cluster.remove_topology("n");
        assert!(cluster.choose(second).is_some());
    }
}
