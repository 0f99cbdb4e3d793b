//! The stated rules of a release under way, one case each.

use gantry_api::{
    Release, ReleaseSpec, Span, StopLine, StopLineSpec,
    gate::{GateState, GateStatus},
    release::{Emergency, Pace, Plan, Turn},
    stop_line::StopKind,
    strategy::{OnFailure, RollbackPace, UnreachableThen, WithinBatch},
    window::Window,
};
use jiff::SignedDuration;

use super::{
    found::{NOW, begun, cell, held, instance, rolling_back, status},
    tests::Case,
    *,
};
use crate::world::Gate;

fn frozen(case: &mut Case) -> &mut Plan {
    status(&mut case.release).plan.get_or_insert_default()
}

/// Bastion done, batch 1 runs since the beginning.
fn in_batch(cells: Vec<CellView>, max_out: u32) -> Case {
    let mut case = begun(cells, max_out);
    let status = status(&mut case.release);
    status.phase = Phase::Batch;
    status.batches[0].state = BatchState::Done;
    status.batches[1].state = BatchState::Running;
    status.batches[1].started = Some(Time(NOW));
    case
}

/// One look at `seconds`; what it decided is written down.
fn look(case: &mut Case, seconds: i64) -> Step {
    let step = case.plan_at(NOW + SignedDuration::from_secs(seconds));
    case.release.status = Some(step.status.clone());
    step
}

#[test]
fn deadlines_come_before_everything_else() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
    frozen(&mut case).strategy.deadlines.batch = Some(Span::seconds(60));
    let step = look(&mut case, 59);
    assert_eq!(held(&step, "a"), 2);
    assert_eq!(step.wake, Some(NOW + SignedDuration::from_secs(60)));
    let mut late = in_batch(vec![cell("a", 9, 2, 1)], 2);
    frozen(&mut late).strategy.deadlines.batch = Some(Span::seconds(60));
    let step = look(&mut late, 60);
    assert_eq!(
        held(&step, "a"),
        0,
        "nobody is taken out on time that is over"
    );
    assert_eq!(
        (step.status.phase, step.status.reason.as_str()),
        (Phase::Paused, "BatchDeadline")
    );
    // And it turns round at once where the strategy says so.
    let mut back = in_batch(vec![cell("a", 9, 2, 1)], 2);
    frozen(&mut back).strategy.deadlines.total = Some(Span::seconds(60));
    frozen(&mut back).strategy.on_failure = OnFailure::Rollback;
    let step = look(&mut back, 61);
    assert_eq!(step.status.phase, Phase::RollingBack);
    assert!(
        step.status
            .rollback
            .is_some_and(|r| r.reason == "TotalDeadline")
    );
}

#[test]
fn flapping_is_no_progress() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 1);
    let strategy = &mut frozen(&mut case).strategy;
    strategy.deadlines.instance = Span::seconds(100);
    strategy.min_ready = Span::seconds(30);
    let name = "cart-a-7";
    let flap = |case: &mut Case, at: i64, ready: bool| {
        let mut there = instance("a", 7, 2);
        there.gate = Gate::Unset;
        there.ready_since = ready.then_some(NOW + SignedDuration::from_secs(at));
        case.cells[0].instances.insert(7, there);
        look(case, at)
    };
    case.cells[0].instances.insert(8, instance("a", 8, 2));
    flap(&mut case, 0, false);
    for round in 0..9 {
        // Unready for ten seconds, ready for twenty: never long enough.
        let warm = flap(&mut case, round * 30 + 10, true);
        assert!(
            warm.status
                .working
                .iter()
                .any(|w| w.name == name && w.doing == gantry_api::release::Doing::Warming)
        );
        flap(&mut case, round * 30 + 30, false);
    }
    assert!(look(&mut case, 279).status.failures.is_empty());
    let step = look(&mut case, 280);
    assert_eq!(step.status.failures.len(), 1, "{:?}", step.status.steps);
    // Another try begins with a clean sheet.
    case.release.spec.retry = 1;
    let step = look(&mut case, 300);
    assert_eq!(step.status.steps[0].unready_seconds, 0);
    assert!(look(&mut case, 399).status.halt.is_none());
    assert!(look(&mut case, 401).status.halt.is_some());
}

