//! The NUMA nodes of one node, and whether its kubelet would admit a pod: the rules of the topology manager's policies
//! `single-numa-node` and `restricted`, and of the CPU manager's option `full-pcpus-only`.

use crate::core::profile::{NumaScore, NumaStrategy, Resource};
use crate::core::symbols::Symbol;

/// NUMA nodes up to which sets of them are tried: kubelets refuse to align on more than eight unless told otherwise.
const MOST_ZONES: usize = 12;

/// What one container needs of a NUMA node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ask {
    /// Cores of its own, in millicores; 0: it shares.
    pub cpu: i64,
    /// Memory of its own; 0: it shares.
    pub memory: i64,
    /// Devices and huge pages.
    pub other: Vec<(Symbol, i64)>,
}

impl Ask {
    /// Nothing that a NUMA node would have to give.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.other.is_empty()
    }

    fn join(&mut self, more: &Self, how: fn(i64, i64) -> i64) {
        self.cpu = how(self.cpu, more.cpu);
        self.memory = how(self.memory, more.memory);
        for (name, amount) in &more.other {
            match self.other.iter_mut().find(|(n, _)| n == name) {
                Some(slot) => slot.1 = how(slot.1, *amount),
                None => self.other.push((*name, *amount)),
            }
        }
    }

    /// All that is asked for.
    fn all(&self) -> impl Iterator<Item = (Resource, i64)> + '_ {
        let own = [(Resource::Cpu, self.cpu), (Resource::Memory, self.memory)];
        let other = self.other.iter().map(|(n, a)| (Resource::Other(*n), *a));
        own.into_iter().chain(other).filter(|(_, want)| *want > 0)
    }
}

/// What a pod needs of NUMA nodes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Asks {
    /// Init containers, which run one after another and leave what they had.
    pub init: Vec<Ask>,
    pub containers: Vec<Ask>,
}

impl Asks {
    /// All that runs at once.
    #[must_use]
    pub fn sum(&self) -> Ask {
        let mut sum = Ask::default();
        for ask in &self.containers {
            sum.join(ask, |a, b| a.saturating_add(b));
        }
        sum
    }

    /// The most that is needed at any time, as kubelets align whole pods.
    fn whole(&self) -> Ask {
        let mut whole = self.sum();
        for ask in &self.init {
            whole.join(ask, i64::max);
        }
        whole
    }

    fn each(&self) -> impl Iterator<Item = &Ask> {
        let all = self.init.iter().chain(&self.containers);
        all.filter(|ask| !ask.is_empty())
    }
}

/// One NUMA node: resources with what is free, and all there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zone(pub Vec<(Resource, i64, i64)>);

impl Zone {
    fn of(&self, resource: Resource) -> Option<(i64, i64)> {
        let found = self.0.iter().find(|(r, ..)| *r == resource);
        found.map(|(_, free, all)| (*free, *all))
    }

    fn free(&self, resource: Resource) -> i64 {
        self.of(resource).map_or(0, |(free, _)| free)
    }

    /// Takes as much as asked for off what is free, and it may be less than nothing then.
    pub fn take(&mut self, ask: &Ask) {
        for (resource, want) in ask.all() {
            if let Some(slot) = self.0.iter_mut().find(|(r, ..)| *r == resource) {
                slot.1 -= want;
            }
        }
    }
}

/// What a kubelet's topology manager insists on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// `none` and `best-effort`: on nothing.
    #[default]
    Anything,
    /// On as few NUMA nodes as could hold it were they empty.
    Restricted,
    Single,
}

/// Why a node cannot give what is to be aligned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Misfit {
    /// It does not align to one NUMA node, and the pod needs that.
    Unaligned,
    /// A container, or the pod, fits on no single NUMA node.
    Container,
    Pod,
    /// The same, on no set of NUMA nodes that is as small as it could be.
    RestrictedContainer,
    RestrictedPod,
    /// It gives away whole physical cores only, and the pod asks for a part of one.
    Cores,
}

/// The NUMA nodes of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    pub policy: Policy,
    /// The kubelet looks at pods as wholes, and not at each container.
    pub by_pod: bool,
    pub zones: Vec<Zone>,
    /// Threads that a physical core has, where cores are given away whole only; else 1.
    pub threads: i64,
    /// Pods that started after this second are not in the report.
    pub horizon: i64,
}

impl Topology {
    /// What of an ask is in the topology at all: what no zone reports cannot be aligned, and does not matter.
    fn wants(&self, ask: &Ask) -> Vec<(Resource, i64)> {
        let there = |r: &Resource| self.zones.iter().any(|zone| zone.of(*r).is_some());
        ask.all().filter(|(r, _)| there(r)).collect()
    }

    /// Whether a container asks for a part of a physical core where only whole ones are given away.
    #[must_use]
    pub fn splits_core(&self, asks: &Asks) -> bool {
        self.threads > 1 && asks.each().any(|ask| ask.cpu % (1000 * self.threads) != 0)
    }

