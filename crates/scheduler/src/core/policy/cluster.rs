//! Policies of a cluster: taken in, counted, and what they mean for placed pods.

use crate::core::class::ClassId;
use crate::core::cluster::{Cluster, Event};
use crate::core::decide::Check;
use crate::core::load::LoadArgs;
use crate::core::nodes::NodeId;
use crate::core::request::Request;
use crate::core::symbols::Symbol;
use gantry_api::PlacementPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a placed pod would go if it were placed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Landing {
    pub node: Option<NodeId>,
    /// Its present node would still take it.
    pub stays: bool,
}

impl Cluster {
    /// A policy came or changed. It holds once [`Cluster::settle_rules`] is called.
    pub fn set_policy(&mut self, policy: &PlacementPolicy) {
        self.policies.set(policy, &mut self.compiler);
        self.rules_changed = true;
    }

    /// A policy went. That holds once [`Cluster::settle_rules`] is called.
    pub fn remove_policy(&mut self, name: &str) {
        if let Some(name) = self.compiler.symbols.known(name) {
            let before = self.policies.all.len();
            self.policies.all.retain(|p| p.name != name);
            self.rules_changed |= before != self.policies.all.len();
        }
    }

    /// Writes changed policies into the requests of all pods. [`Cluster::events`] are to be taken before. Returns
    /// whether there was anything to do.
    pub fn settle_rules(&mut self) -> bool {
        self.settle_quotas();
        if !std::mem::take(&mut self.rules_changed) {
            return false;
        }
        self.policies.overruled.clear();
        if self.policies.looks_at_load() {
            let load = LoadArgs::default();
            self.watch_load(load.expiry);
        }
        let all: Vec<_> = self.class_ids.values().copied().collect();
        self.compact(all);
        self.events.push(Event::Rules);
        true
    }

    /// The policies that select a class's pods, with what they say.
    #[must_use]
    pub fn policies_of(&self, class: ClassId) -> Vec<(&str, Vec<&'static str>)> {
        let by = &self.classes[class.0 as usize].policies;
        let named = self.policies.iter().filter(|p| by.contains(&p.name));
        named
            .map(|p| (self.compiler.symbols.text(p.name), p.says()))
            .collect()
    }

    /// How many placed pods each policy selects, by name.
    #[must_use]
    pub fn policy_pods(&self) -> BTreeMap<&str, i64> {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for policy in self.policies.iter() {
            counts.insert(self.compiler.symbols.text(policy.name), 0);
        }
        for id in self.class_ids.values() {
            let class = &self.classes[id.0 as usize];
            for policy in &class.policies {
                if let Some(count) = counts.get_mut(self.compiler.symbols.text(*policy)) {
                    *count += i64::from(class.placed);
                }
            }
        }
        counts
    }

    /// What of a policy is not followed: what is no rule, and what others overrule.
    #[must_use]
    pub fn policy_problems(&self, name: &str) -> Vec<String> {
        let text = |symbol: Symbol| self.compiler.symbols.text(symbol);
        let own = self.policies.iter().find(|p| text(p.name) == name);
        let mut problems = own.map(|p| p.problems.clone()).unwrap_or_default();
        for (loser, rule, winner) in &self.policies.overruled {
            if text(*loser) == name {
                problems.push(format!(
                    "spec.{rule} is overruled for some pods by policy {}, which comes first",
                    text(*winner)
                ));
            }
        }
        problems
    }

    /// What a placed pod asks for, with what policies say of it.
    #[must_use]
    pub fn request_of(&self, uid: &str) -> Option<Arc<Request>> {
        let placed = self.placed(uid)?;
        Some(self.classes[placed.class.0 as usize].request.clone())
    }

    /// Why its node would not take a placed pod any more, in words; the first of what is in the way.
    pub fn refusal(&mut self, uid: &str) -> Option<String> {
        let (uid, _) = self.pods.get_key_value(uid)?;
        let uid = uid.clone();
        let before = self.events.len();
        let placed = self.lift(&uid)?;
        let check = Check::new(self, placed.class);
        let mut first = None;
        self.reject(
            &check,
            placed.class,
            placed.node.0 as usize,
            &mut |reason| {
                first.get_or_insert(reason);
            },
        );
        self.put(&uid, placed);
        self.events.truncate(before);
        first.map(|reason| self.phrase(reason))
    }

    /// Where a placed pod would go if it were placed now. `None` if it is not placed.
    pub fn landing(&mut self, uid: &str) -> Option<Landing> {
        let (uid, _) = self.pods.get_key_value(uid)?;
        let uid = uid.clone();
        let before = self.events.len();
        let placed = self.lift(&uid)?;
        let node = self.choose(placed.class);
        let stays = self.feasible(placed.class, placed.node);
        self.put(&uid, placed);
        self.events.truncate(before);
        Some(Landing { node, stays })
    }
}
