//! What stops a release: people, the line, what cannot be seen, deadlines, failures.

use gantry_api::{
    release::{BatchState, Failure, Phase, Turn},
    strategy::OnFailure,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Turnout, signed};
use crate::release::{Step, begin, drive::Moved, tell};

impl Turnout<'_> {
    /// Cells in which the line is stopped.
    pub(super) fn stopped(&self) -> Option<String> {
        self.world.cells.iter().find_map(|c| {
            c.stopped
                .as_ref()
                .map(|why| format!("the line is stopped in {}: {why}", c.name))
        })
    }

    /// Whether the release has to stand still.
    pub(super) fn standing(&self) -> bool {
        self.world.release.spec.paused
            || self.status.halt.is_some()
            || self.stopped().is_some()
            || self.blind().is_some()
    }

    /// A cell that has not been seen since the hub started: how many instances are out of service there
    /// nobody knows, so none may be taken out anywhere.
    pub(super) fn blind(&self) -> Option<String> {
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
    pub(super) fn halted(&mut self, step: &mut Step, moved: &Moved) -> bool {
        let spec = &self.world.release.spec;
        if self.status.halt.is_none()
            && let Some((reason, message)) = self.trouble(step, moved)
        {
            self.status.halt = Some(Turn {
                reason: reason.to_owned(),
                message: message.clone(),
                at: Time(self.now),
            });
            let running = self
                .status
                .batches
                .iter_mut()
                .find(|b| matches!(b.state, BatchState::Running | BatchState::Ready));
            if let Some(batch) = running {
                batch.state = BatchState::Failed;
            }
            if self.plan.strategy.on_failure == OnFailure::Rollback {
                self.status.rollback = Some(Turn {
                    reason: reason.to_owned(),
                    message,
                    at: Time(self.now),
                });
                return true;
            }
        }
        if let Some(halt) = self.status.halt.clone() {
            tell::phase(&mut self.status, Phase::Paused, &halt.reason, halt.message);
            return true;
        }
        if let Some(why) = self.stopped() {
            tell::phase(&mut self.status, Phase::Paused, "LineStopped", why);
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

    /// What has gone wrong: too many failures, or a deadline.
    pub(super) fn trouble(&self, step: &mut Step, moved: &Moved) -> Option<(&'static str, String)> {
        let spec = &self.world.release.spec;
        let deadlines = &self.plan.strategy.deadlines;
        let counted: Vec<&Failure> = self
            .status
            .failures
            .iter()
            .filter(|f| f.retry == spec.retry && !spec.skip.contains(&f.batch))
            .collect();
        let fatal = counted.iter().find(|f| f.batch == 0);
        if let Some(worst) = fatal.or_else(|| {
            counted
                .last()
                .filter(|_| counted.len() as i32 > self.plan.tolerance)
        }) {
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
            return Some((
                "InstanceFailed",
                format!(
                    "{role}{} never became ready in {}: {why}{more}",
                    worst.instance, deadlines.instance
                ),
            ));
        }
        if self.status.waiting_since.is_some() {
            // The clock stands while people are waited for.
            return None;
        }
        let retried = self.status.retried.as_ref().map(|r| r.at.0);
        let waited = SignedDuration::from_secs(self.status.waited_seconds);
        if let (Some(limit), Some(started)) = (deadlines.total, &self.status.started) {
            let begun = retried.map_or(
                started.0.saturating_add(waited).unwrap_or(Timestamp::MAX),
                |r| r.max(started.0),
            );
            let due = begun
                .saturating_add(signed(limit))
                .unwrap_or(Timestamp::MAX);
            if self.now >= due {
                return Some((
                    "TotalDeadline",
                    format!("the release has taken longer than {limit}"),
                ));
            }
            step.wake = tell::earlier(step.wake, Some(due));
        }
        let running = self
            .status
            .batches
            .iter()
            .find(|b| b.state == BatchState::Running && !spec.skip.contains(&b.index));
        if let (Some(limit), Some(batch)) = (deadlines.batch, running)
            && let Some(started) = &batch.started
        {
            let waited =
                SignedDuration::from_secs(self.status.waited_seconds - batch.waited_before);
            let begun = retried.map_or(
                started.0.saturating_add(waited).unwrap_or(Timestamp::MAX),
                |r| r.max(started.0),
            );
            let due = begun
                .saturating_add(signed(limit))
                .unwrap_or(Timestamp::MAX);
            if self.now >= due {
                let what = if batch.index == 0 {
                    "the bastion".to_owned()
                } else {
                    format!("batch {}", batch.index)
                };
                let why = moved.blocked.clone().unwrap_or_else(|| {
                    format!("{} of {} instances are done", moved.finished, moved.size)
                });
                return Some((
                    "BatchDeadline",
                    format!("{what} has taken longer than {limit}: {why}"),
                ));
            }
            step.wake = tell::earlier(step.wake, Some(due));
        }
        None
    }
}
