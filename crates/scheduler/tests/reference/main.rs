//! Differential test: the core against an independent, plainly written reading of Kubernetes' rules of feasibility.
//!
//! Seeded random clusters live through random events (pods placed, resized and removed, nodes added, changed and
//! removed, namespaces relabelled, claims and volumes bound and made). At every pod, core and reference must agree about
//! every node; what the core places must be feasible, and what it calls unschedulable must have no feasible node; the
//! scores that the core explains must be those of the reference. A failure names its seed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

mod load;
mod scores;
#[path = "../support/mod.rs"]
mod support;
mod volumes;

use gantry_scheduler::core::load::LoadArgs;
use gantry_scheduler::core::{Cluster, Decision};
use k8s_openapi::api::core::v1::{
    Container, Node, NodeSelectorTerm, Pod, PodAffinityTerm, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::merge;

type Labels = BTreeMap<String, String>;

/// The world as the reference sees it: whole API objects.
#[derive(Default)]
struct World {
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, (Pod, String)>,
    namespaces: BTreeMap<String, Labels>,
    storage: volumes::Storage,
    usage: BTreeMap<String, load::Measured>,
    load: Option<LoadArgs>,
    now: i64,
}

fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
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

fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
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

fn node_affinity(pod: &Pod, node: &Node) -> bool {
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

fn tolerated(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
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

fn taints_tolerated(pod: &Pod, node: &Node) -> bool {
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
fn number(text: &str) -> i64 {
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

fn add(into: &mut BTreeMap<String, i64>, from: &BTreeMap<String, i64>) {
    for (name, amount) in from {
        *into.entry(name.clone()).or_default() += amount;
    }
}

type Amounts = BTreeMap<String, i64>;

fn numbers(
    list: Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Amounts {
    list.into_iter()
        .flatten()
        .map(|(name, q)| (name, number(&q.0)))
        .collect()
}

/// What a pod takes: the most of what it asks for, what its node has allotted, and what is in force.
fn requests(pod: &Pod) -> Amounts {
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

fn taken(pod: &Pod, of: &dyn Fn(&Container) -> Amounts) -> Amounts {
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

fn ports(pod: &Pod) -> Vec<(i32, String, String)> {
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

fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn namespace(pod: &Pod) -> String {
    pod.metadata.namespace.clone().expect("a namespace")
}

impl World {
    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods
            .values()
            .filter(move |(_, on)| on == node)
            .map(|(pod, _)| pod)
    }

    fn fits(&self, pod: &Pod, node: &Node) -> bool {
        let name = node.metadata.name.as_deref().expect("a name");
        let allocatable = node
            .status
            .as_ref()
            .and_then(|s| s.allocatable.clone())
            .unwrap_or_default();
        let all = |name: &str| allocatable.get(name).map_or(0, |q| number(&q.0));
        let mut used = BTreeMap::new();
        for other in self.on(name) {
            add(&mut used, &requests(other));
        }
        let pods = i64::try_from(self.on(name).count()).expect("few pods");
        (pods + 1) * 1000 <= all("pods")
            && requests(pod).iter().all(|(name, want)| {
                *want == 0 || used.get(name).copied().unwrap_or(0) + want <= all(name)
            })
    }

    fn ports_free(&self, pod: &Pod, node: &str) -> bool {
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
    fn term_matches(&self, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
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

    fn domain(&self, node: &str, key: &str) -> Option<String> {
        self.nodes
            .get(node)?
            .metadata
            .labels
            .as_ref()?
            .get(key)
            .cloned()
    }

    fn affinity(&self, pod: &Pod, node: &str) -> bool {
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

    fn no_anti_affinity(&self, pod: &Pod, node: &str) -> bool {
        let shun = |pod: &Pod| {
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

    fn spreads(&self, pod: &Pod, node: &str) -> bool {
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

    fn spread(
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
                    || node_affinity(pod, state))
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

    fn feasible(&self, pod: &Pod, name: &str) -> bool {
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
            && self.volumes_fit(pod, name)
            && self.spreads(pod, name)
            && self.affinity(pod, name)
    }
}

// Random objects.

const APPS: [&str; 4] = ["web", "db", "cache", "batch"];
const KEYS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "kubernetes.io/hostname",
    "rack",
    "topology.kubernetes.io/region",
];

fn pick<'a>(random: &mut ChaCha8Rng, from: &[&'a str]) -> &'a str {
    from.choose(random).expect("not empty")
}

fn chance(random: &mut ChaCha8Rng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

fn random_node(random: &mut ChaCha8Rng, name: &str) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": name});
    for (key, values, percent) in [
        ("topology.kubernetes.io/zone", &["a", "b", "c"][..], 92),
        ("rack", &["r1", "r2", "r3", "r4", "r5", "r6"], 80),
        ("topology.kubernetes.io/region", &["x", "y"], 95),
        ("disk", &["ssd", "hdd"], 60),
        ("gen", &["1", "2", "3"], 50),
    ] {
        if chance(random, percent) {
            labels[key] = json!(pick(random, values));
        }
    }
    let mut spec = json!({"unschedulable": chance(random, 6)});
    let mut taints = Vec::new();
    for key in ["dedicated", "flaky"] {
        if chance(random, 12) {
            let effect = pick(random, &["NoSchedule", "NoExecute", "PreferNoSchedule"]);
            taints.push(json!({"key": key, "value": pick(random, &["", "x"]), "effect": effect}));
        }
    }
    spec["taints"] = json!(taints);
    let mut allocatable = json!({
        "cpu": pick(random, &["2", "4", "3500m"]), "memory": pick(random, &["4Gi", "8Gi"]),
        "pods": pick(random, &["5", "8", "20"]), "ephemeral-storage": "10Gi"});
    if chance(random, 30) {
        allocatable["example.com/gpu"] = json!("2");
    }
    let mut images = Vec::new();
    for (image, mib) in IMAGES {
        if chance(random, 50) {
            images.push(json!({"names": [image], "sizeBytes": mib << 20}));
        }
    }
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec,
        "status": {"allocatable": allocatable, "images": images}})
}

/// Images and their sizes in MiB.
const IMAGES: [(&str, i64); 3] = [("small:1", 20), ("middle:latest", 400), ("large:1", 1500)];

fn random_selector(random: &mut ChaCha8Rng) -> Value {
    match random.random_range(0..10) {
        0 => json!({}),
        1 => {
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [pick(random, &APPS), pick(random, &APPS)]}]})
        }
        2 => {
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [pick(random, &APPS)]}]})
        }
        3 => {
            json!({"matchExpressions": [{"key": "rev", "operator": pick(random, &["Exists", "DoesNotExist"])}]})
        }
        _ => json!({"matchLabels": {"app": pick(random, &APPS)}}),
    }
}

