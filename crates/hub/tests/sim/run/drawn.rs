//! Strategies, gates and windows as a run draws them.

use gantry_api::{
    CountOrPercent, Span, StrategySpec,
    gate::{Approval, Compare, Gate, Metric, Point, Webhook},
    release::Emergency,
    strategy::{
        Accept, Bastion, Batches, Deadlines, InPlace, OnFailure, Pause, ResolveTags, Rollback,
        RollbackPace, Unreachable, UnreachableThen, WithinBatch,
    },
    window::Window,
};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

pub(super) fn emergency(gates: &[&str]) -> Emergency {
    Emergency {
        reason: "fire".into(),
        by: "erin".into(),
        gates: gates.iter().map(|g| (*g).to_owned()).collect(),
    }
}

/// Some gates of some kinds at some points.
pub(super) fn gates(rng: &mut ChaCha8Rng) -> Vec<Gate> {
    let mut gates = Vec::new();
    for name in ["time", "errors", "smoke", "people"] {
        if !rng.random_bool(0.15) {
            continue;
        }
        let mut gate = Gate {
            name: name.into(),
            at: [Point::Bastion, Point::Batch, Point::End]
                .into_iter()
                .filter(|_| rng.random_bool(0.4))
                .collect(),
            timeout: rng.random_bool(0.3).then(|| Span::seconds(60)),
            ..Gate::default()
        };
        match name {
            "time" => gate.wait = Some(Span::seconds(rng.random_range(0..6))),
            "errors" => {
                gate.metric = Some(Metric {
                    address: "http://prometheus".into(),
                    query: "errors{pod=~'{{pods}}'}".into(),
                    max: Some(2.0),
                    compare: rng.random_bool(0.5).then(|| Compare {
                        max_ratio: Some(2.0),
                        ..Compare::default()
                    }),
                    interval: Span::seconds(rng.random_range(1..4)),
                    count: rng.random_range(1..4),
                    failure_limit: rng.random_range(0..2),
                    ..Metric::default()
                });
            }
            "smoke" => {
                gate.webhook = Some(Webhook {
                    url: "http://smoke".into(),
                    interval: Span::seconds(2),
                    failure_limit: rng.random_range(0..2),
                    ..Webhook::default()
                });
            }
            _ => {
                gate.approval = Some(Approval {
                    count: rng.random_range(1..=2),
                    users: vec!["alice".into(), "bob".into()],
                    groups: vec!["sre".into()],
                    own: false,
                });
            }
        }
        gates.push(gate);
    }
    gates
}

/// Every other minute from the simulation's start on.
pub(super) fn windows() -> Vec<Window> {
    (0..16)
        .map(|n| Window {
            from: format!("08:{:02}", n * 2),
            until: format!("08:{:02}", n * 2 + 1),
            ..Window::default()
        })
        .collect()
}

pub(super) fn strategy(rng: &mut ChaCha8Rng) -> StrategySpec {
    let sizes = match rng.random_range(0..3) {
        0 => Vec::new(),
        1 => vec![CountOrPercent::Count(1), CountOrPercent::Count(2)],
        _ => vec![CountOrPercent::Percent(20), CountOrPercent::Percent(80)],
    };
    StrategySpec {
        bastion: Bastion {
            instances: rng.random_range(0..=2),
            accept: if rng.random_bool(0.3) {
                Accept::Auto
            } else {
                Accept::Manual
            },
        },
        batches: Batches {
            count: Some(rng.random_range(1..4)),
            sizes,
        },
        cells_at_once: rng.random_bool(0.3).then_some(1),
        pause: *[Pause::Never, Pause::AfterBastion, Pause::EachBatch]
            .choose(rng)
            .unwrap(),
        in_place: *[InPlace::IfPossible, InPlace::IfPossible, InPlace::Never]
            .choose(rng)
            .unwrap(),
        max_unavailable: rng
            .random_bool(0.5)
            .then(|| CountOrPercent::Count(rng.random_range(1..4))),
        failure_tolerance: CountOrPercent::Count(*[0, 0, 1].choose(rng).unwrap()),
        interval: Span::seconds(rng.random_range(0..5)),
        min_ready: Span::seconds(*[0, 0, 3].choose(rng).unwrap()),
        deadlines: Deadlines {
            instance: Span::seconds(rng.random_range(20..60)),
            batch: rng.random_bool(0.2).then(|| Span::seconds(120)),
            total: rng.random_bool(0.1).then(|| Span::seconds(400)),
        },
        on_failure: if rng.random_bool(0.4) {
            OnFailure::Rollback
        } else {
            OnFailure::Pause
        },
        within_batch: if rng.random_bool(0.3) {
            WithinBatch::LockStep
        } else {
            WithinBatch::SlidingWindow
        },
        rollback: Rollback {
            pace: if rng.random_bool(0.3) {
                RollbackPace::Batches
            } else {
                RollbackPace::AllAtOnce
            },
            max_unavailable: rng
                .random_bool(0.2)
                .then(|| CountOrPercent::Count(rng.random_range(1..5))),
        },
        unreachable: Unreachable {
            then: if rng.random_bool(0.5) {
                UnreachableThen::Skip
            } else {
                UnreachableThen::Wait
            },
            after: Span::seconds(rng.random_range(1..20)),
        },
        gates: gates(rng),
        resolve_tags: *[
            None,
            None,
            Some(ResolveTags::IfReachable),
            Some(ResolveTags::Required),
        ]
        .choose(rng)
        .unwrap(),
        windows: if rng.random_bool(0.2) {
            windows()
        } else {
            Vec::new()
        },
        ..StrategySpec::default()
    }
}
