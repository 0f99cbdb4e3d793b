//! Moves to a node: from the wish to the note, the pod's going, its coming, and the end of the note.

use gantry_api::group::ToNode;
use serde_json::json;

use super::*;
use crate::{amount::Amounts, world::NodeView, world::Taint};

const NAME: &str = "cart-a-3";

fn later() -> Timestamp {
    Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60)
}

fn to(node: &str) -> InstanceWish {
    InstanceWish {
        name: NAME.into(),
        to_node: Some(ToNode {
            name: node.into(),
            before: Time(later()),
            from: "n1".into(),
        }),
        ..Default::default()
    }
}

fn amounts(cpu: i128, pods: i128) -> Amounts {
    Amounts::from([
        ("cpu".to_owned(), cpu),
        ("memory".to_owned(), 8 << 33),
        ("pods".to_owned(), pods * 1000),
    ])
}

/// Group of ten on node n1, with one wished onto n2, which has room for one more.
fn moving() -> Case {
    let mut case = of_ten();
    case.app.spec.container.lifecycle.drain_seconds = Some(0);
    let template = &mut case.revisions.get_mut(&1).unwrap().template;
    template["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
    case.group.spec.instances = vec![to("n2")];
    case.cells[0].pins = Some(BTreeMap::new());
    let node = NodeView {
        ready: true,
        total: amounts(4000, 10),
        used: Some(amounts(3500, 9)),
        ..NodeView::default()
    };
    case.cells[0].nodes.insert("n2".into(), node);
    case
}

fn it(case: &mut Case) -> &mut Instance {
    case.cells[0].instances.get_mut(&3).unwrap()
}

fn node(case: &mut Case) -> &mut NodeView {
    case.cells[0].nodes.get_mut("n2").unwrap()
}

fn noted(case: &mut Case) {
    case.cells[0].pins = Some(BTreeMap::from([(NAME.to_owned(), "n2".to_owned())]));
}

fn out(case: &mut Case) {
    it(case).gate = Gate::Out {
        reason: Hold::Renew.reason().into(),
        since: Timestamp::UNIX_EPOCH,
    };
}

/// A new pod of the instance.
fn fresh(case: &mut Case, node: &str, ready: bool) {
    let it = it(case);
    it.created = Some(later());
    it.pinned = Some("n2".into());
    it.node = node.into();
    it.gate = Gate::Unset;
    it.ready_since = ready.then_some(later());
}

/// What is done, and what is told of the one that is to be moved.
fn looked(case: &mut Case) -> (Vec<String>, String) {
    people::mark(&case.group.clone(), &mut case.cells);
    let step = case.plan();
    let done = step.actions.iter().filter_map(|a| match a {
        Action::SetGate { instance, hold, .. } => {
            let way = if hold.is_some() { "out" } else { "in" };
            Some(format!("{way} {instance}"))
        }
        Action::SetPins { pins, .. } => {
            let all: Vec<String> = pins.iter().map(|(i, n)| format!("{i}={n}")).collect();
            Some(format!("note {}", all.join(",")))
        }
        Action::DeleteInstance { instance, .. } => Some(format!("delete {instance}")),
        _ => None,
    });
    let done = done.collect();
    let told = step.status.instances.iter().find(|n| n.name == NAME);
    let told = told.map(|n| format!("{} {}", n.state, n.message));
    (done, told.unwrap_or_default().trim().to_owned())
}

#[rstest]
#[case::first_the_note(|_: &mut Case| {}, &["note cart-a-3=n2"], "Moving from n1 to n2, once sh knows")]
#[case::then_out_of_traffic(noted, &["out cart-a-3"], "Moving from n1 to n2")]
#[case::then_it_goes(|c: &mut Case| { noted(c); out(c) }, &["delete cart-a-3"], "Moving from n1 to n2")]
#[case::it_goes(|c: &mut Case| { noted(c); out(c); it(c).terminating = true }, &[], "Moving from n1 to n2")]
#[case::it_is_gone(|c: &mut Case| { noted(c); c.cells[0].instances.remove(&3); }, &[], "Moving to n2: its new pod is being made")]
#[case::it_comes(|c: &mut Case| { noted(c); fresh(c, "", false) }, &[], "Moving to n2: its new pod is starting")]
#[case::it_starts(|c: &mut Case| { noted(c); fresh(c, "n2", false) }, &[], "Moving to n2: its new pod is starting")]
#[case::it_is_there(|c: &mut Case| { noted(c); fresh(c, "n2", true) }, &["in cart-a-3", "note "], "Moved")]
#[case::it_is_there_for_good(|c: &mut Case| { fresh(c, "n2", true); it(c).gate = Gate::In }, &[], "Moved")]
#[case::it_was_there(|c: &mut Case| it(c).node = "n2".into(), &[], "Moved")]
// A pod that goes for another reason, before or after, is not held to the node.
#[case::gone_without_a_note(|c: &mut Case| { c.cells[0].instances.remove(&3); }, &[], "Missing there is no such instance")]
#[case::going_already(|c: &mut Case| it(c).terminating = true, &["note cart-a-3=n2"], "Moving from n1 to n2")]
#[case::made_anew_since(|c: &mut Case| { fresh(c, "n5", true); it(c).pinned = None; it(c).gate = Gate::In }, &[], "Elsewhere a pod that is newer than this wish is on node n5: ask again to have it on n2")]
#[case::made_anew_and_unready(|c: &mut Case| { fresh(c, "n2", false); it(c).pinned = None }, &[], "Moving to n2: its new pod is starting")]
#[case::came_up_elsewhere(|c: &mut Case| { noted(c); fresh(c, "n5", false); it(c).pinned = None }, &["note "], "Elsewhere a pod that is newer than this wish is on node n5: ask again to have it on n2")]
// What nobody asks for any more is struck off; a pod that waits for a node in vain goes.
#[case::taken_back(|c: &mut Case| { noted(c); c.group.spec.instances.clear() }, &["note "], "")]
#[case::taken_back_late(|c: &mut Case| { noted(c); fresh(c, "", false); it(c).unplaced_since = Some(later()); c.group.spec.instances.clear() }, &["note "], "")]
#[case::taken_back_in_vain(|c: &mut Case| { fresh(c, "", false); it(c).unplaced_since = Some(later()); c.group.spec.instances.clear() }, &["delete cart-a-3"], "")]
#[case::to_yet_another(|c: &mut Case| { noted(c); c.group.spec.instances = vec![to("n3")] }, &["note "], "Refused instances[cart-a-3].toNode.name: cell a has no node n3: choose one that carries the cell's labels")]
#[case::closed_meanwhile(|c: &mut Case| { noted(c); c.cells[0].instances.remove(&3); node(c).cordoned = true }, &["note "], "Moving to n2: its new pod is being made")]
// What is in its way is said, and nothing done.
#[case::unknown(|c: &mut Case| c.cells[0].nodes.clear(), &[], "Refused instances[cart-a-3].toNode.name: cell a has no node n2: choose one that carries the cell's labels")]
#[case::not_ready(|c: &mut Case| node(c).ready = false, &[], "Refused instances[cart-a-3].toNode.name: node n2 is not ready: wait until it is, or choose another")]
#[case::cordoned(|c: &mut Case| node(c).cordoned = true, &[], "Refused instances[cart-a-3].toNode.name: node n2 is cordoned: kubectl uncordon n2, or choose another")]
#[case::tainted(|c: &mut Case| taint(c, json!([{"key": "gpu", "operator": "Equal", "value": "b"}])), &[], "Refused instances[cart-a-3].toNode.name: node n2 has the taint gpu=a:NoSchedule, which the revision does not tolerate: choose another")]
#[case::tolerated(|c: &mut Case| taint(c, json!([{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}])), &["note cart-a-3=n2"], "Moving from n1 to n2, once sh knows")]
#[case::no_cpu(|c: &mut Case| node(c).used = Some(amounts(3501, 9)), &[], "Refused instances[cart-a-3].toNode.name: node n2 has 499m of 4 cpu left and the instance asks for 500m: make room there, or choose another")]
#[case::no_pods(|c: &mut Case| node(c).used = Some(amounts(0, 10)), &[], "Refused instances[cart-a-3].toNode.name: node n2 has 0 of 10 pods left and the instance asks for 1: make room there, or choose another")]
#[case::not_counted(|c: &mut Case| node(c).used = None, &[], "Refused instances[cart-a-3].toNode.name: the pods of node n2 cannot be read, and so not what room it has: look whether sh answers")]
#[case::in_a_release(|c: &mut Case| { noted(c); c.release.target = Some(RevisionRef { release: Some("two".into()), ..RevisionRef::default() }) }, &[], "Waiting waits for release two to end")]
#[case::in_a_release_that_asks_for_more(|c: &mut Case| { noted(c); bigger(c) }, &["note "], "Refused instances[cart-a-3].toNode.name: node n2 has 500m of 4 cpu left and the instance asks for 600m: make room there, or choose another")]
#[case::over_the_budget(|c: &mut Case| { c.cells[0].instances.get_mut(&0).unwrap().ready_since = None; c.cells[0].instances.get_mut(&1).unwrap().ready_since = None }, &["note cart-a-3=n2"], "Waiting 2 of 10 instances are out of service, and at most 2 may be")]
#[case::pulled_out(|c: &mut Case| c.group.spec.instances[0].out_of_service = true, &["out cart-a-3"], "OutOfService")]
#[case::away(|c: &mut Case| { noted(c); c.cells[0].reachable = false }, &[], "Waiting cell a (cluster sh) cannot be reached")]
#[case::notes_unknown(|c: &mut Case| c.cells[0].pins = None, &[], "Moving from n1 to n2, once sh knows")]
// A restart of all goes its own way.
#[case::restarted(|c: &mut Case| { c.cells[0].nodes.clear(); c.group.spec.instances[0].restart_before = Some(Time(later())) }, &["out cart-a-3"], "Restarting")]
fn a_move_to_a_node(#[case] so: impl FnOnce(&mut Case), #[case] done: &[&str], #[case] told: &str) {
    let mut case = moving();
    so(&mut case);
    let seen = looked(&mut case);
    let did: Vec<&str> = seen.0.iter().map(String::as_str).collect();
    assert_eq!((did.as_slice(), seen.1.as_str()), (done, told));
}

/// A release is under way that asks for more.
fn bigger(case: &mut Case) {
    let mut two = case.revisions[&1].clone();
    two.number = 2;
    two.template["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("600m");
    case.revisions.insert(2, two);
    case.release.target = Some(RevisionRef {
        revision: 2,
        ..RevisionRef::default()
    });
}

fn taint(case: &mut Case, tolerations: serde_json::Value) {
    node(case).taints = vec![Taint {
        key: "gpu".into(),
        value: "a".into(),
        effect: "NoSchedule".into(),
    }];
    case.revisions.get_mut(&1).unwrap().template["spec"]["tolerations"] = tolerations;
}

#[test]
fn the_last_room_is_given_once() {
    let mut case = moving();
    let second = InstanceWish {
        name: "cart-a-4".into(),
        ..to("n2")
    };
    case.group.spec.instances.push(second);
    people::mark(&case.group.clone(), &mut case.cells);
    let told: Vec<String> = case
        .plan()
        .status
        .instances
        .iter()
        .map(|n| n.state.clone())
        .collect();
    assert_eq!(told, ["Moving", "Refused"]);
}
