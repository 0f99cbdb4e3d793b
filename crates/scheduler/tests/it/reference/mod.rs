//! Differential test: the core against an independent, plainly written reading of Kubernetes' rules of feasibility.
//!
//! Seeded random clusters live through random events (pods placed, resized and removed, nodes added, changed and
//! removed, namespaces relabelled, claims and volumes bound and made, disks and declared features, placement policies and quotas written (also for
//! single pools), NUMA nodes reported). At every pod, core and reference must agree about every node; what the core places must be feasible, and
//! what it calls unschedulable must have no feasible node; the scores that the core explains must be those of the
//! reference. What several workers decide at the same time must have been feasible, one after another. A failure names
//! its seed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

mod disks;
mod load;
mod numa;
mod policies;
mod quotas;
mod random;
mod rules;
mod scores;
mod volumes;

use gantry_scheduler::core::load::LoadArgs;
use gantry_scheduler::core::{ClassId, Cluster, Decision};
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use random::{chance, pick, random_node, random_template};

use crate::support::merge;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    policies: Vec<policies::Policy>,
    /// Pods with what policies say of pods around them, by uid, until policies change.
    ruled: RefCell<BTreeMap<String, Rc<Pod>>>,
    quotas: Vec<quotas::Quota>,
    /// What pods take, and what is assumed of them, by uid, until they change.
    known: RefCell<BTreeMap<String, Rc<Takes>>>,
    numa: BTreeMap<String, numa::Report>,
    now: i64,
}

/// What a pod takes; and the same with what is assumed of containers that ask for nothing.
struct Takes {
    asked: rules::Amounts,
    assumed: rules::Amounts,
}

impl World {
    /// A pod is on a node, or changed there. Returns what was known of it.
    fn put(&mut self, pod: Pod, node: String) -> Option<(Pod, String)> {
        let uid = pod.metadata.uid.clone().expect("a uid");
        self.known.borrow_mut().remove(&uid);
        self.pods.insert(uid, (pod, node))
    }

    /// What a pod takes: of all that is asked here, most is asked of the same pods again and again.
    fn takes(&self, pod: &Pod) -> Rc<Takes> {
        let uid = pod.metadata.uid.clone().expect("a uid");
        let known = self.known.borrow().get(&uid).cloned();
        known.unwrap_or_else(|| {
            let takes = Rc::new(Takes {
                asked: rules::requests(pod),
                assumed: scores::assumed(pod),
            });
            self.known.borrow_mut().insert(uid, takes.clone());
            takes
        })
    }
}

/// Counts of what a run met, to see that the test tests.
#[derive(Default, Debug)]
struct Met {
    placed: usize,
    refused: usize,
    together: usize,
    conflicts: usize,
    /// Pods that nodes were refused for by policies, quotas and NUMA nodes.
    by_policy: usize,
    by_quota: usize,
    by_numa: usize,
    /// Pods that the quota of one pool refused, and that of another did not.
    by_pool: usize,
}

impl AddAssign for Met {
    fn add_assign(&mut self, other: Self) {
        self.placed += other.placed;
        self.refused += other.refused;
        self.together += other.together;
        self.conflicts += other.conflicts;
        self.by_policy += other.by_policy;
        self.by_quota += other.by_quota;
        self.by_numa += other.by_numa;
        self.by_pool += other.by_pool;
    }
}

/// Clusters that live, unless told otherwise.
const CLUSTERS: u64 = 300;

/// What happens to each cluster.
const STEPS: i64 = 64;

fn live(seed: u64, met: &mut Met) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let profile = load::profile(&mut random);
    let mut world = World {
        load: profile.load.clone(),
        ..World::default()
    };
    let mut cluster = Cluster::with_profiles(vec![profile]);
    // Most of them small: what goes wrong does so there, too, and sooner.
    let most = if chance(&mut random, 20) { 40 } else { 12 };
    let size = random.random_range(1..most);
    let add_node =
        |random: &mut ChaCha8Rng, world: &mut World, cluster: &mut Cluster, name: &str| {
            let node = random_node(random, name);
            crate::support::add_node(cluster, &node);
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
    let extras = [40, 40, 40].map(|percent| chance(&mut random, percent));
    if extras[1] && chance(&mut random, 50) {
        policies::set_pools(&mut world, &mut cluster);
        for _ in 0..3 {
            quotas::happen(&mut random, &mut world, &mut cluster);
        }
    }
    for step in 0..STEPS {
        load::happen(&mut random, &mut world, &mut cluster, step);
        let [with_policies, with_quotas, with_numa] = extras;
        if with_policies && chance(&mut random, 12) {
            policies::happen(&mut random, &mut world, &mut cluster);
        }
        if with_quotas && chance(&mut random, 12) {
            quotas::happen(&mut random, &mut world, &mut cluster);
        }
        if with_numa && chance(&mut random, 25) {
            numa::happen(&mut random, &mut world, &mut cluster);
        }
        match random.random_range(0..24) {
            0 => {
                let name = format!("n{}", random.random_range(0..size + 2));
                add_node(&mut random, &mut world, &mut cluster, &name);
            }
            1 if chance(&mut random, 40) => {
                let name = format!("n{}", random.random_range(0..size));
                world.nodes.remove(&name);
                world.numa.remove(&name);
                cluster.remove_topology(&name);
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
                    crate::support::add_pod(&mut cluster, &pod, node);
                    let node = node.clone();
                    world.put(serde_json::from_value(pod).expect("a pod"), node);
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
                    cluster.observe(&crate::support::decode_pod(&pod), &node);
                    let pod = serde_json::from_value(pod).expect("a pod");
                    world.put(pod, node);
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
                    cluster.observe(&crate::support::decode_pod(&pod), &node);
                    let pod = serde_json::from_value(pod).expect("a pod");
                    world.put(pod, node);
                }
            }
            7 => {
                let held = cluster.classify(&crate::support::decode_pod(&templates[0]));
                cluster.compact([held]);
            }
            11 if chance(&mut random, 30) => {
                let pods: Vec<Value> = (0..random.random_range(32..50))
                    .map(|i| {
                        named(
                            templates.choose(&mut random).expect("templates"),
                            &format!("{step}-{i}"),
                        )
                    })
                    .collect();
                let workers = random.random_range(2..4);
                let at = format!("seed {seed} step {step}");
                schedule_together(&mut world, &mut cluster, &pods, workers, &at, met);
            }
            _ => {
                let pod = named(
                    templates.choose(&mut random).expect("templates"),
                    &step.to_string(),
                );
                let at = format!("seed {seed} step {step}");
                schedule(&mut world, &mut cluster, &pod, &at, met);
            }
        }
    }
}

