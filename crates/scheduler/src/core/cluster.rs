//! The cluster as the scheduler knows it: nodes, placed pods, classes of pods and everything derived from them,
//! changed in place by events. Assumed pods (decided, not yet seen bound) are placed like any other.

use super::class::{Class, ClassId};
use super::counters::Counters;
use super::nodes::{NodeChange, NodeId, NodeState, Nodes};
use super::object;
use super::preempt::Budget;
use super::rank::Rank;
use super::ranking::{PlacementState, RankKey, ShapeState, allows};
use super::request::{Compiler, Placement, Request, Shape};
use super::selector::Selector;
use super::symbols::Symbol;
use super::topology::Topology;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A placed pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub class: ClassId,
    pub node: NodeId,
}

/// Something that may let a waiting pod fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    NodeAdded,
    NodeRemoved,
    NodeLabels,
    NodeTaints,
    NodeAllocatable,
    PodPlaced(ClassId),
    PodRemoved(ClassId),
    Namespace,
    Claim,
}

/// The cluster.
#[derive(Default)]
pub struct Cluster {
    pub compiler: Compiler,
    pub nodes: Nodes,
    pub topology: Topology,
    pub counters: Counters,
    pub classes: Vec<Class>,
    /// Slots of classes that no pod has any more.
    pub(super) free_classes: Vec<ClassId>,
    /// Classes made since the last [`Cluster::compact`], and in use after it.
    pub(super) made: usize,
    pub(super) in_use: usize,
    pub(super) class_ids: FxHashMap<Arc<Request>, ClassId>,
    pub placements: Vec<PlacementState>,
    pub(super) placement_ids: FxHashMap<Placement, u32>,
    pub shapes: Vec<ShapeState>,
    pub(super) shape_ids: FxHashMap<Shape, u32>,
    pub ranks: Vec<Rank>,
    pub(super) rank_ids: FxHashMap<RankKey, usize>,
    pub(super) shape_ranks: Vec<(RankKey, usize)>,
    pub(super) shared_ranks: Vec<(RankKey, usize)>,
    pub(super) pods: FxHashMap<Arc<str>, Placed>,
    /// Uids of the pods of each node, by slot.
    pub on_node: Vec<Vec<Arc<str>>>,
    /// Number of placed pods by priority.
    pub priorities: std::collections::BTreeMap<i32, usize>,
    pub budgets: std::collections::BTreeMap<(String, String), Budget>,
    pub(super) services: FxHashMap<Symbol, FxHashMap<String, Selector>>,
    pub(super) owners: FxHashMap<(Symbol, Symbol, Symbol), Selector>,
    pub(super) claims: FxHashMap<Symbol, bool>,
    /// Nodes changed since `log_start`, oldest first.
    pub(super) log: Vec<u32>,
    pub(super) log_start: u64,
    /// Number of decisions made.
    pub decisions: u64,
    /// What happened since they were last taken.
    pub events: Vec<Event>,
}

impl Cluster {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a node.
    #[must_use]
    pub fn node_name(&self, node: NodeId) -> &str {
        self.compiler
            .symbols
            .text(self.nodes.all[node.0 as usize].name)
    }

    /// Where a pod is placed.
    #[must_use]
    pub fn placed(&self, uid: &str) -> Option<Placed> {
        self.pods.get(uid).copied()
    }

