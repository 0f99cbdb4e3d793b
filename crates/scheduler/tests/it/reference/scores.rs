//! kube-scheduler's scores, plainly, of every feasible node at once: resources, taints, node affinity, pod affinity and
//! images of the default profile. (Spread is scored by the core over the domains of eligible nodes, and not of the
//! sample that happens to be feasible; its sign is seen in the tables of cases.)

use super::World;
use super::rules::{
    Amounts, add, node_affinity, number, requests, taints_tolerated, term_selects, tolerated,
};
use gantry_scheduler::core::explain::Scored;
use gantry_scheduler::core::profile::Rule;
use gantry_scheduler::core::{ClassId, Cluster};
use k8s_openapi::api::core::v1::{Node, Pod, WeightedPodAffinityTerm};
use std::collections::BTreeMap;

/// Core and reference agree about the score of every feasible node.
pub fn agree(
    world: &World,
    cluster: &mut Cluster,
    pod: &Pod,
    class: ClassId,
    feasible: &[&String],
    at: &str,
) {
    // An eighth of all pods: every node is scored twice, at length.
    if feasible.is_empty() || !world.pods.len().is_multiple_of(8) {
        return;
    }
    let explained = cluster.explain(class).feasible;
    assert_eq!(explained.len(), feasible.len(), "{at}");
    let rows: BTreeMap<String, Scored> = explained
        .into_iter()
        .map(|row| (cluster.node_name(row.node).to_owned(), row))
        .collect();
    let affinity = node_preferences(world, pod);
    let neighbours = neighbours(world, pod, feasible);
    for name in feasible {
        let node = &world.nodes[*name];
        let row = &rows[*name];
        let want = [
            (Rule::Fit, least_allocated(world, pod, node)),
            (Rule::Balance, balance(world, pod, node)),
            (Rule::Taints, 3 * dislikes(world, pod, node)),
            (Rule::NodeAffinity, 2 * affinity[*name]),
            (Rule::PodAffinity, 2 * neighbours[*name]),
            (Rule::Images, images(world, pod, node)),
            (Rule::Load, world.coolness(pod, name)),
        ];
        for (rule, want) in want {
            let got = row.by_rule[rule as usize];
            // Fractions are rounded once on either side.
            let near = matches!(rule, Rule::Balance | Rule::Images) && (got - want).abs() <= 1;
            assert!(
                got == want || near,
                "{at}: {rule:?} of {name}: {got}, not {want}"
            );
        }
        assert_eq!(row.total, row.by_rule.iter().sum::<i64>(), "{at}");
    }
}

fn allocatable(node: &Node, resource: &str) -> i64 {
    let all = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    all.and_then(|a| a.get(resource))
        .map_or(0, |q| number(&q.0))
}

/// Requests with what is assumed of containers that ask for nothing; the test's pods are plain enough to say it so.
pub fn assumed(pod: &Pod) -> Amounts {
    let mut plain = pod.clone();
    let spec = plain.spec.as_mut().expect("a spec");
    let all = spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten());
    for container in all {
        let requests = container
            .resources
            .get_or_insert_default()
            .requests
            .get_or_insert_default();
        for (name, amount) in [("cpu", "100m"), ("memory", "200Mi")] {
            requests.entry(name.to_owned()).or_insert_with(|| {
                k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_owned())
            });
        }
    }
    for status in plain
        .status
        .iter_mut()
        .flat_map(|s| s.container_statuses.iter_mut().flatten())
    {
        for list in [
            status.allocated_resources.as_mut(),
            status.resources.as_mut().and_then(|r| r.requests.as_mut()),
        ]
        .into_iter()
        .flatten()
        {
            for (name, amount) in [("cpu", "100m"), ("memory", "200Mi")] {
                list.entry(name.to_owned()).or_insert_with(|| {
                    k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_owned())
                });
            }
        }
    }
    requests(&plain)
}

fn used(world: &World, pod: &Pod, node: &Node, of: fn(&Pod) -> Amounts) -> Amounts {
    let mut sum = of(pod);
    for other in world.on(node.metadata.name.as_deref().expect("a name")) {
        add(&mut sum, &of(other));
    }
    sum
}

fn least_allocated(world: &World, pod: &Pod, node: &Node) -> i64 {
    let used = used(world, pod, node, assumed);
    let scores = ["cpu", "memory"].map(|resource| {
        let (all, used) = (
            allocatable(node, resource),
            used.get(resource).copied().unwrap_or(0),
        );
        if used > all {
            0
        } else {
            (i128::from(all - used) * 100 / i128::from(all)) as i64
        }
    });
    scores.iter().sum::<i64>() / 2
}

fn balance(world: &World, pod: &Pod, node: &Node) -> i64 {
    let own = requests(pod);
    if ["cpu", "memory"]
        .iter()
        .all(|r| own.get(*r).copied().unwrap_or(0) == 0)
    {
        return 0;
    }
    let with = used(world, pod, node, requests);
    let mut without = with.clone();
    for (resource, amount) in &own {
        *without.get_mut(resource).expect("summed") -= amount;
    }
    let even = |used: &Amounts| {
        let [cpu, memory] = ["cpu", "memory"].map(|resource| {
            let used = used.get(resource).copied().unwrap_or(0);
            (used as f64 / allocatable(node, resource) as f64).min(1.0)
        });
        ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
    };
    50 + (50 + even(&with) - even(&without)) / 2
}

