//! NUMA nodes, plainly: what a kubelet would admit, by trying all sets of them.

use super::World;
use super::random::{chance, pick};
use super::rules::number;
use gantry_scheduler::core::Cluster;
use k8s_openapi::api::core::v1::{Container, Pod};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, i64>;

/// What a node reported.
pub struct Report {
    policy: &'static str,
    by_pod: bool,
    /// Free, and all there is.
    zones: Vec<(Amounts, Amounts)>,
    /// Threads of a core, where only whole cores are given away.
    threads: i64,
    horizon: i64,
}

/// A node reports its NUMA nodes, or does so no more.
pub fn happen(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster) {
    let names: Vec<String> = world.nodes.keys().cloned().collect();
    for name in names {
        if chance(random, 10) {
            world.numa.remove(&name);
            cluster.remove_topology(&name);
        } else if chance(random, 40) {
            report(random, world, cluster, &name);
        }
    }
    cluster.events.clear();
}

fn report(random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster, node: &str) {
    let policies = ["single-numa-node", "restricted", "best-effort"];
    let policy = policies[random.random_range(0..3)];
    let scope = pick(random, &["container", "pod"]);
    let full = chance(random, 20);
    let zones: Vec<Value> = (0..random.random_range(1..4))
        .map(|i| {
            let mut resources = vec![json!({"name": "cpu", "capacity": "3", "allocatable": "3",
                "available": pick(random, &["0", "1", "2", "3"])})];
            if chance(random, 70) {
                resources.push(
                    json!({"name": "memory", "capacity": "4Gi", "allocatable": "4Gi",
                    "available": pick(random, &["1Gi", "2Gi", "4Gi"])}),
                );
            }
            if chance(random, 50) {
                resources.push(
                    json!({"name": "example.com/gpu", "capacity": "1", "allocatable": "1",
                    "available": pick(random, &["0", "1"])}),
                );
            }
            json!({"name": format!("node-{i}"), "type": "Node", "resources": resources})
        })
        .collect();
    let amounts = |zone: &Value, field: &str| -> Amounts {
        let list = zone["resources"].as_array().expect("a list").iter();
        let text = |r: &Value, field: &str| r[field].as_str().expect("text").to_owned();
        list.map(|r| (text(r, "name"), number(&text(r, field))))
            .collect()
    };
    let both = |zone: &Value| (amounts(zone, "available"), amounts(zone, "capacity"));
    // Two threads a core.
    let cpus: Vec<Value> = (0..6)
        .map(|id| json!({"id": id, "core": id / 2, "socket": 0}))
        .collect();
    let annotations = json!({
        "kubelet.koordinator.sh/cpu-manager-policy":
            json!({"policy": "static", "options": {"full-pcpus-only": full.to_string()}}).to_string(),
        "node.koordinator.sh/cpu-topology": json!({"detail": cpus}).to_string()});
    let now = world.now;
    world.numa.insert(
        node.to_owned(),
        Report {
            policy,
            by_pod: scope == "pod",
            zones: zones.iter().map(both).collect(),
            threads: if full { 2 } else { 1 },
            // A report may be a minute old when it comes.
            horizon: now - 60,
        },
    );
    let report = json!({"metadata": {"name": node, "annotations": annotations}, "attributes": [
        {"name": "topologyManagerPolicy", "value": policy}, {"name": "topologyManagerScope", "value": scope}],
        "zones": zones});
    cluster.numa.now = now;
    cluster.set_topology(&serde_json::from_value(report).expect("a report"));
}

fn of(container: &Container, limits: bool) -> Amounts {
    let resources = container.resources.clone().unwrap_or_default();
    let list = if limits {
        resources.limits
    } else {
        resources.requests
    };
    let list = list.into_iter().flatten();
    list.map(|(name, q)| (name, number(&q.0))).collect()
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What is to be aligned of each container: of init containers that end, and of those that stay.
fn asks(pod: &Pod) -> (Vec<Amounts>, Vec<Amounts>) {
    let spec = pod.spec.as_ref().expect("a spec");
    let init = spec.init_containers.clone().unwrap_or_default();
    let all: Vec<&Container> = init.iter().chain(&spec.containers).collect();
    let guaranteed = all.iter().all(|c| {
        let (requests, limits) = (of(c, false), of(c, true));
        ["cpu", "memory"].iter().all(|r| {
            limits.get(*r).is_some_and(|limit| *limit > 0) && limits.get(*r) == requests.get(*r)
        })
    });
    let ask = |container: &&Container| -> Amounts {
        let mut ask = of(container, false);
        ask.retain(|name, amount| match name.as_str() {
            "cpu" => guaranteed && *amount % 1000 == 0,
            "memory" => guaranteed,
            "ephemeral-storage" => false,
            _ => true,
        });
        ask.retain(|_, amount| *amount > 0);
        ask
    };
    let ending = init.iter().filter(|c| !is_sidecar(c));
    let beside = init.iter().filter(|c| is_sidecar(c));
    let staying: Vec<&Container> = beside.chain(&spec.containers).collect();
    (
        ending.collect::<Vec<_>>().iter().map(ask).collect(),
        staying.iter().map(ask).collect(),
    )
}

fn sum<'a>(all: impl IntoIterator<Item = &'a Amounts>) -> Amounts {
    let mut sum = Amounts::new();
    for (name, amount) in all.into_iter().flatten() {
        *sum.entry(name.clone()).or_default() += amount;
    }
    sum
}