#[test]
fn in_lock_step_a_wave_is_back_before_the_next_goes() {
    for (within, next) in [(WithinBatch::SlidingWindow, 2), (WithinBatch::LockStep, 1)] {
        let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
        let plan = frozen(&mut case);
        plan.strategy.within_batch = within;
        // One batch of all.
        plan.batches.truncate(2);
        status(&mut case.release).batches.truncate(2);
        assert_eq!(
            held(&look(&mut case, 0), "a"),
            2,
            "{within:?}: the first wave"
        );
        case.cells[0].instances.insert(8, instance("a", 8, 2));
        assert_eq!(
            held(&look(&mut case, 1), "a"),
            next,
            "{within:?}: one is back"
        );
        case.cells[0].instances.insert(7, instance("a", 7, 2));
        look(&mut case, 2);
        assert_eq!(
            held(&look(&mut case, 3), "a"),
            2,
            "{within:?}: both are back"
        );
    }
}

#[test]
fn the_pace_changes_at_once() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 1);
    let plan = frozen(&mut case);
    plan.batches.truncate(2);
    status(&mut case.release).batches.truncate(2);
    assert_eq!(held(&look(&mut case, 0), "a"), 1);
    case.release.spec.pace = Some(Pace {
        max_unavailable: Some("50%".parse().unwrap()),
        interval: None,
    });
    let step = look(&mut case, 1);
    assert_eq!((held(&step, "a"), step.status.max_out), (4, 4));
}

#[test]
fn a_release_that_does_not_wait_fails_where_another_runs() {
    let mut release = Release::new(
        "late",
        ReleaseSpec {
            group: "cart".into(),
            ..ReleaseSpec::default()
        },
    );
    assert_eq!(queued(&release, "first", NOW).phase, Phase::Queued);
    release.spec.if_busy = IfBusy::Refuse;
    let status = queued(&release, "first", NOW);
    assert_eq!(
        (status.phase, status.reason.as_str()),
        (Phase::Failed, "Busy")
    );
    assert!(
        status.message.contains("release first"),
        "{}",
        status.message
    );
}

fn switch(spec: StopLineSpec) -> StopLine {
    StopLine::new(
        "switch",
        StopLineSpec {
            reason: "incident".into(),
            by: "dave".into(),
            ..spec
        },
    )
}

#[test]
fn switches_halt_what_they_are_about_and_say_who() {
    let of = |tenants: &[&str], cells: &[&str], clusters: &[&str]| StopLineSpec {
        tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
        cells: cells.iter().map(|t| (*t).to_owned()).collect(),
        clusters: clusters.iter().map(|t| (*t).to_owned()).collect(),
        ..StopLineSpec::default()
    };
    for (spec, halts) in [
        (
            of(&[], &[], &[]),
            Some("dave has stopped the line of the whole fleet: incident"),
        ),
        (
            of(&["shop"], &[], &[]),
            Some("dave has stopped the line of tenant shop: incident"),
        ),
        (of(&["other"], &[], &[]), None),
        (
            of(&[], &["b"], &[]),
            Some("dave has stopped the line in b: incident"),
        ),
        (
            of(&["shop"], &[], &["a"]),
            Some("dave has stopped the line in a of tenant shop: incident"),
        ),
        (of(&["other"], &["a"], &[]), None),
        (of(&[], &["c"], &[]), None),
    ] {
        let mut case = in_batch(vec![cell("a", 5, 2, 1), cell("b", 4, 2, 1)], 2);
        case.release.metadata.namespace = Some("shop".into());
        case.lines = vec![switch(spec.clone())];
        let step = case.plan();
        match halts {
            Some(why) => {
                assert_eq!(
                    (step.status.phase, step.status.message.as_str()),
                    (Phase::Paused, why)
                );
                assert!(step.holds.is_empty() && step.actions.is_empty());
                case.release.spec.emergency = Some(Emergency::default());
                assert_eq!(
                    case.plan().status.phase,
                    Phase::Paused,
                    "nothing overrides a stop"
                );
                // The way back stands still as well.
                case.release.spec.rollback = true;
                assert!(case.plan().actions.is_empty());
            }
            None => assert_eq!(step.status.phase, Phase::Batch, "{spec:?}"),
        }
    }
}

