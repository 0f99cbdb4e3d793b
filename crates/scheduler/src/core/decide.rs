//! The decision: filters over the best-ranked nodes, scores over those that pass, the highest wins.
//!
//! Filters are exact: a pod is declared unschedulable only after every node was ruled out. Scores follow
//! kube-scheduler's default plugins and weights (fit and balance 1, spread and pod affinity 2, node affinity 2,
//! taints 3). Where kube-scheduler scores a sample of the feasible nodes in the order of its list, this scores the
//! best-ranked feasible nodes of every domain.

use super::class::{Class, ClassId, SpreadRule};
use super::cluster::Cluster;
use super::counters::{Carrier, Counter, CounterId, Counters};
use super::diagnosis::Diagnosis;
use super::nodes::{NodeId, Nodes};
use super::ranking::RankId;
use super::topology::{KeyId, NONE, Topology};

/// Where a pod goes, or why nowhere.
#[derive(Debug)]
pub enum Decision {
    Place(NodeId),
    Unschedulable(Diagnosis),
}

/// Feasible nodes to score where pods around matter, or where the rank is not for the exact request.
const CANDIDATES: usize = 24;
/// Placements that allow no more nodes than this are not ranked.
const FEW: usize = 8;
/// In a list that has a candidate already, look no further than this many nodes.
const LOOK: usize = 512;
/// Nodes taken per preferred neighbourhood.
const NEIGHBOURS: usize = 16;

/// One pod's filters with their counters at hand.
pub struct Check<'a> {
    nodes: &'a Nodes,
    topology: &'a Topology,
    class: &'a Class,
    affinity: Vec<&'a Counter>,
    /// No pod matches the required affinity yet and the pod matches it itself: any node with the labels will do.
    first: bool,
    anti_affinity: Vec<&'a Counter>,
    /// Placed pods' anti-affinity terms that match this pod.
    forbidden: Vec<&'a Carrier>,
    /// Placed pods' preferences that match this pod.
    attracted: Vec<&'a Carrier>,
    hard: Vec<Hard<'a>>,
}

struct Hard<'a> {
    key: KeyId,
    counter: &'a Counter,
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

