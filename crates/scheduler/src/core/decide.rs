//! The decision: filters over the best-ranked nodes, scores over those that pass, the highest wins.
//!
//! Filters are exact: a pod is declared unschedulable only after every node was ruled out. Scores follow
//! kube-scheduler's default plugins and weights (fit and balance 1, spread and pod affinity 2, node affinity 2,
//! taints 3). Where kube-scheduler scores a sample of the feasible nodes in the order of its list, this scores the
//! best-ranked feasible nodes of every domain.

use super::class::{Class, ClassId};
use super::cluster::Cluster;
use super::counters::{CounterId, Counters};
use super::diagnosis::Diagnosis;
use super::load::Limits;
use super::nodes::{NodeId, Nodes};
use super::numa::Misfit;
use super::overlay::{Overlay, Pull, Tally};
use super::profile::{Rule, Rules};
use super::rank::Rank;
use super::ranking::RankId;
use super::seats::Seats;
use super::symbols::{Symbol, Symbols};
use super::topology::{KeyId, NONE, Topology};
use super::volumes::Needs;

/// Where a pod goes, or why nowhere.
#[derive(Debug)]
pub enum Decision {
    Place(NodeId),
    Unschedulable(Diagnosis),
}

/// The nodes that a decision was between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// How many were scored: the best of the rank, never all.
    pub considered: u32,
    /// The best three with their scores, the chosen one first.
    pub best: [Option<(NodeId, i64)>; 3],
}

/// Feasible nodes to score where pods around matter, or where the rank is not for the exact request.
const CANDIDATES: usize = 24;
/// Placements that allow no more nodes than this are not ranked.
const FEW: usize = 8;
/// In a list that has a candidate already, look no further than this many nodes.
const LOOK: usize = 512;
/// Nodes taken per preferred neighbourhood.
const NEIGHBOURS: usize = 16;
/// Nodes that have the pod's images to score at least, where there are such.
const HOLDERS: usize = 8;
/// Volumes that leave at most this share of the nodes are a way to them; otherwise the rank is.
const FEW_OF_ALL: usize = 8;

/// Where to look for a node.
pub(super) enum Way {
    /// So few nodes come into question that no rank is worth keeping for them.
    Among(Vec<NodeId>),
    /// A rank, apart by the domains of a key.
    Ranked(RankId, Option<KeyId>),
}

/// One pod's filters with their counters at hand.
pub struct Check<'a> {
    cluster: &'a Cluster,
    /// What the decider has decided that is not known yet.
    overlay: &'a Overlay,
    nodes: &'a Nodes,
    seats: Seats<'a>,
    topology: &'a Topology,
    symbols: &'a Symbols,
    pub(super) class: &'a Class,
    pub(super) rules: &'a Rules,
    /// What its volumes ask of the node.
    pub(super) needs: Needs<'a>,
    /// The placement that is tried: the class's own, or that of one of its pools.
    placement: u32,
    /// Bounds of usage, where there are such.
    limits: Option<Limits>,
    /// Some node may score for having the pod's images.
    pub(super) images: bool,
    affinity: Vec<Tally<'a>>,
    /// No pod matches the required affinity yet and the pod matches it itself: any node with the labels will do.
    first: bool,
    anti_affinity: Vec<Tally<'a>>,
    /// Placed pods' anti-affinity terms that match this pod.
    forbidden: Vec<Pull<'a>>,
    /// Placed pods' preferences that match this pod.
    pub(super) attracted: Vec<Pull<'a>>,
    hard: Vec<Hard<'a>>,
}

struct Hard<'a> {
    key: KeyId,
    counter: Tally<'a>,
    /// The highest count that still takes the pod.
    most: i64,
}

/// Which filter of those that look at other pods rules a node out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbours {
    SpreadLabel,
    Spread,
    Affinity,
    AntiAffinity,
    ExistingAntiAffinity,
}

impl Neighbours {
    /// The same as a reason.
    #[must_use]
    pub const fn reason(self) -> super::diagnosis::Reason {
        use super::diagnosis::Reason;
        match self {
            Self::SpreadLabel => Reason::SpreadLabel,
            Self::Spread => Reason::Spread,
            Self::Affinity => Reason::Affinity,
            Self::AntiAffinity => Reason::AntiAffinity,
            Self::ExistingAntiAffinity => Reason::ExistingAntiAffinity,
        }
    }
}

