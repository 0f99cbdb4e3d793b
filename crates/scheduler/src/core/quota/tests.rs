use super::*;
use crate::core::object::{ElasticQuota, Node, Pod};
use crate::core::{Cluster, Decision};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Arc;

fn quota(name: &str, namespace: &str, labels: Value, min: Value, max: Value) -> ElasticQuota {
    serde_json::from_value(
        json!({"metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"min": min, "max": max}}),
    )
    .unwrap()
}

/// Two departments of 8 and 4 CPUs; the first has teams a (2, at most 7) and b (4), the second team c (4).
fn departments() -> Vec<ElasticQuota> {
    let parent = |name: &str, cpu: &str| {
        quota(
            name,
            "root",
            json!({IS_PARENT: "true"}),
            json!({"cpu": cpu}),
            json!({}),
        )
    };
    let team = |name: &str, above: &str, cpu: &str, max: Value| {
        quota(name, name, json!({PARENT: above}), json!({"cpu": cpu}), max)
    };
    vec![
        parent("one", "8"),
        parent("two", "4"),
        team("a", "one", "2", json!({"cpu": "7"})),
        team("b", "one", "4", json!({})),
        team("c", "two", "4", json!({"cpu": "12"})),
    ]
}

fn quotas() -> (Quotas, Symbols) {
    let (mut quotas, mut symbols) = (Quotas::default(), Symbols::default());
    for quota in departments() {
        quotas.set(&quota, &mut symbols);
    }
    (quotas, symbols)
}

/// What the teams a, b and c use, what one of them wants, and what comes of it.
#[rstest]
#[case::within_its_own([0, 0, 0], "a", 2, "guaranteed")]
#[case::of_its_department([2, 0, 0], "a", 1, "guaranteed")]
#[case::at_most([7, 0, 0], "a", 1, "over a")]
#[case::of_its_department_still([2, 4, 0], "b", 2, "guaranteed")]
#[case::of_the_other_department([4, 4, 0], "b", 1, "borrows")]
#[case::of_the_other_department_all([4, 4, 0], "b", 4, "borrows")]
#[case::more_than_there_is([4, 4, 0], "b", 5, "nothing b")]
#[case::its_own_though_lent([4, 8, 0], "c", 4, "guaranteed")]
#[case::beyond_its_own_lent([4, 8, 0], "c", 5, "nothing c")]
fn verdicts(#[case] used: [i64; 3], #[case] team: &str, #[case] wants: i64, #[case] want: &str) {
    let (mut quotas, mut symbols) = quotas();
    let cpu = symbols.intern("cpu");
    let find = |quotas: &Quotas, name: &str| quotas.by_name[&symbols.known(name).unwrap()];
    for (name, used) in ["a", "b", "c"].into_iter().zip(used) {
        let at = find(&quotas, name);
        quotas.book(at, 0, &[(cpu, used * 1000)], 1);
    }
    let name = |at: u32| symbols.text(quotas.all[at as usize].name);
    let got = match quotas.verdict(find(&quotas, team), &[(cpu, wants * 1000)]) {
        Verdict::Guaranteed => "guaranteed".to_owned(),
        Verdict::Borrows => "borrows".to_owned(),
        Verdict::Over(at, _) => format!("over {}", name(at)),
        Verdict::NothingToBorrow(at, _) => format!("nothing {}", name(at)),
    };
    assert_eq!(got, want);
}

/// What the teams use, what one of them wants more than it can have, and what is told to do. Who asks for so much less
/// can have it, and for a little more not.
#[rstest]
#[case::at_most([6, 0, 0], "a", 2, "request 1 less cpu, or free 1 cpu in quota a, or raise max of cpu of quota a to 8")]
#[case::all_of_it([7, 0, 0], "a", 1, "free 1 cpu in quota a, or raise max of cpu of quota a to 8")]
#[case::more_than_there_is([4, 4, 0], "b", 5, "request 1 less cpu, or free 1 cpu in quota b, or raise min of cpu of quota b to 9")]
#[case::beyond_its_own_lent([4, 8, 0], "c", 5, "request 1 less cpu, or raise min of cpu of quota c to 5")]
fn what_to_do_about_a_full_quota(
    #[case] used: [i64; 3],
    #[case] team: &str,
    #[case] wants: i64,
    #[case] want: &str,
) {
    let (mut quotas, mut symbols) = quotas();
    let cpu = symbols.intern("cpu");
    let find = |quotas: &Quotas, name: &str| quotas.by_name[&symbols.known(name).unwrap()];
    for (name, used) in ["a", "b", "c"].into_iter().zip(used) {
        let at = find(&quotas, name);
        quotas.book(at, 0, &[(cpu, used * 1000)], 1);
    }
    let team = find(&quotas, team);
    let lacking = quotas.lacking(team, &[(cpu, wants * 1000)]);
    let [(verdict, missing, wanted)] = lacking[..] else {
        panic!("{lacking:?}");
    };
    assert_eq!(verdict, quotas.verdict(team, &[(cpu, wanted)]));
    assert_eq!(quotas.advice(verdict, missing, wanted, &symbols), want);
    let may = |amount: i64| {
        let verdict = quotas.verdict(team, &[(cpu, amount)]);
        amount == 0 || matches!(verdict, Verdict::Guaranteed | Verdict::Borrows)
    };
    assert!(may(wanted - missing) && !may(wanted - missing + 1));
}

/// What the teams use, who claims, and from whom it may be taken.
#[rstest]
#[case::from_who_borrows_outside([2, 7, 0], "c", &["b"])]
#[case::not_within_its_department([6, 0, 0], "c", &[])]
#[case::within_the_department([6, 0, 0], "b", &["a"])]
#[case::from_both([4, 6, 0], "c", &["a", "b"])]
#[case::not_from_the_guaranteed([2, 4, 9], "a", &["c"])]
fn reclaims(#[case] used: [i64; 3], #[case] claimant: &str, #[case] want: &[&str]) {
    let (mut quotas, mut symbols) = quotas();
    let cpu = symbols.intern("cpu");
    let find = |quotas: &Quotas, name: &str| quotas.by_name[&symbols.known(name).unwrap()];
    for (name, used) in ["a", "b", "c"].into_iter().zip(used) {
        let at = find(&quotas, name);
        quotas.book(at, 0, &[(cpu, used * 1000)], 1);
    }
    let takes = [(cpu, 1000)];
    let from: Vec<&str> = ["a", "b", "c"]
        .into_iter()
        .filter(|victim| quotas.reclaims(find(&quotas, claimant), &takes, find(&quotas, victim)))
        .collect();
    assert_eq!(from, want);
}

#[test]
fn quotas_that_cannot_hold_are_told() {
    let (mut quotas, mut symbols) = quotas();
    assert!(quotas.problems(&symbols).is_empty());
    for wrong in [
        quota(
            "d",
            "d",
            json!({PARENT: "one"}),
            json!({"cpu": "3"}),
            json!({"cpu": "2"}),
        ),
        quota("e", "e", json!({PARENT: "three"}), json!({}), json!({})),
    ] {
        quotas.set(&wrong, &mut symbols);
    }
    let told: Vec<String> = quotas
        .problems(&symbols)
        .into_iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    assert_eq!(
        told,
        [
            "d/d: spec.max[cpu] is below spec.min[cpu]",
            "e/e: its parent three is not there",
            "root/one: guarantees less cpu than the quotas below it together",
        ]
    );
}

/// A cluster of 12 CPUs with the departments.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    for name in ["n0", "n1", "n2"] {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}}}))
        .unwrap();
        cluster.upsert_node(&node);
    }
    for quota in departments() {
        cluster.set_quota(&quota);
    }
    cluster.settle_rules();
    cluster
}

