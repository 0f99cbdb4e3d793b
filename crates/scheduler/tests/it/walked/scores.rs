//! `scoring/priorities_test.go`: with one scoring plugin alone, as there.

use super::*;
use gantry_scheduler::config::read;
use rstest::rstest;
use std::collections::BTreeMap;

/// A cluster whose profiles are those of a configuration.
fn configured(profiles: &Value, objects: &[Value]) -> Cluster {
    let file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": profiles});
    let read = read(&file).expect("a configuration");
    let mut cluster = Cluster::with_profiles(read.profiles);
    for object in objects {
        apply(&mut cluster, object);
    }
    cluster
}

fn scoring_by(plugin: &str, objects: &[Value]) -> Cluster {
    let score = json!({"enabled": [{"name": plugin, "weight": 1}], "disabled": [{"name": "*"}]});
    configured(&json!([{"plugins": {"score": score}}]), objects)
}

#[test]
fn node_resources() {
    let resources = json!([{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}, {"name": "example.com/gpu", "weight": 2}]);
    let packing = json!({"schedulerName": "gpu-binpacking-scheduler", "pluginConfig": [
        {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated", "resources": resources}}}]});
    let of = |name: &str| sized(node(name, ""), "cpu=8 memory=16G example.com/gpu=4");
    let nodes = [of("testnode-0"), of("testnode-1")];
    let mut cluster = configured(
        &json!([{"schedulerName": "default-scheduler"}, packing]),
        &nodes,
    );
    let mut run = |pod: Value| {
        let node = decide(&mut cluster, &pod).expect("a node");
        apply(
            &mut cluster,
            &with(pod, &json!({"spec": {"nodeName": node}})),
        );
        node
    };
    let cpu = "cpu=2 memory=4G example.com/gpu=1";
    let first = run(sized(pod("cpubound1", ""), cpu));
    let gpu = run(sized(
        pod("gpubound1", ""),
        "cpu=1 memory=2G example.com/gpu=2",
    ));
    assert_ne!(first, gpu);
    let packed = with(
        sized(pod("cpubound2", ""), cpu),
        &json!({"spec": {"schedulerName": "gpu-binpacking-scheduler"}}),
    );
    assert_eq!(run(packed), gpu);
}

fn plain(name: &str, count: usize, labels: &str) -> Vec<Value> {
    (0..count)
        .map(|at| node(&format!("{name}-{at}"), labels))
        .collect()
}

#[test]
fn node_affinity() {
    let labelled = node("testnode-4", "kubernetes.io/node-topologyKey=topologyvalue");
    let mut cluster = scoring_by(
        "NodeAffinity",
        &[plain("testnode", 4, ""), vec![labelled]].concat(),
    );
    let preference = selecting(&expressions(
        "kubernetes.io/node-topologyKey In topologyvalue",
    ));
    let pod = with(
        pod("p", ""),
        &json!({"spec": {"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 20, "preference": preference}]}}}}),
    );
    assert_eq!(decide(&mut cluster, &pod).as_deref(), Some("testnode-4"));
}

#[rstest]
#[case::of_its_namespace("default", json!({}))]
#[case::of_any_namespace("ns2", json!({"namespaceSelector": {}}))]
fn pod_affinity(#[case] namespace: &str, #[case] more: Value) {
    let mut objects = plain("in-topology", 5, "node-topologykey=topologyvalue");
    for name in ["default", "ns2"] {
        objects.push(
            json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"team": "team1"}}}),
        );
    }
    objects.push(on("in-topology-3", "attractor", "service=S1"));
    objects.extend(plain("other-node", 5, ""));
    let mut cluster = scoring_by("InterPodAffinity", &objects);
    let term = with(
        json!({"topologyKey": "node-topologykey", "labelSelector": selecting(&expressions("service In S1,S3"))}),
        &more,
    );
    let pod = with(
        pod("pod1", ""),
        &json!({"metadata": {"namespace": namespace}, "spec": {"affinity": {"podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm": term}]}}}}),
    );
    let node = decide(&mut cluster, &pod).expect("a node");
    assert!(node.starts_with("in-topology"), "{node}");
}

#[test]
fn image_locality() {
    let large = json!({"status": {"images": [{"names": ["fake-large-image:v1"], "sizeBytes": 3_145_728_000_u64}]}});
    let mut objects = vec![with(node("testnode-large-image", ""), &large)];
    objects.extend(plain("testnode", 10, ""));
    let mut cluster = scoring_by("ImageLocality", &objects);
    let mut pod = pod("p", "");
    pod["spec"]["containers"][0]["image"] = "fake-large-image:v1".into();
    assert_eq!(
        decide(&mut cluster, &pod).as_deref(),
        Some("testnode-large-image")
    );
}

