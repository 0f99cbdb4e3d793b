//! The decision: filters over the best-ranked nodes, scores over those that pass, the highest wins.
//!
//! Filters are exact: a pod is declared unschedulable only after every node was ruled out. Scores follow
//! kube-scheduler's default plugins and weights (fit and balance 1, spread and pod affinity 2, node affinity 2,
//! taints 3). Where kube-scheduler scores a sample of the feasible nodes in the order of its list, this scores the
//! best-ranked feasible nodes of every domain: two dozen, or the share that the profile asks for.

use super::class::ClassId;
use super::cluster::Cluster;
use super::diagnosis::Diagnosis;
use super::nodes::NodeId;
use super::overlay::Tally;
use super::rank::Rank;
use super::ranking::RankId;
use super::symbols::Symbol;
use super::topology::{KeyId, NONE};

mod check;

pub use check::{Check, Neighbours};

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
/// Nodes to score at least where the profile says a share: kube-scheduler's `minFeasibleNodesToFind`.
const LEAST_SCORED: usize = 100;
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
        if self.quota_refusal_within(id, placement).is_some() {
            return None;
        }
        self.refresh_statics(placement);
        if let Some(needs) = self.device_needs(&request, "") {
            if needs.blocked().is_some() {
                return None;
            }
            if let Some(names) = needs.pins() {
                let named = names.iter().filter_map(|n| self.nodes.find(*n));
                return Some(Way::Among(named.collect()));
            }
            if needs.wants_devices()
                && let Some(names) = self.devices.nodes_with_devices()
            {
                let nodes: Vec<NodeId> = names.filter_map(|n| self.nodes.find(n)).collect();
                // Which alternatives a node can serve, its rank does not tell.
                let few = nodes.len() * FEW_OF_ALL <= self.nodes.slots().max(FEW_OF_ALL * FEW);
                if few || needs.prefers() {
                    return Some(Way::Among(nodes));
                }
            }
        }
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
        let share = check.rules.profile.scored;
        let wanted = match share {
            _ if !scored && id.scored => 1,
            Some(percent) => (self.nodes.known * percent / 100)
                .max(LEAST_SCORED)
                .div_ceil(open.len().max(1)),
            None => (CANDIDATES / open.len().max(1)).max(2),
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
                if found > 0 && looked > LOOK && share.is_none() {
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