fn pod(name: &str, team: &str, priority: i32) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": team, "uid": name},
        "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
    }))
    .unwrap()
}

fn place(cluster: &mut Cluster, pod: &Pod) -> Result<String, String> {
    let class = cluster.classify(pod);
    match cluster.decide(class) {
        Decision::Place(node) => {
            let uid: Arc<str> = pod.uid().into();
            cluster.place_at(&uid, class, node);
            Ok(cluster.node_name(node).to_owned())
        }
        Decision::Unschedulable(diagnosis) => Err(diagnosis.message),
    }
}

#[test]
fn over_quota_is_told_and_what_is_lent_comes_back() {
    let mut cluster = cluster();
    for i in 0..7 {
        assert!(place(&mut cluster, &pod(&format!("a{i}"), "a", 9)).is_ok());
    }
    assert_eq!(
        place(&mut cluster, &pod("a7", "a", 9)).unwrap_err(),
        "0/3 nodes are available: pod would exceed quota a: 7 of at most 7 cpu are used. \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    for i in 0..5 {
        assert!(place(&mut cluster, &pod(&format!("b{i}"), "b", 5 - i)).is_ok());
    }
    // All is used. Team c, of the lowest priority, is guaranteed 4: a and b have borrowed 4 of it.
    let mut gone: Vec<String> = Vec::new();
    for i in 0..4 {
        let claim = pod(&format!("c{i}"), "c", 0);
        let class = cluster.classify(&claim);
        assert!(matches!(cluster.decide(class), Decision::Unschedulable(_)));
        let room = cluster.preempt(class, |_| false).expect("it is guaranteed");
        assert_eq!(room.victims.len(), 1);
        for victim in &room.victims {
            cluster.remove(victim);
            gone.push(victim.to_string());
        }
        let uid: Arc<str> = claim.uid().into();
        cluster.place_at(&uid, class, room.node);
    }
    assert!(
        gone.contains(&"b4".to_owned()),
        "the least important first: {gone:?}"
    );
    let more = cluster.classify(&pod("c9", "c", 0));
    assert!(
        cluster.preempt(more, |_| false).is_none(),
        "what it is not guaranteed"
    );
    // Within its guarantee nobody loses a place, whatever the priority of others.
    let outsider = cluster.classify(&pod("x", "outside", 1000));
    let room = cluster.preempt(outsider, |_| false).expect("a borrows");
    assert!(room.victims.iter().all(|v| !v.starts_with('c')), "{room:?}");
}

