//! Kubernetes' rules of feasibility, read plainly: every question is answered by looking at all objects.

use super::{Labels, World};
use k8s_openapi::api::core::v1::{
    Container, Node, NodeSelectorTerm, Pod, PodAffinityTerm, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;
use std::collections::BTreeMap;

pub fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else {
        return false;
    };
    selector
        .match_labels
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v))
        && selector.match_expressions.iter().flatten().all(|e| {
            let values = e.values.clone().unwrap_or_default();
            match (e.operator.as_str(), labels.get(&e.key)) {
                ("In", value) => value.is_some_and(|v| values.contains(v)),
                ("NotIn", value) => value.is_none_or(|v| !values.contains(v)),
                ("Exists", value) => value.is_some(),
                ("DoesNotExist", value) => value.is_none(),
                _ => panic!("operator {}", e.operator),
            }
        })
}

pub fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let name = node.metadata.name.clone().expect("a name");
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let expressions = term.match_expressions.clone().unwrap_or_default();
    let fields = term.match_fields.clone().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let holds = |operator: &str, value: Option<&String>, values: &[String]| match operator {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let number = |text: &String| text.parse::<i64>().ok();
            match (value.and_then(number), values.first().and_then(number)) {
                (Some(value), Some(bound)) => {
                    if operator == "Gt" {
                        value > bound
                    } else {
                        value < bound
                    }
                }
                _ => false,
            }
        }
        other => panic!("operator {other}"),
    };
    expressions.iter().all(|e| {
        holds(
            &e.operator,
            labels.get(&e.key),
            &e.values.clone().unwrap_or_default(),
        )
    }) && fields.iter().all(|f| {
        holds(
            &f.operator,
            Some(&name),
            &f.values.clone().unwrap_or_default(),
        )
    })
}

pub fn node_affinity(pod: &Pod, node: &Node) -> bool {
    let spec = pod.spec.as_ref().expect("a spec");
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selector = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selector && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_selects(t, node)))
}

pub fn tolerated(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
    tolerations.iter().any(|t| {
        let effect_ok = t
            .effect
            .as_deref()
            .is_none_or(|e| e.is_empty() || e == effect);
        let key_ok = t.key.as_deref().is_none_or(|k| k.is_empty() || k == key);
        let value_ok = t.operator.as_deref() == Some("Exists")
            || t.value.as_deref().unwrap_or_default() == value;
        effect_ok && key_ok && value_ok
    })
}

pub fn taints_tolerated(pod: &Pod, node: &Node) -> bool {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|s| s.tolerations.clone())
        .unwrap_or_default();
    let taints = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default();
    let hard = taints.iter().filter(|t| t.effect != "PreferNoSchedule");
    hard.into_iter().all(|t| {
        tolerated(
            &tolerations,
            &t.key,
            t.value.as_deref().unwrap_or_default(),
            &t.effect,
        )
    })
}

/// The test's quantities are plain: whole numbers, `m`, `Mi` and `Gi`.
pub fn number(text: &str) -> i64 {
    let (digits, factor) = if let Some(digits) = text.strip_suffix("m") {
        return digits.parse::<i64>().expect("digits");
    } else if let Some(digits) = text.strip_suffix("Gi") {
        (digits, 1 << 30)
    } else if let Some(digits) = text.strip_suffix("Mi") {
        (digits, 1 << 20)
    } else {
        (text, 1)
    };
    // In thousandths throughout.
    digits.parse::<i64>().expect("digits") * factor * 1000
}

pub fn add(into: &mut BTreeMap<String, i64>, from: &BTreeMap<String, i64>) {
    for (name, amount) in from {
        *into.entry(name.clone()).or_default() += amount;
    }
}

pub type Amounts = BTreeMap<String, i64>;