#[test]
fn a_freeze_holds_between_its_times_and_an_emergency_overrides_it() {
    let mut case = in_batch(vec![cell("a", 5, 2, 1)], 2);
    let at = |s| Some(Time(NOW + SignedDuration::from_secs(s)));
    case.lines = vec![switch(StopLineSpec {
        kind: StopKind::Freeze,
        from: at(10),
        until: at(20),
        ..StopLineSpec::default()
    })];
    let before = case.plan_at(NOW + SignedDuration::from_secs(9));
    assert_eq!(before.status.phase, Phase::Batch);
    assert_eq!(before.wake, Some(NOW + SignedDuration::from_secs(10)));
    let during = case.plan_at(NOW + SignedDuration::from_secs(10));
    assert_eq!(
        (during.status.phase, during.status.reason.as_str()),
        (Phase::Paused, "Frozen")
    );
    assert!(
        during.status.message.contains("until 1970-01-01 00:00 UTC"),
        "{}",
        during.status.message
    );
    assert_eq!(
        case.plan_at(NOW + SignedDuration::from_secs(20))
            .status
            .phase,
        Phase::Batch
    );
    case.release.spec.emergency = Some(Emergency {
        reason: "fire".into(),
        by: "erin".into(),
        gates: Vec::new(),
    });
    let step = look(&mut case, 10);
    assert_eq!(step.status.phase, Phase::Batch);
    assert_eq!(
        step.status.overrides[0].what,
        "freeze switch by dave: incident"
    );
    assert_eq!(look(&mut case, 11).status.overrides.len(), 1, "once");
}

#[test]
fn decisions_that_nothing_comes_between_are_one() {
    // The bastion is done: batch 1 begins with the same write.
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
    let status = status(&mut case.release);
    status.batches[0].state = BatchState::Done;
    status.batches[1].state = BatchState::Waiting;
    status.working.clear();
    let (one, all) = (case.plan(), case.settle());
    let chosen = |step: &Step| step.status.working.len();
    assert!(chosen(&all) >= chosen(&one) && chosen(&all) > 0, "{one:?}");
    assert_eq!(all.status.batches[1].state, BatchState::Running);
    // Where it has to do something it does that first; and once settled it stays so.
    let mut moved = case;
    moved.release.status = Some(all.status.clone());
    assert_eq!(moved.settle().status.batches, all.status.batches);
    assert_eq!(moved.settle().holds, all.holds);
}

