//! Pods compiled to requests.

use super::{
    ClaimUse, Effect, Features, GroupKey, HostPort, Placement, Request, Spread, Term, Toleration,
    amount,
};
use crate::core::devices::{self, Extended, PodClaim, PodClaims};
use crate::core::images::normal_name;
use crate::core::object::{Container, Pod};
use crate::core::profile::{DefaultSpread, ProfileId, Rules};
use crate::core::selector::{Namespaces, NodeTerm, Requirement, Selector};
use crate::core::symbols::{Labels, Symbol, Symbols, value_of};
use crate::core::volumes::Disk;
use k8s_openapi::api::core::v1 as k8s;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels that differ between the replicas of one workload. They are left out of a pod's labels, so that replicas
/// stay equal, until a selector asks for one of them (see [`Compiler::unique_asked`]).
pub const UNIQUE_LABELS: [&str; 3] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
];

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
        placement.features = Features::needed(pod);
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
            devices: self.devices(pod).filter(|_| rules.profile.devices),
            extended: self.extended(pod).filter(|_| rules.profile.devices),
            pools: Vec::new(),
            asks: self.asks(pod),
            numa: false,
            ports: self.ports(&spec.containers, &spec.init_containers),
            priority: spec.priority.unwrap_or_default(),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            claims: self.claims(pod),
            disks: self.disks(pod),
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
            features: Features::default(),
        }
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

    fn devices(&mut self, pod: &Pod) -> Option<Arc<PodClaims>> {
        let mut claims = Vec::new();
        for claim in &pod.spec.resource_claims {
            let mut key = |name: &str| {
                let key = format!("{}/{name}", pod.namespace());
                self.symbols.intern(&key)
            };
            if let Some(name) = &claim.resource_claim_name {
                claims.push(PodClaim::Named(key(name)));
                continue;
            }
            let mut made = pod.status.resource_claim_statuses.iter();
            match made.find(|status| status.name == claim.name) {
                None => claims.push(PodClaim::Awaited),
                // Its maker may find that the pod needs none.
                Some(status) => {
                    let name = status.resource_claim_name.as_deref();
                    claims.extend(name.map(|name| PodClaim::Made(key(name))));
                }
            }
        }
        (!claims.is_empty()).then(|| {
            Arc::new(PodClaims {
                uid: pod.uid().into(),
                pod: pod.key().into(),
                claims,
            })
        })
    }

    fn extended(&mut self, pod: &Pod) -> Option<Arc<Extended>> {
        let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let mut names = all.flat_map(|c| c.resources.iter().flat_map(|r| r.requests.keys()));
        // Hardly any pod does.
        if !names.any(|name| devices::is_name(name)) {
            return None;
        }
        let init = pod.spec.init_containers.iter();
        let sidecar = |c: &Container| c.restart_policy.as_deref() == Some("Always");
        let init = init.map(|c| (sidecar(c), c));
        let all = init.chain(pod.spec.containers.iter().map(|c| (true, c)));
        let mut names = BTreeMap::new();
        let mut containers = Vec::new();
        for (stays, container) in all {
            let requests = container.resources.iter().flat_map(|r| &r.requests);
            let mut wants = Vec::new();
            for (place, (name, quantity)) in requests.enumerate() {
                let count = amount(name, quantity);
                if count > 0 && devices::is_name(name) {
                    let resource = self.symbols.intern(name);
                    names.insert(name, resource);
                    wants.push(devices::Want {
                        resource,
                        count,
                        place,
                    });
                }
            }
            containers.push(devices::Container {
                name: container.name.clone(),
                stays,
                wants,
            });
        }
        (!names.is_empty()).then(|| {
            Arc::new(Extended {
                resources: names.into_values().collect(),
                containers,
            })
        })
    }

    fn disks(&mut self, pod: &Pod) -> Vec<Disk> {
        let volumes = pod.spec.volumes.iter();
        let disks = volumes.filter_map(|volume| Disk::compile(volume, &mut self.symbols));
        disks.collect()
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
