//! What a pod asks of its node, in a form that compares and hashes: pods with equal requests share one class.

use super::images::normal_name;
use super::numa::{Ask, Asks};
use super::object::{Container, ContainerStatus, Pod, PodSpec};
use super::policy::{NodeRules, Refusal};
use super::profile::{DefaultSpread, ProfileId, Rules};
use super::quantity::{milli, units};
use super::selector::{Namespaces, NodeTerm, Requirement, Selector};
use super::symbols::{Labels, Symbol, Symbols, value_of};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels that differ between the replicas of one workload. They are left out of a pod's labels, so that replicas
/// stay equal, until a selector asks for one of them (see [`Compiler::unique_asked`]).
pub const UNIQUE_LABELS: [&str; 3] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
];

/// What Kubernetes' scores assume of a container that requests no CPU (millicores) or no memory (bytes).
const ASSUMED: [i64; 2] = [100, 200 << 20];

/// Pods that no selector tells apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GroupKey {
    pub namespace: Symbol,
    pub labels: Labels,
    /// Spread does not count pods that are going away; affinity does.
    pub terminating: bool,
}

/// Millicores, bytes, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    pub storage: i64,
}

/// Requested resources.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shape {
    pub base: Amounts,
    /// CPU and memory as scores count them, with assumed values where a container requests none.
    pub assumed: [i64; 2],
    /// Extended resources and huge pages, in units, sorted.
    pub other: Vec<(Symbol, i64)>,
}

/// A toleration.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Toleration {
    pub key: Option<Symbol>,
    /// `None` is `Exists`.
    pub value: Option<Symbol>,
    pub effect: Option<Effect>,
}

/// What a taint does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Effect {
    /// An effect by its API name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}

/// A taint of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Taint {
    pub key: Symbol,
    pub value: Symbol,
    pub effect: Effect,
}

impl Toleration {
    /// Whether the taint is tolerated.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && self.key.is_none_or(|k| k == taint.key)
            && self.value.is_none_or(|v| v == taint.value)
    }
}

/// What depends on nothing but the node itself: selector, affinity, taints.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Placement {
    pub selector: Labels,
    /// Terms of required node affinity, of which one must match.
    pub required: Option<Vec<NodeTerm>>,
    pub preferred: Vec<(i32, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    /// Whose weights and added node affinity count.
    pub profile: ProfileId,
    /// Node affinity that the profile adds.
    pub added: Option<Vec<NodeTerm>>,
    /// What placement policies say of nodes.
    pub rules: Option<Arc<NodeRules>>,
}

impl Placement {
    /// The only nodes that can match, if every required term names nodes (as a DaemonSet's pods do).
    #[must_use]
    pub fn pins(&self) -> Option<Vec<Symbol>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        let mut names = Vec::new();
        for term in terms {
            names.extend(term.pins()?);
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Node selector and required node affinity.
    #[must_use]
    pub fn selects(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> bool {
        self.selector
            .iter()
            .all(|(k, v)| value_of(labels, *k) == Some(*v))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels, symbols)))
    }

    /// Node affinity that the profile adds.
    #[must_use]
    pub fn added_selects(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> bool {
        self.added
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels, symbols)))
    }

    /// The placement policy, if any, that keeps pods from the node.
    #[must_use]
    pub fn refused(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> Option<Refusal> {
        self.rules.as_ref()?.refuses(name, labels, symbols)
    }

    /// Whether every taint that keeps pods away is tolerated.
    #[must_use]
    pub fn tolerates(&self, taints: &[Taint]) -> bool {
        taints
            .iter()
            .filter(|t| t.effect != Effect::PreferNoSchedule)
            .all(|t| {
                self.tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(t))
            })
    }

    /// Taints that ask pods to stay away and are not tolerated.
    #[must_use]
    pub fn disliked(&self, taints: &[Taint]) -> i64 {
        let count = taints
            .iter()
            .filter(|t| t.effect == Effect::PreferNoSchedule)
            .filter(|t| {
                !self
                    .tolerations
                    .iter()
                    .any(|toleration| toleration.tolerates(t))
            })
            .count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Whether it prefers some nodes to others.
    #[must_use]
    pub fn prefers(&self) -> bool {
        !self.preferred.is_empty() || self.rules.as_ref().is_some_and(|r| !r.preferred.is_empty())
    }

    /// Summed weight of what placement policies like of the node.
    #[must_use]
    pub fn policy_preference(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> i64 {
        let rules = self.rules.as_ref();
        rules.map_or(0, |r| r.preference(name, labels, symbols))
    }

    /// Summed weight of the preferred node affinity terms that match.
    #[must_use]
    pub fn preference(&self, name: Symbol, labels: &Labels, symbols: &Symbols) -> i64 {
        // An empty preferred term matches every node, unlike a required one; it then changes no order.
        self.preferred
            .iter()
            .filter(|(_, t)| t.matches(name, labels, symbols))
            .map(|(w, _)| i64::from(*w))
            .sum()
    }
}

/// A port taken on the node.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// `None` is every address.
    pub address: Option<Symbol>,
    pub protocol: Symbol,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be taken on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// A pod (anti-)affinity term.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Term {
    pub selector: Selector,
    pub namespaces: Namespaces,
    pub key: Symbol,
}

