//! The cluster as the scheduler knows it: nodes, placed pods, classes of pods and everything derived from them,
//! changed in place by events. Assumed pods (decided, not yet seen bound) are placed like any other.

use super::bits::NodeSet;
use super::counters::{
    CarrierId, CounterId, Counters, EligibilityKey, GroupId, MatcherId, MatcherKey,
};
use super::nodes::{NodeChange, NodeId, NodeState, Nodes};
use super::object;
use super::preempt::Budget;
use super::rank::{Rank, View};
use super::request::{Compiler, GroupKey, Placement, Request, Shape, Term};
use super::selector::{Namespaces, Selector};
use super::symbols::Symbol;
use super::topology::{KeyId, Topology};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Pods with equal requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClassId(pub u32);

/// A spread constraint with its counter.
#[derive(Clone, Copy, Debug)]
pub struct SpreadRule {
    pub counter: CounterId,
    pub key: KeyId,
    pub max_skew: i64,
    pub min_domains: i64,
    /// The pod itself would be counted.
    pub own: i64,
}

/// A request whose selectors are resolved to counters.
pub struct Class {
    pub request: Arc<Request>,
    pub group: GroupId,
    pub placement: u32,
    pub shape: u32,
    /// Required affinity: one counter per term, all over the pods that match every term.
    pub affinity: Vec<CounterId>,
    /// The pod matches its own required affinity, so the first of its kind may go anywhere.
    pub own_affinity: bool,
    pub anti_affinity: Vec<CounterId>,
    pub preferred: Vec<(CounterId, i64)>,
    pub hard: Vec<SpreadRule>,
    pub soft: Vec<SpreadRule>,
    /// Terms that the pod carries to its node: forbids, weight.
    pub carries: Vec<(CarrierId, bool, i64)>,
    /// Whose pods' coming and going may change where this class fits.
    pub watches: Vec<MatcherId>,
}

/// A placement with the nodes that it allows.
pub struct PlacementState {
    pub key: Placement,
    /// The only nodes it can allow; such a placement has no ranks.
    pub pins: Option<Vec<Symbol>>,
    pub allowed: NodeSet,
    pub statics: Vec<u16>,
    /// Grows when the scores change as a whole.
    pub version: u32,
    stale: bool,
}

/// A resource request, with how often it was asked for.
pub struct ShapeState {
    pub shape: Shape,
    pub decisions: u32,
}

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

/// Shapes decided this often get a rank of their own.
const SHAPE_PAYS_AFTER: u32 = 8;
/// Ranks of single shapes kept at most: each costs about 100 bytes a node.
const MOST_SHAPE_RANKS: usize = 128;
/// Ranks of placements kept at most.
const MOST_SHARED_RANKS: usize = 256;
/// A shape's rank unused for this many decisions may be replaced.
const RANK_IDLE: u64 = 4096;

/// Classes made before the unused are looked for.
const COMPACT_AFTER: usize = 4096;

/// An index into [`Cluster::ranks`].
#[derive(Clone, Copy, Debug)]
pub struct RankId {
    pub index: usize,
    /// The rank fits and scores the class's own shape.
    pub exact: bool,
}

type RankKey = (u32, Option<KeyId>, Option<u32>);

/// The cluster.
#[derive(Default)]
pub struct Cluster {
    pub compiler: Compiler,
    pub nodes: Nodes,
    pub topology: Topology,
    pub counters: Counters,
    pub classes: Vec<Class>,
    /// Slots of classes that no pod has any more.
    free_classes: Vec<ClassId>,
    /// Classes made since the last [`Cluster::compact`], and in use after it.
    made: usize,
    in_use: usize,
    class_ids: FxHashMap<Arc<Request>, ClassId>,
    pub placements: Vec<PlacementState>,
    placement_ids: FxHashMap<Placement, u32>,
    pub shapes: Vec<ShapeState>,
    shape_ids: FxHashMap<Shape, u32>,
    pub ranks: Vec<Rank>,
    rank_ids: FxHashMap<RankKey, usize>,
    shape_ranks: Vec<(RankKey, usize)>,
    shared_ranks: Vec<(RankKey, usize)>,
    pods: FxHashMap<Arc<str>, Placed>,
    /// Uids of the pods of each node, by slot.
    pub on_node: Vec<Vec<Arc<str>>>,
    /// Number of placed pods by priority.
    pub priorities: std::collections::BTreeMap<i32, usize>,
    pub budgets: std::collections::BTreeMap<(String, String), Budget>,
    services: FxHashMap<Symbol, FxHashMap<String, Selector>>,
    owners: FxHashMap<(Symbol, Symbol, Symbol), Selector>,
    claims: FxHashMap<Symbol, bool>,
    /// Nodes changed since `log_start`, oldest first.
    log: Vec<u32>,
    log_start: u64,
    /// Number of decisions made.
    pub decisions: u64,
    /// What happened since they were last taken.
    pub events: Vec<Event>,
}

fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
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
    fn default_selector(&mut self, pod: &object::Pod) -> Option<Selector> {
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

    // Pods and classes.

    /// The class of a pod.
    pub fn classify(&mut self, pod: &object::Pod) -> ClassId {
        let own_spread = !pod.spec.topology_spread_constraints.is_empty();
        let default = if own_spread {
            None
        } else {
            self.default_selector(pod)
        };
        let request = self.compiler.compile(pod, default.as_ref());
        self.class(request)
    }

    /// The class of a request, new or known.
    pub fn class(&mut self, request: Request) -> ClassId {
        if let Some(id) = self.class_ids.get(&request) {
            return *id;
        }
        let request = Arc::new(request);
        let class = self.resolve(request.clone());
        let id = match self.free_classes.pop() {
            Some(id) => {
                self.classes[id.0 as usize] = class;
                id
            }
            None => {
                self.classes.push(class);
                ClassId(index(self.classes.len() - 1))
            }
        };
        self.class_ids.insert(request, id);
        self.made += 1;
        id
    }

    /// Whether so many classes were made that those without pods are worth dropping.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.made > self.in_use.max(COMPACT_AFTER)
    }

    /// Drops classes that no placed pod has and that are not `held`, with all that was derived from them. Classes in
    /// use keep their ids; ids of classes in [`Cluster::events`] may become void, so events are to be taken before.
    pub fn compact(&mut self, held: impl IntoIterator<Item = ClassId>) {
        let mut live = vec![false; self.classes.len()];
        for class in held.into_iter().chain(self.pods.values().map(|p| p.class)) {
            live[class.0 as usize] = true;
        }
        self.events.clear();
        self.counters.clear();
        self.placements.clear();
        self.placement_ids.clear();
        self.shapes.clear();
        self.shape_ids.clear();
        self.ranks.clear();
        self.rank_ids.clear();
        self.shape_ranks.clear();
        self.shared_ranks.clear();
        self.class_ids.clear();
        self.free_classes.clear();
        for (at, live) in live.iter().enumerate() {
            let id = ClassId(index(at));
            if *live {
                let request = self.classes[at].request.clone();
                self.classes[at] = self.resolve(request.clone());
                self.class_ids.insert(request, id);
            } else {
                self.free_classes.push(id);
            }
        }
        for placed in self.pods.values() {
            let class = &self.classes[placed.class.0 as usize];
            self.counters
                .place(class.group, placed.node.0, &self.topology);
            for (carrier, forbids, weight) in &class.carries {
                self.counters.carry(
                    *carrier,
                    placed.node.0,
                    *forbids,
                    *weight,
                    1,
                    &self.topology,
                );
            }
        }
        self.made = 0;
        self.in_use = self.class_ids.len();
    }

    fn resolve(&mut self, request: Arc<Request>) -> Class {
        let group = self.counters.group(&request.group, &self.compiler.symbols);
        let placement = self.placement(&request.placement);
        let shape = self.shape(&request.shape);
        let mut watches = Vec::new();
        let mut carries: Vec<(CarrierId, bool, i64)> = Vec::new();

        let mut affinity = Vec::new();
        let mut own_affinity = false;
        if !request.affinity.is_empty() {
            let terms = request
                .affinity
                .iter()
                .map(|t| (t.namespaces.clone(), t.selector.clone()))
                .collect();
            let all = self.matcher(MatcherKey {
                terms,
                living: false,
            });
            watches.push(all);
            own_affinity = self
                .counters
                .would_match(all, &request.group, &self.compiler.symbols);
            affinity = request
                .affinity
                .iter()
                .map(|t| self.count(all, t.key))
                .collect();
            for term in &request.affinity {
                let (carrier, _) = self.carrier(term);
                // Kubernetes' hardPodAffinityWeight: required affinity attracts in return, at weight one.
                carries.push((carrier, false, 1));
            }
        }
        let mut anti_affinity = Vec::new();
        for term in &request.anti_affinity {
            let (carrier, matcher) = self.carrier(term);
            carries.push((carrier, true, 0));
            watches.push(matcher);
            anti_affinity.push(self.count(matcher, term.key));
        }
        let mut preferred = Vec::new();
        for (weight, term) in &request.preferred {
            let (carrier, matcher) = self.carrier(term);
            carries.push((carrier, false, *weight));
            preferred.push((self.count(matcher, term.key), *weight));
        }

        let (mut hard, mut soft) = (Vec::new(), Vec::new());
        for rule in &request.spread {
            let names = Namespaces {
                names: vec![request.group.namespace],
                selected: None,
            };
            let matcher = self.matcher(MatcherKey {
                terms: vec![(names, rule.selector.clone())],
                living: true,
            });
            let mut keys: Vec<Symbol> = if request.default_spread {
                Vec::new()
            } else {
                request
                    .spread
                    .iter()
                    .filter(|r| r.hard == rule.hard)
                    .map(|r| r.key)
                    .collect()
            };
            keys.sort_unstable();
            keys.dedup();
            let (wanted, tolerated) = (&request.placement, rule.honor_taints);
            let honored = Placement {
                selector: if rule.honor_affinity {
                    wanted.selector.clone()
                } else {
                    Vec::new()
                },
                required: wanted.required.clone().filter(|_| rule.honor_affinity),
                preferred: Vec::new(),
                tolerations: if tolerated {
                    wanted.tolerations.clone()
                } else {
                    Vec::new()
                },
            };
            let eligibility = EligibilityKey {
                placement: honored,
                honor_taints: tolerated,
                keys,
            };
            let key = self.topology.key(rule.key, &self.nodes);
            let symbols = &self.compiler.symbols;
            let counter = self.counters.counter(
                matcher,
                key,
                Some(eligibility),
                &self.nodes,
                &self.topology,
                symbols,
            );
            let own = self.counters.would_match(matcher, &request.group, symbols);
            watches.push(matcher);
            let rule_out = if rule.hard { &mut hard } else { &mut soft };
            rule_out.push(SpreadRule {
                counter,
                key,
                max_skew: rule.max_skew,
                min_domains: rule.min_domains,
                own: i64::from(own),
            });
        }
        Class {
            request,
            group,
            placement,
            shape,
            affinity,
            own_affinity,
            anti_affinity,
            preferred,
            hard,
            soft,
            carries,
            watches,
        }
    }

    fn matcher(&mut self, key: MatcherKey) -> MatcherId {
        self.counters.matcher(key, &self.compiler.symbols)
    }

    fn count(&mut self, matcher: MatcherId, key: Symbol) -> CounterId {
        let key = self.topology.key(key, &self.nodes);
        self.counters.counter(
            matcher,
            key,
            None,
            &self.nodes,
            &self.topology,
            &self.compiler.symbols,
        )
    }

    fn carrier(&mut self, term: &Term) -> (CarrierId, MatcherId) {
        let terms = vec![(term.namespaces.clone(), term.selector.clone())];
        let matcher = self.matcher(MatcherKey {
            terms,
            living: false,
        });
        let key = self.topology.key(term.key, &self.nodes);
        (self.counters.carrier(matcher, key), matcher)
    }

    fn placement(&mut self, key: &Placement) -> u32 {
        if let Some(id) = self.placement_ids.get(key) {
            return *id;
        }
        let id = index(self.placements.len());
        let pins = key.pins();
        let allowed = if pins.is_some() {
            NodeSet::default()
        } else {
            (0..index(self.nodes.slots()))
                .map(|n| allows(key, &self.nodes, n, &self.compiler))
                .collect()
        };
        let state = PlacementState {
            key: key.clone(),
            pins,
            allowed,
            statics: Vec::new(),
            version: 0,
            stale: true,
        };
        self.placements.push(state);
        self.placement_ids.insert(key.clone(), id);
        id
    }

    fn shape(&mut self, shape: &Shape) -> u32 {
        if let Some(id) = self.shape_ids.get(shape) {
            return *id;
        }
        let id = index(self.shapes.len());
        self.shapes.push(ShapeState {
            shape: shape.clone(),
            decisions: 0,
        });
        self.shape_ids.insert(shape.clone(), id);
        id
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

    /// Whether a pod of class `other` coming or going may change where `class` fits.
    #[must_use]
    pub fn concerns(&self, class: ClassId, other: ClassId) -> bool {
        let (class, other) = (
            &self.classes[class.0 as usize],
            &self.classes[other.0 as usize],
        );
        let matchers = &self.counters.groups[other.group.0 as usize].matchers;
        if class.watches.iter().any(|m| matchers.contains(m)) {
            return true;
        }
        // The other side: anti-affinity that the other pod carries against this class.
        let own = &self.counters.groups[class.group.0 as usize].matchers;
        other
            .carries
            .iter()
            .filter(|(_, forbids, _)| *forbids)
            .any(|(carrier, ..)| {
                own.iter().any(|m| {
                    self.counters.matchers[m.0 as usize]
                        .carriers
                        .contains(carrier)
                })
            })
    }

    /// The group of a class.
    #[must_use]
    pub fn group_key(&self, class: ClassId) -> &GroupKey {
        &self.classes[class.0 as usize].request.group
    }

    // Ranks.

    /// The rank to decide a class from, up to date.
    pub fn rank(&mut self, placement: u32, key: Option<KeyId>, shape: u32) -> RankId {
        self.decisions += 1;
        let state = &mut self.shapes[shape as usize];
        state.decisions = state.decisions.saturating_add(1);
        let own = (placement, key, Some(shape));
        if let Some(index) = self.rank_ids.get(&own) {
            let id = RankId {
                index: *index,
                exact: true,
            };
            self.sync(id, placement, Some(shape));
            return id;
        }
        if state.decisions > SHAPE_PAYS_AFTER
            && let Some(index) = self.shape_rank(own)
        {
            let id = RankId { index, exact: true };
            self.sync(id, placement, Some(shape));
            return id;
        }
        let shared = (placement, key, None);
        let index = match self.rank_ids.get(&shared) {
            Some(index) => *index,
            None => self.shared_rank(shared),
        };
        let id = RankId {
            index,
            exact: false,
        };
        self.sync(id, placement, None);
        id
    }

    /// A new shared rank, in place of the one unused for longest if there are many.
    fn shared_rank(&mut self, key: RankKey) -> usize {
        let idle = self
            .shared_ranks
            .iter()
            .enumerate()
            .min_by_key(|(_, (_, index))| self.ranks[*index].used);
        let index = match idle {
            Some((slot, (_, index))) if self.shared_ranks.len() >= MOST_SHARED_RANKS => {
                let index = *index;
                let (old, _) = std::mem::replace(&mut self.shared_ranks[slot], (key, index));
                self.rank_ids.remove(&old);
                self.ranks[index] = Rank::new(key.1);
                index
            }
            _ => {
                self.ranks.push(Rank::new(key.1));
                self.shared_ranks.push((key, self.ranks.len() - 1));
                self.ranks.len() - 1
            }
        };
        self.rank_ids.insert(key, index);
        index
    }

    /// A new rank for one shape, if there is room for it or one that is idle.
    fn shape_rank(&mut self, key: RankKey) -> Option<usize> {
        let fresh = Rank::new(key.1);
        let index = if self.shape_ranks.len() < MOST_SHAPE_RANKS {
            self.ranks.push(fresh);
            self.shape_ranks.push((key, self.ranks.len() - 1));
            self.ranks.len() - 1
        } else {
            let (slot, (_, index)) = self
                .shape_ranks
                .iter()
                .enumerate()
                .min_by_key(|(_, (_, index))| self.ranks[*index].used)?;
            let index = *index;
            if self.ranks[index].used + RANK_IDLE > self.decisions {
                return None;
            }
            let (old, _) = std::mem::replace(&mut self.shape_ranks[slot], (key, index));
            self.rank_ids.remove(&old);
            self.ranks[index] = fresh;
            index
        };
        self.rank_ids.insert(key, index);
        Some(index)
    }

    fn sync(&mut self, id: RankId, placement: u32, shape: Option<u32>) {
        self.refresh_statics(placement);
        let none = Shape::default();
        let state = &self.placements[placement as usize];
        let view = View {
            nodes: &self.nodes,
            topology: &self.topology,
            allowed: &state.allowed,
            statics: &state.statics,
            shape: shape.map_or(&none, |s| &self.shapes[s as usize].shape),
        };
        let rank = &mut self.ranks[id.index];
        rank.used = self.decisions;
        let end = self.log_start + self.log.len() as u64;
        let behind = end.checked_sub(rank.cursor);
        let rebuild = rank.version != state.version
            || rank.cursor < self.log_start
            || behind.is_none_or(|b| b > self.nodes.slots() as u64 + 64);
        if rebuild {
            rank.version = state.version;
            rank.rebuild(&view);
        } else {
            let from = usize::try_from(rank.cursor - self.log_start).unwrap_or_default();
            for node in &self.log[from..] {
                rank.refresh(*node, &view);
            }
        }
        rank.cursor = end;
    }

    /// Scores of preferred node affinity and PreferNoSchedule taints, normalised over the allowed nodes.
    pub(super) fn refresh_statics(&mut self, placement: u32) {
        let state = &mut self.placements[placement as usize];
        if !std::mem::take(&mut state.stale) {
            return;
        }
        let fresh = statics(state, &self.nodes, &self.compiler);
        if fresh != state.statics {
            state.statics = fresh;
            state.version += 1;
        }
    }
}

