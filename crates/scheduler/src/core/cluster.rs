//! The cluster as the scheduler knows it: nodes, placed pods, classes of pods and everything derived from them,
//! changed in place by events. Assumed pods (decided, not yet seen bound) are placed like any other.

use super::class::{Class, ClassId};
use super::counters::Counters;
use super::decide::Choice;
use super::devices::{DeviceNeeds, Devices, IdleClaim, Wanted};
use super::gang::Gangs;
use super::images::Images;
use super::nodes::{NodeChange, NodeId, NodeState, Nodes};
use super::numa::Numa;
use super::object;
use super::overlay::Overlay;
use super::policy::Policies;
use super::preempt::Budget;
use super::profile::{Profile, ProfileId, Rule, Rules};
use super::quota::Quotas;
use super::rank::Rank;
use super::ranking::{PlacementState, RankKey, ShapeState, allows};
use super::request::{Compiler, Placement, Request, Shape};
use super::reservation::Reservations;
use super::selector::Selector;
use super::services::Services;
use super::symbols::{Symbol, Symbols};
use super::topology::Topology;
use super::volumes::{Assumed, Progress, Volumes};
use gantry_api::placement_policy::PackingStrategy;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

mod pods;

/// A placed pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub class: ClassId,
    pub node: NodeId,
    /// When it started to run, in seconds since 1970; the end of time if it has not yet.
    pub started: i64,
    /// The quota that it counts in.
    pub quota: Option<u32>,
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
    /// Devices, or claims to them, changed.
    Device,
    /// A node's usage was measured, or its measurement is ignored from now on.
    Measured,
    /// Placement policies or quotas changed.
    Rules,
    /// A pod group came or changed, or has one more member.
    Gang,
}

