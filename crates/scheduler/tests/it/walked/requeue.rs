//! `queueing/queue.go`, and `TestUnschedulablePodBecomesSchedulable` of `filters/filters_test.go`: which pods are tried again
//! after what. Whom Kubernetes wakes is woken here; some are woken here whom it lets sleep, since what is noted of a
//! refusal is its reason, not its node: they are tried in vain. With all plugins, where theirs has one.

use super::*;
use gantry_scheduler::core::queue::Queue;
use gantry_scheduler::core::turns::Tenant;
use rstest::rstest;
use std::sync::Arc;
use std::time::Duration;

/// Objects of this kind and name go.
fn gone(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "metadata": {"name": name}, "gone": true})
}

fn change(cluster: &mut Cluster, change: &Value) {
    if change["gone"] != true {
        apply(cluster, change);
        return;
    }
    let name = change["metadata"]["name"].as_str().expect("a name");
    match change["kind"].as_str().expect("a kind") {
        "Node" => cluster.remove_node(name),
        "Pod" => {
            cluster.remove(&format!("uid-{name}"));
        }
        "PersistentVolume" => cluster.change_volumes(|v, s| v.remove_volume(name, s)),
        "PersistentVolumeClaim" => {
            cluster.change_volumes(|v, s| v.remove_claim("default", name, s))
        }
        "VolumeAttachment" => cluster.change_volumes(|v, _| v.remove_attachment(name)),
        other => panic!("no {other} goes"),
    }
}

/// Refuses the waiting pods, makes the changes, and says who is tried again.
fn woken(there: &[Value], waiting: &[Value], changes: &[Value]) -> Vec<String> {
    let mut cluster = cluster(there);
    let mut queue = Queue::default();
    for pod in waiting {
        let decoded = decode_pod(pod);
        let class = cluster.classify(&decoded);
        let tenant = Tenant(cluster.group_key(class).namespace.0);
        let uid: Arc<str> = decoded.uid().into();
        assert!(cluster.choose(class).is_none(), "{uid} fits already");
        queue.push(&uid, class, 0, tenant);
        let diagnosis = Arc::new(cluster.diagnose(class));
        queue.park(class, diagnosis, Duration::ZERO);
    }
    cluster.events.clear();
    for object in changes {
        change(&mut cluster, object);
    }
    let now = Duration::from_secs(30);
    for event in std::mem::take(&mut cluster.events) {
        queue.wake(event, &cluster, now);
    }
    queue.tick(now);
    let mut all = Vec::new();
    while let Some((uid, _)) = queue.peek() {
        queue.placed(&uid);
        all.push(uid.trim_start_matches("uid-").to_owned());
    }
    all.sort_unstable();
    all
}

fn cpu(name: &str, cpu: u32) -> Value {
    sized(node(name, ""), &format!("cpu={cpu}"))
}

fn wants(name: &str, amounts: &str) -> Value {
    sized(pod(name, ""), amounts)
}

fn not_ready(node: Value) -> Value {
    tainted(node, "node.kubernetes.io/not-ready", "NoSchedule")
}

fn cordoned(name: &str) -> Value {
    with(node(name, ""), &json!({"spec": {"unschedulable": true}}))
}

fn port(pod: Value, port: u16) -> Value {
    let mut pod = pod;
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": port}]);
    pod
}

fn keyed(name: &str, key: &str, skew: &str, least: u32) -> Value {
    spread(
        pod(name, &format!("{key}=val")),
        &[(&format!("{key} {skew}"), json!({"minDomains": least}))],
    )
}

/// Nodes, labels and pods.
#[rstest]
#[case::allocatable_of_a_tainted_node(
    vec![not_ready(cpu("n", 2))], vec![tolerating(wants("pod2", "cpu=4"), "node.kubernetes.io/not-ready")],
    vec![not_ready(cpu("n", 4))], &["pod2"])]
#[case::a_new_node_without_neighbours(
    vec![node("n", "node=n"), near(on("n", "pod1", "anti=anti"), &[], &["anti Exists @ node"])],
    vec![near(pod("pod2", "anti=anti"), &[], &["anti Exists @ node"])], vec![node("n2", "node=n2")], &["pod2"])]
#[case::a_label_for_node_affinity(vec![node("n", "group=a")], vec![at(pod("pod1", ""), "group In b")], vec![node("n", "group=b")], &["pod1"])]
#[case::a_node_for_node_affinity(vec![node("n", "group=a")], vec![at(pod("pod1", ""), "group In b")], vec![node("n2", "group=b")], &["pod1"])]
#[case::another_taint(vec![not_ready(node("n", ""))], vec![tolerating(pod("pod1", ""), "taint-key")],
    vec![tainted(node("n", ""), "taint-key", "NoSchedule")], &["pod1"])]
