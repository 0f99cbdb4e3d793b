//! `filters/filters_test.go`.

use super::*;
use rstest::rstest;

const SCAN: &str = "service=securityscan";

fn two_nodes(pods: &[Value]) -> Cluster {
    let node = |name, key| {
        sized(
            node(name, &format!("region=r1 zone=z11 node={key}")),
            "memory=1G",
        )
    };
    let mut objects = vec![node("testnode-0", "n1"), node("anothernode-0", "n2")];
    for (name, team) in [("default", "team1"), ("ns2", "team1"), ("ns3", "team2")] {
        objects.push(
            json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}}),
        );
    }
    objects.extend(pods.iter().cloned());
    cluster(&objects)
}

fn seeking(affinity: &[&str], anti: &[&str]) -> Value {
    near(pod("p", "security=S1"), affinity, anti)
}

fn there() -> Value {
    on("testnode-0", "old", SCAN)
}

/// A term with more fields.
fn more(mut pod: Value, kind: &str, fields: &Value) -> Value {
    let terms =
        &mut pod["spec"]["affinity"][kind]["requiredDuringSchedulingIgnoredDuringExecution"];
    merge(&mut terms[0], fields);
    pod
}

fn foo(affinity: &[&str], anti: &[&str], kind: &str, keys: &str) -> Value {
    let pod = sized(near(pod("p", "foo bar=a"), affinity, anti), "memory=1G");
    more(pod, kind, &json!({keys: ["bar"]}))
}

/// `TestInterPodAffinity`, `TestInterPodAffinityWithNamespaceSelector`.
#[rstest]
#[case::not_matching(seeking(&["security In securityscan @ region"], &[]), vec![], false)]
#[case::matches_by_in(seeking(&["service In securityscan,value2 @ region"], &[]), vec![there()], true)]
#[case::matches_by_not_in(seeking(&["service NotIn securityscan3,value3 @ region"], &[]), vec![there()], true)]
#[case::different_namespaces(more(seeking(&["service In securityscan,value2 @ region"], &[]), "podAffinity", &json!({"namespaces": ["diff-namespace"]})),
    vec![with(there(), &json!({"metadata": {"namespace": "ns2"}}))], false)]
#[case::unmatching_label_selector(near(pod("p", SCAN), &["service In antivirusscan,value2 @ region"], &[]), vec![there()], false)]
#[case::several_terms(seeking(&["service Exists & wrongkey DoesNotExist @ region", "service In securityscan & service NotIn WrongValue @ region"], &[]),
    vec![there()], true)]
#[case::expressions_are_anded(seeking(&["service Exists & wrongkey DoesNotExist @ region", "service In securityscan2 & service NotIn WrongValue @ region"], &[]),
    vec![there()], false)]
#[case::affinity_and_anti_affinity(seeking(&["service In securityscan,value2 @ region"], &["service In antivirusscan,value2 @ node"]),
    vec![there()], true)]
#[case::and_symmetry(seeking(&["service In securityscan,value2 @ region"], &["service In antivirusscan,value2 @ node"]),
    vec![near(there(), &[], &["service In antivirusscan,value2 @ node"])], true)]
#[case::but_not_anti_affinity(seeking(&["service In securityscan,value2 @ region"], &["service In securityscan,value2 @ zone"]),
    vec![there()], false)]
#[case::but_not_symmetry(near(pod("p", SCAN), &["service In securityscan,value2 @ region"], &["service In antivirusscan,value2 @ node"]),
    vec![near(there(), &[], &["service In securityscan,value3 @ zone"])], false)]
#[case::own_label_does_not_match(near(pod("p", SCAN), &["service NotIn securityscan,value2 @ region"], &[]),
    vec![on("machine2", "old", SCAN)], false)]
#[case::symmetry_not_satisfied(pod("p", SCAN), vec![near(there(), &[], &["service In securityscan,value2 @ zone"])], false)]
#[case::symmetry_satisfied(pod("p", SCAN), vec![near(there(), &[], &["service NotIn securityscan,value2 @ zone"])], true)]
#[case::same_domain_of_two_nodes(with(near(pod("p", ""), &[], &["foo In abc @ region"]), &json!({"spec": {"nodeSelector": {"region": "r1"}}})),
    vec![on("testnode-0", "old", "foo=abc")], false)]
#[case::anti_affinity_match_label_keys(foo(&[], &["foo Exists @ zone"], "podAntiAffinity", "matchLabelKeys"),
    vec![on("testnode-0", "a", "foo bar=fuga"), on("testnode-0", "b", "foo bar=hoge")], true)]