/// What goes on while a switch is on: what of the release, the kind of the switch, whether it goes on.
#[test]
fn a_freeze_holds_what_goes_forward_alone_and_a_stopped_line_everything() {
    use {RollbackPace::*, StopKind::*};
    type Press = fn(&mut Case);
    let nothing: Press = |_| {};
    let at_once: Press = |case| case.release.spec.rollback = true;
    let batches: Press = |case| {
        case.release.spec.rollback = true;
        case.release.spec.rollback_pace = Some(Batches);
    };
    let fast: Press = |case| {
        frozen(case).strategy.rollback.pace = Batches;
        case.release.spec.rollback = true;
        case.release.spec.rollback_pace = Some(AllAtOnce);
    };
    let under_way: Press = |case| {
        let before = case.lines.split_off(0);
        case.release.spec.rollback = true;
        look(case, 0);
        case.lines = before;
    };
    let order: Press = |case| case.undoes = true;
    for (what, press, kind, goes) in [
        ("forward", nothing, Freeze, false),
        ("forward", nothing, Stop, false),
        ("back", at_once, Freeze, true),
        ("back", at_once, Stop, false),
        ("back in batches", batches, Freeze, true),
        ("back in batches", batches, Stop, false),
        ("back fast", fast, Freeze, true),
        ("under way back", under_way, Freeze, true),
        ("under way back", under_way, Stop, false),
        ("an order's way back", order, Freeze, true),
        ("an order's way back", order, Stop, false),
    ] {
        let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
        case.lines = vec![switch(StopLineSpec {
            kind,
            ..StopLineSpec::default()
        })];
        press(&mut case);
        let step = look(&mut case, 1);
        let halted = ["Frozen", "LineStopped"].contains(&step.status.reason.as_str());
        assert_eq!(halted, !goes, "{what}, {kind:?}: {}", step.status.message);
        let does = !step.actions.is_empty() || !step.holds.is_empty();
        assert_eq!(does, goes, "{what}, {kind:?}");
        // It is on the record, and stays there once the freeze is over.
        let known = ["freeze switch by dave: incident".to_owned()];
        let recorded = goes && kind == Freeze;
        case.lines.clear();
        let after = look(&mut case, 2).status;
        assert_eq!(after.in_freezes == known, recorded, "{what}, {kind:?}");
        if recorded && after.rollback.is_some() {
            let told = after
                .message
                .ends_with("; in freeze switch by dave: incident");
            assert!(told, "{what}: {}", after.message);
        }
    }
}

#[test]
fn an_abort_is_taken_in_a_freeze_and_recorded() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
    case.lines = vec![switch(StopLineSpec {
        kind: StopKind::Freeze,
        ..StopLineSpec::default()
    })];
    case.release.spec.abort = true;
    let step = look(&mut case, 0);
    assert_eq!(step.status.phase, Phase::Aborted);
    let message = step.status.message;
    assert!(
        message.ends_with("; in freeze switch by dave: incident"),
        "{message}"
    );
    case.lines.clear();
    let later = look(&mut case, 60).status;
    assert_eq!((later.message, later.in_freezes.len()), (message, 1));
}

#[test]
fn an_emergency_goes_on_past_a_gate_that_had_halted_the_release() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
    let status = status(&mut case.release);
    status.batches[1].state = BatchState::Failed;
    status.halt = Some(Turn {
        reason: "GateFailed".into(),
        message: "gate owners: rejected by bob".into(),
        at: Time(NOW),
        batch: 1,
    });
    status.gates = vec![GateStatus {
        name: "owners".into(),
        batch: 0,
        state: GateState::Failed,
        ..GateStatus::default()
    }];
    assert_eq!(look(&mut case, 0).status.phase, Phase::Paused);
    let mut emergency = Emergency {
        reason: "fire".into(),
        by: "erin".into(),
        gates: vec!["another".into()],
    };
    case.release.spec.emergency = Some(emergency.clone());
    assert_eq!(look(&mut case, 1).status.phase, Phase::Paused);
    emergency.gates = vec!["owners".into()];
    case.release.spec.emergency = Some(emergency);
    let step = look(&mut case, 2);
    assert_eq!((step.status.phase, step.status.halt), (Phase::Batch, None));
}

#[test]
fn no_batch_begins_outside_of_its_windows() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1)], 2);
    frozen(&mut case).strategy.windows = vec![Window {
        from: "08:00".into(),
        until: "09:00".into(),
        ..Window::default()
    }];
    let step = look(&mut case, 0);
    assert_eq!(
        step.status.phase,
        Phase::Batch,
        "what has begun is finished"
    );
    status(&mut case.release).batches[1].state = BatchState::Done;
    let step = look(&mut case, 1);
    assert_eq!(
        (step.status.phase, step.status.reason.as_str()),
        (Phase::Gate, "Window")
    );
    assert_eq!(step.wake, Some(NOW + SignedDuration::from_hours(8)));
    assert!(step.status.batches[2].started.is_none());
    case.release.spec.emergency = Some(Emergency {
        reason: "fire".into(),
        by: "erin".into(),
        gates: Vec::new(),
    });
    let step = look(&mut case, 2);
    assert!(step.status.batches[2].started.is_some());
    assert_eq!(
        step.status.overrides[0].what,
        "closed change window for batch 2"
    );
}

