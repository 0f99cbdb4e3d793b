use super::*;
use crate::core::object::{Node, Pod};
use crate::core::{NodeId, Profile};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Arc;

fn nodes(cluster: &mut Cluster, count: usize, cpu: &str) {
    for i in 0..count {
        let name = format!("n{i}");
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": format!("z{}", i % 3)}},
            "status": {"allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110", "example.com/gpu": "1"}}}))
        .unwrap();
        cluster.upsert_node(&node);
    }
}

fn pod(name: &str, app: &str, cpu: &str, more: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": app, "uid": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    if let (Value::Object(spec), Value::Object(more)) = (&mut pod["spec"], more) {
        spec.extend(more.clone());
    }
    serde_json::from_value(pod).unwrap()
}

/// Decides pods in one round, and places them. Returns their nodes and the number of conflicts.
fn play(
    cluster: &mut Cluster,
    pods: &[Pod],
    workers: usize,
) -> (Vec<Option<NodeId>>, usize, usize) {
    let classes: Vec<ClassId> = pods.iter().map(|pod| cluster.classify(pod)).collect();
    let mut round = cluster.propose(classes.clone(), workers);
    let mut found = Vec::new();
    for (at, pod) in pods.iter().enumerate() {
        match cluster.settle(&mut round, at) {
            Decision::Place(node) => {
                assert!(
                    cluster.feasible(classes[at], node),
                    "{} on {node:?}",
                    pod.uid()
                );
                cluster.commit(&pod.uid().into(), classes[at], node);
                found.push(Some(node));
            }
            Decision::Unschedulable(_) => {
                let slots = u32::try_from(cluster.nodes.slots()).unwrap();
                let fits = |node| cluster.feasible(classes[at], NodeId(node));
                assert!(!(0..slots).any(fits), "{} was refused and fits", pod.uid());
                found.push(None);
            }
        }
    }
    let (conflicts, proposed) = (round.conflicts, round.proposed);
    cluster.close(round);
    (found, conflicts, proposed)
}

fn zones() -> Value {
    json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}, }],})
}

fn alone() -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "namespaceSelector": {},
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]}}})
}

fn beside(app: &str) -> Value {
    json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "namespaces": [app], "labelSelector": {"matchLabels": {"app": app}}}]}}})
}

/// What two workers want at the same time: 20 pods of either tenant, of which so many find a place. Whether some of what
/// they propose is in conflict.
#[rstest]
#[case::room_for_all(20, "100", json!({}), json!({}), 40, false)]
#[case::the_last_room(5, "4", json!({}), json!({}), 20, true)]
#[case::one_place_a_node(30, "100", alone(), alone(), 30, true)]
#[case::only_one_side_shuns(30, "100", alone(), json!({}), 40, true)]
#[case::a_spread_of_its_own(9, "100", zones(), zones(), 40, false)]
#[case::a_port_of_the_node(30, "100",
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}, "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
    30, true)]
#[case::the_only_device(30, "100",
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "example.com/gpu": "1"}}}]}),
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "example.com/gpu": "1"}}}]}),
    30, true)]
#[case::whom_it_seeks_comes_meanwhile(9, "100", json!({}), beside("a"), 40, false)]
#[case::nobody_to_sit_with(9, "100", json!({}), beside("c"), 20, false)]
fn conflicts_are_found_and_decided_anew(
    #[case] size: usize,
    #[case] cpu: &str,
    #[case] first: Value,
    #[case] second: Value,
    #[case] placed: usize,
    #[case] conflicts: bool,
) {
    let mut cluster = Cluster::new();
    nodes(&mut cluster, size, cpu);
    let one = |i: usize| pod(&format!("a{i}"), "a", "1", &first);
    let other = |i: usize| pod(&format!("b{i}"), "b", "1", &second);
    let pods: Vec<Pod> = (0..20).flat_map(|i| [one(i), other(i)]).collect();
    let (found, met, proposed) = play(&mut cluster, &pods, 2);
    assert_eq!(found.iter().flatten().count(), placed, "{found:?}");
    assert!(proposed > 0);
    assert_eq!(met > 0, conflicts, "{met} conflicts");
}

#[test]
fn tenants_share_what_is_left_as_they_would_in_turn() {
    let mut cluster = Cluster::new();
    nodes(&mut cluster, 5, "4");
    let none = json!({});
    let of = |app: &str, i: usize| pod(&format!("{app}{i}"), app, "1", &none);
    let pods: Vec<Pod> = (0..20).flat_map(|i| [of("a", i), of("b", i)]).collect();
    let (found, ..) = play(&mut cluster, &pods, 2);
    // Ten each, and of each the first: nobody got room by being faster.
    assert!(found[..20].iter().all(Option::is_some) && found[20..].iter().all(Option::is_none));
}

