//! Tables of cases: for each filter, a small cluster, a pod, and the node it must go to or the words why not.

use crate::support::{add_node, add_pod, node, place, pod, try_place};
use gantry_scheduler::core::{Cluster, profile::Profile};
use rstest::rstest;
use serde_json::{Value, json};

/// Nodes a1, a2 in zone a, b1 in zone b; each changed by its entry in `over`.
fn cluster(over: &Value) -> Cluster {
    let mut cluster = Cluster::new();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        add_node(
            &mut cluster,
            &node(name, zone, over.get(name).unwrap_or(&json!({}))),
        );
    }
    cluster
}

fn taint(key: &str, value: &str, effect: &str) -> Value {
    json!({"spec": {"taints": [{"key": key, "value": value, "effect": effect}]}})
}

fn required(terms: Value) -> Value {
    let selector = json!({"nodeSelectorTerms": terms});
    json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}}})
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
}

const RULED_OUT: &str =
    "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
const NO_VICTIMS: &str =
    "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.";

/// What depends on the node alone.
#[rstest]
#[case::selector(json!({}), json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "b"}}}), Ok("b1"))]
#[case::selector_none(
    json!({}), json!({"spec": {"nodeSelector": {"disk": "ssd"}}}),
    Err(format!("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. {RULED_OUT}")))]
#[case::affinity_in(json!({}), expression("topology.kubernetes.io/zone", "In", &["b", "c"]), Ok("b1"))]
#[case::affinity_not_in(json!({}), expression("topology.kubernetes.io/zone", "NotIn", &["a"]), Ok("b1"))]
#[case::affinity_exists(json!({"a2": {"metadata": {"labels": {"gpu": "1"}}}}), expression("gpu", "Exists", &[]), Ok("a2"))]
#[case::affinity_absent(
    json!({"a1": {"metadata": {"labels": {"old": ""}}}, "b1": {"metadata": {"labels": {"old": ""}}}}),
    expression("old", "DoesNotExist", &[]), Ok("a2"))]
#[case::affinity_gt(
    json!({"a1": {"metadata": {"labels": {"gen": "9"}}}, "b1": {"metadata": {"labels": {"gen": "10"}}}}),
    expression("gen", "Gt", &["9"]), Ok("b1"))]
#[case::affinity_lt(
    json!({"a1": {"metadata": {"labels": {"gen": "9"}}}, "b1": {"metadata": {"labels": {"gen": "10"}}}}),
    expression("gen", "Lt", &["10"]), Ok("a1"))]
#[case::affinity_field(
    json!({}), required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a2"]}]}])), Ok("a2"))]
#[case::affinity_field_full(
    json!({"a2": {"status": {"allocatable": {"cpu": "100m"}}}}),
    required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a2"]}]}])),
    Err(format!("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. {RULED_OUT}")))]
#[case::affinity_field_not(
    json!({}), required(json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a1", "a2"]}]}])), Ok("b1"))]
#[case::affinity_any_term(
    json!({}), required(json!([
        {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b1"]}]}])), Ok("b1"))]
#[case::affinity_empty_term(
    json!({}), required(json!([{}])),
    Err(format!("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. {RULED_OUT}")))]
#[case::unschedulable(
    json!({"a1": {"spec": {"unschedulable": true}}, "a2": {"spec": {"unschedulable": true}}}), json!({}), Ok("b1"))]
#[case::unschedulable_tolerated(
    json!({"a1": {"spec": {"unschedulable": true}}, "a2": taint("k", "v", "NoSchedule"), "b1": taint("k", "v", "NoSchedule")}),
    json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}}), Ok("a1"))]
#[case::taints(
    json!({"a1": taint("k", "v", "NoSchedule"), "a2": taint("k", "v", "NoExecute"), "b1": {"spec": {"unschedulable": true}}}),
    json!({}),
    Err(format!("0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). {RULED_OUT}")))]