fn random_term(random: &mut ChaCha8Rng) -> Value {
    let mut term =
        json!({"topologyKey": pick(random, &KEYS), "labelSelector": random_selector(random)});
    match random.random_range(0..8) {
        0 => term["namespaces"] = json!([pick(random, &["one", "two"])]),
        1 => {
            term["namespaceSelector"] = json!({"matchLabels": {"team": pick(random, &["x", "y"])}})
        }
        2 => term["namespaceSelector"] = json!({}),
        3 => term["matchLabelKeys"] = json!(["rev"]),
        4 => term["mismatchLabelKeys"] = json!(["rev"]),
        _ => {}
    }
    term
}

fn random_constraint(random: &mut ChaCha8Rng) -> Value {
    let hard = chance(random, 75);
    let mut constraint = json!({
        "maxSkew": random.random_range(1..3), "topologyKey": pick(random, &KEYS),
        "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
        "labelSelector": random_selector(random)});
    if hard && chance(random, 20) {
        constraint["minDomains"] = json!(random.random_range(1..5));
    }
    if chance(random, 25) {
        constraint["nodeAffinityPolicy"] = json!(pick(random, &["Honor", "Ignore"]));
    }
    if chance(random, 25) {
        constraint["nodeTaintsPolicy"] = json!(pick(random, &["Honor", "Ignore"]));
    }
    if chance(random, 15) {
        constraint["matchLabelKeys"] = json!(["rev"]);
    }
    constraint
}

