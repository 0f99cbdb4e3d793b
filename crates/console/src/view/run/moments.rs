//! What happened in a release, and when.

use gantry_api::{Release, gate::GateState};
use jiff::Timestamp;
use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::run::tests::release;

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
}
