//! NUMA nodes and cores: what a kubelet that aligns them would refuse is not sent to it
//! (`topology.node.k8s.io/v1alpha2` NodeResourceTopology, as NFD's topology updater writes it, with the annotations of
//! Koordinator's koordlet where it runs).
//!
//! Only pods of the Guaranteed class are given cores and memory of their own, and only whole cores; devices are aligned
//! for all. On which NUMA nodes a pod sits is the kubelet's choice: until a report shows it, it counts on every one of
//! them, so that nothing is promised twice.

mod zones;

use super::cluster::{Cluster, Event};
use super::nodes::NodeId;
use super::object;
use super::profile::{Resource, Rule};
use super::request::amount;
use super::symbols::{Symbol, Symbols};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::collections::BTreeMap;
pub use zones::{Ask, Asks, Misfit};
use zones::{Policy, Topology, Zone};

/// A report may be as old as this when it comes: pods that started since are not in it. NFD's updater looks every
/// minute.
const REPORT_AGE: i64 = 60;

/// Annotations of Koordinator: what the kubelet's CPU manager does, and which CPU is a thread of which core.
const CPU_MANAGER: &str = "kubelet.koordinator.sh/cpu-manager-policy";
const CPU_TOPOLOGY: &str = "node.koordinator.sh/cpu-topology";

/// All nodes that report NUMA nodes, by name: reports come before their nodes, and outlive them.
#[derive(Default)]
pub struct Numa {
    nodes: FxHashMap<Symbol, Topology>,
    pub now: i64,
}

impl Numa {
    /// Whether no node reports any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CpuManager {
    policy: String,
    options: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CpuTopology {
    detail: Vec<Cpu>,
}

#[derive(Deserialize)]
struct Cpu {
    core: i64,
    #[serde(default)]
    socket: i64,
}

impl CpuTopology {
    /// Threads of one core.
    fn threads(&self) -> i64 {
        let mut cores: FxHashMap<(i64, i64), i64> = FxHashMap::default();
        for cpu in &self.detail {
            *cores.entry((cpu.socket, cpu.core)).or_default() += 1;
        }
        cores.values().max().copied().unwrap_or(1)
    }
}

fn read(topology: &object::NodeTopology, symbols: &mut Symbols) -> Topology {
    let attribute = |name: &str| {
        let found = topology.attributes.iter().find(|a| a.name == name);
        found.map(|a| a.value.as_str())
    };
    let old = |prefix: &str| {
        let mut all = topology.topology_policies.iter();
        all.any(|p| p.starts_with(prefix))
    };
    let annotation = |key: &str| topology.metadata.annotations.as_ref()?.get(key);
    let manager = annotation(CPU_MANAGER);
    // What cannot be read says nothing.
    let manager: Option<CpuManager> = manager.and_then(|text| serde_json::from_str(text).ok());
    let cpus = annotation(CPU_TOPOLOGY);
    let cpus: Option<CpuTopology> = cpus.and_then(|text| serde_json::from_str(text).ok());
    let is_static = manager.as_ref().is_none_or(|m| m.policy != "none");
    let whole = manager.is_some_and(|m| {
        m.policy == "static"
            && m.options
                .get("full-pcpus-only")
                .is_some_and(|o| o == "true")
    });
    let zones = topology.zones.iter().filter(|z| z.kind == "Node").map(|z| {
        let mut zone = Zone::default();
        for resource in &z.resources {
            let kind = match resource.name.as_str() {
                // Whoever gives nobody cores of their own has none to align.
                "cpu" if !is_static => continue,
                "cpu" => Resource::Cpu,
                "memory" => Resource::Memory,
                name => Resource::Other(symbols.intern(name)),
            };
            let of = |quantity| amount(&resource.name, quantity);
            let free = of(&resource.available);
            let all = of(&resource.capacity).max(of(&resource.allocatable));
            zone.0.push((kind, free, all.max(free)));
        }
        zone
    });
    let policy = match attribute("topologyManagerPolicy") {
        Some("single-numa-node") => Policy::Single,
        Some("restricted") => Policy::Restricted,
        Some(_) => Policy::Anything,
        None if old("SingleNUMANode") => Policy::Single,
        None if old("Restricted") => Policy::Restricted,
        None => Policy::Anything,
    };
    let by_pod = old("SingleNUMANodePodLevel") || old("RestrictedPodLevel");
    Topology {
        policy,
        by_pod: attribute("topologyManagerScope").map_or(by_pod, |scope| scope == "pod"),
        zones: zones.collect(),
        threads: cpus.filter(|_| whole).map_or(1, |cpus| cpus.threads()),
        horizon: i64::MIN,
    }
}

impl Cluster {
    /// A node told of its NUMA nodes.
    pub fn set_topology(&mut self, topology: &object::NodeTopology) {
        let name = topology.metadata.name.as_deref().unwrap_or_default();
        let name = self.compiler.symbols.intern(name);
        let mut fresh = read(topology, &mut self.compiler.symbols);
        fresh.horizon = self.numa.now - REPORT_AGE;
        self.numa.nodes.insert(name, fresh);
        self.events.push(Event::NodeAllocatable);
    }

    /// A node tells no more of its NUMA nodes.
    pub fn remove_topology(&mut self, name: &str) {
        let known = self.compiler.symbols.known(name);
        let gone = known.and_then(|name| self.numa.nodes.remove(&name));
        self.events.extend(gone.map(|_| Event::NodeAllocatable));
    }

    /// What is free on a node's NUMA nodes, without what pods may have that no report shows.
    fn free_zones(&self, node: NodeId, topology: &Topology) -> Vec<Zone> {
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
        zones
    }

    /// Why the node could not align what is to be aligned, if it could not. `must`: the pod insists on one NUMA node.
    pub(super) fn misfit(&self, node: NodeId, asks: Option<&Asks>, must: bool) -> Option<Misfit> {
        let topology = self.numa.nodes.get(&self.nodes.all[node.0 as usize].name);
        let topology = topology.filter(|t| !must || t.policy == Policy::Single);
        let Some(topology) = topology else {
            return must.then_some(Misfit::Unaligned);
        };
        let asks = asks?;
        if topology.splits_core(asks) {
            return Some(Misfit::Cores);
        }
        if topology.policy == Policy::Anything {
            return None;
        }
        topology.refuses(self.free_zones(node, topology), asks, must)
    }

    /// The score by NUMA nodes, 0 to 100.
    pub(super) fn numa_score(
        &self,
        node: NodeId,
        asks: &Asks,
        rules: &super::profile::Rules,
    ) -> i64 {
        let Some(topology) = self.numa.nodes.get(&self.nodes.all[node.0 as usize].name) else {
            return 0;
        };
        let free = self.free_zones(node, topology);
        rules.weight(Rule::Numa) * topology.score(&free, asks, &rules.numa)
    }
}

#[cfg(test)]
mod tests;