/// The cluster.
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
    pub priorities: BTreeMap<i32, usize>,
    pub budgets: BTreeMap<(String, String), Budget>,
    pub(super) services: FxHashMap<Symbol, FxHashMap<String, Selector>>,
    pub(super) owners: FxHashMap<(Symbol, Symbol, Symbol), Selector>,
    pub volumes: Volumes,
    pub devices: Devices,
    pub images: Images,
    /// By scheduler name; the first is for pods of others too.
    pub profiles: Vec<Rules>,
    pub policies: Policies,
    pub quotas: Quotas,
    pub gangs: Gangs,
    pub reservations: Reservations,
    pub numa: Numa,
    pub hours: Services,
    /// The slot that the last choice would take.
    pub(super) slot: Option<Arc<str>>,
    /// Policies changed, and are not yet in the requests.
    pub(super) rules_changed: bool,
    /// Profiles that differ from configured ones in how they pack: of which, how, and their own id.
    pub(super) variants: Vec<(ProfileId, PackingStrategy, ProfileId)>,
    /// Nodes changed since `log_start`, oldest first.
    pub(super) log: Vec<u32>,
    pub(super) log_start: u64,
    /// How often a pod was taken off a node.
    pub(super) lifts: u64,
    /// What a rank without a shape is for.
    pub(super) no_shape: Shape,
    /// What the only decider has decided that is not known yet: nothing.
    pub(super) nothing: Overlay,
    /// Number of decisions made.
    pub decisions: u64,
    /// How the last decision went.
    pub choice: Choice,
    /// What happened since they were last taken.
    pub events: Vec<Event>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// An empty cluster with the default profile.
    #[must_use]
    pub fn new() -> Self {
        Self::with_profiles(vec![Profile::default()])
    }

    /// An empty cluster. Without any profile, the default one is taken.
    #[must_use]
    pub fn with_profiles(mut profiles: Vec<Profile>) -> Self {
        if profiles.is_empty() {
            profiles.push(Profile::default());
        }
        profiles.truncate(usize::from(u8::MAX));
        let mut compiler = Compiler::default();
        let expiry = profiles
            .iter()
            .filter_map(|p| Some(p.load.as_ref()?.expiry));
        // One clock for all profiles: the most careful one's.
        let expiry = expiry.min();
        let profiles = profiles
            .into_iter()
            .map(|profile| Rules::resolve(profile, &mut compiler.symbols))
            .collect();
        let mut cluster = Self {
            compiler,
            profiles,
            nodes: Nodes::default(),
            topology: Topology::default(),
            counters: Counters::default(),
            classes: Vec::new(),
            free_classes: Vec::new(),
            made: 0,
            in_use: 0,
            class_ids: FxHashMap::default(),
            placements: Vec::new(),
            placement_ids: FxHashMap::default(),
            shapes: Vec::new(),
            shape_ids: FxHashMap::default(),
            ranks: Vec::new(),
            rank_ids: FxHashMap::default(),
            shape_ranks: Vec::new(),
            shared_ranks: Vec::new(),
            pods: FxHashMap::default(),
            on_node: Vec::new(),
            priorities: BTreeMap::new(),
            budgets: BTreeMap::new(),
            services: FxHashMap::default(),
            owners: FxHashMap::default(),
            volumes: Volumes::default(),
            devices: Devices::default(),
            images: Images::default(),
            policies: Policies::default(),
            quotas: Quotas::default(),
            gangs: Gangs::default(),
            reservations: Reservations::default(),
            numa: Numa::default(),
            hours: Services::default(),
            slot: None,
            rules_changed: false,
            variants: Vec::new(),
            log: Vec::new(),
            log_start: 0,
            lifts: 0,
            no_shape: Shape::default(),
            nothing: Overlay::default(),
            decisions: 0,
            choice: Choice::default(),
            events: Vec::new(),
        };
        if let Some(expiry) = expiry {
            cluster.watch_load(expiry);
        }
        if cluster
            .profiles
            .iter()
            .any(|r| r.weight(Rule::Services) > 0)
        {
            cluster.watch_services();
        }
        if cluster
            .profiles
            .iter()
            .any(|r| r.extended().next().is_some())
        {
            cluster.devices.watch_totals();
        }
        cluster
    }

    /// The profile by which a pod is placed: that of its scheduler name, else the first.
    #[must_use]
    pub fn profile_of(&self, pod: &object::Pod) -> ProfileId {
        let name = pod.scheduler_name();
        let of = |rules: &Rules| rules.profile.scheduler_name == name;
        let at = self.profiles.iter().position(of).unwrap_or_default();
        ProfileId(u8::try_from(at).unwrap_or_default())
    }

    /// The rules that a class is placed by.
    #[must_use]
    pub fn rules(&self, class: ClassId) -> &Rules {
        let profile = self.classes[class.0 as usize].request.profile;
        &self.profiles[profile.0 as usize]
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
        // Scored at each decision, so that no rank has to know.
        self.images
            .set(id.0, &node.status.images, &mut self.compiler.symbols);
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
            self.recount_quotas(id);
            self.devices.node_changed(name);
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
        self.images.set(id.0, &[], &mut self.compiler.symbols);
        self.nodes.unset(id);
        self.counters
            .node_enters(id.0, &self.nodes, &self.topology, &self.compiler.symbols);
        self.judge_node(id.0);
        self.recount_quotas(id);
        self.touch(id.0);
        self.nodes.release(id);
        self.events.push(Event::NodeRemoved);
    }

    /// Judges one node for all placements.
    fn judge_node(&mut self, node: u32) {
        let scored = self.nodes.disliked > 0;
        for placement in &mut self.placements {
            placement.stale |= scored || !placement.statics.is_empty() || placement.key.prefers();
            if placement.pins.is_some() {
                continue;
            }
            let allowed = allows(&placement.key, &self.nodes, node, &self.compiler);
            placement.allowed.set(node as usize, allowed);
        }
    }

    /// Notes a changed node for the ranks.
    pub(super) fn touch(&mut self, node: u32) {
        if self.log.len() > 4 * self.nodes.slots() + 4096 {
            let gone = self.log.len() / 2;
            self.log.drain(..gone);
            self.log_start += gone as u64;
        }
        self.log.push(node);
    }

    // Other objects.

    /// A namespace came, changed or (`None`) went.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&BTreeMap<String, String>>) {
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
        selector: Option<&BTreeMap<String, String>>,
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

    // Volumes. What changes may let a pod fit that waits for its claims.

    /// Lets the volumes change, and notes whether they did.
    pub fn change_volumes(&mut self, change: impl FnOnce(&mut Volumes, &mut Symbols) -> bool) {
        if change(&mut self.volumes, &mut self.compiler.symbols) {
            self.events.push(Event::Claim);
        }
    }

    /// Lets devices or the claims to them change, and notes whether that may let a pod fit.
    pub fn change_devices(&mut self, change: impl FnOnce(&mut Devices, &mut Symbols) -> bool) {
        if change(&mut self.devices, &mut self.compiler.symbols) {
            self.events.push(Event::Device);
        }
        if let Some(delegated) = self.devices.take_remapped() {
            self.nodes.delegated = delegated;
            // For those who wait for such a resource, all nodes have changed.
            self.events.push(Event::NodeAllocatable);
            // Nodes that did not fit may now, and the other way round.
            self.ranks.iter_mut().for_each(Rank::outdate);
        }
    }

    /// Whether pods with such a request are given devices.
    #[must_use]
    pub(super) fn asks_devices(&self, request: &Request) -> bool {
        let extended = request.extended.as_ref();
        request.devices.is_some() || extended.is_some_and(|e| self.devices.serves(e))
    }

    /// What a request asks of devices; of which pod, where that matters.
    #[inline]
    pub(super) fn device_needs<'a>(
        &'a self,
        request: &'a Request,
        pod: &'a str,
    ) -> Option<Box<DeviceNeeds<'a>>> {
        // Hardly any pod does: what is found for one is kept apart, and small where there is nothing.
        let asks = request.devices.is_some() || request.extended.is_some();
        if !asks {
            return None;
        }
        self.found_devices(request, pod)
    }

    #[cold]
    fn found_devices<'a>(
        &'a self,
        request: &'a Request,
        pod: &'a str,
    ) -> Option<Box<DeviceNeeds<'a>>> {
        if !self.asks_devices(request) {
            return None;
        }
        let wanted = Wanted {
            claims: request.devices.as_deref(),
            extended: request.extended.as_deref(),
            namespace: self.compiler.symbols.text(request.group.namespace),
            uid: pod,
        };
        Some(Box::new(self.devices.needs(wanted, &self.compiler.symbols)))
    }

    /// Holds devices for a pod that was decided for a node. Returns whether there are still enough.
    pub(super) fn assume_devices(&mut self, pod: &str, class: ClassId, node: NodeId) -> bool {
        if !self.asks_devices(&self.classes[class.0 as usize].request) {
            return true;
        }
        let request = self.classes[class.0 as usize].request.clone();
        let symbols = &self.compiler.symbols;
        let wanted = Wanted {
            claims: request.devices.as_deref(),
            extended: request.extended.as_deref(),
            namespace: symbols.text(request.group.namespace),
            uid: pod,
        };
        let node = &self.nodes.all[node.0 as usize];
        self.devices.assume(wanted, node, symbols)
    }

    /// Whether what a decided pod asks of devices is held for it.
    #[must_use]
    pub fn has_devices(&self, class: ClassId, pod: &str) -> bool {
        let request = &self.classes[class.0 as usize].request;
        !self.asks_devices(request) || self.devices.grants(pod).is_some()
    }

    /// Gives back what was held for a pod that is not to be bound.
    pub fn release_devices(&mut self, pod: &str) {
        if self.devices.release(pod) {
            self.events.push(Event::Device);
        }
    }

    /// A claim of the class's pod that keeps it from nodes although nobody uses it.
    #[must_use]
    pub fn idle_device_claim(&self, class: ClassId) -> Option<IdleClaim> {
        let needs = self.device_needs(&self.classes[class.0 as usize].request, "")?;
        let nodes = self.nodes.all.iter().filter(|node| node.known);
        needs.idle(nodes, &self.compiler.symbols)
    }

    /// A claim came or changed.
    pub fn upsert_claim(&mut self, claim: &object::Claim) {
        self.change_volumes(|volumes, symbols| volumes.set_claim(claim, symbols));
    }

    /// A volume came or changed.
    pub fn upsert_volume(&mut self, volume: &object::PersistentVolume) {
        self.change_volumes(|volumes, symbols| volumes.set_volume(volume, symbols));
    }

    /// Holds volumes for the late claims of a class that was decided for a node, and says what is to be written.
    /// `None`: the volumes that were there when the node was chosen are there no more.
    pub fn assume_volumes(&mut self, class: ClassId, node: &str) -> Option<Assumed> {
        let request = &self.classes[class.0 as usize].request;
        if request.claims.is_empty() {
            return Some(Assumed::default());
        }
        let symbols = &self.compiler.symbols;
        let node = symbols.known(node).and_then(|n| self.nodes.find(n))?;
        let node = &self.nodes.all[node.0 as usize];
        self.volumes.assume(&request.claims, node, symbols)
    }

    /// How far the claims of a class are that was decided for a node.
    #[must_use]
    pub fn volume_progress(&self, class: ClassId, node: &str, assumed: &Assumed) -> Progress {
        let request = &self.classes[class.0 as usize].request;
        match self.compiler.symbols.known(node) {
            Some(node) => self.volumes.progress(&request.claims, node, assumed),
            None => Progress::Failed,
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
}
