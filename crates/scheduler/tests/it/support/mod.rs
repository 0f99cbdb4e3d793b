//! Objects for tests, written as the API would send them.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::expect_used,
    reason = "a fixture that cannot be read fails its test"
)]
#![allow(
    clippy::allow_attributes,
    reason = "an expectation would fail in the test file that uses everything"
)]

use gantry_scheduler::core::object::{Node, Pod};
use gantry_scheduler::core::{Cluster, Decision};
use serde_json::{Value, json};
use std::sync::Arc;

/// Merges `over` into `base`, objects by key.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// A node of 4 CPUs and 8 GiB with the usual labels, changed by `over`.
pub fn node(name: &str, zone: &str, over: &Value) -> Value {
    let mut node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "kubernetes.io/os": "linux"}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "110"}},
    });
    merge(&mut node, over);
    node
}

/// A pod that requests 500m CPU and 512 MiB, changed by `over`.
pub fn pod(name: &str, over: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}}]},
    });
    merge(&mut pod, over);
    pod
}

/// Decodes a pod.
pub fn decode_pod(pod: &Value) -> Pod {
    serde_json::from_value(pod.clone()).expect("a pod")
}

/// Adds a node.
pub fn add_node(cluster: &mut Cluster, node: &Value) {
    let node: Node = serde_json::from_value(node.clone()).expect("a node");
    cluster.upsert_node(&node);
}

/// Adds a pod that is bound to a node.
pub fn add_pod(cluster: &mut Cluster, pod: &Value, node: &str) {
    let pod = decode_pod(pod);
    let class = cluster.classify(&pod);
    let uid: Arc<str> = pod.uid().into();
    cluster.place(&uid, class, node);
}

/// Where a pod would go, or the message why not.
pub fn try_place(cluster: &mut Cluster, pod: &Value) -> Result<String, String> {
    let class = cluster.classify(&decode_pod(pod));
    match cluster.decide(class) {
        Decision::Place(node) => Ok(cluster.node_name(node).to_owned()),
        Decision::Unschedulable(diagnosis) => Err(diagnosis.message),
    }
}

/// Decides and places a pod.
pub fn place(cluster: &mut Cluster, pod: &Value) -> Result<String, String> {
    let node = try_place(cluster, pod)?;
    add_pod(cluster, pod, &node);
    Ok(node)
}