fn named(template: &Value, id: &str) -> Value {
    let mut pod = template.clone();
    merge(
        &mut pod,
        &json!({"metadata": {"name": format!("p{id}"), "uid": format!("u{id}")}}),
    );
    pod
}

fn schedule(world: &mut World, cluster: &mut Cluster, pod: &Value, at: &str, met: &mut Met) {
    let whole: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    let class = cluster.classify(&crate::support::decode_pod(pod));
    let feasible: Vec<&String> = world
        .nodes
        .keys()
        .filter(|n| world.feasible(&whole, n))
        .collect();
    let some = |ok: &dyn Fn(&str) -> bool| usize::from(world.nodes.keys().any(|n| !ok(n)));
    met.by_policy += some(&|n| world.policies_allow(&whole, n));
    met.by_quota += some(&|n| world.quota_allows(&whole, n));
    let any = |ok: &dyn Fn(&str) -> bool| world.nodes.keys().any(|n| ok(n));
    met.by_pool += usize::from(
        any(&|n| world.quota_allows(&whole, n)) && any(&|n| !world.quota_allows(&whole, n)),
    );
    met.by_numa += some(&|n| world.numa_fits(&whole, n));
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
    let feasible: Vec<String> = feasible.into_iter().cloned().collect();
    match cluster.decide(class) {
        Decision::Place(node) => {
            let name = cluster.node_name(node).to_owned();
            assert!(
                feasible.contains(&name),
                "{at}: placed on {name}, feasible are {feasible:?}, {}: {pod:#}",
                cluster.diagnose(class).message
            );
            place(world, cluster, whole, class, &name, at);
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

fn place(world: &mut World, cluster: &mut Cluster, pod: Pod, class: ClassId, node: &str, at: &str) {
    let uid: Arc<str> = pod.metadata.uid.clone().expect("a uid").into();
    volumes::bind(world, cluster, &pod, class, node, at);
    cluster.place(&uid, class, node);
    let known = world.put(pod, node.to_owned());
    assert!(known.is_none(), "{at}: {uid} is placed twice");
}

/// Several workers decide at once: what holds of it must have been feasible when its turn came.
fn schedule_together(
    world: &mut World,
    cluster: &mut Cluster,
    pods: &[Value],
    workers: usize,
    at: &str,
    met: &mut Met,
) {
    let classes: Vec<ClassId> = pods
        .iter()
        .map(|pod| cluster.classify(&crate::support::decode_pod(pod)))
        .collect();
    let mut round = cluster.propose(classes.clone(), workers);
    for (i, (pod, class)) in pods.iter().zip(classes).enumerate() {
        let whole: Pod = serde_json::from_value(pod.clone()).expect("a pod");
        let decision = cluster.settle(&mut round, i);
        met.together += 1;
        match decision {
            Decision::Place(node) => {
                let name = cluster.node_name(node).to_owned();
                assert!(
                    world.feasible(&whole, &name),
                    "{at}: {i} was placed on {name}: {pod:#}"
                );
                place(world, cluster, whole, class, &name, at);
            }
            Decision::Unschedulable(diagnosis) => {
                let fits = world.nodes.keys().find(|name| world.feasible(&whole, name));
                assert!(
                    fits.is_none(),
                    "{at}: {} but {fits:?}: {pod:#}",
                    diagnosis.message
                );
            }
        }
    }
    met.conflicts += round.conflicts;
    cluster.close(round);
}

/// `GANTRY_SEEDS` sets how many clusters live, each in turn on one of as many threads as there are cores.
#[test]
fn core_and_reference_agree() {
    let seeds = std::env::var("GANTRY_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(CLUSTERS);
    // The first of them, to look at one that failed.
    let first = std::env::var("GANTRY_FIRST_SEED").ok();
    let first: u64 = first.and_then(|n| n.parse().ok()).unwrap_or(0);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let met = std::thread::scope(|scope| {
        let work = || {
            let mut met = Met::default();
            loop {
                let seed = next.fetch_add(1, Relaxed);
                if seed >= first + seeds {
                    return met;
                }
                live(seed, &mut met);
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Met::default();
        for thread in threads {
            match thread.join() {
                Ok(met) => all += met,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    // All outcomes are met often enough to mean something.
    assert!(met.placed > 1000 && met.refused > 1000, "{met:?}");
    assert!(met.together > 2000 && met.conflicts > 100, "{met:?}");
    let by = [met.by_policy, met.by_quota, met.by_numa, met.by_pool];
    assert!(by.iter().all(|count| *count > 100), "{met:?}");
    println!("{seeds} clusters: {met:?}");
}
