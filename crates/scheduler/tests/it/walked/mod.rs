//! What Kubernetes' `test/integration/scheduler` sets up, and what must be seen of it then, done to the core: the objects
//! come as the API would send them. A table for each of its files; cases are named after theirs. What is left out, and
//! why, is in `docs/conformance.md`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

mod filters;
mod preemption;
mod requeue;
mod scores;

use crate::support::{decode_pod, merge};
use gantry_scheduler::core::{ClassId, Cluster};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn map(pairs: &str) -> Value {
    let pairs = pairs.split_whitespace().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), Value::from(value))
    });
    pairs.collect()
}

/// A node with labels (`key=value …`), and with room for 32 pods that ask for nothing.
fn node(name: &str, labels: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name, "labels": map(labels)}, "spec": {},
        "status": {"allocatable": {"pods": "32"}}})
}

/// A pod with labels.
fn pod(name: &str, labels: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": map(labels)},
        "spec": {"containers": [{"name": "c", "image": "pause"}]}})
}

/// A pod on a node.
fn on(node: &str, name: &str, labels: &str) -> Value {
    with(pod(name, labels), &json!({"spec": {"nodeName": node}}))
}

fn with(mut object: Value, over: &Value) -> Value {
    merge(&mut object, over);
    object
}

/// The object with requests of its container, or with so much of it allocatable.
fn sized(mut object: Value, amounts: &str) -> Value {
    if object["kind"] == "Node" {
        merge(&mut object["status"]["allocatable"], &map(amounts));
    } else {
        object["spec"]["containers"][0]["resources"] = json!({"requests": map(amounts)});
    }
    object
}

fn tainted(node: Value, key: &str, effect: &str) -> Value {
    with(
        node,
        &json!({"spec": {"taints": [{"key": key, "effect": effect}]}}),
    )
}

fn tolerating(pod: Value, key: &str) -> Value {
    with(
        pod,
        &json!({"spec": {"tolerations": [{"key": key, "operator": "Exists"}]}}),
    )
}

fn selecting(expressions: &[Value]) -> Value {
    json!({"matchExpressions": expressions})
}

/// `key operator values`, the values with commas.
fn expression(text: &str) -> Value {
    let parts: Vec<&str> = text.split(' ').collect();
    let mut expression = json!({"key": parts[0], "operator": parts[1]});
    if let Some(values) = parts.get(2) {
        expression["values"] = values.split(',').collect();
    }
    expression
}

fn expressions(text: &str) -> Vec<Value> {
    text.split(" & ").map(expression).collect()
}

/// Required pod affinity and anti-affinity: terms as `expression & expression @ topology key`.
fn near(pod: Value, affinity: &[&str], anti: &[&str]) -> Value {
    let terms = |texts: &[&str]| {
        let term = |text: &&str| {
            let (what, key) = text.split_once(" @ ").expect("a topology key");
            json!({"topologyKey": key, "labelSelector": selecting(&expressions(what))})
        };
        let terms: Vec<Value> = texts.iter().map(term).collect();
        json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
    };
    let mut over = json!({"spec": {"affinity": {}}});
    if !affinity.is_empty() {
        over["spec"]["affinity"]["podAffinity"] = terms(affinity);
    }
    if !anti.is_empty() {
        over["spec"]["affinity"]["podAntiAffinity"] = terms(anti);
    }
    with(pod, &over)
}

/// Required node affinity.
fn at(pod: Value, expressions_text: &str) -> Value {
    let term = selecting(&expressions(expressions_text));
    with(
        pod,
        &json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}}),
    )
}

