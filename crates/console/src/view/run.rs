//! A release's run: batches as columns, instances as tiles, gates, what happened when.

use std::collections::HashMap;

use gantry_api::{
    Phase, Release, ReleaseStatus,
    gate::{GateState, GateStatus},
    release::{BatchState, Doing, Method},
};
use gantry_hub::release::buttons::{self, Button};
use jiff::Timestamp;
use serde::Serialize;

use crate::model::Instance;

/// What is happening to an instance, for colour, shape and word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Tile {
    /// Given up on.
    Failed,
    /// Out of service, its connections ending.
    Draining,
    /// On its way to the other revision.
    Updating,
    /// Ready there, not yet for long enough or not yet back in service.
    Checking,
    /// Ready there, kept out of service until it is accepted.
    Held,
    /// Its turn has not come.
    Waiting,
    /// Not ready, for reasons of its own.
    Unready,
    /// Not there.
    Missing,
    /// On the new revision, in service.
    Done,
    /// On the old revision again.
    TakenBack,
    /// On the old revision when the release ended.
    Untouched,
}

impl Tile {
    /// Its class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Failed => "t-fail",
            Self::Draining => "t-drain",
            Self::Updating => "t-busy",
            Self::Checking => "t-check",
            Self::Held => "t-held",
            Self::Waiting => "t-wait",
            Self::Unready => "t-unready",
            Self::Missing => "t-gone",
            Self::Done => "t-done",
            Self::TakenBack => "t-back",
            Self::Untouched => "t-old",
        }
    }

    /// Whether it is under way.
    pub fn moves(self) -> bool {
        matches!(
            self,
            Self::Draining | Self::Updating | Self::Checking | Self::Held
        )
    }
}

/// One instance of a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// Its name.
    pub name: String,
    /// Its cell.
    pub cell: String,
    /// What is happening to it.
    pub state: Tile,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// 0 is the bastion.
    pub index: i32,
    /// Where it stands.
    pub state: BatchState,
    /// When its first instance was chosen.
    pub started: Option<Timestamp>,
    /// When it was done.
    pub finished: Option<Timestamp>,
    /// How many may be out of service at once.
    pub out: i32,
    /// Its instances.
    pub pieces: Vec<Piece>,
    /// Gates that follow it.
    pub gates: Vec<GateStatus>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: MomentKind,
    /// What it is about: a batch, a gate, an instance.
    pub subject: String,
    /// More of it.
    pub detail: String,
}

/// Kinds of moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum MomentKind {
    /// Somebody asked for it.
    Asked,
    /// The plan was frozen.
    Started,
    /// A batch began.
    BatchStarted,
    /// A batch was done.
    BatchDone,
    /// A gate began to be asked.
    GateAsked,
    /// A gate passed.
    GatePassed,
    /// A gate failed.
    GateFailed,
    /// An emergency overrode something.
    Overridden,
    /// An instance was given up on.
    InstanceFailed,
    /// A cell was left out.
    CellSkipped,
    /// Too much failed: it stands still.
    Halted,
    /// Failed instances were tried again.
    Retried,
    /// It turned round.
    TurnedBack,
    /// It ended.
    Ended,
}

/// The columns of a release. `pod` tells of an instance in a cell, where it is known.
pub fn columns<'a>(
    release: &Release,
    pod: impl Fn(&str, &str) -> Option<&'a Instance>,
) -> Vec<Column> {
    let Some(status) = &release.status else {
        return Vec::new();
    };
    let Some(plan) = &status.plan else {
        return Vec::new();
    };
    let group = &release.spec.group;
    let working: HashMap<&str, _> = status
        .working
        .iter()
        .map(|w| (w.name.as_str(), w))
        .collect();
    let failed: HashMap<&str, &str> = status
        .failures
        .iter()
        .filter(|f| f.retry == release.spec.retry)
        .map(|f| (f.instance.as_str(), f.message.as_str()))
        .collect();
    let mut columns = Vec::new();
    for batch in plan.batches.iter().filter(|b| b.size > 0) {
        let known = status.batches.iter().find(|b| b.index == batch.index);
        let state = known.map_or(BatchState::Waiting, |b| b.state);
        let mut pieces = Vec::with_capacity(usize::try_from(batch.size).unwrap_or(0));
        for slice in &batch.slices {
            for ordinal in (slice.lowest..=slice.highest).rev() {
                let name = slice.instance(group, ordinal);
                let (mut tile, mut since, mut note) = (Tile::Waiting, None, String::new());
                if let Some(w) = working.get(name.as_str()) {
                    tile = of_doing(w.doing);
                    since = w.since.as_ref().map(|t| t.0);
                    note.clone_from(&w.message);
                } else if let Some(why) = failed
                    .get(name.as_str())
                    .filter(|_| !status.phase.is_final())
                {
                    (tile, note) = (Tile::Failed, (*why).to_owned());
                } else {
                    let seen = pod(&slice.cell, &name);
                    tile = at_rest(status, state, seen).unwrap_or(tile);
                    if tile == Tile::Unready {
                        note = seen.map(|i| i.trouble.clone()).unwrap_or_default();
                    }
                }
                pieces.push(Piece {
                    name,
                    cell: slice.cell.clone(),
                    state: tile,
                    since,
                    note,
                });
            }
        }
        columns.push(Column {
            index: batch.index,
            state,
            started: known.and_then(|b| b.started.as_ref()).map(|t| t.0),
            finished: known.and_then(|b| b.finished.as_ref()).map(|t| t.0),
            out: batch.out,
            pieces,
            gates: status
                .gates
                .iter()
                .filter(|g| g.batch == batch.index)
                .cloned()
                .collect(),
        });
    }
    columns
}

