//! What nodes have room for and how they score, with what is booked on them beyond what is known: a worker of a round
//! sees its own decisions so (see [`super::round`]), everybody else the nodes as they are.

use super::load::{Limits, LoadArgs, share};
use super::nodes::{Nodes, Others, Room, balanced, book_other};
use super::profile::{Resource, Rule, Rules, Strategy};
use super::request::Shape;
use rustc_hash::FxHashMap;

/// A node with more booked on it than is known.
#[derive(Clone, Debug)]
pub struct Booked {
    pub room: Room,
    pub other: Others,
}

impl Booked {
    /// The node as it is.
    #[must_use]
    pub fn new(nodes: &Nodes, id: u32) -> Self {
        Self {
            room: nodes.rooms[id as usize],
            other: nodes.all[id as usize].other.clone(),
        }
    }

    /// One more pod is there.
    pub fn book(&mut self, shape: &Shape) {
        self.room.book(shape, 1);
        book_other(&mut self.other, shape, 1);
    }
}

/// All nodes, some with more booked on them than is known.
#[derive(Clone, Copy)]
pub struct Seats<'a> {
    nodes: &'a Nodes,
    booked: &'a FxHashMap<u32, Booked>,
}

impl<'a> Seats<'a> {
    /// The nodes, with this booked beyond.
    #[must_use]
    pub const fn new(nodes: &'a Nodes, booked: &'a FxHashMap<u32, Booked>) -> Self {
        Self { nodes, booked }
    }

    /// Number of slots, used or not.
    #[must_use]
    pub fn slots(self) -> usize {
        self.nodes.slots()
    }

