//! Gates: what must hold before the bastion is accepted, between batches and at the end.
//!
//! Pure: the planner says what is to be asked ([`Ask`]), the shell asks and hands the [`Answer`] in with
//! the next look. Every question has an id of its own, and its answer counts once: it is written into the
//! release's status together with the number of answers so far, which makes the next question another. An
//! answer that is lost with the process is asked for again. What cannot answer is not a pass.

mod approval;
mod metric;
pub mod prometheus;
mod webhook;

use std::collections::BTreeMap;

use gantry_api::{
    gate::{Gate, GateState, GateStatus, Point, SecretKey},
    release::Plan,
    span::Span,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{World, run::signed, tell};

/// A question to be put to something outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Its name: the answer is filed under it.
    pub id: String,
    /// Key of a Secret in the release's namespace with a bearer token.
    pub token: Option<SecretKey>,
    /// What is asked.
    pub question: Question,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Values of Prometheus.
    Metric {
        /// Address of the server.
        address: String,
        /// The query.
        query: String,
        /// The same of the instances on the old revision.
        baseline: Option<String>,
    },
    /// A POST of JSON.
    Webhook {
        /// The URL.
        url: String,
        /// What is sent.
        payload: Value,
        /// How long the answer may take.
        timeout: Span,
    },
    /// The digest of an image's tag.
    Digest {
        /// The image.
        image: String,
    },
}

/// What came back. `Err` says why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a [`Question::Metric`].
    Metric {
        /// The value.
        value: Result<f64, String>,
        /// That of the instances on the old revision, where it was asked for.
        baseline: Option<Result<f64, String>>,
    },
    /// To a [`Question::Webhook`]: status code and the beginning of the body.
    Webhook(Result<(u16, String), String>),
    /// To a [`Question::Digest`]: `sha256:…`.
    Digest(Result<String, String>),
}

/// Answers by the id of their question.
pub type Answers = BTreeMap<String, Answer>;

/// What came of looking at the gates of one point.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Looked {
    /// Gates that do not hold yet, in words. Empty: all hold.
    pub waiting: Vec<String>,
    /// Whether only people are waited for.
    pub people: bool,
    /// Why one has failed.
    pub failed: Option<String>,
    /// To be asked.
    pub asks: Vec<Ask>,
    /// When something is due.
    pub wake: Option<Timestamp>,
    /// Gates that an emergency overrides, in words.
    pub overridden: Vec<String>,
}

impl Looked {
    fn due(&mut self, at: Option<Timestamp>) {
        self.wake = tell::earlier(self.wake, at);
    }
}

/// What a gate is looked at with.
pub(super) struct Scene<'a> {
    pub world: &'a World<'a>,
    pub plan: &'a Plan,
    pub target: i64,
    pub point: Point,
    pub batch: i32,
    pub now: Timestamp,
}

/// The gates that stand at `point`, in the strategy's order.
pub fn at(plan: &Plan, point: Point) -> impl Iterator<Item = &Gate> {
    let stands = move |g: &&Gate| g.at.is_empty() || g.at.contains(&point);
    plan.strategy.gates.iter().filter(stands)
}

/// Whether every gate that stands at `point` has been passed after `batch`.
pub fn passed(plan: &Plan, gates: &[GateStatus], point: Point, batch: i32) -> bool {
    let open = |gate: &Gate| {
        gates.iter().any(|s| {
            s.name == gate.name
                && s.batch == batch
                && matches!(s.state, GateState::Passed | GateState::Overridden)
        })
    };
    at(plan, point).all(open)
}

/// Looks at the gates of a point and writes down where they stand.
pub(super) fn look(scene: &Scene<'_>, gates: &mut Vec<GateStatus>) -> Looked {
    let mut looked = Looked {
        people: true,
        ..Looked::default()
    };
    for gate in at(scene.plan, scene.point) {
        let known = gates
            .iter()
            .position(|s| s.name == gate.name && s.batch == scene.batch);
        let index = known.unwrap_or_else(|| {
            gates.push(GateStatus {
                name: gate.name.clone(),
                batch: scene.batch,
                ..GateStatus::default()
            });
            gates.len() - 1
        });
        one(scene, gate, &mut gates[index], &mut looked);
    }
    looked
}

