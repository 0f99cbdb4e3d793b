//! Quotas of the pods of a cluster: which one counts where, and who may have to leave for whom.

use super::{Amounts, Later, Verdict};
use crate::core::class::{Class, ClassId};
use crate::core::cluster::{Cluster, Event, Placed};
use crate::core::diagnosis::Reason;
use crate::core::nodes::NodeId;
use crate::core::object;

impl From<Verdict> for Option<Reason> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Guaranteed | Verdict::Borrows => None,
            Verdict::Over(quota, resource) => Some(Reason::OverQuota(quota, resource)),
            Verdict::NothingToBorrow(quota, resource) => {
                Some(Reason::NothingToBorrow(quota, resource))
            }
        }
    }
}

impl Cluster {
    /// A quota came or changed. It holds once [`Cluster::settle_rules`] is called.
    pub fn set_quota(&mut self, quota: &object::ElasticQuota) {
        self.quotas.later.push(Later::Set(Box::new(quota.clone())));
    }

    /// A quota went. That holds once [`Cluster::settle_rules`] is called.
    pub fn remove_quota(&mut self, namespace: &str, name: &str) {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.quotas.later.push(Later::Remove(namespace, name));
    }

    /// Lets changed quotas hold. Their status, written by the scheduler itself, changes nothing.
    pub(in crate::core) fn settle_quotas(&mut self) {
        for change in std::mem::take(&mut self.quotas.later) {
            self.rules_changed |= match change {
                Later::Set(quota) => self.quotas.set(&quota, &mut self.compiler.symbols),
                Later::Remove(namespace, name) => {
                    let symbols = &self.compiler.symbols;
                    self.quotas.remove(&namespace, &name, symbols)
                }
            };
        }
    }

    /// What one more pod of the class would be in its quota, if it has one; of pools, in that of the first.
    #[must_use]
    pub fn quota_verdict(&self, class: ClassId) -> Option<Verdict> {
        let class = &self.classes[class.0 as usize];
        let (quota, takes) = class.quota.as_ref()?;
        let first = class.pool_quotas.first().copied().flatten();
        Some(self.quotas.verdict(first.unwrap_or(*quota), takes))
    }

    /// What stands in the way of one more pod of the class in its quotas, if there is no place in any of them.
    fn full_quotas(&self, class: ClassId) -> Vec<Verdict> {
        let class = &self.classes[class.0 as usize];
        let Some((quota, takes)) = class.quota.as_ref() else {
            return Vec::new();
        };
        let mut all = class.pool_quotas.clone();
        if all.is_empty() {
            all.push(Some(*quota));
        }
        let mut full = Vec::new();
        for quota in all {
            match quota.map(|quota| self.quotas.verdict(quota, takes)) {
                Some(verdict @ (Verdict::Over(..) | Verdict::NothingToBorrow(..))) => {
                    full.push(verdict)
                }
                Some(Verdict::Guaranteed | Verdict::Borrows) | None => return Vec::new(),
            }
        }
        full
    }

    /// The same, of quotas in which pods of lower priority have the place.
    pub(in crate::core) fn yielding_quotas(&self, class: ClassId) -> Vec<Verdict> {
        let priority = self.classes[class.0 as usize].request.priority;
        let mut full = self.full_quotas(class);
        full.retain(|verdict| self.quotas.may_yield(*verdict, priority));
        full
    }

    /// Whether pods of lower priority have the place in the quota of the pool that a node is in.
    pub(in crate::core) fn yields_at(&self, class: ClassId, node: NodeId) -> bool {
        let of = &self.classes[class.0 as usize];
        let quota = self.quota_at(of, node).zip(of.quota.as_ref());
        quota.is_some_and(|(quota, (_, takes))| {
            let verdict = self.quotas.verdict(quota, takes);
            self.quotas.may_yield(verdict, of.request.priority)
        })
    }