/// A topology spread constraint.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spread {
    pub key: Symbol,
    pub selector: Selector,
    pub max_skew: i64,
    pub min_domains: i64,
    /// `DoNotSchedule`.
    pub hard: bool,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

/// A claim that a pod mounts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClaimUse {
    /// `namespace/name`.
    pub key: Symbol,
    /// Made for this pod alone (a generic ephemeral volume): the pod's uid.
    pub pod: Option<Arc<str>>,
}

/// All that decides where a pod may and should go. Pods with equal requests are interchangeable to the scheduler.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    pub group: GroupKey,
    pub priority: i32,
    /// May make pods of lower priority leave.
    pub preempts: bool,
    pub profile: ProfileId,
    pub placement: Placement,
    pub shape: Shape,
    pub ports: Vec<HostPort>,
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    /// Preferred terms; a negative weight is anti-affinity.
    pub preferred: Vec<(i64, Term)>,
    pub spread: Vec<Spread>,
    /// The constraints are the system's defaults: nodes without a topology label still take part.
    pub default_spread: bool,
    pub claims: Vec<ClaimUse>,
    /// Images, one for each container.
    pub images: Vec<Symbol>,
    /// Asks for dynamic resources, which are not allocated here.
    pub dynamic: bool,
    /// Pools to try one after another: names and nodes. None: all nodes at once.
    pub pools: Vec<(Symbol, NodeTerm)>,
    /// What has to be on one NUMA node, where it is aligned.
    pub asks: Option<Arc<Asks>>,
    /// One NUMA node is to hold all of it.
    pub numa: bool,
}

/// Turns pods into requests.
#[derive(Default)]
pub struct Compiler {
    pub symbols: Symbols,
    /// Which of [`UNIQUE_LABELS`] count.
    unique: [bool; 3],
    /// Set when a selector first asked for one of [`UNIQUE_LABELS`]: pods compiled before lack it, so whoever feeds
    /// the cluster must feed all pods again. The flag is the reader's to clear.
    pub unique_asked: bool,
}

