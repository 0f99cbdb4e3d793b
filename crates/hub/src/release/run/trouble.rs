//! What stops a release: people, the line, what cannot be seen, deadlines, failures.

use gantry_api::{
    Span,
    release::{BatchState, Failure, Phase, Turn},
    strategy::OnFailure,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Turnout, signed};
use crate::release::{begin, drive::Moved, tell};

impl Turnout<'_> {
    /// Whether the release has to stand still.
    pub(super) fn standing(&self) -> bool {
        self.world.release.spec.paused
            || self.status.halt.is_some()
            || self.line.halt.is_some()
            || self.blind().is_some()
    }

    /// A cell that has not been seen since the hub started: how many instances are out of service there
    /// nobody knows, so none may be taken out anywhere.
    pub(super) fn blind(&self) -> Option<String> {
        // (One that has been seen before may be skipped: its set is known.)
        let unseen = |c: &&crate::world::CellView| {
            !c.reachable && c.set.is_none() && c.weight.is_some_and(|w| w > 0)
        };
        self.world.cells.iter().find(unseen).map(|c| {
            format!(
                "{}, and how it stands there is not known",
                begin::unreachable(c)
            )
        })
    }

    /// Looks at what stops a release, and says so. True when it has to stand still or turn round.
    pub(super) fn halted(&mut self, moved: &Moved) -> bool {
        let spec = &self.world.release.spec;
        if self.status.halt.is_none()
            && let Some((reason, message)) = self.failures()
        {
            self.halt(reason, message);
        }
        if self.status.rollback.is_some() {
            return true;
        }
        if let Some(halt) = self.status.halt.clone() {
            tell::phase(&mut self.status, Phase::Paused, &halt.reason, halt.message);
            return true;
        }
        if let Some((reason, why)) = self.line.halt.clone() {
            tell::phase(&mut self.status, Phase::Paused, reason, why);
            return true;
        }
        if let Some(why) = self.blind() {
            tell::phase(&mut self.status, Phase::Paused, "Unreachable", why);
            return true;
        }
        if spec.paused {
            let under_way = moved
                .working
                .iter()
                .filter(|w| w.doing != gantry_api::release::Doing::Failed)
                .count();
            let rest = if under_way > 0 {
                format!("; {under_way} instances under way are being finished")
            } else {
                String::new()
            };
            tell::phase(
                &mut self.status,
                Phase::Paused,
                "Paused",
                format!("paused by the button{rest}"),
            );
            return true;
        }
        false
    }

    /// Something has gone wrong: the release stands still, or turns round where its strategy says so.
    pub(super) fn halt(&mut self, reason: &str, message: String) {
        let turn = Turn {
            reason: reason.to_owned(),
            message,
            at: Time(self.now),
            batch: 0,
        };
        let running = self
            .status
            .batches
            .iter_mut()
            .find(|b| matches!(b.state, BatchState::Running | BatchState::Ready));
        if let Some(batch) = running {
            batch.state = BatchState::Failed;
        }
        if self.plan.strategy.on_failure == OnFailure::Rollback {
            self.status.rollback = Some(turn.clone());
        }
        self.status.halt = Some(turn);
    }

    /// Whether more has failed than is tolerated.
    fn failures(&self) -> Option<(&'static str, String)> {
        let spec = &self.world.release.spec;
        let deadlines = &self.plan.strategy.deadlines;
        let counted: Vec<&Failure> = self
            .status
            .failures
            .iter()
            .filter(|f| f.retry == spec.retry && !spec.skip.contains(&f.batch))
            .collect();
        let fatal = counted.iter().find(|f| f.batch == 0);
        let worst = fatal.or_else(|| {
            counted
                .last()
                .filter(|_| counted.len() as i32 > self.plan.tolerance)
        })?;
        let role = if worst.batch == 0 { "bastion " } else { "" };
        let others = counted.len() - 1;
        let more = if others > 0 {
            format!(" (and {others} more failed)")
        } else {
            String::new()
        };
        let why = if worst.message.is_empty() {
            "no reason is given by its pod"
        } else {
            &worst.message
        };
        Some((
            "InstanceFailed",
            format!(
                "{role}{} never became ready in {}: {why}{more}",
                worst.instance, deadlines.instance
            ),
        ))
    }

    /// Looks at the deadlines of the release and of the batch that runs, before anything else is: what is
    /// late halts the release now. When the next one is due.
    pub(super) fn deadlines(&mut self) -> Option<Timestamp> {
        let ended = self.status.phase.is_final() || self.status.rollback.is_some();
        // The clock stands while people are waited for.
        if ended || self.status.halt.is_some() || self.status.waiting_since.is_some() {
            return None;
        }
        let spec = &self.world.release.spec;
        let limits = &self.plan.strategy.deadlines;
        let retried = self.status.retried.as_ref().map(|r| r.at.0);
        let due = |limit: Span, started: Timestamp, waited: i64| {
            let waited = SignedDuration::from_secs(waited);
            let begun = retried.map_or(
                started.saturating_add(waited).unwrap_or(Timestamp::MAX),
                |r| r.max(started),
            );
            begun
                .saturating_add(signed(limit))
                .unwrap_or(Timestamp::MAX)
        };
        let mut wake = None;
        if let (Some(limit), Some(started)) = (limits.total, &self.status.started) {
            let due = due(limit, started.0, self.status.waited_seconds);
            if self.now >= due {
                let last = &self.status.message;
                let message = format!("the release has taken longer than {limit}; last: {last}");
                self.halt("TotalDeadline", message);
                return None;
            }
            wake = tell::earlier(wake, Some(due));
        }
        let running = self
            .status
            .batches
            .iter()
            .find(|b| b.state == BatchState::Running && !spec.skip.contains(&b.index));
        if let (Some(limit), Some(batch)) = (limits.batch, running)
            && let Some(started) = &batch.started
        {
            let waited = self.status.waited_seconds - batch.waited_before;
            let due = due(limit, started.0, waited);
            if self.now >= due {
                let what = if batch.index == 0 {
                    "the bastion".to_owned()
                } else {
                    format!("batch {}", batch.index)
                };
                let last = &self.status.message;
                let message = format!("{what} has taken longer than {limit}; last: {last}");
                self.halt("BatchDeadline", message);
                return None;
            }
            wake = tell::earlier(wake, Some(due));
        }
        wake
    }
}