    /// A node may have come into another pool, or be gone: its pods count in the quotas of the pool that it is in now.
    pub(in crate::core) fn recount_quotas(&mut self, node: NodeId) {
        if !self.quotas.by_pool() {
            return;
        }
        let mut moved = false;
        for uid in self
            .on_node
            .get(node.0 as usize)
            .cloned()
            .unwrap_or_default()
        {
            let Some(placed) = self.placed(&uid) else {
                continue;
            };
            let class = &self.classes[placed.class.0 as usize];
            let now = self.quota_at(class, node);
            let Some((_, takes)) = class.quota.as_ref().filter(|_| now != placed.quota) else {
                continue;
            };
            let priority = class.request.priority;
            for (quota, sign) in [(placed.quota, -1), (now, 1)] {
                if let Some(quota) = quota {
                    self.quotas.book(quota, priority, takes, sign);
                }
            }
            if let Some(placed) = self.pods.get_mut(&uid) {
                placed.quota = now;
            }
            moved = true;
        }
        if moved {
            self.events.push(Event::Rules);
        }
    }

    fn refusal_in(&self, quota: Option<u32>, takes: &Amounts) -> Option<Reason> {
        self.quotas.verdict(quota?, takes).into()
    }

    /// Why the quotas of a class have no place for one more pod of it, if none has.
    pub(in crate::core) fn quota_refusal(&self, class: ClassId) -> Option<Reason> {
        let class = &self.classes[class.0 as usize];
        let (quota, takes) = class.quota.as_ref()?;
        if class.pool_quotas.is_empty() {
            return self.refusal_in(Some(*quota), takes);
        }
        let mut first = None;
        for quota in &class.pool_quotas {
            let refusal = self.refusal_in(*quota, takes)?;
            first.get_or_insert(refusal);
        }
        first
    }

    /// The same of one of its placements, which may be that of a pool.
    pub(in crate::core) fn quota_refusal_within(
        &self,
        class: ClassId,
        placement: u32,
    ) -> Option<Reason> {
        let of = &self.classes[class.0 as usize];
        if of.pool_quotas.is_empty() {
            return self.quota_refusal(class);
        }
        let (_, takes) = of.quota.as_ref()?;
        match of.tiers.iter().position(|tier| *tier == placement) {
            Some(at) => self.refusal_in(of.pool_quotas[at], takes),
            None => self.quota_refusal(class),
        }
    }

    /// The same of the pool that a node is in, where pools have quotas of their own.
    pub(in crate::core) fn quota_refusal_at(&self, of: &Class, node: NodeId) -> Option<Reason> {
        let (_, takes) = of.quota.as_ref().filter(|_| !of.pool_quotas.is_empty())?;
        match self.refusal_in(self.quota_at(of, node), takes)? {
            Reason::OverQuota(quota, resource) | Reason::NothingToBorrow(quota, resource) => {
                Some(Reason::PoolQuota(quota, resource))
            }
            other => Some(other),
        }
    }

    /// The quota that a pod of the class counts in on a node.
    pub(in crate::core) fn quota_at(&self, class: &Class, node: NodeId) -> Option<u32> {
        let (quota, _) = class.quota.as_ref()?;
        if class.pool_quotas.is_empty() {
            return Some(*quota);
        }
        let (node, symbols) = (&self.nodes.all[node.0 as usize], &self.compiler.symbols);
        let mut pools = class.request.pools.iter();
        let is_in = |(_, term): &(_, crate::core::selector::NodeTerm)| {
            term.matches(node.name, &node.labels, symbols)
        };
        match pools.position(is_in) {
            Some(at) => class.pool_quotas[at],
            None => Some(*quota),
        }
    }

    /// Whether a placed pod may have to leave for one of `claimant`. By priority, except from a quota that is within its
    /// guarantee, and whatever the priority, if the claimant is guaranteed what the other has borrowed.
    pub(in crate::core) fn may_displace(&self, claimant: ClassId, victim: &Placed) -> bool {
        let (from, for_) = (
            &self.classes[victim.class.0 as usize],
            &self.classes[claimant.0 as usize],
        );
        let lower = from.request.priority < for_.request.priority;
        let lent = victim.quota.zip(from.quota.as_ref());
        let Some((lent, (_, takes))) = lent else {
            return lower;
        };
        let own = self.quota_at(for_, victim.node);
        if lower && self.quotas.is_open(lent, takes, own) {
            return true;
        }
        own.zip(for_.quota.as_ref())
            .is_some_and(|(quota, (_, wants))| {
                self.quotas.reclaims(quota, wants, lent)
                    && self.quotas.verdict(quota, wants) == Verdict::Guaranteed
            })
    }
}
