//! The openb trace (1,523 nodes and 8,152 pods of a GPU cluster, Alibaba cluster-trace-gpu-v2023) replayed until nothing
//! fits: `cargo bench -p gantry-scheduler --bench openb`. `GANTRY_OPENB` names its folder.
//!
//! Pods arrive in the order of the trace and stay; when the trace ends it begins again, until no pod has fitted for as
//! many arrivals as the trace has. A pod asks for CPU, memory and thousandths of GPUs, and for a model where the trace
//! does. A share of one GPU must come from one device, and whole GPUs must be empty, so that a node may be out of
//! question although its sum has room: fragmentation. Devices are given out best fit, alike for all policies. To the core
//! a node offers three extended resources, as a device plugin with some insight would: thousandths in sum, empty devices,
//! and the largest share that a device has left.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends if it cannot run"
)]

use gantry_scheduler::core::object::{Node, Pod};
use gantry_scheduler::core::profile::{Rule, Strategy};
use gantry_scheduler::core::{ClassId, Cluster, NodeId, Profile};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const GPU: &str = "example.com/gpu-milli";
/// Empty devices.
const WHOLE: &str = "example.com/gpu";
/// The largest share that a device has left: offered anew after each pod, beyond what was taken of it.
const LARGEST: &str = "example.com/gpu-largest-share";

struct TraceNode {
    name: String,
    cpu: i64,
    memory: i64,
    gpus: usize,
    model: String,
}

#[derive(Clone)]
struct TracePod {
    cpu: i64,
    memory: i64,
    gpus: usize,
    /// Of each GPU, in thousandths.
    share: i64,
    models: Vec<String>,
}

impl TracePod {
    fn gpu(&self) -> i64 {
        i64::try_from(self.gpus).expect("few") * self.share
    }
}

fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("GANTRY_OPENB").map(PathBuf::from);
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/openb");
    let work = PathBuf::from("/work/shared/data/openb");
    [named, Some(beside.into()), Some(work)]
        .into_iter()
        .flatten()
        .find(|f| f.is_dir())
}

fn rows(folder: &std::path::Path, file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(folder.join(file)).expect("the trace");
    let rows = text.lines().skip(1).filter(|l| !l.is_empty());
    rows.map(|line| line.split(',').map(ToOwned::to_owned).collect())
        .collect()
}

fn number(text: &str) -> i64 {
    if text.is_empty() {
        0
    } else {
        text.parse().expect("a number")
    }
}

fn nodes(folder: &std::path::Path) -> Vec<TraceNode> {
    let rows = rows(folder, "openb_node_list_all_node.csv");
    let node = |row: Vec<String>| TraceNode {
        name: row[0].clone(),
        cpu: number(&row[1]),
        memory: number(&row[2]),
        gpus: usize::try_from(number(&row[3])).expect("few"),
        model: row[4].clone(),
    };
    rows.into_iter().map(node).collect()
}

fn pods(folder: &std::path::Path) -> Vec<TracePod> {
    let rows = rows(folder, "openb_pod_list_default.csv");
    let mut pods: Vec<(i64, TracePod)> = rows
        .into_iter()
        .map(|row| {
            let models = row[5]
                .split('|')
                .filter(|m| !m.is_empty())
                .map(ToOwned::to_owned)
                .collect();
            let pod = TracePod {
                cpu: number(&row[1]),
                memory: number(&row[2]),
                gpus: usize::try_from(number(&row[3])).expect("few"),
                share: number(&row[4]),
                models,
            };
            (number(&row[8]), pod)
        })
        .collect();
    pods.sort_by_key(|(at, _)| *at);
    pods.into_iter().map(|(_, pod)| pod).collect()
}

/// What of each device of a node is free, in thousandths.
type Devices = Vec<i64>;

/// Gives out devices, best fit: a share from the fullest that will do, whole ones from the empty.
fn give(devices: &mut Devices, pod: &TracePod) -> bool {
    let mut fits: Vec<usize> = (0..devices.len())
        .filter(|d| devices[*d] >= pod.share)
        .collect();
    if fits.len() < pod.gpus {
        return false;
    }
    fits.sort_by_key(|d| devices[*d]);
    for device in fits.into_iter().take(pod.gpus) {
        devices[device] -= pod.share;
    }
    true
}

/// How a policy chooses.
enum Policy {
    Core(Box<Profile>),
    /// The first node of the list that takes the pod, or the one with the smallest `waste`.
    Scan(fn(&Cluster, &TracePod, NodeId, &Devices) -> i64),
}

