//! The world without an API server: what it writes, and when.

use super::{
    timer::Id,
    world::{Answer, Subject, World, Write},
};
use crate::{
    behaviour::Defaults,
    clock::Millis,
    object::{NodeObject, PodObject},
    options::{NodeGroup, Options},
};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) const T0: Millis = Millis(1_700_000_000_000);

fn options() -> Options {
    Options {
        defaults: Defaults::INSTANT,
        ..Options::default()
    }
}

pub(super) fn node(name: &str, range: Option<&str>) -> NodeObject {
    let mut node = json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"gantry.dev/simulated": "true"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0"},
        },
    });
    if let Some(range) = range {
        node["spec"]["podCIDR"] = range.into();
    }
    serde_json::from_value(node).unwrap()
}

pub(super) fn pod_value(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "i:1"}]},
        "status": {"phase": "Pending"},
    })
}

fn pod(name: &str, node: &str) -> PodObject {
    serde_json::from_value(pod_value(name, node)).unwrap()
}

fn world(nodes: Vec<NodeObject>) -> World {
    let mut world = World::new(options(), T0).unwrap();
    world.node_seen(Event::Init, T0);
    for node in nodes {
        world.node_seen(Event::InitApply(node), T0);
    }
    world.node_seen(Event::InitDone, T0);
    world
}

fn writes(world: &mut World, now: Millis) -> Vec<(Subject, Write)> {
    std::iter::from_fn(|| world.next_write(now)).collect()
}

/// Answers everything with success until nothing is left to write.
pub(super) fn settle(world: &mut World, now: Millis) -> Vec<(Subject, Write)> {
    let mut all = Vec::new();
    loop {
        world.tick(now);
        let next = writes(world, now);
        if next.is_empty() {
            return all;
        }
        for (subject, write) in next {
            world.answered(subject, &Answer::Done, now);
            all.push((subject, write));
        }
    }
}

