use super::*;
use crate::core::object::{Node, Pod};
use crate::core::profile::Rule;
use crate::core::{ClassId, Cluster, Decision};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

/// Nodes g0 and g1 of pool gold (zones a, b; ssd), s0 and s1 of pool silver (zones a, b).
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for (name, pool, zone) in [
        ("g0", "gold", "a"),
        ("g1", "gold", "b"),
        ("s0", "silver", "a"),
        ("s1", "silver", "b"),
    ] {
        let disk = if pool == "gold" { "ssd" } else { "hdd" };
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"pool": pool, "zone": zone, "disk": disk, "host": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}}))
        .unwrap();
        cluster.upsert_node(&node);
    }
    cluster
}

fn pod(name: &str, namespace: &str, labels: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": {"priority": 200_000, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
    }))
    .unwrap()
}

fn policy(name: &str, spec: Value) -> PlacementPolicy {
    serde_json::from_value(
        json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy",
        "metadata": {"name": name}, "spec": spec}),
    )
    .unwrap()
}

/// Places pods one after another; their nodes, or what is said of the first that fits nowhere.
fn places(cluster: &mut Cluster, pods: &[Pod]) -> Result<Vec<String>, String> {
    let mut nodes = Vec::new();
    for pod in pods {
        let class = cluster.classify(pod);
        match cluster.decide(class) {
            Decision::Place(node) => {
                let uid: Arc<str> = pod.uid().into();
                cluster.place_at(&uid, class, node);
                nodes.push(cluster.node_name(node).to_owned());
            }
            Decision::Unschedulable(diagnosis) => return Err(diagnosis.summary),
        }
    }
    Ok(nodes)
}

fn web(count: usize) -> Vec<Pod> {
    let labels = json!({"gantry.dev/app": "web"});
    (0..count)
        .map(|i| pod(&format!("web-{i}"), "shop", labels.clone()))
        .collect()
}

/// What one policy does to four pods of an app; nodes sorted.
#[rstest]
#[case::hardware(json!({"hardware": {"required": {"disk": ["ssd"]}}}), Ok(vec!["g0", "g0", "g1", "g1"]))]
#[case::hardware_liked(
    json!({"hardware": {"preferred": [{"weight": 10, "labels": {"disk": ["hdd", "tape"]}}]}}), Ok(vec!["s0", "s0", "s1", "s1"]))]
#[case::hardware_nowhere(
    json!({"hardware": {"required": {"disk": ["tape"]}}}),
    Err("0/4 nodes are available: 4 node(s) didn't match placement policy p."))]
#[case::pack(json!({"strategy": "Pack", "pools": [{"name": "gold", "nodeSelector": {"host": "g0"}}, {"name": "x", "nodeSelector": {"host": "s1"}}]}),
    Ok(vec!["g0", "g0", "g0", "g0"]))]
#[case::pools_in_order(
    json!({"pools": [{"name": "one", "nodeSelector": {"host": "s1"}}, {"name": "two", "nodeSelector": {"host": "g1"}}],
        "spread": [{"topologyKey": "host", "maxSkew": 2}]}),
    Ok(vec!["g1", "s1", "s1", "s1"]))]
#[case::pools_full(
    json!({"pools": [{"name": "one", "nodeSelector": {"host": "none"}}]}),
    Err("0/4 nodes are available: 4 node(s) didn't match placement policy p."))]
#[case::only_there(json!({"exclusive": {"nodeSelector": {"pool": "silver"}, "scope": "Pods"}}), Ok(vec!["s0", "s0", "s1", "s1"]))]
#[case::avoid_themselves(
    json!({"avoid": [{"selector": {"matchLabels": {"gantry.dev/app": "web"}}, "topologyKey": "host"}]}),
    Ok(vec!["g0", "g1", "s0", "s1"]))]
#[case::avoid_by_zone(
    json!({"avoid": [{"selector": {"matchLabels": {"gantry.dev/app": "web"}}, "topologyKey": "zone"}]}),
    Err("0/4 nodes are available: 4 node(s) didn't match pod anti-affinity rules."))]
#[case::seek_themselves(
    json!({"seek": [{"selector": {"matchLabels": {"gantry.dev/app": "web"}}, "topologyKey": "host", "weight": 100}], "strategy": "Pack"}),
    Ok(vec!["s1", "s1", "s1", "s1"]))]