fn default_nodes() -> Vec<Value> {
    let node = |at: usize| {
        node(
            &format!("node-{at}"),
            &format!("node=node-{at} zone=zone-{}", at / 2),
        )
    };
    let mut nodes: Vec<Value> = (0..4).map(node).collect();
    nodes[0] = tainted(nodes[0].clone(), "k1", "NoSchedule");
    nodes
}

/// Of which all but node-4 have the label foo, and node-2 is not liked.
fn included() -> Vec<Value> {
    let node = |at: usize| {
        let label = if at == 4 { "" } else { " foo" };
        node(
            &format!("node-{at}"),
            &format!("node=node-{at} zone=zone-{}{label}", at.div_ceil(2)),
        )
    };
    let mut nodes: Vec<Value> = (1..=4).map(node).collect();
    nodes[1] = tainted(
        nodes[1].clone(),
        "node.kubernetes.io/unschedulable",
        "PreferNoSchedule",
    );
    nodes
}

fn soft(more: &Value) -> Value {
    with(json!({"whenUnsatisfiable": "ScheduleAnyway"}), more)
}

fn of_foo(constraints: &[(&str, Value)]) -> Value {
    let pod = spread(pod("p", "foo"), constraints);
    with(pod, &json!({"spec": {"nodeSelector": {"foo": ""}}}))
}

/// `TestPodTopologySpreadScoring`.
#[rstest]
#[case::node_1_is_preferred(default_nodes(), &[1, 2, 2, 3, 3, 3], spread(pod("p", "foo"), &[("foo 1 node", soft(&json!({})))]), "node-1")]
#[case::with_a_hard_one(default_nodes(), &[0, 0, 0, 0, 2, 3, 3],
    spread(pod("p", "foo"), &[("foo 1 node", soft(&json!({}))), ("foo 1 zone", json!({}))]), "node-2")]
#[case::two_soft(included(), &[1, 2, 2, 4],
    of_foo(&[("foo 1 zone", soft(&json!({}))), ("foo 1 node", soft(&json!({})))]), "node-3")]
#[case::two_soft_otherwise(included(), &[1, 2, 2, 4],
    of_foo(&[("foo 1 zone", soft(&json!({"nodeAffinityPolicy": "Ignore"}))), ("foo 1 node", soft(&json!({"nodeTaintsPolicy": "Honor"})))]), "node-3")]
fn topology_spread(
    #[case] nodes: Vec<Value>,
    #[case] pods: &[usize],
    #[case] pod: Value,
    #[case] want: &str,
) {
    let there = pods.iter().enumerate();
    let there = there.map(|(i, at)| on(&format!("node-{at}"), &format!("old-{i}"), "foo"));
    let objects: Vec<Value> = nodes.into_iter().chain(there).collect();
    let mut cluster = scoring_by("PodTopologySpread", &objects);
    assert_eq!(decide(&mut cluster, &pod).as_deref(), Some(want));
}

/// `TestDefaultPodTopologySpreadScoring`: pods of a Service are spread evenly over three zones of a hundred nodes each.
#[test]
fn default_spread() {
    let node = |at: usize| {
        node(
            &format!("node-{at}"),
            &format!(
                "kubernetes.io/hostname=node-{at} topology.kubernetes.io/zone=zone-{}",
                at % 3
            ),
        )
    };
    let nodes: Vec<Value> = (0..300).map(node).collect();
    let mut cluster = scoring_by("PodTopologySpread", &nodes);
    let selector = BTreeMap::from([("service".to_owned(), "test-service".to_owned())]);
    cluster.set_service("default", "test-service", Some(&selector));
    let mut zones = [0; 3];
    for at in 0..27 {
        let pod = pod(&format!("p-{at}"), "service=test-service");
        let node = decide(&mut cluster, &pod).expect("a node");
        apply(
            &mut cluster,
            &with(pod, &json!({"spec": {"nodeName": node}})),
        );
        let number: usize = node.trim_start_matches("node-").parse().expect("a number");
        zones[number % 3] += 1;
        if [2, 11, 26].contains(&at) {
            assert!(zones.iter().all(|count| *count == zones[0]), "{zones:?}");
        }
    }
}
