//! Turns: of lines of equal priority, tenants are served in turn, so that one who brings a hundred thousand pods at once
//! does not keep the others waiting; within a tenant the older pod comes first.
//!
//! Every tenant has a count of how often it was served. The one with the lowest is next. Who comes back after a while
//! begins where the others are: turns that were not used cannot be saved up, and those that were used are not forgotten.

use super::class::ClassId;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A tenant, as whoever feeds the queue numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Tenant(pub u32);

#[derive(Default)]
struct Turn {
    served: u64,
    /// Heads of lines: place in the queue, line.
    lines: BTreeSet<(u64, ClassId)>,
}

/// Lines of one priority.
#[derive(Default)]
struct Level {
    tenants: FxHashMap<Tenant, Turn>,
    /// Tenants that have lines, those served least first.
    order: BTreeSet<(u64, Tenant)>,
}

impl Level {
    fn insert(&mut self, tenant: Tenant, seq: u64, class: ClassId) {
        let floor = self.order.first().map_or(0, |(served, _)| *served);
        let turn = self.tenants.entry(tenant).or_default();
        if turn.lines.is_empty() {
            turn.served = turn.served.max(floor);
            self.order.insert((turn.served, tenant));
        }
        turn.lines.insert((seq, class));
    }

    fn remove(&mut self, tenant: Tenant, seq: u64, class: ClassId) {
        let Some(turn) = self.tenants.get_mut(&tenant) else {
            return;
        };
        turn.lines.remove(&(seq, class));
        if turn.lines.is_empty() {
            self.order.remove(&(turn.served, tenant));
        }
    }

    fn serve(&mut self, tenant: Tenant, change: fn(u64) -> u64) {
        let Some(turn) = self.tenants.get_mut(&tenant) else {
            return;
        };
        let waits = self.order.remove(&(turn.served, tenant));
        turn.served = change(turn.served);
        if waits {
            self.order.insert((turn.served, tenant));
        }
    }

    fn first(&self) -> Option<(u64, ClassId)> {
        let (_, tenant) = self.order.first()?;
        self.tenants.get(tenant)?.lines.first().copied()
    }
}

/// Lines that are ready, the next first.
#[derive(Default)]
pub struct Turns {
    levels: BTreeMap<Reverse<i32>, Level>,
}

impl Turns {
    /// A line is ready; `seq` is the place of its head in the queue.
    pub fn insert(&mut self, priority: i32, tenant: Tenant, seq: u64, class: ClassId) {
        let level = self.levels.entry(Reverse(priority)).or_default();
        level.insert(tenant, seq, class);
    }

    /// A line is not ready any more, or has another head.
    pub fn remove(&mut self, priority: i32, tenant: Tenant, seq: u64, class: ClassId) {
        let Some(level) = self.levels.get_mut(&Reverse(priority)) else {
            return;
        };
        level.remove(tenant, seq, class);
        // With nobody waiting, nobody has been served more than others.
        if level.order.is_empty() {
            self.levels.remove(&Reverse(priority));
        }
    }

    /// A tenant had its turn.
    pub fn serve(&mut self, priority: i32, tenant: Tenant) {
        if let Some(level) = self.levels.get_mut(&Reverse(priority)) {
            level.serve(tenant, |served| served + 1);
        }
    }

    /// A tenant had its turn in vain: it was not tried.
    pub fn unserve(&mut self, priority: i32, tenant: Tenant) {
        if let Some(level) = self.levels.get_mut(&Reverse(priority)) {
            level.serve(tenant, |served| served.saturating_sub(1));
        }
    }

    /// The line that is next, with the place of its head.
    #[must_use]
    pub fn first(&self) -> Option<(u64, ClassId)> {
        self.levels.values().next()?.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever waits is served before anybody else is served twice more, however many lines the others bring, and
        /// whenever.
        #[test]
        fn nobody_starves(arrivals in prop::collection::vec((0..5_u32, 0..4_u8), 1..200)) {
            let mut turns = Turns::default();
            let mut waiting: BTreeMap<Tenant, BTreeSet<(u64, ClassId)>> = BTreeMap::new();
            let mut since: BTreeMap<Tenant, BTreeMap<Tenant, u32>> = BTreeMap::new();
            let mut seq = 0;
            for (tenant, burst) in arrivals {
                let tenant = Tenant(tenant);
                for _ in 0..burst {
                    seq += 1;
                    let class = ClassId(u32::try_from(seq).unwrap());
                    turns.insert(0, tenant, seq, class);
                    waiting.entry(tenant).or_default().insert((seq, class));
                }
                let Some((at, class)) = turns.first() else { continue };
                let served = *waiting.iter().find(|(_, lines)| lines.contains(&(at, class))).expect("it waits").0;
                // The oldest of the tenant.
                prop_assert_eq!(waiting[&served].first(), Some(&(at, class)));
                turns.serve(0, served);
                turns.remove(0, served, at, class);
                waiting.get_mut(&served).expect("just seen").remove(&(at, class));
                waiting.retain(|_, lines| !lines.is_empty());
                since.remove(&served);
                since.retain(|tenant, _| waiting.contains_key(tenant));
                for tenant in waiting.keys().filter(|t| **t != served) {
                    let count = since.entry(*tenant).or_default().entry(served).or_default();
                    *count += 1;
                    prop_assert!(*count <= 2, "{:?} was served again and again while {:?} waits", served, tenant);
                }
            }
        }
    }

    #[test]
    fn a_burst_of_one_does_not_delay_the_others() {
        let mut turns = Turns::default();
        for seq in 0..1000 {
            turns.insert(0, Tenant(0), seq, ClassId(u32::try_from(seq).unwrap()));
        }
        turns.insert(0, Tenant(1), 1000, ClassId(1000));
        turns.insert(5, Tenant(2), 1001, ClassId(1001));
        let mut order = Vec::new();
        for (priority, tenant) in [(5, 2), (0, 0), (0, 1), (0, 0)] {
            let (seq, class) = turns.first().unwrap();
            turns.serve(priority, Tenant(tenant));
            turns.remove(priority, Tenant(tenant), seq, class);
            order.push(seq);
        }
        // Priority first, then in turn.
        assert_eq!(order, [1001, 0, 1000, 1]);
    }
}
