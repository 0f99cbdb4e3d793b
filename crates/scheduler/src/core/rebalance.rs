//! Rebalancing: which pods would better be elsewhere, what each move brings and what it costs. Nothing is moved here:
//! the plan is for whoever has a disruption budget to spend.
//!
//! Moves are tried one after another on the cluster in the core, so that each counts on those before it, and are all
//! taken back in the end. Three things are looked for, in this order:
//!
//! - *hot nodes*: nodes that use more than their threshold of a resource, where usage is looked at. A move brings the
//!   per cent of the node that it cools it by, as far as that is above the threshold.
//! - *broken spread*: pods whose own spread constraints no longer hold, as after nodes came or went. A move brings ten
//!   for each pod by which it evens out the fullest domain and the one it goes to.
//! - *fragmentation*: little-used nodes that could be emptied, so that their room is in one piece. The moves off a node
//!   share what that is worth: the per cent of the node that was free before.
//!
//! A move costs one, and one more for each 100,000 of priority (a level, for pods of Gantry's classes). Pods that have to
//! be where they are are never moved: those that name their node, have volumes or a group, are going away, are guarded by
//! an exhausted disruption budget, or are not to be moved as the caller says.

use super::cluster::{Cluster, Placed};
use super::load::{Limits, LoadArgs, MEASURED};
use super::nodes::NodeId;
use super::reservation::is_slot;
use super::topology::NONE;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Why a pod would better be elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its node uses so many per cent of a resource, by its place in [`MEASURED`], and is to use that many.
    Hot {
        resource: usize,
        used: i64,
        threshold: i64,
    },
    /// Its domain has so many pods like it, the other one that many.
    Spread { here: u32, there: u32 },
    /// Its node would be empty.
    Fragmentation,
}

impl Why {
    /// In a few words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Hot {
                resource,
                used,
                threshold,
            } => format!(
                "hot: {used} % of {} used, {threshold} % wanted",
                MEASURED[*resource]
            ),
            Self::Spread { here, there } => {
                format!("spread: {here} pods in its domain, {there} in the other")
            }
            Self::Fragmentation => "fragmentation: empties its node".to_owned(),
        }
    }
}

/// A move.
#[derive(Clone, PartialEq, Debug)]
pub struct Move {
    pub uid: Arc<str>,
    pub from: NodeId,
    pub to: NodeId,
    pub why: Why,
    pub benefit: f64,
    pub cost: f64,
}

/// How things stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Nodes above their threshold.
    pub hot: usize,
    /// Spread constraints, counted once for each kind of pod, that do not hold.
    pub broken: usize,
    /// Nodes without any pod that could be moved.
    pub empty: usize,
}

/// A plan.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    pub moves: Vec<Move>,
    pub before: Standing,
    pub after: Standing,
}

/// Nodes used less than this, in per cent of requests, are worth emptying.
const LITTLE: i64 = 30;
/// Nodes tried as the new home of a pod that is to empty its own.
const TRIED: usize = 128;

struct Planner<'a, F> {
    cluster: &'a mut Cluster,
    movable: F,
    /// How many more pods of each disruption budget may go.
    budgets: Vec<i64>,
    moved: FxHashSet<Arc<str>>,
    /// In the order in which they were made, to be taken back.
    undo: Vec<(Arc<str>, Placed)>,
    moves: Vec<Move>,
    most: usize,
}

impl Cluster {
    /// Proposes at most so many moves. `movable` says of a pod whether it may be moved at all.
    pub fn rebalance(&mut self, most: usize, movable: impl Fn(&str) -> bool) -> Plan {
        let events = self.events.len();
        let loads = self.nodes.loads.all.clone();
        let before = self.standing(&movable);
        let budgets = self.budgets.values().map(|b| b.allowed).collect();
        let mut planner = Planner {
            cluster: self,
            movable,
            budgets,
            moved: FxHashSet::default(),
            undo: Vec::new(),
            moves: Vec::new(),
            most,
        };
        planner.cool();
        planner.even_out();
        planner.defragment();
        let Planner {
            moves,
            undo,
            movable,
            ..
        } = planner;
        let after = self.standing(&movable);
        for (uid, placed) in undo.into_iter().rev() {
            self.lift(&uid);
            self.put(&uid, placed);
        }
        self.nodes.loads.all = loads;
        for at in 0..self.nodes.slots() {
            self.touch(u32::try_from(at).unwrap_or(u32::MAX));
        }
        self.events.truncate(events);
        Plan {
            moves,
            before,
            after,
        }
    }