#[case::a_node_with_another_taint(vec![not_ready(node("n", ""))], vec![tolerating(pod("pod1", ""), "taint-key")],
    vec![tainted(node("n2", ""), "taint-key", "NoSchedule")], &["pod1"])]
#[case::a_pod_went(vec![cpu("n", 2), sized(on("n", "pod1", ""), "cpu=2")], vec![wants("pod2", "cpu=2")], vec![gone("Pod", "pod1")], &["pod2"])]
#[case::a_larger_node(vec![cpu("n", 2)], vec![wants("pod1", "cpu=4")], vec![cpu("n2", 4)], &["pod1"])]
#[case::a_node_grew(vec![cpu("n", 2)], vec![wants("pod1", "cpu=4")], vec![cpu("n", 4)], &["pod1"])]
#[case::a_node_takes_more_pods(
    vec![with(node("n", "group=b"), &json!({"status": {"allocatable": {"pods": "1"}}})), on("n", "pod1", "")],
    vec![at(pod("pod2", ""), "group In b")], vec![node("n", "group=b")], &["pod2"])]
#[case::a_device_class_came(vec![cpu("n", 4)], vec![wants("pod1", "cpu=4 example.com/gpu=1")],
    vec![json!({"kind": "DeviceClass", "metadata": {"name": "fake-class"}, "spec": {"extendedResourceName": "example.com/gpu"}})], &["pod1"])]
#[case::a_device_class_came_to_name_it(
    vec![cpu("n", 4), json!({"kind": "DeviceClass", "metadata": {"name": "fake-class"}, "spec": {}})],
    vec![wants("pod1", "cpu=4 example.com/gpu=1")],
    vec![json!({"kind": "DeviceClass", "metadata": {"name": "fake-class"}, "spec": {"extendedResourceName": "example.com/gpu"}})], &["pod1"])]
#[case::a_node_of_which_a_class_serves_a_resource_changed(
    vec![cpu("n", 4), json!({"kind": "DeviceClass", "metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}})],
    vec![wants("pod1", "cpu=4 example.com/gpu=1")], vec![sized(cpu("n", 4), "memory=4000")], &["pod1"])]
#[case::named_node_grew(vec![sized(node("n", ""), "cpu=2"), sized(node("n2", "zone=zone1"), "cpu=2")],
    vec![with(wants("pod1", "cpu=4"), &json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}}}))],
    vec![cpu("n", 4)], &["pod1"])]
#[case::a_neighbour_lost_its_label(vec![node("n", "node=n"), on("n", "pod1", "anti1=anti1 anti2=anti2")],
    vec![near(pod("pod2", "anti1=anti1"), &[], &["anti1 Exists @ node"])], vec![on("n", "pod1", "anti2=anti2")], &["pod2"])]
#[case::a_neighbour_went(vec![node("n", "node=n"), on("n", "pod1", "anti1=anti1"), on("n", "pod2", "anti2=anti2")],
    vec![near(pod("pod3", "anti1=anti1"), &[], &["anti1 Exists @ node"])], vec![gone("Pod", "pod1")], &["pod3"])]
#[case::one_that_kept_it_away_went(vec![node("n", "node=n"), near(on("n", "pod1", ""), &[], &["anti1 Exists @ node"])],
    vec![pod("pod3", "anti1=anti1")], vec![gone("Pod", "pod1")], &["pod3"])]
#[case::a_pod_got_the_label_that_is_sought(vec![node("n", "node=n"), on("n", "pod1", "")],
    vec![near(pod("pod2", ""), &["aaa Exists @ node"], &[])], vec![on("n", "pod1", "aaa=bbb")], &["pod2"])]
#[case::a_pod_that_is_sought_came(vec![node("n", "region=test")],
    vec![near(pod("pod1", ""), &["pod-with-affinity In true @ region"], &[])], vec![on("n", "new", "pod-with-affinity=true")], &["pod1"])]
#[case::a_node_with_the_key_that_is_sought(vec![node("n", "aaa=n")], vec![near(pod("pod1", ""), &["bbb Exists @ zone"], &[])],
    vec![node("n2", "zone=zone1")], &["pod1"])]
#[case::a_node_got_the_key_that_is_sought(vec![node("n", "region=region-1"), node("n2", "region=region-2 group=b"), on("n", "pod1", "affinity1=affinity1")],
    vec![near(pod("pod2", "affinity1=affinity1"), &["affinity1 Exists @ node"], &[]),
        at(near(pod("pod4", ""), &["affinity1 Exists @ region"], &[]), "group In b")],
    vec![node("n", "node=n region=region-2")], &["pod2", "pod4"])]