#[case::of_others(json!({"pods": {"namespaces": ["other"]}, "hardware": {"required": {"disk": ["tape"]}}}), Ok(vec!["g0", "g1", "s0", "s1"]))]
#[case::of_other_level(json!({"pods": {"levels": ["L0", "L1"]}, "hardware": {"required": {"disk": ["tape"]}}}), Ok(vec!["g0", "g1", "s0", "s1"]))]
#[case::of_its_level(json!({"pods": {"levels": ["L2"]}, "hardware": {"required": {"disk": ["ssd"]}}}), Ok(vec!["g0", "g0", "g1", "g1"]))]
#[case::of_its_app(json!({"pods": {"apps": ["web"]}, "hardware": {"required": {"disk": ["ssd"]}}}), Ok(vec!["g0", "g0", "g1", "g1"]))]
#[case::of_its_labels(
    json!({"pods": {"selector": {"matchExpressions": [{"key": "gantry.dev/app", "operator": "Exists"}]}},
        "hardware": {"required": {"disk": ["ssd"]}}}), Ok(vec!["g0", "g0", "g1", "g1"]))]
fn one_policy(#[case] spec: Value, #[case] want: Result<Vec<&str>, &str>) {
    let mut cluster = cluster();
    cluster.set_policy(&policy("p", spec));
    assert!(cluster.settle_rules());
    let nodes = places(&mut cluster, &web(4)).map(|mut nodes| {
        nodes.sort();
        nodes
    });
    let want = want.map(|w| w.into_iter().map(ToOwned::to_owned).collect());
    assert_eq!(nodes, want.map_err(ToOwned::to_owned));
}

#[test]
fn the_next_pool_comes_when_the_first_is_full_and_first_again_when_it_has_room() {
    let mut cluster = cluster();
    let pools = json!([{"name": "gold", "nodeSelector": {"host": "g0"}}, {"name": "silver", "nodeSelector": {"pool": "silver"}}]);
    cluster.set_policy(&policy("p", json!({"pools": pools})));
    cluster.settle_rules();
    let pods = web(7);
    let nodes = places(&mut cluster, &pods[..6]).unwrap();
    assert_eq!(nodes[..4], ["g0"; 4]);
    assert!(nodes[4..].iter().all(|n| n.starts_with('s')), "{nodes:?}");
    cluster.remove("web-0");
    assert_eq!(places(&mut cluster, &pods[6..]).unwrap(), ["g0"]);
}

#[test]
fn nodes_set_apart_are_for_the_selected_and_for_who_names_them() {
    let mut cluster = cluster();
    let spec = json!({"pods": {"apps": ["web"]}, "exclusive": {"nodeSelector": {"pool": "gold"}}});
    cluster.set_policy(&policy("gold", spec));
    cluster.settle_rules();
    let mut own = places(&mut cluster, &web(2)).unwrap();
    own.sort();
    assert_eq!(own, ["g0", "g1"]);
    let mut others: Vec<Pod> = (0..9)
        .map(|i| pod(&format!("o{i}"), "other", json!({})))
        .collect();
    let nodes = places(&mut cluster, &others[..8]).unwrap();
    assert!(nodes.iter().all(|n| n.starts_with('s')), "{nodes:?}");
    assert_eq!(
        places(&mut cluster, &others[8..]).unwrap_err(),
        "0/4 nodes are available: 2 Insufficient cpu, 2 node(s) were set apart by placement policy gold."
    );
    // A DaemonSet's pod names its node.
    let pin = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["g0"]}]}]}}});
    let mut daemon = others.remove(8);
    daemon.spec.affinity = Some(serde_json::from_value(pin).unwrap());
    assert_eq!(places(&mut cluster, &[daemon]).unwrap(), ["g0"]);
    // Without the policy the others may come.
    cluster.remove_policy("gold");
    assert!(cluster.settle_rules());
    let class = cluster.classify(&pod("late", "other", json!({})));
    assert!(cluster.choose(class).is_some());
    assert!(!cluster.settle_rules());
}