    fn room(self, id: u32) -> &'a Room {
        match self.booked.get(&id) {
            Some(booked) => &booked.room,
            None => &self.nodes.rooms[id as usize],
        }
    }

    fn other(self, id: u32) -> &'a Others {
        match self.booked.get(&id) {
            Some(booked) => &booked.other,
            None => &self.nodes.all[id as usize].other,
        }
    }

    /// The scores by room, each 0 to 100: the profile's strategy, and how evenly resources are used.
    #[must_use]
    pub fn scores(self, id: u32, shape: &Shape, rules: &Rules) -> (i64, i64) {
        if rules.plain {
            let room = self.room(id);
            return (room.least(shape).into(), room.balance(shape).into());
        }
        let (mut sum, mut weights) = (0, 0);
        for (resource, weight) in &rules.resources {
            let (used, capacity) = self.taken(id, shape, *resource, true);
            if capacity == 0 {
                continue;
            }
            let score = rules.profile.strategy.score(used, capacity);
            // A resource that scores nothing by a line counts for nothing, as in kube-scheduler.
            if score > 0
                || !matches!(
                    rules.profile.strategy,
                    Strategy::RequestedToCapacityRatio(_)
                )
            {
                sum += score * weight;
                weights += weight;
            }
        }
        let fit = match rules.profile.strategy {
            _ if weights == 0 => 0,
            Strategy::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        };
        let asks = rules.balanced.iter().any(|r| wanted(shape, *r) > 0);
        if !asks {
            return (fit, 0);
        }
        let evenness = |with: bool| {
            let taken = rules.balanced.iter().map(|resource| {
                let (used, capacity) = self.taken(id, shape, *resource, false);
                let own = if with { 0 } else { wanted(shape, *resource) };
                (used - own, capacity)
            });
            let fractions: Vec<f64> = taken
                .filter(|(_, capacity)| *capacity > 0)
                .map(|(used, capacity)| (used as f64 / capacity as f64).min(1.0))
                .collect();
            let count = fractions.len().max(1) as f64;
            let mean = fractions.iter().sum::<f64>() / count;
            let variance = fractions.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / count;
            ((1.0 - variance.sqrt()) * 100.0) as u16
        };
        (fit, balanced(evenness(true), evenness(false)).into())
    }

    /// The weighted sum of [`Seats::scores`] and of the score by usage.
    #[must_use]
    pub fn score(self, id: u32, shape: &Shape, rules: &Rules) -> i64 {
        let load = match &rules.profile.load {
            Some(args) => rules.weight(Rule::Load) * self.load_score(id, shape, args),
            None => 0,
        };
        if rules.plain {
            return i64::from(self.room(id).score(shape)) + load;
        }
        let (fit, balance) = self.scores(id, shape, rules);
        fit * rules.weight(Rule::Fit) + balance * rules.weight(Rule::Balance) + load
    }

    /// What of a resource would be taken with one more pod of the shape, and all there is of it. An extended resource
    /// that the pod does not ask for is not looked at.
    fn taken(self, id: u32, shape: &Shape, resource: Resource, assumed: bool) -> (i64, i64) {
        let room = self.room(id);
        let (base, all, used) = (&shape.base, &room.allocatable, &room.used);
        match resource {
            Resource::Cpu if assumed => (room.assumed[0] + shape.assumed[0], all.cpu),
            Resource::Memory if assumed => (room.assumed[1] + shape.assumed[1], all.memory),
            Resource::Cpu => (used.cpu + base.cpu, all.cpu),
            Resource::Memory => (used.memory + base.memory, all.memory),
            Resource::Storage => (used.storage + base.storage, all.storage),
            Resource::Other(name) => {
                let Some((_, want)) = shape.other.iter().find(|(n, _)| *n == name) else {
                    return (0, 0);
                };
                let mut there = self.other(id).iter().filter(|(n, ..)| *n == name);
                if let Some((_, all, used)) = there.find(|(_, all, _)| *all > 0) {
                    return (used + want, *all);
                }
                // What the node does not have itself, devices may serve.
                let served = self.nodes.served.get(&(id, name));
                served.map_or((0, 0), |(all, taken)| (taken + want, *all))
            }
        }
    }

    /// Whether extended resources have room.
    #[must_use]
    #[inline(never)]
    pub fn fits_other(self, id: u32, shape: &Shape) -> bool {
        let there = self.other(id);
        shape.other.iter().all(|(name, amount)| {
            let there = there.iter().find(|(n, ..)| n == name);
            let (_, all, used) = there.copied().unwrap_or((*name, 0, 0));
            all - used >= *amount || self.nodes.delegates(*name, all)
        })
    }

    /// Whether all resources have room.
    #[must_use]
    pub fn fits(self, id: u32, shape: &Shape) -> bool {
        self.room(id).fits(shape) && (shape.other.is_empty() || self.fits_other(id, shape))
    }

    /// What the node would use with one more pod of the shape.
    #[must_use]
    pub fn estimate(self, id: u32, shape: &Shape, factors: [i64; 2]) -> [i64; 2] {
        let assumed = self.room(id).assumed;
        let load = self.nodes.loads.all.get(id as usize).filter(|l| l.fresh);
        std::array::from_fn(|i| {
            let there = match load {
                Some(load) => load.measured[i] + share(load.unseen[i], factors[i]),
                None => share(assumed[i], factors[i]),
            };
            there + share(shape.assumed[i], factors[i])
        })
    }

    fn capacity(self, id: u32) -> [i64; 2] {
        let all = &self.room(id).allocatable;
        [all.cpu, all.memory]
    }

    /// The resource, by its place in [`super::load::MEASURED`], of which the node would use more than the limits allow. A node whose
    /// measurement is missing or too old is never too hot.
    #[must_use]
    pub fn too_hot(self, id: u32, shape: &Shape, limits: &Limits) -> Option<usize> {
        self.nodes.loads.all.get(id as usize).filter(|l| l.fresh)?;
        let (used, all) = (self.estimate(id, shape, limits.factors), self.capacity(id));
        (0..2).find(|i| {
            limits.thresholds[*i]
                .is_some_and(|percent| all[*i] > 0 && used[*i] > share(all[*i], percent))
        })
    }

    /// The score by usage, 0 to 100: the cooler the node would be, the higher.
    #[must_use]
    pub fn load_score(self, id: u32, shape: &Shape, args: &LoadArgs) -> i64 {
        let (used, all) = (self.estimate(id, shape, args.factors), self.capacity(id));
        let (mut sum, mut weights) = (0, 0);
        for i in 0..2 {
            if all[i] > 0 {
                let free = (all[i] - used[i]).max(0);
                let score = i128::from(free) * 100 / i128::from(all[i]);
                sum += i64::try_from(score).unwrap_or(100) * args.weights[i];
                weights += args.weights[i];
            }
        }
        if weights == 0 { 0 } else { sum / weights }
    }
}

/// What a pod of the shape asks for of a resource.
fn wanted(shape: &Shape, resource: Resource) -> i64 {
    match resource {
        Resource::Cpu => shape.base.cpu,
        Resource::Memory => shape.base.memory,
        Resource::Storage => shape.base.storage,
        Resource::Other(name) => {
            let of = shape.other.iter().find(|(n, _)| *n == name);
            of.map_or(0, |(_, amount)| *amount)
        }
    }
}