#[case::toleration_equal(
    json!({"a1": taint("k", "v", "NoSchedule"), "a2": taint("k", "w", "NoSchedule"), "b1": taint("l", "v", "NoSchedule")}),
    json!({"spec": {"tolerations": [{"key": "k", "value": "w", "effect": "NoSchedule"}]}}), Ok("a2"))]
#[case::toleration_wrong_effect(
    json!({"a1": taint("k", "v", "NoSchedule"), "a2": taint("k", "v", "NoSchedule"), "b1": taint("k", "v", "NoExecute")}),
    json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}}), Ok("b1"))]
#[case::taint_preferred(
    json!({"a1": taint("k", "v", "PreferNoSchedule"), "b1": taint("k", "v", "PreferNoSchedule")}), json!({}), Ok("a2"))]
#[case::affinity_preferred(
    json!({}),
    json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}},
        {"weight": 2, "preference": {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}]}}]}}}}),
    Ok("b1"))]
#[case::feature_declared(
    json!({"a2": {"status": {"declaredFeatures": ["Other", "UserNamespacesHostNetworkSupport"]}}}),
    json!({"spec": {"hostNetwork": true, "hostUsers": false}}), Ok("a2"))]
#[case::feature_not_needed(
    json!({"a1": {"spec": {"unschedulable": true}}, "a2": {"spec": {"unschedulable": true}}}),
    json!({"spec": {"hostNetwork": true}}), Ok("b1"))]
#[case::feature_undeclared(
    json!({"a2": {"status": {"declaredFeatures": ["RestartAllContainersOnContainerExits"]}}}),
    json!({"spec": {"hostNetwork": true, "hostUsers": false, "initContainers": [{"name": "i", "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "RestartAllContainers"}]}]}}),
    Err(format!("0/3 nodes are available: 1 node declared features check failed - unsatisfied requirements: \
        UserNamespacesHostNetworkSupport, 2 node declared features check failed - unsatisfied requirements: \
        RestartAllContainersOnContainerExits, UserNamespacesHostNetworkSupport. {RULED_OUT}")))]
fn by_node(#[case] nodes: Value, #[case] over: Value, #[case] want: Result<&str, String>) {
    let mut cluster = cluster(&nodes);
    assert_eq!(
        try_place(&mut cluster, &pod("p", &over)),
        want.map(ToOwned::to_owned)
    );
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
}

/// What depends on what is left.
#[rstest]
#[case::fits(
    json!({"a1": {"status": {"allocatable": {"cpu": "3"}}}, "a2": {"status": {"allocatable": {"cpu": "3"}}}}),
    requests("4", "8Gi"), Ok("b1"))]
#[case::cpu(
    json!({}), requests("4001m", "1Gi"),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu. {RULED_OUT}")))]
#[case::sorted_as_text(
    json!({"b1": {"status": {"allocatable": {"cpu": "8", "memory": "1Gi"}}}}), requests("4001m", "2Gi"),
    Err(format!("0/3 nodes are available: 1 Insufficient memory, 2 Insufficient cpu. {RULED_OUT}")))]
#[case::both(
    json!({}), requests("5", "9Gi"),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory. {RULED_OUT}")))]
#[case::storage(
    json!({}), json!({"spec": {"containers": [{"resources": {"requests": {"ephemeral-storage": "200Gi"}}}]}}),
    Err(format!("0/3 nodes are available: 3 Insufficient ephemeral-storage. {RULED_OUT}")))]
#[case::extended(
    json!({"a2": {"status": {"allocatable": {"example.com/gpu": "2"}}}}),
    json!({"spec": {"containers": [{"resources": {"requests": {"example.com/gpu": "2"}}}]}}), Ok("a2"))]
#[case::extended_none(
    json!({}), json!({"spec": {"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}}),
    Err(format!("0/3 nodes are available: 3 Insufficient example.com/gpu. {RULED_OUT}")))]
#[case::pods(
    json!({"a1": {"status": {"allocatable": {"pods": "0"}}}, "a2": {"status": {"allocatable": {"pods": "0"}}}, "b1": {"status": {"allocatable": {"pods": "0"}}}}),
    json!({}), Err(format!("0/3 nodes are available: 3 Too many pods. {NO_VICTIMS}")))]
