//! Preemption: which pods of lower priority would have to leave, and from which node, for a pod to fit.
//!
//! Nodes are tried for real: lower pods are lifted off in the core, filters look again, as many as possible are put
//! back, highest first, and then all are. The order of preference among nodes is kube-scheduler's: fewest disruption
//! budgets broken, lowest highest victim, lowest sum, fewest victims. Pods that are leaving anyway cost nothing.

use super::class::ClassId;
use super::cluster::Cluster;
use super::decide::Check;
use super::nodes::NodeId;
use super::selector::Selector;
use super::symbols::Symbol;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Nodes on which making room is worked out; kube-scheduler too looks at a sample (10 %, at least 100).
const TRIALS: usize = 100;

/// Who has to leave where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    pub node: NodeId,
    /// Includes pods that are leaving already: all must be gone before the pod can start.
    pub victims: Vec<Arc<str>>,
}

/// A disruption budget.
pub struct Budget {
    pub namespace: Symbol,
    pub selector: Selector,
    /// How many more of its pods may be disrupted now.
    pub allowed: i64,
}

/// Smaller is better.
type Cost = (usize, i64, i64, usize);

impl Cluster {
    /// Finds room for a class that fits nowhere by removing pods of lower priority. `spared` pods are never chosen:
    /// those that the caller has decided and not yet bound.
    pub fn preempt(&mut self, id: ClassId, spared: impl Fn(&str) -> bool) -> Option<Preemption> {
        let request = self.classes[id.0 as usize].request.clone();
        let lowest = *self.priorities.keys().next()?;
        if !request.preempts || lowest >= request.priority {
            return None;
        }
        let mut best: Option<(Cost, Preemption)> = None;
        for node in self.preemptible(id, request.priority) {
            let before = self.events.len();
            let trial = self.trial(id, node, request.priority, &spared);
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

    /// Nodes with pods of lower priority, on which fewer pods could help; each time from another start.
    fn preemptible(&self, id: ClassId, priority: i32) -> Vec<NodeId> {
        let check = Check::new(self, id);
        let slots = self.nodes.slots();
        let start = usize::try_from(self.decisions).unwrap_or_default() % slots.max(1);
        let nodes = (start..slots).chain(0..start).filter(|at| {
            let lower = |uid: &Arc<str>| {
                self.placed(uid)
                    .is_some_and(|p| self.classes[p.class.0 as usize].request.priority < priority)
            };
            self.nodes.all[*at].known
                && self.reject(&check, id, *at, &mut |_| {})
                && self
                    .on_node
                    .get(*at)
                    .is_some_and(|pods| pods.iter().any(lower))
        });
        nodes
            .take(TRIALS)
            .filter_map(|at| Some(NodeId(u32::try_from(at).ok()?)))
            .collect()
    }

    fn trial(
        &mut self,
        id: ClassId,
        node: NodeId,
        priority: i32,
        spared: &impl Fn(&str) -> bool,
    ) -> Option<Vec<Arc<str>>> {
        let mut lower: Vec<(i32, Arc<str>, ClassId)> = Vec::new();
        for uid in &self.on_node[node.0 as usize] {
            let Some(placed) = self.placed(uid) else {
                continue;
            };
            let of = self.classes[placed.class.0 as usize].request.priority;
            if of < priority && !spared(uid) {
                lower.push((of, uid.clone(), placed.class));
            }
        }
        lower.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (_, uid, _) in &lower {
            self.lift(uid);
        }
        if !self.feasible(id, node) {
            for (_, uid, class) in &lower {
                self.place_at(uid, *class, node);
            }
            return None;
        }
        let mut victims = Vec::new();
        for (_, uid, class) in lower {
            self.place_at(&uid, class, node);
            // Those that are leaving stay victims: the pod cannot start before they are gone.
            if !self.feasible(id, node) {
                self.lift(&uid);
                victims.push((uid, class));
            }
        }
        for (uid, class) in &victims {
            self.place_at(uid, *class, node);
        }
        Some(victims.into_iter().map(|(uid, _)| uid).collect())
    }

    fn cost(&self, victims: &[Arc<str>]) -> Cost {
        let (mut highest, mut sum, mut count) = (i64::from(i32::MIN), 0, 0);
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
            highest = highest.max(priority);
            // Shifted so that more victims never sum to less, as priorities may be negative.
            sum += priority - i64::from(i32::MIN);
            count += 1;
            for (at, budget) in self.budgets.values().enumerate() {
                if budget.namespace == request.group.namespace
                    && budget
                        .selector
                        .matches(&request.group.labels, &self.compiler.symbols)
                {
                    let used = used.entry(at).or_default();
                    *used += 1;
                    broken += usize::from(*used > budget.allowed);
                }
            }
        }
        (broken, highest, sum, count)
    }
}
