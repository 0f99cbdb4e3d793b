//! A matcher's pods by the domains of a topology key, with the fewest in any of them at hand.

use super::MatcherId;
use crate::core::topology::KeyId;
use rustc_hash::FxHashMap;

/// A matcher's pods by domain.
pub struct Counter {
    pub matcher: MatcherId,
    pub key: KeyId,
    pub(super) eligibility: Option<u32>,
    pub(super) counts: FxHashMap<u32, u32>,
    /// Eligible nodes by domain; only with an eligibility.
    pub(super) nodes: FxHashMap<u32, u32>,
    /// How many present domains have a given count.
    pub(super) histogram: Vec<u32>,
    pub(super) min: usize,
}

impl Counter {
    /// Pods in the domain.
    #[must_use]
    pub fn count(&self, domain: u32) -> u32 {
        self.counts.get(&domain).copied().unwrap_or_default()
    }

    /// The domains with pods.
    pub fn filled(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counts.iter().map(|(d, c)| (*d, *c))
    }

    /// Number of domains with pods.
    #[must_use]
    pub fn filled_len(&self) -> usize {
        self.counts.len()
    }

    /// The domains with eligible nodes.
    pub fn present(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes.keys().copied()
    }

    /// Number of domains with eligible nodes.
    #[must_use]
    pub fn domains(&self) -> usize {
        self.nodes.len()
    }

    /// The smallest count over the domains with eligible nodes.
    #[must_use]
    pub fn min(&self) -> u32 {
        u32::try_from(self.min).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, domain: u32, pods: u32) {
        let count = self.counts.entry(domain).or_default();
        let (old, new) = (*count as usize, (*count + pods) as usize);
        *count += pods;
        self.shift(domain, old, new);
    }

    pub(super) fn subtract(&mut self, domain: u32, pods: u32) {
        let Some(count) = self.counts.get_mut(&domain) else {
            return;
        };
        let (old, new) = (*count as usize, count.saturating_sub(pods) as usize);
        *count = count.saturating_sub(pods);
        if new == 0 {
            self.counts.remove(&domain);
        }
        self.shift(domain, old, new);
    }

    pub(super) fn shift(&mut self, domain: u32, old: usize, new: usize) {
        if self.nodes.contains_key(&domain) {
            self.histogram[old] -= 1;
            self.raise(new);
        }
    }

    pub(super) fn raise(&mut self, count: usize) {
        if self.histogram.len() <= count {
            self.histogram.resize(count + 1, 0);
        }
        self.histogram[count] += 1;
        self.min = self.min.min(count);
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        if self.nodes.is_empty() {
            self.min = 0;
            return;
        }
        while self.histogram.get(self.min) == Some(&0) {
            self.min += 1;
        }
    }

    pub(super) fn enter(&mut self, domain: u32) {
        let nodes = self.nodes.entry(domain).or_default();
        *nodes += 1;
        if *nodes == 1 {
            if self.nodes.len() == 1 {
                self.min = usize::MAX;
            }
            let count = self.count(domain) as usize;
            self.raise(count);
        }
    }

    pub(super) fn leave(&mut self, domain: u32) {
        let Some(nodes) = self.nodes.get_mut(&domain) else {
            return;
        };
        *nodes -= 1;
        if *nodes == 0 {
            self.nodes.remove(&domain);
            let count = self.count(domain) as usize;
            self.histogram[count] -= 1;
            self.settle();
        }
    }
}