#[case::init_peak(
    json!({}), json!({"spec": {"initContainers": [{"resources": {"requests": {"cpu": "5"}}}]}}),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu. {RULED_OUT}")))]
#[case::init_not_summed(
    json!({"a1": {"status": {"allocatable": {"cpu": "3"}}}, "a2": {"status": {"allocatable": {"cpu": "3"}}}}),
    json!({"spec": {"initContainers": [{"resources": {"requests": {"cpu": "4"}}}]}}), Ok("b1"))]
#[case::sidecar_summed(
    json!({}), json!({"spec": {"initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "3600m"}}}]}}),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu. {RULED_OUT}")))]
#[case::sidecar_before_init(
    json!({}), json!({"spec": {"initContainers": [
        {"restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}, {"resources": {"requests": {"cpu": "2100m"}}}]}}),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu. {RULED_OUT}")))]
#[case::overhead(
    json!({}), json!({"spec": {"overhead": {"cpu": "3600m"}}}),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu. {RULED_OUT}")))]
#[case::pod_level(
    json!({}), json!({"spec": {"resources": {"requests": {"cpu": "5"}}}}),
    Err(format!("0/3 nodes are available: 3 Insufficient cpu. {RULED_OUT}")))]
fn by_room(#[case] nodes: Value, #[case] over: Value, #[case] want: Result<&str, String>) {
    let mut cluster = cluster(&nodes);
    assert_eq!(
        try_place(&mut cluster, &pod("p", &over)),
        want.map(ToOwned::to_owned)
    );
}

fn port(port: u16, address: &str, protocol: &str) -> Value {
    json!({"spec": {"containers": [{"ports": [{"hostPort": port, "hostIP": address, "protocol": protocol}]}]}})
}

#[rstest]
#[case::same(port(80, "", "TCP"), false)]
#[case::other_port(port(81, "", "TCP"), true)]
#[case::other_protocol(port(80, "", "UDP"), true)]
#[case::one_address_of_all(port(80, "10.0.0.1", "TCP"), false)]
fn host_ports(#[case] over: Value, #[case] fits: bool) {
    let mut cluster = cluster(&json!({}));
    for (i, name) in ["a1", "a2", "b1"].into_iter().enumerate() {
        add_pod(
            &mut cluster,
            &pod(&format!("old{i}"), &port(80, "0.0.0.0", "TCP")),
            name,
        );
    }
    let got = try_place(&mut cluster, &pod("p", &over));
    let words = "node(s) didn't have free ports for the requested pod ports";
    let refused = format!("0/3 nodes are available: 3 {words}. {NO_VICTIMS}");
    assert_eq!(got.is_ok(), fits, "{got:?}");
    assert!(fits || got == Err(refused));
}

fn term(kind: &str, app: &str, key: &str, more: &Value) -> Value {
    let mut term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    crate::support::merge(&mut term, more);
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// A pod `db` in namespace `other` (labels team=x) runs on a1; a pod `web` in `default` on b1.
#[rstest]
#[case::affinity_own_namespace(term("podAffinity", "web", ZONE, &json!({})), Ok("b1"))]
#[case::affinity_other_namespace(
    term("podAffinity", "db", ZONE, &json!({})),
    Err(format!("0/3 nodes are available: 3 node(s) didn't match pod affinity rules. {RULED_OUT}")))]
#[case::affinity_named_namespace(term("podAffinity", "db", HOST, &json!({"namespaces": ["other"]})), Ok("a1"))]
#[case::affinity_selected_namespace(
    term("podAffinity", "db", HOST, &json!({"namespaceSelector": {"matchLabels": {"team": "x"}}})), Ok("a1"))]
#[case::affinity_every_namespace(term("podAffinity", "db", HOST, &json!({"namespaceSelector": {}})), Ok("a1"))]
#[case::anti_affinity(term("podAntiAffinity", "db", ZONE, &json!({"namespaces": ["other"]})), Ok("b1"))]
#[case::anti_affinity_hosts(
    json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "b1"}, "affinity":
        term("podAntiAffinity", "web", HOST, &json!({}))["spec"]["affinity"]}}),
    Err("0/3 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 2 node(s) didn't match Pod's node \
         affinity/selector. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 \
         Preemption is not helpful for scheduling.".to_owned()))]
