//! What placed pods' terms say of the domains that they are in.

use crate::core::topology::KeyId;
use rustc_hash::FxHashMap;

/// What a pod that carries a term says of the domain that it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Toll {
    /// 1 for required anti-affinity: the domain is forbidden.
    pub forbids: i64,
    /// 1 for required affinity, which attracts in return.
    pub seeks: i64,
    /// The weight of a preference.
    pub weight: i64,
}

impl Toll {
    pub(super) fn times(self, sign: i64) -> Self {
        Self {
            forbids: sign * self.forbids,
            seeks: sign * self.seeks,
            weight: sign * self.weight,
        }
    }

    /// The same with the size of its weight, so that weights never cancel out in a sum.
    pub(in crate::core) const fn size(self) -> Self {
        Self {
            weight: self.weight.abs(),
            ..self
        }
    }

    pub(in crate::core) const fn add(&mut self, other: Self) {
        self.forbids += other.forbids;
        self.seeks += other.seeks;
        self.weight += other.weight;
    }
}

/// A matcher seen from the pods that carry a term with it.
pub struct Carrier {
    pub key: KeyId,
    pub(super) domains: FxHashMap<u32, Toll>,
    pub(super) nodes: FxHashMap<u32, Toll>,
    /// All tolls; of the weights the sizes, so that they never cancel out.
    pub total: Toll,
}

impl Carrier {
    /// What the carriers say about a domain.
    #[must_use]
    pub fn at(&self, domain: u32) -> Option<&Toll> {
        self.domains.get(&domain)
    }

    pub(super) fn change(map: &mut FxHashMap<u32, Toll>, at: u32, toll: Toll) {
        let sum = map.entry(at).or_default();
        sum.add(toll);
        if *sum == Toll::default() {
            map.remove(&at);
        }
    }
}