    /// The thresholds that nodes are held to: those of the first profile that looks at usage.
    fn thresholds(&self) -> Option<Limits> {
        let mut loads = self.profiles.iter().filter_map(|r| r.profile.load.as_ref());
        let load = loads.next().cloned().or_else(|| {
            let looks = self.nodes.loads.on;
            looks.then(LoadArgs::default)
        })?;
        Some(Limits {
            thresholds: load.thresholds,
            factors: load.factors,
        })
    }

    /// The resource of which a node uses more than it may, with its use and threshold in per cent.
    fn heat(&self, node: usize, limits: &Limits) -> Option<(usize, i64, i64)> {
        let load = self.nodes.loads.all.get(node).filter(|l| l.fresh)?;
        let all = self.nodes.rooms[node].allocatable;
        let all = [all.cpu, all.memory];
        (0..2).find_map(|i| {
            let unseen = load.unseen[i].saturating_mul(limits.factors[i]) / 100;
            let used = (load.measured[i] + unseen) * 100 / all[i].max(1);
            let threshold = limits.thresholds[i]?;
            (used > threshold).then_some((i, used, threshold))
        })
    }

    fn standing(&self, movable: &impl Fn(&str) -> bool) -> Standing {
        let limits = self.thresholds();
        let known = || (0..self.nodes.slots()).filter(|at| self.nodes.all[*at].known);
        let hot = limits.as_ref().map_or(0, |limits| {
            known()
                .filter(|at| self.heat(*at, limits).is_some())
                .count()
        });
        let mut broken = 0;
        for id in self.class_ids.values() {
            let class = &self.classes[id.0 as usize];
            if class.placed > 0 {
                broken += class
                    .hard
                    .iter()
                    .filter(|r| self.skew(r) > r.max_skew)
                    .count();
            }
        }
        let empty = known().filter(|at| {
            let pods = self.on_node.get(*at).map_or(&[][..], Vec::as_slice);
            !pods.iter().any(|uid| movable(uid) && !is_slot(uid))
        });
        Standing {
            hot,
            broken,
            empty: empty.count(),
        }
    }

    fn skew(&self, rule: &super::class::SpreadRule) -> i64 {
        let counter = &self.counters.counters[rule.counter.0 as usize];
        let most = counter.filled().map(|(_, pods)| pods).max().unwrap_or(0);
        i64::from(most) - i64::from(counter.min())
    }
}

