//! Rounds: pods decided at the same time by several workers, as far as one scheduler's state allows it.
//!
//! A round takes the next pods of the queue, in the order in which tenants are served. Each worker decides its share over
//! the cluster as it was when the round began, and sees of what is decided meanwhile only its own part (its
//! [`Overlay`]). What they propose is then settled in the order of the queue, one after another: every filter looks
//! once more, at the cluster as it is by then. What another worker took, room or a place in a spread, is a conflict, and
//! that pod is decided anew on the spot. So whatever the workers think, the outcome is one that a single decider could
//! have come to, and no tenant is served out of turn.
//!
//! Work is dealt out by rank (the pool or placement, the spread key and the size of the pods): a rank belongs to one
//! worker for as long as a round lasts, so that no two of them keep the same ranks up to date. Which worker gets what
//! depends on the pods alone, and with it the outcome: threads that run faster or slower change nothing.

use super::class::ClassId;
use super::cluster::Cluster;
use super::decide::{Check, Choice, Decision, Way};
use super::diagnosis::Diagnosis;
use super::overlay::Overlay;
use super::rank::Rank;
use super::topology::KeyId;
use rustc_hash::{FxHashMap, FxHashSet};

/// Fewer pods than this for every worker are decided faster by one.
const WORTH: usize = 16;

/// What a worker makes of one pod.
enum Proposal {
    Node(Choice),
    Refused(Box<Diagnosis>),
    /// Nothing that would count: it is decided when its turn comes.
    Open,
}

/// Pods decided at the same time, to be settled one after another with [`Cluster::settle`].
pub struct Round {
    classes: Vec<ClassId>,
    proposals: Vec<Proposal>,
    /// [`Cluster::lifts`] and the length of the log when the round began.
    lifts: u64,
    log: u64,
    /// The ranks know that what is proposed is not placed yet.
    exposed: bool,
    /// Proposals that did not hold: the node was taken meanwhile, or a count that the decision relied on has changed.
    pub conflicts: usize,
    /// Pods that workers found a node for.
    pub proposed: usize,
}

/// Where a class is to be looked for: placements, with the way into each.
type Plan = Vec<(u32, Option<Way>)>;

struct Held {
    rank: Rank,
    /// How much of the worker's own log it has seen; `None`: it was not brought up to date yet.
    seen: Option<usize>,
}

struct Worker<'a> {
    cluster: &'a Cluster,
    plans: &'a FxHashMap<ClassId, Plan>,
    overlay: Overlay,
    held: FxHashMap<usize, Held>,
    /// Classes that found no node: the next of their kind will not either.
    hopeless: FxHashSet<ClassId>,
}

impl Worker<'_> {
    fn choose(&mut self, id: ClassId) -> Option<Choice> {
        let cluster = self.cluster;
        let shape = cluster.classes[id.0 as usize].shape;
        for (placement, way) in self.plans.get(&id)? {
            let Some(way) = way else { continue };
            let mut rank = None;
            if let Way::Ranked(ranked, _) = way {
                let held = self.held.get_mut(&ranked.index)?;
                let seats = self.overlay.seats(&cluster.nodes);
                let view = cluster.view(seats, *ranked, *placement, shape);
                let from = held.seen.unwrap_or_else(|| {
                    let version = cluster.placements[*placement as usize].version;
                    held.rank
                        .catch_up(&view, &cluster.log, cluster.log_start, version);
                    0
                });
                for node in &self.overlay.log[from..] {
                    held.rank.refresh(*node, &view);
                }
                held.seen = Some(self.overlay.log.len());
                rank = Some(&held.rank);
            }
            let check = Check::within(cluster, &self.overlay, id, *placement);
            if let Some(choice) = cluster.follow(&check, way, rank) {
                return Some(choice);
            }
        }
        None
    }

    fn propose(&mut self, id: ClassId) -> Proposal {
        if self.hopeless.contains(&id) {
            return Proposal::Open;
        }
        let cluster = self.cluster;
        if let Some(choice) = self.choose(id)
            && let Some((node, _)) = choice.best[0]
        {
            let class = &cluster.classes[id.0 as usize];
            self.overlay.book(
                class,
                node,
                &cluster.nodes,
                &cluster.counters,
                &cluster.topology,
            );
            return Proposal::Node(choice);
        }
        self.hopeless.insert(id);
        // Refused only if it would be without what this worker has decided.
        let diagnosis = cluster.diagnose(id);
        if diagnosis.nobody {
            Proposal::Refused(Box::new(diagnosis))
        } else {
            Proposal::Open
        }
    }
}

