//! Incremental counts: how many placed pods a selector matches, by topology domain, and what placed pods' own
//! affinity terms forbid or prefer, by domain. Kept as pods and nodes come and go; a decision only reads them.
//!
//! - A [`Group`] is a set of pods that no selector tells apart (namespace, labels, terminating or not).
//! - A [`Matcher`] is a conjunction of pod selectors; it knows which groups it matches and counts their pods by node.
//! - A [`Counter`] sums a matcher by the domains of one topology key, for spread over eligible nodes only.
//! - A [`Carrier`] is a matcher seen from the other side: pods that carry a term with it, by domain.

use super::bits::NodeSet;
use super::nodes::Nodes;
use super::request::{GroupKey, Placement};
use super::selector::{Namespaces, Selector};
use super::symbols::{Labels, Symbol, Symbols};
use super::topology::{KeyId, NONE, Topology};
use rustc_hash::FxHashMap;

mod carrier;
mod counter;

pub use carrier::{Carrier, Toll};
pub use counter::Counter;

/// Index of a [`Group`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupId(pub u32);
/// Index of a [`Matcher`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MatcherId(pub u32);
/// Index of a [`Counter`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CounterId(pub u32);
/// Index of a [`Carrier`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CarrierId(pub u32);

/// Pods that no selector tells apart.
pub struct Group {
    pub key: GroupKey,
    pub matchers: Vec<MatcherId>,
    nodes: FxHashMap<u32, u32>,
}

/// What a matcher selects.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MatcherKey {
    /// All must match.
    pub terms: Vec<(Namespaces, Selector)>,
    /// Terminating pods are not counted.
    pub living: bool,
}

/// A conjunction of selectors with the pods it matches.
pub struct Matcher {
    key: MatcherKey,
    nodes: FxHashMap<u32, u32>,
    pub total: u32,
    counters: Vec<CounterId>,
    pub carriers: Vec<CarrierId>,
}

/// Over which nodes spread counts (node inclusion policies and the pod's other topology keys).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EligibilityKey {
    /// Selector and required affinity only, if honoured; tolerations only, if honoured.
    pub placement: Placement,
    pub honor_taints: bool,
    pub keys: Vec<Symbol>,
}

struct Eligibility {
    key: EligibilityKey,
    nodes: NodeSet,
}

/// All groups, matchers and counts.
#[derive(Default)]
pub struct Counters {
    pub groups: Vec<Group>,
    group_ids: FxHashMap<GroupKey, GroupId>,
    by_namespace: FxHashMap<Symbol, Vec<GroupId>>,
    pub matchers: Vec<Matcher>,
    matcher_ids: FxHashMap<MatcherKey, MatcherId>,
    /// Matchers whose matches all carry a label; the rest are tried on every group.
    by_label: FxHashMap<(Symbol, Symbol), Vec<MatcherId>>,
    unlabelled: Vec<MatcherId>,
    pub counters: Vec<Counter>,
    counter_ids: FxHashMap<(MatcherId, KeyId, Option<u32>), CounterId>,
    pub carriers: Vec<Carrier>,
    carrier_ids: FxHashMap<(MatcherId, KeyId), CarrierId>,
    eligibilities: Vec<Eligibility>,
    eligibility_ids: FxHashMap<EligibilityKey, u32>,
    namespaces: FxHashMap<Symbol, Labels>,
}

fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Counters {
    fn matches(&self, key: &MatcherKey, group: &GroupKey, symbols: &Symbols) -> bool {
        let labels = self
            .namespaces
            .get(&group.namespace)
            .map_or(&[][..], Vec::as_slice);
        !(key.living && group.terminating)
            && key.terms.iter().all(|(namespaces, selector)| {
                namespaces.contain(group.namespace, labels, symbols)
                    && selector.matches(&group.labels, symbols)
            })
    }

    /// Forgets everything but namespaces.
    pub fn clear(&mut self) {
        *self = Self {
            namespaces: std::mem::take(&mut self.namespaces),
            ..Self::default()
        };
    }

    /// Whether a pod of the group would be counted by the matcher.
    #[must_use]
    pub fn would_match(&self, matcher: MatcherId, group: &GroupKey, symbols: &Symbols) -> bool {
        self.matches(&self.matchers[matcher.0 as usize].key, group, symbols)
    }

    /// The group, new or known.
    pub fn group(&mut self, key: &GroupKey, symbols: &Symbols) -> GroupId {
        if let Some(id) = self.group_ids.get(key) {
            return *id;
        }
        let labelled = key
            .labels
            .iter()
            .filter_map(|label| self.by_label.get(label))
            .flatten();
        let candidates = labelled.chain(&self.unlabelled).copied();
        let matchers = candidates
            .filter(|m| self.would_match(*m, key, symbols))
            .collect();
        let id = GroupId(index(self.groups.len()));
        self.groups.push(Group {
            key: key.clone(),
            matchers,
            nodes: FxHashMap::default(),
        });
        self.group_ids.insert(key.clone(), id);
        self.by_namespace.entry(key.namespace).or_default().push(id);
        id
    }

    /// The matcher, new or known. A new one counts the pods that are there.
    pub fn matcher(&mut self, key: MatcherKey, symbols: &Symbols) -> MatcherId {
        if let Some(id) = self.matcher_ids.get(&key) {
            return *id;
        }
        let id = MatcherId(index(self.matchers.len()));
        match key
            .terms
            .iter()
            .find_map(|(_, selector)| selector.certain_label())
        {
            Some(label) => self.by_label.entry(label).or_default().push(id),
            None => self.unlabelled.push(id),
        }
        self.matcher_ids.insert(key.clone(), id);
        self.matchers.push(Matcher {
            key,
            nodes: FxHashMap::default(),
            total: 0,
            counters: Vec::new(),
            carriers: Vec::new(),
        });
        self.fill(id, symbols);
        id
    }

    /// Finds a matcher's groups and counts their pods. The matcher has no counters yet, or they have been emptied.
    fn fill(&mut self, id: MatcherId, symbols: &Symbols) {
        let key = self.matchers[id.0 as usize].key.clone();
        let candidates: Vec<GroupId> = match key.terms.first() {
            Some((namespaces, _)) if namespaces.selected.is_none() => namespaces
                .names
                .iter()
                .filter_map(|n| self.by_namespace.get(n))
                .flatten()
                .copied()
                .collect(),
            _ => (0..index(self.groups.len())).map(GroupId).collect(),
        };
        for group in candidates {
            if self.matches(&key, &self.groups[group.0 as usize].key, symbols) {
                let group = &mut self.groups[group.0 as usize];
                group.matchers.push(id);
                let matcher = &mut self.matchers[id.0 as usize];
                for (node, pods) in &group.nodes {
                    *matcher.nodes.entry(*node).or_default() += pods;
                    matcher.total += pods;
                }
            }
        }
    }

    /// The counter of a matcher by a topology key, over all nodes or the eligible ones.
    pub fn counter(
        &mut self,
        matcher: MatcherId,
        key: KeyId,
        eligibility: Option<EligibilityKey>,
        nodes: &Nodes,
        topology: &Topology,
        symbols: &Symbols,
    ) -> CounterId {
        let eligibility = eligibility.map(|e| self.eligibility(e, nodes, symbols));
        if let Some(id) = self.counter_ids.get(&(matcher, key, eligibility)) {
            return *id;
        }
        let id = CounterId(index(self.counters.len()));
        let mut counter = Counter {
            matcher,
            key,
            eligibility,
            counts: FxHashMap::default(),
            nodes: FxHashMap::default(),
            histogram: Vec::new(),
            min: 0,
        };
        let counted = &self.matchers[matcher.0 as usize].nodes;
        for node in 0..index(nodes.slots()) {
            let domain = topology.domain(key, node);
            if domain != NONE && self.counts_at(&counter, node) {
                if counter.eligibility.is_some() {
                    counter.enter(domain);
                }
                if let Some(pods) = counted.get(&node) {
                    counter.add(domain, *pods);
                }
            }
        }
        self.counters.push(counter);
        self.counter_ids.insert((matcher, key, eligibility), id);
        self.matchers[matcher.0 as usize].counters.push(id);
        id
    }

    fn counts_at(&self, counter: &Counter, node: u32) -> bool {
        counter.eligibility.is_none_or(|e| self.eligible(e, node))
    }

    fn eligible(&self, eligibility: u32, node: u32) -> bool {
        self.eligibilities[eligibility as usize]
            .nodes
            .contains(node as usize)
    }

    fn eligibility(&mut self, key: EligibilityKey, nodes: &Nodes, symbols: &Symbols) -> u32 {
        if let Some(id) = self.eligibility_ids.get(&key) {
            return *id;
        }
        let bits = (0..nodes.slots())
            .map(|n| judge(&key, nodes, n, symbols))
            .collect();
        let id = index(self.eligibilities.len());
        self.eligibilities.push(Eligibility {
            key: key.clone(),
            nodes: bits,
        });
        self.eligibility_ids.insert(key, id);
        id
    }

    /// The carrier of a matcher by a topology key.
    pub fn carrier(&mut self, matcher: MatcherId, key: KeyId) -> CarrierId {
        if let Some(id) = self.carrier_ids.get(&(matcher, key)) {
            return *id;
        }
        let id = CarrierId(index(self.carriers.len()));
        self.carriers.push(Carrier {
            key,
            domains: FxHashMap::default(),
            nodes: FxHashMap::default(),
            total: Toll::default(),
        });
        self.carrier_ids.insert((matcher, key), id);
        self.matchers[matcher.0 as usize].carriers.push(id);
        id
    }

    /// A pod of the group came to the node.
    pub fn place(&mut self, group: GroupId, node: u32, topology: &Topology) {
        let Self {
            groups,
            matchers,
            counters,
            eligibilities,
            ..
        } = self;
        let group = &mut groups[group.0 as usize];
        *group.nodes.entry(node).or_default() += 1;
        for id in &group.matchers {
            let matcher = &mut matchers[id.0 as usize];
            *matcher.nodes.entry(node).or_default() += 1;
            matcher.total += 1;
            for id in &matcher.counters {
                let counter = &mut counters[id.0 as usize];
                let domain = topology.domain(counter.key, node);
                if domain != NONE && counts(eligibilities, counter, node) {
                    counter.add(domain, 1);
                }
            }
        }
    }

    /// The counters that count a pod of the group on the node, with the domain that it is in.
    pub fn counted(
        &self,
        group: GroupId,
        node: u32,
        topology: &Topology,
        mut each: impl FnMut(CounterId, u32),
    ) {
        for id in &self.groups[group.0 as usize].matchers {
            for id in &self.matchers[id.0 as usize].counters {
                let counter = &self.counters[id.0 as usize];
                let domain = topology.domain(counter.key, node);
                if domain != NONE && counts(&self.eligibilities, counter, node) {
                    each(*id, domain);
                }
            }
        }
    }

    /// A pod of the group left the node.
    pub fn unplace(&mut self, group: GroupId, node: u32, topology: &Topology) {
        let Self {
            groups,
            matchers,
            counters,
            eligibilities,
            ..
        } = self;
        let group = &mut groups[group.0 as usize];
        decrease(&mut group.nodes, node, 1);
        for id in &group.matchers {
            let matcher = &mut matchers[id.0 as usize];
            decrease(&mut matcher.nodes, node, 1);
            matcher.total -= 1;
            for id in &matcher.counters {
                let counter = &mut counters[id.0 as usize];
                let domain = topology.domain(counter.key, node);
                if domain != NONE && counts(eligibilities, counter, node) {
                    counter.subtract(domain, 1);
                }
            }
        }
    }

    /// A pod that carries a term came (`sign` 1) or went (-1).
    pub fn carry(&mut self, id: CarrierId, node: u32, toll: Toll, sign: i64, topology: &Topology) {
        let carrier = &mut self.carriers[id.0 as usize];
        let signed = toll.times(sign);
        Carrier::change(&mut carrier.nodes, node, signed);
        let domain = topology.domain(carrier.key, node);
        if domain != NONE {
            Carrier::change(&mut carrier.domains, domain, signed);
        }
        carrier.total.add(toll.size().times(sign));
    }

    /// Before a node's labels or taints change, or it goes: takes it out of all domains.
    pub fn node_leaves(&mut self, node: u32, topology: &Topology) {
        let Self {
            matchers,
            counters,
            eligibilities,
            carriers,
            ..
        } = self;
        for counter in counters {
            let domain = topology.domain(counter.key, node);
            if domain == NONE || !counts(eligibilities, counter, node) {
                continue;
            }
            if let Some(pods) = matchers[counter.matcher.0 as usize].nodes.get(&node) {
                counter.subtract(domain, *pods);
            }
            if counter.eligibility.is_some() {
                counter.leave(domain);
            }
        }
        for carrier in carriers {
            let domain = topology.domain(carrier.key, node);
            if let Some(tolls) = carrier.nodes.get(&node).filter(|_| domain != NONE) {
                Carrier::change(&mut carrier.domains, domain, tolls.times(-1));
            }
        }
    }

    /// After a node came or changed: puts it into its domains.
    pub fn node_enters(
        &mut self,
        node: u32,
        nodes: &Nodes,
        topology: &Topology,
        symbols: &Symbols,
    ) {
        let Self {
            matchers,
            counters,
            eligibilities,
            carriers,
            ..
        } = self;
        for eligibility in eligibilities.iter_mut() {
            let eligible = judge(&eligibility.key, nodes, node as usize, symbols);
            eligibility.nodes.set(node as usize, eligible);
        }
        for counter in counters {
            let domain = topology.domain(counter.key, node);
            if domain == NONE || !counts(eligibilities, counter, node) {
                continue;
            }
            if counter.eligibility.is_some() {
                counter.enter(domain);
            }
            if let Some(pods) = matchers[counter.matcher.0 as usize].nodes.get(&node) {
                counter.add(domain, *pods);
            }
        }
        for carrier in carriers {
            let domain = topology.domain(carrier.key, node);
            if let Some(tolls) = carrier.nodes.get(&node).filter(|_| domain != NONE) {
                Carrier::change(&mut carrier.domains, domain, *tolls);
            }
        }
    }

    /// A namespace's labels changed (`None`: it is gone): matchers that select namespaces look again.
    /// Returns whether any did.
    pub fn namespace(
        &mut self,
        name: Symbol,
        labels: Option<Labels>,
        topology: &Topology,
        symbols: &Symbols,
    ) -> bool {
        let old = match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
        if old.as_ref() == self.namespaces.get(&name) {
            return false;
        }
        let selecting: Vec<MatcherId> = (0..index(self.matchers.len()))
            .map(MatcherId)
            .filter(|m| {
                self.matchers[m.0 as usize]
                    .key
                    .terms
                    .iter()
                    .any(|(n, _)| n.selected.is_some())
            })
            .collect();
        for id in &selecting {
            for group in &mut self.groups {
                group.matchers.retain(|m| m != id);
            }
            let matcher = &mut self.matchers[id.0 as usize];
            matcher.total = 0;
            let counted = std::mem::take(&mut matcher.nodes);
            let ids = matcher.counters.clone();
            self.apply(&ids, &counted, topology, Counter::subtract);
            self.fill(*id, symbols);
            let counted = self.matchers[id.0 as usize].nodes.clone();
            self.apply(&ids, &counted, topology, Counter::add);
        }
        !selecting.is_empty()
    }

    fn apply(
        &mut self,
        ids: &[CounterId],
        counted: &FxHashMap<u32, u32>,
        topology: &Topology,
        change: fn(&mut Counter, u32, u32),
    ) {
        let Self {
            counters,
            eligibilities,
            ..
        } = self;
        for id in ids {
            let counter = &mut counters[id.0 as usize];
            for (node, pods) in counted {
                let domain = topology.domain(counter.key, *node);
                if domain != NONE && counts(eligibilities, counter, *node) {
                    change(counter, domain, *pods);
                }
            }
        }
    }
}

fn counts(eligibilities: &[Eligibility], counter: &Counter, node: u32) -> bool {
    counter
        .eligibility
        .is_none_or(|e| eligibilities[e as usize].nodes.contains(node as usize))
}

fn judge(key: &EligibilityKey, nodes: &Nodes, node: usize, symbols: &Symbols) -> bool {
    let node = &nodes.all[node];
    node.known
        && key
            .keys
            .iter()
            .all(|k| super::symbols::value_of(&node.labels, *k).is_some())
        && key.placement.selects(node.name, &node.labels, symbols)
        && key
            .placement
            .refused(node.name, &node.labels, symbols)
            .is_none()
        && (!key.honor_taints || key.placement.tolerates(&node.taints))
}

fn decrease(map: &mut FxHashMap<u32, u32>, at: u32, by: u32) {
    if let Some(count) = map.get_mut(&at) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            map.remove(&at);
        }
    }
}
