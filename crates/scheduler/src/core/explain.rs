//! Why a pod goes where it goes, and what would have to change for one that goes nowhere. Looks at every node: for
//! people who ask, not for the path of decisions.

use super::class::ClassId;
use super::cluster::Cluster;
use super::decide::Check;
use super::diagnosis::{Diagnosis, Reason};
use super::nodes::NodeId;
use super::preempt::Preemption;
use super::profile::{RULES, Rule};
use super::quota::Verdict;
use super::ranking::{STATIC_RULES, raw_statics, static_scores, tolerates_unschedulable};
use super::request::{Effect, Taint};
use super::symbols::{Symbol, value_of};
use std::collections::BTreeMap;

/// A node that takes the pod, with its scores by rule in the order of [`RULES`], weighted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scored {
    pub node: NodeId,
    pub total: i64,
    pub by_rule: [i64; RULES.len()],
}

/// One thing that is in the way of a pod on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The node takes no pods.
    Cordoned,
    Taint(Taint),
    /// The pod's node selector asks for this label.
    Selector(Symbol, Symbol),
    /// Required node affinity does not match.
    NodeAffinity,
    /// So much of a resource is missing, of so much asked for.
    Short {
        resource: Resource,
        missing: i64,
        wanted: i64,
    },
    /// A quota has too little of a resource left: so much too little, of so much asked for.
    Quota {
        verdict: Verdict,
        missing: i64,
        wanted: i64,
    },
    /// The pod's claims to devices: what to do about them, by the number of the message.
    Claims(u32),
    /// Everything else.
    Other(Reason),
}

/// A resource that can be short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    Pods,
    Cpu,
    Memory,
    Storage,
    Other(Symbol),
}

/// A change that would let the pod fit.
#[derive(Clone, Debug)]
pub struct Change {
    /// All of these have to go.
    pub obstacles: Vec<Obstacle>,
    /// How many nodes have the same in the way; the amounts are the smallest.
    pub nodes: usize,
    /// The node where the least is missing.
    pub node: NodeId,
}

/// All there is to say about a class of pods at this moment.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Nodes that take the pod, best first.
    pub feasible: Vec<Scored>,
    /// Why it does not fit, if it does not.
    pub diagnosis: Option<Diagnosis>,
    /// What would let it fit, least first; at most [`MOST_CHANGES`].
    pub changes: Vec<Change>,
    /// Whose leaving would make room.
    pub preemption: Option<Preemption>,
}

/// Changes told at most.
pub const MOST_CHANGES: usize = 5;

impl Cluster {
    /// Explains where the next pod of a class would go.
    pub fn explain(&mut self, id: ClassId) -> Explanation {
        self.refresh_statics(self.classes[id.0 as usize].placement);
        let check = Check::new(self, id);
        let nodes: Vec<u32> = (0..self.nodes.slots())
            .filter_map(|at| u32::try_from(at).ok())
            .filter(|at| self.feasible(id, NodeId(*at)))
            .collect();
        let mut feasible = self.score_table(&check, &nodes);
        feasible.sort_by(|a, b| b.total.cmp(&a.total).then(a.node.cmp(&b.node)));
        if feasible.is_empty() {
            feasible = self.held_for(id);
        }
        if !feasible.is_empty() {
            return Explanation {
                feasible,
                diagnosis: None,
                changes: Vec::new(),
                preemption: None,
            };
        }
        let changes = self.changes(&Check::new(self, id));
        let diagnosis = Some(self.diagnose(id));
        let preemption = self.preempt(id, |_| false);
        Explanation {
            feasible,
            diagnosis,
            changes,
            preemption,
        }
    }

    /// As [`Cluster::explain`], for a placed pod: as if it were placed now. `None` if it is not placed.
    pub fn explain_placed(&mut self, uid: &str) -> Option<Explanation> {
        let (uid, _) = self.pods.get_key_value(uid)?;
        let uid = uid.clone();
        let before = self.events.len();
        let placed = self.lift(&uid)?;
        let explanation = self.explain(placed.class);
        self.put(&uid, placed);
        self.events.truncate(before);
        Some(explanation)
    }