/// A worker's share: places in the round, and the ranks that they need.
#[derive(Default)]
struct Share {
    pods: Vec<usize>,
    ranks: Vec<(usize, Option<KeyId>)>,
}

impl Cluster {
    /// Decides pods of these classes at the same time. Nothing is placed yet: [`Cluster::settle`] says of each, in
    /// order, where it goes. Statistics of ranks aside, the outcome depends on nothing but what the cluster is like.
    pub fn propose(&mut self, classes: Vec<ClassId>, workers: usize) -> Round {
        let mut round = Round {
            proposals: classes.iter().map(|_| Proposal::Open).collect(),
            lifts: self.lifts,
            log: self.log_start + self.log.len() as u64,
            exposed: false,
            conflicts: 0,
            proposed: 0,
            classes,
        };
        let workers = workers.min(round.classes.len() / WORTH);
        if workers < 2 {
            return round;
        }
        let (plans, shares) = self.deal(&round.classes, workers);
        if shares.iter().filter(|s| !s.pods.is_empty()).count() < 2 {
            return round;
        }
        let mut tasks = Vec::new();
        for (at, share) in shares.into_iter().enumerate() {
            let take = |(index, key): &(usize, Option<KeyId>)| {
                let rank = std::mem::replace(&mut self.ranks[*index], Rank::new(*key));
                (*index, Held { rank, seen: None })
            };
            let held: FxHashMap<usize, Held> = share.ranks.iter().map(take).collect();
            tasks.push((share.pods, held, Overlay::new(at, workers)));
        }
        let (cluster, classes) = (&*self, &round.classes);
        let run = |(pods, held, overlay): (Vec<usize>, FxHashMap<usize, Held>, Overlay)| {
            let mut worker = Worker {
                cluster,
                plans: &plans,
                overlay,
                held,
                hopeless: FxHashSet::default(),
            };
            let propose = |at: usize| (at, worker.propose(classes[at]));
            let proposals: Vec<(usize, Proposal)> = pods.into_iter().map(propose).collect();
            (proposals, worker.held)
        };
        let done = std::thread::scope(|scope| {
            let mut tasks = tasks.into_iter();
            let own = tasks.next();
            let others: Vec<_> = tasks.map(|task| scope.spawn(|| run(task))).collect();
            let own = own.map(run);
            // Of a worker that panicked, pods are decided in turn and ranks are built anew.
            let others = others.into_iter().filter_map(|worker| worker.join().ok());
            own.into_iter().chain(others).collect::<Vec<_>>()
        });
        for (proposals, held) in done {
            for (at, proposal) in proposals {
                round.proposed += usize::from(matches!(proposal, Proposal::Node(_)));
                round.proposals[at] = proposal;
            }
            for (index, held) in held {
                self.ranks[index] = held.rank;
            }
        }
        round
    }

    /// Deals classes out, those with most pods first: to a worker that has their rank already, unless it has its part,
    /// else to the one with the least to do. Finds the way of each.
    fn deal(
        &mut self,
        classes: &[ClassId],
        workers: usize,
    ) -> (FxHashMap<ClassId, Plan>, Vec<Share>) {
        let mut pods: FxHashMap<ClassId, Vec<usize>> = FxHashMap::default();
        let mut order = Vec::new();
        for (at, class) in classes.iter().enumerate() {
            let of = pods.entry(*class).or_insert_with(|| {
                order.push(*class);
                Vec::new()
            });
            of.push(at);
        }
        // A gang is decided as a whole, and whoever has room held for it takes that.
        order.retain(|class| {
            let of = &self.classes[class.0 as usize];
            // Devices are given away one pod after another.
            of.gang.is_none() && !self.asks_devices(&of.request) && !self.may_have_slot(*class)
        });
        // Stable: of equally many pods, who came first.
        order.sort_by_key(|class| std::cmp::Reverse(pods[class].len()));
        let part = classes.len().div_ceil(workers);
        let mut shares: Vec<Share> = (0..workers).map(|_| Share::default()).collect();
        // By rank: the workers that have a copy of it, the first the first.
        let mut owners: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        let mut taken: FxHashMap<usize, usize> = FxHashMap::default();
        let mut plans: FxHashMap<ClassId, Plan> = FxHashMap::default();
        for id in order {
            let class = &self.classes[id.0 as usize];
            let placements = match class.tiers.is_empty() {
                true => vec![class.placement],
                false => class.tiers.clone(),
            };
            let mut plan: Plan = Vec::new();
            for placement in placements {
                plan.push((placement, self.way(id, placement, 0)));
            }
            let first = plan.iter().find_map(|(_, way)| rank_of(way.as_ref()));
            let load = |worker: &usize| shares[*worker].pods.len();
            let near = first.and_then(|(rank, _)| owners.get(&rank));
            let near = near.and_then(|owners| owners.iter().copied().min_by_key(load));
            let worker = near
                .filter(|worker| load(worker) + pods[&id].len() <= part)
                .or_else(|| (0..workers).min_by_key(load))
                .unwrap_or_default();
            for (placement, way) in &mut plan {
                let Some((rank, _)) = rank_of(way.as_ref()) else {
                    continue;
                };
                let owners = owners.entry(rank).or_default();
                let copy = owners.iter().position(|owner| *owner == worker);
                let copy = copy.unwrap_or_else(|| {
                    owners.push(worker);
                    owners.len() - 1
                });
                if copy > 0 {
                    *way = self.way(id, *placement, copy);
                }
            }
            let ranks = plan.iter().filter_map(|(_, way)| rank_of(way.as_ref()));
            let ranks: Vec<_> = ranks.collect();
            let foreign = |rank: &usize| taken.get(rank).is_some_and(|owner| *owner != worker);
            if ranks.iter().any(|(rank, _)| foreign(rank)) {
                // There are so many ranks that a copy was made of another's place: decided in turn.
                continue;
            }
            for (rank, key) in ranks {
                if taken.insert(rank, worker).is_none() {
                    shares[worker].ranks.push((rank, key));
                }
            }
            shares[worker].pods.extend(&pods[&id]);
            plans.insert(id, plan);
        }
        self.drop_lost(&mut plans, &mut shares, classes);
        for share in &mut shares {
            // In the order of the queue.
            share.pods.sort_unstable();
        }
        (plans, shares)
    }

