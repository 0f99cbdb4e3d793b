//! Gates one by one, with answers as they may come.

use gantry_api::{
    Release, ReleaseSpec,
    gate::{Approval, Compare, Metric, Verdict, Webhook},
    release::Emergency,
    strategy::StrategySpec,
};
use jiff::SignedDuration;

use super::*;
use crate::world::Revisions;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// One gate after batch 1, looked at as often as wanted.
struct Case {
    release: Release,
    plan: Plan,
    gates: Vec<GateStatus>,
    answers: Answers,
}

fn case(gate: Gate) -> Case {
    let spec = ReleaseSpec {
        group: "cart".into(),
        requested_by: "alice".into(),
        ..ReleaseSpec::default()
    };
    let mut release = Release::new("r", spec);
    release.metadata.namespace = Some("shop".into());
    let strategy = StrategySpec {
        gates: vec![Gate {
            name: "g".into(),
            ..gate
        }],
        ..StrategySpec::default()
    };
    Case {
        release,
        plan: Plan {
            strategy,
            ..Plan::default()
        },
        gates: Vec::new(),
        answers: Answers::new(),
    }
}

impl Case {
    fn look(&mut self, seconds: i64) -> Looked {
        let revisions = Revisions::new();
        let world = World {
            release: &self.release,
            group: None,
            app: None,
            strategy: Ok(StrategySpec::default()),
            revisions: &revisions,
            cells: &[],
            lines: &[],
            answers: &self.answers,
            origin: None,
            undoes: false,
        };
        let scene = Scene {
            world: &world,
            plan: &self.plan,
            target: 2,
            point: Point::Batch,
            batch: 1,
            now: NOW + SignedDuration::from_secs(seconds),
        };
        let looked = look(&scene, &mut self.gates);
        self.answers.clear();
        looked
    }

    /// Answers the question that was put.
    fn answer(&mut self, looked: &Looked, answer: Answer) {
        assert_eq!(looked.asks.len(), 1, "{looked:?}");
        self.answers.insert(looked.asks[0].id.clone(), answer);
    }

    fn told(&self) -> (GateState, &str) {
        (self.gates[0].state, self.gates[0].message.as_str())
    }
}

fn metric() -> Gate {
    Gate {
        metric: Some(Metric {
            address: "http://prom".into(),
            query: "errors".into(),
            max: Some(1.0),
            interval: Span::seconds(10),
            count: 2,
            failure_limit: 1,
            ..Metric::default()
        }),
        ..Gate::default()
    }
}

fn number(value: f64) -> Answer {
    Answer::Metric {
        value: Ok(value),
        baseline: None,
    }
}

#[test]
fn a_metric_is_measured_until_it_has_held_often_enough() {
    let mut case = case(metric());
    let first = case.look(0);
    assert_eq!(first.asks[0].id, "r/g@1#0");
    case.answer(&first, number(0.5));
    let second = case.look(1);
    assert!(second.asks.is_empty(), "not before its time");
    assert_eq!(second.wake, Some(NOW + SignedDuration::from_secs(11)));
    let second = case.look(11);
    assert_eq!(second.asks[0].id, "r/g@1#1", "another question");
    case.answer(&second, number(3.0));
    assert_eq!(case.look(12).failed, None, "one may be out of bounds");
    assert_eq!(case.told(), (GateState::Running, "3 is above 1"));
    let third = case.look(30);
    case.answer(&third, number(1.0));
    let last = case.look(31);
    assert!(last.waiting.is_empty() && last.asks.is_empty());
    assert_eq!(case.told(), (GateState::Passed, "1 is within bounds"));
    assert!(passed(&case.plan, &case.gates, Point::Batch, 1));
    assert!(!passed(&case.plan, &case.gates, Point::Batch, 2));
}

#[test]
fn what_cannot_answer_is_neither_a_pass_nor_a_failure_until_time_is_up() {
    let mut case = case(metric());
    case.plan.strategy.gates[0].timeout = Some(Span::minutes(5));
    for n in 0..15 {
        let looked = case.look(n * 20);
        let silence = match n % 2 {
            0 => Answer::Metric {
                value: Err("connection refused".into()),
                baseline: None,
            },
            _ => number(f64::NAN),
        };
        case.answer(&looked, silence);
        assert_eq!(case.look(n * 20 + 1).failed, None);
        assert_eq!((case.gates[0].passes, case.gates[0].failures), (0, 0));
    }
    let looked = case.look(300);
    assert_eq!(
        looked.failed.as_deref(),
        Some("gate g: not decided in 5m: no answer: connection refused")
    );
    assert!(!passed(&case.plan, &case.gates, Point::Batch, 1));
}

