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

fn decode<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A claim to a volume, of a class that waits for its first consumer and makes volumes, of one that does not wait, or of
/// one that makes none.
fn claim(cluster: &mut Cluster, class: &str, leaves: bool) {
    for (name, mode, provisioner) in [
        ("late", "WaitForFirstConsumer", "disks.io"),
        ("now", "Immediate", "disks.io"),
        (
            "static",
            "WaitForFirstConsumer",
            "kubernetes.io/no-provisioner",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        cluster.change_volumes(|v, symbols| v.set_class(&decode(class), symbols));
    }
    let mut claim = json!({"metadata": {"name": "data", "namespace": "d", "uid": "u"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    if leaves {
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    cluster.upsert_claim(&decode(claim));
}

fn volume(cluster: &mut Cluster) {
    cluster.upsert_volume(&decode(json!({"metadata": {"name": "v"}, "spec": {"storageClassName": "static",
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}, "status": {"phase": "Available"}})));
}

/// A claim to so many devices of a class; a node has one, of class `gpu`.
fn devices(cluster: &mut Cluster, class: &str, count: i64) {
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "gpu.io", "nodeName": "n1",
        "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "gpu-0"}]}});
    cluster.change_devices(|d, symbols| d.set_slice(&decode(slice), symbols));
    device_class(cluster, "gpu");
    let claim = json!({"metadata": {"name": "gpus", "namespace": "d", "uid": "g"}, "spec": {"devices": {"requests": [
        {"name": "r", "exactly": {"deviceClassName": class, "allocationMode": "ExactCount", "count": count}}]}}});
    cluster.change_devices(|d, symbols| d.set_claim(&decode(claim), symbols));
}

fn device_class(cluster: &mut Cluster, name: &str) {
    let class = json!({"metadata": {"name": name}, "spec": {}});
    cluster.change_devices(|d, symbols| d.set_class(&decode(class), symbols));
}

/// What is the matter with what a pod claims, what is told to do about it, and who does it.
#[rstest]
#[case::no_claim(|_: &mut Cluster| {}, "create PersistentVolumeClaim d/data", |c: &mut Cluster| claim(c, "late", false))]
#[case::unbound(|c: &mut Cluster| claim(c, "now", false), "have its claims bound", |c: &mut Cluster| claim(c, "late", false))]
#[case::leaving(|c: &mut Cluster| claim(c, "late", true), "create PersistentVolumeClaim d/data anew", |c: &mut Cluster| claim(c, "late", false))]
#[case::no_volume(|c: &mut Cluster| claim(c, "static", false), "make a volume for the claim there", volume)]
#[case::no_device_claim(|_: &mut Cluster| {}, "create ResourceClaim d/gpus", |c: &mut Cluster| devices(c, "gpu", 1))]
#[case::no_device_class(|c: &mut Cluster| devices(c, "fpga", 1), "create DeviceClass fpga", |c: &mut Cluster| device_class(c, "fpga"))]
#[case::too_few_devices(|c: &mut Cluster| devices(c, "gpu", 2), "free devices there that the claim asks for", |c: &mut Cluster| devices(c, "gpu", 1))]
fn who_does_what_is_told_about_claims_fits(
    #[case] matter: fn(&mut Cluster),
    #[case] told: &str,
    #[case] follow: fn(&mut Cluster),
) {
    let mut cluster = cluster(&[("n1", "4", "8Gi", json!({}))]);
    matter(&mut cluster);
    let spec = if told.contains("olume") || told.contains("its claims") {
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]})
    } else {
        json!({"resourceClaims": [{"name": "g", "resourceClaimName": "gpus"}]})
    };
    let requests = json!({"cpu": "1"});
    let first = changes(&mut cluster, &requests, &spec).remove(0);
    assert!(first.0.starts_with(told) && first.1 == 1, "{first:?}");
    // What is missing beside is told with it.
    let also = changes(&mut cluster, &json!({"cpu": "5"}), &spec)
        .remove(0)
        .0;
    let rest = "; and request 1 less cpu (4 instead of 5), or free as much";
    assert!(also.contains(told) && also.contains(&rest[6..]), "{also}");
    follow(&mut cluster);
    let class = cluster.classify(&pod(&requests, &spec));
    assert!(
        cluster.choose(class).is_some(),
        "{:?}",
        cluster.explain(class)
    );
}

/// Claims to volumes (`v`) and to devices (`d`) that are missing, but for the named: each is told.
#[rstest]
#[case::volumes(&["v/a", "v/b"], "create PersistentVolumeClaim d/a; and create PersistentVolumeClaim d/b")]
#[case::devices(&["d/a", "d/b", "d/gpus"], "create ResourceClaim d/a; and create ResourceClaim d/b")]
#[case::both(&["d/a", "v/data", "v/b"], "create PersistentVolumeClaim d/b; and create ResourceClaim d/a")]
fn every_claim_is_told_that_is_not_as_it_should_be(#[case] claims: &[&str], #[case] want: &str) {
    let mut cluster = cluster(&[("n1", "4", "8Gi", json!({}))]);
    claim(&mut cluster, "late", false);
    devices(&mut cluster, "gpu", 1);
    let of = |kind: &str| {
        claims
            .iter()
            .filter_map(|c| c.strip_prefix(kind))
            .collect::<Vec<_>>()
    };
    let volumes: Vec<Value> = of("v/")
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let resources: Vec<Value> = of("d/")
        .iter()
        .map(|name| json!({"name": name, "resourceClaimName": name}))
        .collect();
    let spec = json!({"volumes": volumes, "resourceClaims": resources});
    let told = changes(&mut cluster, &json!({"cpu": "1"}), &spec)
        .remove(0)
        .0;
    assert_eq!(told, want);
}