fn pod_affinity(#[case] over: Value, #[case] want: Result<&str, String>) {
    let mut cluster = cluster(&json!({}));
    cluster.set_namespace("other", Some(&[("team".to_owned(), "x".to_owned())].into()));
    add_pod(
        &mut cluster,
        &pod(
            "db",
            &json!({"metadata": {"namespace": "other", "labels": {"app": "db"}}}),
        ),
        "a1",
    );
    add_pod(&mut cluster, &pod("web", &json!({})), "b1");
    let new = json!({"metadata": {"labels": {"app": "new"}}});
    let mut wanted = pod("p", &new);
    crate::support::merge(&mut wanted, &over);
    assert_eq!(
        try_place(&mut cluster, &wanted),
        want.map(ToOwned::to_owned)
    );
}

#[test]
fn the_first_pod_of_its_kind_may_seek_itself() {
    let mut cluster = cluster(&json!({}));
    let own = term("podAffinity", "web", HOST, &json!({}));
    let first = place(&mut cluster, &pod("p1", &own)).expect("the first goes anywhere");
    assert_eq!(place(&mut cluster, &pod("p2", &own)), Ok(first));
}

#[test]
fn existing_anti_affinity_keeps_matching_pods_away() {
    let mut cluster = cluster(&json!({}));
    let shy = json!({"metadata": {"labels": {"app": "shy"}}, "spec": {}});
    let mut shy_pod = pod("shy", &term("podAntiAffinity", "web", ZONE, &json!({})));
    crate::support::merge(&mut shy_pod, &shy);
    add_pod(&mut cluster, &shy_pod, "a1");
    assert_eq!(
        try_place(&mut cluster, &pod("web", &json!({}))),
        Ok("b1".to_owned())
    );
    cluster.remove_node("b1");
    let words = "2 node(s) didn't satisfy existing pods anti-affinity rules";
    let ending =
        "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    let want = format!("0/2 nodes are available: {words}. {ending}");
    assert_eq!(try_place(&mut cluster, &pod("web", &json!({}))), Err(want));
    cluster.remove("uid-shy");
    assert!(try_place(&mut cluster, &pod("web", &json!({}))).is_ok());
}

fn spread(rules: Value) -> Value {
    json!({"spec": {"topologySpreadConstraints": rules}})
}

fn rule(skew: u8, key: &str, more: &Value) -> Value {
    let mut rule = json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    crate::support::merge(&mut rule, more);
    rule
}

/// Two `web` pods run in zone a (a1, a2), none in zone b.
#[rstest]
#[case::zone(json!({}), spread(json!([rule(1, ZONE, &json!({}))])), Ok("b1"))]
#[case::skew_allows_all(json!({"b1": taint("k", "", "NoSchedule")}), spread(json!([rule(3, ZONE, &json!({}))])), Ok("a2"))]
#[case::full_zone_blocks(
    json!({"b1": {"status": {"allocatable": {"cpu": "0"}}}}), spread(json!([rule(1, ZONE, &json!({}))])),
    Err("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match pod topology spread constraints. \
         preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims \
         found for incoming pod.".to_owned()))]
#[case::taints_ignored_by_default(
    json!({"b1": taint("k", "", "NoSchedule")}), spread(json!([rule(1, ZONE, &json!({}))])),
    Err("0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match pod topology spread \
         constraints. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No \
         preemption victims found for incoming pod.".to_owned()))]
#[case::taints_honored(
    json!({"b1": taint("k", "", "NoSchedule")}), spread(json!([rule(1, ZONE, &json!({"nodeTaintsPolicy": "Honor"}))])), Ok("a2"))]
#[case::affinity_honored(
    json!({}), json!({"spec": {"nodeSelector": {ZONE: "a"}, "topologySpreadConstraints": [rule(1, ZONE, &json!({}))]}}), Ok("a2"))]