impl<F: Fn(&str) -> bool> Planner<'_, F> {
    fn full(&self) -> bool {
        self.moves.len() >= self.most
    }

    /// The pods of a node that may be moved, the least costly first.
    fn candidates(&self, node: usize) -> Vec<(Arc<str>, Placed)> {
        let cluster = &self.cluster;
        let uids = cluster.on_node.get(node).map_or(&[][..], Vec::as_slice);
        let mut all: Vec<(Arc<str>, Placed)> = uids
            .iter()
            .filter(|uid| !self.moved.contains(*uid) && !is_slot(uid) && (self.movable)(uid))
            .filter_map(|uid| Some((uid.clone(), cluster.placed(uid)?)))
            .filter(|(_, placed)| {
                let class = &cluster.classes[placed.class.0 as usize];
                let state = &cluster.placements[class.placement as usize];
                let request = &class.request;
                state.pins.is_none()
                    && class.gang.is_none()
                    && request.claims.is_empty()
                    && !request.group.terminating
                    && self.spared_by(placed).is_none()
            })
            .collect();
        all.sort_by_key(|(uid, placed)| {
            let request = &cluster.classes[placed.class.0 as usize].request;
            (request.priority, -request.shape.base.cpu, uid.clone())
        });
        all
    }

    /// An exhausted disruption budget that guards the pod.
    fn spared_by(&self, placed: &Placed) -> Option<usize> {
        let mut guards = self.guards(placed).into_iter();
        guards.find(|at| self.budgets[*at] <= 0)
    }

    fn guards(&self, placed: &Placed) -> Vec<usize> {
        let cluster = &self.cluster;
        let group = &cluster.classes[placed.class.0 as usize].request.group;
        let symbols = &cluster.compiler.symbols;
        let budgets = cluster.budgets.values().enumerate();
        budgets
            .filter(|(_, b)| b.covers(group, symbols))
            .map(|(at, _)| at)
            .collect()
    }

    fn cost(&self, placed: &Placed) -> f64 {
        let request = &self.cluster.classes[placed.class.0 as usize].request;
        1.0 + f64::from(request.priority.clamp(0, 1_000_000)) / 100_000.0
    }

    /// Moves a pod, as far as the plan is concerned.
    fn make(&mut self, uid: &Arc<str>, placed: Placed, to: NodeId, why: Why, benefit: f64) {
        let cost = self.cost(&placed);
        for at in self.guards(&placed) {
            self.budgets[at] -= 1;
        }
        self.undo.push((uid.clone(), placed));
        self.cluster.lift(uid);
        let there = Placed {
            node: to,
            // What it uses there is not measured yet.
            started: i64::MAX,
            ..placed
        };
        self.cluster.put(uid, there);
        self.moved.insert(uid.clone());
        self.moves.push(Move {
            uid: uid.clone(),
            from: placed.node,
            to,
            why,
            benefit,
            cost,
        });
    }

    /// Where the scheduler would place the pod if it were not placed.
    fn elsewhere(&mut self, uid: &Arc<str>) -> Option<NodeId> {
        let placed = self.cluster.lift(uid)?;
        let to = self.cluster.choose_unreserved(placed.class);
        self.cluster.put(uid, placed);
        to.filter(|to| *to != placed.node)
    }

    fn cool(&mut self) {
        let Some(limits) = self.cluster.thresholds() else {
            return;
        };
        let mut hot: Vec<(i64, usize)> = (0..self.cluster.nodes.slots())
            .filter_map(|at| {
                let (_, used, threshold) = self.cluster.heat(at, &limits)?;
                Some((threshold - used, at))
            })
            .collect();
        hot.sort_unstable();
        for (_, at) in hot {
            for (uid, placed) in self.candidates(at) {
                let Some((resource, used, threshold)) = self.cluster.heat(at, &limits) else {
                    break;
                };
                if self.full() {
                    return;
                }
                let Some(to) = self.elsewhere(&uid) else {
                    continue;
                };
                let shape = &self.cluster.classes[placed.class.0 as usize].request.shape;
                let estimate: [i64; 2] =
                    std::array::from_fn(|i| shape.assumed[i] * limits.factors[i] / 100);
                let all = self.cluster.nodes.rooms[at].allocatable;
                let share = estimate[resource] * 100 / [all.cpu, all.memory][resource].max(1);
                let benefit = share.min(used - threshold);
                if benefit <= 0 {
                    continue;
                }
                // What it used leaves with it, if it was measured.
                let load = &mut self.cluster.nodes.loads.all[at];
                if placed.started <= load.horizon {
                    for (slot, amount) in load.measured.iter_mut().zip(estimate) {
                        *slot = (*slot - amount).max(0);
                    }
                }
                let why = Why::Hot {
                    resource,
                    used,
                    threshold,
                };
                self.make(&uid, placed, to, why, benefit as f64);
            }
        }
    }

    fn even_out(&mut self) {
        let mut ids: Vec<_> = self.cluster.class_ids.values().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let rules = self.cluster.classes[id.0 as usize].hard.clone();
            for rule in rules {
                // Each move lowers the skew, so that this ends.
                while self.cluster.skew(&rule) > rule.max_skew && !self.full() {
                    let counter = &self.cluster.counters.counters[rule.counter.0 as usize];
                    let fullest = counter
                        .filled()
                        .max_by_key(|(domain, pods)| (*pods, *domain));
                    let Some((domain, here)) = fullest else { break };
                    let members = self.cluster.topology.members(rule.key, domain).to_vec();
                    let mut found = None;
                    for node in members {
                        let mut own = self.candidates(node as usize);
                        own.retain(|(_, placed)| placed.class == id);
                        for (uid, placed) in own {
                            let Some(to) = self.elsewhere(&uid) else {
                                continue;
                            };
                            let there = self.cluster.topology.domain(rule.key, to.0);
                            let counter = &self.cluster.counters.counters[rule.counter.0 as usize];
                            if there != NONE && counter.count(there) + 1 < here {
                                found = Some((uid, placed, to, counter.count(there)));
                                break;
                            }
                        }
                        if found.is_some() {
                            break;
                        }
                    }
                    let Some((uid, placed, to, there)) = found else {
                        break;
                    };
                    let benefit = 10.0 * f64::from(here - there - 1);
                    self.make(&uid, placed, to, Why::Spread { here, there }, benefit);
                }
            }
        }
    }

    /// How full a node is, in per cent of what its fuller resource has.
    fn fullness(&self, at: usize) -> i64 {
        let room = &self.cluster.nodes.rooms[at];
        let share = |used: i64, all: i64| if all > 0 { used * 100 / all } else { 0 };
        share(room.used.cpu, room.allocatable.cpu)
            .max(share(room.used.memory, room.allocatable.memory))
    }

    fn defragment(&mut self) {
        let known = |at: &usize| self.cluster.nodes.all[*at].known;
        let mut by_use: Vec<(i64, usize)> = (0..self.cluster.nodes.slots())
            .filter(known)
            .map(|at| (self.fullness(at), at))
            .collect();
        by_use.sort_unstable();
        let little: Vec<usize> = by_use
            .iter()
            .filter(|(used, _)| (1..LITTLE).contains(used))
            .map(|(_, at)| *at)
            .collect();
        let mut homes: FxHashMap<usize, ()> = FxHashMap::default();
        for at in little {
            // A node that was just given pods is not emptied.
            if homes.contains_key(&at) || self.full() {
                continue;
            }
            let pods = self.candidates(at);
            let all = self.cluster.on_node.get(at).map_or(0, Vec::len);
            let pinned = (0..all).filter(|i| {
                let uid = &self.cluster.on_node[at][*i];
                !pods.iter().any(|(own, _)| own == uid) && !self.stays_anyway(uid)
            });
            if pods.is_empty() || pinned.count() > 0 || self.moves.len() + pods.len() > self.most {
                continue;
            }
            let free = 100 - self.fullness(at);
            let start = (self.moves.len(), self.undo.len());
            let (budgets, moved) = (self.budgets.clone(), self.moved.clone());
            let worth = (100 - free).max(1) as f64;
            let benefit = worth / pods.len() as f64;
            let mut emptied = true;
            for (uid, placed) in pods {
                // An earlier move may have used a budget up.
                let home = self
                    .spared_by(&placed)
                    .is_none()
                    .then(|| self.fuller_home(&uid, at))
                    .flatten();
                match home {
                    Some(to) => self.make(&uid, placed, to, Why::Fragmentation, benefit),
                    None => {
                        emptied = false;
                        break;
                    }
                }
            }
            if emptied {
                let to = self.moves[start.0..].iter().map(|m| m.to.0 as usize);
                homes.extend(to.map(|at| (at, ())));
                continue;
            }
            // Half a node emptied is none.
            for (uid, placed) in self.undo.drain(start.1..).rev() {
                self.cluster.lift(&uid);
                self.cluster.put(&uid, placed);
            }
            self.moves.truncate(start.0);
            (self.budgets, self.moved) = (budgets, moved);
        }
    }

    /// Whether a pod belongs to its node, so that the node counts as empty with it.
    fn stays_anyway(&self, uid: &str) -> bool {
        self.cluster.placed(uid).is_some_and(|placed| {
            let class = &self.cluster.classes[placed.class.0 as usize];
            let state = &self.cluster.placements[class.placement as usize];
            state.pins.is_some() || class.request.group.terminating
        })
    }

    /// The fullest node, fuller than its own, that takes the pod.
    fn fuller_home(&mut self, uid: &Arc<str>, from: usize) -> Option<NodeId> {
        let own = self.fullness(from);
        let mut homes: Vec<(i64, usize)> = (0..self.cluster.nodes.slots())
            .filter(|at| *at != from && self.cluster.nodes.all[*at].known)
            .map(|at| (self.fullness(at), at))
            .filter(|(used, _)| *used > own)
            .collect();
        homes.sort_unstable_by(|a, b| b.cmp(a));
        let placed = self.cluster.lift(uid)?;
        let shape = self.cluster.classes[placed.class.0 as usize]
            .request
            .shape
            .clone();
        let home = homes
            .into_iter()
            .filter_map(|(_, at)| Some(NodeId(u32::try_from(at).ok()?)))
            .filter(|node| self.cluster.nodes.fits(node.0, &shape))
            .take(TRIED)
            .find(|node| self.cluster.feasible(placed.class, *node));
        self.cluster.put(uid, placed);
        home
    }
}

#[cfg(test)]
mod tests;