impl<'a> Check<'a> {
    /// A counter, with what the decider has added.
    pub(super) fn tally(&self, id: CounterId) -> Tally<'a> {
        self.overlay.tally(id, &self.cluster.counters)
    }

    /// The class that is checked.
    pub(super) const fn class(&self) -> &'a Class {
        self.class
    }

    /// Gathers what the class's filters read.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: ClassId) -> Self {
        let placement = cluster.classes[id.0 as usize].placement;
        Self::within(cluster, &cluster.nothing, id, placement)
    }

    /// As [`Check::new`], within one of the class's pools, and with what a worker has decided.
    pub(super) fn within(
        cluster: &'a Cluster,
        overlay: &'a Overlay,
        id: ClassId,
        placement: u32,
    ) -> Self {
        let class = &cluster.classes[id.0 as usize];
        let Counters {
            matchers, groups, ..
        } = &cluster.counters;
        let counter = |id: &CounterId| overlay.tally(*id, &cluster.counters);
        let affinity: Vec<_> = class.affinity.iter().map(counter).collect();
        let rules = cluster.rules(id);
        let aloof = !rules.profile.pod_affinity
            || rules.weight(Rule::PodAffinity) == 0
            || rules.profile.ignore_preferences_of_placed && class.preferred.is_empty();
        let (mut forbidden, mut attracted) = (Vec::new(), Vec::new());
        for matcher in &groups[class.group.0 as usize].matchers {
            for carrier in &matchers[matcher.0 as usize].carriers {
                let carrier = overlay.pull(*carrier, &cluster.counters);
                let total = carrier.total();
                if total.forbids > 0 && rules.profile.pod_affinity {
                    forbidden.push(carrier);
                }
                let seeks = total.seeks > 0 && rules.profile.hard_affinity_weight > 0;
                if !aloof && (seeks || total.weight > 0) {
                    attracted.push(carrier);
                }
            }
        }
        let hard = class.hard.iter().map(|rule| {
            let counter = counter(&rule.counter);
            let enough = i64::try_from(counter.domains()).unwrap_or(i64::MAX) >= rule.min_domains;
            let min = if enough { i64::from(counter.min()) } else { 0 };
            Hard {
                key: rule.key,
                counter,
                most: rule.max_skew + min - rule.own,
            }
        });
        let request = &class.request;
        Self {
            cluster,
            overlay,
            nodes: &cluster.nodes,
            seats: overlay.seats(&cluster.nodes),
            topology: &cluster.topology,
            symbols: &cluster.compiler.symbols,
            needs: cluster.volumes.needs(&request.claims),
            placement,
            limits: cluster.placements[placement as usize].limits,
            images: rules.weight(Rule::Images) > 0
                && cluster.images.matter(&request.images, cluster.nodes.known),
            rules,
            first: class.own_affinity && affinity.iter().all(|c| c.is_empty()),
            affinity,
            anti_affinity: class.anti_affinity.iter().map(counter).collect(),
            forbidden,
            attracted,
            hard: hard.collect(),
            class,
        }
    }

    /// Whether a whole domain of a topology key is ruled out by the pods in it.
    fn domain_fits(&self, key: KeyId, domain: u32) -> bool {
        let there = domain != NONE;
        self.hard
            .iter()
            .filter(|h| h.key == key)
            .all(|h| there && i64::from(h.counter.count(domain)) <= h.most)
            && self
                .affinity
                .iter()
                .filter(|c| c.key() == key)
                .all(|c| there && (self.first || c.count(domain) > 0))
            && self
                .anti_affinity
                .iter()
                .filter(|c| c.key() == key)
                .all(|c| !there || c.count(domain) == 0)
            && self
                .forbidden
                .iter()
                .filter(|c| c.key() == key)
                .all(|c| !there || c.at(domain).forbids == 0)
    }

    /// Whether the pods around a node let it in; constraints on `done` have been checked already.
    fn neighbours_fit(&self, node: u32, done: Option<KeyId>) -> bool {
        let domain = |key: KeyId| self.topology.domain(key, node);
        let open = |key: KeyId| Some(key) != done;
        self.hard.iter().filter(|h| open(h.key)).all(|h| {
            let domain = domain(h.key);
            domain != NONE && i64::from(h.counter.count(domain)) <= h.most
        }) && self.affinity.iter().filter(|c| open(c.key())).all(|c| {
            let domain = domain(c.key());
            domain != NONE && (self.first || c.count(domain) > 0)
        }) && self
            .anti_affinity
            .iter()
            .filter(|c| open(c.key()))
            .all(|c| {
                let domain = domain(c.key());
                domain == NONE || c.count(domain) == 0
            })
            && self.forbidden.iter().filter(|c| open(c.key())).all(|c| {
                let domain = domain(c.key());
                domain == NONE || c.at(domain).forbids == 0
            })
    }

    /// The first filter, in Kubernetes' order, by which the pods around rule the node out.
    #[must_use]
    pub fn neighbours_reject(&self, node: u32) -> Option<Neighbours> {
        for hard in &self.hard {
            let domain = self.topology.domain(hard.key, node);
            if domain == NONE {
                return Some(Neighbours::SpreadLabel);
            }
            if i64::from(hard.counter.count(domain)) > hard.most {
                return Some(Neighbours::Spread);
            }
        }
        for counter in &self.affinity {
            let domain = self.topology.domain(counter.key(), node);
            if domain == NONE || !(self.first || counter.count(domain) > 0) {
                return Some(Neighbours::Affinity);
            }
        }
        for counter in &self.anti_affinity {
            let domain = self.topology.domain(counter.key(), node);
            if domain != NONE && counter.count(domain) > 0 {
                return Some(Neighbours::AntiAffinity);
            }
        }
        for carrier in &self.forbidden {
            let domain = self.topology.domain(carrier.key(), node);
            if domain != NONE && carrier.at(domain).forbids > 0 {
                return Some(Neighbours::ExistingAntiAffinity);
            }
        }
        None
    }

    /// The resource, if any, of which the node would use too much.
    pub(super) fn too_hot(&self, node: u32) -> Option<usize> {
        let limits = self.limits.as_ref()?;
        self.seats.too_hot(node, &self.class.request.shape, limits)
    }

    /// What the node's kubelet could not align, if it insists on it.
    pub(super) fn misfit(&self, node: u32) -> Option<Misfit> {
        let request = &self.class.request;
        if !request.numa && (request.asks.is_none() || self.cluster.numa.is_empty()) {
            return None;
        }
        self.cluster
            .misfit(NodeId(node), request.asks.as_deref(), request.numa)
    }

    /// The filter, if any, by which the pod's volumes rule the node out.
    pub(super) fn volumes_reject(&self, node: u32) -> Option<super::diagnosis::Reason> {
        if self.needs.none() {
            return None;
        }
        self.needs
            .reject(node, &self.nodes.all[node as usize], self.symbols)
    }

    /// Fit, ports, volumes and neighbours.
    pub(super) fn fits(&self, node: u32, fit_known: bool, done: Option<KeyId>) -> bool {
        let request = &self.class.request;
        (fit_known || self.seats.fits(node, &request.shape) && self.too_hot(node).is_none())
            && (request.ports.is_empty() || self.nodes.ports_free(node, &request.ports))
            && self.volumes_reject(node).is_none()
            && self.misfit(node).is_none()
            // A node may be in several pools: what is placed there counts in the first of them.
            && (self.class.pool_quotas.is_empty()
                || self.cluster.quota_refusal_at(self.class, NodeId(node)).is_none())
            && self.neighbours_fit(node, done)
    }

    /// Whether pods around, or images, change the order of nodes.
    pub(super) fn scores(&self) -> bool {
        !self.class.soft.is_empty()
            || !self.class.preferred.is_empty()
            || !self.attracted.is_empty()
            || self.images
            || self.by_service()
            || self.by_numa()
    }

    /// Whether nodes are told apart by their NUMA nodes.
    pub(super) fn by_numa(&self) -> bool {
        self.rules.weight(Rule::Numa) > 0
            && self.class.request.asks.is_some()
            && !self.cluster.numa.is_empty()
    }

    /// Whether nodes are told apart by the hours of their services.
    pub(super) const fn by_service(&self) -> bool {
        self.class.service.is_some() && self.rules.weight(Rule::Services) > 0
    }
}

