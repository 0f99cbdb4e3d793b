//! Tables of the planner of node lifecycle.

use super::*;
use crate::model::Pod;
use rstest::rstest;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(ready: Option<&str>, taints: Value) -> Node {
    let conditions: Vec<Value> = ready
        .map(|status| json!({"type": "Ready", "status": status, "reason": "R"}))
        .into_iter()
        .collect();
    serde_json::from_value(
        json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
        "status": {"conditions": conditions}}),
    )
    .unwrap()
}

#[rstest]
#[case(Some("True"), 40, Health::Ready)]
#[case(Some("True"), 41, Health::Unknown)]
#[case(Some("False"), 40, Health::NotReady)]
#[case(Some("Unknown"), 0, Health::Unknown)]
#[case(None, 60, Health::New)]
#[case(None, 61, Health::Unknown)]
fn silence_makes_a_node_unknown(
    #[case] ready: Option<&str>,
    #[case] now: i64,
    #[case] wanted: Health,
) {
    let node = node(ready, json!([]));
    assert_eq!(health(&node, at(0), Timing::default(), at(now)), wanted);
}

#[test]
fn renewals_and_heartbeats_are_signs_of_life() {
    let lease = |text: &str| -> Lease {
        serde_json::from_value(json!({"metadata": {}, "spec": {"renewTime": text}})).unwrap()
    };
    let quiet = node(Some("True"), json!([]));
    let first = lease("2020-01-01T00:00:00.000000Z");
    let mut heard = Heard::first(&quiet, Some(&first), at(0));
    heard.look(&quiet, Some(&first), at(10));
    heard.look(&quiet, None, at(20));
    assert_eq!(heard.at, at(0), "nothing new");
    heard.look(&quiet, Some(&lease("2020-01-01T00:00:10.000000Z")), at(30));
    assert_eq!(heard.at, at(30), "by this clock, whatever the node's says");
    let beats: Node = serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": "2020-01-01T00:00:00Z"}]}}))
    .unwrap();
    heard.look(&beats, None, at(40));
    assert_eq!(heard.at, at(40));
}

#[test]
fn what_is_not_known_is_told_once() {
    let told = unknown_conditions(&node(Some("True"), json!([])), at(0));
    let brief: Vec<String> = told
        .iter()
        .map(|c| format!("{} {}", c["type"], c["reason"]))
        .collect();
    assert_eq!(
        brief,
        [
            r#""Ready" "NodeStatusUnknown""#,
            r#""MemoryPressure" "NodeStatusNeverUpdated""#,
            r#""DiskPressure" "NodeStatusNeverUpdated""#,
            r#""PIDPressure" "NodeStatusNeverUpdated""#
        ]
    );
    let again = unknown_conditions(&node(Some("Unknown"), json!([])), at(0));
    assert_eq!(again.len(), 3);
}

const BOTH: &[&str] = &["unreachable:NoSchedule", "unreachable:NoExecute"];

#[rstest]
#[case::healthy(Health::Ready, &[], true, &[])]
#[case::silent(Health::Unknown, &[], true, BOTH)]
#[case::silent_but_not_yet_its_turn(Health::Unknown, &[], false, &["unreachable:NoSchedule"])]
#[case::stays(Health::Unknown, BOTH, false, BOTH)]
#[case::back(Health::Ready, BOTH, true, &[])]
#[case::not_ready(Health::NotReady, &[], true, &["not-ready:NoSchedule", "not-ready:NoExecute"])]
#[case::swapped(Health::NotReady, BOTH, false, &["not-ready:NoSchedule", "not-ready:NoExecute"])]
#[case::new(Health::New, &["not-ready:NoSchedule"], true, &["not-ready:NoSchedule"])]
#[case::others_stay(Health::Ready, &["mine:NoExecute", "unreachable:NoExecute"], true, &["mine:NoExecute"])]
fn taints_follow_health(
    #[case] health: Health,
    #[case] old: &[&str],
    #[case] turn: bool,
    #[case] wanted: &[&str],
) {
    let old: Vec<Value> = old
        .iter()
        .map(|t| {
            let (key, effect) = t.split_once(':').unwrap();
            json!({"key": format!("node.kubernetes.io/{key}"), "effect": effect})
        })
        .collect();
    let node = node(Some("True"), json!(old));
    let pace = Pace::Every(INTERVAL);
    let new = wanted_taints(&node, health, pace, || turn, at(7));
    let told: Vec<String> = new
        .as_ref()
        .unwrap_or(&node.spec.taints)
        .iter()
        .map(|t| {
            format!(
                "{}:{}",
                t.key.trim_start_matches("node.kubernetes.io/"),
                t.effect
            )
        })
        .collect();
    assert_eq!(told, wanted);
    for taint in new.iter().flatten() {
        let added = !node.spec.taints.contains(taint);
        assert_eq!(taint.time_added, added.then(|| at(7)));
    }
}