#[case::affinity_ignored(
    json!({}),
    json!({"spec": {"nodeSelector": {ZONE: "a"}, "topologySpreadConstraints": [rule(1, ZONE, &json!({"nodeAffinityPolicy": "Ignore"}))]}}),
    Err("0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't match pod \
         topology spread constraints. preemption: 0/3 nodes are available: 1 Preemption is not helpful for \
         scheduling, 2 No preemption victims found for incoming pod.".to_owned()))]
#[case::min_domains(
    json!({}), spread(json!([rule(1, ZONE, &json!({"minDomains": 3}))])), Ok("b1"))]
#[case::missing_label(
    json!({}), spread(json!([rule(1, "rack", &json!({}))])),
    Err(format!("0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing required \
         label). {RULED_OUT}")))]
#[case::soft(json!({}), spread(json!([rule(1, ZONE, &json!({"whenUnsatisfiable": "ScheduleAnyway"}))])), Ok("b1"))]
#[case::two_keys(json!({}), spread(json!([rule(1, ZONE, &json!({})), rule(1, HOST, &json!({}))])), Ok("b1"))]
#[case::match_label_keys(
    json!({"b1": taint("k", "", "NoSchedule")}),
    json!({"metadata": {"labels": {"rev": "2"}}, "spec": {"topologySpreadConstraints": [rule(1, ZONE, &json!({"matchLabelKeys": ["rev"]}))]}}),
    Ok("a2"))]
fn topology_spread(#[case] nodes: Value, #[case] over: Value, #[case] want: Result<&str, String>) {
    let mut cluster = cluster(&nodes);
    add_pod(&mut cluster, &pod("w1", &json!({})), "a1");
    add_pod(&mut cluster, &pod("w2", &json!({})), "a2");
    let old = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    add_pod(&mut cluster, &pod("leaving", &old), "b1");
    // One more of another kind, so that a2 is the emptier node of its zone.
    add_pod(
        &mut cluster,
        &pod("x", &json!({"metadata": {"labels": {"app": "x"}}})),
        "a1",
    );
    assert_eq!(
        try_place(&mut cluster, &pod("p", &over)),
        want.map(ToOwned::to_owned)
    );
}

#[test]
fn replicas_of_a_service_spread_by_default() {
    let mut cluster =
        cluster(&json!({"b1": {"status": {"allocatable": {"cpu": "3", "memory": "6Gi"}}}}));
    cluster.set_service(
        "default",
        "web",
        Some(&[("app".to_owned(), "web".to_owned())].into()),
    );
    let mut nodes: Vec<_> = (0..3)
        .map(|i| place(&mut cluster, &pod(&format!("p{i}"), &json!({}))).expect("there is room"))
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["a1", "a2", "b1"]);
}

fn claim(over: &Value) -> Value {
    let mut claim = json!({"metadata": {"namespace": "default", "name": "d", "uid": "u", "annotations": {}},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
    crate::support::merge(&mut claim, over);
    claim
}

/// Bound to the volume `v`.
fn bound() -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}})
}

fn volume(over: &Value) -> Value {
    let mut volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "late"}, "status": {"phase": "Available"}});
    crate::support::merge(&mut volume, over);
    volume
}

fn on(key: &str, value: &str) -> Value {
    json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]}}}})
}

fn all_refused(words: &str) -> Result<&'static str, String> {
    Err(format!("0/3 nodes are available: {words}. {RULED_OUT}"))
}

/// A pod with the claim `d`; the class `late` waits for the first consumer and has volumes made in zone b, where so
/// much room as the last column says is told of, if any is.
#[rstest]
#[case::missing(
    None,
    None,
    "csi",
    None,
    all_refused("persistentvolumeclaim \"d\" not found")
)]
#[case::immediate(
    Some(claim(&json!({"spec": {"storageClassName": "other"}}))), None, "csi", None,
    all_refused("pod has unbound immediate PersistentVolumeClaims"))]
#[case::leaving(
    Some(claim(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))), None, "csi", None,
    all_refused("persistentvolumeclaim \"d\" is being deleted"))]