fn of_doing(doing: Doing) -> Tile {
    match doing {
        Doing::Draining => Tile::Draining,
        Doing::Updating => Tile::Updating,
        Doing::Warming | Doing::Returning => Tile::Checking,
        Doing::Held => Tile::Held,
        Doing::Failed => Tile::Failed,
    }
}

/// An instance that nobody works on; `None`: its turn has not come.
fn at_rest(status: &ReleaseStatus, batch: BatchState, pod: Option<&Instance>) -> Option<Tile> {
    let back = status.rollback.is_some();
    let touched = batch != BatchState::Waiting;
    match status.phase {
        Phase::Succeeded => return Some(Tile::Done),
        Phase::RolledBack => {
            return Some(if touched {
                Tile::TakenBack
            } else {
                Tile::Untouched
            });
        }
        _ => {}
    }
    let target = status.target.as_ref().map(|t| t.revision);
    match pod {
        None if batch == BatchState::Done && !back => Some(Tile::Done),
        None => None,
        Some(i) if target.is_some() && i.revision == target => {
            Some(match (i.in_service, i.ready) {
                (true, _) if back => Tile::Waiting,
                (true, _) => Tile::Done,
                (_, true) => Tile::Checking,
                _ => Tile::Unready,
            })
        }
        Some(_) if back && touched => Some(Tile::TakenBack),
        Some(i) if !i.ready => Some(Tile::Unready),
        Some(_) if status.phase.is_final() => Some(Tile::Untouched),
        Some(_) => None,
    }
}

/// What has happened, the newest first.
pub fn moments(release: &Release) -> Vec<Moment> {
    use MomentKind::{
        Asked, BatchDone, BatchStarted, CellSkipped, Ended, GateAsked, GateFailed, GatePassed,
        Halted, InstanceFailed, Overridden, Retried, Started, TurnedBack,
    };
    let status = release.status.clone().unwrap_or_default();
    let mut all = Vec::new();
    let mut tell = |at: Option<Timestamp>, kind, subject: String, detail: String| {
        if let Some(at) = at {
            all.push(Moment {
                at,
                kind,
                subject,
                detail,
            });
        }
    };
    let made = release.metadata.creation_timestamp.as_ref().map(|t| t.0);
    tell(
        made,
        Asked,
        status.requested_by.clone(),
        release.spec.note.clone(),
    );
    let digest = status
        .plan
        .as_ref()
        .map(|p| p.digest.clone())
        .unwrap_or_default();
    tell(
        status.started.as_ref().map(|t| t.0),
        Started,
        String::new(),
        digest,
    );
    let planned = |index: i32| {
        let plan = status.plan.as_ref().filter(|p| !p.batches.is_empty());
        plan.is_none_or(|p| p.batches.iter().any(|b| b.index == index && b.size > 0))
    };
    for b in status.batches.iter().filter(|b| planned(b.index)) {
        tell(
            b.started.as_ref().map(|t| t.0),
            BatchStarted,
            b.index.to_string(),
            String::new(),
        );
        let took = b
            .times
            .as_ref()
            .map(|t| t.slowest.clone())
            .unwrap_or_default();
        tell(
            b.finished.as_ref().map(|t| t.0),
            BatchDone,
            b.index.to_string(),
            took,
        );
    }
    for g in &status.gates {
        tell(
            g.started.as_ref().map(|t| t.0),
            GateAsked,
            g.name.clone(),
            g.batch.to_string(),
        );
        let kind = match g.state {
            GateState::Failed => GateFailed,
            GateState::Overridden => Overridden,
            _ => GatePassed,
        };
        tell(
            g.finished.as_ref().map(|t| t.0),
            kind,
            g.name.clone(),
            g.message.clone(),
        );
    }
    for f in &status.failures {
        tell(
            Some(f.at.0),
            InstanceFailed,
            f.instance.clone(),
            f.message.clone(),
        );
    }
    for o in &status.overrides {
        tell(
            Some(o.at.0),
            Overridden,
            o.what.clone(),
            format!("{}: {}", o.by, o.reason),
        );
    }
    for c in &status.skipped_cells {
        tell(
            Some(c.since.0),
            CellSkipped,
            c.cell.clone(),
            c.message.clone(),
        );
    }
    if let Some(turn) = &status.halt {
        tell(
            Some(turn.at.0),
            Halted,
            turn.reason.clone(),
            turn.message.clone(),
        );
    }
    if let Some(turn) = &status.rollback {
        tell(
            Some(turn.at.0),
            TurnedBack,
            turn.reason.clone(),
            turn.message.clone(),
        );
    }
    if let Some(again) = &status.retried {
        tell(
            Some(again.at.0),
            Retried,
            again.count.to_string(),
            String::new(),
        );
    }
    tell(
        status.finished.as_ref().map(|t| t.0),
        Ended,
        status.phase.as_str().to_owned(),
        status.message.clone(),
    );
    all.sort_by_key(|m| (std::cmp::Reverse(m.at), std::cmp::Reverse(m.kind)));
    all
}