pub fn numbers(
    list: Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Amounts {
    list.into_iter()
        .flatten()
        .map(|(name, q)| (name, number(&q.0)))
        .collect()
}

/// What a pod takes: the most of what it asks for, what its node has allotted, and what is in force.
pub fn requests(pod: &Pod) -> Amounts {
    let status = pod.status.clone().unwrap_or_default();
    let asked = |c: &Container| numbers(c.resources.clone().and_then(|r| r.requests));
    let told = |c: &Container| {
        let all = status.container_statuses.iter().flatten();
        all.into_iter().find(|s| s.name == c.name).cloned()
    };
    let in_vain = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"));
    let fallback = |c: &Container| if in_vain { Amounts::new() } else { asked(c) };
    let allotted = |c: &Container| match told(c).and_then(|s| s.allocated_resources) {
        Some(list) => numbers(Some(list)),
        None => fallback(c),
    };
    let applied = |c: &Container| match told(c).and_then(|s| s.resources?.requests) {
        Some(list) => numbers(Some(list)),
        None => allotted(c),
    };
    let mut all = vec![taken(pod, &allotted), taken(pod, &applied)];
    if !in_vain {
        all.push(taken(pod, &asked));
    }
    let mut most = Amounts::new();
    for (name, amount) in all.into_iter().flatten() {
        let slot = most.entry(name).or_default();
        *slot = amount.max(*slot);
    }
    most
}

pub fn taken(pod: &Pod, of: &dyn Fn(&Container) -> Amounts) -> Amounts {
    let spec = pod.spec.as_ref().expect("a spec");
    let sidecar = |c: &Container| c.restart_policy.as_deref() == Some("Always");
    let init = spec.init_containers.clone().unwrap_or_default();
    // While everything runs.
    let mut steady = BTreeMap::new();
    for container in spec
        .containers
        .iter()
        .chain(init.iter().filter(|c| sidecar(c)))
    {
        add(&mut steady, &of(container));
    }
    // While each init container runs: itself and the sidecars before it.
    let mut phases = vec![steady];
    for (at, container) in init.iter().enumerate() {
        let mut phase = of(container);
        for before in init[..at].iter().filter(|c| sidecar(c)) {
            add(&mut phase, &of(before));
        }
        phases.push(phase);
    }
    let mut most = BTreeMap::new();
    for phase in phases {
        for (name, amount) in phase {
            let slot: &mut i64 = most.entry(name).or_default();
            *slot = (*slot).max(amount);
        }
    }
    for (name, amount) in numbers(spec.resources.clone().and_then(|r| r.requests)) {
        most.insert(name, amount);
    }
    let overhead = spec.overhead.clone().unwrap_or_default();
    add(
        &mut most,
        &overhead
            .into_iter()
            .map(|(name, q)| (name, number(&q.0)))
            .collect(),
    );
    most
}

pub fn ports(pod: &Pod) -> Vec<(i32, String, String)> {
    let containers = &pod.spec.as_ref().expect("a spec").containers;
    let all = containers
        .iter()
        .flat_map(|c| c.ports.clone().unwrap_or_default());
    all.filter_map(|p| {
        let address = p
            .host_ip
            .filter(|a| !a.is_empty())
            .unwrap_or_else(|| "0.0.0.0".into());
        Some((
            p.host_port?,
            p.protocol.unwrap_or_else(|| "TCP".into()),
            address,
        ))
    })
    .collect()
}

pub fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> String {
    pod.metadata.namespace.clone().expect("a namespace")
}

impl World {
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods
            .values()
            .filter(move |(_, on)| on == node)
            .map(|(pod, _)| pod)
    }

    pub fn fits(&self, pod: &Pod, node: &Node) -> bool {
        let name = node.metadata.name.as_deref().expect("a name");
        let allocatable = node
            .status
            .as_ref()
            .and_then(|s| s.allocatable.clone())
            .unwrap_or_default();
        let all = |name: &str| allocatable.get(name).map_or(0, |q| number(&q.0));
        let mut used = BTreeMap::new();
        for other in self.on(name) {
            add(&mut used, &self.takes(other).asked);
        }
        let pods = i64::try_from(self.on(name).count()).expect("few pods");
        (pods + 1) * 1000 <= all("pods")
            && self.takes(pod).asked.iter().all(|(name, want)| {
                *want == 0 || used.get(name).copied().unwrap_or(0) + want <= all(name)
            })
    }

    pub fn ports_free(&self, pod: &Pod, node: &str) -> bool {
        let taken: Vec<_> = self.on(node).flat_map(ports).collect();
        ports(pod).iter().all(|(port, protocol, address)| {
            !taken.iter().any(|(p, q, a)| {
                p == port
                    && q == protocol
                    && (a == address || a == "0.0.0.0" || address == "0.0.0.0")
            })
        })
    }

    /// Whether an affinity term of `owner` selects `other`.
    pub fn term_matches(&self, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
        let mut selector = term.label_selector.clone();
        for (keys, operator) in [
            (&term.match_label_keys, "In"),
            (&term.mismatch_label_keys, "NotIn"),
        ] {
            for key in keys.iter().flatten() {
                if let (Some(value), Some(selector)) = (labels(owner).get(key), &mut selector) {
                    let more = json!({"key": key, "operator": operator, "values": [value]});
                    let more = serde_json::from_value(more).expect("a requirement");
                    selector
                        .match_expressions
                        .get_or_insert_default()
                        .push(more);
                }
            }
        }
        let names = term.namespaces.clone().unwrap_or_default();
        let namespace_ok = if names.is_empty() && term.namespace_selector.is_none() {
            namespace(owner) == namespace(other)
        } else {
            let none = Labels::new();
            let labels = self.namespaces.get(&namespace(other)).unwrap_or(&none);
            names.contains(&namespace(other))
                || term.namespace_selector.is_some()
                    && selects(term.namespace_selector.as_ref(), labels)
        };
        namespace_ok && selects(selector.as_ref(), &labels(other))
    }

    pub fn domain(&self, node: &str, key: &str) -> Option<String> {
        self.nodes
            .get(node)?
            .metadata
            .labels
            .as_ref()?
            .get(key)
            .cloned()
    }

    pub fn affinity(&self, pod: &Pod, node: &str) -> bool {
        let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
        let seek = affinity.and_then(|a| a.pod_affinity.as_ref());
        let seek = seek
            .and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            })
            .unwrap_or_default();
        let all_match = |other: &Pod| seek.iter().all(|t| self.term_matches(t, pod, other));
        let here = |key: &str| self.domain(node, key);
        let sought = seek.iter().all(|term| {
            here(&term.topology_key).is_some_and(|domain| {
                self.pods.values().any(|(other, on)| {
                    all_match(other) && self.domain(on, &term.topology_key) == Some(domain.clone())
                })
            })
        });
        // Nobody matches in any domain: a pod that matches itself may be the first.
        let nobody = !self.pods.values().any(|(other, on)| {
            all_match(other)
                && seek
                    .iter()
                    .any(|t| self.domain(on, &t.topology_key).is_some())
        });
        let first =
            nobody && all_match(pod) && seek.iter().all(|t| here(&t.topology_key).is_some());
        (sought || first) && self.no_anti_affinity(pod, node)
    }

    pub fn no_anti_affinity(&self, pod: &Pod, node: &str) -> bool {
        let shun = |pod: &Pod| {
            let pod = self.ruled(pod);
            let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
            let anti = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
            anti.and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            })
            .unwrap_or_default()
        };
        self.pods.values().all(|(other, on)| {
            let together = |key: &str| {
                let (here, there) = (self.domain(node, key), self.domain(on, key));
                here.is_some() && here == there
            };
            let mine = shun(pod)
                .iter()
                .all(|t| !(self.term_matches(t, pod, other) && together(&t.topology_key)));
            let theirs = shun(other)
                .iter()
                .all(|t| !(self.term_matches(t, other, pod) && together(&t.topology_key)));
            mine && theirs
        })
    }

    pub fn spreads(&self, pod: &Pod, node: &str) -> bool {
        let all = pod
            .spec
            .as_ref()
            .and_then(|s| s.topology_spread_constraints.clone())
            .unwrap_or_default();
        let hard: Vec<_> = all
            .into_iter()
            .filter(|c| c.when_unsatisfiable == "DoNotSchedule")
            .collect();
        hard.iter()
            .all(|constraint| self.spread(pod, node, constraint, &hard))
    }

    pub fn spread(
        &self,
        pod: &Pod,
        node: &str,
        constraint: &TopologySpreadConstraint,
        hard: &[TopologySpreadConstraint],
    ) -> bool {
        let Some(here) = self.domain(node, &constraint.topology_key) else {
            return false;
        };
        let own = |other: &Pod| {
            namespace(other) == namespace(pod)
                && other.metadata.deletion_timestamp.is_none()
                && selects(constraint.label_selector.as_ref(), &labels(other))
                && constraint.match_label_keys.iter().flatten().all(|k| {
                    labels(pod)
                        .get(k)
                        .is_none_or(|v| labels(other).get(k) == Some(v))
                })
        };
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for (name, state) in &self.nodes {
            let counted = hard
                .iter()
                .all(|c| self.domain(name, &c.topology_key).is_some())
                && (constraint.node_affinity_policy.as_deref() == Some("Ignore")
                    || node_affinity(pod, state) && self.policies_allow(pod, name))
                && (constraint.node_taints_policy.as_deref() != Some("Honor")
                    || taints_tolerated(pod, state));
            if counted {
                let domain = self
                    .domain(name, &constraint.topology_key)
                    .expect("just seen");
                let pods = self.on(name).filter(|p| own(p)).count();
                *counts.entry(domain).or_default() += i64::try_from(pods).expect("few pods");
            }
        }
        let enough =
            counts.len() >= usize::try_from(constraint.min_domains.unwrap_or(1)).expect("positive");
        let least = if enough {
            counts.values().min().copied().unwrap_or(0)
        } else {
            0
        };
        let this = counts.get(&here).copied().unwrap_or(0);
        this + i64::from(own(pod)) - least <= i64::from(constraint.max_skew)
    }

    pub fn feasible(&self, pod: &Pod, name: &str) -> bool {
        let node = &self.nodes[name];
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.clone())
            .unwrap_or_default();
        let cordoned = node
            .spec
            .as_ref()
            .is_some_and(|s| s.unschedulable == Some(true));
        (!cordoned
            || tolerated(
                &tolerations,
                "node.kubernetes.io/unschedulable",
                "",
                "NoSchedule",
            ))
            && taints_tolerated(pod, node)
            && node_affinity(pod, node)
            && self.ports_free(pod, name)
            && self.fits(pod, node)
            && self.cool(pod, name)
            && self.disks_free(pod, name)
            && self.declares(pod, name)
            && self.volumes_fit(pod, name)
            && self.policies_allow(pod, name)
            && self.quota_allows(pod, name)
            && self.numa_fits(pod, name)
            && self.spreads(&self.ruled(pod), name)
            && self.affinity(&self.ruled(pod), name)
    }
}