impl Cluster {
    /// Decides where the next pod of a class goes. Changes nothing but ranks: the caller places the pod.
    pub fn decide(&mut self, id: ClassId) -> Decision {
        match self.choose(id) {
            Some(node) => Decision::Place(node),
            None => Decision::Unschedulable(self.diagnose(id)),
        }
    }

    /// The node for the next pod of a class, if there is one; [`Cluster::choice`] says what it was chosen among.
    pub fn choose(&mut self, id: ClassId) -> Option<NodeId> {
        self.slot = None;
        if !self.reservations.is_empty()
            && let Some((slot, node)) = self.reserved_for(id)
        {
            self.slot = Some(slot);
            self.choice = Choice {
                considered: 1,
                best: [Some((node, 0)), None, None],
            };
            return Some(node);
        }
        self.choose_unreserved(id)
    }

    /// As [`Cluster::choose`], of room that is held for nobody.
    pub(super) fn choose_unreserved(&mut self, id: ClassId) -> Option<NodeId> {
        self.choice = self.choose_best(id)?;
        self.choice.best[0].map(|(node, _)| node)
    }

    fn choose_best(&mut self, id: ClassId) -> Option<Choice> {
        let class = &self.classes[id.0 as usize];
        if class.tiers.is_empty() {
            return self.choose_within(id, class.placement);
        }
        let tiers = class.tiers.clone();
        tiers
            .into_iter()
            .find_map(|tier| self.choose_within(id, tier))
    }