fn random_node_term(random: &mut ChaCha8Rng, nodes: usize) -> Value {
    let expression = match random.random_range(0..6) {
        0 => json!({"key": "disk", "operator": "In", "values": ["ssd"]}),
        1 => json!({"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["a"]}),
        2 => json!({"key": "disk", "operator": "Exists"}),
        3 => json!({"key": "disk", "operator": "DoesNotExist"}),
        4 => json!({"key": "gen", "operator": "Gt", "values": ["1"]}),
        _ => json!({"key": "gen", "operator": "Lt", "values": ["3"]}),
    };
    if chance(random, 15) {
        let names = [
            format!("n{}", random.random_range(0..nodes)),
            format!("n{}", random.random_range(0..nodes)),
        ];
        return json!({"matchFields": [{"key": "metadata.name", "operator": pick(random, &["In", "NotIn"]), "values": names}]});
    }
    json!({"matchExpressions": [expression]})
}

fn container_without_requests(spec: &mut Value) {
    spec["containers"][0]["resources"] = json!({});
}

fn affinity_to_nodes(random: &mut ChaCha8Rng, spec: &mut Value) {
    let terms: Vec<_> = (0..random.random_range(1..3))
        .map(|_| {
            let (weight, disk) = (random.random_range(1..100), pick(random, &["ssd", "hdd"]));
            json!({"weight": weight, "preference": {"matchExpressions": [
                {"key": "disk", "operator": "In", "values": [disk]}]}})
        })
        .collect();
    spec["affinity"] =
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
}

/// All but name and uid: pods are made from a few of these, so that classes and ranks are shared.
fn random_template(random: &mut ChaCha8Rng, nodes: usize) -> Value {
    let mut requests = json!({"cpu": pick(random, &["100m", "250m", "1"]), "memory": pick(random, &["128Mi", "1Gi"])});
    if chance(random, 10) {
        requests["example.com/gpu"] = json!("1");
    }
    let image = pick(random, &["small:1", "middle", "large:1", "unknown:1"]);
    let mut container = json!({"name": "c", "image": image, "resources": {"requests": requests}});
    if chance(random, 15) {
        container["ports"] = json!([{"containerPort": 80, "hostPort": random.random_range(80..82),
            "hostIP": pick(random, &["", "0.0.0.0", "10.0.0.1"]), "protocol": pick(random, &["TCP", "UDP"])}]);
    }
    let mut spec = json!({"containers": [container], "priority": random.random_range(0..3)});
    if chance(random, 15) {
        let policy = if chance(random, 50) {
            json!("Always")
        } else {
            Value::Null
        };
        spec["initContainers"] = json!([
            {"name": "i", "restartPolicy": policy, "resources": {"requests": {"cpu": "1500m"}}},
            {"name": "j", "resources": {"requests": {"cpu": "1"}}}]);
    }
    if chance(random, 10) {
        spec["overhead"] = json!({"cpu": "250m"});
    }
    if chance(random, 10) {
        spec["resources"] = json!({"requests": {"cpu": "750m"}});
    } else if chance(random, 3) {
        container_without_requests(&mut spec);
    }
    if chance(random, 30) {
        spec["volumes"] = volumes::random_volumes(random);
    }
    if chance(random, 20) {
        affinity_to_nodes(random, &mut spec);
    }
    if chance(random, 10) {
        spec["nodeSelector"] = json!({"disk": "ssd"});
    }
    if chance(random, 30) {
        spec["tolerations"] = json!([match random.random_range(0..4) {
            0 => json!({"operator": "Exists"}),
            1 => json!({"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}),
            2 => json!({"key": "flaky", "operator": "Equal", "value": "x"}),
            _ => json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}),
        }]);
    }
    let mut affinity = spec.get("affinity").cloned().unwrap_or_else(|| json!({}));
    if chance(random, 20) {
        let terms: Vec<_> = (0..random.random_range(1..3))
            .map(|_| random_node_term(random, nodes))
            .collect();
        affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": terms});
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if chance(random, 25) {
            let terms: Vec<_> = (0..random.random_range(1..3))
                .map(|_| random_term(random))
                .collect();
            affinity[kind] = json!({"requiredDuringSchedulingIgnoredDuringExecution": terms});
        }
        if chance(random, 15) {
            let term = json!([{"weight": random.random_range(1..100), "podAffinityTerm": random_term(random)}]);
            merge(
                &mut affinity[kind],
                &json!({"preferredDuringSchedulingIgnoredDuringExecution": term}),
            );
        }
    }
    spec["affinity"] = affinity;
    if chance(random, 35) {
        let all: Vec<_> = (0..random.random_range(1..3))
            .map(|_| random_constraint(random))
            .collect();
        spec["topologySpreadConstraints"] = json!(all);
    }
    let mut labels = json!({"app": pick(random, &APPS)});
    if chance(random, 50) {
        labels["rev"] = json!(pick(random, &["1", "2"]));
    }
    json!({"metadata": {"namespace": pick(random, &["one", "two"]), "labels": labels}, "spec": spec})
}

/// Counts of what a run met, to see that the test tests.
#[derive(Default, Debug)]
struct Met {
    placed: usize,
    refused: usize,
}

fn live(seed: u64, met: &mut Met) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let profile = load::profile(&mut random);
    let mut world = World {
        load: profile.load.clone(),
        ..World::default()
    };
    let mut cluster = Cluster::with_profiles(vec![profile]);
    let size = random.random_range(1..40);
    let add_node =
        |random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster, name: &str| {
            let node = random_node(random, name);
            support::add_node(cluster, &node);
            world.nodes.insert(
                name.to_owned(),
                serde_json::from_value(node).expect("a node"),
            );
        };
    for i in 0..size {
        add_node(&mut random, &mut world, &mut cluster, &format!("n{i}"));
    }
    volumes::fill(&mut random, &mut world, &mut cluster, size);
    let templates: Vec<_> = (0..random.random_range(2..9))
        .map(|_| random_template(&mut random, size))
        .collect();
    for step in 0..64 {
        load::happen(&mut random, &mut world, &mut cluster, step);
        match random.random_range(0..24) {
            0 => {
                let name = format!("n{}", random.random_range(0..size + 2));
                add_node(&mut random, &mut world, &mut cluster, &name);
            }
            1 if chance(&mut random, 40) => {
                let name = format!("n{}", random.random_range(0..size));
                world.nodes.remove(&name);
                world.forget_usage();
                cluster.remove_node(&name);
            }
            2..5 => {
                let uids: Vec<_> = world.pods.keys().cloned().collect();
                if let Some(uid) = uids.choose(&mut random) {
                    world.pods.remove(uid);
                    assert!(
                        cluster.remove(uid).is_some(),
                        "seed {seed} step {step}: {uid} was placed"
                    );
                    world.forget_usage();
                }
            }
            5 => {
                let name = pick(&mut random, &["one", "two"]);
                let labels: Labels =
                    [("team".to_owned(), pick(&mut random, &["x", "y"]).to_owned())].into();
                cluster.set_namespace(name, Some(&labels));
                world.namespaces.insert(name.to_owned(), labels);
            }
            6 => {
                // A placed pod begins to go away.
                let uids: Vec<_> = world.pods.keys().cloned().collect();
                if let Some(uid) = uids.choose(&mut random) {
                    let (pod, node) = &world.pods[uid];
                    let mut pod = serde_json::to_value(pod).expect("JSON");
                    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    support::add_pod(&mut cluster, &pod, node);
                    let node = node.clone();
                    world.pods.insert(
                        uid.clone(),
                        (serde_json::from_value(pod).expect("a pod"), node),
                    );
                }
            }
            10 => {
                // A placed pod starts to run.
                let uids: Vec<_> = world.pods.keys().cloned().collect();
                if let Some(uid) = uids.choose(&mut random) {
                    let (pod, node) = world.pods[uid].clone();
                    let mut pod = serde_json::to_value(pod).expect("JSON");
                    let at = world.now - random.random_range(0..20);
                    let at = jiff::Timestamp::from_second(at).expect("a time");
                    pod["status"]["startTime"] = json!(at.to_string());
                    cluster.observe(&support::decode_pod(&pod), &node);
                    let pod = serde_json::from_value(pod).expect("a pod");
                    world.pods.insert(uid.clone(), (pod, node));
                }
            }
            8 => volumes::happen(&mut random, &mut world, &mut cluster),
            9 => {
                // A placed pod is resized: its node has allotted something else than it asks for now.
                let uids: Vec<_> = world.pods.keys().cloned().collect();
                if let Some(uid) = uids.choose(&mut random) {
                    let (pod, node) = world.pods[uid].clone();
                    let mut pod = serde_json::to_value(pod).expect("JSON");
                    let cpu = |random: &mut ChaCha8Rng| json!({"cpu": pick(random, &["50m", "500m", "2"])});
                    pod["status"]["containerStatuses"] = json!([{"name": "c", "ready": true, "restartCount": 0,
                        "image": "", "imageID": "", "allocatedResources": cpu(&mut random),
                        "resources": {"requests": cpu(&mut random)}}]);
                    if chance(&mut random, 30) {
                        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
                    }
                    cluster.observe(&support::decode_pod(&pod), &node);
                    let pod = serde_json::from_value(pod).expect("a pod");
                    world.pods.insert(uid.clone(), (pod, node));
                }
            }
            7 => {
                let held = cluster.classify(&support::decode_pod(&templates[0]));
                cluster.compact([held]);
            }
            _ => {
                let mut pod = templates.choose(&mut random).expect("templates").clone();
                merge(
                    &mut pod,
                    &json!({"metadata": {"name": format!("p{step}"), "uid": format!("u{step}")}}),
                );
                schedule(
                    &mut world,
                    &mut cluster,
                    &pod,
                    &format!("seed {seed} step {step}"),
                    met,
                );
            }
        }
    }
}

fn schedule(world: &mut World, cluster: &mut Cluster, pod: &Value, at: &str, met: &mut Met) {
    let whole: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    let class = cluster.classify(&support::decode_pod(pod));
    let feasible: Vec<&String> = world
        .nodes
        .keys()
        .filter(|n| world.feasible(&whole, n))
        .collect();
    for name in world.nodes.keys() {
        let symbol = cluster.compiler.symbols.intern(name);
        let node = cluster.nodes.find(symbol).expect("a node");
        assert_eq!(
            cluster.feasible(class, node),
            feasible.contains(&name),
            "{at}: {name} for {pod:#}"
        );
    }
    scores::agree(world, cluster, &whole, class, &feasible, at);
    match cluster.decide(class) {
        Decision::Place(node) => {
            let name = cluster.node_name(node).to_owned();
            assert!(
                feasible.contains(&&name),
                "{at}: placed on {name}, feasible are {feasible:?}: {pod:#}"
            );
            let uid: Arc<str> = whole.metadata.uid.clone().expect("a uid").into();
            volumes::bind(world, cluster, &whole, class, &name, at);
            cluster.place_at(&uid, class, node);
            world.pods.insert(uid.to_string(), (whole, name));
            met.placed += 1;
        }
        Decision::Unschedulable(diagnosis) => {
            assert!(
                feasible.is_empty(),
                "{at}: {} but {feasible:?}: {pod:#}",
                diagnosis.message
            );
            met.refused += 1;
        }
    }
}

/// `GANTRY_SEEDS` sets how many clusters live (default 30; thousands are for a release build and a longer while).
#[test]
fn core_and_reference_agree() {
    let seeds = std::env::var("GANTRY_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(30);
    let mut met = Met::default();
    for seed in 0..seeds {
        live(seed, &mut met);
    }
    // Both outcomes are met often enough to mean something.
    assert!(met.placed > 400 && met.refused > 200, "{met:?}");
}