#[case::a_node_changed_a_key_of_neighbours(vec![node("n", "node=n service=service-a"), on("n", "pod1", "anti1=anti1")],
    vec![near(pod("pod2", "anti1=anti1"), &[], &["anti1 Exists @ node"]), near(pod("pod3", "anti1=anti1"), &[], &["anti1 Exists @ service"])],
    vec![node("n", "service=service-b region=n")], &["pod2", "pod3"])]
#[case::a_node_without_the_key_of_neighbours(vec![node("n", "zone=n node=n"), on("n", "pod1", "anti1=anti1")],
    vec![near(pod("pod2", ""), &[], &["anti1 Exists @ zone"]), near(pod("pod3", ""), &[], &["anti1 Exists @ node"])],
    vec![node("n2", "zone=n")], &["pod2", "pod3"])]
#[case::a_port_was_given_back(vec![node("n", ""), port(on("n", "pod1", ""), 8080), port(on("n", "pod2", ""), 8081)],
    vec![port(pod("pod3", ""), 8080)], vec![gone("Pod", "pod1")], &["pod3"])]
#[case::a_node_with_the_port(vec![node("n", ""), port(on("n", "pod1", ""), 8080)], vec![port(pod("pod2", ""), 8080)], vec![node("n2", "")], &["pod2"])]
#[case::a_node_is_uncordoned(vec![cordoned("n")], vec![pod("pod1", "")], vec![node("n", "")], &["pod1"])]
#[case::a_node_that_is_not_cordoned(vec![cordoned("n")], vec![pod("pod1", "")], vec![node("n2", "")], &["pod1"])]
#[case::the_first_node(vec![], vec![pod("pod1", "")], vec![node("n", "")], &["pod1"])]
#[case::a_taint_went(vec![tainted(node("n", ""), "test", "NoSchedule")], vec![pod("pod1", "")], vec![node("n", "")], &["pod1"])]
#[case::a_place_for_a_pod(vec![with(node("n", ""), &json!({"status": {"allocatable": {"pods": "1"}}})), on("n", "old", "")],
    vec![pod("pod1", "")], vec![gone("Pod", "old")], &["pod1"])]
fn by_nodes_and_pods(
    #[case] there: Vec<Value>,
    #[case] waiting: Vec<Value>,
    #[case] changes: Vec<Value>,
    #[case] want: &[&str],
) {
    assert_eq!(woken(&there, &waiting, &changes), want);
}

/// Spread constraints.
#[rstest]
#[case::a_pod_was_placed(vec![node("n", "node=n"), on("n", "pod1", "key1=val"), on("n", "pod2", "key2=val")],
    vec![keyed("pod3", "key1", "1 node", 3), keyed("pod4", "key2", "1 node", 3)], vec![on("n", "pod5", "key1=val")], &["pod3"])]
#[case::a_pod_changed_its_label(vec![node("n", "node=n"), on("n", "pod1", "key1=val"), on("n", "pod2", "key2=val")],
    vec![keyed("pod3", "key1", "1 node", 3), keyed("pod4", "key2", "1 node", 3)], vec![on("n", "pod1", "key3=val")], &["pod3"])]
#[case::a_pod_went(vec![node("n", "node=n"), on("n", "pod1", "key1=val"), on("n", "pod2", "key2=val")],
    vec![keyed("pod3", "key1", "1 node", 2), keyed("pod4", "key2", "1 node", 3)], vec![gone("Pod", "pod1")], &["pod3"])]
#[case::a_node_came(vec![node("n1", "node=n"), node("n2", "zone=z"), on("n1", "pod1", "key1=val"), on("n2", "pod2", "key1=val")],
    vec![keyed("pod3", "key1", "1 node", 2)], vec![node("n3", "node=n")], &["pod3"])]
#[case::a_node_changed_its_labels(
    vec![node("n1", "node=n region=n service=service-a"), node("n2", "node=n region=n service=service-a"),
        on("n1", "pod1", "key1=val"), on("n2", "pod2", "key1=val"), on("n2", "pod3", "key1=val"), on("n2", "pod4", "key1=val")],
    vec![keyed("pod5", "key1", "1 node", 3), keyed("pod6", "key1", "1 zone", 3), keyed("pod9", "key1", "1 service", 3)],
    vec![node("n2", "zone=n region=n service=service-b")], &["pod5", "pod6", "pod9"])]
