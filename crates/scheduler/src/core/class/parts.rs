//! What classes are made of: the policies that apply, pools, quotas, placements, counters.

use super::index;
use crate::core::bits::NodeSet;
use crate::core::cluster::Cluster;
use crate::core::counters::{CarrierId, CounterId, MatcherId, MatcherKey};
use crate::core::load::Limits;
use crate::core::policy::NodeRules;
use crate::core::profile::{ProfileId, Rules, Strategy};
use crate::core::quota::Amounts;
use crate::core::ranking::{PlacementState, ShapeState, allows};
use crate::core::request::{Placement, Request, Shape, Term};
use crate::core::selector::NodeTerm;
use crate::core::symbols::Symbol;
use gantry_api::placement_policy::PackingStrategy;
use std::sync::Arc;

impl Cluster {
    /// The quota of a request with what it takes, and where they differ, the quotas in its pools.
    pub(super) fn quotas_of(
        &self,
        request: &Request,
    ) -> (Option<(u32, Amounts)>, Vec<Option<u32>>) {
        let pools = request.pools.iter();
        let pools = pools.map(|(pool, _)| self.quotas.of_pool(&request.group, *pool));
        let pools: Vec<Option<u32>> = pools.collect();
        let usual = self.quotas.of(&request.group);
        let quota = usual.or_else(|| pools.iter().copied().flatten().next());
        let quota = quota.map(|quota| (quota, self.quotas.takes(&request.shape)));
        let same = pools.iter().all(|pool| *pool == usual);
        (quota, if same { Vec::new() } else { pools })
    }

    /// What placement policies make of a request, and which of them.
    pub(super) fn ruled(&mut self, base: &Arc<Request>) -> (Arc<Request>, Vec<Symbol>) {
        if self.policies.is_empty() {
            return (base.clone(), Vec::new());
        }
        let applied = self.policies.apply(base, &self.compiler.symbols);
        let mut request = applied.request;
        if let Some(packing) = applied.packing {
            request.profile = self.variant(request.profile, packing);
            request.placement.profile = request.profile;
        }
        (Arc::new(request), applied.by)
    }

    /// The profile that packs as told and is like another one otherwise.
    pub(super) fn variant(&mut self, of: ProfileId, packing: PackingStrategy) -> ProfileId {
        let known = self
            .variants
            .iter()
            .find(|(p, how, _)| (*p, *how) == (of, packing));
        if let Some((.., id)) = known {
            return *id;
        }
        let mut profile = self.profiles[of.0 as usize].profile.clone();
        profile.strategy = match packing {
            PackingStrategy::Pack => Strategy::MostAllocated,
            PackingStrategy::Spread => Strategy::LeastAllocated,
        };
        let Ok(at) = u8::try_from(self.profiles.len()) else {
            return of;
        };
        let rules = Rules::resolve(profile, &mut self.compiler.symbols);
        self.profiles.push(rules);
        self.variants.push((of, packing, ProfileId(at)));
        ProfileId(at)
    }

    /// A placement for each pool of a request.
    pub(super) fn tiers(&mut self, request: &Request) -> Vec<u32> {
        let rules = request.placement.rules.clone().unwrap_or_default();
        let tier = |(pool, term): &(Symbol, NodeTerm)| {
            let mut rules = NodeRules::clone(&rules);
            rules.required.push((*pool, vec![term.clone()]));
            Placement {
                rules: Some(Arc::new(rules)),
                ..request.placement.clone()
            }
        };
        let keys: Vec<Placement> = request.pools.iter().map(tier).collect();
        keys.iter().map(|key| self.placement(key)).collect()
    }

    pub(super) fn matcher(&mut self, key: MatcherKey) -> MatcherId {
        self.counters.matcher(key, &self.compiler.symbols)
    }

    pub(super) fn count(&mut self, matcher: MatcherId, key: Symbol) -> CounterId {
        let key = self.topology.key(key, &self.nodes);
        self.counters.counter(
            matcher,
            key,
            None,
            &self.nodes,
            &self.topology,
            &self.compiler.symbols,
        )
    }

    pub(super) fn carrier(&mut self, term: &Term) -> (CarrierId, MatcherId) {
        let terms = vec![(term.namespaces.clone(), term.selector.clone())];
        let matcher = self.matcher(MatcherKey {
            terms,
            living: false,
        });
        let key = self.topology.key(term.key, &self.nodes);
        (self.counters.carrier(matcher, key), matcher)
    }

    pub(super) fn placement(&mut self, key: &Placement) -> u32 {
        if let Some(id) = self.placement_ids.get(key) {
            return *id;
        }
        let id = index(self.placements.len());
        let pins = key.pins();
        let allowed = if pins.is_some() {
            NodeSet::default()
        } else {
            (0..index(self.nodes.slots()))
                .map(|n| allows(key, &self.nodes, n, &self.compiler))
                .collect()
        };
        // Whoever names its nodes has to run there, as a DaemonSet's pods do.
        let limits = self.limits(key).filter(|_| pins.is_none());
        let state = PlacementState {
            key: key.clone(),
            pins,
            limits,
            allowed,
            statics: Vec::new(),
            extremes: [0; 3],
            version: 0,
            stale: true,
        };
        self.placements.push(state);
        self.placement_ids.insert(key.clone(), id);
        id
    }

    /// Bounds of usage for a placement.
    pub(super) fn limits(&self, key: &Placement) -> Option<Limits> {
        let load = self.profiles[key.profile.0 as usize].profile.load.clone();
        let policy = key.rules.as_ref().and_then(|r| r.thresholds);
        let load = match (load, policy) {
            (None, None) => return None,
            (load, policy) => {
                let load = load.unwrap_or_default();
                let thresholds = policy.unwrap_or(load.thresholds);
                Limits {
                    thresholds,
                    factors: load.factors,
                }
            }
        };
        load.thresholds.iter().any(Option::is_some).then_some(load)
    }

    pub(super) fn shape(&mut self, shape: &Shape) -> u32 {
        if let Some(id) = self.shape_ids.get(shape) {
            return *id;
        }
        let id = index(self.shapes.len());
        self.shapes.push(ShapeState {
            shape: shape.clone(),
            decisions: 0,
        });
        self.shape_ids.insert(shape.clone(), id);
        id
    }
}