#[test]
fn conditions_and_cordons_keep_new_pods_away() {
    let node: Node = serde_json::from_value(json!({"metadata": {}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}]}}))
    .unwrap();
    let keys: Vec<String> = taints::no_schedule(&node, Health::Ready)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        keys,
        [
            "node.kubernetes.io/disk-pressure",
            "node.kubernetes.io/unschedulable"
        ]
    );
}

#[rstest]
#[case::well(&[(10, 1)], &[Pace::Every(INTERVAL)])]
#[case::two_of_three(&[(1, 2)], &[Pace::Every(INTERVAL)])]
#[case::small_in_trouble(&[(4, 6)], &[Pace::Stop])]
#[case::large_in_trouble(&[(20, 40)], &[Pace::Every(INTERVAL_IN_TROUBLE)])]
#[case::one_zone_down(&[(0, 9), (5, 0)], &[Pace::Every(INTERVAL), Pace::Every(INTERVAL)])]
#[case::all_down(&[(0, 9), (0, 1)], &[Pace::Retract, Pace::Retract])]
fn many_failures_slow_it_down(#[case] zones: &[(usize, usize)], #[case] wanted: &[Pace]) {
    let zones: Vec<Zone> = zones
        .iter()
        .map(|(ready, unready)| Zone {
            ready: *ready,
            unready: *unready,
        })
        .collect();
    assert_eq!(paces(&zones), wanted);
}

#[test]
fn nodes_that_are_excluded_do_not_count_in_their_zones() {
    let node = |excluded: Option<&str>| -> Node {
        let labels = excluded.map(|value| json!({EXCLUDED: value}));
        serde_json::from_value(json!({"metadata": {"labels": labels.unwrap_or(json!({}))}}))
            .unwrap()
    };
    let (plain, out, out_too) = (node(None), node(Some("true")), node(Some("")));
    let nodes = [
        (&plain, Health::Ready, "a"),
        (&plain, Health::Unknown, "a"),
        (&plain, Health::New, "a"),
        (&out, Health::Unknown, "a"),
        (&out_too, Health::Ready, "b"),
    ];
    let of_a = Zone {
        ready: 1,
        unready: 2,
    };
    assert_eq!(zones(nodes.into_iter()), [("a", of_a)].into());
}

#[test]
fn one_node_of_a_zone_at_a_time() {
    let mut limits = Limits::default();
    let pace = Pace::Every(INTERVAL);
    assert!(limits.take("a", pace, at(0)));
    assert!(!limits.take("a", pace, at(9)));
    assert!(limits.take("b", pace, at(9)));
    assert!(limits.take("a", pace, at(10)));
    assert!(!limits.take("c", Pace::Stop, at(10)));
}

#[test]
fn when_all_are_down_nobody_is_driven_away() {
    let taint = json!([{"key": taints::UNREACHABLE, "effect": "NoExecute"}]);
    let node = node(Some("Unknown"), taint);
    let new = wanted_taints(&node, Health::Unknown, Pace::Retract, || true, at(0)).unwrap();
    assert!(new.iter().all(|t| t.effect == "NoSchedule"), "{new:?}");
}

#[rstest]
#[case::not_tolerated(json!([]), Some(100))]
#[case::for_a_time(json!([{"key": taints::UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]), Some(400))]
#[case::for_ever(json!([{"key": taints::UNREACHABLE, "operator": "Exists"}]), None)]
#[case::all(json!([{"operator": "Exists"}]), None)]
#[case::another(json!([{"key": taints::NOT_READY, "operator": "Exists"}]), Some(100))]
#[case::negative(json!([{"operator": "Exists", "tolerationSeconds": -5}]), Some(100))]
fn pods_leave_when_toleration_is_over(#[case] tolerations: Value, #[case] wanted: Option<i64>) {
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"creationTimestamp": "1970-01-01T00:00:50Z"},
        "spec": {"tolerations": tolerations}}),
    )
    .unwrap();
    let taint = |effect: &str| Taint {
        key: taints::UNREACHABLE.into(),
        effect: effect.into(),
        time_added: Some(at(100)),
        ..Taint::default()
    };
    let both = [taint("NoSchedule"), taint("NoExecute")];
    assert_eq!(taints::leaves_at(&pod, &both), wanted.map(at));
}

#[test]
fn a_pod_made_later_has_its_time_too() {
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"creationTimestamp": "1970-01-01T00:10:00Z"},
        "spec": {"tolerations": [{"operator": "Exists", "tolerationSeconds": 5}]}}),
    )
    .unwrap();
    let taint = Taint {
        key: taints::UNREACHABLE.into(),
        effect: "NoExecute".into(),
        time_added: Some(at(100)),
        ..Taint::default()
    };
    assert_eq!(taints::leaves_at(&pod, &[taint]), Some(at(605)));
}
