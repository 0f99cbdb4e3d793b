//! Decisions a second of the pure core, on one core: `cargo bench -p gantry-scheduler`.
//!
//! Every decision is followed by placing the pod, so the cluster fills as it would. `GANTRY_BENCH_PODS` sets how many
//! pods each line places (default 20,000).

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends if it cannot run"
)]

use gantry_scheduler::core::object::{Node, Pod};
use gantry_scheduler::core::{Cluster, Decision};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long this thread has been on a core: on a machine that others use, too, the clock on the wall tells of them.
fn on_core() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn nodes(count: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for i in 0..count {
        let name = format!("node-{i:05}");
        let (cpu, memory) = [("32", "128Gi"), ("64", "256Gi"), ("96", "192Gi")][i % 3];
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/region": "r",
                "topology.kubernetes.io/zone": format!("zone-{}", i % 6),
                "pool": if i % 4 == 0 { "batch" } else { "online" }}},
            "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "250", "ephemeral-storage": "500Gi"}},
        }))
        .expect("a node");
        cluster.upsert_node(&node);
    }
    cluster
}

fn pod(app: usize, cpu: usize, memory: usize, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": format!("team-{}", app % 20), "labels": {"app": format!("app-{app}")}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}}}]},
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut pod["spec"], more) {
        spec.extend(more);
    }
    pod
}

fn spread(app: usize) -> Value {
    let selector = json!({"matchLabels": {"app": format!("app-{app}")}});
    json!({
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]}},
    })
}

const SIZES: [(usize, usize); 5] = [
    (100, 128),
    (250, 512),
    (500, 1024),
    (1000, 2048),
    (2000, 4096),
];

/// The pods of each line. Apps have 100 replicas each; their pods come interleaved by tens of apps.
fn template(kind: &str, i: usize) -> Value {
    let app = i / 1000 * 10 + i % 10;
    let (cpu, memory) = SIZES[app % 5];
    match kind {
        "plain" => pod(app, cpu, memory, json!({})),
        "identical" => pod(0, 250, 512, json!({})),
        // No two alike, and no node has the room.
        "refused" => pod(i, 500_000 + i, 128, json!({})),
        "different" => pod(i, 100 + i % 1900, 128 + i * 7 % 4000, json!({})),
        "spread + anti-affinity" => pod(app, cpu, memory, spread(app)),
        "mixed" => {
            let selector = json!({"matchLabels": {"app": format!("app-{app}")}});
            match app % 10 {
                0..3 => pod(app, cpu, memory, json!({})),
                3..6 => pod(app, cpu, memory, spread(app)),
                6 => pod(app, cpu, memory, json!({"nodeSelector": {"pool": "batch"}})),
                7 => pod(
                    app,
                    cpu,
                    memory,
                    json!({"topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector},
                    {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}]}),
                ),
                8 => pod(
                    app,
                    cpu,
                    memory,
                    json!({"affinity": {"podAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm":
                        {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": selector}}]}}}),
                ),
                _ => pod(
                    app,
                    cpu,
                    memory,
                    json!({"affinity": {"nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference":
                        {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["online"]}]}}]}}}),
                ),
            }
        }
        other => panic!("no such line: {other}"),
    }
}

fn measure(kind: &str, size: usize, count: usize) {
    let mut cluster = nodes(size);
    let pods: Vec<Pod> = (0..count)
        .map(|i| {
            let mut pod = template(kind, i);
            pod["metadata"]["name"] = json!(format!("pod-{i}"));
            pod["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{i:012}"));
            serde_json::from_value(pod).expect("a pod")
        })
        .collect();
    // What the watch does for every pod, decided or not, is measured apart.
    let start = Instant::now();
    let classes: Vec<_> = pods.iter().map(|pod| cluster.classify(pod)).collect();
    let classified = start.elapsed();
    let uids: Vec<Arc<str>> = pods.iter().map(|pod| pod.uid().into()).collect();
    let (mut placed, mut slowest) = (0, Duration::ZERO);
    let (start, core) = (Instant::now(), on_core());
    for (uid, class) in uids.iter().zip(&classes) {
        let began = Instant::now();
        if let Decision::Place(node) = cluster.decide(*class) {
            cluster.place_at(uid, *class, node);
            placed += 1;
        }
        cluster.events.clear();
        slowest = slowest.max(began.elapsed());
    }
    let (took, core) = (start.elapsed(), on_core().saturating_sub(core));
    let rate = count as f64 / core.as_secs_f64();
    let share = core.as_secs_f64() * 100.0 / took.as_secs_f64();
    let preparation = classified.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{kind:<24} {size:>6} nodes {placed:>7}/{count} placed {rate:>10.0} decisions/s of one core (had {share:.0} % of it)  slowest {:>7.2} ms  decoded to class {preparation:>5.1} µs",
        slowest.as_secs_f64() * 1e3
    );
}

