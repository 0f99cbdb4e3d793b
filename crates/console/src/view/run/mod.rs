//! A release's run: batches as columns, instances as tiles, gates, what happened when, what can be pressed.

mod moments;
mod press;

use std::collections::HashMap;

use gantry_api::{
    Phase, Release, ReleaseStatus,
    gate::GateStatus,
    release::{BatchState, Doing, Method},
};
use jiff::Timestamp;
use serde::Serialize;

pub use self::{
    moments::{Moment, MomentKind, moments},
    press::Press,
};
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

    pub fn release(status: serde_json::Value) -> Release {
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
}