#[case::lost(
    Some(claim(&json!({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}}))), None, "csi", None,
    all_refused("persistentvolumeclaim \"d\" bound to non-existent persistentvolume \"v\""))]
#[case::volume_gone(Some(claim(&bound())), None, "csi", None, all_refused("persistentvolume \"v\" not found"))]
#[case::bound_near(Some(claim(&bound())), Some(volume(&on(HOST, "a2"))), "csi", None, Ok("a2"))]
#[case::bound_nowhere(
    Some(claim(&bound())), Some(volume(&on(HOST, "c"))), "csi", None,
    all_refused("3 node(s) didn't match PersistentVolume's node affinity"))]
#[case::zone_label(
    Some(claim(&bound())), Some(volume(&json!({"metadata": {"labels": {ZONE: "b"}}}))), "csi", None, Ok("b1"))]
#[case::zone_label_elsewhere(
    Some(claim(&bound())), Some(volume(&json!({"metadata": {"labels": {ZONE: "c__d"}}}))), "csi", None,
    all_refused("3 node(s) had no available volume zone"))]
#[case::made_where_the_class_says(Some(claim(&json!({}))), None, "csi", None, Ok("b1"))]
#[case::found_before_made(Some(claim(&json!({}))), Some(volume(&on(HOST, "a1"))), "kubernetes.io/no-provisioner", None, Ok("a1"))]
#[case::found_of_another_attributes_class(
    Some(claim(&json!({"spec": {"volumeAttributesClassName": "fast"}}))), Some(volume(&on(HOST, "a1"))),
    "kubernetes.io/no-provisioner", None, all_refused("3 node(s) didn't find available persistent volumes to bind"))]
#[case::found_of_its_attributes_class(
    Some(claim(&json!({"spec": {"volumeAttributesClassName": "fast"}}))),
    Some(volume(&json!({"spec": {"volumeAttributesClassName": "fast"}}))), "kubernetes.io/no-provisioner", None, Ok("b1"))]
#[case::reserved_and_leaving(
    Some(claim(&json!({}))), Some(volume(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"claimRef": {"namespace": "default", "name": "d"}}}))),
    "kubernetes.io/no-provisioner", None, all_refused("3 node(s) didn't find available persistent volumes to bind"))]
#[case::found_too_small(
    Some(claim(&json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}))), Some(volume(&on(HOST, "a1"))),
    "kubernetes.io/no-provisioner", None, all_refused("3 node(s) didn't find available persistent volumes to bind"))]
#[case::reserved_for_another(
    Some(claim(&json!({}))), Some(volume(&json!({"spec": {"claimRef": {"namespace": "default", "name": "e"}}}))),
    "kubernetes.io/no-provisioner", None, all_refused("3 node(s) didn't find available persistent volumes to bind"))]
#[case::selected_before(
    Some(claim(&json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "b1"}}}))), None, "csi", None,
    Ok("b1"))]
#[case::room_told(Some(claim(&json!({}))), None, "csi", Some("1Gi"), Ok("b1"))]
#[case::room_lacking(
    Some(claim(&json!({}))), None, "csi", Some("512Mi"),
    all_refused("1 node(s) did not have enough free storage, 2 node(s) didn't find available persistent volumes to bind"))]