/// A full quota: who has its place, who asks, and who makes way.
#[rstest]
#[case::less_important(9, "a", Some("a"))]
#[case::equally_important(5, "a", None)]
#[case::of_what_another_has_borrowed(9, "b", Some("a"))]
#[case::not_from_equals(5, "b", None)]
fn within_a_full_quota_the_less_important_make_way(
    #[case] priority: i32,
    #[case] team: &str,
    #[case] want: Option<&str>,
) {
    let mut cluster = cluster();
    // Team a uses all that it may, 7; b the 4 that it is guaranteed, and one that is c's.
    for (team, count) in [("a", 7), ("b", 5)] {
        for i in 0..count {
            let own = if team == "a" { 5 } else { 9 };
            assert!(place(&mut cluster, &pod(&format!("{team}{i}"), team, own)).is_ok());
        }
    }
    let class = cluster.classify(&pod("new", team, priority));
    assert!(matches!(cluster.decide(class), Decision::Unschedulable(_)));
    let room = cluster.preempt(class, |_| false);
    let victims: Vec<_> = room.iter().flat_map(|room| &room.victims).collect();
    assert_eq!(victims.len(), usize::from(want.is_some()), "{victims:?}");
    let from = victims.first().map(|uid| &uid[..1]);
    assert_eq!(from, want);
}

fn with_cpu(mut pod: Pod, cpu: &str) -> Pod {
    let requests = json!({"requests": {"cpu": cpu}});
    pod.spec.containers[0].resources = Some(serde_json::from_value(requests).unwrap());
    pod
}

/// The place in a quota of 7 CPUs is held by single CPUs on three nodes of 4, of priority 5 but for `a1` on the first node
/// and `a4` on the second; the nodes may be full besides. Who wants how much, where it goes, and who makes way.
#[rstest]
#[case::of_one("1", 3, false, Some(("n0", &["a1"][..])))]
#[case::of_two_on_one_node("2", 6, false, Some(("n0", &["a1", "a2"][..])))]
#[case::of_two_nodes("2", 3, false, Some(("n0", &["a1", "a4"][..])))]
#[case::and_room_on_one("2", 3, true, Some(("n0", &["a1", "a4", "x0"][..])))]
#[case::too_few_are_less_important("3", 3, false, None)]
fn place_in_a_quota_is_made_on_several_nodes_where_one_is_not_enough(
    #[case] cpu: &str,
    #[case] priority: i32,
    #[case] full: bool,
    #[case] want: Option<(&str, &[&str])>,
) {
    let mut cluster = cluster();
    for (at, node) in (0..).zip(["n0", "n0", "n0", "n1", "n1", "n1", "n2"]) {
        let priority = if at == 1 || at == 4 { 1 } else { 5 };
        cluster.observe(&pod(&format!("a{at}"), "a", priority), node);
    }
    for (name, node, cpu) in [("x0", "n0", "1"), ("x1", "n1", "1"), ("x2", "n2", "3")] {
        if full {
            cluster.observe(&with_cpu(pod(name, "outside", 1), cpu), node);
        }
    }
    let class = cluster.classify(&with_cpu(pod("new", "a", priority), cpu));
    let rooms = cluster.nodes.rooms.clone();
    let room = cluster.preempt(class, |_| false);
    assert_eq!(cluster.nodes.rooms, rooms, "it is only tried");
    let got = room.as_ref().map(|room| {
        let mut victims: Vec<&str> = room.victims.iter().map(|v| &**v).collect();
        victims.sort_unstable();
        (cluster.node_name(room.node), victims)
    });
    assert_eq!(got, want.map(|(node, victims)| (node, victims.to_vec())));
    if let Some(room) = room {
        for victim in &room.victims {
            cluster.remove(victim);
        }
        assert!(cluster.feasible(class, room.node));
    }
}