fn pod_object(pod: &TracePod) -> Pod {
    let mut requests =
        json!({"cpu": format!("{}m", pod.cpu), "memory": format!("{}Mi", pod.memory)});
    if pod.gpus > 0 {
        requests[GPU] = json!(pod.gpu().to_string());
        if pod.share == 1000 {
            requests[WHOLE] = json!(pod.gpus.to_string());
        } else {
            requests[LARGEST] = json!(pod.share.to_string());
        }
    }
    let mut object = json!({"metadata": {"name": "p", "namespace": "openb"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
    if !pod.models.is_empty() {
        object["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "model", "operator": "In", "values": pod.models}]}]}}});
    }
    serde_json::from_value(object).expect("a pod")
}

/// The node as the core is to see it, with what was taken of its empty devices and of its shares.
fn node_object(node: &TraceNode, devices: &Devices, (whole, shares): (i64, i64)) -> Node {
    let mut allocatable = json!({"cpu": format!("{}m", node.cpu), "memory": format!("{}Mi", node.memory), "pods": "1000"});
    if node.gpus > 0 {
        let empty = devices.iter().filter(|d| **d == 1000).count();
        let empty = i64::try_from(empty).expect("few");
        let largest = devices.iter().max().copied().unwrap_or_default();
        allocatable[GPU] = json!((node.gpus * 1000).to_string());
        allocatable[WHOLE] = json!((whole + empty).to_string());
        allocatable[LARGEST] = json!((shares + largest).to_string());
    }
    let object = json!({"metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name, "model": node.model}},
        "status": {"allocatable": allocatable}});
    serde_json::from_value(object).expect("a node")
}

/// What pods have taken of a resource on a node.
fn taken(cluster: &Cluster, node: NodeId, resource: &str) -> i64 {
    let symbol = cluster.compiler.symbols.known(resource);
    let all = cluster.nodes.all[node.0 as usize].other.iter();
    all.filter(|(name, ..)| Some(*name) == symbol)
        .map(|(_, _, used)| *used)
        .sum()
}

#[derive(Default)]
struct Used {
    cpu: i64,
    gpu: i64,
}

fn share(part: i64, whole: i64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn replay(name: &str, nodes: &[TraceNode], pods: &[TracePod], policy: &Policy) {
    let profile = match policy {
        Policy::Core(profile) => (**profile).clone(),
        Policy::Scan(_) => Profile::default(),
    };
    let mut cluster = Cluster::with_profiles(vec![profile]);
    for node in nodes {
        cluster.upsert_node(&node_object(node, &vec![1000; node.gpus], (0, 0)));
    }
    let classes: Vec<ClassId> = pods
        .iter()
        .map(|pod| cluster.classify(&pod_object(pod)))
        .collect();
    let ids: Vec<NodeId> = nodes
        .iter()
        .map(|n| {
            let symbol = cluster.compiler.symbols.known(&n.name).expect("known");
            cluster.nodes.find(symbol).expect("there")
        })
        .collect();
    let at_of = |id: NodeId| {
        ids.iter()
            .position(|other| *other == id)
            .expect("one of them")
    };
    let index: Vec<usize> = {
        let mut index = vec![0; cluster.nodes.slots()];
        for id in &ids {
            index[id.0 as usize] = at_of(*id);
        }
        index
    };
    let mut devices: Vec<Devices> = nodes.iter().map(|n| vec![1000; n.gpus]).collect();
    let mut used = Used::default();
    let (mut placed, mut fragmented, mut since) = (0_usize, 0_usize, 0_usize);
    let mut first: Option<(usize, Used)> = None;
    let start = Instant::now();
    let mut at = 0_usize;
    while since < pods.len() {
        let (pod, class) = (&pods[at % pods.len()], classes[at % pods.len()]);
        at += 1;
        since += 1;
        let chosen = match policy {
            Policy::Core(_) => cluster.choose(class),
            Policy::Scan(waste) => scan(&cluster, pod, class, &ids, &devices, *waste),
        };
        let given = chosen.is_some_and(|node| give(&mut devices[index[node.0 as usize]], pod));
        let Some(node) = chosen.filter(|_| given) else {
            fragmented += usize::from(chosen.is_some());
            if first.is_none() {
                first = Some((
                    placed,
                    Used {
                        cpu: used.cpu,
                        gpu: used.gpu,
                    },
                ));
            }
            continue;
        };
        let uid: Arc<str> = format!("{at}").into();
        cluster.place_at(&uid, class, node);
        let slot = index[node.0 as usize];
        if pod.gpus > 0 {
            let took = (taken(&cluster, node, WHOLE), taken(&cluster, node, LARGEST));
            cluster.upsert_node(&node_object(&nodes[slot], &devices[slot], took));
        }
        cluster.events.clear();
        placed += 1;
        since = 0;
        used.cpu += pod.cpu;
        used.gpu += pod.gpu();
    }
    let took = start.elapsed();
    let all_cpu: i64 = nodes.iter().map(|n| n.cpu).sum();
    let all_gpu: i64 = nodes
        .iter()
        .map(|n| i64::try_from(n.gpus).expect("few") * 1000)
        .sum();
    let rest: i64 = devices.iter().flatten().sum();
    let partial: i64 = devices
        .iter()
        .flatten()
        .filter(|d| **d > 0 && **d < 1000)
        .sum();
    let (first_placed, first) = first.unwrap_or_default();
    println!(
        "{name:<26} first failure after {first_placed:>5} pods: GPU {:>5.1} % CPU {:>5.1} %   end: {placed:>5} pods, GPU {:>5.2} % CPU {:>5.2} %   \
         free GPU {:>4.1} % ({:>4.1} % in pieces), {fragmented} refused by devices   {:.2} s, {:.0} decisions/s",
        share(first.gpu, all_gpu),
        share(first.cpu, all_cpu),
        share(used.gpu, all_gpu),
        share(used.cpu, all_cpu),
        share(rest, all_gpu),
        share(partial, all_gpu),
        took.as_secs_f64(),
        at as f64 / took.as_secs_f64(),
    );
}

fn scan(
    cluster: &Cluster,
    pod: &TracePod,
    class: ClassId,
    ids: &[NodeId],
    devices: &[Devices],
    waste: fn(&Cluster, &TracePod, NodeId, &Devices) -> i64,
) -> Option<NodeId> {
    let mut best: Option<(i64, NodeId)> = None;
    let shape = &cluster.classes[class.0 as usize].request.shape;
    let placement = &cluster.classes[class.0 as usize].request.placement;
    for (at, id) in ids.iter().enumerate() {
        let node = &cluster.nodes.all[id.0 as usize];
        let fits = cluster.nodes.fits(id.0, shape)
            && placement.selects(node.name, &node.labels, &cluster.compiler.symbols)
            && devices[at].iter().filter(|d| **d >= pod.share).count() >= pod.gpus;
        if !fits {
            continue;
        }
        let cost = waste(cluster, pod, *id, &devices[at]);
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, *id));
        }
        // First fit costs nothing anywhere.
        if cost == i64::MIN {
            break;
        }
    }
    best.map(|(_, id)| id)
}

fn first_fit(_: &Cluster, _: &TracePod, _: NodeId, _: &Devices) -> i64 {
    i64::MIN
}

/// What would be left of CPU, memory and GPU, in thousandths of the largest node.
fn left(cluster: &Cluster, pod: &TracePod, id: NodeId, devices: &Devices) -> i64 {
    let room = &cluster.nodes.rooms[id.0 as usize];
    let cpu = room.allocatable.cpu - room.used.cpu - pod.cpu;
    let memory = ((room.allocatable.memory - room.used.memory) >> 20) - pod.memory;
    let gpu = devices.iter().sum::<i64>() - pod.gpu();
    cpu * 1000 / 128_000 + memory * 1000 / 1_048_576 + gpu * 1000 / 8000
}

/// Best fit: the least left.
fn best_fit(cluster: &Cluster, pod: &TracePod, id: NodeId, devices: &Devices) -> i64 {
    left(cluster, pod, id, devices)
}

/// Least allocated: the most left.
fn least_allocated(cluster: &Cluster, pod: &TracePod, id: NodeId, devices: &Devices) -> i64 {
    -left(cluster, pod, id, devices)
}

fn main() {
    let Some(folder) = folder() else {
        println!("skipped: there is no openb trace (GANTRY_OPENB names its folder)");
        return;
    };
    let (nodes, pods) = (nodes(&folder), pods(&folder));
    println!(
        "{} nodes, {} pods, repeated until nothing fits",
        nodes.len(),
        pods.len()
    );
    let gpu = |strategy| {
        let mut profile = Profile {
            strategy,
            resources: vec![
                (GPU.to_owned(), 5),
                ("cpu".to_owned(), 1),
                ("memory".to_owned(), 1),
            ],
            ..Profile::default()
        };
        profile.weights.set(Rule::Balance, 0);
        Box::new(profile)
    };
    let policies = [
        ("first fit (scan)", Policy::Scan(first_fit)),
        ("least allocated (scan)", Policy::Scan(least_allocated)),
        ("best fit (scan)", Policy::Scan(best_fit)),
        ("default profile", Policy::Core(Box::default())),
        (
            "LeastAllocated with GPU",
            Policy::Core(gpu(Strategy::LeastAllocated)),
        ),
        (
            "MostAllocated with GPU",
            Policy::Core(gpu(Strategy::MostAllocated)),
        ),
    ];
    for (name, policy) in &policies {
        replay(name, &nodes, &pods, policy);
    }
}
