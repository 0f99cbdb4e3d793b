//! Who has to leave, and where, for a pod of higher priority.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

use crate::support::{add_node, add_pod, decode_pod, node, pod};
use gantry_scheduler::core::Cluster;
use rstest::rstest;
use serde_json::{Value, json};

/// A pod of this priority that requests this much CPU.
fn wanting(priority: i32, cpu: &str) -> Value {
    json!({"spec": {"priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]}})
}

/// Nodes n1, n2 with 4 CPUs each, filled by `pods`: (name, node, priority, cpu).
fn cluster(pods: &[(&str, &str, i32, &str)]) -> Cluster {
    let mut cluster = Cluster::new();
    for (name, zone) in [("n1", "a"), ("n2", "b")] {
        add_node(&mut cluster, &node(name, zone, &json!({})));
    }
    for (name, node, priority, cpu) in pods {
        add_pod(&mut cluster, &pod(name, &wanting(*priority, cpu)), node);
    }
    cluster
}

/// The node and the victims, or nothing; the cluster is as before.
fn preempt(cluster: &mut Cluster, over: &Value, spared: &[&str]) -> Option<(String, Vec<String>)> {
    let class = cluster.classify(&decode_pod(&pod("new", over)));
    assert!(cluster.choose(class).is_none(), "the pod would fit anyway");
    let before: Vec<_> = cluster.nodes.rooms.clone();
    cluster.events.clear();
    let found = cluster.preempt(class, |uid| spared.contains(&uid));
    assert_eq!(cluster.nodes.rooms, before, "a trial left traces");
    assert_eq!(cluster.events, [], "a trial was announced");
    let found = found?;
    let mut victims: Vec<_> = found
        .victims
        .iter()
        .map(|uid| uid.trim_start_matches("uid-").to_owned())
        .collect();
    victims.sort_unstable();
    Some((cluster.node_name(found.node).to_owned(), victims))
}

type Wanted<'a> = Option<(&'a str, Vec<&'a str>)>;

#[rstest]
#[case::lowest_victim_wins(&[("a", "n1", 5, "4"), ("b", "n2", 3, "4")], wanting(10, "1"), Some(("n2", vec!["b"])))]
#[case::equal_priority_is_safe(&[("a", "n1", 10, "4"), ("b", "n2", 10, "4")], wanting(10, "1"), None)]
#[case::fewest_victims(
    &[("a", "n1", 1, "2"), ("b", "n1", 1, "2"), ("c", "n2", 1, "4")], wanting(10, "4"), Some(("n2", vec!["c"])))]
#[case::only_as_many_as_needed(
    &[("a", "n1", 1, "2"), ("b", "n1", 2, "2"), ("c", "n2", 20, "4")], wanting(10, "2"), Some(("n1", vec!["a"])))]
#[case::room_of_all_lower_is_not_enough(
    &[("a", "n1", 1, "1"), ("b", "n1", 20, "3"), ("c", "n2", 20, "4")], wanting(10, "2"), None)]
#[case::no_node_is_big_enough(&[("a", "n1", 1, "4"), ("b", "n2", 1, "4")], wanting(10, "5"), None)]
fn by_room(
    #[case] pods: &[(&str, &str, i32, &str)],
    #[case] over: Value,
    #[case] want: Wanted<'_>,
) {
    let mut cluster = cluster(pods);
    let want = want.map(|(node, victims)| {
        (
            node.to_owned(),
            victims.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>(),
        )
    });
    assert_eq!(preempt(&mut cluster, &over, &[]), want);
}

#[test]
fn a_pod_that_never_preempts_does_not() {
    let mut cluster = cluster(&[("a", "n1", 1, "4"), ("b", "n2", 1, "4")]);
    let mut never = wanting(10, "1");
    never["spec"]["preemptionPolicy"] = json!("Never");
    assert_eq!(preempt(&mut cluster, &never, &[]), None);
}

#[test]
fn spared_pods_and_nodes_that_do_not_match_are_left_alone() {
    let mut cluster = cluster(&[("a", "n1", 1, "4"), ("b", "n2", 2, "4")]);
    let found = preempt(&mut cluster, &wanting(10, "1"), &["uid-a"]);
    assert_eq!(found, Some(("n2".to_owned(), vec!["b".to_owned()])));
    let mut in_a = wanting(10, "1");
    in_a["spec"]["nodeSelector"] = json!({"topology.kubernetes.io/zone": "a"});
    assert_eq!(preempt(&mut cluster, &in_a, &["uid-a"]), None);
}