#[test]
fn the_higher_priority_says_what_can_be_said_once_and_restrictions_add_up() {
    let mut cluster = cluster();
    let low = json!({"priority": 1, "strategy": "Spread", "pools": [{"name": "s", "nodeSelector": {"pool": "silver"}}],
        "hardware": {"required": {"zone": ["b"]}}, "spread": [{"topologyKey": "zone"}]});
    let high = json!({"priority": 2, "strategy": "Pack", "pools": [{"name": "g", "nodeSelector": {"pool": "gold"}}],
        "spread": [{"topologyKey": "zone", "maxSkew": 5}]});
    cluster.set_policy(&policy("low", low));
    cluster.set_policy(&policy("high", high));
    cluster.settle_rules();
    // Gold by the one, zone b by the other.
    assert_eq!(places(&mut cluster, &web(2)).unwrap(), ["g1", "g1"]);
    assert!(cluster.policy_problems("high").is_empty());
    let told = cluster.policy_problems("low");
    assert_eq!(
        told,
        ["pools", "spread", "strategy"].map(|rule| format!(
            "spec.{rule} is overruled for some pods by policy high, which comes first"
        )),
    );
    let class = cluster.classify(&web(1)[0]);
    let of: Vec<&str> = cluster
        .policies_of(class)
        .into_iter()
        .map(|(p, _)| p)
        .collect();
    assert_eq!(of, ["high", "low"]);
    assert_eq!(cluster.policy_pods(), [("high", 2), ("low", 2)].into());
}

#[test]
fn what_a_policy_gets_wrong_is_named_by_its_field() {
    let mut cluster = cluster();
    let spec = json!({
        "pods": {"selector": {"matchExpressions": [{"key": "a", "operator": "Within", "values": ["x"]}]}},
        "avoid": [{"selector": {"matchExpressions": [{"key": "b", "operator": "In"}]}, "topologyKey": "zone"}],
        "hardware": {"required": {"disk": []}}});
    cluster.set_policy(&policy("p", spec));
    let problems = cluster.policy_problems("p");
    let fields = [
        "spec.avoid[0].selector.matchExpressions[0]",
        "spec.pods.selector.matchExpressions[0]",
        "spec.hardware.required[disk]",
    ];
    for field in fields {
        assert!(
            problems.iter().any(|p| p.starts_with(field)),
            "{field}: {problems:?}"
        );
    }
    // It selects nobody, so that nobody suffers.
    cluster.settle_rules();
    assert!(places(&mut cluster, &web(1)).is_ok());
}

#[test]
fn who_avoids_is_avoided() {
    let mut cluster = cluster();
    let spec = json!({"pods": {"apps": ["web"]}, "avoid": [
        {"selector": {"matchLabels": {"app": "noisy"}}, "namespaces": ["other"], "topologyKey": "zone"}]});
    // Placed before the policy came: it holds for whoever comes next.
    let nodes = places(&mut cluster, &web(1)).unwrap();
    cluster.set_policy(&policy("quiet", spec));
    cluster.settle_rules();
    let noisy = pod("n", "other", json!({"app": "noisy"}));
    let node = places(&mut cluster, &[noisy]).unwrap();
    let zone = |node: &str| node.ends_with('0');
    assert_ne!(zone(&nodes[0]), zone(&node[0]));
}

#[test]
fn bounds_of_usage_are_those_of_the_policy() {
    let mut cluster = cluster();
    cluster.set_policy(&policy(
        "cool",
        json!({"pods": {"apps": ["web"]}, "load": {"cpu": 50}}),
    ));
    cluster.settle_rules();
    cluster.pass_time(1000);
    for (node, cpu) in [("g0", 1900), ("g1", 1900), ("s0", 1900), ("s1", 1000)] {
        cluster.measure(node, [cpu, 0], 990, 0);
    }
    assert_eq!(places(&mut cluster, &web(1)).unwrap(), ["s1"]);
    let class = cluster.classify(&web(1)[0]);
    assert!(
        cluster
            .diagnose(class)
            .summary
            .contains("4 node(s) cpu usage exceed threshold")
    );
    assert!(places(&mut cluster, &[pod("o", "other", json!({}))]).is_ok());
}

