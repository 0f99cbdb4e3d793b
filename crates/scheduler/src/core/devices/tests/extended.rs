//! Extended resources that device classes stand for.

use super::*;
use crate::core::Profile;
use crate::core::profile::{Rule, Strategy};
use rstest::rstest;

/// `gpu` stands for `example.com/gpu`.
fn named(cluster: &mut Cluster, class: &str, made: i64, resource: Option<&str>) {
    let made = format!("2026-01-01T00:00:{made:02}Z");
    let class = json!({"metadata": {"name": class, "creationTimestamp": made},
        "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.io'"}}], "extendedResourceName": resource}});
    cluster.change_devices(|devices, symbols| devices.set_class(&decode(&class), symbols));
}

fn asking(name: &str, requests: &Value) -> object::Pod {
    decode(&json!({
        "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": requests}}]},
    }))
}

#[test]
fn what_a_node_lacks_is_served_by_devices() {
    let mut cluster = cluster();
    let one = json!({"example.com/gpu": "1"});
    let refused = decide(&mut cluster, &asking("p0", &one)).unwrap_err();
    assert!(
        refused.starts_with("3 Insufficient example.com/gpu."),
        "{refused}"
    );
    named(&mut cluster, "gpu", 0, Some("example.com/gpu"));
    for at in 0..4 {
        let name = format!("p{at}");
        let node = decide(&mut cluster, &asking(&name, &one)).expect("a device");
        let grant = &cluster
            .devices
            .grants(&format!("uid-{name}"))
            .expect("grants")[0];
        assert_eq!((grant.namespace.as_str(), grant.name.as_str()), ("n", ""));
        let made = grant.made.as_ref().expect("a claim to make");
        let told = json!([{"name": "container-0-request-0", "exactly": {"deviceClassName": "gpu",
            "allocationMode": "ExactCount", "count": 1}}]);
        assert_eq!(json!(made.requests), told);
        let mappings = json!([{"containerName": "c", "resourceName": "example.com/gpu",
            "requestName": "container-0-request-0"}]);
        assert_eq!(json!(made.mappings), mappings);
        let device = &given(&cluster, &format!("uid-{name}"))[0];
        assert!(
            device.starts_with(&format!("container-0-request-0={node}/gpu-")),
            "{device}"
        );
    }
    let refused = decide(&mut cluster, &asking("p4", &one)).unwrap_err();
    assert!(
        refused.starts_with("3 cannot allocate all claims."),
        "{refused}"
    );
    // A pod that is not to be bound gives its device to the next.
    cluster.uncommit("uid-p1");
    decide(&mut cluster, &asking("p4", &one)).expect("its device");
}

#[test]
fn what_a_node_has_itself_comes_first() {
    let mut cluster = cluster();
    named(&mut cluster, "gpu", 0, Some("example.com/gpu"));
    cluster.upsert_node(&decode(&json!({"metadata": {"name": "a", "labels": {"kubernetes.io/hostname": "a", "zone": "near"}},
        "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110", "example.com/gpu": "1"}}})));
    let one = json!({"example.com/gpu": "1"});
    assert_eq!(
        decide(&mut cluster, &asking("p0", &one)),
        Ok("a".to_owned())
    );
    assert_eq!(cluster.devices.grants("uid-p0"), Some(&[][..]), "no claim");
    // Its own are used up, and its devices are for others.
    assert_eq!(
        decide(&mut cluster, &asking("p1", &one)),
        Ok("b".to_owned())
    );
    let two = json!({"example.com/gpu": "2"});
    let refused = decide(&mut cluster, &asking("p2", &two)).unwrap_err();
    assert!(
        refused.starts_with("1 Insufficient example.com/gpu, 2 cannot allocate all claims."),
        "{refused}"
    );
}