#[case::a_node_went(vec![node("n1", "node=n"), node("n2", "zone=n"), on("n1", "pod1", "key1=val"), on("n2", "pod2", "key1=val")],
    vec![keyed("pod4", "key1", "1 zone", 3)], vec![gone("Node", "n2")], &["pod4"])]
#[case::a_taint_changed(
    vec![node("n1", "node=n"), node("n2", "zone=n"), not_ready(node("n3", "zone=n")), on("n1", "pod1", "key1=val"), on("n2", "pod2", "key1=val")],
    vec![tolerating(keyed("pod4", "key1", "1 zone", 3), "aaa")], vec![tainted(node("n3", "zone=n"), "aaa", "NoSchedule")], &["pod4"])]
fn by_spread(
    #[case] there: Vec<Value>,
    #[case] waiting: Vec<Value>,
    #[case] changes: Vec<Value>,
    #[case] want: &[&str],
) {
    assert_eq!(woken(&there, &waiting, &changes), want);
}

const ZONE: &str = "topology.kubernetes.io/zone";

fn in_zone(volume: Value, zone: &str) -> Value {
    with(volume, &json!({"metadata": {"labels": {ZONE: zone}}}))
}

fn reached(volume: Value, key: &str, value: &str) -> Value {
    let term = selecting(&[json!({"key": key, "operator": "In", "values": [value]})]);
    with(
        volume,
        &json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}),
    )
}

fn once() -> Value {
    json!({"spec": {"accessModes": ["ReadWriteOncePod"]}})
}

fn of_class(claim: Value) -> Value {
    with(claim, &json!({"spec": {"storageClassName": "sc1"}}))
}

/// Which waits for its first consumer and makes volumes in one zone.
fn class(zone: Option<&str>) -> Value {
    let mut class = json!({"kind": "StorageClass", "metadata": {"name": "sc1"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"});
    if let Some(zone) = zone {
        class["allowedTopologies"] =
            json!([{"matchLabelExpressions": [{"key": ZONE, "values": [zone]}]}]);
    }
    class
}

fn csi(name: &str) -> Value {
    volume(
        name,
        &json!({"spec": {"hostPath": null, "csi": {"driver": "csidriver", "volumeHandle": name}}}),
    )
}

fn csi_node(count: u32) -> Value {
    json!({"kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": [{"name": "csidriver", "nodeID": "n", "allocatable": {"count": count}}]}})
}

fn capacity(amount: &str) -> Value {
    json!({"kind": "CSIStorageCapacity", "metadata": {"name": "csc", "namespace": "default"}, "storageClassName": "sc1", "capacity": amount,
        "nodeTopology": {}})
}

fn driver(tells: bool) -> Value {
    json!({"kind": "CSIDriver", "metadata": {"name": "p"}, "spec": {"storageCapacity": tells}})
}

fn zoned() -> Value {
    let mut node = node("n", "");
    node["metadata"]["labels"][ZONE] = "us-west1-a".into();
    node
}

/// Volumes, claims, and what belongs to them.
#[rstest]
#[case::the_volume_came(vec![zoned(), claim("pvc2", Some("pv2"), &json!({}))], "pvc2", vec![in_zone(volume("pv2", &json!({})), "us-west1-a")])]
#[case::the_volume_changed_its_zone(vec![zoned(), in_zone(volume("pv2", &json!({})), "us-east1"), claim("pvc2", Some("pv2"), &json!({}))],
    "pvc2", vec![in_zone(volume("pv2", &json!({})), "us-west1-a")])]
#[case::the_claim_came(vec![zoned(), volume("pv2", &json!({}))], "pvc2", vec![claim("pvc2", Some("pv2"), &json!({}))])]
#[case::the_claim_was_bound(vec![zoned(), volume("pv2", &json!({})), claim("pvc2", None, &json!({}))], "pvc2", vec![claim("pvc2", Some("pv2"), &json!({}))])]
#[case::a_class_came(vec![zoned(), of_class(claim("pvc2", None, &json!({})))], "pvc2", vec![class(None)])]
#[case::a_class_allows_other_zones(vec![zoned(), class(Some("us-west-1c")), of_class(claim("pvc2", None, &json!({})))], "pvc2", vec![class(Some("us-west1-a"))])]
#[case::the_claim_for_one_pod_is_free(
    vec![node("n", ""), volume("pv1", &once()), claim("pvc2", Some("pv1"), &once()), claiming(on("n", "pod1", ""), "pvc2")],
    "pvc2", vec![gone("Pod", "pod1")])]