#[case::anti_affinity_mismatch_label_keys(foo(&[], &["foo Exists @ zone"], "podAntiAffinity", "mismatchLabelKeys"),
    vec![on("testnode-0", "a", "foo bar=a"), on("testnode-0", "b", "foo bar=a")], true)]
#[case::affinity_match_label_keys(foo(&["foo Exists @ node"], &[], "podAffinity", "matchLabelKeys"),
    vec![sized(on("anothernode-0", "a", "foo bar=a"), "memory=1G"), on("testnode-0", "b", "foo bar=hoge"), on("testnode-0", "c", "foo bar=fuga")], false)]
#[case::affinity_mismatch_label_keys(foo(&["foo Exists @ node"], &[], "podAffinity", "mismatchLabelKeys"),
    vec![sized(on("anothernode-0", "a", "foo bar=fuga"), "memory=1G"), on("testnode-0", "b", "foo bar=a"), on("testnode-0", "c", "foo bar=a")], false)]
#[case::matching_namespaces(more(near(pod("p", ""), &["service In securityscan @ region"], &[]), "podAffinity",
    &json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["team1"]}]}})),
    vec![with(there(), &json!({"metadata": {"namespace": "ns2"}}))], true)]
#[case::mismatching_namespaces(more(near(pod("p", ""), &["service In securityscan @ region"], &[]), "podAffinity",
    &json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["team1"]}]}})),
    vec![with(there(), &json!({"metadata": {"namespace": "ns3"}}))], false)]
fn inter_pod_affinity(#[case] pod: Value, #[case] pods: Vec<Value>, #[case] fits: bool) {
    let mut cluster = two_nodes(&pods);
    assert_eq!(decide(&mut cluster, &pod).is_some(), fits);
}

fn taints(count: usize) -> Value {
    let taint = |at: usize| json!({"key": format!("example.com/taint{at}"), "value": format!("value{at}"), "effect": "NoSchedule"});
    (1..=count).map(taint).collect()
}

/// `TestTaintTolerationFilter`: taints of the node, tolerations of the pod.
#[rstest]
#[case::tolerates(1, 1, true)]
#[case::does_not(1, 0, false)]
#[case::some_but_not_all(2, 1, false)]
#[case::all(2, 2, true)]
#[case::more_than_there_are(1, 2, true)]
#[case::no_taint(0, 1, true)]
fn taint_toleration(#[case] there: usize, #[case] tolerated: usize, #[case] fits: bool) {
    let mut cluster = cluster(&[with(
        node("n", ""),
        &json!({"spec": {"taints": taints(there)}}),
    )]);
    let pod = with(
        pod("p", ""),
        &json!({"spec": {"tolerations": taints(tolerated)}}),
    );
    assert_eq!(decide(&mut cluster, &pod).is_some(), fits);
}

fn four() -> Vec<Value> {
    let zone = |at: usize| {
        node(
            &format!("node-{at}"),
            &format!("node=node-{at} zone=zone-{}", at / 2),
        )
    };
    (0..4).map(zone).collect()
}

/// node-1 … node-4 in two zones; of all but node-3 is said `foo`.
fn labelled(taint: Option<usize>) -> Vec<Value> {
    let node = |at: usize| {
        let label = if at == 3 && taint != Some(3) {
            ""
        } else {
            " foo"
        };
        let labels = format!("node=node-{at} zone=zone-{}{label}", at.div_ceil(2));
        let node = node(&format!("node-{at}"), &labels);
        match taint {
            Some(tainted_at) if tainted_at == at => {
                tainted(node, "node.kubernetes.io/unschedulable", "NoSchedule")
            }
            _ => node,
        }
    };
    (1..=4).map(node).collect()
}

/// Pods with the label foo on nodes by number.
fn foos(nodes: &[usize]) -> Vec<Value> {
    let pod = |(i, at): (usize, &usize)| on(&format!("node-{at}"), &format!("old-{i}"), "foo");
    nodes.iter().enumerate().map(pod).collect()
}

fn none() -> Value {
    json!({})
}

fn spreading(constraints: &[(&str, Value)]) -> Value {
    spread(pod("p", "foo"), constraints)
}

fn of_foo(constraints: &[(&str, Value)]) -> Value {
    with(
        spreading(constraints),
        &json!({"spec": {"nodeSelector": {"foo": ""}}}),
    )
}

fn without_0(constraints: &[(&str, Value)]) -> Value {
    at(spreading(constraints), "node NotIn node-0")
}

