//! `preemption/preemption_test.go`, `preemption/misc/miscpreemption_test.go`, `nominated_node_name/…`: who has to leave.
//! What happens at the API then (conditions, nominations, bindings) is in `end_to_end/preemption.rs`.

use super::*;
use rstest::rstest;

const LOW: i32 = 100;
const MEDIUM: i32 = 200;
const HIGH: i32 = 300;

fn small(name: &str) -> Value {
    sized(node(name, &format!("node={name}")), "cpu=500m memory=500")
}

fn asking(priority: i32, amounts: &str) -> Value {
    sized(
        preferring(pod("preemptor", "pod=preemptor"), priority),
        amounts,
    )
}

fn running(node: &str, name: &str, priority: i32, amounts: &str, labels: &str) -> Value {
    sized(preferring(on(node, name, labels), priority), amounts)
}

/// The node and those who leave it; nothing, if that would not help.
fn preempt(cluster: &mut Cluster, pod: &Value) -> Option<(String, Vec<String>)> {
    let class = classify(cluster, pod);
    assert!(cluster.choose(class).is_none(), "it would fit anyway");
    let made = cluster.preempt(class, |_| false)?;
    let name = |uid: &std::sync::Arc<str>| uid.trim_start_matches("uid-").to_owned();
    let mut victims: Vec<String> = made.victims.iter().map(name).collect();
    victims.sort_unstable();
    Some((cluster.node_name(made.node).to_owned(), victims))
}

/// `TestPreemption`, `TestNonPreemption`: who leaves the only node.
#[rstest]
#[case::basic(vec![running("node1", "victim", LOW, "cpu=400m memory=200", "")], asking(HIGH, "cpu=300m memory=200"), &["victim"])]
#[case::never(vec![running("node1", "victim", LOW, "cpu=400m memory=200", "")],
    with(asking(HIGH, "cpu=300m memory=200"), &json!({"spec": {"preemptionPolicy": "Never"}})), &[])]
#[case::anti_affinity_on_both_sides(
    vec![running("node1", "p0", MEDIUM, "cpu=100m memory=100", "pod=p0"),
        near(running("node1", "p1", LOW, "cpu=100m memory=100", "pod=p1"), &[], &["pod In preemptor @ node"])],
    near(asking(HIGH, "cpu=100m memory=100"), &[], &["pod In p0 @ node"]), &["p0", "p1"])]
#[case::anti_affinity_that_stays(
    vec![running("node1", "p0", MEDIUM, "cpu=100m memory=100", "pod=p0"),
        near(running("node1", "p1", HIGH, "cpu=100m memory=100", "pod=p1"), &[], &["pod In preemptor @ node"])],
    near(asking(HIGH, "cpu=100m memory=100"), &[], &["pod In p0 @ node"]), &[])]
fn basic(#[case] pods: Vec<Value>, #[case] pod: Value, #[case] victims: &[&str]) {
    let mut cluster = cluster(&[vec![small("node1")], pods].concat());
    let found = preempt(&mut cluster, &pod).map(|(_, victims)| victims);
    assert_eq!(found.unwrap_or_default(), victims);
}

const HUNDRED: &str = "cpu=100m memory=100";

fn budget(cluster: &mut Cluster, name: &str, labels: &str, allowed: i64) {
    let selector = serde_json::from_value(json!({"matchLabels": map(labels)})).expect("a selector");
    cluster.set_budget("default", name, Some(&selector), allowed);
}

/// `TestPDBInPreemption`: budgets (of what, how many may go), and who leaves.
#[rstest]
#[case::not_violating_despite_its_priority(1, &[("foo=bar", 0)],
    vec![running("node-1", "low1", LOW, HUNDRED, "foo=bar"), running("node-1", "low2", LOW, HUNDRED, "foo=bar"),
        running("node-1", "mid3", MEDIUM, HUNDRED, "")],
    "cpu=300m memory=200", &["mid3"])]
#[case::a_node_without_violations(2, &[("foo=bar", 0)],
    vec![running("node-1", "low1", LOW, HUNDRED, "foo=bar"), running("node-2", "mid2", MEDIUM, HUNDRED, "")],
    "cpu=500m memory=200", &["mid2"])]
#[case::fewer_violations(3, &[("foo1=bar", 0), ("foo2=bar", 3)],
    vec![running("node-1", "low1", LOW, HUNDRED, "foo1=bar"), running("node-1", "mid1", MEDIUM, HUNDRED, ""),
        running("node-2", "low2", LOW, HUNDRED, "foo2=bar"), running("node-2", "mid2", MEDIUM, HUNDRED, "foo2=bar"),
        running("node-3", "low4", LOW, HUNDRED, "foo2=bar"), running("node-3", "low5", LOW, HUNDRED, "foo2=bar"),
        running("node-3", "low6", LOW, HUNDRED, "foo2=bar")],
    "cpu=500m memory=400", &["low4", "low5", "low6"])]
fn budgets(
    #[case] nodes: usize,
    #[case] allowed: &[(&str, i64)],
    #[case] pods: Vec<Value>,
    #[case] wants: &str,
    #[case] victims: &[&str],
) {
    let nodes = (1..=nodes).map(|at| small(&format!("node-{at}"))).collect();
    let mut cluster = cluster(&[nodes, pods].concat());
    for (labels, allowed) in allowed {
        budget(&mut cluster, labels, labels, *allowed);
    }
    let found = preempt(&mut cluster, &asking(HIGH, wants)).map(|(_, victims)| victims);
    assert_eq!(found.unwrap_or_default(), victims);
}

/// `TestReadWriteOncePodPreemption`: the claims of those who run, and of the one that comes.
#[rstest]
#[case::one_pod(&[("victim", "pvc1")], "pvc1", &["victim"])]
#[case::two_pods(&[("victim1", "pvc1"), ("victim2", "pvc2")], "pvc1 pvc2", &["victim1", "victim2"])]
#[case::one_pod_with_two_volumes(&[("victim", "pvc1 pvc2")], "pvc1 pvc2", &["victim"])]
fn claims_for_one_pod(
    #[case] pods: &[(&str, &str)],
    #[case] claims: &str,
    #[case] victims: &[&str],
) {
    let mut objects = vec![small("node1")];
    let once = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    for (claim_name, volume_name) in [("pvc1", "pv1"), ("pvc2", "pv2")] {
        objects.push(volume(volume_name, &once));
        objects.push(claim(claim_name, Some(volume_name), &once));
    }
    for (name, claims) in pods {
        objects.push(preferring(claiming(on("node1", name, ""), claims), LOW));
    }
    let mut cluster = cluster(&objects);
    let pod = preferring(claiming(pod("preemptor", ""), claims), HIGH);
    let found = preempt(&mut cluster, &pod).map(|(_, victims)| victims);
    assert_eq!(found.unwrap_or_default(), victims);
}

/// `TestPreemptionAndNominatedNodeNameScenarios`: one victim is better than two, wherever the pod was nominated before.
#[test]
fn a_nomination_gives_way_to_a_better_node() {
    let of = |name: &str| sized(node(name, ""), "cpu=4");
    let mut cluster = cluster(&[
        of("node"),
        of("node2"),
        running("node", "victim-1", 1, "cpu=2", ""),
        running("node", "victim-2", 1, "cpu=2", ""),
        running("node2", "victim-3", 1, "cpu=3", ""),
    ]);
    let found = preempt(&mut cluster, &asking(100, "cpu=4"));
    assert_eq!(
        found,
        Some(("node2".to_owned(), vec!["victim-3".to_owned()]))
    );
}