proptest! {
    /// Whatever happens: usage is the sum over placed pods on every level, no maximum is passed, and whoever is
    /// guaranteed what it wants can have it, at nobody's cost who is within its own guarantee.
    #[test]
    fn guarantees_hold(steps in prop::collection::vec((0..8_u8, 0..3_usize, 0..4_i32), 1..60)) {
        let mut cluster = cluster();
        let mut placed: Vec<(String, usize)> = Vec::new();
        let teams = ["a", "b", "c"];
        for (at, (what, team, priority)) in steps.into_iter().enumerate() {
            if what == 0 && !placed.is_empty() {
                let (uid, _) = placed.remove(at % placed.len());
                cluster.remove(&uid);
            } else {
                let pod = pod(&format!("p{at}"), teams[team], priority);
                let class = cluster.classify(&pod);
                let verdict = cluster.quota_verdict(class).expect("it has a quota");
                let uid: Arc<str> = pod.uid().into();
                match cluster.decide(class) {
                    Decision::Place(node) => {
                        prop_assert!(matches!(verdict, Verdict::Guaranteed | Verdict::Borrows));
                        cluster.place_at(&uid, class, node);
                        placed.push((uid.to_string(), team));
                    }
                    Decision::Unschedulable(_) => {
                        let room = cluster.preempt(class, |_| false);
                        prop_assert!(verdict != Verdict::Guaranteed || room.is_some(), "guaranteed, and refused");
                        if let Some(room) = room {
                            for victim in &room.victims {
                                let of = placed.iter().position(|(uid, _)| *uid == **victim).expect("it is placed");
                                let (_, of) = placed.remove(of);
                                if of != team {
                                    let used = placed.iter().filter(|(_, t)| *t == of).count() + 1;
                                    prop_assert!(used > [2, 4, 4][of], "{} had no more than it is guaranteed", teams[of]);
                                }
                                cluster.remove(victim);
                            }
                            prop_assert!(cluster.feasible(class, room.node));
                            cluster.place_at(&uid, class, room.node);
                            placed.push((uid.to_string(), team));
                        }
                    }
                }
            }
            let count = |of: &[usize]| 1000 * placed.iter().filter(|(_, t)| of.contains(t)).count() as i64;
            let usage: BTreeMap<&str, i64> = cluster
                .quotas
                .usage(&cluster.compiler.symbols)
                .map(|(_, name, used)| (name, used.get("cpu").copied().unwrap_or(0)))
                .collect();
            let want = [("a", count(&[0])), ("b", count(&[1])), ("c", count(&[2])), ("one", count(&[0, 1])), ("two", count(&[2]))];
            prop_assert_eq!(usage, want.into());
            prop_assert!(count(&[0]) <= 7000 && count(&[0, 1, 2]) <= 12_000);
        }
    }
}