fn statuses(writes: &[(Subject, Write)]) -> Vec<(Id, &Value)> {
    writes
        .iter()
        .filter_map(|(subject, write)| match (subject, write) {
            (Subject::PodStatus(id), Write::Strategic(_, _, Some("status"), patch)) => {
                Some((*id, patch))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn one_write_in_flight_and_the_latest_state_in_the_next() {
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    settle(&mut world, T0);
    world.pod_seen(Event::Apply(pod("a", "n")), T0);
    let first = writes(&mut world, T0);
    assert_eq!(statuses(&first).len(), 1);
    let mut changed = pod_value("a", "n");
    changed["spec"]["containers"][0]["image"] = "i:2".into();
    world.pod_seen(
        Event::Apply(serde_json::from_value(changed.clone()).unwrap()),
        T0,
    );
    changed["spec"]["containers"][0]["image"] = "i:3".into();
    world.pod_seen(Event::Apply(serde_json::from_value(changed).unwrap()), T0);
    assert_eq!(writes(&mut world, T0), [], "the first is still in flight");
    world.answered(first[0].0, &Answer::Done, T0);
    let second = writes(&mut world, T0);
    let patch = statuses(&second)[0].1;
    assert_eq!(patch["status"]["containerStatuses"][0]["image"], "i:3");
}

#[test]
fn a_ready_pod_that_somebody_calls_not_ready_is_reported_again() {
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    world.pod_seen(Event::Apply(pod("a", "n")), T0);
    let reports = settle(&mut world, T0);
    let ready = statuses(&reports).last().unwrap().1["status"].clone();
    let mut object = pod_value("a", "n");
    object["status"] = ready;
    let show = |world: &mut World, status: &str, now| {
        let mut object = object.clone();
        for condition in object["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = status.into();
            }
        }
        world.pod_seen(Event::Apply(serde_json::from_value(object).unwrap()), now);
    };
    // The watch is behind for a moment: nothing to do.
    show(&mut world, "False", T0);
    show(&mut world, "True", T0);
    let later = T0.plus(Duration::from_secs(5));
    assert_eq!(statuses(&settle(&mut world, later)), []);
    // The node controller's false alarm.
    show(&mut world, "False", later);
    assert_eq!(statuses(&settle(&mut world, later)), []);
    let repaired = settle(&mut world, later.plus(Duration::from_secs(2)));
    let conditions = statuses(&repaired)[0].1["status"]["conditions"].clone();
    let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    assert!(
        conditions.as_array().unwrap().iter().any(is_ready),
        "{conditions}"
    );
    assert_eq!(repaired.len(), 1);
}

#[test]
fn a_failed_write_is_tried_again_later_and_a_missing_pod_is_not() {
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    settle(&mut world, T0);
    world.pod_seen(Event::Apply(pod("a", "n")), T0);
    let mut now = T0;
    let mut tried = Vec::new();
    while tried.len() < 7 {
        for (subject, _) in writes(&mut world, now) {
            let mut answer = Answer::Done;
            if matches!(subject, Subject::PodStatus(_)) {
                tried.push(now);
                answer = match tried.len() {
                    7 => Answer::Missing,
                    _ => Answer::Failed("away".into()),
                };
            }
            world.answered(subject, &answer, now);
        }
        now = world.next().unwrap();
        world.tick(now);
    }
    let gaps: Vec<_> = tried
        .windows(2)
        .map(|pair| pair[1].since(pair[0]).as_millis())
        .collect();
    for (index, gap) in gaps.iter().enumerate() {
        let most = 100 << index;
        assert!((most / 2..=most).contains(gap), "{gaps:?}");
    }
    let later = now.plus(Duration::from_secs(60));
    assert_eq!(statuses(&settle(&mut world, later)), []);
}

#[test]
fn a_pod_replaced_by_one_of_the_same_name_starts_anew() {
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    settle(&mut world, T0);
    world.pod_seen(Event::Apply(pod("a", "n")), T0);
    let old = writes(&mut world, T0);
    let mut next = pod_value("a", "n");
    next["metadata"]["uid"] = "another".into();
    world.pod_seen(Event::Apply(serde_json::from_value(next).unwrap()), T0);
    world.answered(old[0].0, &Answer::Conflict, T0);
    let new = settle(&mut world, T0);
    let new = statuses(&new);
    assert_eq!(new.len(), 1);
    assert_eq!(new[0].1["metadata"]["uid"], "another");
    // The late deletion of the old one is not the new one's.
    world.pod_seen(Event::Delete(pod("a", "n")), T0);
    assert_eq!(world.pod_count(), 1);
}

#[test]
fn what_a_list_no_longer_shows_is_forgotten() {
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    for name in ["a", "b"] {
        world.pod_seen(Event::Apply(pod(name, "n")), T0);
    }
    world.pod_seen(Event::Init, T0);
    world.pod_seen(Event::InitApply(pod("b", "n")), T0);
    world.pod_seen(Event::InitDone, T0);
    assert_eq!(world.pod_count(), 1);
    world.node_seen(Event::Init, T0);
    world.node_seen(Event::InitDone, T0);
    assert_eq!((world.node_count(), world.pod_count()), (0, 0));
}

#[test]
fn a_node_that_comes_late_or_plays_dead_finds_its_pods() {
    let mut world = world(vec![]);
    world.pod_seen(Event::Apply(pod("a", "n")), T0);
    assert_eq!(world.pod_count(), 0);
    world.node_seen(Event::Apply(node("n", None)), T0);
    assert_eq!(world.newcomers(), ["n"]);
    world.pod_seen(Event::Apply(pod("a", "n")), T0);
    settle(&mut world, T0);
    let mut dead = node("n", Some("10.64.0.0/24"));
    dead.metadata.annotations =
        Some([("hollow.gantry.dev/down".to_owned(), "true".to_owned())].into());
    world.node_seen(Event::Apply(dead), T0);
    assert_eq!((world.node_count(), world.pod_count()), (0, 0));
    let later = T0.plus(Duration::from_secs(60));
    assert_eq!(
        settle(&mut world, later),
        [],
        "no lease, no report, no status"
    );
    world.node_seen(Event::Apply(node("n", Some("10.64.0.0/24"))), later);
    assert_eq!(world.newcomers(), ["n"]);
}

#[test]
fn nodes_without_a_range_get_one_that_no_other_has() {
    let mut world = world(vec![
        node("a", None),
        node("b", Some("10.64.0.0/24")),
        node("c", None),
    ]);
    let all = settle(&mut world, T0);
    let ranges: Vec<_> = all
        .iter()
        .filter_map(|(subject, write)| match (subject, write) {
            (Subject::NodeRange(_), Write::Strategic(_, name, None, patch)) => {
                Some((name.as_str(), patch["spec"]["podCIDR"].as_str().unwrap()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(ranges, [("a", "10.64.1.0/24"), ("c", "10.64.2.0/24")]);
}

#[test]
fn a_range_given_by_somebody_else_holds() {
    let mut world = world(vec![node("a", None)]);
    world.node_seen(Event::Apply(node("a", Some("10.99.0.0/24"))), T0);
    let all = settle(&mut world, T0);
    assert!(
        !all.iter()
            .any(|(subject, _)| matches!(subject, Subject::NodeRange(_))),
        "{all:?}"
    );
    world.pod_seen(Event::Apply(pod("p", "a")), T0);
    let all = settle(&mut world, T0);
    let ip = statuses(&all).last().unwrap().1["status"]["podIP"].clone();
    assert_eq!(ip, "10.99.0.2");
}

#[test]
fn leases_are_renewed_every_ten_seconds_and_spread_out() {
    let nodes = (0..200)
        .map(|index| node(&format!("n-{index}"), Some(&format!("10.64.{index}.0/24"))))
        .collect();
    let mut world = world(nodes);
    settle(&mut world, T0);
    let mut a_second = [0; 30];
    for second in 0..30 {
        let now = T0.plus(Duration::from_secs(second + 1));
        let all = settle(&mut world, now);
        a_second[second as usize] = all
            .iter()
            .filter(|(subject, _)| matches!(subject, Subject::Lease(_)))
            .count();
    }
    assert_eq!(a_second[10..20].iter().sum::<usize>(), 200, "{a_second:?}");
    assert!(
        a_second.iter().all(|count| (5..50).contains(count)),
        "{a_second:?}"
    );
}

#[test]
fn the_options_nodes_are_created_where_they_are_missing() {
    let mut world = World::new(
        Options {
            groups: vec![NodeGroup::new("r", "c", 3)],
            ..options()
        },
        T0,
    )
    .unwrap();
    world.node_seen(Event::Init, T0);
    world.node_seen(Event::InitApply(node("c-002", Some("10.64.0.0/24"))), T0);
    world.node_seen(Event::InitDone, T0);
    world.create_missing().unwrap();
    let mut created = Vec::new();
    for (subject, write) in writes(&mut world, T0) {
        if let Write::Create(collection, body) = write
            && collection == "/api/v1/nodes"
        {
            created.push((
                body["metadata"]["name"].clone(),
                body["spec"]["podCIDR"].clone(),
            ));
            world.answered(subject, &Answer::Failed("away".into()), T0);
        }
    }
    assert_eq!(
        created,
        [
            ("c-001".into(), "10.64.1.0/24".into()),
            ("c-003".into(), "10.64.2.0/24".into())
        ]
    );
    let later = T0.plus(Duration::from_secs(1));
    let again = settle(&mut world, later);
    assert_eq!(
        again
            .iter()
            .filter(|(subject, _)| matches!(subject, Subject::Create(_)))
            .count(),
        2
    );
}

#[test]
fn volumes_are_in_use_while_a_pod_with_claims_is_there() {
    let attached = |in_use: Value| -> NodeObject {
        let mut node = json!({
            "metadata": {"name": "n", "uid": "uid-n", "labels": {"gantry.dev/simulated": "true"}},
            "spec": {"podCIDR": "10.64.0.0/24"},
            "status": {
                "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0"},
                "volumesAttached": [{"name": "kubernetes.io/csi/d^v", "devicePath": ""}],
            },
        });
        node["status"]["volumesInUse"] = in_use;
        serde_json::from_value(node).unwrap()
    };
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    let mut claimed = pod_value("a", "n");
    claimed["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-a"}}]);
    let claimed: PodObject = serde_json::from_value(claimed).unwrap();
    world.pod_seen(Event::Apply(claimed.clone()), T0);
    settle(&mut world, T0);
    let told = |writes: &[(Subject, Write)]| -> Vec<Value> {
        let patches = writes
            .iter()
            .filter_map(|(subject, write)| match (subject, write) {
                (Subject::NodeVolumes(_), Write::Strategic(.., patch)) => Some(patch),
                _ => None,
            });
        patches
            .map(|it| it["status"]["volumesInUse"].clone())
            .collect()
    };
    world.node_seen(Event::Apply(attached(Value::Null)), T0);
    let volumes = json!(["kubernetes.io/csi/d^v"]);
    assert_eq!(told(&settle(&mut world, T0)), vec![volumes.clone()]);
    world.node_seen(Event::Apply(attached(volumes)), T0);
    assert_eq!(told(&settle(&mut world, T0)), [] as [Value; 0]);
    world.pod_seen(Event::Delete(claimed), T0);
    assert_eq!(told(&settle(&mut world, T0)), [json!([])]);
}

/// A pod that asks for so many CPUs, as the API shows it after a status was written.
fn asking(name: &str, cpu: &str, status: &Value) -> PodObject {
    let mut pod = pod_value(name, "n");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod["status"] = status.clone();
    serde_json::from_value(pod).unwrap()
}

/// Reasons of the conditions of a resize that a patch tells of.
fn resize_reasons(patch: &Value) -> Vec<String> {
    let all = patch["status"]["conditions"].as_array().unwrap().iter();
    all.filter(|it| it["type"] == "PodResizePending" && it["status"] == "True")
        .map(|it| it["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_resize_waits_for_room_and_gets_it() {
    let mut world = world(vec![node("n", Some("10.64.0.0/24"))]);
    settle(&mut world, T0);
    let pending = json!({"phase": "Pending"});
    world.pod_seen(Event::Apply(asking("a", "2", &pending)), T0);
    world.pod_seen(Event::Apply(asking("b", "2", &pending)), T0);
    settle(&mut world, T0);
    world.pod_seen(Event::Apply(asking("a", "3", &pending)), T0);
    let told = settle(&mut world, T0);
    assert_eq!(resize_reasons(statuses(&told)[0].1), ["Deferred"]);
    world.pod_seen(Event::Apply(asking("a", "5", &pending)), T0);
    let told = settle(&mut world, T0);
    assert_eq!(resize_reasons(statuses(&told)[0].1), ["Infeasible"]);
    world.pod_seen(Event::Apply(asking("a", "4", &pending)), T0);
    assert_eq!(
        resize_reasons(statuses(&settle(&mut world, T0))[0].1),
        ["Deferred"]
    );

    // The other goes; what it had is given to the one that waits.
    world.pod_seen(Event::Delete(asking("b", "2", &pending)), T0);
    let told = settle(&mut world, T0);
    let patch = statuses(&told).last().unwrap().1;
    assert!(resize_reasons(patch).is_empty(), "{patch}");
    assert_eq!(
        patch["status"]["containerStatuses"][0]["allocatedResources"],
        json!({"cpu": "4"})
    );
    // And then nobody else gets it.
    world.pod_seen(Event::Apply(asking("c", "1", &pending)), T0);
    let told = settle(&mut world, T0);
    assert_eq!(statuses(&told)[0].1["status"]["reason"], "OutOfcpu");
}

const STATIC: &str = r#"
nodes:
  - class: plain
    staticPods: [{name: proxy, image: "proxy:1", cpu: 100m, priorityClass: system-node-critical}]
"#;

/// A world whose node runs a static pod.
fn staffed() -> World {
    let scenario = crate::Scenario::parse(STATIC, &|name| Err(name.to_owned())).unwrap();
    let mut options = options();
    std::sync::Arc::new(scenario).apply(&mut options);
    let mut world = World::new(options, T0).unwrap();
    world.begin(T0, T0);
    let mut one: Value = json!({
        "metadata": {"name": "n", "uid": "uid-n", "labels": {"gantry.dev/simulated": "true", "hollow.gantry.dev/class": "plain"}},
        "spec": {"podCIDR": "10.64.0.0/24"},
    });
    one["status"] = json!({
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
    });
    world.node_seen(Event::Init, T0);
    world.node_seen(Event::InitApply(serde_json::from_value(one).unwrap()), T0);
    world.node_seen(Event::InitDone, T0);
    world
}

/// The mirrors that are created, as the API would show them with this uid.
fn mirrors(writes: &[(Subject, Write)], uid: &str) -> Vec<Value> {
    let created = writes.iter().filter_map(|(_, write)| match write {
        Write::Create(collection, object) if collection.ends_with("/pods") => Some(object.clone()),
        _ => None,
    });
    created
        .map(|mut it| {
            it["metadata"]["uid"] = uid.into();
            it["status"] = json!({"phase": "Pending"});
            it
        })
        .collect()
}

fn seen(value: &Value) -> PodObject {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn a_static_pod_outlives_its_mirrors() {
    let mut world = staffed();
    let early = settle(&mut world, T0);
    assert!(
        mirrors(&early, "m-1").is_empty(),
        "not before all pods are known"
    );
    world.pod_seen(Event::Init, T0);
    world.pod_seen(Event::InitDone, T0);
    let first = mirrors(&settle(&mut world, T0), "m-1");
    let [mirror] = first.as_slice() else {
        panic!("{first:#?}");
    };
    assert_eq!(mirror["metadata"]["name"], "proxy-n");
    world.pod_seen(Event::Apply(seen(mirror)), T0);
    let told = settle(&mut world, T0);
    let status = statuses(&told).last().unwrap().1["status"].clone();
    assert_eq!(status["phase"], "Running");

    // Somebody deletes the mirror: it goes at once, and the containers run on.
    let mut dying = mirror.clone();
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    dying["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    let later = T0.plus(Duration::from_secs(60));
    world.pod_seen(Event::Apply(seen(&dying)), later);
    let told = settle(&mut world, later);
    let gone = told.iter().any(|(_, write)| matches!(write, Write::Delete(_, name, uid) if name == "proxy-n" && uid == "m-1"));
    assert!(gone, "{told:?}");
    world.pod_seen(Event::Delete(seen(&dying)), later);
    let again = mirrors(&settle(&mut world, later), "m-2");
    assert_eq!(again.len(), 1);
    assert_eq!(
        again[0]["metadata"]["annotations"]["kubernetes.io/config.hash"],
        mirror["metadata"]["annotations"]["kubernetes.io/config.hash"]
    );
    world.pod_seen(Event::Apply(seen(&again[0])), later);
    let told = settle(&mut world, later);
    let patch = statuses(&told).last().unwrap().1;
    assert_eq!(patch["metadata"]["uid"], "m-2");
    for key in ["containerStatuses", "startTime", "phase"] {
        assert_eq!(
            patch["status"][key], status[key],
            "{key}: it is the same pod"
        );
    }

    // A mirror of what the file said before goes, and one of what it says now comes.
    let mut outdated = again[0].clone();
    outdated["metadata"]["uid"] = "m-3".into();
    outdated["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "old".into();
    outdated["metadata"]["annotations"]["kubernetes.io/config.hash"] = "old".into();
    let mut other = staffed();
    settle(&mut other, T0);
    other.pod_seen(Event::Init, T0);
    other.pod_seen(Event::InitApply(seen(&outdated)), T0);
    other.pod_seen(Event::InitDone, T0);
    let told = settle(&mut other, T0);
    assert!(
        told.iter()
            .any(|(_, write)| matches!(write, Write::Delete(_, _, uid) if uid == "m-3")),
        "{told:?}"
    );
    other.pod_seen(Event::Delete(seen(&outdated)), T0);
    assert_eq!(mirrors(&settle(&mut other, T0), "m-4").len(), 1);
}
