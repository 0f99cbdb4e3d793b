//! Preemption: which pods of lower priority would have to leave, and from which node, for a pod to fit.
//!
//! Nodes are tried for real: lower pods are lifted off in the core, filters look again, as many as possible are put
//! back (first those whose going would break a disruption budget, then the others; higher and longer running before
//! lower and younger), and then all are. The order of preference among nodes is kube-scheduler's: fewest disruption
//! budgets broken, lowest highest victim, lowest sum, fewest victims, youngest highest victim. Pods that are leaving
//! anyway cost nothing. Only where a quota is full, and no one node has enough pods that hold its place, do pods leave
//! several nodes.

use super::class::ClassId;
use super::cluster::{Cluster, Placed};
use super::decide::Check;
use super::nodes::NodeId;
use super::quota::Verdict;
use super::request::GroupKey;
use super::reservation::is_slot;
use super::selector::Selector;
use super::symbols::{Symbol, Symbols};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Who has to leave where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    pub node: NodeId,
    /// Includes pods that are leaving already: all must be gone before the pod can start. All are on the node, but for
    /// those that leave a full quota.
    pub victims: Vec<Arc<str>>,
}

/// A disruption budget.
pub struct Budget {
    pub namespace: Symbol,
    pub selector: Selector,
    /// How many more of its pods may be disrupted now.
    pub allowed: i64,
}

impl Budget {
    pub(super) fn covers(&self, group: &GroupKey, symbols: &Symbols) -> bool {
        self.namespace == group.namespace && self.selector.matches(&group.labels, symbols)
    }
}

/// Smaller is better.
type Cost = (usize, i64, i64, usize, std::cmp::Reverse<i64>);

/// A pod that may have to leave.
struct Lower {
    priority: i32,
    uid: Arc<str>,
    placed: Placed,
}

impl Cluster {
    /// Finds room for a class that fits nowhere by removing pods of lower priority. `spared` pods are never chosen:
    /// those that the caller has decided and not yet bound.
    pub fn preempt(&mut self, id: ClassId, spared: impl Fn(&str) -> bool) -> Option<Preemption> {
        let request = self.classes[id.0 as usize].request.clone();
        let lowest = *self.priorities.keys().next()?;
        let able = request.preempts && self.rules(id).profile.preemption;
        if !able || (lowest >= request.priority && self.quotas.is_empty()) {
            return None;
        }
        // In a quota that is full, only those help who have its place.
        let full = self.yielding_quotas(id);
        if full.is_empty() && self.quota_refusal(id).is_some() {
            return None;
        }
        if (!request.claims.is_empty() || self.asks_devices(&request))
            && Check::new(self, id).blocked().is_some()
        {
            return None;
        }
        self.on_one_node(id, &full, &spared)
            .or_else(|| self.across_nodes(id, &full, &spared))
    }

