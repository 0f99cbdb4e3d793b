//! How many devices serve an extended resource on a node, and how many of them somebody has: for profiles that score
//! such a resource. Kept by node, and counted anew only where something has changed.

use super::Devices;
use super::capacity::Held;
use super::slice::PoolKey;
use crate::core::cluster::Cluster;
use crate::core::nodes::{Node, NodeId};
use crate::core::profile::Rules;
use crate::core::symbols::{Symbol, Symbols};
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;

/// Where counts are no longer true.
#[derive(Default)]
pub(super) struct Stale {
    /// Somebody asks for counts.
    on: bool,
    everywhere: bool,
    nodes: FxHashSet<Symbol>,
    /// Pools, by driver and name, of which devices were taken or given back.
    pools: FxHashSet<(Symbol, Symbol)>,
}

impl Stale {
    pub fn everywhere(&mut self) {
        self.everywhere |= self.on;
    }

    pub fn nodes<'a>(&mut self, nodes: impl IntoIterator<Item = &'a Symbol>) {
        if self.on && !self.everywhere {
            self.nodes.extend(nodes);
        }
    }

    pub fn held(&mut self, held: &[Held]) {
        if self.on && !self.everywhere {
            let pool = |held: &Held| (held.key.0, held.key.1);
            self.pools.extend(held.iter().map(pool));
        }
    }
}

/// Nodes whose counts are no longer true.
enum Where {
    Everywhere,
    On(FxHashSet<Symbol>),
}

impl Devices {
    /// From now on, notes where counts change.
    pub(in crate::core) fn watch_totals(&mut self) {
        self.stale.on = true;
        self.stale.everywhere = true;
    }

    /// A node came, or changed what devices it can reach.
    pub(in crate::core) fn node_changed(&mut self, node: Symbol) {
        self.stale.nodes([&node]);
    }

    fn take_stale(&mut self, symbols: &Symbols) -> Where {
        let mut stale = std::mem::take(&mut self.stale);
        self.stale.on = stale.on;
        for (driver, name) in stale.pools {
            let [driver, name] = [driver, name].map(|part| symbols.text(part).into());
            match self.pools.get(&PoolKey { driver, name }) {
                Some(pool) if pool.wide => stale.everywhere = true,
                Some(pool) => stale.nodes.extend(&pool.nodes),
                None => {}
            }
        }
        match stale.everywhere {
            true => Where::Everywhere,
            false => Where::On(stale.nodes),
        }
    }

    fn is_stale(&self) -> bool {
        self.stale.everywhere || !self.stale.nodes.is_empty() || !self.stale.pools.is_empty()
    }

    /// All devices of the class that the node can reach, and those of them that somebody has; nothing, if a selector
    /// cannot be told.
    fn totals(&self, class: Symbol, node: &Node, symbols: &Symbols) -> (i64, i64) {
        let Some(class) = self.classes.get(&class) else {
            return (0, 0);
        };
        let local = self.local.get(&node.name).into_iter().flatten();
        let pools: BTreeSet<&PoolKey> = local.chain(&self.wide).collect();
        let pools = pools.into_iter().filter_map(|key| self.pools.get(key));
        let (mut all, mut taken) = (0, 0);
        for slice in pools.flat_map(|pool| &pool.live) {
            if !slice.reach.includes(node, symbols) {
                continue;
            }
            let verdicts = class.selectors.iter().map(|s| self.verdicts(slice, s));
            let verdicts: Vec<_> = verdicts.collect();
            for (at, device) in slice.devices.iter().enumerate() {
                if !slice.reach_of(device).includes(node, symbols) {
                    continue;
                }
                // The first selector that does not take it decides.
                match verdicts.iter().map(|v| &v[at]).find(|v| **v != Ok(true)) {
                    Some(Err(_)) => return (0, 0),
                    Some(Ok(_)) => continue,
                    None => {}
                }
                all += 1;
                taken += i64::from(self.taken.any(device.key));
            }
        }
        (all, taken)
    }
}

impl Cluster {
    /// Brings up to date what scores read of devices.
    pub(in crate::core) fn count_devices(&mut self) {
        if !self.devices.is_stale()
            || self.nodes.delegated.is_empty() && self.nodes.served.is_empty()
        {
            return;
        }
        let scored: FxHashSet<Symbol> = self.profiles.iter().flat_map(Rules::extended).collect();
        let stale = self.devices.take_stale(&self.compiler.symbols);
        let nodes: Vec<NodeId> = match stale {
            Where::Everywhere => (0..self.nodes.slots())
                .filter_map(|at| u32::try_from(at).ok().map(NodeId))
                .collect(),
            Where::On(names) => names
                .into_iter()
                .filter_map(|name| self.nodes.find(name))
                .collect(),
        };
        for node in nodes {
            for resource in &scored {
                let class = self.devices.extended.get(resource);
                let of = &self.nodes.all[node.0 as usize];
                let symbols = &self.compiler.symbols;
                let totals = class.map(|class| self.devices.totals(*class, of, symbols));
                let totals = totals.filter(|(all, _)| *all > 0);
                let key = (node.0, *resource);
                let before = match totals {
                    Some(totals) => self.nodes.served.insert(key, totals),
                    None => self.nodes.served.remove(&key),
                };
                if before != totals {
                    self.touch(node.0);
                }
            }
        }
    }
}