impl<'a> Check<'a> {
    /// Gathers what the class's filters read.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: ClassId) -> Self {
        let class = &cluster.classes[id.0 as usize];
        let Counters {
            counters,
            carriers,
            matchers,
            groups,
            ..
        } = &cluster.counters;
        let counter = |id: &CounterId| &counters[id.0 as usize];
        let affinity: Vec<_> = class.affinity.iter().map(counter).collect();
        let (mut forbidden, mut attracted) = (Vec::new(), Vec::new());
        for matcher in &groups[class.group.0 as usize].matchers {
            for carrier in &matchers[matcher.0 as usize].carriers {
                let carrier = &carriers[carrier.0 as usize];
                if carrier.total.forbids > 0 {
                    forbidden.push(carrier);
                }
                if carrier.total.weight > 0 {
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
        Self {
            nodes: &cluster.nodes,
            topology: &cluster.topology,
            first: class.own_affinity && affinity.iter().all(|c| c.filled_len() == 0),
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
                .filter(|c| c.key == key)
                .all(|c| there && (self.first || c.count(domain) > 0))
            && self
                .anti_affinity
                .iter()
                .filter(|c| c.key == key)
                .all(|c| !there || c.count(domain) == 0)
            && self
                .forbidden
                .iter()
                .filter(|c| c.key == key)
                .all(|c| !there || c.at(domain).is_none_or(|t| t.forbids == 0))
    }

    /// Whether the pods around a node let it in; constraints on `done` have been checked already.
    fn neighbours_fit(&self, node: u32, done: Option<KeyId>) -> bool {
        let domain = |key: KeyId| self.topology.domain(key, node);
        let open = |key: KeyId| Some(key) != done;
        self.hard.iter().filter(|h| open(h.key)).all(|h| {
            let domain = domain(h.key);
            domain != NONE && i64::from(h.counter.count(domain)) <= h.most
        }) && self.affinity.iter().filter(|c| open(c.key)).all(|c| {
            let domain = domain(c.key);
            domain != NONE && (self.first || c.count(domain) > 0)
        }) && self.anti_affinity.iter().filter(|c| open(c.key)).all(|c| {
            let domain = domain(c.key);
            domain == NONE || c.count(domain) == 0
        }) && self.forbidden.iter().filter(|c| open(c.key)).all(|c| {
            let domain = domain(c.key);
            domain == NONE || c.at(domain).is_none_or(|t| t.forbids == 0)
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
            let domain = self.topology.domain(counter.key, node);
            if domain == NONE || !(self.first || counter.count(domain) > 0) {
                return Some(Neighbours::Affinity);
            }
        }
        for counter in &self.anti_affinity {
            let domain = self.topology.domain(counter.key, node);
            if domain != NONE && counter.count(domain) > 0 {
                return Some(Neighbours::AntiAffinity);
            }
        }
        for carrier in &self.forbidden {
            let domain = self.topology.domain(carrier.key, node);
            if domain != NONE && carrier.at(domain).is_some_and(|t| t.forbids > 0) {
                return Some(Neighbours::ExistingAntiAffinity);
            }
        }
        None
    }

    /// Fit, ports and neighbours.
    fn fits(&self, node: u32, fit_known: bool, done: Option<KeyId>) -> bool {
        let request = &self.class.request;
        (fit_known || self.nodes.fits(node, &request.shape))
            && (request.ports.is_empty() || self.nodes.ports_free(node, &request.ports))
            && self.neighbours_fit(node, done)
    }

    /// Whether pods around change the order of nodes.
    fn neighbours_score(&self) -> bool {
        !self.class.soft.is_empty()
            || !self.class.preferred.is_empty()
            || !self.attracted.is_empty()
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

    /// The node for the next pod of a class, if there is one.
    pub fn choose(&mut self, id: ClassId) -> Option<NodeId> {
        let class = &self.classes[id.0 as usize];
        if class
            .request
            .claims
            .iter()
            .any(|c| self.claim(*c) != Some(true))
        {
            return None;
        }
        let (placement, shape) = (class.placement, class.shape);
        let state = &self.placements[placement as usize];
        if state.pins.is_some() || state.allowed.len() <= FEW {
            self.refresh_statics(placement);
            return self.choose_among_few(id);
        }
        let key = self.partition(id);
        let rank = self.rank(placement, key, shape);
        let check = Check::new(self, id);
        let mut candidates: Vec<(u32, u16)> = Vec::new();
        match self.narrow_affinity(&check) {
            Some(counter) => self.walk_domains(&check, counter, &mut candidates),
            None => self.walk_rank(&check, rank, key, &mut candidates),
        }
        self.best(&check, &candidates)
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

    /// The placement names its nodes or allows few: no rank is worth keeping for it.
    fn choose_among_few(&self, id: ClassId) -> Option<NodeId> {
        let check = Check::new(self, id);
        let state = &self.placements[check.class.placement as usize];
        let named = state
            .pins
            .iter()
            .flatten()
            .filter_map(|name| self.nodes.find(*name));
        let allowed =
            |node: &NodeId| super::ranking::allows(&state.key, &self.nodes, node.0, &self.compiler);
        let few = state
            .allowed
            .iter()
            .filter_map(|at| Some(NodeId(u32::try_from(at).ok()?)));
        let candidates: Vec<(u32, u16)> = named
            .filter(allowed)
            .chain(few)
            .filter(|node| check.fits(node.0, false, None))
            .map(|node| (node.0, self.base(&check, node.0)))
            .collect();
        self.best(&check, &candidates)
    }

    /// A required affinity counter whose domains are small: its pods' own domains are the only candidates.
    fn narrow_affinity<'a>(&self, check: &Check<'a>) -> Option<&'a Counter> {
        if check.first {
            return None;
        }
        let narrow = check
            .affinity
            .iter()
            .filter(|c| !self.topology.partitions(c.key));
        narrow.min_by_key(|c| c.filled_len()).copied()
    }

    fn walk_domains(&self, check: &Check<'_>, counter: &Counter, candidates: &mut Vec<(u32, u16)>) {
        let state = &self.placements[check.class.placement as usize];
        for (domain, _) in counter.filled() {
            for node in self.topology.members(counter.key, domain) {
                if state.allowed.contains(*node as usize) && check.fits(*node, false, None) {
                    candidates.push((*node, self.base(check, *node)));
                }
            }
        }
    }

    /// Score by resources and by what the placement prefers.
    fn base(&self, check: &Check<'_>, node: u32) -> u16 {
        let state = &self.placements[check.class.placement as usize];
        let preferred = state
            .statics
            .get(node as usize)
            .copied()
            .unwrap_or_default();
        self.nodes.rooms[node as usize].score(&check.class.request.shape) + preferred
    }

    fn walk_rank(
        &self,
        check: &Check<'_>,
        rank: RankId,
        key: Option<KeyId>,
        candidates: &mut Vec<(u32, u16)>,
    ) {
        let lists = &self.ranks[rank.index].lists;
        let open = |list: usize| -> bool {
            let Some(key) = key else { return true };
            let domain = u32::try_from(list)
                .ok()
                .and_then(|l| l.checked_sub(1))
                .unwrap_or(NONE);
            !lists[list].is_empty() && check.domain_fits(key, domain)
        };
        let open: Vec<usize> = (0..lists.len()).filter(|l| open(*l)).collect();
        let scored = check.neighbours_score();
        let wanted = if scored || !rank.exact {
            (CANDIDATES / open.len().max(1)).max(2)
        } else {
            1
        };
        for list in open {
            let mut found = 0;
            for (looked, (node, level)) in lists[list].best_first().enumerate() {
                if check.fits(node, rank.exact, key) {
                    let base = if rank.exact {
                        level
                    } else {
                        self.base(check, node)
                    };
                    candidates.push((node, base));
                    found += 1;
                    if found == wanted {
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
    fn add_neighbourhoods(&self, check: &Check<'_>, candidates: &mut Vec<(u32, u16)>) {
        let allowed = &self.placements[check.class.placement as usize].allowed;
        let counters = check
            .class
            .preferred
            .iter()
            .filter(|(_, weight)| *weight > 0);
        for (counter, _) in counters {
            let counter = &self.counters.counters[counter.0 as usize];
            if self.topology.partitions(counter.key) {
                continue;
            }
            let near = counter.filled().take(NEIGHBOURS);
            for node in near
                .flat_map(|(domain, _)| self.topology.members(counter.key, domain).iter().take(4))
            {
                if allowed.contains(*node as usize) && check.fits(*node, false, None) {
                    candidates.push((*node, self.base(check, *node)));
                }
            }
        }
    }

    fn best(&self, check: &Check<'_>, candidates: &[(u32, u16)]) -> Option<NodeId> {
        let mut totals: Vec<i64> = candidates
            .iter()
            .map(|(_, base)| i64::from(*base))
            .collect();
        if candidates.len() > 1 && check.neighbours_score() {
            self.add_spread(check, candidates, &mut totals);
            self.add_preferences(check, candidates, &mut totals);
        }
        let best = (0..totals.len()).max_by_key(|i| totals[*i])?;
        Some(NodeId(candidates[best].0))
    }

    /// PodTopologySpread's score, weight 2: fewer matching pods are better, small domains weigh less.
    fn add_spread(&self, check: &Check<'_>, candidates: &[(u32, u16)], totals: &mut [i64]) {
        let soft = &check.class.soft;
        if soft.is_empty() {
            return;
        }
        let rules: Vec<(&SpreadRule, &Counter, f64)> = soft
            .iter()
            .map(|rule| {
                let counter = &self.counters.counters[rule.counter.0 as usize];
                (rule, counter, (counter.domains() as f64 + 2.0).ln())
            })
            .collect();
        let strict = !check.class.request.default_spread;
        let raw: Vec<Option<i64>> = candidates
            .iter()
            .map(|(node, _)| {
                let mut sum = 0.0;
                for (rule, counter, weight) in &rules {
                    let domain = self.topology.domain(rule.key, *node);
                    if domain == NONE {
                        if strict {
                            return None;
                        }
                        continue;
                    }
                    sum += f64::from(counter.count(domain)) * weight + (rule.max_skew - 1) as f64;
                }
                Some(sum.round() as i64)
            })
            .collect();
        let (Some(min), Some(max)) = (raw.iter().flatten().min(), raw.iter().flatten().max())
        else {
            return;
        };
        for (total, raw) in totals.iter_mut().zip(&raw) {
            *total += match raw {
                None => 0,
                Some(_) if *max == 0 => 200,
                Some(raw) => 2 * (100 * (max + min - raw) / max),
            };
        }
    }

    /// InterPodAffinity's score, weight 2: own preferences and those of placed pods.
    fn add_preferences(&self, check: &Check<'_>, candidates: &[(u32, u16)], totals: &mut [i64]) {
        if check.class.preferred.is_empty() && check.attracted.is_empty() {
            return;
        }
        let raw: Vec<i64> = candidates
            .iter()
            .map(|(node, _)| {
                let own = check.class.preferred.iter().map(|(id, weight)| {
                    let counter = &self.counters.counters[id.0 as usize];
                    let domain = self.topology.domain(counter.key, *node);
                    if domain == NONE {
                        0
                    } else {
                        weight * i64::from(counter.count(domain))
                    }
                });
                let theirs = check.attracted.iter().map(|carrier| {
                    let domain = self.topology.domain(carrier.key, *node);
                    if domain == NONE {
                        0
                    } else {
                        carrier.at(domain).map_or(0, |t| t.weight)
                    }
                });
                own.sum::<i64>() + theirs.sum::<i64>()
            })
            .collect();
        let (Some(min), Some(max)) = (raw.iter().min(), raw.iter().max()) else {
            return;
        };
        if max > min {
            for (total, raw) in totals.iter_mut().zip(&raw) {
                *total += 2 * (100 * (raw - min) / (max - min));
            }
        }
    }
}