    fn on_one_node(
        &mut self,
        id: ClassId,
        full: &[Verdict],
        spared: &impl Fn(&str) -> bool,
    ) -> Option<Preemption> {
        let mut best: Option<(Cost, Preemption)> = None;
        for node in self.preemptible(id, full) {
            let before = self.events.len();
            let trial = self.trial(id, node, spared);
            // Lifting and putting back is nobody's business.
            self.events.truncate(before);
            let Some(victims) = trial else { continue };
            let cost = self.cost(&victims);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, Preemption { node, victims }));
            }
        }
        best.map(|(_, preemption)| preemption)
    }

    /// Makes place in a full quota wherever those are who have it, the least important first; and room on the node where
    /// the pod fits then, if that has none.
    fn across_nodes(
        &mut self,
        id: ClassId,
        full: &[Verdict],
        spared: &impl Fn(&str) -> bool,
    ) -> Option<Preemption> {
        if full.is_empty() {
            return None;
        }
        let before = self.events.len();
        let mut holders = self.lower_pods(self.pods.keys(), spared);
        let in_it = |cluster: &Self, pod: &Lower| {
            let relieves = |quota| full.iter().any(|v| cluster.quotas.relieves(*v, quota));
            pod.placed.quota.is_some_and(relieves)
        };
        holders.retain(|pod| in_it(self, pod));
        let mut lifted = Vec::new();
        while self.quota_refusal(id).is_some()
            && let Some(pod) = holders.pop()
        {
            if self.may_displace(id, &pod.placed) {
                self.lift(&pod.uid);
                lifted.push(pod);
            }
        }
        lifted.reverse();
        let mut room = None;
        if self.quota_refusal(id).is_none() {
            let slots = u32::try_from(self.nodes.slots()).unwrap_or(u32::MAX);
            let free = (0..slots).find(|at| self.feasible(id, NodeId(*at)));
            room = match free {
                Some(at) => Some(Preemption {
                    node: NodeId(at),
                    victims: Vec::new(),
                }),
                None => self.on_one_node(id, &[], spared),
            };
        }
        if let Some(Preemption { node, victims }) = &mut room {
            let there: Vec<(Arc<str>, Option<Placed>)> = victims
                .iter()
                .map(|uid| (uid.clone(), self.lift(uid)))
                .collect();
            let (breaking, others) = self.guarded(lifted);
            lifted = Vec::new();
            for pod in breaking.into_iter().chain(others) {
                self.put(&pod.uid, pod.placed);
                if !self.feasible(id, *node) {
                    self.lift(&pod.uid);
                    victims.push(pod.uid.clone());
                    lifted.push(pod);
                }
            }
            for (uid, placed) in &there {
                if let Some(placed) = placed {
                    self.put(uid, *placed);
                }
            }
        }
        for pod in &lifted {
            self.put(&pod.uid, pod.placed);
        }
        self.events.truncate(before);
        room
    }

    /// The pods of lower priority that are leaving a node where room was made for a class, if the class fits there once
    /// they are gone. `None` if it does not; none at all if it fits now. This is how a scheduler that is started anew
    /// goes on with what its predecessor began.
    pub fn room_made(&mut self, id: ClassId, node: &str) -> Option<Preemption> {
        let node = self
            .compiler
            .symbols
            .known(node)
            .and_then(|name| self.nodes.find(name))?;
        let leaving: Vec<(Arc<str>, Placed)> = self
            .on_node
            .get(node.0 as usize)?
            .iter()
            .filter_map(|uid| Some((uid.clone(), self.placed(uid)?)))
            .filter(|(_, placed)| {
                let request = &self.classes[placed.class.0 as usize].request;
                request.group.terminating && self.may_displace(id, placed)
            })
            .collect();
        let before = self.events.len();
        for (uid, _) in &leaving {
            self.lift(uid);
        }
        let fits = self.feasible(id, node);
        for (uid, placed) in &leaving {
            self.put(uid, *placed);
        }
        self.events.truncate(before);
        let needed = !self.feasible(id, node);
        fits.then(|| Preemption {
            node,
            victims: if needed {
                leaving.into_iter().map(|(uid, _)| uid).collect()
            } else {
                Vec::new()
            },
        })
    }

    /// Nodes with pods of lower priority, on which fewer pods could help; each time from another start. Where quotas are
    /// full, pods that have their place.
    fn preemptible(&self, id: ClassId, full: &[Verdict]) -> Vec<NodeId> {
        let check = Check::new(self, id);
        let slots = self.nodes.slots();
        let start = usize::try_from(self.decisions).unwrap_or_default() % slots.max(1);
        let nodes = (start..slots).chain(0..start).filter(|at| {
            let relieves = |placed: &Placed| {
                let in_it = |quota| full.iter().any(|v| self.quotas.relieves(*v, quota));
                full.is_empty() || placed.quota.is_some_and(in_it)
            };
            let lower = |uid: &Arc<str>| {
                let placed = self.placed(uid);
                placed.is_some_and(|p| relieves(&p) && self.may_displace(id, &p))
            };
            self.nodes.all[*at].known
                && self.reject(&check, id, *at, &mut |_| {})
                && self
                    .on_node
                    .get(*at)
                    .is_some_and(|pods| pods.iter().any(lower))
        });
        let (percent, least) = self.rules(id).profile.trials;
        let trials = (self.nodes.known * percent / 100).max(least);
        nodes
            .take(trials)
            .filter_map(|at| Some(NodeId(u32::try_from(at).ok()?)))
            .collect()
    }

    /// Placed pods that are neither spared nor room that is held, the more important first: of higher priority, then
    /// running for longer.
    fn lower_pods<'a>(
        &self,
        uids: impl Iterator<Item = &'a Arc<str>>,
        spared: &impl Fn(&str) -> bool,
    ) -> Vec<Lower> {
        let able = uids.filter(|uid| !spared(uid) && !is_slot(uid));
        let mut lower: Vec<Lower> = able
            .filter_map(|uid| {
                let placed = self.placed(uid)?;
                Some(Lower {
                    priority: self.classes[placed.class.0 as usize].request.priority,
                    uid: uid.clone(),
                    placed,
                })
            })
            .collect();
        lower.sort_by(|a, b| {
            let by_priority = b.priority.cmp(&a.priority);
            let by_start = a.placed.started.cmp(&b.placed.started);
            by_priority.then(by_start).then_with(|| a.uid.cmp(&b.uid))
        });
        lower
    }

    fn trial(
        &mut self,
        id: ClassId,
        node: NodeId,
        spared: &impl Fn(&str) -> bool,
    ) -> Option<Vec<Arc<str>>> {
        let mut lower = self.lower_pods(self.on_node[node.0 as usize].iter(), spared);
        // Least important first, each as long as its quota can spare it.
        let mut kept = Vec::new();
        for pod in lower.drain(..).rev() {
            if self.may_displace(id, &pod.placed) {
                self.lift(&pod.uid);
                kept.push(pod);
            }
        }
        let mut lower = kept;
        lower.reverse();
        if !self.feasible(id, node) {
            for pod in &lower {
                self.put(&pod.uid, pod.placed);
            }
            return None;
        }
        let (breaking, others) = self.guarded(lower);
        let mut victims = Vec::new();
        for pod in breaking.into_iter().chain(others) {
            self.put(&pod.uid, pod.placed);
            // Those that are leaving stay victims: the pod cannot start before they are gone.
            if !self.feasible(id, node) {
                self.lift(&pod.uid);
                victims.push(pod);
            }
        }
        for pod in &victims {
            self.put(&pod.uid, pod.placed);
        }
        Some(victims.into_iter().map(|pod| pod.uid).collect())
    }

    /// Parts pods into those whose going, all of them gone, would break a disruption budget, and the others.
    fn guarded(&self, pods: Vec<Lower>) -> (Vec<Lower>, Vec<Lower>) {
        if self.budgets.is_empty() {
            return (Vec::new(), pods);
        }
        let mut used: FxHashMap<usize, i64> = FxHashMap::default();
        pods.into_iter().partition(|pod| {
            let request = &self.classes[pod.placed.class.0 as usize].request;
            let mut breaks = false;
            if request.group.terminating {
                return false;
            }
            for (at, budget) in self.budgets.values().enumerate() {
                if budget.covers(&request.group, &self.compiler.symbols) {
                    let used = used.entry(at).or_default();
                    *used += 1;
                    breaks |= *used > budget.allowed;
                }
            }
            breaks
        })
    }

    fn cost(&self, victims: &[Arc<str>]) -> Cost {
        let (mut highest, mut sum, mut count) = (i64::from(i32::MIN), 0, 0);
        let mut started = i64::MAX;
        let mut broken = 0;
        let mut used: FxHashMap<usize, i64> = FxHashMap::default();
        for uid in victims {
            let Some(placed) = self.placed(uid) else {
                continue;
            };
            let request = &self.classes[placed.class.0 as usize].request;
            if request.group.terminating {
                continue;
            }
            let priority = i64::from(request.priority);
            if priority > highest {
                started = i64::MAX;
            }
            if priority >= highest {
                started = started.min(placed.started);
            }
            highest = highest.max(priority);
            // Shifted so that more victims never sum to less, as priorities may be negative.
            sum += priority - i64::from(i32::MIN);
            count += 1;
            for (at, budget) in self.budgets.values().enumerate() {
                if budget.covers(&request.group, &self.compiler.symbols) {
                    let used = used.entry(at).or_default();
                    *used += 1;
                    broken += usize::from(*used > budget.allowed);
                }
            }
        }
        (broken, highest, sum, count, std::cmp::Reverse(started))
    }
}