fn one(scene: &Scene<'_>, gate: &Gate, status: &mut GateStatus, looked: &mut Looked) {
    if matches!(status.state, GateState::Passed | GateState::Overridden) {
        return;
    }
    let emergency = scene.world.release.spec.emergency.as_ref();
    let overridden = emergency.filter(|e| e.overrides(&gate.name));
    if let Some(emergency) = overridden {
        let place = if scene.batch == 0 {
            "the bastion".to_owned()
        } else {
            format!("batch {}", scene.batch)
        };
        looked
            .overridden
            .push(format!("gate {} after {place}", gate.name));
        let why = format!("overridden by {}: {}", emergency.by, emergency.reason);
        decide(status, GateState::Overridden, why, scene.now);
        return;
    }
    if status.state == GateState::Failed {
        looked.failed = Some(format!("gate {}: {}", gate.name, status.message));
        return;
    }
    let started = status.started.get_or_insert(Time(scene.now)).0;
    let people = gate.approval.is_some();
    if let Some(wait) = gate.wait {
        let due = started
            .saturating_add(signed(wait))
            .unwrap_or(Timestamp::MAX);
        if due <= scene.now {
            decide(
                status,
                GateState::Passed,
                format!("{wait} have passed"),
                scene.now,
            );
        } else {
            status.message = format!("waits until {}", tell::clock_time(due));
            looked.due(Some(due));
        }
    } else if let Some(asked) = &gate.metric {
        metric::look(scene, gate, asked, status, looked);
    } else if let Some(asked) = &gate.webhook {
        webhook::look(scene, gate, asked, status, looked);
    } else if let Some(asked) = &gate.approval {
        approval::look(scene, gate, asked, status);
    } else {
        decide(
            status,
            GateState::Failed,
            "it says nothing of what must hold".to_owned(),
            scene.now,
        );
    }
    if status.state == GateState::Running {
        let limit = gate
            .timeout
            .or((!people && gate.wait.is_none()).then(|| Span::minutes(60)));
        let due = limit.map(|limit| {
            let due = started.saturating_add(signed(limit));
            (limit, due.unwrap_or(Timestamp::MAX))
        });
        match due {
            Some((limit, due)) if due <= scene.now => {
                let last = if status.message.is_empty() {
                    "nothing answered".to_owned()
                } else {
                    status.message.clone()
                };
                let why = format!("not decided in {limit}: {last}");
                decide(status, GateState::Failed, why, scene.now);
            }
            Some((_, due)) => looked.due(Some(due)),
            None => {}
        }
    }
    match status.state {
        GateState::Running => {
            looked.people &= people;
            looked
                .waiting
                .push(format!("gate {}: {}", gate.name, status.message));
        }
        GateState::Failed => {
            looked.failed = Some(format!("gate {}: {}", gate.name, status.message));
        }
        GateState::Passed | GateState::Overridden => {}
    }
}

fn decide(status: &mut GateStatus, state: GateState, message: String, now: Timestamp) {
    status.state = state;
    status.message = message;
    status.finished = Some(Time(now));
}

/// The id of a gate's next question.
fn id(scene: &Scene<'_>, gate: &Gate, status: &GateStatus) -> String {
    let release = &scene.world.release.metadata;
    let release = release.uid.as_ref().or(release.name.as_ref());
    format!(
        "{}/{}@{}#{}",
        release.map_or("", String::as_str),
        gate.name,
        scene.batch,
        status.measured
    )
}

/// When the next question is due: at once, or `interval` after the last.
fn next(status: &GateStatus, interval: Span, now: Timestamp) -> Timestamp {
    status.asked.as_ref().map_or(now, |asked| {
        asked
            .0
            .saturating_add(signed(interval))
            .unwrap_or(Timestamp::MAX)
    })
}

/// Another try: gates that have failed are asked anew.
pub(super) fn retry(gates: &mut [GateStatus]) {
    for gate in gates.iter_mut().filter(|g| g.state == GateState::Failed) {
        *gate = GateStatus {
            name: std::mem::take(&mut gate.name),
            batch: gate.batch,
            // Questions stay new ones.
            measured: gate.measured,
            ..GateStatus::default()
        };
    }
}

/// Nothing is asked while a release stands still: time that passes counts against no gate.
pub(super) fn stand_still(gates: &mut [GateStatus]) {
    for gate in gates.iter_mut().filter(|g| g.state == GateState::Running) {
        gate.started = None;
    }
}

#[cfg(test)]
mod tests;
