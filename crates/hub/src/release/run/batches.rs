//! Forward: bastion and batches one after the other, and the end.

use gantry_api::{
    gate::Point,
    release::{BatchState, Failure, Phase},
    revision::RevisionRef,
    strategy::{Accept, Pause},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Flow, Turnout};
use crate::action::Action;
use crate::release::{
    Step,
    drive::{Moved, drive},
    gate, line, pace, resolve, skip, tell, window,
};

/// Why a batch may not begin yet.
struct NotYet {
    /// One word for machines.
    reason: &'static str,
    /// One line for people.
    why: String,
    /// When it may without anyone's doing.
    due: Option<Timestamp>,
}

impl Turnout<'_> {
    /// Whether batch `index` may begin.
    fn may_begin(&mut self, index: i32, step: &mut Step) -> Result<(), NotYet> {
        let strategy = &self.plan.strategy;
        let before = index - 1;
        let asks = match strategy.pause {
            Pause::Never => false,
            Pause::AfterBastion => before == 0 && self.has_bastion(),
            Pause::EachBatch => before > 0 || self.has_bastion(),
        };
        if index > 0 && asks && !self.accepted(before) {
            let what = if before == 0 {
                "the bastion is in service".to_owned()
            } else {
                format!("batch {before} is done")
            };
            return Err(NotYet {
                reason: "Accept",
                why: format!("{what}: accept it to go on"),
                due: None,
            });
        }
        let ended = usize::try_from(before)
            .ok()
            .and_then(|i| self.status.batches.get(i))
            .and_then(|b| b.finished.as_ref());
        if let Some(ended) = ended {
            let due = ended
                .0
                .saturating_add(pace::interval(self.world.release, self.plan))
                .unwrap_or(Timestamp::MAX);
            // An empty bastion is nothing to wait after.
            if due > self.now && (before > 0 || self.has_bastion()) {
                return Err(NotYet {
                    reason: "Interval",
                    why: format!("batch {index} begins at {}", tell::clock_time(due)),
                    due: Some(due),
                });
            }
        }
        if before > 0 && !gate::passed(self.plan, &self.status.gates, Point::Batch, before) {
            let (reason, why) = self.ask(Point::Batch, before, step);
            if !why.is_empty() {
                return Err(NotYet {
                    reason,
                    why: format!("batch {before} is done; {}", why.join("; ")),
                    due: None,
                });
            }
        }
        if let Err((why, due)) = window::open(&self.plan.strategy.windows, self.now) {
            if self.world.release.spec.emergency.is_none() {
                return Err(NotYet {
                    reason: "Window",
                    why,
                    due,
                });
            }
            let what = if index == 0 {
                "closed change window for the bastion".to_owned()
            } else {
                format!("closed change window for batch {index}")
            };
            line::record(self.world.release, &mut self.status, [what], self.now);
        }
        Ok(())
    }

    /// Puts the gates of a point their questions. What is waited for, in words, and for machines; nothing
    /// where all hold. One that has failed halts the release.
    fn ask(&mut self, point: Point, batch: i32, step: &mut Step) -> (&'static str, Vec<String>) {
        let mut gates = std::mem::take(&mut self.status.gates);
        let scene = gate::Scene {
            world: self.world,
            plan: self.plan,
            target: self.target,
            point,
            batch,
            now: self.now,
        };
        let looked = gate::look(&scene, &mut gates);
        self.status.gates = gates;
        line::record(
            self.world.release,
            &mut self.status,
            looked.overridden,
            self.now,
        );
        step.asks.extend(looked.asks);
        step.wake = tell::earlier(step.wake, looked.wake);
        if let Some(why) = looked.failed {
            self.halt("GateFailed", why.clone());
            return ("GateFailed", vec![why]);
        }
        let reason = if looked.people { "Approval" } else { "Gate" };
        (reason, looked.waiting)
    }

    pub(super) fn forward(mut self) -> Step {
        let mut step = Step::default();
        if let Err(waiting) = self.templates(self.target, &mut step) {
            // A cell may only be waited for like this before anything has moved; afterwards the drive
            // works around it.
            if self
                .status
                .batches
                .iter()
                .all(|b| b.state == BatchState::Waiting)
            {
                let pressed = self.halted(&Moved::default());
                if !pressed {
                    tell::phase(&mut self.status, Phase::Planning, "Templates", waiting);
                } else if self.status.rollback.is_some() {
                    return self.back();
                }
                if self.standing() {
                    // Patching templates touches no instance, but a pause is a pause.
                    step.actions.clear();
                }
                step.status = self.status;
                return step;
            }
        }
        loop {
            let Some(index) = self
                .status
                .batches
                .iter()
                .position(|b| !matches!(b.state, BatchState::Done | BatchState::Skipped))
            else {
                return self.finish(step);
            };
            match self.batch(index, &mut step) {
                Flow::Next => {}
                Flow::Stay => break,
                Flow::Back => return self.back(),
            }
        }
        step.status = self.status;
        step
    }

    pub(super) fn batch(&mut self, index: usize, step: &mut Step) -> Flow {
        let number = index as i32;
        let bastion = index == 0;
        let last = index + 1 == self.status.batches.len();
        if self.status.batches[index].state == BatchState::Waiting {
            if bastion && !self.has_bastion() {
                self.status.batches[index].state = BatchState::Done;
                self.status.batches[index].finished = Some(Time(self.now));
                return Flow::Next;
            }
            if !self.standing() {
                match self.may_begin(number, step) {
                    Ok(()) => {
                        let waited = self.status.waited_seconds;
                        let batch = &mut self.status.batches[index];
                        batch.state = BatchState::Running;
                        batch.started = Some(Time(self.now));
                        batch.waited_before = waited;
                    }
                    Err(not_yet) => {
                        self.settle(number - 1, step);
                        if self.halted(&Moved::default()) {
                            return self.halted_flow();
                        }
                        let phase = if number == 0 {
                            Phase::Planning
                        } else {
                            Phase::Gate
                        };
                        tell::phase(&mut self.status, phase, not_yet.reason, not_yet.why);
                        step.wake = tell::earlier(step.wake, not_yet.due);
                        return Flow::Stay;
                    }
                }
            } else {
                self.settle(number - 1, step);
                gate::stand_still(&mut self.status.gates);
                self.halted(&Moved::default());
                return self.halted_flow();
            }
        }

        let asked_for = self.plan.strategy.bastion.accept == Accept::Auto || self.accepted(0);
        let open = gate::passed(self.plan, &self.status.gates, Point::Bastion, 0);
        let accepted = !bastion || asked_for && open;
        let moving = !self.standing();
        let floors = self.floors(number);
        let hold_bastion = bastion && !accepted;
        let moved = drive(
            &self.order(self.target, floors.clone(), number, moving, hold_bastion),
            self.now,
        );
        step.actions.extend(moved.actions.iter().cloned());
        step.holds
            .extend(moved.holds.iter().map(|(k, v)| (k.clone(), *v)));
        step.wake = tell::earlier(step.wake, moved.wake);
        step.spared.extend(moved.spared.iter().cloned());
        if bastion {
            step.frozen
                .extend(self.plan.batches[0].slices.iter().map(|s| s.cell.clone()));
        }
        self.record(index, &moved);

        if self.halted(&moved) {
            gate::stand_still(&mut self.status.gates);
            return self.halted_flow();
        }

        let skipped = self.world.release.spec.skip.contains(&number);
        let complete =
            moved.finished + moved.failed >= moved.size && moved.behind == 0 && moved.followed;
        // Skipping a bastion skips what it waits for, not its gates.
        if bastion && !accepted && !(skipped && open) {
            let ready = skipped || moved.finished >= moved.size && moved.behind == 0;
            self.status.batches[index].state = if ready {
                BatchState::Ready
            } else {
                BatchState::Running
            };
            if ready {
                let (reason, waiting) = if open {
                    ("AcceptBastion", Vec::new())
                } else {
                    self.ask(Point::Bastion, 0, step)
                };
                if self.halted(&moved) {
                    return self.halted_flow();
                }
                let names = tell::list(self.plan.batches[0].instances(self.group));
                let mut then: Vec<String> = waiting;
                let asked_for = asked_for || skipped;
                let reason = match (asked_for, then.is_empty()) {
                    (false, true) => "AcceptBastion",
                    // Nothing is left to wait for: the next look lets it in.
                    (true, true) => {
                        step.wake = Some(self.now);
                        "BatchDone"
                    }
                    _ => reason,
                };
                if !asked_for {
                    then.push("accept it to go on".to_owned());
                } else if then.is_empty() {
                    then.push("its gates hold".to_owned());
                }
                let stands = if skipped {
                    "to be skipped"
                } else {
                    "ready and out of traffic"
                };
                let message = format!("bastion {names} is {stands}: {}", then.join("; "));
                tell::phase(&mut self.status, Phase::Gate, reason, message);
            } else {
                let message = tell::moving(&moved, "bastion", 0);
                tell::phase(&mut self.status, Phase::Bastion, "Updating", message);
            }
            return Flow::Stay;
        }
        // Skipping waits for no instance any more; but with the last batch nothing would take along
        // what is still behind.
        let given_up = skipped && (!last || moved.behind == 0 && moved.followed);
        let slices = &self.plan.batches[index].slices;
        let out_of_reach =
            !slices.is_empty() && slices.iter().all(|s| self.skipped.contains(&s.cell));
        if complete || given_up {
            let complete = complete && !out_of_reach;
            let batch = &mut self.status.batches[index];
            batch.state = if complete {
                BatchState::Done
            } else {
                BatchState::Skipped
            };
            batch.finished = Some(Time(self.now));
            // The decision is written down; what follows from it comes with the next call.
            step.wake = Some(self.now);
            let what = if bastion {
                "the bastion".to_owned()
            } else {
                format!("batch {number}")
            };
            let message = if complete {
                format!("{what} is done")
            } else if out_of_reach {
                format!("{what} was skipped: its cells are out of reach")
            } else {
                format!("{what} was skipped")
            };
            tell::phase(
                &mut self.status,
                if bastion {
                    Phase::Bastion
                } else {
                    Phase::Batch
                },
                "BatchDone",
                message,
            );
            return Flow::Stay;
        }
        self.status.batches[index].state = BatchState::Running;
        let (phase, what) = if bastion {
            (Phase::Bastion, "bastion".to_owned())
        } else {
            (
                Phase::Batch,
                format!("batch {number} of {}", self.plan.batches.len() - 1),
            )
        };
        let reason = if moved.blocked.is_some() {
            "Blocked"
        } else {
            "Updating"
        };
        let message = tell::moving(&moved, &what, self.earlier(index));
        tell::phase(&mut self.status, phase, reason, message);
        Flow::Stay
    }

    /// What follows from being halted.
    fn halted_flow(&self) -> Flow {
        if self.status.rollback.is_some() {
            Flow::Back
        } else {
            Flow::Stay
        }
    }

    /// While the release waits between batches: what has been updated returns to service, nothing else.
    pub(super) fn settle(&mut self, through: i32, step: &mut Step) {
        if through < 0 {
            self.status.working.clear();
            return;
        }
        let moved = drive(
            &self.order(self.target, self.floors(through), through, false, false),
            self.now,
        );
        step.actions.extend(moved.actions);
        step.holds
            .extend(moved.holds.iter().map(|(k, v)| (k.clone(), *v)));
        step.wake = tell::earlier(step.wake, moved.wake);
        step.spared.extend(moved.spared.iter().cloned());
        self.status.working = moved.working;
    }

    /// Instances of the batches before this one: what is driven always includes them.
    fn earlier(&self, index: usize) -> i32 {
        self.plan
            .batches
            .iter()
            .take(index)
            .flat_map(|b| &b.slices)
            .filter(|s| !self.skipped.contains(&s.cell))
            .map(gantry_api::release::Slice::size)
            .sum()
    }

    /// Writes down what came of driving a batch.
    pub(super) fn record(&mut self, index: usize, moved: &Moved) {
        self.status.working.clone_from(&moved.working);
        let retry = self.world.release.spec.retry;
        for (instance, cell, message) in &moved.late {
            self.status.failures.retain(|f| f.instance != *instance);
            self.status.failures.push(Failure {
                instance: instance.clone(),
                cell: cell.clone(),
                batch: index as i32,
                message: message.clone(),
                at: Time(self.now),
                retry,
            });
        }
        let earlier = self.earlier(index);
        let Some(batch) = self.status.batches.get_mut(index) else {
            return;
        };
        batch.updated = (moved.size - moved.behind - earlier).max(0);
        batch.failed = self
            .status
            .failures
            .iter()
            .filter(|f| f.retry == retry && f.batch == index as i32)
            .count() as i32;
    }

    /// All batches are done: nothing may be left behind, partitions come down to 0, the Group changes over.
    pub(super) fn finish(mut self, mut step: Step) -> Step {
        let last = self.status.batches.len() as i32 - 1;
        let moved = drive(
            &self.order(
                self.target,
                self.everywhere(),
                last,
                !self.standing(),
                false,
            ),
            self.now,
        );
        step.actions.extend(moved.actions.iter().cloned());
        step.holds
            .extend(moved.holds.iter().map(|(k, v)| (k.clone(), *v)));
        step.wake = tell::earlier(step.wake, moved.wake);
        step.spared.extend(moved.spared.iter().cloned());
        self.record(self.status.batches.len().saturating_sub(1), &moved);
        if self.halted(&Moved::default()) {
            gate::stand_still(&mut self.status.gates);
            if self.status.rollback.is_some() {
                return self.back();
            }
            step.status = self.status;
            return step;
        }
        if moved.behind > 0 || !moved.followed {
            let message = tell::moving(&moved, "what is left", 0);
            tell::phase(&mut self.status, Phase::Batch, "Finishing", message);
            step.status = self.status;
            return step;
        }
        if !gate::passed(self.plan, &self.status.gates, Point::End, last) {
            let (reason, waiting) = self.ask(Point::End, last, &mut step);
            if self.halted(&Moved::default()) {
                if self.status.rollback.is_some() {
                    return self.back();
                }
                step.status = self.status;
                return step;
            }
            if !waiting.is_empty() {
                let message = format!(
                    "{} instances run revision {}; {}",
                    moved.size,
                    self.target,
                    waiting.join("; ")
                );
                tell::phase(&mut self.status, Phase::Gate, reason, message);
                step.status = self.status;
                return step;
            }
        }
        if self.changeover(self.target, &mut step) {
            let began = self.status.started.as_ref().map_or(self.now, |t| t.0);
            let took = tell::took(self.now.duration_since(began));
            let failed = if moved.failed > 0 {
                format!(", {} of them failed within the tolerance", moved.failed)
            } else {
                String::new()
            };
            let message = format!(
                "{} instances run revision {} after {took}{failed}{}{}",
                moved.size,
                self.target,
                skip::told(&self.status.skipped_cells),
                resolve::told(&self.status)
            );
            self.end(Phase::Succeeded, "Done", message);
        } else {
            tell::phase(
                &mut self.status,
                Phase::Batch,
                "Finishing",
                format!("the group changes over to revision {}", self.target),
            );
        }
        step.status = self.status;
        step
    }

    /// Makes `revision` the Group's own. True when it is.
    pub(super) fn changeover(&self, revision: i64, step: &mut Step) -> bool {
        let (Some(group), Some(known)) = (self.world.group, self.world.revisions.get(&revision))
        else {
            // A Group that is gone has nothing to change over.
            return self.world.group.is_none();
        };
        let current = group
            .status
            .as_ref()
            .and_then(|s| s.current.as_ref())
            .map(|c| c.revision);
        if current == Some(revision) && group.spec.revision == known.spec {
            return true;
        }
        let release = if revision == self.from {
            self.status.from.as_ref().and_then(|f| f.release.clone())
        } else {
            self.world.release.metadata.name.clone()
        };
        let current = RevisionRef {
            revision,
            image: known.spec.image.clone(),
            release,
        };
        step.actions.push(Action::SetGroupRevision {
            current,
            spec: Box::new(known.spec.clone()),
        });
        false
    }
}