/// Spread constraints over pods that have a label: `label skew key`, with more fields.
fn spread(mut pod: Value, constraints: &[(&str, Value)]) -> Value {
    let constraint = |(text, more): &(&str, Value)| {
        let parts: Vec<&str> = text.split(' ').collect();
        let skew: i32 = parts[1].parse().expect("a number");
        let base = json!({"maxSkew": skew, "topologyKey": parts[2], "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": selecting(&[expression(&format!("{} Exists", parts[0]))])});
        with(base, more)
    };
    pod["spec"]["topologySpreadConstraints"] = constraints.iter().map(constraint).collect();
    pod
}

fn preferring(pod: Value, priority: i32) -> Value {
    with(pod, &json!({"spec": {"priority": priority}}))
}

fn claiming(pod: Value, claims: &str) -> Value {
    let volumes = claims
        .split(' ')
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let volumes: Vec<Value> = volumes.collect();
    with(pod, &json!({"spec": {"volumes": volumes}}))
}

/// A volume that is reached by any node.
fn volume(name: &str, over: &Value) -> Value {
    let volume = json!({"kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteMany"], "hostPath": {"path": "/tmp"}},
        "status": {"phase": "Available"}});
    with(volume, over)
}

/// A claim; bound, if a volume is named.
fn claim(name: &str, volume: Option<&str>, over: &Value) -> Value {
    let mut claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": ""},
        "status": {"phase": "Pending"}});
    if let Some(volume) = volume {
        claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "true"});
        claim["spec"]["volumeName"] = volume.into();
        claim["status"]["phase"] = "Bound".into();
    }
    with(claim, over)
}

fn decode<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).expect("an object")
}

/// An object came or changed.
fn apply(cluster: &mut Cluster, object: &Value) {
    match object["kind"].as_str().expect("a kind") {
        "Node" => {
            cluster.upsert_node(&decode(object));
        }
        "Pod" => {
            let pod = decode_pod(object);
            let node = pod.node().expect("a node").to_owned();
            cluster.observe(&pod, &node);
        }
        "Namespace" => {
            let labels = decode(&object["metadata"]["labels"]);
            let name = object["metadata"]["name"].as_str().expect("a name");
            cluster.set_namespace(name, Some(&labels));
        }
        "PersistentVolume" => cluster.upsert_volume(&decode(object)),
        "PersistentVolumeClaim" => cluster.upsert_claim(&decode(object)),
        "StorageClass" => cluster.change_volumes(|v, s| v.set_class(&decode(object), s)),
        "CSINode" => cluster.change_volumes(|v, s| v.set_limits(&decode(object), s)),
        "CSIDriver" => {
            let name = object["metadata"]["name"].as_str().expect("a name");
            cluster.change_volumes(|v, s| v.set_driver(name, Some(&decode(object)), s));
        }
        "CSIStorageCapacity" => {
            let name = object["metadata"]["name"].as_str().expect("a name");
            cluster
                .change_volumes(|v, s| v.set_capacity("default", name, Some(&decode(object)), s));
        }
        "VolumeAttachment" => cluster.change_volumes(|v, s| v.set_attachment(&decode(object), s)),
        "DeviceClass" => cluster.change_devices(|d, s| d.set_class(&decode(object), s)),
        other => panic!("no {other} here"),
    }
}

fn cluster(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::new();
    for object in objects {
        apply(&mut cluster, object);
    }
    cluster
}

fn classify(cluster: &mut Cluster, pod: &Value) -> ClassId {
    cluster.classify(&decode_pod(pod))
}

/// All nodes that take a pod, by name.
fn feasible(cluster: &mut Cluster, pod: &Value) -> Vec<String> {
    let class = classify(cluster, pod);
    let feasible = cluster.explain(class).feasible;
    let mut names: Vec<String> = feasible
        .iter()
        .map(|scored| cluster.node_name(scored.node).to_owned())
        .collect();
    names.sort_unstable();
    names
}

/// Where a pod goes.
fn decide(cluster: &mut Cluster, pod: &Value) -> Option<String> {
    let class = classify(cluster, pod);
    let node = cluster.choose(class)?;
    Some(cluster.node_name(node).to_owned())
}