    /// Uids of all placed pods.
    pub fn placed_uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    /// Names of all known nodes.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.nodes
            .all
            .iter()
            .filter(|n| n.known)
            .map(|n| self.compiler.symbols.text(n.name))
    }

    // Nodes.

    /// A node came or changed. What scheduling does not read (heartbeats, conditions) changes nothing here.
    pub fn upsert_node(&mut self, node: &object::Node) -> NodeChange {
        let name = self
            .compiler
            .symbols
            .intern(node.metadata.name.as_deref().unwrap_or_default());
        let state = NodeState::compile(node, &mut self.compiler.symbols);
        let id = self.nodes.slot(name);
        let change = self.nodes.difference(id, &state);
        if !change.any() {
            return change;
        }
        if change.added || change.labels || change.taints {
            self.counters.node_leaves(id.0, &self.topology);
            self.topology.leave(id.0);
            self.nodes.set(id, state);
            self.topology
                .enter(id.0, &self.nodes.all[id.0 as usize].labels);
            self.counters
                .node_enters(id.0, &self.nodes, &self.topology, &self.compiler.symbols);
            self.judge_node(id.0);
        } else {
            self.nodes.set(id, state);
        }
        self.touch(id.0);
        if change.added {
            self.events.push(Event::NodeAdded);
        } else {
            self.events
                .extend(change.labels.then_some(Event::NodeLabels));
            self.events
                .extend(change.taints.then_some(Event::NodeTaints));
            self.events
                .extend(change.allocatable.then_some(Event::NodeAllocatable));
        }
        change
    }

    /// A node went. Its pods stay booked until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self
            .compiler
            .symbols
            .known(name)
            .and_then(|s| self.nodes.find(s))
        else {
            return;
        };
        self.counters.node_leaves(id.0, &self.topology);
        self.topology.leave(id.0);
        self.nodes.unset(id);
        self.counters
            .node_enters(id.0, &self.nodes, &self.topology, &self.compiler.symbols);
        self.judge_node(id.0);
        self.touch(id.0);
        self.nodes.release(id);
        self.events.push(Event::NodeRemoved);
    }

    /// Judges one node for all placements.
    fn judge_node(&mut self, node: u32) {
        let scored = self.nodes.disliked > 0;
        for placement in &mut self.placements {
            if placement.pins.is_some() {
                continue;
            }
            let allowed = allows(&placement.key, &self.nodes, node, &self.compiler);
            placement.allowed.set(node as usize, allowed);
            placement.stale |=
                scored || !placement.statics.is_empty() || !placement.key.preferred.is_empty();
        }
    }

    /// Notes a changed node for the ranks.
    fn touch(&mut self, node: u32) {
        if self.log.len() > 4 * self.nodes.slots() + 4096 {
            let gone = self.log.len() / 2;
            self.log.drain(..gone);
            self.log_start += gone as u64;
        }
        self.log.push(node);
    }

    // Other objects.

    /// A namespace came, changed or (`None`) went.
    pub fn set_namespace(
        &mut self,
        name: &str,
        labels: Option<&std::collections::BTreeMap<String, String>>,
    ) {
        let symbol = self.compiler.symbols.intern(name);
        let labels = labels.map(|l| self.compiler.symbols.labels(l));
        if self
            .counters
            .namespace(symbol, labels, &self.topology, &self.compiler.symbols)
        {
            for id in self.class_ids.values() {
                let class = &mut self.classes[id.0 as usize];
                if class.affinity.is_empty() {
                    continue;
                }
                let matcher = self.counters.counters[class.affinity[0].0 as usize].matcher;
                class.own_affinity = self.counters.would_match(
                    matcher,
                    &class.request.group,
                    &self.compiler.symbols,
                );
            }
            self.events.push(Event::Namespace);
        }
    }

    /// A Service came, changed or (no selector) went.
    pub fn set_service(
        &mut self,
        namespace: &str,
        name: &str,
        selector: Option<&std::collections::BTreeMap<String, String>>,
    ) {
        let namespace = self.compiler.symbols.intern(namespace);
        let services = self.services.entry(namespace).or_default();
        match selector.filter(|s| !s.is_empty()) {
            Some(selector) => {
                services.insert(
                    name.to_owned(),
                    Selector::from_map(selector, &mut self.compiler.symbols),
                );
            }
            None => {
                services.remove(name);
            }
        }
    }

    /// A ReplicaSet or StatefulSet came, changed or (no selector) went.
    pub fn set_owner(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) {
        let key = (
            self.compiler.symbols.intern(kind),
            self.compiler.symbols.intern(namespace),
            self.compiler.symbols.intern(name),
        );
        match selector {
            Some(selector) => {
                let selector = self.compiler.pod_selector(Some(selector));
                self.owners.insert(key, selector);
            }
            None => {
                self.owners.remove(&key);
            }
        }
    }

    /// A claim came, changed or (`None`) went; `bound` as its phase says.
    pub fn set_claim(&mut self, namespace: &str, name: &str, bound: Option<bool>) {
        let key = self.compiler.symbols.intern(&format!("{namespace}/{name}"));
        let old = match bound {
            Some(bound) => self.claims.insert(key, bound),
            None => self.claims.remove(&key),
        };
        if old != bound {
            self.events.push(Event::Claim);
        }
    }

    /// A disruption budget came, changed or (no selector) went.
    pub fn set_budget(
        &mut self,
        namespace: &str,
        name: &str,
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
        allowed: i64,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        match selector {
            Some(selector) => {
                let selector = self.compiler.pod_selector(Some(selector));
                let namespace = self.compiler.symbols.intern(namespace);
                self.budgets.insert(
                    key,
                    Budget {
                        namespace,
                        selector,
                        allowed,
                    },
                );
            }
            None => {
                self.budgets.remove(&key);
            }
        }
    }

    /// Whether a claim is bound; `None` if it does not exist.
    #[must_use]
    pub fn claim(&self, key: Symbol) -> Option<bool> {
        self.claims.get(&key).copied()
    }

    /// What the pod's Services and controlling ReplicaSet or StatefulSet select, merged, for default spreading.
    pub(super) fn default_selector(&mut self, pod: &object::Pod) -> Option<Selector> {
        let symbols = &mut self.compiler.symbols;
        let namespace = symbols.intern(pod.namespace());
        let mut merged = Selector::default();
        if let Some(services) = self.services.get(&namespace).filter(|s| !s.is_empty()) {
            let labels = symbols.labels(pod.metadata.labels.iter().flatten());
            for selector in services.values() {
                if selector.matches(&labels, symbols) {
                    merged = merged.and(selector.0.iter().cloned());
                }
            }
        }
        let owners = pod.metadata.owner_references.iter().flatten();
        if let Some(owner) = owners.into_iter().find(|o| o.controller == Some(true)) {
            let key = symbols.known(&owner.kind).zip(symbols.known(&owner.name));
            if let Some(selector) =
                key.and_then(|(kind, name)| self.owners.get(&(kind, namespace, name)))
            {
                merged = merged.and(selector.0.iter().cloned());
            }
        }
        (!merged.0.is_empty()).then_some(merged)
    }

    /// A pod was seen bound to a node. What can change of it there (labels, resources, its going away) is compared
    /// first: most updates of running pods change nothing here.
    pub fn observe(&mut self, pod: &object::Pod, node_name: &str) {
        if let Some(placed) = self.placed(pod.uid()) {
            let request = self.classes[placed.class.0 as usize].request.clone();
            let same = self.node_name(placed.node) == node_name
                && request.group.terminating == pod.metadata.deletion_timestamp.is_some()
                && request.group.labels == self.compiler.pod_labels(pod.metadata.labels.as_ref())
                && request.shape == self.compiler.shape(pod);
            if same {
                return;
            }
        }
        // Spread constraints bind only the pod that is being placed, so defaults no longer matter.
        let request = self.compiler.compile(pod, None);
        let class = self.class(request);
        self.place(&pod.uid().into(), class, node_name);
    }

    /// A pod is on a node: seen bound, or assumed. A pod already placed so is left alone.
    pub fn place(&mut self, uid: &Arc<str>, class: ClassId, node_name: &str) {
        let name = self.compiler.symbols.intern(node_name);
        let node = self.nodes.slot(name);
        self.place_at(uid, class, node);
    }

    /// As [`Cluster::place`], on a node known by id.
    pub fn place_at(&mut self, uid: &Arc<str>, class: ClassId, node: NodeId) {
        let placed = Placed { class, node };
        let old = match self.pods.get(uid) {
            Some(old) if *old == placed => return,
            Some(_) => self.lift(uid),
            None => None,
        };
        self.pods.insert(uid.clone(), placed);
        if self.on_node.len() <= node.0 as usize {
            self.on_node.resize_with(node.0 as usize + 1, Vec::new);
        }
        self.on_node[node.0 as usize].push(uid.clone());
        let class = &self.classes[class.0 as usize];
        *self.priorities.entry(class.request.priority).or_default() += 1;
        self.nodes.book(node, &class.request, 1);
        self.counters.place(class.group, node.0, &self.topology);
        for (carrier, forbids, weight) in &class.carries {
            self.counters
                .carry(*carrier, node.0, *forbids, *weight, 1, &self.topology);
        }
        self.events.push(Event::PodPlaced(placed.class));
        self.touch(node.0);
        // Only now: the pod may have been the last of a node that is gone, on which it stays.
        if let Some(old) = old {
            self.nodes.release(old.node);
        }
    }

    /// A placed pod is gone, finished, or was not bound after all. Returns where it was.
    pub fn remove(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.lift(uid)?;
        self.nodes.release(placed.node);
        Some(placed)
    }

    /// As [`Cluster::remove`], keeping the node's slot even if it is gone and empty now.
    pub(super) fn lift(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        let neighbours = &mut self.on_node[placed.node.0 as usize];
        if let Some(at) = neighbours.iter().position(|other| **other == *uid) {
            neighbours.swap_remove(at);
        }
        let class = &self.classes[placed.class.0 as usize];
        if let Some(count) = self.priorities.get_mut(&class.request.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&class.request.priority);
            }
        }
        self.nodes.book(placed.node, &class.request, -1);
        self.counters
            .unplace(class.group, placed.node.0, &self.topology);
        for (carrier, forbids, weight) in &class.carries {
            self.counters.carry(
                *carrier,
                placed.node.0,
                *forbids,
                *weight,
                -1,
                &self.topology,
            );
        }
        self.events.push(Event::PodRemoved(placed.class));
        self.touch(placed.node.0);
        Some(placed)
    }
}