    /// The node on which a reservation holds room for the class, if one does.
    fn held_for(&mut self, id: ClassId) -> Vec<Scored> {
        if !self.may_have_slot(id) {
            return Vec::new();
        }
        let before = self.events.len();
        let mut table = Vec::new();
        if let Some((slot, node)) = self.reserved_for(id)
            && let Some(placed) = self.lift(&slot)
        {
            table = self.score_table(&Check::new(self, id), &[node.0]);
            self.put(&slot, placed);
        }
        self.events.truncate(before);
        table
    }

    /// The scores of nodes by every rule.
    fn score_table(&self, check: &Check<'_>, nodes: &[u32]) -> Vec<Scored> {
        let (class, rules) = (check.class(), check.rules);
        let state = &self.placements[class.placement as usize];
        let mut table: Vec<Scored> = nodes
            .iter()
            .map(|at| {
                let mut by_rule = [0; RULES.len()];
                let mut set =
                    |rule: Rule, score: i64| by_rule[rule as usize] = score * rules.weight(rule);
                let (fit, balance) = self.nodes.seats().scores(*at, &class.request.shape, rules);
                set(Rule::Fit, fit);
                set(Rule::Balance, balance);
                let node = &self.nodes.all[*at as usize];
                let raw = raw_statics(&state.key, node, &self.compiler);
                let scores = static_scores(raw, state.extremes);
                if let Some(load) = &rules.profile.load {
                    set(
                        Rule::Load,
                        self.nodes
                            .seats()
                            .load_score(*at, &class.request.shape, load),
                    );
                }
                for (rule, score) in STATIC_RULES.into_iter().zip(scores) {
                    set(rule, score);
                }
                Scored {
                    node: NodeId(*at),
                    total: 0,
                    by_rule,
                }
            })
            .collect();
        for rule in [
            Rule::Spread,
            Rule::PodAffinity,
            Rule::Images,
            Rule::Services,
            Rule::Numa,
            Rule::Devices,
        ] {
            let mut scores = vec![0; nodes.len()];
            match rule {
                Rule::Spread => self.add_spread(check, nodes, &mut scores),
                Rule::PodAffinity => self.add_preferences(check, nodes, &mut scores),
                Rule::Services => self.add_services(check, nodes, &mut scores),
                Rule::Numa => self.add_numa(check, nodes, &mut scores),
                Rule::Devices => self.add_devices(check, nodes, &mut scores),
                _ => self.add_images(check, nodes, &mut scores),
            }
            for (row, score) in table.iter_mut().zip(scores) {
                row.by_rule[rule as usize] = score;
            }
        }
        for row in &mut table {
            row.total = row.by_rule.iter().sum();
        }
        table
    }