/// `TestPodTopologySpreadFilter`: all the nodes that fit, not only one of them.
#[rstest]
#[case::only_node_2(four(), foos(&[0, 1, 3]), spreading(&[("foo 1 node", none())]), &[2])]
#[case::skew_2(four(), foos(&[0, 0, 3]), spreading(&[("foo 2 node", none())]), &[1, 2, 3])]
#[case::in_zone_0(four(), foos(&[0, 3]), at(spreading(&[("foo 1 node", none())]), "zone In zone-0"), &[1])]
#[case::two_constraints(four(), foos(&[0, 1, 3, 3]), spreading(&[("foo 1 zone", none()), ("foo 1 node", none())]), &[2])]
#[case::nowhere(four(), foos(&[1, 1, 2, 2, 3]), without_0(&[("foo 1 zone", none()), ("foo 1 node", none())]), &[])]
#[case::fewer_domains_than_asked_for(four(), foos(&[1, 1, 2, 2, 3]), without_0(&[("foo 2 node", json!({"minDomains": 4}))]), &[3])]
#[case::more_domains_than_asked_for(four(), foos(&[1, 1, 2, 2, 3]), without_0(&[("foo 2 node", json!({"minDomains": 2}))]), &[1, 2, 3])]
#[case::fewer_zones_than_asked_for(four(), foos(&[0, 1, 2]), spreading(&[("foo 2 zone", json!({"minDomains": 3}))]), &[2, 3])]
#[case::more_zones_than_asked_for(four(), foos(&[1, 2, 3]), spreading(&[("foo 2 zone", json!({"minDomains": 1}))]), &[0, 1, 2, 3])]
#[case::affinity_honored(labelled(None), foos(&[1, 2, 3, 4]), of_foo(&[("foo 1 zone", none())]), &[4])]
#[case::affinity_ignored(labelled(None), foos(&[1, 3, 4]),
    at(spreading(&[("foo 1 zone", json!({"nodeAffinityPolicy": "Ignore"}))]), "foo Exists"), &[1, 2])]
#[case::taints_honored(labelled(Some(3)), foos(&[1, 2, 3, 4]), spreading(&[("foo 1 zone", json!({"nodeTaintsPolicy": "Honor"}))]), &[4])]
#[case::taints_ignored(labelled(Some(3)), foos(&[1, 2, 3, 4]), spreading(&[("foo 1 zone", none())]), &[1, 2, 4])]
#[case::two_of_them(labelled(Some(2)), foos(&[1, 2, 3, 4]), of_foo(&[("foo 1 zone", none()), ("foo 1 node", none())]), &[4])]
#[case::two_of_them_otherwise(labelled(Some(2)), foos(&[1, 2, 3, 4]),
    of_foo(&[("foo 1 zone", json!({"nodeAffinityPolicy": "Ignore"})), ("foo 1 node", json!({"nodeTaintsPolicy": "Honor"}))]), &[1, 4])]
#[case::match_label_keys(four(), [foos(&[0, 1]), vec![on("node-2", "bar", "foo bar")]].concat(),
    spread(pod("p", "foo bar"), &[("foo 1 zone", json!({"matchLabelKeys": ["bar"]}))]), &[0, 1])]
#[case::match_label_keys_alone(four(), foos(&[0, 1, 2]),
    spreading(&[("foo 1 zone", json!({"matchLabelKeys": ["foo"], "labelSelector": {"matchExpressions": null}}))]), &[2, 3])]
fn pod_topology_spread(
    #[case] nodes: Vec<Value>,
    #[case] pods: Vec<Value>,
    #[case] pod: Value,
    #[case] fit: &[usize],
) {
    let mut cluster = cluster(&[nodes, pods].concat());
    let fit: Vec<String> = fit.iter().map(|at| format!("node-{at}")).collect();
    assert_eq!(feasible(&mut cluster, &pod), fit);
}

#[test]
fn a_pod_of_high_priority_makes_its_spread_possible() {
    let mut cluster = cluster(&[four(), foos(&[1, 1, 2, 2, 3])].concat());
    let pod = preferring(
        without_0(&[("foo 1 zone", none()), ("foo 1 node", none())]),
        100,
    );
    let class = classify(&mut cluster, &pod);
    assert!(cluster.choose(class).is_none());
    let made = cluster.preempt(class, |_| false).expect("room");
    assert!(["node-1", "node-2", "node-3"].contains(&cluster.node_name(made.node)));
    for victim in &made.victims {
        cluster.remove(victim);
    }
    assert!(cluster.feasible(class, made.node));
}