/// All sets of the zones, each as their places.
fn sets(count: usize) -> Vec<Vec<usize>> {
    let all = (1..1_u32 << count).map(|bits| (0..count).filter(|i| bits & (1 << i) != 0).collect());
    let mut all: Vec<Vec<usize>> = all.collect();
    // As the kubelet counts them: by their bits.
    all.sort_by_key(|set: &Vec<usize>| set.iter().map(|i| 1_u32 << i).sum::<u32>());
    all
}

impl Report {
    /// The set of zones that an ask is placed on, of what is `free`. `None`: there is none.
    fn place(&self, free: &[Amounts], ask: &Amounts) -> Option<Vec<usize>> {
        let mut ask = ask.clone();
        ask.retain(|name, _| self.zones.iter().any(|(free, _)| free.contains_key(name)));
        if ask.is_empty() {
            return Some(Vec::new());
        }
        let has = |set: &[usize], of: &[Amounts], name: &str| -> i64 {
            set.iter().filter_map(|i| of[*i].get(name)).sum()
        };
        let whole: Vec<Amounts> = self.zones.iter().map(|(_, all)| all.clone()).collect();
        let sizes: Vec<Option<usize>> = ask
            .iter()
            .filter(|(name, _)| *name != "memory" || ask.len() == 1)
            .map(|(name, want)| {
                let enough = sets(free.len())
                    .into_iter()
                    .filter(|set| has(set, &whole, name) >= *want);
                enough.map(|set| set.len()).min()
            })
            .collect();
        let size = if self.policy == "single-numa-node" {
            Some(1)
        } else {
            sizes[0]
        }?;
        if self.policy == "restricted" && sizes.iter().any(|other| *other != Some(size)) {
            return None;
        }
        let fits = |set: &Vec<usize>| {
            set.len() == size && ask.iter().all(|(name, want)| has(set, free, name) >= *want)
        };
        sets(free.len()).into_iter().find(fits)
    }

    fn admits(&self, mut free: Vec<Amounts>, init: &[Amounts], staying: &[Amounts]) -> bool {
        if self.by_pod {
            let mut whole = sum(staying);
            for (name, amount) in init.iter().flatten() {
                let slot = whole.entry(name.clone()).or_default();
                *slot = (*slot).max(*amount);
            }
            return self.place(&free, &whole).is_some();
        }
        if init.iter().any(|ask| self.place(&free, ask).is_none()) {
            return false;
        }
        for ask in staying {
            let Some(set) = self.place(&free, ask) else {
                return false;
            };
            for (name, want) in ask {
                let mut left = *want;
                for i in &set {
                    if let Some(there) = free[*i].get_mut(name) {
                        let part = left.min((*there).max(0));
                        *there -= part;
                        left -= part;
                    }
                }
            }
        }
        true
    }
}

impl World {
    /// Whether the node's kubelet would admit the pod.
    pub fn numa_fits(&self, pod: &Pod, node: &str) -> bool {
        let Some(report) = self.numa.get(node) else {
            return true;
        };
        let (init, staying) = asks(pod);
        let halves = |ask: &Amounts| {
            let cpu = ask.get("cpu").copied().unwrap_or(0);
            cpu % (1000 * report.threads) != 0
        };
        if init.iter().chain(&staying).any(halves) {
            return false;
        }
        if report.policy == "best-effort" {
            return true;
        }
        let mut free: Vec<Amounts> = report.zones.iter().map(|(free, _)| free.clone()).collect();
        for other in self.on(node) {
            let started = other.status.as_ref().and_then(|s| s.start_time.as_ref());
            if started.is_none_or(|t| t.0.as_second() > report.horizon) {
                for (name, amount) in sum(&asks(other).1) {
                    for zone in &mut free {
                        if let Some(there) = zone.get_mut(&name) {
                            *there -= amount;
                        }
                    }
                }
            }
        }
        report.admits(free, &init, &staying)
    }
}