/// A tenant has a quota in the tree of each of its pools: what is placed there counts there, and where there is no place
/// the next pool is tried.
#[test]
fn every_pool_has_its_own_quota() {
    let mut cluster = Cluster::new();
    for (name, pool) in [("n0", "own"), ("n1", "public")] {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"pool": pool}},
            "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}}}))
            .unwrap();
        cluster.upsert_node(&node);
    }
    let policy = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "pools"}, "spec":
        {"pools": [{"name": "own", "nodeSelector": {"pool": "own"}}, {"name": "public", "nodeSelector": {"pool": "public"}}]}});
    cluster.set_policy(&serde_json::from_value(policy).unwrap());
    let of = |name: &str, tree: &str, min: &str, max: &str| {
        quota(
            name,
            "shop",
            json!({TREE: tree}),
            json!({"cpu": min}),
            json!({"cpu": max}),
        )
    };
    cluster.set_quota(&of("shop-own", "own", "2", "2"));
    cluster.set_quota(&of("shop-public", "public", "1", "3"));
    // Another tenant's guarantee in the public pool, of which may be borrowed.
    let other = quota(
        "bank",
        "bank",
        json!({TREE: "public"}),
        json!({"cpu": "8"}),
        json!({}),
    );
    cluster.set_quota(&other);
    cluster.settle_rules();
    let place = |cluster: &mut Cluster, name: &str| -> Result<String, String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
        )
        .unwrap();
        let class = cluster.classify(&pod);
        match cluster.decide(class) {
            Decision::Place(node) => {
                cluster.place_at(&name.into(), class, node);
                Ok(cluster.node_name(node).to_owned())
            }
            Decision::Unschedulable(why) => Err(why.message),
        }
    };
    let used = |cluster: &Cluster| -> Vec<i64> {
        let all = cluster.quotas.usage(&cluster.compiler.symbols);
        all.map(|(.., used)| used.get("cpu").copied().unwrap_or(0))
            .collect()
    };
    let nodes: Vec<_> = (0..5)
        .map(|i| place(&mut cluster, &format!("p{i}")).unwrap())
        .collect();
    assert_eq!(nodes, ["n0", "n0", "n1", "n1", "n1"]);
    // By name: bank, shop-own, shop-public.
    assert_eq!(used(&cluster), [0, 2000, 3000]);
    let told = place(&mut cluster, "more").unwrap_err();
    assert!(told.contains("quota shop-own"), "{told}");
    cluster.remove("p0");
    assert_eq!(used(&cluster), [0, 1000, 3000]);
    assert_eq!(place(&mut cluster, "again").unwrap(), "n0");
    // In a quota that is full, the tenant's own less important pods make way, and no others.
    let important = |name: &str, namespace: &str| -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": namespace, "uid": name}, "spec": {"priority": 5,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}),
        )
        .unwrap()
    };
    let class = cluster.classify(&important("l0", "shop"));
    let Decision::Unschedulable(why) = cluster.decide(class) else {
        panic!("all of its quotas are full");
    };
    assert!(
        why.message.contains("No preemption victims"),
        "{}",
        why.message
    );
    let room = cluster.preempt(class, |_| false).expect("its own make way");
    assert_eq!(room.victims.len(), 1);
    let none = cluster.preempt(class, |_| true);
    assert_eq!(none, None, "they are spared");
    for victim in &room.victims {
        cluster.remove(victim);
    }
    cluster.place_at(&"l0".into(), class, room.node);
    let name = cluster.node_name(room.node).to_owned();
    cluster.remove("l0");
    for victim in &room.victims {
        assert_eq!(
            place(&mut cluster, victim).unwrap(),
            name,
            "the room is that of the quota"
        );
    }
    // Counted anew, it is the same; and a node that changes its pool takes its pods along.
    let all: Vec<_> = cluster.class_ids.values().copied().collect();
    cluster.compact(all);
    assert_eq!(used(&cluster), [0, 2000, 3000]);
    let moved: Node = serde_json::from_value(
        json!({"metadata": {"name": "n1", "labels": {"pool": "own"}},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}}}),
    )
    .unwrap();
    cluster.upsert_node(&moved);
    assert_eq!(used(&cluster), [0, 5000, 0]);
    cluster.remove("p2");
    assert_eq!(used(&cluster), [0, 4000, 0]);
    // Of a node that is gone, the quota of the namespace.
    cluster.remove_node("n1");
    assert_eq!(used(&cluster), [0, 4000, 0]);
}

/// A node of two pools counts in the first: that the second has room does not open it.
#[test]
fn a_node_of_two_pools_counts_in_the_first() {
    let mut cluster = Cluster::new();
    let node: Node = serde_json::from_value(
        json!({"metadata": {"name": "n0", "labels": {"own": "yes", "public": "yes"}},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}}}),
    )
    .unwrap();
    cluster.upsert_node(&node);
    let policy = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "pools"}, "spec":
        {"pools": [{"name": "own", "nodeSelector": {"own": "yes"}}, {"name": "public", "nodeSelector": {"public": "yes"}}]}});
    cluster.set_policy(&serde_json::from_value(policy).unwrap());
    for (tree, max) in [("own", "1"), ("public", "9")] {
        let labels = json!({TREE: tree});
        let (min, max) = (json!({"cpu": "1"}), json!({"cpu": max}));
        cluster.set_quota(&quota(tree, "shop", labels, min, max));
    }
    cluster.settle_rules();
    assert!(place(&mut cluster, &pod("a", "shop", 0)).is_ok());
    let told = place(&mut cluster, &pod("b", "shop", 0)).unwrap_err();
    assert!(told.contains("quota own has no more cpu"), "{told}");
}