impl Compiler {
    /// The request of a pod. `default_selector`: what its Services and owner select, for default spreading.
    pub fn compile(
        &mut self,
        pod: &Pod,
        default_selector: Option<&Selector>,
        profile: ProfileId,
        rules: &Rules,
    ) -> Request {
        let labels = self.pod_labels(pod.metadata.labels.as_ref());
        let namespace = self.symbols.intern(pod.namespace());
        let group = GroupKey {
            namespace,
            labels,
            terminating: pod.metadata.deletion_timestamp.is_some(),
        };
        let spec = &pod.spec;
        let affinity = spec.affinity.as_ref();
        let among_pods = affinity.filter(|_| rules.profile.pod_affinity);
        let pod_affinity = among_pods.and_then(|a| a.pod_affinity.as_ref());
        let pod_anti = among_pods.and_then(|a| a.pod_anti_affinity.as_ref());
        let required = pod_affinity.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_deref()
        });
        let anti = pod_anti.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_deref()
        });
        let mut preferred = Vec::new();
        let wanted = pod_affinity.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_deref()
        });
        let unwanted = pod_anti.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_deref()
        });
        for (sign, terms) in [(1, wanted), (-1, unwanted)] {
            for term in terms.unwrap_or_default() {
                let weight = sign * i64::from(term.weight);
                preferred.push((weight, self.term(&term.pod_affinity_term, &group)));
            }
        }
        let mut placement = self.placement(spec.node_selector.iter(), affinity, &spec.tolerations);
        placement.profile = profile;
        placement.added.clone_from(&rules.added);
        placement
            .preferred
            .extend(rules.added_preferred.iter().cloned());
        let mut spread: Vec<Spread> = spec
            .topology_spread_constraints
            .iter()
            .filter(|_| rules.profile.spread)
            .map(|c| self.spread(c, &group))
            .collect();
        let default = default_selector
            .filter(|_| spec.topology_spread_constraints.is_empty() && rules.profile.spread);
        let system = rules.profile.default_spread == DefaultSpread::System;
        let default_spread = default.is_some() && system;
        if let (Some(selector), DefaultSpread::List(list)) =
            (default, &rules.profile.default_spread)
        {
            for constraint in list {
                let constraint = self.spread(constraint, &group);
                spread.push(Spread {
                    selector: selector.clone(),
                    ..constraint
                });
            }
        } else if let Some(selector) = default {
            spread = [
                ("kubernetes.io/hostname", 3),
                ("topology.kubernetes.io/zone", 5),
            ]
            .map(|(key, max_skew)| Spread {
                key: self.symbols.intern(key),
                selector: selector.clone(),
                max_skew,
                min_domains: 1,
                hard: false,
                honor_affinity: true,
                honor_taints: false,
            })
            .into();
        }
        Request {
            affinity: required
                .unwrap_or_default()
                .iter()
                .map(|t| self.term(t, &group))
                .collect(),
            anti_affinity: anti
                .unwrap_or_default()
                .iter()
                .map(|t| self.term(t, &group))
                .collect(),
            preferred,
            placement,
            shape: self.shape(pod, rules),
            profile,
            images: self.images(pod),
            dynamic: !spec.resource_claims.is_empty(),
            pools: Vec::new(),
            asks: self.asks(pod),
            numa: false,
            ports: self.ports(&spec.containers, &spec.init_containers),
            priority: spec.priority.unwrap_or_default(),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            claims: self.claims(pod),
            spread,
            default_spread,
            group,
        }
    }

    /// A pod's labels, without those that only tell replicas apart.
    pub fn pod_labels(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let counts = |key: &str| {
            UNIQUE_LABELS
                .iter()
                .zip(self.unique)
                .all(|(u, counts)| counts || *u != key)
        };
        let kept: Vec<_> = labels
            .into_iter()
            .flatten()
            .filter(|(key, _)| counts(key))
            .collect();
        self.symbols.labels(kept)
    }

    /// Compiles a pod selector, noting labels that were ignored so far.
    pub fn pod_selector(
        &mut self,
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Selector {
        let selector = Selector::compile(selector, &mut self.symbols);
        self.note(&selector);
        selector
    }

    fn note(&mut self, selector: &Selector) {
        for requirement in &selector.0 {
            let key = requirement.key().map(|k| self.symbols.text(k));
            for (unique, counts) in UNIQUE_LABELS.iter().zip(&mut self.unique) {
                if key == Some(unique) && !*counts {
                    *counts = true;
                    self.unique_asked = true;
                }
            }
        }
    }

    /// `matchLabelKeys` and `mismatchLabelKeys`: the pod's own values join the selector.
    fn own_values(
        &mut self,
        group: &GroupKey,
        keys: Option<&Vec<String>>,
        same: bool,
    ) -> Vec<Requirement> {
        let mut all = Vec::new();
        for key in keys.into_iter().flatten() {
            let key = self.symbols.intern(key);
            if let Some(value) = value_of(&group.labels, key) {
                let values = vec![value];
                all.push(if same {
                    Requirement::In(key, values)
                } else {
                    Requirement::NotIn(key, values)
                });
            }
        }
        all
    }

    fn term(&mut self, term: &k8s::PodAffinityTerm, group: &GroupKey) -> Term {
        let own = self.own_values(group, term.match_label_keys.as_ref(), true);
        let others = self.own_values(group, term.mismatch_label_keys.as_ref(), false);
        let selector = Selector::compile(term.label_selector.as_ref(), &mut self.symbols)
            .and(own)
            .and(others);
        self.note(&selector);
        let mut names: Vec<_> = term
            .namespaces
            .iter()
            .flatten()
            .map(|n| self.symbols.intern(n))
            .collect();
        let selected = term
            .namespace_selector
            .as_ref()
            .map(|s| Selector::compile(Some(s), &mut self.symbols));
        if names.is_empty() && selected.is_none() {
            names.push(group.namespace);
        }
        names.sort_unstable();
        Term {
            selector,
            namespaces: Namespaces { names, selected },
            key: self.symbols.intern(&term.topology_key),
        }
    }

    fn spread(&mut self, constraint: &k8s::TopologySpreadConstraint, group: &GroupKey) -> Spread {
        let own = self.own_values(group, constraint.match_label_keys.as_ref(), true);
        let selector =
            Selector::compile(constraint.label_selector.as_ref(), &mut self.symbols).and(own);
        self.note(&selector);
        Spread {
            key: self.symbols.intern(&constraint.topology_key),
            selector,
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            hard: constraint.when_unsatisfiable != "ScheduleAnyway",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn placement<'a>(
        &mut self,
        selector: impl Iterator<Item = (&'a String, &'a String)>,
        affinity: Option<&k8s::Affinity>,
        tolerations: &[k8s::Toleration],
    ) -> Placement {
        let symbols = &mut self.symbols;
        let node = affinity.and_then(|a| a.node_affinity.as_ref());
        let required = node.and_then(|n| {
            n.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let preferred = node.and_then(|n| {
            n.preferred_during_scheduling_ignored_during_execution
                .as_deref()
        });
        Placement {
            selector: symbols.labels(selector),
            required: required.map(|r| {
                r.node_selector_terms
                    .iter()
                    .map(|t| NodeTerm::compile(t, symbols))
                    .collect()
            }),
            preferred: preferred
                .unwrap_or_default()
                .iter()
                .map(|p| (p.weight, NodeTerm::compile(&p.preference, symbols)))
                .collect(),
            tolerations: tolerations
                .iter()
                .filter_map(|t| toleration(t, symbols))
                .collect(),
            profile: ProfileId::default(),
            added: None,
            rules: None,
        }
    }

    /// Effective request, by the rules of Kubernetes' resource helpers: sidecars run beside everything after them,
    /// other init containers one at a time before the rest; pod-level requests replace the sum; overhead is added.
    /// While a resize goes on, what is asked for, what the node has allotted and what is in force count by their
    /// maximum; what was asked for in vain does not count.
    pub fn shape(&mut self, pod: &Pod, rules: &Rules) -> Shape {
        let spec = &pod.spec;
        let in_vain = pod
            .status
            .conditions
            .iter()
            .any(|c| c.kind == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
        let told = pod
            .status
            .resources
            .as_ref()
            .and_then(|r| r.requests.as_ref());
        let resizing = resizes(pod);
        let mut total = if in_vain && resizing {
            Tally::default()
        } else {
            Tally::over(spec, |c| Some(Tally::of(c)))
        };
        if resizing {
            if let (Some(applied), Some(allotted)) = (told, &pod.status.allocated_resources) {
                total.max(&Tally::from(applied));
                total.max(&Tally::from(allotted));
            } else {
                let fallback = |c| (!in_vain).then(|| Tally::of(c));
                let status = |c: &Container| statuses(pod).find(|s| s.name == c.name);
                total.max(&Tally::over(spec, |c| {
                    let allotted = status(c).and_then(|s| s.allocated_resources.as_ref());
                    allotted.map(Tally::from).or_else(|| fallback(c))
                }));
                total.max(&Tally::over(spec, |c| {
                    let of = status(c);
                    let applied = of.and_then(|s| s.resources.as_ref()?.requests.as_ref());
                    let allotted = of.and_then(|s| s.allocated_resources.as_ref());
                    applied
                        .or(allotted)
                        .map(Tally::from)
                        .or_else(|| fallback(c))
                }));
            }
        }
        for (name, quantity) in spec.resources.iter().flat_map(|r| &r.requests) {
            if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with("hugepages-") {
                continue;
            }
            let overhead = spec.overhead.get(name).map_or(0, |q| amount(name, q));
            let of_status = |list: Option<&BTreeMap<String, Quantity>>| {
                list.and_then(|l| l.get(name))
                    .map(|q| amount(name, q) - overhead)
            };
            let all = [
                of_status(told),
                of_status(pod.status.allocated_resources.as_ref()),
            ];
            // What was asked for in vain counts only where the node has said nothing else.
            let vain = in_vain && all.iter().any(Option::is_some);
            let asked = (!vain).then(|| amount(name, quantity));
            let all = all.into_iter().chain([asked]);
            total.set(name, all.flatten().max().unwrap_or_default());
        }
        for (name, quantity) in &spec.overhead {
            let amount = amount(name, quantity);
            let slot = total.real.entry(name).or_default();
            *slot = slot.saturating_add(amount);
            match name.as_str() {
                "cpu" => total.assumed[0] = total.assumed[0].saturating_add(amount),
                "memory" => total.assumed[1] = total.assumed[1].saturating_add(amount),
                _ => {}
            }
        }
        let mut shape = Shape {
            assumed: total.assumed,
            ..Shape::default()
        };
        for (name, amount) in total.real {
            match name {
                "cpu" => shape.base.cpu = amount,
                "memory" => shape.base.memory = amount,
                "ephemeral-storage" => shape.base.storage = amount,
                _ if amount == 0 || rules.ignores(name) => {}
                _ => shape.other.push((self.symbols.intern(name), amount)),
            }
        }
        shape.other.sort_unstable();
        shape
    }

    /// What the kubelet would align: whole cores and memory of Guaranteed pods, devices of all.
    fn asks(&mut self, pod: &Pod) -> Option<Arc<Asks>> {
        let spec = &pod.spec;
        let guaranteed = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .all(guaranteed);
        let mut ask = |container: &Container| {
            let mut ask = Ask::default();
            for (name, quantity) in container.resources.iter().flat_map(|r| &r.requests) {
                let amount = amount(name, quantity);
                match name.as_str() {
                    "cpu" if guaranteed && amount % 1000 == 0 => ask.cpu = amount,
                    "memory" if guaranteed => ask.memory = amount,
                    "cpu" | "memory" | "ephemeral-storage" => {}
                    other if amount > 0 => ask.other.push((self.symbols.intern(other), amount)),
                    _ => {}
                }
            }
            ask
        };
        let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
        let init = spec.init_containers.iter().filter(|c| !sidecar(c));
        let init: Vec<Ask> = init.map(&mut ask).collect();
        let beside = spec.init_containers.iter().filter(sidecar);
        let containers: Vec<Ask> = beside.chain(&spec.containers).map(&mut ask).collect();
        let none = init.iter().chain(&containers).all(Ask::is_empty);
        (!none).then(|| Arc::new(Asks { init, containers }))
    }

    fn images(&mut self, pod: &Pod) -> Vec<Symbol> {
        let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let mut images: Vec<Symbol> = containers
            .filter_map(|c| c.image.as_deref())
            .map(|image| self.symbols.intern(&normal_name(image)))
            .collect();
        images.sort_unstable();
        images
    }

    fn ports(&mut self, containers: &[Container], init: &[Container]) -> Vec<HostPort> {
        let sidecars = init
            .iter()
            .filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut ports: Vec<_> = containers
            .iter()
            .chain(sidecars)
            .flat_map(|c| &c.ports)
            .filter_map(|p| {
                let port = p.host_port.filter(|port| *port > 0)?;
                let address = p
                    .host_ip
                    .as_deref()
                    .filter(|a| !matches!(*a, "" | "0.0.0.0"));
                Some(HostPort {
                    address: address.map(|a| self.symbols.intern(a)),
                    protocol: self.symbols.intern(p.protocol.as_deref().unwrap_or("TCP")),
                    port,
                })
            })
            .collect();
        ports.sort_unstable();
        ports
    }

    fn claims(&mut self, pod: &Pod) -> Vec<ClaimUse> {
        let mut claims: Vec<ClaimUse> = Vec::new();
        for volume in &pod.spec.volumes {
            let (name, pod_uid) = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(claim), _) => (claim.claim_name.clone(), None),
                (None, Some(_)) => {
                    let name = format!("{}-{}", pod.name(), volume.name);
                    (name, Some(Arc::from(pod.uid())))
                }
                (None, None) => continue,
            };
            let key = self.symbols.intern(&format!("{}/{name}", pod.namespace()));
            // Mounted twice is mounted once.
            if claims.iter().all(|c| c.key != key) {
                claims.push(ClaimUse { key, pod: pod_uid });
            }
        }
        claims
    }
}

fn toleration(toleration: &k8s::Toleration, symbols: &mut Symbols) -> Option<Toleration> {
    let key = toleration.key.as_deref().filter(|k| !k.is_empty());
    let value = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => None,
        "Equal" | "" => Some(symbols.intern(toleration.value.as_deref().unwrap_or_default())),
        // Numeric comparison of taints is an alpha of Kubernetes; what is not understood tolerates nothing.
        _ => return None,
    };
    let effect = match toleration.effect.as_deref() {
        None | Some("") => None,
        Some(text) => Some(Effect::parse(text)?),
    };
    Some(Toleration {
        key: key.map(|k| symbols.intern(k)),
        value,
        effect,
    })
}

/// Whether a container has CPU and memory, and limits of the same size: the Guaranteed class asks that of all.
fn guaranteed(container: &Container) -> bool {
    container.resources.as_ref().is_some_and(|resources| {
        ["cpu", "memory"].iter().all(|name| {
            let of = |map: &BTreeMap<String, Quantity>| map.get(*name).map(|q| amount(name, q));
            let limit = of(&resources.limits);
            limit.is_some_and(|l| l > 0) && limit == of(&resources.requests)
        })
    })
}

/// A quantity in the unit that its resource is counted in; what is no quantity counts as nothing.
#[must_use]
pub fn amount(name: &str, quantity: &Quantity) -> i64 {
    let value = if name == "cpu" {
        milli(&quantity.0)
    } else {
        units(&quantity.0)
    };
    value.unwrap_or_default()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let (main, init) = (
        &pod.status.container_statuses,
        &pod.status.init_container_statuses,
    );
    main.iter().chain(init)
}

/// Whether the node has said anything of resources: before, only the spec counts.
fn resizes(pod: &Pod) -> bool {
    pod.status.allocated_resources.is_some()
        || pod.status.resources.is_some()
        || statuses(pod).any(|s| s.allocated_resources.is_some() || s.resources.is_some())
}

/// Requests being summed, by resource name.
#[derive(Clone, Default)]
struct Tally<'a> {
    real: BTreeMap<&'a str, i64>,
    assumed: [i64; 2],
}

