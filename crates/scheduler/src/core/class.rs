//! Classes: pods with equal requests, whose selectors are resolved to counters once.

use super::cluster::Cluster;
use super::counters::{CarrierId, CounterId, EligibilityKey, GroupId, MatcherId, MatcherKey, Toll};
use super::gang::GangId;
use super::object;
use super::quota::Amounts;
use super::request::{GroupKey, Placement, Request};
use super::selector::Namespaces;
use super::services::ServiceId;
use super::symbols::Symbol;
use super::topology::KeyId;
use std::sync::Arc;

mod parts;

/// Pods with equal requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClassId(pub u32);

/// A spread constraint with its counter.
#[derive(Clone, Copy, Debug)]
pub struct SpreadRule {
    pub counter: CounterId,
    pub key: KeyId,
    pub max_skew: i64,
    pub min_domains: i64,
    /// The pod itself would be counted.
    pub own: i64,
}

/// A request whose selectors are resolved to counters.
pub struct Class {
    /// As its pods ask.
    pub base: Arc<Request>,
    /// With what placement policies say of it.
    pub request: Arc<Request>,
    /// The policies that select it.
    pub policies: Vec<Symbol>,
    /// Number of placed pods.
    pub placed: u32,
    /// Their service, where its hours are learned.
    pub service: Option<ServiceId>,
    /// Their gang.
    pub gang: Option<GangId>,
    /// Their quota, and what each takes of it.
    pub quota: Option<(u32, Amounts)>,
    /// Their quota in each of their pools; empty: the same everywhere.
    pub pool_quotas: Vec<Option<u32>>,
    pub group: GroupId,
    pub placement: u32,
    /// Placements of its pools, to be tried one after another; none: its placement is.
    pub tiers: Vec<u32>,
    pub shape: u32,
    /// Required affinity: one counter per term, all over the pods that match every term.
    pub affinity: Vec<CounterId>,
    /// The pod matches its own required affinity, so the first of its kind may go anywhere.
    pub own_affinity: bool,
    pub anti_affinity: Vec<CounterId>,
    pub preferred: Vec<(CounterId, i64)>,
    pub hard: Vec<SpreadRule>,
    pub soft: Vec<SpreadRule>,
    /// Terms that the pod carries to its node.
    pub carries: Vec<(CarrierId, Toll)>,
    /// Whose pods' coming and going may change where this class fits.
    pub watches: Vec<MatcherId>,
}

/// Classes made before the unused are looked for.
const COMPACT_AFTER: usize = 4096;

fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Cluster {
    /// The class of a pod.
    pub fn classify(&mut self, pod: &object::Pod) -> ClassId {
        let own_spread = !pod.spec.topology_spread_constraints.is_empty();
        let default = if own_spread {
            None
        } else {
            self.default_selector(pod)
        };
        let profile = self.profile_of(pod);
        let rules = &self.profiles[profile.0 as usize];
        let request = self.compiler.compile(pod, default.as_ref(), profile, rules);
        self.class(request)
    }

    /// The class of a request, new or known.
    pub fn class(&mut self, request: Request) -> ClassId {
        if let Some(id) = self.class_ids.get(&request) {
            return *id;
        }
        let request = Arc::new(request);
        let class = self.resolve(request.clone());
        let id = match self.free_classes.pop() {
            Some(id) => {
                self.classes[id.0 as usize] = class;
                id
            }
            None => {
                self.classes.push(class);
                ClassId(index(self.classes.len() - 1))
            }
        };
        if let Some(gang) = self.classes[id.0 as usize].gang {
            self.gangs.enlist(gang, id);
        }
        self.class_ids.insert(request, id);
        self.made += 1;
        id
    }

    /// Whether so many classes were made that those without pods are worth dropping.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.made > self.in_use.max(COMPACT_AFTER)
    }

    /// Drops classes that no placed pod has and that are not `held`, with all that was derived from them. Classes in
    /// use keep their ids; ids of classes in [`Cluster::events`] may become void, so events are to be taken before.
    pub fn compact(&mut self, held: impl IntoIterator<Item = ClassId>) {
        let mut live = vec![false; self.classes.len()];
        for class in held.into_iter().chain(self.pods.values().map(|p| p.class)) {
            live[class.0 as usize] = true;
        }
        self.events.clear();
        self.quotas.forget_usage();
        self.gangs.forget_placed();
        self.counters.clear();
        self.placements.clear();
        self.placement_ids.clear();
        self.shapes.clear();
        self.shape_ids.clear();
        self.ranks.clear();
        self.rank_ids.clear();
        self.shape_ranks.clear();
        self.shared_ranks.clear();
        self.class_ids.clear();
        self.free_classes.clear();
        for (at, live) in live.iter().enumerate() {
            let id = ClassId(index(at));
            if *live {
                let base = self.classes[at].base.clone();
                self.classes[at] = self.resolve(base.clone());
                if let Some(gang) = self.classes[at].gang {
                    self.gangs.enlist(gang, id);
                }
                self.class_ids.insert(base, id);
            } else {
                self.free_classes.push(id);
            }
        }
        let mut pods = std::mem::take(&mut self.pods);
        for placed in pods.values_mut() {
            placed.quota = self.quota_at(&self.classes[placed.class.0 as usize], placed.node);
            let class = &mut self.classes[placed.class.0 as usize];
            class.placed += 1;
            if let Some(gang) = class.gang {
                self.gangs.book(gang, 1);
            }
            if let (Some(quota), Some((_, takes))) = (placed.quota, &class.quota) {
                self.quotas.book(quota, class.request.priority, takes, 1);
            }
            self.counters
                .place(class.group, placed.node.0, &self.topology);
            for (carrier, toll) in &class.carries {
                self.counters
                    .carry(*carrier, placed.node.0, *toll, 1, &self.topology);
            }
        }
        self.pods = pods;
        self.made = 0;
        self.in_use = self.class_ids.len();
    }

    fn resolve(&mut self, base: Arc<Request>) -> Class {
        let (request, policies) = self.ruled(&base);
        let group = self.counters.group(&request.group, &self.compiler.symbols);
        let placement = self.placement(&request.placement);
        let tiers = self.tiers(&request);
        let gang = self.gangs.of(&base.group);
        let (quota, pool_quotas) = self.quotas_of(&request);
        let shape = self.shape(&request.shape);
        let mut watches = Vec::new();
        let mut carries: Vec<(CarrierId, Toll)> = Vec::new();

        let mut affinity = Vec::new();
        let mut own_affinity = false;
        if !request.affinity.is_empty() {
            let terms = request
                .affinity
                .iter()
                .map(|t| (t.namespaces.clone(), t.selector.clone()))
                .collect();
            let all = self.matcher(MatcherKey {
                terms,
                living: false,
            });
            watches.push(all);
            own_affinity = self
                .counters
                .would_match(all, &request.group, &self.compiler.symbols);
            affinity = request
                .affinity
                .iter()
                .map(|t| self.count(all, t.key))
                .collect();
            for term in &request.affinity {
                let (carrier, _) = self.carrier(term);
                let seeks = Toll {
                    seeks: 1,
                    ..Toll::default()
                };
                carries.push((carrier, seeks));
            }
        }
        let mut anti_affinity = Vec::new();
        for term in &request.anti_affinity {
            let (carrier, matcher) = self.carrier(term);
            let forbids = Toll {
                forbids: 1,
                ..Toll::default()
            };
            carries.push((carrier, forbids));
            watches.push(matcher);
            anti_affinity.push(self.count(matcher, term.key));
        }
        let mut preferred = Vec::new();
        for (weight, term) in &request.preferred {
            let (carrier, matcher) = self.carrier(term);
            let prefers = Toll {
                weight: *weight,
                ..Toll::default()
            };
            carries.push((carrier, prefers));
            preferred.push((self.count(matcher, term.key), *weight));
        }

        let (mut hard, mut soft) = (Vec::new(), Vec::new());
        for rule in &request.spread {
            let names = Namespaces {
                names: vec![request.group.namespace],
                selected: None,
            };
            let matcher = self.matcher(MatcherKey {
                terms: vec![(names, rule.selector.clone())],
                living: true,
            });
            let mut keys: Vec<Symbol> = if request.default_spread {
                Vec::new()
            } else {
                request
                    .spread
                    .iter()
                    .filter(|r| r.hard == rule.hard)
                    .map(|r| r.key)
                    .collect()
            };
            keys.sort_unstable();
            keys.dedup();
            let (wanted, tolerated) = (&request.placement, rule.honor_taints);
            let honored = Placement {
                selector: if rule.honor_affinity {
                    wanted.selector.clone()
                } else {
                    Vec::new()
                },
                required: wanted.required.clone().filter(|_| rule.honor_affinity),
                rules: wanted
                    .rules
                    .as_ref()
                    .filter(|_| rule.honor_affinity)
                    .map(|rules| Arc::new(rules.restrictions())),
                tolerations: if tolerated {
                    wanted.tolerations.clone()
                } else {
                    Vec::new()
                },
                ..Placement::default()
            };
            let eligibility = EligibilityKey {
                placement: honored,
                honor_taints: tolerated,
                keys,
            };
            let key = self.topology.key(rule.key, &self.nodes);
            let symbols = &self.compiler.symbols;
            let counter = self.counters.counter(
                matcher,
                key,
                Some(eligibility),
                &self.nodes,
                &self.topology,
                symbols,
            );
            let own = self.counters.would_match(matcher, &request.group, symbols);
            watches.push(matcher);
            let rule_out = if rule.hard { &mut hard } else { &mut soft };
            rule_out.push(SpreadRule {
                counter,
                key,
                max_skew: rule.max_skew,
                min_domains: rule.min_domains,
                own: i64::from(own),
            });
        }
        Class {
            base,
            request,
            policies,
            placed: 0,
            service: self.hours.of(&self.counters.groups[group.0 as usize].key),
            gang,
            quota,
            pool_quotas,
            group,
            placement,
            tiers,
            shape,
            affinity,
            own_affinity,
            anti_affinity,
            preferred,
            hard,
            soft,
            carries,
            watches,
        }
    }

    /// Whether a pod of class `other` coming or going may change where `class` fits.
    #[must_use]
    pub fn concerns(&self, class: ClassId, other: ClassId) -> bool {
        let (class, other) = (
            &self.classes[class.0 as usize],
            &self.classes[other.0 as usize],
        );
        let matchers = &self.counters.groups[other.group.0 as usize].matchers;
        if class.watches.iter().any(|m| matchers.contains(m)) {
            return true;
        }
        // The other side: anti-affinity that the other pod carries against this class.
        let own = &self.counters.groups[class.group.0 as usize].matchers;
        other
            .carries
            .iter()
            .filter(|(_, toll)| toll.forbids > 0)
            .any(|(carrier, _)| {
                own.iter().any(|m| {
                    self.counters.matchers[m.0 as usize]
                        .carriers
                        .contains(carrier)
                })
            })
    }

    /// The group of a class.
    #[must_use]
    pub fn group_key(&self, class: ClassId) -> &GroupKey {
        &self.classes[class.0 as usize].request.group
    }
}
