use super::*;
use crate::core::object::{Node, Pod, PodGroup};
use proptest::prelude::*;
use serde_json::json;

fn cluster(nodes: usize, cpu: u32) -> Cluster {
    let mut cluster = Cluster::new();
    for i in 0..nodes {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": format!("n{i}")},
            "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "64Gi", "pods": "110"}}}))
        .unwrap();
        cluster.upsert_node(&node);
    }
    cluster
}

fn group(cluster: &mut Cluster, name: &str, min: usize) {
    let group: PodGroup =
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "d"},
        "spec": {"minMember": min, "scheduleTimeoutSeconds": 7}}))
        .unwrap();
    cluster.set_pod_group(&group);
    cluster.settle_rules();
}

fn pod(name: &str, gang: Option<&str>, cpu: &str, priority: i32) -> Pod {
    let labels = gang.map_or(json!({}), |gang| json!({POD_GROUP: gang}));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": labels},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    }))
    .unwrap()
}

fn members(
    cluster: &mut Cluster,
    gang: &str,
    sizes: &[&str],
    priority: i32,
) -> Vec<(Arc<str>, ClassId)> {
    let pods = sizes.iter().enumerate();
    pods.map(|(i, cpu)| {
        let pod = pod(&format!("{gang}-{i}"), Some(gang), cpu, priority);
        (pod.uid().into(), cluster.classify(&pod))
    })
    .collect()
}

fn state(cluster: &Cluster) -> Vec<crate::core::nodes::Room> {
    cluster.nodes.rooms.clone()
}

#[test]
fn all_that_is_needed_or_nothing() {
    let mut cluster = cluster(2, 4);
    group(&mut cluster, "ring", 3);
    let ring = members(&mut cluster, "ring", &["2", "2", "2", "4"], 0);
    let id = cluster.gang_of(ring[0].1).unwrap();
    assert_eq!(cluster.gang(id).timeout, Some(Duration::from_secs(7)));
    assert!(cluster.gang_incomplete(ring[0].1, id, 3).is_none());
    assert_eq!(
        cluster.gang_incomplete(ring[0].1, id, 2).unwrap().summary,
        "0/2 nodes are available: pod group ring waits for members: 2 of at least 3 are there."
    );
    // The fourth member finds no node, and is not needed.
    let placed = cluster.place_gang(id, &ring, |_| false).unwrap();
    assert_eq!(placed.len(), 3);
    assert_eq!(cluster.gang(id).placed, 3);
    // A second one of that kind does not fit, and leaves nothing behind.
    group(&mut cluster, "late", 2);
    let late = members(&mut cluster, "late", &["2", "2"], 0);
    let id = cluster.gang_of(late[0].1).unwrap();
    let events = cluster.events.len();
    let (class, diagnosis) = cluster.place_gang(id, &late, |_| false).unwrap_err();
    assert_eq!(class, late[0].1);
    assert!(
        diagnosis.message.contains("2 Insufficient cpu"),
        "{}",
        diagnosis.message
    );
    assert_eq!((cluster.gang(id).placed, cluster.events.len()), (0, events));
    // A member that was placed before counts.
    cluster.remove("ring-0");
    assert!(cluster.place_gang(id, &late, |_| false).is_ok());
}

#[test]
fn a_gang_makes_room_for_all_of_itself_or_for_nobody() {
    let mut cluster = cluster(3, 2);
    for i in 0..3 {
        let low = pod(&format!("low{i}"), None, "2", if i == 2 { 9 } else { 0 });
        cluster.observe(&low, &format!("n{i}"));
    }
    group(&mut cluster, "g", 2);
    let g = members(&mut cluster, "g", &["2", "2"], 5);
    let id = cluster.gang_of(g[0].1).unwrap();
    let placed = cluster.place_gang(id, &g, |_| false).unwrap();
    let mut victims: Vec<&str> = placed
        .iter()
        .flat_map(|m| m.victims.iter().map(|v| &**v))
        .collect();
    victims.sort_unstable();
    assert_eq!(victims, ["low0", "low1"]);
    for member in &placed {
        cluster.remove(&member.uid);
    }
    group(&mut cluster, "h", 3);
    let h = members(&mut cluster, "h", &["2", "2", "2"], 5);
    let id = cluster.gang_of(h[0].1).unwrap();
    let before = state(&cluster);
    assert!(cluster.place_gang(id, &h, |_| false).is_err());
    assert_eq!(state(&cluster), before);
}

proptest! {
    /// A gang has its minimum placed, or it changes nothing at all; what it is given fits.
    #[test]
    fn all_or_nothing(taken in prop::collection::vec(0..5_u32, 1..6), sizes in prop::collection::vec(1..5_u32, 1..8), min in 1..8_usize) {
        let mut cluster = cluster(taken.len(), 4);
        for (i, cpu) in taken.iter().enumerate() {
            if *cpu > 0 {
                cluster.observe(&pod(&format!("t{i}"), None, &cpu.to_string(), 0), &format!("n{i}"));
            }
        }
        group(&mut cluster, "g", min);
        let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
        let g = members(&mut cluster, "g", &sizes, 0);
        let id = cluster.gang_of(g[0].1).unwrap();
        let before = state(&cluster);
        match cluster.place_gang(id, &g, |_| false) {
            Ok(placed) => {
                prop_assert!(placed.len() >= min);
                prop_assert_eq!(cluster.gang(id).placed, placed.len());
                for room in &cluster.nodes.rooms {
                    prop_assert!(room.used.cpu <= room.allocatable.cpu);
                }
            }
            Err(_) => {
                prop_assert_eq!(state(&cluster), before);
                prop_assert_eq!(cluster.gang(id).placed, 0);
            }
        }
    }
}