impl<'a> Tally<'a> {
    fn of(container: &'a Container) -> Self {
        Self::sum(container.resources.iter().flat_map(|r| &r.requests))
    }

    fn from(requests: &'a BTreeMap<String, Quantity>) -> Self {
        Self::sum(requests)
    }

    fn sum(requests: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Self {
        let requests = requests.into_iter();
        let real: BTreeMap<&str, i64> = requests.map(|(k, q)| (k.as_str(), amount(k, q))).collect();
        let assumed = |i: usize, name: &str| real.get(name).copied().unwrap_or(ASSUMED[i]);
        let assumed = [assumed(0, "cpu"), assumed(1, "memory")];
        Self { real, assumed }
    }

    /// What all containers take at once at most, each as `of` says.
    fn over(spec: &'a PodSpec, of: impl Fn(&'a Container) -> Option<Self>) -> Self {
        let of = |container| of(container).unwrap_or_default();
        let mut total = Self::default();
        for container in &spec.containers {
            total.add(&of(container));
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in &spec.init_containers {
            let own = of(container);
            if container.restart_policy.as_deref() == Some("Always") {
                total.add(&own);
                sidecars.add(&own);
                peak.max(&sidecars);
            } else {
                let mut step = sidecars.clone();
                step.add(&own);
                peak.max(&step);
            }
        }
        total.max(&peak);
        total
    }

    fn add(&mut self, other: &Self) {
        for (name, amount) in &other.real {
            let slot = self.real.entry(name).or_default();
            *slot = slot.saturating_add(*amount);
        }
        for (slot, amount) in self.assumed.iter_mut().zip(other.assumed) {
            *slot = slot.saturating_add(amount);
        }
    }

    fn max(&mut self, other: &Self) {
        for (name, amount) in &other.real {
            let slot = self.real.entry(name).or_default();
            *slot = (*slot).max(*amount);
        }
        for (slot, amount) in self.assumed.iter_mut().zip(other.assumed) {
            *slot = (*slot).max(amount);
        }
    }

    fn set(&mut self, name: &'a str, amount: i64) {
        self.real.insert(name, amount);
        match name {
            "cpu" => self.assumed[0] = amount,
            "memory" => self.assumed[1] = amount,
            _ => {}
        }
    }
}
