//! The way back, and what an abort leaves behind.

use std::collections::BTreeMap;

use gantry_api::{
    release::{BatchState, Phase},
    strategy::RollbackPace,
};

use super::Turnout;
use crate::release::{
    Step,
    drive::{Moved, drive},
    skip, tell,
};
use crate::world::{Gate, Hold};

impl Turnout<'_> {
    /// The way back: every instance to the revision the release began with.
    pub(super) fn back(mut self) -> Step {
        let mut step = Step::default();
        let why = self
            .status
            .rollback
            .as_ref()
            .map(|r| r.message.clone())
            .unwrap_or_default();
        let reason = self
            .status
            .rollback
            .as_ref()
            .map(|r| r.reason.clone())
            .unwrap_or_default();
        for batch in &mut self.status.batches {
            if matches!(batch.state, BatchState::Running | BatchState::Ready) {
                batch.state = BatchState::Failed;
            }
        }
        let waiting = self.templates(self.from, &mut step).err();
        if let Some((reason, why)) = self
            .line
            .halt
            .clone()
            .or_else(|| self.blind().map(|w| ("Unreachable", w)))
        {
            step.actions.clear();
            let moved = drive(
                &self.order(self.from, self.everywhere(), 0, false, false),
                self.now,
            );
            step.actions.extend(moved.actions);
            step.holds.extend(moved.holds);
            step.spared.extend(moved.spared);
            self.keep_out(&mut step);
            self.status.working = moved.working;
            tell::phase(&mut self.status, Phase::RollingBack, reason, why);
            step.status = self.status;
            return step;
        }
        let (moved, all) = self.take_back();
        step.actions.extend(moved.actions.iter().cloned());
        step.holds
            .extend(moved.holds.iter().map(|(k, v)| (k.clone(), *v)));
        step.wake = tell::earlier(step.wake, moved.wake);
        step.spared.extend(moved.spared.iter().cloned());
        self.keep_out(&mut step);
        self.status.working.clone_from(&moved.working);

        let returned = all && moved.behind == 0 && moved.followed && waiting.is_none();
        let unready = moved.size - moved.finished;
        let given_up = moved.late.len() as i32;
        if returned && unready <= given_up {
            if self.changeover(self.from, &mut step) {
                let rest = if unready > 0 {
                    format!("; {unready} are not ready")
                } else {
                    String::new()
                };
                let message = format!(
                    "back on revision {}: {why}{rest}{}",
                    self.from,
                    skip::told(&self.status.skipped_cells)
                );
                self.end(Phase::RolledBack, &reason, message);
            } else {
                tell::phase(
                    &mut self.status,
                    Phase::RollingBack,
                    &reason,
                    format!("the group changes back to revision {}: {why}", self.from),
                );
            }
        } else if moved.exhausted && given_up > 0 && waiting.is_none() {
            // The old revision fails as well. Nothing would ever free what those that failed use up of
            // the limit, and the release that mends it would wait behind this one.
            let blocked = moved.blocked.unwrap_or_default();
            let failed = tell::list(moved.late.iter().map(|(name, ..)| name.clone()).collect());
            let message = format!(
                "{why}; {failed} did not become ready on revision {} either; {blocked}: {} of {} instances are left on other revisions",
                self.from, moved.behind, moved.size
            );
            self.end(Phase::Failed, "RollbackFailed", message);
        } else {
            let state = match (&moved.blocked, waiting) {
                (Some(blocked), _) => blocked.clone(),
                (None, Some(waiting)) => waiting,
                (None, None) => format!(
                    "{} of {} instances are back on revision {}",
                    moved.size - moved.behind,
                    moved.size,
                    self.from
                ),
            };
            tell::phase(
                &mut self.status,
                Phase::RollingBack,
                &reason,
                format!("{why}; {state}"),
            );
        }
        step.status = self.status;
        step
    }

    /// Moves what may go back now. True where that is everything.
    fn take_back(&mut self) -> (Moved, bool) {
        let pace = self.world.release.spec.rollback_pace;
        let by_batch = pace.unwrap_or(self.plan.strategy.rollback.pace) == RollbackPace::Batches;
        let turned = self.status.rollback.as_ref().map(|r| r.at.0);
        let last = self.plan.batches.len() as i32 - 1;
        loop {
            let come_to = self.status.rollback.as_ref().map_or(0, |r| r.batch);
            let all = !by_batch || come_to >= last;
            let floors = if all {
                self.everywhere()
            } else {
                self.floors(come_to)
            };
            let beyond = self.out_beyond(&floors);
            let mut order = self.order(self.from, floors, come_to.max(0), true, false);
            // What failed on the new revision has not failed on the old one.
            order.failed.clear();
            order.clock_floor = order.clock_floor.max(turned);
            let moved = drive(&order, self.now);
            let given_up = moved.late.len() as i32;
            let done =
                moved.behind == 0 && moved.followed && moved.finished + given_up >= moved.size;
            match &mut self.status.rollback {
                // It never goes down again: what has been chosen is finished. Where instances of later
                // batches use up the limit, those go along: out already, they cost nothing, and nothing
                // else would ever free it.
                Some(turn) if !all && (done || moved.exhausted && beyond) => {
                    turn.batch = come_to + 1;
                }
                _ => return (moved, all),
            }
        }
    }

    /// Whether an instance that may not move yet is out of service and has to go back as well.
    fn out_beyond(&self, floors: &BTreeMap<String, i32>) -> bool {
        self.world.cells.iter().any(|cell| {
            let floor = floors.get(&cell.name).copied().unwrap_or(i32::MAX);
            let mut beyond = cell.instances.range(..floor.min(cell.replicas()));
            beyond.any(|(_, i)| !i.in_service() && !cell.at(i, self.from))
        })
    }

    /// On the way back too, what nobody has accepted takes no traffic: not while the template is on its
    /// way, nor while the line is stopped.
    fn keep_out(&self, step: &mut Step) {
        if self.from == self.target
            || !self.has_bastion()
            || crate::release::accepted(self.world.release, &self.status)
        {
            return;
        }
        for cell in self.world.cells {
            for instance in cell.instances.values() {
                if instance.revision == Some(self.target)
                    && instance.gate != Gate::In
                    && !step.spared.contains(&instance.name)
                {
                    step.holds
                        .entry(instance.name.clone())
                        .or_insert(Hold::Bastion);
                }
            }
        }
    }

    /// Ended by the button. A bastion that nobody accepted stays out of service; what serves goes on
    /// serving: with the release ended nothing counts how many are out.
    pub(super) fn aborted(mut self) -> Step {
        let mut step = Step::default();
        let unaccepted = self
            .status
            .batches
            .first()
            .is_some_and(|b| b.state != BatchState::Done && b.state != BatchState::Skipped);
        let mut held = Vec::new();
        if unaccepted && self.has_bastion() {
            let floors = self.floors_of_bastion();
            for cell in self.world.cells {
                let Some(&floor) = floors.get(&cell.name) else {
                    continue;
                };
                for instance in cell.instances.range(floor..).map(|(_, i)| i) {
                    if cell.at(instance, self.target) && instance.gate != Gate::In {
                        step.holds.insert(instance.name.clone(), Hold::Bastion);
                        held.push(instance.name.clone());
                    }
                }
            }
        }
        self.status.working.clear();
        let total: i32 = self.world.cells.iter().map(|c| c.replicas()).sum();
        let updated: usize = self
            .world
            .cells
            .iter()
            .map(|c| {
                c.instances
                    .values()
                    .filter(|i| c.at(i, self.target))
                    .count()
            })
            .sum();
        let bastion = if held.is_empty() {
            String::new()
        } else {
            format!("; bastion {} stays out of service", tell::list(held))
        };
        let message = format!(
            "aborted: {updated} of {total} instances run revision {}{bastion}",
            self.target
        );
        tell::phase(&mut self.status, Phase::Aborted, "Requested", message);
        step.status = self.status;
        step
    }

    fn floors_of_bastion(&self) -> BTreeMap<String, i32> {
        self.plan
            .batches
            .first()
            .map(|b| {
                b.slices
                    .iter()
                    .map(|s| (s.cell.clone(), s.lowest))
                    .collect()
            })
            .unwrap_or_default()
    }
}