    /// What is in the way on one node, all of it and not only the first.
    fn obstacles(&self, check: &Check<'_>, at: usize) -> Vec<Obstacle> {
        let request = &check.class().request;
        let placement = &request.placement;
        let (node, room) = (&self.nodes.all[at], &self.nodes.rooms[at]);
        let slot = u32::try_from(at).unwrap_or(u32::MAX);
        let symbols = &self.compiler.symbols;
        let mut all = self.of_all_nodes(check);
        if let Some((quota, (_, takes))) = self
            .quota_at(check.class(), NodeId(slot))
            .zip(check.class().quota.as_ref())
        {
            let lacking = self.quotas.lacking(quota, takes).into_iter();
            all.extend(lacking.map(|(verdict, missing, wanted)| Obstacle::Quota {
                verdict,
                missing,
                wanted,
            }));
        }
        if node.unschedulable && !tolerates_unschedulable(placement, &self.compiler) {
            all.push(Obstacle::Cordoned);
        }
        let tolerated = |taint: &Taint| {
            let cordon =
                node.unschedulable && symbols.text(taint.key) == "node.kubernetes.io/unschedulable";
            cordon
                || taint.effect == Effect::PreferNoSchedule
                || placement.tolerations.iter().any(|t| t.tolerates(taint))
        };
        all.extend(
            node.taints
                .iter()
                .filter(|t| !tolerated(t))
                .cloned()
                .map(Obstacle::Taint),
        );
        let missing = placement
            .selector
            .iter()
            .filter(|(key, value)| value_of(&node.labels, *key) != Some(*value));
        all.extend(missing.map(|(key, value)| Obstacle::Selector(*key, *value)));
        let matches = placement.required.as_ref().is_none_or(|terms| {
            terms
                .iter()
                .any(|t| t.matches(node.name, &node.labels, symbols))
        });
        if !matches {
            all.push(Obstacle::NodeAffinity);
        }
        if !placement.added_selects(node.name, &node.labels, symbols) {
            all.push(Obstacle::Other(Reason::AddedAffinity));
        }
        let refused = placement.refused(node.name, &node.labels, symbols);
        all.extend(refused.map(Reason::from).map(Obstacle::Other));
        if !self.nodes.ports_free(slot, &request.ports) {
            all.push(Obstacle::Other(Reason::Ports));
        }
        let mut short = |resource, wanted: i64, free: i64| {
            if wanted > 0 && wanted > free {
                all.push(Obstacle::Short {
                    resource,
                    missing: wanted - free,
                    wanted,
                });
            }
        };
        let (want, have, used) = (&request.shape.base, &room.allocatable, &room.used);
        short(Resource::Pods, 1, room.max_pods - room.pods);
        short(Resource::Cpu, want.cpu, have.cpu - used.cpu);
        short(Resource::Memory, want.memory, have.memory - used.memory);
        short(Resource::Storage, want.storage, have.storage - used.storage);
        for (name, wanted) in &request.shape.other {
            let there = node.other.iter().find(|(n, ..)| n == name);
            let (_, all, used) = there.copied().unwrap_or((*name, 0, 0));
            if !self.nodes.delegates(*name, all) {
                short(Resource::Other(*name), *wanted, all - used);
            }
        }
        all.extend(check.too_hot(slot).map(Reason::Hot).map(Obstacle::Other));
        all.extend(check.volumes_reject(slot).map(Obstacle::Other));
        all.extend(check.misfit(slot).map(Reason::Numa).map(Obstacle::Other));
        if let Some(neighbours) = check.neighbours_reject(slot) {
            all.push(Obstacle::Other(neighbours.reason()));
        }
        all.extend(check.devices_reject(slot).map(Obstacle::Other));
        let undeclared = placement.features.without(node.features);
        if !undeclared.is_empty() {
            all.push(Obstacle::Other(Reason::Undeclared(undeclared)));
        }
        all
    }

    /// What is in the way on every node: all claims that are not as they should be.
    fn of_all_nodes(&self, check: &Check<'_>) -> Vec<Obstacle> {
        let volumes = self.volumes.troubles(&check.class().request.claims);
        let volumes = volumes.into_iter().map(Obstacle::Other);
        let devices = check.devices.iter().flat_map(|devices| devices.remedies());
        let devices = devices.map(Obstacle::Claims);
        volumes.chain(devices).collect()
    }