#[test]
fn a_class_stands_for_what_it_names_and_for_its_own_name() {
    let mut cluster = cluster();
    let implicit = json!({"deviceclass.resource.kubernetes.io/gpu": "2"});
    assert_eq!(
        decide(&mut cluster, &asking("p0", &implicit)),
        Ok("a".to_owned())
    );
    assert_eq!(given(&cluster, "uid-p0").len(), 2);
    // Of two classes the younger, of the same age the first by name.
    let class_of = |cluster: &Cluster, pod: &str| {
        let grants = cluster.devices.grants(pod).unwrap_or_default();
        let made = grants[0].made.as_ref().expect("a claim to make");
        let exactly = made.requests[0].exactly.as_ref().expect("exactly");
        exactly.device_class_name.clone()
    };
    let one = json!({"example.com/gpu": "1"});
    named(&mut cluster, "old", 1, Some("example.com/gpu"));
    named(&mut cluster, "y", 2, Some("example.com/gpu"));
    named(&mut cluster, "x", 2, Some("example.com/gpu"));
    decide(&mut cluster, &asking("p1", &one)).expect("a device");
    assert_eq!(class_of(&cluster, "uid-p1"), "x");
    cluster.change_devices(|devices, symbols| devices.remove_class("x", symbols));
    decide(&mut cluster, &asking("p2", &one)).expect("a device");
    assert_eq!(class_of(&cluster, "uid-p2"), "y");
    for name in ["y", "old"] {
        cluster.change_devices(|devices, symbols| devices.remove_class(name, symbols));
    }
    let refused = decide(&mut cluster, &asking("p3", &one)).unwrap_err();
    assert!(
        refused.starts_with("3 Insufficient example.com/gpu."),
        "{refused}"
    );
}

#[test]
fn what_was_made_holds_the_devices_until_it_is_gone() {
    let mut cluster = cluster();
    named(&mut cluster, "gpu", 0, Some("example.com/gpu"));
    let two = json!({"example.com/gpu": "2"});
    for name in ["p0", "p1"] {
        decide(&mut cluster, &asking(name, &two)).expect("devices");
    }
    let grants = cluster.devices.send("uid-p0");
    let claim = |allocation: Value| {
        json!({"metadata": {"name": "p0-extended-resources-x", "namespace": "n", "uid": "made",
            "annotations": {ANNOTATION: "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p0", "uid": "uid-p0", "controller": true}]},
            "spec": {"devices": {"requests": grants[0].made.as_ref().expect("made").requests}},
            "status": {"allocation": allocation}})
    };
    let waits = |cluster: &mut Cluster| decide(cluster, &asking("p2", &two)).is_err();
    set(&mut cluster, &claim(Value::Null));
    assert!(waits(&mut cluster), "being given");
    set(&mut cluster, &claim(json!(grants[0].allocation)));
    assert!(waits(&mut cluster), "given");
    assert_eq!(
        cluster.devices.special_of("uid-p0").expect("it").uid,
        "made"
    );
    cluster.change_devices(|devices, symbols| {
        devices.remove_claim("n", "p0-extended-resources-x", symbols)
    });
    assert_eq!(cluster.devices.special_of("uid-p0"), None);
    assert!(!waits(&mut cluster), "given back");
    // What could not be written is free again.
    let grants = cluster.devices.send("uid-p2");
    cluster.change_devices(|devices, symbols| devices.unwritten("uid-p2", &grants, symbols));
    decide(&mut cluster, &asking("p3", &two)).expect("devices");
}

#[test]
fn nodes_that_were_ranked_before_a_class_came_are_ranked_anew() {
    let mut cluster = Cluster::new();
    for at in 0..40 {
        let name = format!("n{at}");
        cluster.upsert_node(&decode(&json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}})));
        let device = [json!({"name": "d"})];
        if at % 10 == 3 {
            offer(
                &mut cluster,
                &slice(&name, json!({"nodeName": name}), &device),
            );
        }
    }
    let one = json!({"example.com/gpu": "1"});
    decide(&mut cluster, &asking("p", &one)).expect_err("nobody has any");
    named(&mut cluster, "gpu", 0, Some("example.com/gpu"));
    let mut nodes: Vec<String> = (0..4)
        .map(|at| decide(&mut cluster, &asking(&format!("p{at}"), &one)).expect("a device"))
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["n13", "n23", "n3", "n33"]);
    named(&mut cluster, "gpu", 0, None);
    let refused = decide(&mut cluster, &asking("p5", &one)).unwrap_err();
    assert!(
        refused.starts_with("40 Insufficient example.com/gpu."),
        "{refused}"
    );
}

