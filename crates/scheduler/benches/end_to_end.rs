//! Pods created and bound through the API, in process: `cargo bench -p gantry-scheduler --bench end_to_end`.
//!
//! The API server keeps its store in memory, so that what is measured is the path and not the disk. Two lines:
//! pods that are created while the scheduler runs, and a backlog that it finds at start.
//! `GANTRY_BENCH_PODS` sets how many (default 5,000), `GANTRY_BENCH_NODES` on how many nodes (default 1,000).

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends if it cannot run"
)]

use futures::{StreamExt, TryStreamExt};
use gantry_apiserver::{Config, Server};
use gantry_scheduler::Options;
use gantry_store::Store;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashSet;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

const IN_FLIGHT: usize = 64;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

async fn make_nodes(client: &Client, count: usize) {
    let nodes = Api::<Node>::all(client.clone());
    let one = |i: usize| {
        let nodes = nodes.clone();
        async move {
            let name = format!("node-{i:05}");
            let node = json!({"metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 6)}}});
            let node = serde_json::from_value(node).expect("a node");
            nodes
                .create(&PostParams::default(), &node)
                .await
                .expect("node created");
            let ready = Patch::Merge(json!({"spec": {"taints": null}}));
            nodes
                .patch(&name, &PatchParams::default(), &ready)
                .await
                .expect("node ready");
            let size = json!({"cpu": "64", "memory": "256Gi", "pods": "250"});
            let status = Patch::Merge(json!({"status": {"allocatable": size, "capacity": size}}));
            nodes
                .patch_status(&name, &PatchParams::default(), &status)
                .await
                .expect("node sized");
        }
    };
    futures::stream::iter(0..count)
        .map(one)
        .buffer_unordered(IN_FLIGHT)
        .collect::<()>()
        .await;
}

async fn make_pods(client: &Client, prefix: &str, spread: bool, count: usize) {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let one = |i: usize| {
        let pods = pods.clone();
        async move {
            let app = format!("{prefix}-{}", i / 100);
            let mut pod = json!({"metadata": {"name": format!("{prefix}-{i}"), "labels": {"app": app}},
                "spec": {"containers": [{"name": "c", "image": "i",
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]}});
            if spread {
                let selector = json!({"matchLabels": {"app": app}});
                pod["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
                    "topologyKey": "topology.kubernetes.io/zone", "labelSelector": selector}]);
                pod["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]}});
            }
            let pod = serde_json::from_value(pod).expect("a pod");
            pods.create(&PostParams::default(), &pod)
                .await
                .expect("pod created");
        }
    };
    futures::stream::iter(0..count)
        .map(one)
        .buffer_unordered(IN_FLIGHT)
        .collect::<()>()
        .await;
}

/// Waits until this many pods of the prefix are bound.
async fn all_bound(client: Client, prefix: &'static str, count: usize) {
    let pods = Api::<Pod>::default_namespaced(client);
    let stream = watcher(pods, watcher::Config::default()).applied_objects();
    let mut stream = std::pin::pin!(stream);
    let mut bound = HashSet::new();
    while let Some(pod) = stream.try_next().await.expect("watch") {
        let name = pod.metadata.name.unwrap_or_default();
        if name.starts_with(prefix) && pod.spec.is_some_and(|s| s.node_name.is_some()) {
            bound.insert(name);
            if bound.len() == count {
                return;
            }
        }
    }
    panic!("the watch ended");
}

fn report(what: &str, count: usize, nodes: usize, start: Instant) {
    let took = start.elapsed().as_secs_f64();
    println!(
        "{what:<46} {count} pods, {nodes} nodes: {took:.2} s, {:.0} pods/s",
        count as f64 / took
    );
}

#[tokio::main]
async fn main() {
    let (count, nodes) = (
        setting("GANTRY_BENCH_PODS", 5_000),
        setting("GANTRY_BENCH_NODES", 1_000),
    );
    println!(
        "{} cores for API server, scheduler and client",
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
        .await
        .expect("starts");
    let client = server.client();
    make_nodes(&client, nodes).await;

    let stop = CancellationToken::new();
    let run = |stop: &CancellationToken| {
        tokio::spawn(gantry_scheduler::run(
            client.clone(),
            Options::default(),
            stop.clone(),
        ))
    };
    let scheduler = run(&stop);
    for (what, prefix, spread) in [
        ("created and bound", "plain", false),
        ("the same, spread + anti-affinity", "spread", true),
    ] {
        let start = Instant::now();
        let seen = tokio::spawn(all_bound(client.clone(), prefix, count));
        make_pods(&client, prefix, spread, count).await;
        report("    created", count, nodes, start);
        seen.await.expect("all bound");
        report(what, count, nodes, start);
    }
    stop.cancel();
    scheduler.await.expect("no panic").expect("no error");

    make_pods(&client, "backlog", false, count).await;
    let stop = CancellationToken::new();
    let start = Instant::now();
    let scheduler = run(&stop);
    all_bound(client.clone(), "backlog", count).await;
    report("bound from a backlog, start included", count, nodes, start);
    stop.cancel();
    scheduler.await.expect("no panic").expect("no error");
    server.shutdown().await;
}