    fn changes(&self, check: &Check<'_>) -> Vec<Change> {
        let mut changes: BTreeMap<String, (f64, Change)> = BTreeMap::new();
        for at in 0..self.nodes.slots() {
            if !self.nodes.all[at].known {
                continue;
            }
            let obstacles = self.obstacles(check, at);
            let kind: Vec<String> = obstacles.iter().map(|o| self.kind(o)).collect();
            let weight = obstacles.iter().map(weight).sum::<f64>();
            let node = NodeId(u32::try_from(at).unwrap_or(u32::MAX));
            let change = Change {
                obstacles,
                nodes: 1,
                node,
            };
            match changes.entry(kind.join("+")) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert((weight, change));
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let (least, known) = entry.get_mut();
                    let nodes = known.nodes + 1;
                    if weight < *least {
                        (*least, *known) = (weight, change);
                    }
                    known.nodes = nodes;
                }
            }
        }
        let mut changes: Vec<(f64, Change)> = changes.into_values().collect();
        changes.sort_by(|(a, x), (b, y)| a.total_cmp(b).then(y.nodes.cmp(&x.nodes)));
        changes.truncate(MOST_CHANGES);
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// A resource's name.
    #[must_use]
    pub fn resource_name(&self, resource: Resource) -> &str {
        match resource {
            Resource::Pods => "pods",
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
            Resource::Storage => "ephemeral-storage",
            Resource::Other(name) => self.compiler.symbols.text(name),
        }
    }

    /// Which resource runs out first for more pods of a class: the one of which the cluster's free room holds fewest.
    /// `None` if the pods ask for nothing.
    #[must_use]
    pub fn binding_resource(&self, id: ClassId) -> Option<Resource> {
        let class = &self.classes[id.0 as usize];
        let shape = &class.request.shape;
        let allowed = &self.placements[class.placement as usize];
        let mut free: BTreeMap<Resource, i64> = BTreeMap::new();
        for (at, (node, room)) in self.nodes.all.iter().zip(&self.nodes.rooms).enumerate() {
            let slot = u32::try_from(at).unwrap_or(u32::MAX);
            if !super::ranking::allows(&allowed.key, &self.nodes, slot, &self.compiler) {
                continue;
            }
            let mut holds = |resource, wanted: i64, left: i64| {
                if wanted > 0 {
                    *free.entry(resource).or_default() += left.max(0) / wanted;
                }
            };
            let (want, have, used) = (&shape.base, &room.allocatable, &room.used);
            holds(Resource::Pods, 1, room.max_pods - room.pods);
            holds(Resource::Cpu, want.cpu, have.cpu - used.cpu);
            holds(Resource::Memory, want.memory, have.memory - used.memory);
            holds(Resource::Storage, want.storage, have.storage - used.storage);
            // What devices serve is not counted.
            let own = |(name, _): &&(Symbol, i64)| !self.nodes.delegated.contains(name);
            for (name, wanted) in shape.other.iter().filter(own) {
                let there = node.other.iter().find(|(n, ..)| n == name);
                let left = there.map_or(0, |(_, all, used)| all - used);
                holds(Resource::Other(*name), *wanted, left);
            }
        }
        free.into_iter()
            .min_by_key(|(_, pods)| *pods)
            .map(|(resource, _)| resource)
    }
}

/// How much of a change it is: one obstacle weighs one, a shortage by the share of the request that would have to go.
fn weight(obstacle: &Obstacle) -> f64 {
    match obstacle {
        Obstacle::Short {
            missing, wanted, ..
        }
        | Obstacle::Quota {
            missing, wanted, ..
        } => 0.5 + 0.5 * *missing as f64 / (*wanted).max(1) as f64,
        _ => 1.0,
    }
}

impl Resource {
    /// An amount as people write it.
    #[must_use]
    pub fn amount(self, amount: i64) -> String {
        match self {
            Self::Cpu if amount % 1000 == 0 => (amount / 1000).to_string(),
            Self::Cpu => format!("{amount}m"),
            Self::Memory | Self::Storage => {
                for (unit, size) in [("Gi", 1_i64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
                    if amount >= size && amount % size == 0 || amount >= size * 100 {
                        let whole = amount / size + i64::from(amount % size != 0);
                        return format!("{whole}{unit}");
                    }
                }
                amount.to_string()
            }
            Self::Pods | Self::Other(_) => amount.to_string(),
        }
    }
}

mod advice;
mod gang;

pub use gang::GangExplanation;

#[cfg(test)]
mod tests;