#[test]
fn a_cell_out_of_reach_is_marked_left_out_and_taken_along_again() {
    let mut case = in_batch(vec![cell("a", 9, 2, 1), cell("b", 9, 2, 1)], 2);
    frozen(&mut case).strategy.unreachable.after = Span::seconds(60);
    case.cells[1].reachable = false;
    case.cells[1].unreachable_since = Some(NOW);
    let step = look(&mut case, 59);
    assert!(step.status.skipped_cells.is_empty());
    assert_eq!(step.wake, Some(NOW + SignedDuration::from_secs(60)));
    let step = look(&mut case, 60);
    assert_eq!(step.status.skipped_cells[0].cell, "b");
    assert_eq!(step.status.skipped_cells[0].instances, 9);
    // Everything else is done: the release ends, and says so.
    for n in 0..9 {
        case.cells[0].instances.insert(n, instance("a", n, 2));
    }
    if let Some(set) = &mut case.cells[0].set {
        set.partition = 0;
    }
    let ended = (61..90).map(|s| look(&mut case, s)).find(|step| {
        step.actions
            .iter()
            .any(|a| matches!(a, Action::SetGroupRevision { .. }))
    });
    assert!(ended.is_some(), "{:?}", case.release.status);
    let mut back = case.plan_at(NOW + SignedDuration::from_secs(91));
    assert_eq!(back.status.skipped_cells.len(), 1);
    case.cells[1].reachable = true;
    back = look(&mut case, 92);
    assert!(back.status.skipped_cells.is_empty());
    assert!(held(&back, "b") > 0, "it is taken along");

    // By choice it is waited for; and a bastion's cell always is.
    let mut waits = in_batch(vec![cell("a", 9, 2, 1), cell("b", 9, 2, 1)], 2);
    frozen(&mut waits).strategy.unreachable.then = UnreachableThen::Wait;
    waits.cells[1].reachable = false;
    waits.cells[1].unreachable_since = Some(NOW);
    assert!(look(&mut waits, 99_999).status.skipped_cells.is_empty());
    let mut bastion = begun(vec![cell("a", 9, 2, 1), cell("b", 9, 2, 1)], 2);
    bastion.cells[0].reachable = false;
    bastion.cells[0].unreachable_since = Some(NOW);
    let step = look(&mut bastion, 99_999);
    assert!(step.status.skipped_cells.is_empty());
    assert_ne!(step.status.batches[0].state, BatchState::Done);
    // Nor is everything left out.
    let mut all = in_batch(vec![cell("a", 9, 2, 1)], 2);
    all.cells[0].reachable = false;
    all.cells[0].unreachable_since = Some(NOW);
    let step = look(&mut all, 99_999);
    assert!(step.status.skipped_cells.is_empty() && !step.status.phase.is_final());
}

#[test]
fn back_batch_by_batch() {
    let mut case = rolling_back(vec![cell("a", 9, 1, 2)], 9);
    case.release.spec.rollback_pace = Some(RollbackPace::Batches);
    let first = look(&mut case, 0);
    assert_eq!(held(&first, "a"), 1, "the bastion first: {:?}", first.holds);
    case.cells[0].instances.insert(8, instance("a", 8, 1));
    if let Some(set) = &mut case.cells[0].set {
        set.partition = 8;
    }
    let second = look(&mut case, 1);
    let size = case
        .release
        .status
        .as_ref()
        .unwrap()
        .plan
        .as_ref()
        .unwrap()
        .batches[1]
        .size;
    assert_eq!(held(&second, "a") as i32, size);
    assert_eq!(second.status.rollback.map(|r| r.batch), Some(1));
    // Or everything at once.
    case.release.spec.rollback_pace = Some(RollbackPace::AllAtOnce);
    assert_eq!(held(&look(&mut case, 2), "a"), 8);
}