fn by_volumes(
    #[case] claim: Option<Value>,
    #[case] volume: Option<Value>,
    #[case] provisioner: &str,
    #[case] room: Option<&str>,
    #[case] want: Result<&str, String>,
) {
    let mut cluster = cluster(&json!({}));
    let class = json!({"metadata": {"name": "late"}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": ZONE, "values": ["b"]}]}]});
    let class = serde_json::from_value(class).expect("a class");
    cluster.change_volumes(|v, symbols| v.set_class(&class, symbols));
    if let Some(room) = room {
        let driver =
            serde_json::from_value(json!({"spec": {"storageCapacity": true}})).expect("a driver");
        let told = json!({"storageClassName": "late", "capacity": room,
            "nodeTopology": {"matchLabels": {ZONE: "b"}}});
        let told = serde_json::from_value(told).expect("a capacity");
        cluster.change_volumes(|v, symbols| v.set_driver("csi", Some(&driver), symbols));
        cluster.change_volumes(|v, symbols| v.set_capacity("default", "c", Some(&told), symbols));
    }
    if let Some(claim) = claim {
        cluster.upsert_claim(&serde_json::from_value(claim).expect("a claim"));
    }
    if let Some(volume) = volume {
        cluster.upsert_volume(&serde_json::from_value(volume).expect("a volume"));
    }
    assert_eq!(
        try_place(&mut cluster, &with_claim("p")),
        want.map(ToOwned::to_owned)
    );
}

fn with_claim(name: &str) -> Value {
    pod(
        name,
        &json!({"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]}}),
    )
}

#[test]
fn a_claim_for_one_pod_has_one_pod() {
    let mut cluster = cluster(&json!({}));
    let mut own = claim(&bound());
    own["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    cluster.upsert_claim(&serde_json::from_value(own).expect("a claim"));
    cluster.upsert_volume(&serde_json::from_value(volume(&json!({}))).expect("a volume"));
    assert!(place(&mut cluster, &with_claim("p")).is_ok());
    let words = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    let refused = format!("0/3 nodes are available: 3 {words}. {NO_VICTIMS}");
    assert_eq!(try_place(&mut cluster, &with_claim("q")), Err(refused));
    cluster.remove("uid-p");
    assert!(try_place(&mut cluster, &with_claim("q")).is_ok());
}

#[test]
fn nodes_attach_only_so_many_volumes() {
    let mut cluster = cluster(&json!({}));
    for name in ["a1", "a2", "b1"] {
        let node = json!({"metadata": {"name": name}, "spec": {"drivers": [{"name": "csi", "allocatable": {"count": 1}}]}});
        let node = serde_json::from_value(node).expect("a CSINode");
        cluster.change_volumes(|v, symbols| v.set_limits(&node, symbols));
    }
    for i in 0..4 {
        let name =
            json!({"metadata": {"name": format!("d{i}")}, "spec": {"volumeName": format!("v{i}")}});
        let mut own = claim(&bound());
        crate::support::merge(&mut own, &name);
        cluster.upsert_claim(&serde_json::from_value(own).expect("a claim"));
        let csi = json!({"metadata": {"name": format!("v{i}")},
            "spec": {"csi": {"driver": "csi", "volumeHandle": format!("h{i}")}}});
        cluster.upsert_volume(&serde_json::from_value(volume(&csi)).expect("a volume"));
    }
    let using = |pod_name: &str, claim: usize| {
        let claim = json!({"claimName": format!("d{claim}")});
        pod(
            pod_name,
            &json!({"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": claim}]}}),
        )
    };
    let mut nodes: Vec<_> = (0..3)
        .map(|i| place(&mut cluster, &using(&format!("p{i}"), i)).expect("there is room"))
        .collect();
    let first = nodes[0].clone();
    nodes.sort_unstable();
    assert_eq!(nodes, ["a1", "a2", "b1"]);
    let refused =
        format!("0/3 nodes are available: 3 node(s) exceed max volume count. {NO_VICTIMS}");
    assert_eq!(try_place(&mut cluster, &using("q", 3)), Err(refused));
    // One that is attached already takes no more.
    assert_eq!(try_place(&mut cluster, &using("q", 0)), Ok(first));
}

/// A pod on the only node with 4 CPUs that asked for 1 and is being resized.
#[rstest]
#[case::asks_for_more(json!({"cpu": "3"}), json!({"cpu": "1"}), json!({"cpu": "1"}), json!([]), "1")]
#[case::gives_back(json!({"cpu": "1"}), json!({"cpu": "3"}), json!({"cpu": "3"}), json!([]), "1")]
#[case::given_back_and_in_force_still(json!({"cpu": "1"}), json!({"cpu": "1"}), json!({"cpu": "3"}), json!([]), "1")]
#[case::done(json!({"cpu": "1"}), json!({"cpu": "1"}), json!({"cpu": "1"}), json!([]), "3")]
#[case::in_vain(
    json!({"cpu": "9"}), json!({"cpu": "1"}), json!({"cpu": "1"}),
    json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]), "3")]