/// Nodes that may be compared at all: those that selectors, taints and cordons leave.
fn allowed<'a>(world: &'a World, pod: &'a Pod) -> impl Iterator<Item = (&'a String, &'a Node)> {
    world.nodes.iter().filter(move |(name, node)| {
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.clone())
            .unwrap_or_default();
        let cordoned = node
            .spec
            .as_ref()
            .and_then(|s| s.unschedulable)
            .unwrap_or_default();
        let open = !cordoned
            || tolerated(
                &tolerations,
                "node.kubernetes.io/unschedulable",
                "",
                "NoSchedule",
            );
        open && taints_tolerated(pod, node)
            && node_affinity(pod, node)
            && world.policies_allow(pod, name)
    })
}

fn disliked(pod: &Pod, node: &Node) -> i64 {
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
    let soft = taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    let soft = soft.filter(|t| {
        !tolerated(
            &tolerations,
            &t.key,
            t.value.as_deref().unwrap_or_default(),
            "PreferNoSchedule",
        )
    });
    i64::try_from(soft.count()).expect("few")
}

fn dislikes(world: &World, pod: &Pod, node: &Node) -> i64 {
    let most = allowed(world, pod)
        .map(|(_, n)| disliked(pod, n))
        .max()
        .unwrap_or(0);
    if most == 0 {
        100
    } else {
        100 - disliked(pod, node) * 100 / most
    }
}

fn node_preferences(world: &World, pod: &Pod) -> BTreeMap<String, i64> {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| {
        a.preferred_during_scheduling_ignored_during_execution
            .clone()
    });
    let preferred = preferred.unwrap_or_default();
    let raw = |node: &Node| -> i64 {
        let met = preferred
            .iter()
            .filter(|p| term_selects(&p.preference, node));
        met.map(|p| i64::from(p.weight)).sum()
    };
    let most = allowed(world, pod).map(|(_, n)| raw(n)).max().unwrap_or(0);
    let scale = |raw: i64| if most == 0 { 0 } else { raw * 100 / most };
    world
        .nodes
        .iter()
        .map(|(name, node)| (name.clone(), scale(raw(node))))
        .collect()
}

fn weighted(pod: &Pod) -> Vec<(i64, WeightedPodAffinityTerm)> {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|s| s.affinity.clone())
        .unwrap_or_default();
    let seek = affinity
        .pod_affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution);
    let shun = affinity
        .pod_anti_affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution);
    let signed = |sign: i64| move |t: WeightedPodAffinityTerm| (sign * i64::from(t.weight), t);
    let seek = seek.into_iter().flatten().map(signed(1));
    seek.chain(shun.into_iter().flatten().map(signed(-1)))
        .collect()
}

fn neighbours(world: &World, pod: &Pod, feasible: &[&String]) -> BTreeMap<String, i64> {
    let mut raw: BTreeMap<String, i64> = BTreeMap::new();
    for name in feasible {
        let mut sum = 0;
        for (other, on) in world.pods.values() {
            let together = |key: &str| {
                let (here, there) = (world.domain(name, key), world.domain(on, key));
                here.is_some() && here == there
            };
            for (weight, term) in weighted(pod) {
                let term = &term.pod_affinity_term;
                if world.term_matches(term, pod, other) && together(&term.topology_key) {
                    sum += weight;
                }
            }
            for (weight, term) in weighted(other) {
                let term = &term.pod_affinity_term;
                if world.term_matches(term, other, pod) && together(&term.topology_key) {
                    sum += weight;
                }
            }
            // Those who must be near this pod draw it, at weight one.
            let ruled = world.ruled(other);
            let affinity = ruled
                .spec
                .as_ref()
                .and_then(|s| s.affinity.as_ref()?.pod_affinity.as_ref());
            let required = affinity.and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            });
            for term in required.into_iter().flatten() {
                if world.term_matches(&term, other, pod) && together(&term.topology_key) {
                    sum += 1;
                }
            }
        }
        raw.insert((*name).clone(), sum);
    }
    let (min, max) = (raw.values().min().copied(), raw.values().max().copied());
    let (min, max) = (min.unwrap_or(0), max.unwrap_or(0));
    let scale = |raw: i64| {
        if max == min {
            0
        } else {
            100 * (raw - min) / (max - min)
        }
    };
    raw.into_iter()
        .map(|(name, sum)| (name, scale(sum)))
        .collect()
}

fn images(world: &World, pod: &Pod, node: &Node) -> i64 {
    let has = |node: &Node, image: &str| -> Option<i64> {
        let images = node
            .status
            .as_ref()
            .and_then(|s| s.images.clone())
            .unwrap_or_default();
        let found = images
            .into_iter()
            .find(|i| i.names.iter().flatten().any(|n| n == image));
        found.and_then(|i| i.size_bytes)
    };
    let spec = pod.spec.as_ref().expect("a spec");
    let named = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let named: Vec<String> = named
        .filter_map(|c| c.image.clone())
        .map(|image| {
            if image.contains(':') {
                image
            } else {
                format!("{image}:latest")
            }
        })
        .collect();
    let mut sum = 0;
    for image in &named {
        if let Some(size) = has(node, image) {
            let nodes = world
                .nodes
                .values()
                .filter(|n| has(n, image).is_some())
                .count();
            sum += (size as f64 * (nodes as f64 / world.nodes.len() as f64)) as i64;
        }
    }
    let mib = 1 << 20;
    let most = 1000 * mib * i64::try_from(named.len()).expect("few").max(1);
    100 * (sum.clamp(23 * mib, most) - 23 * mib) / (most - 23 * mib)
}