#[test]
fn bounds_against_the_old_revision() {
    let compare = |max_ratio, max_above, max_below| Compare {
        max_ratio,
        max_above,
        max_below,
    };
    for (bounds, value, old, want) in [
        (compare(Some(1.5), None, None), 3.0, 2.0, GateState::Passed),
        (compare(Some(1.5), None, None), 3.1, 2.0, GateState::Failed),
        (compare(None, Some(1.0), None), 3.1, 2.0, GateState::Failed),
        (compare(None, None, Some(1.0)), 0.9, 2.0, GateState::Failed),
        (compare(None, None, Some(1.0)), 9.0, 2.0, GateState::Passed),
    ] {
        let mut gate = metric();
        let asked = gate.metric.as_mut().unwrap();
        (asked.max, asked.count, asked.failure_limit) = (None, 1, 0);
        asked.compare = Some(bounds.clone());
        let mut case = case(gate);
        let looked = case.look(0);
        let (value, baseline) = (Ok(value), Some(Ok(old)));
        case.answer(&looked, Answer::Metric { value, baseline });
        case.look(1);
        assert_eq!(case.told().0, want, "{bounds:?}: {:?}", case.told());
    }
    let mut gate = metric();
    let asked = gate.metric.as_mut().unwrap();
    asked.compare = Some(compare(Some(1.5), None, None));
    let mut case = case(gate);
    let looked = case.look(0);
    let baseline = Some(Err("the query finds nothing".to_owned()));
    case.answer(
        &looked,
        Answer::Metric {
            value: Ok(0.5),
            baseline,
        },
    );
    case.look(1);
    assert_eq!(
        case.told(),
        (
            GateState::Running,
            "no answer of the old revision: the query finds nothing"
        )
    );
}

#[test]
fn a_webhook_is_asked_until_it_agrees() {
    let mut case = case(Gate {
        webhook: Some(Webhook {
            url: "http://smoke".into(),
            interval: Span::seconds(5),
            failure_limit: 1,
            metadata: BTreeMap::from([("suite".into(), "checkout".into())]),
            ..Webhook::default()
        }),
        ..Gate::default()
    });
    let looked = case.look(0);
    let Question::Webhook { payload, .. } = &looked.asks[0].question else {
        panic!("{looked:?}")
    };
    assert_eq!(
        *payload,
        serde_json::json!({
            "name": "cart", "namespace": "shop", "phase": "Progressing",
            "metadata": {"suite": "checkout", "release": "r", "batch": "1", "revision": "2"},
        })
    );
    case.answer(&looked, Answer::Webhook(Ok((500, "not yet".into()))));
    case.look(1);
    assert_eq!(
        case.told(),
        (GateState::Running, "http://smoke answers 500: not yet")
    );
    let looked = case.look(6);
    case.answer(&looked, Answer::Webhook(Ok((204, String::new()))));
    assert!(
        case.look(7).failed.is_some(),
        "only 200 to 202 agree, and one failure was allowed"
    );
    // Another try asks anew, and does not take an old answer for it.
    retry(&mut case.gates);
    let looked = case.look(8);
    assert_eq!(looked.asks[0].id, "r/g@1#2");
    case.answer(&looked, Answer::Webhook(Ok((202, String::new()))));
    case.look(9);
    assert_eq!(case.told().0, GateState::Passed);
}

#[test]
fn so_many_of_the_named_people_approve() {
    let verdict = |by: &str| Verdict {
        gate: "g".into(),
        by: by.into(),
        ..Verdict::default()
    };
    let mut case = case(Gate {
        approval: Some(Approval {
            count: 2,
            users: vec!["alice".into(), "bob".into()],
            groups: vec!["sre".into()],
            own: false,
        }),
        ..Gate::default()
    });
    let said = |case: &mut Case, v: Verdict| case.release.spec.approvals.push(v);
    said(&mut case, verdict("alice")); // asked for the release herself
    said(&mut case, verdict("mallory")); // not named
    said(&mut case, verdict("bob"));
    said(&mut case, verdict("bob")); // twice is once
    let elsewhere = Verdict {
        batch: Some(2),
        groups: vec!["sre".into()],
        ..verdict("carol")
    };
    said(&mut case, elsewhere);
    let looked = case.look(0);
    assert!(looked.people && looked.failed.is_none());
    assert_eq!(
        case.told(),
        (
            GateState::Running,
            "waits for 1 of 2 approvals of alice, bob, group sre; approved by bob"
        )
    );
    let carol = Verdict {
        groups: vec!["sre".into()],
        ..verdict("carol")
    };
    said(&mut case, carol);
    case.look(999_999);
    assert_eq!(case.told(), (GateState::Passed, "approved by bob, carol"));
    let mut no = verdict("bob");
    (no.reject, no.note) = (true, "numbers look odd".into());
    case.gates.clear();
    said(&mut case, no);
    assert_eq!(
        case.look(0).failed.as_deref(),
        Some("gate g: rejected by bob: numbers look odd")
    );
}

#[test]
fn an_emergency_overrides_only_the_gates_it_names() {
    let emergency = |gates: &[&str]| {
        Some(Emergency {
            reason: "fire".into(),
            by: "erin".into(),
            gates: gates.iter().map(|g| (*g).to_owned()).collect(),
        })
    };
    let mut case = case(metric());
    case.release.spec.emergency = emergency(&["other"]);
    assert_eq!(case.look(0).asks.len(), 1);
    case.release.spec.emergency = emergency(&["g"]);
    let looked = case.look(1);
    assert_eq!(looked.overridden, ["gate g after batch 1"]);
    assert_eq!(
        case.told(),
        (GateState::Overridden, "overridden by erin: fire")
    );
}

#[test]
fn time_that_passes_while_the_release_stands_still_counts_against_no_gate() {
    let mut case = case(Gate {
        wait: Some(Span::seconds(60)),
        ..Gate::default()
    });
    case.look(0);
    stand_still(&mut case.gates);
    let looked = case.look(100);
    assert_eq!(looked.wake, Some(NOW + SignedDuration::from_secs(160)));
    case.look(160);
    assert_eq!(case.told(), (GateState::Passed, "1m have passed"));
}
