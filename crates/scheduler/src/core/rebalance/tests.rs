use super::*;
use crate::core::Profile;
use crate::core::object::{DisruptionBudget, Node, Pod};
use crate::core::profile::Rule;
use proptest::prelude::*;
use serde_json::{Value, json};

fn cluster(nodes: usize, profile: Profile) -> Cluster {
    let mut cluster = Cluster::with_profiles(vec![profile]);
    for i in 0..nodes {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": format!("n{i}"), "labels": {"zone": format!("z{}", i % 3), "host": format!("n{i}")}},
            "status": {"allocatable": {"cpu": "10", "memory": "64Gi", "pods": "110"}}}))
        .unwrap();
        cluster.upsert_node(&node);
    }
    cluster
}

fn place(cluster: &mut Cluster, name: &str, node: &str, over: Value) {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": &name[..1]}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
        "status": {"startTime": "1970-01-01T00:00:01Z"}});
    if let (Value::Object(spec), Value::Object(over)) = (&mut pod["spec"], over) {
        spec.extend(over);
    }
    let pod: Pod = serde_json::from_value(pod).unwrap();
    cluster.observe(&pod, node);
}

fn looking() -> Profile {
    let mut profile = Profile {
        load: Some(LoadArgs::default()),
        ..Profile::default()
    };
    profile.weights.set(Rule::Load, 1);
    profile
}

fn names(cluster: &Cluster, plan: &Plan) -> Vec<(String, String, String)> {
    let name = |node| cluster.node_name(node).to_owned();
    let moves = plan.moves.iter();
    moves
        .map(|m| (m.uid.to_string(), name(m.from), name(m.to)))
        .collect()
}

#[test]
fn a_hot_node_gives_its_cheapest_pods_away_until_it_is_cool() {
    let mut cluster = cluster(2, looking());
    for i in 0..4 {
        let priority = if i == 0 { 400_000 } else { 0 };
        place(
            &mut cluster,
            &format!("a{i}"),
            "n0",
            json!({"priority": priority}),
        );
    }
    cluster.pass_time(1000);
    cluster.measure("n0", [7800, 0], 990, 0);
    cluster.measure("n1", [1000, 0], 990, 0);
    let plan = cluster.rebalance(10, |_| true);
    let who: Vec<String> = names(&cluster, &plan)
        .into_iter()
        .map(|(uid, ..)| uid)
        .collect();
    // Each is estimated at 850m, 8 % of the node: 78 % become 69 and then 61.
    assert_eq!(who, ["a1", "a2"]);
    assert_eq!((plan.before.hot, plan.after.hot), (1, 0));
    assert_eq!(
        plan.moves[0].why.words(),
        "hot: 78 % of cpu used, 65 % wanted"
    );
    assert_eq!((plan.moves[0].benefit, plan.moves[1].benefit), (8.0, 4.0));
    assert!((plan.moves[0].cost - 1.0).abs() < f64::EPSILON);
    // Nothing has happened to the cluster.
    assert_eq!(cluster.rebalance(10, |_| true), plan);
    assert!(cluster.rebalance(10, |uid| uid == "a3").moves.len() == 1);
}

#[test]
fn a_broken_spread_is_evened_out_within_the_budget() {
    let mut cluster = cluster(3, Profile::default());
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "w"}}}]});
    for i in 0..6 {
        place(&mut cluster, &format!("w{i}"), "n0", spread.clone());
    }
    let plan = cluster.rebalance(10, |_| true);
    assert_eq!((plan.before.broken, plan.after.broken), (1, 0));
    let to: Vec<String> = names(&cluster, &plan)
        .into_iter()
        .map(|(.., to)| to)
        .collect();
    // 6, 0, 0 become 3, 2, 1 or better.
    assert!((3..=4).contains(&to.len()), "{to:?}");
    assert_eq!(plan.moves[0].why, Why::Spread { here: 6, there: 0 });
    let budget: DisruptionBudget =
        serde_json::from_value(json!({"metadata": {"name": "b", "namespace": "d"},
        "spec": {"selector": {"matchLabels": {"app": "w"}}}, "status": {"disruptionsAllowed": 2}}))
        .unwrap();
    cluster.set_budget("d", "b", budget.spec.selector.as_ref(), 2);
    let plan = cluster.rebalance(10, |_| true);
    assert_eq!((plan.moves.len(), plan.after.broken), (2, 1));
}

#[test]
fn little_used_nodes_are_emptied_whole_or_not_at_all() {
    let mut cluster = cluster(4, Profile::default());
    for i in 0..6 {
        place(&mut cluster, &format!("a{i}"), "n0", json!({}));
    }
    place(&mut cluster, "b0", "n1", json!({}));
    place(&mut cluster, "b1", "n1", json!({}));
    place(&mut cluster, "c0", "n2", json!({}));
    let plan = cluster.rebalance(10, |_| true);
    let mut moves = names(&cluster, &plan);
    moves.sort();
    let to_n0 = |uid: &str, from: &str| (uid.to_owned(), from.to_owned(), "n0".to_owned());
    assert_eq!(
        moves,
        [to_n0("b0", "n1"), to_n0("b1", "n1"), to_n0("c0", "n2")]
    );
    assert_eq!((plan.before.empty, plan.after.empty), (1, 3));
    // A pod that must stay keeps the whole node.
    let plan = cluster.rebalance(10, |uid| uid != "b1");
    assert_eq!(names(&cluster, &plan), [to_n0("c0", "n2")]);
    // And where the rest does not fit, none goes.
    place(
        &mut cluster,
        "big",
        "n0",
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}),
    );
    let plan = cluster.rebalance(10, |uid| !uid.starts_with('c'));
    assert_eq!(names(&cluster, &plan), []);
}

proptest! {
    /// Whatever the cluster: the plan leaves it as it was, keeps to its bound, moves each pod once and never one that is
    /// not to be moved, and, carried out, every pod is on a node that would take it.
    #[test]
    fn plans_can_be_carried_out(pods in prop::collection::vec((0..5_usize, 0..3_u8, 1..5_u32), 0..30), most in 0..8_usize) {
        let mut cluster = cluster(5, Profile::default());
        for (i, (node, app, cpu)) in pods.iter().enumerate() {
            let app = ['x', 'y', 'z'][usize::from(*app)];
            let spread = json!([{"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": app}}}]);
            let room = &cluster.nodes.rooms[*node];
            if room.used.cpu + i64::from(*cpu) * 1000 > room.allocatable.cpu {
                continue;
            }
            let mut over = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]});
            if app == 'x' {
                over["topologySpreadConstraints"] = spread;
            }
            place(&mut cluster, &format!("{app}{i}"), &format!("n{node}"), over);
        }
        let before = cluster.nodes.rooms.clone();
        let plan = cluster.rebalance(most, |uid| !uid.starts_with('z'));
        prop_assert_eq!(&cluster.nodes.rooms, &before);
        prop_assert!(plan.moves.len() <= most);
        prop_assert!(plan.after.broken <= plan.before.broken);
        let mut seen: FxHashSet<Arc<str>> = FxHashSet::default();
        for step in &plan.moves {
            prop_assert!(seen.insert(step.uid.clone()) && !step.uid.starts_with('z'));
            let placed = cluster.placed(&step.uid).expect("it is placed");
            prop_assert_eq!(placed.node, step.from);
            cluster.remove(&step.uid);
            prop_assert!(cluster.feasible(placed.class, step.to));
            cluster.place_at(&step.uid, placed.class, step.to);
        }
    }
}