    fn choose_within(&mut self, id: ClassId, placement: u32) -> Option<Choice> {
        let way = self.way(id, placement, 0)?;
        let mut rank = None;
        if let Way::Ranked(ranked, _) = &way {
            self.sync(*ranked, placement, self.classes[id.0 as usize].shape);
            rank = Some(&self.ranks[ranked.index]);
        }
        let check = Check::within(self, &self.nothing, id, placement);
        self.follow(&check, &way, rank)
    }

    /// Where to look for a node within a placement, by which copy of the rank; `None` if that is in vain.
    pub(super) fn way(&mut self, id: ClassId, placement: u32, copy: usize) -> Option<Way> {
        let class = &self.classes[id.0 as usize];
        let shape = class.shape;
        let request = class.request.clone();
        if request.dynamic || self.quota_refusal_within(id, placement).is_some() {
            return None;
        }
        self.refresh_statics(placement);
        if !request.claims.is_empty() {
            if self.volumes.needs(&request.claims).blocked.is_some() {
                return None;
            }
            if let Some(nodes) = self.volume_nodes(id) {
                return Some(Way::Among(nodes));
            }
        }
        let state = &self.placements[placement as usize];
        if let Some(pins) = &state.pins {
            let named = pins.iter().filter_map(|n| self.nodes.find(*n));
            return Some(Way::Among(named.collect()));
        }
        if state.allowed.len() <= FEW {
            let few = state.allowed.iter();
            let few = few.filter_map(|at| Some(NodeId(u32::try_from(at).ok()?)));
            return Some(Way::Among(few.collect()));
        }
        let key = self.partition(id);
        Some(Way::Ranked(self.rank(placement, key, shape, copy), key))
    }

    /// Looks there. Of a ranked way the rank is needed, up to date.
    pub(super) fn follow(
        &self,
        check: &Check<'_>,
        way: &Way,
        rank: Option<&Rank>,
    ) -> Option<Choice> {
        let mut candidates: Vec<(u32, i64)> = Vec::new();
        match way {
            Way::Among(nodes) => {
                let state = &self.placements[check.placement as usize];
                let allowed = |node: &&NodeId| {
                    super::ranking::allows(&state.key, &self.nodes, node.0, &self.compiler)
                };
                let fit = nodes
                    .iter()
                    .filter(allowed)
                    .filter(|node| check.fits(node.0, false, None));
                candidates.extend(fit.map(|node| (node.0, self.base(check, node.0))));
            }
            Way::Ranked(id, key) => match (self.narrow_affinity(check), rank) {
                (Some(counter), _) => self.walk_domains(check, counter, &mut candidates),
                (None, Some(rank)) => self.walk_rank(check, *id, rank, *key, &mut candidates),
                (None, None) => {}
            },
        }
        self.best(check, &candidates)
    }

    /// The topology key to rank nodes by: one that the pod's rules use, with few domains.
    fn partition(&self, id: ClassId) -> Option<KeyId> {
        let class = &self.classes[id.0 as usize];
        let counters = class.affinity.iter().chain(&class.anti_affinity);
        let counted = counters.map(|c| self.counters.counters[c.0 as usize].key);
        let spread = class.hard.iter().chain(&class.soft).map(|r| r.key);
        spread
            .chain(counted)
            .filter(|k| self.topology.partitions(*k))
            .max_by_key(|k| self.topology.domains(*k))
    }

