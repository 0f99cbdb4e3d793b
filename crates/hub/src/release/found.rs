//! Cases of the release planner that the simulation found, each cut down to what it was about.

use gantry_api::{
    CountOrPercent, Release, RevisionChange,
    release::{Doing, Phase, Turn, WorkingInstance},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    tests::{Case, case},
    *,
};
use crate::world::{Gate, Instance, SetView, Wish};

pub(super) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub(crate) fn instance(cell: &str, ordinal: i32, revision: i64) -> Instance {
    Instance {
        name: format!("cart-{cell}-{ordinal}"),
        uid: "u".into(),
        version: "1".into(),
        revision: Some(revision),
        hash: format!("h{revision}"),
        terminating: false,
        observed: true,
        ready_since: Some(NOW),
        gate: Gate::In,
        mark: None,
        containers: BTreeMap::new(),
        trouble: String::new(),
        unplaced_since: None,
        created: Some(NOW),
        node: String::new(),
        pinned: None,
        wish: Wish::None,
    }
}

pub(super) fn out(hold: Hold) -> Gate {
    Gate::Out {
        reason: hold.reason().into(),
        since: NOW,
    }
}

/// A cell whose set has the template of `template` and whose instances serve on `revision`.
pub(super) fn cell(name: &str, instances: i32, template: i64, revision: i64) -> CellView {
    CellView {
        name: name.into(),
        cluster: name.into(),
        weight: Some(1),
        reachable: true,
        set: Some(SetView {
            replicas: instances,
            partition: instances,
            revision: Some(template),
            observed: true,
            update_hash: format!("h{template}"),
            current_hash: "h2".into(),
            ..SetView::default()
        }),
        instances: (0..instances)
            .map(|n| (n, instance(name, n, revision)))
            .collect(),
        ..CellView::default()
    }
}

/// A release from revision 1 to 2, which differ in more than images, with its plan frozen.
pub(super) fn begun(cells: Vec<CellView>, max_out: u32) -> Case {
    let mut case = case(RevisionChange {
        args: Some(vec!["x".into()]),
        ..RevisionChange::default()
    });
    case.strategy.max_unavailable = Some(CountOrPercent::Count(max_out));
    let quiet = |c: &CellView| {
        let mut quiet = cell(&c.name, c.replicas(), 1, 1);
        quiet.set.iter_mut().for_each(|s| s.partition = 0);
        quiet
    };
    case.cells = cells.iter().map(quiet).collect();
    let [Action::CreateRevision(revision)] = &case.plan().actions[..] else {
        panic!("no revision is written down")
    };
    case.revisions.insert(2, (**revision).clone());
    case.release.status = Some(case.plan().status);
    assert!(status(&mut case.release).plan.is_some());
    case.cells = cells;
    case
}

pub(super) fn status(release: &mut Release) -> &mut ReleaseStatus {
    release.status.get_or_insert_default()
}

pub(super) fn rolling_back(cells: Vec<CellView>, max_out: u32) -> Case {
    let mut case = begun(cells, max_out);
    status(&mut case.release).phase = Phase::RollingBack;
    status(&mut case.release).rollback = Some(Turn {
        reason: "Requested".into(),
        message: "rollback was asked for".into(),
        at: Time(NOW),
        batch: 0,
    });
    case
}

pub(super) fn under_way(cell: &str, ordinal: i32, doing: Doing) -> WorkingInstance {
    WorkingInstance {
        name: format!("cart-{cell}-{ordinal}"),
        cell: cell.into(),
        doing,
        since: Some(Time(NOW)),
        ..WorkingInstance::default()
    }
}

pub(super) fn held(step: &Step, cell: &str) -> usize {
    let prefix = format!("cart-{cell}-");
    step.holds.keys().filter(|n| n.starts_with(&prefix)).count()
}

/// everything 81: two were chosen, then their cell went away; the view shows them serving.
#[test]
fn what_was_chosen_out_of_reach_counts_for_as_long_as_it_is() {
    // The goal is as good as another: what was chosen to go forward is not at the goal on the way back.
    for (template, revision) in [(1, 2), (2, 1), (1, 1)] {
        let mut case = rolling_back(
            vec![cell("a", 2, template, revision), cell("b", 4, 1, 2)],
            3,
        );
        case.cells[0].reachable = false;
        status(&mut case.release).working = vec![
            under_way("a", 0, Doing::Draining),
            under_way("a", 1, Doing::Draining),
        ];
        for _ in 0..3 {
            let step = case.plan();
            assert_eq!(held(&step, "b"), 1, "template {template}: {step:?}");
            case.release.status = Some(step.status);
        }
        // Seen again, and serving.
        case.cells[0].reachable = true;
        let step = case.plan();
        assert!(held(&step, "a") + held(&step, "b") <= 3, "{step:?}");
    }
}

/// broken_hub 640: the bastion's new pod is ready while the old template is on its way back.
#[test]
fn the_way_back_lets_in_nothing_that_nobody_accepted() {
    let mut case = rolling_back(vec![cell("a", 3, 2, 1)], 1);
    let mut new = instance("a", 2, 2);
    new.gate = Gate::Unset;
    case.cells[0].instances.insert(2, new);
    assert_eq!(
        case.plan().holds.get("cart-a-2"),
        Some(&Hold::Bastion),
        "while the template comes"
    );
    case.cells[0].stopped = Some("fire".into());
    assert!(
        case.plan().holds.contains_key("cart-a-2"),
        "while the line is stopped"
    );
    case.cells[0].stopped = None;
    case.release.spec.accepted_through = Some(0);
    assert_eq!(
        case.plan().holds.get("cart-a-2"),
        None,
        "what was accepted serves until its turn"
    );
}

