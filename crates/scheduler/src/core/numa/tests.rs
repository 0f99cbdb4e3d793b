use super::*;
use crate::core::Profile;
use crate::core::object::{Node, Pod};
use crate::core::profile::NumaStrategy;
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Arc;

fn topology(scope: &str, policy: &str, zones: &[(&str, &str)]) -> object::NodeTopology {
    let zones: Vec<Value> = zones
        .iter()
        .enumerate()
        .map(|(i, (cpu, gpu))| {
            json!({"name": format!("node-{i}"), "type": "Node", "resources": [
                {"name": "cpu", "capacity": "8", "allocatable": "8", "available": cpu},
                {"name": "memory", "capacity": "16Gi", "allocatable": "16Gi", "available": "16Gi"},
                {"name": "example.com/gpu", "capacity": "2", "allocatable": "2", "available": gpu}]})
        })
        .collect();
    serde_json::from_value(json!({"metadata": {"name": "n"}, "attributes": [
        {"name": "topologyManagerPolicy", "value": policy}, {"name": "topologyManagerScope", "value": scope}],
        "zones": zones}))
    .unwrap()
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"allocatable":
        {"cpu": "16", "memory": "32Gi", "pods": "110", "example.com/gpu": "4"}}}))
        .unwrap();
    cluster.upsert_node(&node);
    cluster.numa.now = 1000;
    cluster
}

/// Containers with these CPUs and GPUs, Guaranteed or not.
fn pod(name: &str, containers: &[(&str, i64)], guaranteed: bool) -> Pod {
    let containers: Vec<Value> = containers
        .iter()
        .enumerate()
        .map(|(i, (cpu, gpu))| {
            let mut requests = json!({"cpu": cpu, "memory": "1Gi"});
            let mut limits = if guaranteed {
                requests.clone()
            } else {
                json!({})
            };
            if *gpu > 0 {
                requests["example.com/gpu"] = json!(gpu.to_string());
                limits["example.com/gpu"] = json!(gpu.to_string());
            }
            json!({"name": format!("c{i}"), "resources": {"requests": requests, "limits": limits}})
        })
        .collect();
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": containers}}),
    )
    .unwrap()
}

/// The scope, free CPUs and GPUs of the NUMA nodes, the containers, and what is said.
#[rstest]
#[case::one_has_it("container", &[("2", "0"), ("6", "0")], &[("6", 0)], true, None)]
#[case::none_has_it("container", &[("4", "0"), ("4", "0")], &[("6", 0)], true, Some("container"))]
#[case::each_on_another("container", &[("4", "0"), ("4", "0")], &[("4", 0), ("4", 0)], true, None)]
#[case::not_as_a_whole("pod", &[("4", "0"), ("4", "0")], &[("4", 0), ("4", 0)], true, Some("pod"))]
#[case::as_a_whole("pod", &[("4", "0"), ("8", "0")], &[("4", 0), ("4", 0)], true, None)]
#[case::shared_cores_are_not_aligned("container", &[("4", "0"), ("4", "0")], &[("5", 0)], false, None)]
#[case::parts_of_cores_are_not_aligned("container", &[("4", "0"), ("4", "0")], &[("5500m", 0)], true, None)]
#[case::devices_are("container", &[("4", "1"), ("4", "1")], &[("1", 2)], false, Some("container"))]
#[case::cores_and_devices_together("container", &[("4", "0"), ("2", "2")], &[("4", 1)], true, Some("container"))]
#[case::greedily_in_order("container", &[("4", "2"), ("8", "2")], &[("2", 0), ("4", 0), ("4", 0)], true, None)]
fn admitted_as_the_kubelet_would(
    #[case] scope: &str,
    #[case] zones: &[(&str, &str)],
    #[case] containers: &[(&str, i64)],
    #[case] guaranteed: bool,
    #[case] refused: Option<&str>,
) {
    let mut cluster = cluster();
    cluster.set_topology(&topology(scope, "single-numa-node", zones));
    let class = cluster.classify(&pod("p", containers, guaranteed));
    let node = cluster.choose(class);
    assert_eq!(node.is_none(), refused.is_some());
    if let Some(what) = refused {
        let told = cluster.diagnose(class).summary;
        let want = format!("1 node(s) cannot align {what} to a single NUMA node");
        assert!(told.contains(&want), "{told}");
    }
    // A kubelet that does not insist takes all of them.
    cluster.set_topology(&topology(scope, "best-effort", zones));
    assert!(cluster.choose(class).is_some());
}

#[test]
fn what_no_report_shows_counts_on_every_numa_node() {
    let mut cluster = cluster();
    let report = topology("container", "single-numa-node", &[("8", "0"), ("8", "0")]);
    cluster.set_topology(&report);
    let first = pod("a", &[("5", 0)], true);
    let class = cluster.classify(&first);
    let node = cluster.choose(class).unwrap();
    let uid: Arc<str> = first.uid().into();
    cluster.place_at(&uid, class, node);
    // The second would fit on the NUMA node that the first is not on, whichever that is: nobody knows yet.
    let second = cluster.classify(&pod("b", &[("6", 0)], true));
    assert!(cluster.choose(second).is_none());
    // It runs, and a report of later shows where.
    let mut running = serde_json::json!({"startTime": "1970-01-01T00:16:50Z"});
    running["phase"] = json!("Running");
    let mut first = first;
    first.status = serde_json::from_value(running).unwrap();
    cluster.observe(&first, "n");
    cluster.numa.now = 1100;
    let report = topology("container", "single-numa-node", &[("3", "0"), ("8", "0")]);
    cluster.set_topology(&report);
    assert!(cluster.choose(second).is_some());
    cluster.remove_topology("n");
    assert!(cluster.choose(second).is_some());
}