    /// The nodes that the class's volumes leave, where those are few.
    fn volume_nodes(&mut self, id: ClassId) -> Option<Vec<NodeId>> {
        let request = self.classes[id.0 as usize].request.clone();
        let needs = self.volumes.needs(&request.claims);
        if let Some(name) = needs.selected() {
            return Some(self.nodes.find(name).into_iter().collect());
        }
        let pins: Vec<Vec<(Symbol, Symbol)>> = needs.pins();
        let mut fewest: Option<Vec<NodeId>> = None;
        for labels in pins {
            let mut nodes = Vec::new();
            for (key, value) in labels {
                let key = self.topology.key(key, &self.nodes);
                nodes.extend(
                    self.topology
                        .members_of(key, value)
                        .iter()
                        .copied()
                        .map(NodeId),
                );
            }
            if fewest.as_ref().is_none_or(|f| nodes.len() < f.len()) {
                fewest = Some(nodes);
            }
        }
        fewest.filter(|nodes| nodes.len() * FEW_OF_ALL <= self.nodes.slots().max(FEW_OF_ALL * FEW))
    }

    /// A required affinity counter whose domains are small: its pods' own domains are the only candidates.
    fn narrow_affinity<'a>(&self, check: &Check<'a>) -> Option<Tally<'a>> {
        if check.first {
            return None;
        }
        let narrow = check
            .affinity
            .iter()
            .filter(|c| !self.topology.partitions(c.key()));
        narrow.min_by_key(|c| c.filled_len()).copied()
    }

    fn walk_domains(
        &self,
        check: &Check<'_>,
        counter: Tally<'_>,
        candidates: &mut Vec<(u32, i64)>,
    ) {
        let state = &self.placements[check.placement as usize];
        for domain in counter.filled() {
            for node in self.topology.members(counter.key(), domain) {
                if state.allowed.contains(*node as usize) && check.fits(*node, false, None) {
                    candidates.push((*node, self.base(check, *node)));
                }
            }
        }
    }

    /// Score by resources and by what the placement prefers.
    fn base(&self, check: &Check<'_>, node: u32) -> i64 {
        let state = &self.placements[check.placement as usize];
        let preferred = state
            .statics
            .get(node as usize)
            .copied()
            .unwrap_or_default();
        check
            .seats
            .score(node, &check.class.request.shape, check.rules)
            + i64::from(preferred)
    }

    fn walk_rank(
        &self,
        check: &Check<'_>,
        id: RankId,
        rank: &Rank,
        key: Option<KeyId>,
        candidates: &mut Vec<(u32, i64)>,
    ) {
        let lists = &rank.lists;
        let open = |list: usize| -> bool {
            let Some(key) = key else { return true };
            let domain = u32::try_from(list)
                .ok()
                .and_then(|l| l.checked_sub(1))
                .unwrap_or(NONE);
            !lists[list].is_empty() && check.domain_fits(key, domain)
        };
        let open: Vec<usize> = (0..lists.len()).filter(|l| open(*l)).collect();
        let scored = check.scores();
        let wanted = if scored || !id.scored {
            (CANDIDATES / open.len().max(1)).max(2)
        } else {
            1
        };
        let holders = (HOLDERS / open.len().max(1)).max(1);
        for list in open {
            let mut found = 0;
            // Beyond those wanted, only nodes that have the images are still of interest.
            let mut holders = if check.images { holders } else { 0 };
            let nodes = lists[list].best_first(check.overlay.lane());
            for (looked, (node, level)) in nodes.enumerate() {
                let holds = holders > 0 && self.image_score(check, node) > 0;
                if (holds || found < wanted) && check.fits(node, id.exact, key) {
                    let base = if id.scored {
                        level.into()
                    } else {
                        self.base(check, node)
                    };
                    candidates.push((node, base));
                    found += 1;
                    holders -= usize::from(holds);
                    if found >= wanted && holders == 0 {
                        break;
                    }
                }
                if found > 0 && looked > LOOK {
                    break;
                }
            }
        }
        if scored && !candidates.is_empty() {
            self.add_neighbourhoods(check, candidates);
        }
    }

    /// Preferred neighbours may sit on nodes that rank low: nodes near them are candidates too.
    fn add_neighbourhoods(&self, check: &Check<'_>, candidates: &mut Vec<(u32, i64)>) {
        let allowed = &self.placements[check.placement as usize].allowed;
        let counters = check
            .class
            .preferred
            .iter()
            .filter(|(_, weight)| *weight > 0);
        for (counter, _) in counters {
            let counter = check.tally(*counter);
            let key = counter.key();
            if self.topology.partitions(key) {
                continue;
            }
            let near = counter.filled().take(NEIGHBOURS);
            for node in near.flat_map(|domain| self.topology.members(key, domain).iter().take(4)) {
                if allowed.contains(*node as usize) && check.fits(*node, false, None) {
                    candidates.push((*node, self.base(check, *node)));
                }
            }
        }
    }
}