/// everything 369: a bastion left out below instances that have to go first, and that may not while it is.
#[test]
fn a_bastion_of_what_serves_elsewhere_serves_until_its_turn() {
    let mut case = rolling_back(vec![cell("a", 3, 1, 2)], 1);
    if let Some(first) = case.cells[0].instances.get_mut(&0) {
        first.gate = out(Hold::Bastion);
    }
    let step = case.plan();
    assert!(step.spared.contains("cart-a-0"), "{step:?}");
    if let Some(first) = case.cells[0].instances.get_mut(&0) {
        first.gate = Gate::In;
    }
    let step = case.plan();
    let names: Vec<&String> = step.holds.keys().collect();
    assert_eq!(names, ["cart-a-2"], "then the topmost goes");
}

/// everything 210: aborting took out what had been let in.
#[test]
fn aborting_takes_nothing_out_of_service() {
    let mut case = begun(vec![cell("a", 3, 2, 1)], 1);
    case.release.spec.abort = true;
    for (gate, kept_out) in [
        (Gate::In, false),
        (Gate::Unset, true),
        (out(Hold::Bastion), true),
    ] {
        let mut bastion = instance("a", 2, 2);
        bastion.gate = gate.clone();
        case.cells[0].instances.insert(2, bastion);
        let step = case.plan();
        assert_eq!(step.status.phase, Phase::Aborted);
        assert_eq!(step.holds.contains_key("cart-a-2"), kept_out, "{gate:?}");
    }
}

/// everything 283: the old revision fails as well, and what failed uses up the limit for good.
#[test]
fn a_way_back_that_fails_ends() {
    let mut case = rolling_back(vec![cell("a", 1, 1, 1), cell("b", 1, 1, 2)], 1);
    if let Some(broken) = case.cells[0].instances.get_mut(&0) {
        broken.ready_since = None;
        broken.gate = Gate::Unset;
    }
    status(&mut case.release).working = vec![under_way("a", 0, Doing::Updating)];
    let step = case.plan();
    assert_eq!(step.status.phase, Phase::RollingBack, "not before its time");
    let late = NOW + SignedDuration::from_hours(24);
    let step = case.plan_at(late);
    assert_eq!(step.status.phase, Phase::Failed);
    assert!(
        step.status
            .message
            .contains("cart-a-0 did not become ready on revision 1 either"),
        "{}",
        step.status.message
    );
    // A member that is away is waited for: what is late there nobody knows.
    case.cells[0].reachable = false;
    assert_eq!(case.plan_at(late).status.phase, Phase::RollingBack);
}

/// broken_hub 640 and 285: time out of sight was held against instances.
#[test]
fn no_instance_is_late_out_of_sight() {
    let mut case = begun(vec![cell("a", 3, 2, 1)], 1);
    case.cells[0].reachable = false;
    if let Some(bastion) = case.cells[0].instances.get_mut(&2) {
        bastion.terminating = true;
    }
    status(&mut case.release).working = vec![under_way("a", 2, Doing::Updating)];
    status(&mut case.release).batches[0].state = BatchState::Running;
    let late = NOW + SignedDuration::from_hours(24);
    let step = case.plan_at(late);
    assert!(step.status.failures.is_empty(), "{:?}", step.status);
    case.release.status = Some(step.status);
    case.cells[0].reachable = true;
    let step = case.plan_at(late);
    assert!(step.status.failures.is_empty(), "its clock starts anew");
    case.release.status = Some(step.status);
    let step = case.plan_at(late + SignedDuration::from_hours(24));
    assert_eq!(step.status.failures.len(), 1, "and then it is late");
}

/// everything 425: bastions of an aborted release, out of service in a later batch, used up the limit of
/// the way back batch by batch.
#[test]
fn what_is_out_already_goes_back_first() {
    let mut case = begun(vec![cell("a", 5, 1, 2)], 2);
    case.strategy.rollback.pace = gantry_api::strategy::RollbackPace::Batches;
    status(&mut case.release).plan.as_mut().unwrap().strategy = case.strategy.clone();
    status(&mut case.release).phase = Phase::RollingBack;
    status(&mut case.release).rollback = Some(Turn {
        reason: "Requested".into(),
        message: "rollback was asked for".into(),
        at: Time(NOW),
        batch: 0,
    });
    for ordinal in [0, 1] {
        case.cells[0].instances.get_mut(&ordinal).unwrap().gate = out(Hold::Bastion);
    }
    if let Some(set) = case.cells[0].set.as_mut() {
        set.current_hash = "h1".into();
    }
    let step = case.plan();
    let first: Vec<&String> = step.holds.keys().collect();
    assert_eq!(first, ["cart-a-0", "cart-a-1"], "{}", step.status.message);
    // Nothing of a later batch is out: the next batch waits for its turn.
    for ordinal in [0, 1] {
        case.cells[0].instances.get_mut(&ordinal).unwrap().gate = Gate::In;
    }
    let step = case.plan();
    assert!(step.holds.contains_key("cart-a-4"), "{step:?}");
    assert_eq!(step.status.rollback.unwrap().batch, 0);
}