/// A button, and whether pressing it does something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Press {
    /// On.
    Continue,
    /// Stand still.
    Pause,
    /// Again.
    Retry,
    /// No longer wait for the batch.
    Skip,
    /// Say yes or no to the gate.
    Approve,
    /// Go on in spite of freezes and windows.
    Emergency,
    /// Back.
    Rollback,
    /// End here.
    Abort,
}

impl Press {
    /// All, in the order in which they stand.
    pub const ALL: [Self; 8] = [
        Self::Continue,
        Self::Pause,
        Self::Retry,
        Self::Skip,
        Self::Approve,
        Self::Emergency,
        Self::Rollback,
        Self::Abort,
    ];

    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Pause => "pause",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Approve => "approve",
            Self::Emergency => "emergency",
            Self::Rollback => "rollback",
            Self::Abort => "abort",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Whether it does something to the release as it is.
    pub fn useful(self, release: &Release) -> bool {
        let status = release.status.clone().unwrap_or_default();
        let open = !status.phase.is_final();
        let plain = |button| buttons::patch(release, button).is_ok();
        match self {
            Self::Continue => plain(Button::Continue),
            Self::Pause => plain(Button::Pause),
            Self::Retry => open && (status.halt.is_some() || !status.failures.is_empty()),
            Self::Skip => open && status.halt.is_some() && buttons::under_way(release).is_some(),
            Self::Approve => open && buttons::asked(release, None).is_ok(),
            Self::Emergency => {
                open && release.spec.emergency.is_none() && status.phase == Phase::Paused
            }
            Self::Rollback => plain(Button::Rollback) && status.rollback.is_none(),
            Self::Abort => plain(Button::Abort) && status.rollback.is_none(),
        }
    }

    /// Whether a person has to see first what it does.
    pub fn asks(self) -> bool {
        !matches!(self, Self::Continue | Self::Pause | Self::Retry)
    }
}