/// Nodes with so many devices each, under a profile that scores `example.com/gpu` alone.
fn scored(strategy: Strategy, counts: &[(&str, usize)]) -> Cluster {
    let mut profile = Profile {
        strategy,
        resources: vec![("example.com/gpu".to_owned(), 1)],
        ..Profile::default()
    };
    profile.weights.set(Rule::Balance, 0);
    let mut cluster = Cluster::with_profiles(vec![profile]);
    for (name, count) in counts {
        cluster.upsert_node(&decode(&json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}}})));
        let device = |at: usize| json!({"name": format!("gpu-{at}")});
        let devices: Vec<Value> = (0..*count).map(device).collect();
        offer(
            &mut cluster,
            &slice(name, json!({"nodeName": name}), &devices),
        );
    }
    named(&mut cluster, "gpu", 0, Some("example.com/gpu"));
    cluster
}

fn scores(cluster: &mut Cluster, count: &str) -> Vec<(String, i64)> {
    let class = cluster.classify(&asking("next", &json!({"example.com/gpu": count})));
    let explained = cluster.explain(class);
    let mut rows: Vec<(String, i64)> = explained
        .feasible
        .iter()
        .map(|row| {
            let name = cluster.node_name(row.node).to_owned();
            (name, row.by_rule[Rule::Fit as usize])
        })
        .collect();
    rows.sort();
    rows
}

#[rstest]
#[case::least(Strategy::LeastAllocated, [("a", 75), ("b", 50)], "a", [("a", 50), ("b", 50)])]
#[case::most(Strategy::MostAllocated, [("a", 25), ("b", 50)], "b", [("a", 25), ("b", 100)])]
#[case::by_a_line(Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]),
    [("a", 25), ("b", 50)], "b", [("a", 25), ("b", 100)])]
fn devices_that_serve_a_resource_are_scored_as_the_resource_is(
    #[case] strategy: Strategy,
    #[case] before: [(&str, i64); 2],
    #[case] taken: &str,
    #[case] after: [(&str, i64); 2],
) {
    let mut cluster = scored(strategy, &[("a", 4), ("b", 2)]);
    let own = |all: [(&str, i64); 2]| all.map(|(name, score)| (name.to_owned(), score));
    assert_eq!(scores(&mut cluster, "1"), own(before));
    let one = json!({"example.com/gpu": "1"});
    let node = decide(&mut cluster, &asking("p0", &one)).expect("a device");
    assert_eq!(node, taken);
    assert_eq!(scores(&mut cluster, "1"), own(after));
    // What is given back counts no more, and what the node has itself comes first.
    cluster.uncommit("uid-p0");
    assert_eq!(scores(&mut cluster, "1"), own(before));
    cluster.upsert_node(&decode(&json!({"metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110", "example.com/gpu": "2"}}})));
    let itself = scores(&mut cluster, "1");
    assert_eq!(itself[0], ("a".to_owned(), 50));
    // Without the class, nobody serves it.
    named(&mut cluster, "gpu", 1, None);
    assert_eq!(scores(&mut cluster, "1"), [("a".to_owned(), 50)]);
}

#[test]
fn many_resources_are_served_up_to_the_devices_of_a_claim() {
    let mut cluster = Cluster::new();
    cluster.upsert_node(&decode(&json!({"metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"}}})));
    let device = |at: usize| json!({"name": format!("gpu-{at}")});
    let devices: Vec<Value> = (0..40).map(device).collect();
    offer(
        &mut cluster,
        &slice("a", json!({"nodeName": "a"}), &devices),
    );
    let resource = |at: usize| format!("example.com/gpu-{at:02}");
    for at in 0..40 {
        named(&mut cluster, &format!("class-{at}"), 0, Some(&resource(at)));
    }
    let ask = |count: usize| -> Value {
        let all = (0..count).map(|at| (resource(at), json!("1")));
        Value::Object(all.collect())
    };
    decide(&mut cluster, &asking("p0", &ask(32))).expect("32 devices");
    let grant = &cluster.devices.grants("uid-p0").expect("grants")[0];
    assert_eq!(grant.made.as_ref().expect("made").requests.len(), 32);
    cluster.uncommit("uid-p0");
    let refused = decide(&mut cluster, &asking("p1", &ask(33))).unwrap_err();
    assert!(
        refused.contains("number of requested devices 33 exceeds the claim limit of 32"),
        "{refused}"
    );
}