#[case::a_node_that_reaches_the_volume(vec![node("n", "aaa=bbb"), reached(volume("pv1", &json!({})), "aaa", "ccc"), claim("pvc2", Some("pv1"), &json!({}))],
    "pvc2", vec![node("n2", "aaa=ccc")])]
#[case::the_node_comes_to_reach_the_volume(vec![node("n", "aaa=bbb"), reached(volume("pv1", &json!({})), "aaa", "ccc"), claim("pvc2", Some("pv1"), &json!({}))],
    "pvc2", vec![node("n", "aaa=ccc")])]
#[case::the_volume_comes_anew(vec![node("n", "aaa=bbb"), reached(volume("pv1", &json!({})), "aaa", "ccc"), claim("pvc2", Some("pv1"), &json!({}))],
    "pvc2", vec![gone("PersistentVolume", "pv1"), reached(volume("pv1", &json!({})), "aaa", "bbb")])]
#[case::the_volume_is_reached_elsewhere(vec![node("n", "aaa=bbb"), reached(volume("pv1", &json!({})), "aaa", "ccc"), claim("pvc2", Some("pv1"), &json!({}))],
    "pvc2", vec![reached(volume("pv1", &json!({})), "aaa", "bbb")])]
#[case::the_claim_comes_anew(vec![node("n", ""), volume("pv1", &json!({})), claim("pvc2", None, &json!({}))],
    "pvc2", vec![gone("PersistentVolumeClaim", "pvc2"), claim("pvc2", Some("pv1"), &json!({}))])]
#[case::storage_is_told_of(vec![node("n", ""), class(None), driver(true), of_class(claim("pvc2", None, &json!({})))], "pvc2", vec![capacity("10Gi")])]
#[case::more_storage(vec![node("n", ""), class(None), driver(true), capacity("10"), of_class(claim("pvc2", None, &json!({})))], "pvc2", vec![capacity("10Gi")])]
#[case::storage_is_told_of_no_more(vec![node("n", ""), class(None), driver(true), of_class(claim("pvc2", None, &json!({})))], "pvc2", vec![driver(false)])]
#[case::the_node_attaches_more(vec![node("n", ""), csi("pv1"), csi_node(0), claim("pvc2", Some("pv1"), &json!({}))], "pvc2", vec![csi_node(1)])]
#[case::a_volume_is_given_back(
    vec![node("n", ""), csi("pv1"), csi("pv2"), csi_node(1), claim("pvc1", Some("pv1"), &json!({})), claim("pvc2", Some("pv2"), &json!({})),
        claiming(on("n", "pod1", ""), "pvc1")], "pvc2", vec![gone("Pod", "pod1")])]
#[case::a_volume_is_detached(
    vec![node("n", ""), csi("pv1"), csi("pv2"), csi_node(1), claim("pvc2", Some("pv2"), &json!({})),
        json!({"kind": "VolumeAttachment", "metadata": {"name": "va"}, "spec": {"attacher": "csidriver", "nodeName": "n", "source": {"persistentVolumeName": "pv1"}}, "status": {"attached": true}})],
    "pvc2", vec![gone("VolumeAttachment", "va")])]
fn by_volumes(#[case] there: Vec<Value>, #[case] uses: &str, #[case] changes: Vec<Value>) {
    let waiting = [claiming(pod("pod2", ""), uses)];
    assert_eq!(woken(&there, &waiting, &changes), ["pod2"]);
}

/// Who changes is tried again: by another toleration, by asking for less.
#[rstest]
#[case::toleration(vec![tainted(node("n", ""), "taint-key", "NoSchedule")], pod("pod1", ""), tolerating(pod("pod1", ""), "taint-key"))]
#[case::less_cpu(vec![cpu("n", 2)], wants("pod1", "cpu=4"), wants("pod1", "cpu=2"))]
fn who_changes_is_tried_again(
    #[case] there: Vec<Value>,
    #[case] before: Value,
    #[case] after: Value,
) {
    let mut cluster = cluster(&there);
    let mut queue = Queue::default();
    let uid: Arc<str> = "uid-pod1".into();
    let (first, second) = (
        classify(&mut cluster, &before),
        classify(&mut cluster, &after),
    );
    queue.push(&uid, first, 0, Tenant(cluster.group_key(first).namespace.0));
    let diagnosis = Arc::new(cluster.diagnose(first));
    queue.park(first, diagnosis, Duration::ZERO);
    assert!(queue.peek().is_none());
    queue.push(
        &uid,
        second,
        0,
        Tenant(cluster.group_key(second).namespace.0),
    );
    assert_eq!(queue.peek(), Some((uid, second)));
    assert!(cluster.choose(second).is_some());
}
