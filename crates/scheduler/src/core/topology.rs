//! Topology domains: for every topology key in use, which domain each node is in.

use super::nodes::Nodes;
use super::symbols::{Symbol, value_of};
use rustc_hash::FxHashMap;

/// No domain: the node lacks the label.
pub const NONE: u32 = u32::MAX;

/// A key beyond this many domains is not worth a rank of its own per domain.
const MOST_PARTITIONS: usize = 64;

/// A topology key in use, by its index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub u32);

/// One topology key.
pub struct Key {
    symbol: Symbol,
    by_value: FxHashMap<Symbol, u32>,
    /// Domain by node.
    of: Vec<u32>,
    /// Nodes by domain.
    members: Vec<Vec<u32>>,
}

/// All topology keys in use.
#[derive(Default)]
pub struct Topology {
    keys: Vec<Key>,
    by_symbol: FxHashMap<Symbol, KeyId>,
}

impl Topology {
    /// The key's index; its domains are gathered at first use.
    pub fn key(&mut self, symbol: Symbol, nodes: &Nodes) -> KeyId {
        if let Some(id) = self.by_symbol.get(&symbol) {
            return *id;
        }
        let id = KeyId(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        let mut key = Key {
            symbol,
            by_value: FxHashMap::default(),
            of: Vec::new(),
            members: Vec::new(),
        };
        for (node, state) in nodes.all.iter().enumerate() {
            if state.known {
                key.enter(node, value_of(&state.labels, symbol));
            }
        }
        self.keys.push(key);
        self.by_symbol.insert(symbol, id);
        id
    }

    /// The domain of a node, or [`NONE`].
    #[must_use]
    pub fn domain(&self, key: KeyId, node: u32) -> u32 {
        self.keys[key.0 as usize]
            .of
            .get(node as usize)
            .copied()
            .unwrap_or(NONE)
    }

    /// The nodes of a domain.
    #[must_use]
    pub fn members(&self, key: KeyId, domain: u32) -> &[u32] {
        self.keys[key.0 as usize]
            .members
            .get(domain as usize)
            .map_or(&[], Vec::as_slice)
    }

    /// The nodes whose label of the key has the value.
    #[must_use]
    pub fn members_of(&self, key: KeyId, value: Symbol) -> &[u32] {
        let of = &self.keys[key.0 as usize];
        of.by_value
            .get(&value)
            .map_or(&[], |domain| self.members(key, *domain))
    }

    /// Number of domains ever seen.
    #[must_use]
    pub fn domains(&self, key: KeyId) -> usize {
        self.keys[key.0 as usize].members.len()
    }

    /// Whether ranks may be kept per domain: few domains with many nodes each.
    #[must_use]
    pub fn partitions(&self, key: KeyId) -> bool {
        let key = &self.keys[key.0 as usize];
        (2..=MOST_PARTITIONS).contains(&key.members.len()) && key.members.len() * 4 <= key.of.len()
    }

    /// A node came, or its labels are new.
    pub fn enter(&mut self, node: u32, labels: &[(Symbol, Symbol)]) {
        for key in &mut self.keys {
            let value = value_of(labels, key.symbol);
            key.enter(node as usize, value);
        }
    }

    /// A node went, or its labels are about to change.
    pub fn leave(&mut self, node: u32) {
        for key in &mut self.keys {
            let Some(slot) = key.of.get_mut(node as usize).filter(|d| **d != NONE) else {
                continue;
            };
            let domain = std::mem::replace(slot, NONE);
            key.members[domain as usize].retain(|n| *n != node);
        }
    }
}

impl Key {
    fn enter(&mut self, node: usize, value: Option<Symbol>) {
        if self.of.len() <= node {
            self.of.resize(node + 1, NONE);
        }
        let Some(value) = value else { return };
        let next = u32::try_from(self.members.len()).unwrap_or(NONE);
        let domain = *self.by_value.entry(value).or_insert(next);
        if domain == next {
            self.members.push(Vec::new());
        }
        self.of[node] = domain;
        self.members[domain as usize].push(u32::try_from(node).unwrap_or(NONE));
    }
}
