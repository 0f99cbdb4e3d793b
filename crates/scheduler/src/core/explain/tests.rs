//! What is said of a pod that fits nowhere is true: who follows the advice fits, and less would not do.

use super::*;
use crate::core::object::{Node, Pod};
use rstest::rstest;
use serde_json::{Value, json};

fn cluster(nodes: &[(&str, &str, &str, Value)]) -> Cluster {
    let mut cluster = Cluster::new();
    for (name, cpu, memory, spec) in nodes {
        let node = json!({"metadata": {"name": name, "labels": {"disk": "hdd"}}, "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110", "example.com/gpu": "2"}}});
        cluster.upsert_node(&serde_json::from_value::<Node>(node).unwrap());
    }
    cluster
}

fn pod(requests: &Value, spec: &Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": spec});
    pod["spec"]["containers"] = json!([{"name": "c", "resources": {"requests": requests}}]);
    serde_json::from_value(pod).unwrap()
}

/// What would let the pod fit: each change in words, and on how many nodes.
fn changes(cluster: &mut Cluster, requests: &Value, spec: &Value) -> Vec<(String, usize)> {
    let class = cluster.classify(&pod(requests, spec));
    let explanation = cluster.explain(class);
    assert!(explanation.feasible.is_empty());
    let told = explanation.changes.iter().map(|change| {
        let all: Vec<String> = change.obstacles.iter().map(|o| cluster.advice(o)).collect();
        (all.join("; and "), change.nodes)
    });
    told.collect()
}

#[test]
fn the_least_that_would_have_to_change_comes_first() {
    let taint = json!({"taints": [{"key": "only", "value": "db", "effect": "NoSchedule"}]});
    let mut cluster = cluster(&[
        ("n1", "2", "8Gi", json!({})),
        ("n2", "1500m", "8Gi", json!({})),
        ("n3", "4", "8Gi", taint),
        ("n4", "1", "1Gi", json!({"unschedulable": true})),
    ]);
    let wants = json!({"cpu": "2500m", "memory": "2Gi"});
    let told = changes(&mut cluster, &wants, &json!({}));
    // Half a core of two and a half is less than to tolerate what is meant for others; three things at once are most.
    let first = "request 500m less cpu (2 instead of 2500m), or free as much";
    assert_eq!(told[0], (first.to_owned(), 2), "{told:?}");
    assert_eq!(
        told[1],
        ("tolerate the taint only=db:NoSchedule".to_owned(), 1)
    );
    assert!(
        told[2].0.starts_with("uncordon the node; and request"),
        "{told:?}"
    );
    // Who follows the first fits, and a millicore less of it would not do.
    for (cpu, fits) in [("2", true), ("2001m", false)] {
        let class = cluster.classify(&pod(&json!({"cpu": cpu, "memory": "2Gi"}), &json!({})));
        assert_eq!(cluster.choose(class).is_some(), fits, "{cpu}");
    }
    let selects = json!({"nodeSelector": {"disk": "ssd"}});
    let told = changes(&mut cluster, &json!({"cpu": "1"}), &selects);
    assert_eq!(told[0], ("drop nodeSelector disk=ssd".to_owned(), 2));
}

/// What pods ask for, how many more fit on two nodes of 4 CPUs, 8 GiB and 2 GPUs, and what there is too little of.
#[rstest]
#[case::cpu(json!({"cpu": "1", "memory": "1Gi"}), 8, "cpu")]
#[case::memory(json!({"cpu": "100m", "memory": "3Gi"}), 4, "memory")]
#[case::devices(json!({"cpu": "100m", "memory": "1Gi", "example.com/gpu": "1"}), 4, "example.com/gpu")]
#[case::what_is_left_over_counts_for_nothing(json!({"cpu": "3", "memory": "4Gi"}), 2, "cpu")]
#[case::pods(json!({}), 220, "pods")]
fn what_runs_out_first_is_named(#[case] wants: Value, #[case] more: usize, #[case] first: &str) {
    let mut cluster = cluster(&[("n1", "4", "8Gi", json!({})), ("n2", "4", "8Gi", json!({}))]);
    let class = cluster.classify(&pod(&wants, &json!({})));
    let rooms = cluster.nodes.rooms.clone();
    let forecast = cluster.forecast(class, 1000);
    assert_eq!((forecast.more, forecast.bounded), (more, false));
    let binding = forecast.binding.expect("something does");
    assert_eq!(cluster.resource_name(binding), first);
    let why = forecast.ends.expect("it ends").summary;
    let word = if first == "pods" {
        "Too many pods"
    } else {
        first
    };
    assert!(why.contains(word), "{why}");
    assert_eq!(cluster.nodes.rooms, rooms, "nothing was placed");
}