#[test]
fn the_same_pods_come_to_the_same_nodes_however_fast_the_threads_are() {
    let run = |workers: usize| {
        let mut cluster = Cluster::new();
        nodes(&mut cluster, 50, "8");
        let all: Vec<Pod> = (0..300)
            .map(|i| {
                let more = if i % 7 == 0 { zones() } else { json!({}) };
                let cpu = ["250m", "500m", "1"][i % 3];
                pod(&format!("p{i}"), &format!("t{}", i % 11), cpu, &more)
            })
            .collect();
        let rounds = all
            .chunks(100)
            .map(|part| play(&mut cluster, part, workers).0);
        rounds.flatten().collect::<Vec<_>>()
    };
    for workers in [1, 2, 3, 8] {
        assert_eq!(run(workers), run(workers), "{workers} workers");
    }
}

#[test]
fn one_worker_decides_as_if_there_were_no_rounds() {
    let run = |rounds: bool| {
        let mut cluster = Cluster::new();
        nodes(&mut cluster, 20, "8");
        let all: Vec<Pod> = (0..120)
            .map(|i| pod(&format!("p{i}"), &format!("t{}", i % 5), "1", &json!({})))
            .collect();
        if rounds {
            return play(&mut cluster, &all, 1).0;
        }
        all.iter()
            .map(|pod| {
                let class = cluster.classify(pod);
                let node = cluster.choose(class)?;
                cluster.commit(&pod.uid().into(), class, node);
                Some(node)
            })
            .collect()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn workers_do_not_all_go_for_the_same_nodes() {
    let mut cluster = Cluster::new();
    nodes(&mut cluster, 100, "32");
    // Two sizes, so that there are two ranks.
    let all: Vec<Pod> = (0..100)
        .map(|i| {
            let (app, cpu) = [("a", "1"), ("b", "1001m")][i % 2];
            pod(&format!("p{i}"), app, cpu, &json!({}))
        })
        .collect();
    let (found, ..) = play(&mut cluster, &all, 2);
    let different: FxHashSet<u32> = found.iter().flatten().map(|node| node.0).collect();
    // All going for the same ones would make 50.
    assert!(different.len() > 70, "{}", different.len());
}

#[test]
fn a_round_that_is_not_settled_leaves_no_trace() {
    let mut cluster = Cluster::new();
    nodes(&mut cluster, 4, "10");
    let all: Vec<Pod> = (0..40)
        .map(|i| pod(&format!("p{i}"), &format!("t{}", i % 4), "1", &json!({})))
        .collect();
    let classes: Vec<ClassId> = all.iter().map(|pod| cluster.classify(pod)).collect();
    let round = cluster.propose(classes, 2);
    assert_eq!(round.proposed, 40);
    cluster.close(round);
    let (found, ..) = play(&mut cluster, &all, 1);
    assert!(
        found.iter().all(Option::is_some),
        "all of the room is there"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is asked for at the same time, by however many workers: what is placed was feasible when it was placed,
    /// and what was refused was not (`play` asserts both); every pod is placed once, and room is never overbooked.
    #[test]
    fn what_comes_of_a_round_could_have_come_of_one_decider(
        size in 1..12_usize,
        workers in 1..5_usize,
        strategy in any::<bool>(),
        asked in prop::collection::vec((0..4_usize, 0..3_usize, 0..6_u8), 1..160),
        cut in 1..80_usize,
    ) {
        let mut profile = Profile::default();
        if strategy {
            profile.strategy = crate::core::profile::Strategy::MostAllocated;
        }
        let mut cluster = Cluster::with_profiles(vec![profile]);
        nodes(&mut cluster, size, "8");
        let app = |tenant: usize| ["a", "b", "c", "d"][tenant];
        let all: Vec<Pod> = asked.iter().enumerate().map(|(i, (tenant, cpu, kind))| {
            let more = match kind {
                0 => zones(),
                1 => alone(),
                2 => beside(app((tenant + 1) % 4)),
                _ => json!({}),
            };
            pod(&format!("p{i}"), app(*tenant), ["500m", "1", "2"][*cpu], &more)
        }).collect();
        let mut placed = 0;
        for part in all.chunks(cut) {
            placed += play(&mut cluster, part, workers).0.iter().flatten().count();
        }
        prop_assert_eq!(cluster.placed_uids().count(), placed);
        for room in &cluster.nodes.rooms {
            prop_assert!(room.used.cpu <= room.allocatable.cpu);
        }
        let booked: i64 = cluster.nodes.rooms.iter().map(|room| room.pods).sum();
        prop_assert_eq!(usize::try_from(booked).unwrap(), placed);
        let uids: Vec<Arc<str>> = cluster.placed_uids().cloned().collect();
        for uid in uids {
            cluster.remove(&uid);
        }
        prop_assert!(cluster.nodes.rooms.iter().all(|room| room.used.cpu == 0 && room.pods == 0));
    }
}