#[test]
fn budgets_outweigh_priorities() {
    let mut cluster = cluster(&[("a", "n1", 1, "4"), ("b", "n2", 5, "4")]);
    let guarded = json!({"metadata": {"labels": {"app": "guarded"}}});
    let mut a = pod("a", &wanting(1, "4"));
    crate::support::merge(&mut a, &guarded);
    add_pod(&mut cluster, &a, "n1");
    let selector =
        serde_json::from_value(json!({"matchLabels": {"app": "guarded"}})).expect("a selector");
    cluster.set_budget("default", "guard", Some(&selector), 0);
    let found = preempt(&mut cluster, &wanting(10, "1"), &[]);
    assert_eq!(found, Some(("n2".to_owned(), vec!["b".to_owned()])));
    cluster.set_budget("default", "guard", Some(&selector), 1);
    let found = preempt(&mut cluster, &wanting(10, "1"), &[]);
    assert_eq!(found, Some(("n1".to_owned(), vec!["a".to_owned()])));
}

#[test]
fn a_pod_that_is_leaving_costs_nothing() {
    let mut cluster = cluster(&[("a", "n1", 1, "4"), ("b", "n2", 5, "4")]);
    let mut b = pod("b", &wanting(5, "4"));
    crate::support::merge(
        &mut b,
        &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    add_pod(&mut cluster, &b, "n2");
    let found = preempt(&mut cluster, &wanting(10, "1"), &[]);
    assert_eq!(found, Some(("n2".to_owned(), vec!["b".to_owned()])));
}

#[test]
fn neighbours_in_the_way_are_victims_too() {
    let mut cluster = cluster(&[
        ("a", "n1", 1, "1"),
        ("x", "n1", 1, "1"),
        ("b", "n2", 20, "1"),
    ]);
    let anti = json!({"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let mut shy = wanting(10, "1");
    shy["spec"]["affinity"] = json!({"podAntiAffinity": anti});
    let found = preempt(&mut cluster, &shy, &[]);
    assert_eq!(
        found,
        Some(("n1".to_owned(), vec!["a".to_owned(), "x".to_owned()]))
    );
}

#[test]
fn a_guarded_pod_stays_where_another_will_do() {
    // Both would have to go for all the room; for half of it the one without a budget does, though it is higher.
    let mut cluster = cluster(&[
        ("a", "n1", 1, "2"),
        ("b", "n1", 5, "2"),
        ("c", "n2", 20, "4"),
    ]);
    let mut a = pod("a", &wanting(1, "2"));
    crate::support::merge(&mut a, &json!({"metadata": {"labels": {"app": "guarded"}}}));
    add_pod(&mut cluster, &a, "n1");
    let selector =
        serde_json::from_value(json!({"matchLabels": {"app": "guarded"}})).expect("a selector");
    cluster.set_budget("default", "guard", Some(&selector), 0);
    let found = preempt(&mut cluster, &wanting(10, "2"), &[]);
    assert_eq!(found, Some(("n1".to_owned(), vec!["b".to_owned()])));
}

#[test]
fn the_youngest_of_equals_goes() {
    let mut cluster = cluster(&[]);
    for (name, node, second) in [
        ("a", "n1", 30),
        ("b", "n1", 20),
        ("c", "n2", 10),
        ("d", "n2", 25),
    ] {
        let mut old = pod(name, &wanting(1, "2"));
        old["status"] = json!({"startTime": format!("2026-01-01T00:00:{second}Z")});
        cluster.observe(&decode_pod(&old), node);
    }
    // On n1 the youngest started at 30, on n2 at 25.
    let found = preempt(&mut cluster, &wanting(10, "2"), &[]);
    assert_eq!(found, Some(("n1".to_owned(), vec!["a".to_owned()])));
}

#[test]
fn room_that_an_earlier_scheduler_made_is_found_again() {
    let mut cluster = cluster(&[("a", "n1", 1, "4"), ("b", "n2", 1, "4")]);
    let new = decode_pod(&pod("new", &wanting(10, "2")));
    let class = cluster.classify(&new);
    assert_eq!(cluster.room_made(class, "n1"), None);
    let mut a = pod("a", &wanting(1, "4"));
    a["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    add_pod(&mut cluster, &a, "n1");
    let room = cluster.room_made(class, "n1").expect("a is leaving");
    assert_eq!(room.victims.len(), 1);
    assert_eq!(cluster.room_made(class, "n2"), None);
    cluster.remove("uid-a");
    assert!(
        cluster
            .room_made(class, "n1")
            .expect("it fits")
            .victims
            .is_empty()
    );
}