    /// Why the kubelet would refuse the pod, with this free on its NUMA nodes. `must`: the pod insists on one.
    #[must_use]
    pub fn refuses(&self, mut free: Vec<Zone>, asks: &Asks, must: bool) -> Option<Misfit> {
        let single = must || self.policy == Policy::Single;
        if self.by_pod || must {
            let misfit = if single {
                Misfit::Pod
            } else {
                Misfit::RestrictedPod
            };
            let place = self.place(&free, &asks.whole(), single);
            return place.is_none().then_some(misfit);
        }
        let misfit = if single {
            Misfit::Container
        } else {
            Misfit::RestrictedContainer
        };
        for ask in asks.init.iter().filter(|ask| !ask.is_empty()) {
            if self.place(&free, ask, single).is_none() {
                return Some(misfit);
            }
        }
        // As the kubelet goes about it: container by container.
        for ask in asks.containers.iter().filter(|ask| !ask.is_empty()) {
            let Some(set) = self.place(&free, ask, single) else {
                return Some(misfit);
            };
            self.take(&mut free, set, ask);
        }
        None
    }

    /// The NUMA nodes, as bits, on which an ask would be placed.
    fn place(&self, free: &[Zone], ask: &Ask, single: bool) -> Option<usize> {
        let wants = self.wants(ask);
        let has = |set: usize, (resource, want): &(Resource, i64)| {
            let inside = free.iter().enumerate().filter(|(i, _)| set & (1 << i) != 0);
            inside.map(|(_, z)| z.free(*resource)).sum::<i64>() >= *want
        };
        let all = |set: usize| wants.iter().all(|want| has(set, want));
        if wants.is_empty() || !single && free.len() > MOST_ZONES {
            return Some(0);
        }
        if single {
            return (0..free.len()).map(|i| 1 << i).find(|set| all(*set));
        }
        // All have to agree about one set that is the smallest for each of them. Of memory nobody tells whether the kubelet
        // aligns it at all: it has to be there, and has no say.
        let speaks = |(resource, _): &&(Resource, i64)| *resource != Resource::Memory;
        let mut sizes = wants.iter().filter(speaks);
        let first = sizes.next().or(wants.first())?;
        let size = self.fewest(first.0, first.1)?;
        if !sizes.all(|(r, want)| self.fewest(*r, *want) == Some(size)) {
            return None;
        }
        let mut sets = (1..1_usize << free.len()).filter(|set| set.count_ones() == size);
        sets.find(|set| all(*set))
    }

    /// How many NUMA nodes it would take at least if all of them were empty. `None`: all of them are not enough.
    fn fewest(&self, resource: Resource, want: i64) -> Option<u32> {
        let whole = self.zones.iter().filter_map(|zone| zone.of(resource));
        let mut whole: Vec<i64> = whole.map(|(_, all)| all).collect();
        whole.sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = 0;
        let enough = whole.iter().position(|all| {
            sum += all;
            sum >= want
        });
        u32::try_from(enough? + 1).ok()
    }

    fn take(&self, free: &mut [Zone], set: usize, ask: &Ask) {
        for (resource, mut want) in self.wants(ask) {
            for (i, zone) in free.iter_mut().enumerate() {
                if set & (1 << i) == 0 {
                    continue;
                }
                if let Some(slot) = zone.0.iter_mut().find(|(r, ..)| *r == resource) {
                    let part = want.min(slot.1.max(0));
                    slot.1 -= part;
                    want -= part;
                }
            }
        }
    }

    /// The score of the node, 0 to 100: of the NUMA nodes on which a container (or the pod) fits, the lowest; of several
    /// containers their mean. 0 where nothing is aligned.
    #[must_use]
    pub fn score(&self, free: &[Zone], asks: &Asks, how: &NumaScore<Resource>) -> i64 {
        if self.policy == Policy::Anything {
            return 0;
        }
        let of = |ask: &Ask| {
            let wants = self.wants(ask);
            let scores = free.iter().map(|zone| zone.score(&wants, how));
            scores.filter(|score| *score > 0).min().unwrap_or(0)
        };
        if self.by_pod {
            return of(&asks.whole());
        }
        let scores: Vec<i64> = asks.each().map(of).collect();
        let count = i64::try_from(scores.len()).unwrap_or(1).max(1);
        scores.iter().sum::<i64>() / count
    }
}

impl Zone {
    fn score(&self, wants: &[(Resource, i64)], how: &NumaScore<Resource>) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        let mut fractions = Vec::new();
        for (resource, want) in wants {
            let free = self.free(*resource);
            if free <= 0 || *want > free {
                return 0;
            }
            let weight = how.resources.iter().find(|(r, _)| r == resource);
            let weight = weight.map_or(1, |(_, weight)| *weight);
            let percent = |part: i64| {
                let percent = i128::from(part) * 100 / i128::from(free);
                i64::try_from(percent).unwrap_or(100)
            };
            sum += weight
                * match how.strategy {
                    NumaStrategy::MostAllocated => percent(*want),
                    _ => percent(free - want),
                };
            weights += weight;
            fractions.push(*want as f64 / free as f64);
        }
        if weights == 0 {
            return 0;
        }
        if how.strategy != NumaStrategy::BalancedAllocation {
            return sum / weights;
        }
        let count = fractions.len() as f64;
        let mean = fractions.iter().sum::<f64>() / count;
        let variance = fractions.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / count;
        ((1.0 - variance) * 100.0) as i64
    }
}