/// The same decided in rounds of 256 by several workers; what they say of themselves beside.
fn together(kind: &str, size: usize, count: usize, workers: usize) {
    let mut cluster = nodes(size);
    let pods: Vec<Pod> = (0..count)
        .map(|i| {
            let mut pod = template(kind, i);
            pod["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{i:012}"));
            serde_json::from_value(pod).expect("a pod")
        })
        .collect();
    let classes: Vec<_> = pods.iter().map(|pod| cluster.classify(pod)).collect();
    let uids: Vec<Arc<str>> = pods.iter().map(|pod| pod.uid().into()).collect();
    let (mut placed, mut conflicts, mut thinking) = (0, 0, Duration::ZERO);
    let (start, core) = (Instant::now(), on_core());
    for (uids, classes) in uids.chunks(256).zip(classes.chunks(256)) {
        let began = Instant::now();
        let mut round = cluster.propose(classes.to_vec(), workers);
        thinking += began.elapsed();
        for (at, uid) in uids.iter().enumerate() {
            if let Decision::Place(node) = cluster.settle(&mut round, at) {
                cluster.place_at(uid, classes[at], node);
                placed += 1;
            }
            cluster.events.clear();
        }
        conflicts += round.conflicts;
        cluster.close(round);
    }
    let (took, core) = (start.elapsed(), on_core().saturating_sub(core));
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    println!(
        "{kind:<24} {size:>6} nodes {placed:>7}/{count} placed by {workers} workers: {:>8.0} decisions/s on the wall, {:>8.0} by the time of the first worker, of which {:.0} % at once; {conflicts} conflicts",
        rate(took),
        rate(core),
        thinking.as_secs_f64() * 100.0 / took.as_secs_f64()
    );
}

/// A full cluster of pods of low priority, and important pods that each make one of them leave.
fn storm(size: usize, count: usize) {
    let mut cluster = nodes(size);
    let sized = |name: String, priority: i32| -> Pod {
        let mut pod = pod(0, 16_000, 4096, json!({"priority": priority}));
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["uid"] = json!(name);
        serde_json::from_value(pod).expect("a pod")
    };
    let low = cluster.classify(&sized("low".to_owned(), 0));
    let mut filled = 0;
    while let Decision::Place(node) = cluster.decide(low) {
        let uid: Arc<str> = format!("low-{filled}").into();
        cluster.place_at(&uid, low, node);
        filled += 1;
    }
    cluster.events.clear();
    let high = cluster.classify(&sized("high".to_owned(), 100));
    let (mut made, mut slowest) = (0, Duration::ZERO);
    let core = on_core();
    for i in 0..count {
        let began = Instant::now();
        assert!(cluster.choose(high).is_none(), "the cluster is full");
        let Some(room) = cluster.preempt(high, |_| false) else {
            break;
        };
        for victim in &room.victims {
            cluster.remove(victim);
        }
        let uid: Arc<str> = format!("high-{i}").into();
        cluster.place_at(&uid, high, room.node);
        cluster.events.clear();
        slowest = slowest.max(began.elapsed());
        made += 1;
    }
    let core = on_core().saturating_sub(core);
    let rate = f64::from(made) / core.as_secs_f64();
    println!(
        "{:<24} {size:>6} nodes {made:>7}/{count} placed {rate:>10.0} preemptions/s of one core  slowest {:>7.2} ms  {filled} pods of low priority",
        "preemption storm",
        slowest.as_secs_f64() * 1e3
    );
}

/// Resident memory of this process, in MB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or_default() / 1024
}

/// What the core holds of a large cluster: pods of 10,000 apps, as a watch would bring them.
fn memory(size: usize, count: usize) {
    let before = resident();
    let mut cluster = nodes(size);
    let with_nodes = resident();
    let start = Instant::now();
    for i in 0..count {
        let app = i % 10_000;
        let (cpu, memory) = SIZES[app % 5];
        // So small that all of them fit.
        let mut pod = pod(app, cpu / 10, memory / 10, json!({}));
        pod["metadata"]["name"] = json!(format!("pod-{i}"));
        pod["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{i:012}"));
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let class = cluster.classify(&pod);
        let Decision::Place(node) = cluster.decide(class) else {
            panic!("pod {i} does not fit");
        };
        cluster.place_at(&pod.uid().into(), class, node);
        cluster.events.clear();
    }
    println!(
        "memory: {size} nodes {} MB, {count} pods {} MB more ({} bytes a pod), decoded and placed at {:.0} pods/s",
        with_nodes - before,
        resident() - with_nodes,
        (resident() - with_nodes) * 1_000_000 / count.max(1),
        count as f64 / start.elapsed().as_secs_f64()
    );
}

fn main() {
    let only = std::env::var("GANTRY_BENCH_ONLY").unwrap_or_default();
    let wanted = |kind: &str| kind.contains(&only);
    let count = std::env::var("GANTRY_BENCH_PODS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000);
    println!(
        "one core of {} (GANTRY_BENCH_ONLY=together: several workers)",
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    for kind in [
        "identical",
        "plain",
        "different",
        "spread + anti-affinity",
        "mixed",
    ]
    .into_iter()
    .filter(|kind| wanted(kind))
    {
        for size in [1_000, 5_000, 10_000, 50_000] {
            measure(kind, size, count);
        }
    }
    if only.contains("together") {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for kind in ["plain", "different", "spread + anti-affinity", "mixed"] {
            for size in [1_000, 10_000, 50_000] {
                for workers in [1, cores.max(2)] {
                    together(kind, size, count, workers);
                }
            }
        }
        for size in [1_000, 10_000] {
            for workers in [1, cores.max(2)] {
                together("refused", size, count.min(1024), workers);
            }
        }
    }
    if wanted("preemption storm") {
        for size in [1_000, 5_000, 10_000, 50_000] {
            storm(size, 2_000);
        }
    }
    if wanted("memory") {
        memory(50_000, 1_000_000);
    }
}