/// Whether a placement allows a node: it is there, takes pods, its taints are tolerated and it is selected.
pub fn allows(key: &Placement, nodes: &Nodes, node: u32, compiler: &Compiler) -> bool {
    let node = &nodes.all[node as usize];
    node.known
        && (!node.unschedulable || tolerates_unschedulable(key, compiler))
        && key.tolerates(&node.taints)
        && key.selects(node.name, &node.labels, &compiler.symbols)
}

/// Whether the placement tolerates the taint that stands for `spec.unschedulable`.
pub fn tolerates_unschedulable(key: &Placement, compiler: &Compiler) -> bool {
    use super::request::Effect;
    key.tolerations.iter().any(|t| {
        t.effect.is_none_or(|e| e == Effect::NoSchedule)
            && t.key
                .is_none_or(|k| compiler.symbols.text(k) == "node.kubernetes.io/unschedulable")
            && t.value.is_none_or(|v| compiler.symbols.text(v).is_empty())
    })
}

fn statics(state: &PlacementState, nodes: &Nodes, compiler: &Compiler) -> Vec<u16> {
    if state.key.preferred.is_empty() && nodes.disliked == 0 {
        return Vec::new();
    }
    let mut raw = vec![(0, 0); nodes.slots()];
    for at in state.allowed.iter() {
        let node = &nodes.all[at];
        let preference = state
            .key
            .preference(node.name, &node.labels, &compiler.symbols);
        raw[at] = (preference, state.key.disliked(&node.taints));
    }
    let liked = raw.iter().map(|r| r.0).max().unwrap_or_default();
    let disliked = raw.iter().map(|r| r.1).max().unwrap_or_default();
    if liked == 0 && disliked == 0 {
        return Vec::new();
    }
    let score = |(preference, dislike): (i64, i64)| {
        let affinity = if liked == 0 {
            0
        } else {
            preference * 100 / liked
        };
        let taints = if disliked == 0 {
            100
        } else {
            100 - dislike * 100 / disliked
        };
        u16::try_from(2 * affinity + 3 * taints).unwrap_or_default()
    };
    raw.into_iter().map(score).collect()
}