#[test]
fn explained_by_the_name_of_the_policy() {
    let mut cluster = cluster();
    let spec = json!({"hardware": {"required": {"disk": ["ssd"]}, "preferred": [{"weight": 5, "labels": {"zone": ["b"]}}]}});
    cluster.set_policy(&policy("p", spec));
    cluster.settle_rules();
    let class: ClassId = cluster.classify(&web(1)[0]);
    let rows = cluster.explain(class).feasible;
    let liked: Vec<_> = rows
        .iter()
        .map(|r| (cluster.node_name(r.node), r.by_rule[Rule::Policy as usize]))
        .collect();
    assert_eq!(liked, [("g1", 200), ("g0", 0)]);
    let moved = places(&mut cluster, &web(1)).unwrap();
    assert_eq!(moved, ["g1"]);
    // A trial of another policy: whose pods would go elsewhere.
    cluster.set_policy(&policy(
        "p",
        json!({"hardware": {"required": {"disk": ["hdd"]}}}),
    ));
    cluster.settle_rules();
    let landing = cluster.landing("web-0").unwrap();
    assert!(!landing.stays);
    let to = landing.node.map(|n| cluster.node_name(n).to_owned());
    assert!(to.is_some_and(|n| n.starts_with('s')));
    assert_eq!(
        cluster.placed("web-0").map(|p| cluster.node_name(p.node)),
        Some("g1")
    );
}

proptest! {
    /// Policies that come, change and go leave nothing behind: a cluster that has seen them decides and counts as one
    /// that has only seen what is left.
    #[test]
    fn what_is_left_is_what_counts(steps in prop::collection::vec((0..5_u8, 0..3_usize, 0..6_usize), 1..30)) {
        let specs = [
            json!({"pods": {"apps": ["web"]}, "hardware": {"required": {"disk": ["ssd"]}}}),
            json!({"priority": 3, "spread": [{"topologyKey": "zone"}]}),
            json!({"pods": {"apps": ["web"]}, "avoid": [{"selector": {"matchLabels": {"gantry.dev/app": "web"}}, "topologyKey": "host"}]}),
            json!({"pods": {"apps": ["web"]}, "exclusive": {"nodeSelector": {"pool": "gold"}}}),
            json!({"pools": [{"name": "s", "nodeSelector": {"pool": "silver"}}, {"name": "g", "nodeSelector": {"pool": "gold"}}]}),
            json!({"pods": {"namespaces": ["other"]}, "seek": [{"selector": {}, "namespaces": ["shop"], "topologyKey": "zone", "weight": 7}]}),
        ];
        let mut lived = cluster();
        let mut left: BTreeMap<String, usize> = BTreeMap::new();
        let mut placed: BTreeMap<String, (Pod, String)> = BTreeMap::new();
        let make = |at: usize| match at % 2 {
            0 => web(at + 1).remove(at),
            _ => pod(&format!("o{at}"), "other", json!({"at": at.to_string()})),
        };
        for (what, name, which) in steps {
            let name = format!("p{name}");
            match what {
                0 | 1 => { lived.set_policy(&policy(&name, specs[which].clone())); left.insert(name, which); }
                2 => { lived.remove_policy(&name); left.remove(&name); }
                3 => {
                    let pod = make(which);
                    if let Ok(nodes) = places(&mut lived, std::slice::from_ref(&pod)) {
                        placed.insert(pod.uid().to_owned(), (pod, nodes[0].clone()));
                    }
                }
                _ => { if let Some((uid, _)) = placed.pop_first() { lived.remove(&uid); } }
            }
            lived.settle_rules();
            lived.events.clear();
        }
        let mut fresh = cluster();
        for (name, which) in &left {
            fresh.set_policy(&policy(name, specs[*which].clone()));
        }
        fresh.settle_rules();
        for (pod, node) in placed.values() {
            fresh.observe(pod, node);
        }
        for at in 0..4 {
            let pod = make(at);
            let (a, b) = (lived.classify(&pod), fresh.classify(&pod));
            for node in ["g0", "g1", "s0", "s1"] {
                let find = |cluster: &Cluster| cluster.compiler.symbols.known(node).and_then(|n| cluster.nodes.find(n)).unwrap();
                let (x, y) = (find(&lived), find(&fresh));
                prop_assert_eq!(lived.feasible(a, x), fresh.feasible(b, y), "{} on {} by {:?}", pod.key(), node, left);
            }
            prop_assert_eq!(lived.diagnose(a).reasons.len(), fresh.diagnose(b).reasons.len());
        }
    }
}