    /// With very many ranks in one round, the first have made way for others by the time that the last are found: pods
    /// that lost theirs are decided in turn.
    fn drop_lost(
        &self,
        plans: &mut FxHashMap<ClassId, Plan>,
        shares: &mut [Share],
        classes: &[ClassId],
    ) {
        let is_kept = |id: &ClassId, plan: &Plan| {
            let shape = self.classes[id.0 as usize].shape;
            plan.iter().all(|(placement, way)| match way {
                Some(Way::Ranked(rank, key)) => self.is_rank_of(*rank, *placement, *key, shape),
                _ => true,
            })
        };
        let before = plans.len();
        plans.retain(|id, plan| is_kept(id, plan));
        if plans.len() < before {
            for share in shares {
                share.pods.retain(|at| plans.contains_key(&classes[*at]));
            }
        }
    }

    /// Where the pod at this place of the round goes. To be asked for one after another, and what is decided to be placed
    /// before the next is asked for.
    pub fn settle(&mut self, round: &mut Round, at: usize) -> Decision {
        let class = round.classes[at];
        match std::mem::replace(&mut round.proposals[at], Proposal::Open) {
            Proposal::Node(choice) => {
                if let Some((node, _)) = choice.best[0] {
                    if self.feasible(class, node) {
                        self.slot = None;
                        self.choice = choice;
                        return Decision::Place(node);
                    }
                    self.touch(node.0);
                }
                round.conflicts += 1;
            }
            // Nothing left a node, and what came cannot have opened one.
            Proposal::Refused(diagnosis)
                if round.lifts == self.lifts
                    && (round.log == self.log_start + self.log.len() as u64
                        || !self.may_be_let_in(class)) =>
            {
                return Decision::Unschedulable(*diagnosis);
            }
            Proposal::Refused(_) | Proposal::Open => {}
        }
        self.expose(round);
        self.decide(class)
    }

    /// Whether pods that come may open nodes to the class: by being sought, or by evening out a spread.
    fn may_be_let_in(&self, class: ClassId) -> bool {
        let class = &self.classes[class.0 as usize];
        !class.affinity.is_empty() || !class.hard.is_empty()
    }

    /// Ends a round of which some pods may not have been settled.
    pub fn close(&mut self, mut round: Round) {
        self.expose(&mut round);
    }

    /// Lets the ranks know that what is still proposed is placed nowhere.
    fn expose(&mut self, round: &mut Round) {
        if std::mem::replace(&mut round.exposed, true) {
            return;
        }
        for proposal in &round.proposals {
            if let Proposal::Node(Choice {
                best: [Some((node, _)), ..],
                ..
            }) = proposal
            {
                self.touch(node.0);
            }
        }
    }
}

/// The rank of a way, with its key.
fn rank_of(way: Option<&Way>) -> Option<(usize, Option<KeyId>)> {
    match way {
        Some(Way::Ranked(id, key)) => Some((id.index, *key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