/// As a kubelet of policy `restricted` would admit: on as few NUMA nodes as it would take were they empty.
#[rstest]
#[case::one_would_do_and_none_has_it("container", &[("4", "0"), ("4", "0")], &[("6", 0)], Some("container"))]
#[case::one_has_it("container", &[("2", "0"), ("6", "0")], &[("6", 0)], None)]
#[case::two_are_needed_anyway("container", &[("7", "0"), ("5", "0")], &[("12", 0)], None)]
#[case::two_are_not_enough_now("container", &[("7", "0"), ("4", "0")], &[("12", 0)], Some("container"))]
#[case::cores_and_devices_disagree("container", &[("8", "2"), ("8", "2")], &[("12", 1)], Some("container"))]
#[case::cores_and_devices_agree("container", &[("8", "2"), ("8", "2")], &[("12", 3)], None)]
#[case::what_the_first_took("container", &[("8", "0"), ("8", "0")], &[("12", 0), ("4", 0)], None)]
#[case::as_a_whole("pod", &[("8", "0"), ("8", "0")], &[("6", 0), ("6", 0)], None)]
#[case::as_a_whole_on_one("pod", &[("4", "0"), ("4", "0")], &[("3", 0), ("3", 0)], Some("pod"))]
fn admitted_as_a_restricted_kubelet_would(
    #[case] scope: &str,
    #[case] zones: &[(&str, &str)],
    #[case] containers: &[(&str, i64)],
    #[case] refused: Option<&str>,
) {
    let mut cluster = cluster();
    cluster.set_topology(&topology(scope, "restricted", zones));
    let class = cluster.classify(&pod("p", containers, true));
    assert_eq!(cluster.choose(class).is_none(), refused.is_some());
    if let Some(what) = refused {
        let told = cluster.diagnose(class).summary;
        let want = format!("1 node(s) cannot align {what} to the fewest NUMA nodes");
        assert!(told.contains(&want), "{told}");
    }
}

/// The CPU manager's policy and option, and whether a pod of so many exclusive cores is admitted on two-thread cores.
#[rstest]
#[case::halves_are_refused("static", "true", "3", true, false)]
#[case::whole_ones_are_not("static", "true", "4", true, true)]
#[case::shared_cores_do_not_matter("static", "true", "3", false, true)]
#[case::without_the_option("static", "false", "3", true, true)]
#[case::without_the_policy("none", "true", "3", true, true)]
fn whole_cores_where_the_kubelet_gives_no_others(
    #[case] policy: &str,
    #[case] option: &str,
    #[case] cpu: &str,
    #[case] guaranteed: bool,
    #[case] admitted: bool,
) {
    let mut cluster = cluster();
    let manager = json!({"policy": policy, "options": {"full-pcpus-only": option}});
    let cpus: Vec<Value> = (0..16)
        .map(|id| json!({"id": id, "core": id / 2, "socket": 0, "node": id / 8}))
        .collect();
    let report: object::NodeTopology = serde_json::from_value(json!({
        "metadata": {"name": "n", "annotations": {
            "kubelet.koordinator.sh/cpu-manager-policy": manager.to_string(),
            "node.koordinator.sh/cpu-topology": json!({"detail": cpus}).to_string()}},
        "attributes": [{"name": "topologyManagerPolicy", "value": "none"}]}))
    .unwrap();
    cluster.set_topology(&report);
    let class = cluster.classify(&pod("p", &[(cpu, 0)], guaranteed));
    assert_eq!(cluster.choose(class).is_some(), admitted);
    if !admitted {
        let told = cluster.diagnose(class).summary;
        assert!(
            told.contains("1 node(s) requested cpus not multiple cpus per core"),
            "{told}"
        );
    }
}

/// Free cores by NUMA node of two nodes, and which of them a pod of two cores goes to.
#[rstest]
#[case::emptier(NumaStrategy::LeastAllocated, [["4", "4"], ["8", "8"]], "m")]
#[case::fuller(NumaStrategy::MostAllocated, [["4", "4"], ["8", "8"]], "n")]
#[case::the_worst_that_fits_counts(NumaStrategy::LeastAllocated, [["3", "8"], ["5", "5"]], "m")]
#[case::those_without_room_do_not(NumaStrategy::LeastAllocated, [["1", "8"], ["5", "5"]], "n")]
#[case::balanced(NumaStrategy::BalancedAllocation, [["2", "2"], ["8", "8"]], "m")]
fn nodes_are_scored_by_their_numa_nodes(
    #[case] strategy: NumaStrategy,
    #[case] free: [[&str; 2]; 2],
    #[case] chosen: &str,
) {
    let mut profile = Profile::default();
    profile.weights.set(Rule::Numa, 10);
    profile.numa.strategy = strategy;
    let mut cluster = Cluster::with_profiles(vec![profile]);
    for (name, zones) in ["n", "m"].into_iter().zip(free) {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable":
            {"cpu": "16", "memory": "32Gi", "pods": "110"}}});
        cluster.upsert_node(&serde_json::from_value(node).unwrap());
        let zones: Vec<(&str, &str)> = zones.iter().map(|cpu| (*cpu, "0")).collect();
        let mut report = topology("container", "single-numa-node", &zones);
        report.metadata.name = Some(name.to_owned());
        cluster.set_topology(&report);
    }
    let class = cluster.classify(&pod("p", &[("2", 0)], true));
    let node = cluster.choose(class).unwrap();
    assert_eq!(cluster.node_name(node), chosen);
}