/// How many instances of a release are in which state.
pub fn counts(columns: &[Column]) -> Vec<(Tile, usize)> {
    let mut counts: std::collections::BTreeMap<Tile, usize> = std::collections::BTreeMap::new();
    for piece in columns.iter().flat_map(|c| &c.pieces) {
        *counts.entry(piece.state).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// Whether most instances are updated in place.
pub fn in_place(release: &Release) -> Option<bool> {
    let plan = release.status.as_ref()?.plan.as_ref()?;
    Some(plan.method == Method::InPlace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(status: serde_json::Value) -> Release {
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": "r", "namespace": "shop",
                "creationTimestamp": "2026-11-21T07:59:00Z"},
            "spec": {"group": "cart"}, "status": status,
        }))
        .unwrap()
    }

    fn plan() -> serde_json::Value {
        json!({"batches": [
            {"index": 0, "size": 1, "out": 1, "slices": [{"cell": "a", "highest": 3, "lowest": 3}]},
            {"index": 1, "size": 3, "out": 2, "slices": [{"cell": "a", "highest": 2, "lowest": 0}]},
            {"index": 2, "size": 0}],
            "replicas": 4, "maxOut": 2, "tolerance": 0, "method": "InPlace", "strategy": {}})
    }

    fn instance(revision: i64, ready: bool, in_service: bool) -> Instance {
        Instance {
            revision: Some(revision),
            ready,
            in_service,
            trouble: "why".into(),
            ..Instance::default()
        }
    }

    #[test]
    fn tiles_say_what_is_and_not_what_was_planned() {
        let running = release(json!({
            "phase": "Batch", "plan": plan(), "target": {"revision": 2}, "from": {"revision": 1},
            "batches": [{"index": 0, "state": "Done"}, {"index": 1, "state": "Running"}],
            "working": [{"name": "cart-a-2", "cell": "a", "batch": 1, "state": "Draining"}],
            "failures": [{"instance": "cart-a-1", "cell": "a", "batch": 1, "message": "boom", "at": "2026-11-21T08:00:00Z"}],
        }));
        let (old, new) = (instance(1, true, true), instance(2, true, true));
        let columns = columns(&running, |_, name| match name {
            "cart-a-3" => Some(&new),
            _ => Some(&old),
        });
        let states: Vec<Vec<Tile>> = columns
            .iter()
            .map(|c| c.pieces.iter().map(|p| p.state).collect())
            .collect();
        assert_eq!(
            states,
            [
                vec![Tile::Done],
                vec![Tile::Draining, Tile::Failed, Tile::Waiting]
            ]
        );
        assert_eq!(columns[1].pieces[1].note, "boom");
        assert_eq!(
            counts(&columns),
            [
                (Tile::Failed, 1),
                (Tile::Draining, 1),
                (Tile::Waiting, 1),
                (Tile::Done, 1)
            ]
        );
    }

    #[test]
    fn at_rest_by_phase_and_pod() {
        let status = |phase: &str, back: bool| {
            let mut value = json!({"phase": phase, "target": {"revision": 2}});
            if back {
                value["rollback"] =
                    json!({"reason": "r", "message": "m", "at": "2026-11-21T08:00:00Z"});
            }
            serde_json::from_value::<ReleaseStatus>(value).unwrap()
        };
        let on = instance;
        for (status, batch, pod, want) in [
            (
                status("Batch", false),
                BatchState::Running,
                Some(on(2, true, false)),
                Some(Tile::Checking),
            ),
            (
                status("Batch", false),
                BatchState::Running,
                Some(on(2, false, false)),
                Some(Tile::Unready),
            ),
            (
                status("Batch", false),
                BatchState::Waiting,
                Some(on(1, false, false)),
                Some(Tile::Unready),
            ),
            (
                status("Batch", false),
                BatchState::Waiting,
                Some(on(1, true, true)),
                None,
            ),
            (
                status("Batch", false),
                BatchState::Done,
                None,
                Some(Tile::Done),
            ),
            (
                status("RollingBack", true),
                BatchState::Running,
                Some(on(2, true, true)),
                Some(Tile::Waiting),
            ),
            (
                status("RollingBack", true),
                BatchState::Running,
                Some(on(1, true, true)),
                Some(Tile::TakenBack),
            ),
            (
                status("RolledBack", true),
                BatchState::Waiting,
                None,
                Some(Tile::Untouched),
            ),
            (
                status("Aborted", false),
                BatchState::Running,
                Some(on(1, true, true)),
                Some(Tile::Untouched),
            ),
            (
                status("Succeeded", false),
                BatchState::Done,
                None,
                Some(Tile::Done),
            ),
        ] {
            assert_eq!(
                at_rest(&status, batch, pod.as_ref()),
                want,
                "{:?} {batch:?}",
                status.phase
            );
        }
    }

    #[test]
    fn moments_are_told_newest_first() {
        let ended = release(json!({
            "phase": "Succeeded", "requestedBy": "ann", "started": "2026-11-21T08:00:00Z", "finished": "2026-11-21T08:05:00Z",
            "batches": [{"index": 0, "state": "Done", "started": "2026-11-21T08:00:00Z", "finished": "2026-11-21T08:01:00Z"}],
        }));
        let kinds: Vec<MomentKind> = moments(&ended).into_iter().map(|m| m.kind).collect();
        assert_eq!(
            kinds,
            [
                MomentKind::Ended,
                MomentKind::BatchDone,
                MomentKind::BatchStarted,
                MomentKind::Started,
                MomentKind::Asked
            ]
        );
    }

    #[test]
    fn buttons_are_there_when_they_do_something() {
        let useful = |status| -> Vec<&str> {
            let release = release(status);
            Press::ALL
                .into_iter()
                .filter(|p| p.useful(&release))
                .map(Press::name)
                .collect()
        };
        assert_eq!(
            useful(
                json!({"phase": "Gate", "waitingSince": "2026-11-21T08:00:00Z", "batches": [{"index": 0, "state": "Ready"}]})
            ),
            ["continue", "pause", "rollback", "abort"]
        );
        assert_eq!(
            useful(
                json!({"phase": "Paused", "halt": {"reason": "r", "message": "m", "at": "2026-11-21T08:00:00Z"},
                "batches": [{"index": 1, "state": "Failed"}]})
            ),
            ["pause", "retry", "skip", "emergency", "rollback", "abort"]
        );
        assert!(useful(json!({"phase": "Succeeded"})).is_empty());
    }
}