fn a_resize_counts_by_its_most(
    #[case] asked: Value,
    #[case] allotted: Value,
    #[case] applied: Value,
    #[case] conditions: Value,
    #[case] left: &str,
) {
    let mut cluster = Cluster::new();
    add_node(&mut cluster, &node("n", "a", &json!({})));
    let mut old = pod(
        "old",
        &json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
    );
    add_pod(&mut cluster, &old, "n");
    old["spec"]["containers"][0]["resources"]["requests"] = asked;
    old["status"] = json!({"conditions": conditions, "containerStatuses": [
        {"name": "c", "allocatedResources": allotted, "resources": {"requests": applied}}]});
    cluster.observe(&crate::support::decode_pod(&old), "n");
    let wanting = |cpu: &str| {
        pod(
            "p",
            &json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}}),
        )
    };
    assert_eq!(try_place(&mut cluster, &wanting(left)), Ok("n".to_owned()));
    assert!(try_place(&mut cluster, &wanting(&format!("{left}.1"))).is_err());
}

#[test]
fn images_draw_pods() {
    let image = |mib: i64| json!({"status": {"images": [{"names": ["registry/big:latest"], "sizeBytes": mib << 20}]}});
    let mut cluster = cluster(&json!({"a2": image(900)}));
    let wanting = pod(
        "p",
        &json!({"spec": {"containers": [{"image": "registry/big"}]}}),
    );
    // As empty as the others, and it has the image.
    assert_eq!(try_place(&mut cluster, &wanting), Ok("a2".to_owned()));
    add_node(&mut cluster, &node("a2", "a", &image(20)));
    add_node(&mut cluster, &node("b1", "b", &image(900)));
    assert_eq!(try_place(&mut cluster, &wanting), Ok("b1".to_owned()));
}

#[test]
fn who_never_preempts_is_told_so() {
    let mut cluster = cluster(&json!({}));
    let mut big = pod("p", &requests("5", "1Gi"));
    big["spec"]["preemptionPolicy"] = json!("Never");
    let want = "0/3 nodes are available: 3 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(try_place(&mut cluster, &big), Err(want.to_owned()));
}

#[test]
fn claims_to_devices_that_are_not_there_are_waited_for() {
    let mut cluster = cluster(&json!({}));
    let dynamic = pod(
        "p",
        &json!({"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}}),
    );
    let got = try_place(&mut cluster, &dynamic).expect_err("there is no such claim");
    let want = "0/3 nodes are available: resourceclaim.resource.k8s.io \"g\" not found.";
    assert!(got.starts_with(want), "{got}");
}

#[test]
fn an_empty_cluster_has_no_nodes() {
    let message = "no nodes available to schedule pods".to_owned();
    assert_eq!(
        try_place(&mut Cluster::new(), &pod("p", &json!({}))),
        Err(message)
    );
}

#[rstest]
#[case::the_best_of_the_rank(None, 24)]
#[case::a_hundred_at_least(Some(10), 100)]
#[case::a_share(Some(50), 150)]
#[case::all_that_have_room(Some(100), 290)]
fn as_many_nodes_are_scored_as_the_profile_asks_for(
    #[case] percent: Option<usize>,
    #[case] wanted: u32,
) {
    let profile = Profile {
        scored: percent,
        ..Profile::default()
    };
    let mut cluster = Cluster::with_profiles(vec![profile]);
    for n in 0..300 {
        let full = json!({"status": {"allocatable": {"cpu": if n < 10 { "100m" } else { "4" }}}});
        add_node(&mut cluster, &node(&format!("n{n}"), "a", &full));
    }
    let soft = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let class = cluster.classify(&crate::support::decode_pod(&pod("p", &soft)));
    assert!(cluster.choose(class).is_some());
    assert_eq!(cluster.choice.considered, wanted);
}
