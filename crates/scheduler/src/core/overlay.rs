//! What one worker of a round has decided and nobody else knows of yet, laid over the cluster as it was when the round
//! began, so that the worker's next decision sees it: room on nodes, and counts of pods by domain.
//!
//! It has only to be near the truth: what comes of a round is looked at anew before it counts (see [`super::round`]).
//! Host ports, volumes, NUMA nodes and measured usage are therefore left out.

use super::class::Class;
use super::counters::{Carrier, CarrierId, Counter, CounterId, Counters, Toll};
use super::nodes::{NodeId, Nodes};
use super::rank::Lane;
use super::seats::{Booked, Seats};
use super::topology::{KeyId, NONE, Topology};
use rustc_hash::FxHashMap;

/// Domains of a counter up to which the smallest count is looked for among what one worker has added.
const FEW_DOMAINS: usize = 64;

#[derive(Default)]
struct Tolls {
    domains: FxHashMap<u32, Toll>,
    total: Toll,
}

/// Decisions of one worker.
#[derive(Default)]
pub struct Overlay {
    booked: FxHashMap<u32, Booked>,
    counts: FxHashMap<CounterId, FxHashMap<u32, u32>>,
    tolls: FxHashMap<CarrierId, Tolls>,
    /// Nodes in the order in which they were booked.
    pub log: Vec<u32>,
    lane: Lane,
}

impl Overlay {
    /// Nothing yet, of one worker of so many.
    #[must_use]
    pub fn new(worker: usize, workers: usize) -> Self {
        Self {
            lane: Lane {
                worker,
                workers,
                taken: 0,
            },
            ..Self::default()
        }
    }

    /// Where the worker begins among equal nodes.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        Lane {
            taken: self.log.len(),
            ..self.lane
        }
    }

    /// The nodes with what is booked here.
    #[must_use]
    pub const fn seats<'a>(&'a self, nodes: &'a Nodes) -> Seats<'a> {
        Seats::new(nodes, &self.booked)
    }

    /// A counter with what was added here.
    #[must_use]
    pub fn tally<'a>(&'a self, id: CounterId, counters: &'a Counters) -> Tally<'a> {
        Tally {
            counter: &counters.counters[id.0 as usize],
            more: self.counts.get(&id),
        }
    }

    /// A carrier with what was added here.
    #[must_use]
    pub fn pull<'a>(&'a self, id: CarrierId, counters: &'a Counters) -> Pull<'a> {
        Pull {
            carrier: &counters.carriers[id.0 as usize],
            more: self.tolls.get(&id),
        }
    }

    /// A pod of the class was decided to go to the node.
    pub fn book(
        &mut self,
        class: &Class,
        node: NodeId,
        nodes: &Nodes,
        counters: &Counters,
        topology: &Topology,
    ) {
        let booked = self.booked.entry(node.0);
        let booked = booked.or_insert_with(|| Booked::new(nodes, node.0));
        booked.book(&class.request.shape);
        counters.counted(class.group, node.0, topology, |counter, domain| {
            let counts = self.counts.entry(counter).or_default();
            *counts.entry(domain).or_default() += 1;
        });
        for (carrier, toll) in &class.carries {
            let key = counters.carriers[carrier.0 as usize].key;
            let tolls = self.tolls.entry(*carrier).or_default();
            tolls.total.add(toll.size());
            let domain = topology.domain(key, node.0);
            if domain != NONE {
                tolls.domains.entry(domain).or_default().add(*toll);
            }
        }
        self.log.push(node.0);
    }
}

/// A [`Counter`], with what a worker has added.
#[derive(Clone, Copy)]
pub struct Tally<'a> {
    counter: &'a Counter,
    more: Option<&'a FxHashMap<u32, u32>>,
}

impl<'a> Tally<'a> {
    /// Its topology key.
    #[must_use]
    pub const fn key(self) -> KeyId {
        self.counter.key
    }

    /// Pods in the domain.
    #[must_use]
    pub fn count(self, domain: u32) -> u32 {
        let more = self.more.and_then(|more| more.get(&domain));
        self.counter.count(domain) + more.copied().unwrap_or_default()
    }

    /// Whether there are no pods.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.more.is_none() && self.counter.filled_len() == 0
    }

    /// About how many domains have pods.
    #[must_use]
    pub fn filled_len(self) -> usize {
        self.counter.filled_len() + self.more.map_or(0, FxHashMap::len)
    }

    /// The domains with pods; some twice.
    pub fn filled(self) -> impl Iterator<Item = u32> + 'a {
        let more = self.more.into_iter().flat_map(FxHashMap::keys);
        let known = self.counter.filled().map(|(domain, _)| domain);
        known.chain(more.copied())
    }

    /// Number of domains with eligible nodes.
    #[must_use]
    pub fn domains(self) -> usize {
        self.counter.domains()
    }

    /// The smallest count over the domains with eligible nodes; of very many domains it may be too small.
    #[must_use]
    pub fn min(self) -> u32 {
        if self.more.is_none() || self.domains() > FEW_DOMAINS {
            return self.counter.min();
        }
        let counts = self.counter.present().map(|domain| self.count(domain));
        counts.min().unwrap_or_default()
    }
}

/// A [`Carrier`], with what a worker has added.
#[derive(Clone, Copy)]
pub struct Pull<'a> {
    carrier: &'a Carrier,
    more: Option<&'a Tolls>,
}

impl Pull<'_> {
    /// Its topology key.
    #[must_use]
    pub const fn key(self) -> KeyId {
        self.carrier.key
    }

    /// What the carriers say about a domain.
    #[must_use]
    pub fn at(self, domain: u32) -> Toll {
        let mut toll = self.carrier.at(domain).copied().unwrap_or_default();
        if let Some(more) = self.more.and_then(|more| more.domains.get(&domain)) {
            toll.add(*more);
        }
        toll
    }

    /// All tolls; of the weights the sizes.
    #[must_use]
    pub fn total(self) -> Toll {
        let mut total = self.carrier.total;
        if let Some(more) = self.more {
            total.add(more.total);
        }
        total
    }
}
