//! A release under way: template, bastion, batches, end; and the way back.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    ReleaseStatus, Span,
    release::{BatchState, Failure, Phase, Plan, Retried, Turn},
    revision::RevisionRef,
    strategy::{Accept, OnFailure, Pause},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Step, World, begin,
    drive::{Moved, Order, drive},
    tell,
};
use crate::{
    action::Action,
    world::{Gate, Hold},
};

/// What the release is about to do, once buttons and deadlines have been looked at.
struct Turnout<'a> {
    world: &'a World<'a>,
    plan: &'a Plan,
    status: ReleaseStatus,
    now: Timestamp,
    group: &'a str,
    from: i64,
    target: i64,
}

pub(super) fn step(world: &World<'_>, plan: &Plan, status: ReleaseStatus, now: Timestamp) -> Step {
    let (Some(from), Some(target)) = (
        status.from.as_ref().map(|r| r.revision),
        status.target.as_ref().map(|r| r.revision),
    ) else {
        let mut status = status;
        tell::phase(
            &mut status,
            Phase::Failed,
            "Damaged",
            "the status has a plan but no revisions".to_owned(),
        );
        return Step {
            status,
            ..Step::default()
        };
    };
    let group = world.release.spec.group.as_str();
    let mut turnout = Turnout {
        world,
        plan,
        status,
        now,
        group,
        from,
        target,
    };
    turnout.buttons();
    let mut step = if turnout.status.phase == Phase::Aborted {
        turnout.aborted()
    } else if turnout.status.rollback.is_some() {
        turnout.back()
    } else {
        turnout.forward()
    };
    let back = step.status.rollback.is_some();
    let accepted = step
        .status
        .batches
        .first()
        .is_some_and(|b| matches!(b.state, BatchState::Done | BatchState::Skipped));
    if !step.status.phase.is_final() || step.status.phase == Phase::Aborted {
        // Where new instances can only come on a revision that nobody has accepted, none are added.
        let unwanted = |c: &&crate::world::CellView| {
            let template = c.set.as_ref().and_then(|s| s.revision);
            c.all_come_new() && template == Some(target) && from != target && (back || !accepted)
        };
        step.frozen
            .extend(world.cells.iter().filter(unwanted).map(|c| c.name.clone()));
        if !back && !accepted && step.status.phase == Phase::Planning {
            // The template is on its way: what the set does with a new instance is about to change.
            step.frozen.extend(
                world
                    .cells
                    .iter()
                    .filter(|c| c.replicas() == 0)
                    .map(|c| c.name.clone()),
            );
        }
    }
    let goal = if back { from } else { target };
    tell::counts(world.cells, goal, target, &mut step.status);
    step
}

fn signed(span: Span) -> SignedDuration {
    SignedDuration::try_from(span.duration()).unwrap_or(SignedDuration::MAX)
}

impl Turnout<'_> {
    /// Takes note of what has been pressed since last time.
    fn buttons(&mut self) {
        let spec = &self.world.release.spec;
        let at = Time(self.now);
        if spec.rollback && self.status.rollback.is_none() {
            let by = if self.status.requested_by.is_empty() {
                String::new()
            } else {
                format!(" of the release by {}", self.status.requested_by)
            };
            self.status.rollback = Some(Turn {
                reason: "Requested".to_owned(),
                message: format!("rollback{by} was asked for"),
                at: at.clone(),
            });
            self.status.finished = None;
            self.status.phase = Phase::RollingBack;
        } else if spec.abort
            && self.status.rollback.is_none()
            && self.status.phase != Phase::Aborted
        {
            self.status.phase = Phase::Aborted;
            self.status.finished = Some(at.clone());
        }
        let seen = self.status.retried.as_ref().map_or(0, |r| r.count);
        if spec.retry > seen {
            self.status.retried = Some(Retried {
                count: spec.retry,
                at,
            });
            self.status.halt = None;
            for batch in &mut self.status.batches {
                if batch.state == BatchState::Failed {
                    batch.state = BatchState::Running;
                }
            }
        }
        for batch in &mut self.status.batches {
            // Time is up for the release as a whole: skipping a batch gives none back.
            let lasting = self
                .status
                .halt
                .as_ref()
                .is_some_and(|h| h.reason == "TotalDeadline");
            if spec.skip.contains(&batch.index) && batch.state == BatchState::Failed && !lasting {
                self.status.halt = None;
                batch.state = BatchState::Running;
            }
        }
    }

    /// Cells in which the line is stopped.
    fn stopped(&self) -> Option<String> {
        self.world.cells.iter().find_map(|c| {
            c.stopped
                .as_ref()
                .map(|why| format!("the line is stopped in {}: {why}", c.name))
        })
    }

    /// Brings every reachable set to `goal`'s template with no instance touched. True when all are there.
    fn templates(&self, goal: i64, step: &mut Step) -> Result<(), String> {
        let mut waiting = None;
        for cell in self.world.cells {
            let Some(set) = &cell.set else { continue };
            if set.revision == Some(goal) {
                if !cell.template_at(goal) {
                    waiting = waiting.or_else(|| Some(format!("waits for the StatefulSet in {} to take the template of revision {goal}", cell.name)));
                }
                continue;
            }
            if !cell.reachable {
                waiting = Some(begin::unreachable(cell));
                continue;
            }
            step.actions.push(Action::SetTemplate {
                cell: cell.name.clone(),
                version: set.version.clone(),
                revision: goal,
                partition: set.replicas,
            });
            waiting = waiting.or_else(|| {
                Some(format!(
                    "gives {} the template of revision {goal}",
                    cell.name
                ))
            });
        }
        waiting.map_or(Ok(()), Err)
    }

    fn order(
        &self,
        goal: i64,
        floors: BTreeMap<String, i32>,
        batch: i32,
        moving: bool,
        bastion: bool,
    ) -> Order<'_> {
        let strategy = &self.plan.strategy;
        let retry = self.world.release.spec.retry;
        let failed: BTreeSet<String> = self
            .status
            .failures
            .iter()
            .filter(|f| f.retry == retry)
            .map(|f| f.instance.clone())
            .collect();
        Order {
            cells: self.world.cells,
            revisions: self.world.revisions,
            goal,
            floors,
            moving,
            bastion,
            in_place: strategy.in_place,
            max_out: self.plan.max_out,
            drain: SignedDuration::from_secs(i64::from(self.plan.drain_seconds)),
            min_ready: signed(strategy.min_ready),
            deadline: signed(strategy.deadlines.instance),
            batch,
            before: &self.status.working,
            failed,
            clock_floor: self.status.retried.as_ref().map(|r| r.at.0),
            group: self.group,
        }
    }

    /// The lowest ordinal that may move in each cell once batch `index` has begun. The last batch takes
    /// everything, so that what has joined since the plan was made is not left behind.
    fn floors(&self, index: i32) -> BTreeMap<String, i32> {
        if index as usize + 1 >= self.plan.batches.len() {
            return self.everywhere();
        }
        let mut floors: BTreeMap<String, i32> = BTreeMap::new();
        for slice in self
            .plan
            .batches
            .iter()
            .take_while(|b| b.index <= index)
            .flat_map(|b| &b.slices)
        {
            let floor = floors.entry(slice.cell.clone()).or_insert(slice.lowest);
            *floor = (*floor).min(slice.lowest);
        }
        floors
    }

    fn everywhere(&self) -> BTreeMap<String, i32> {
        self.world
            .cells
            .iter()
            .map(|c| (c.name.clone(), 0))
            .collect()
    }

    fn accepted(&self, batch: i32) -> bool {
        self.world
            .release
            .spec
            .accepted_through
            .is_some_and(|n| n >= batch)
    }

    fn has_bastion(&self) -> bool {
        self.plan.batches.first().is_some_and(|b| b.size > 0)
    }

    /// Why batch `index` may not begin yet; `Err` carries the time when it may without anyone's doing.
    fn gate(&self, index: i32) -> Result<(), (String, Option<Timestamp>)> {
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
            return Err((format!("{what}: accept it to go on"), None));
        }
        let ended = usize::try_from(before)
            .ok()
            .and_then(|i| self.status.batches.get(i))
            .and_then(|b| b.finished.as_ref());
        if let Some(ended) = ended {
            let due = ended
                .0
                .saturating_add(signed(strategy.interval))
                .unwrap_or(Timestamp::MAX);
            // An empty bastion is nothing to wait after.
            if due > self.now && (before > 0 || self.has_bastion()) {
                return Err((
                    format!("batch {index} begins at {}", tell::clock_time(due)),
                    Some(due),
                ));
            }
        }
        Ok(())
    }

    fn forward(mut self) -> Step {
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
                let pressed = self.halted(&mut step, &Moved::default());
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

    /// Whether the release has to stand still.
    fn standing(&self) -> bool {
        self.world.release.spec.paused
            || self.status.halt.is_some()
            || self.stopped().is_some()
            || self.blind().is_some()
    }

    /// A cell that has not been seen since the hub started: how many instances are out of service there
    /// nobody knows, so none may be taken out anywhere.
    fn blind(&self) -> Option<String> {
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

    fn batch(&mut self, index: usize, step: &mut Step) -> Flow {
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
                match self.gate(number) {
                    Ok(()) => {
                        let waited = self.status.waited_seconds;
                        let batch = &mut self.status.batches[index];
                        batch.state = BatchState::Running;
                        batch.started = Some(Time(self.now));
                        batch.waited_before = waited;
                    }
                    Err((why, due)) => {
                        self.settle(number - 1, step);
                        let reason = if due.is_some() { "Interval" } else { "Accept" };
                        tell::phase(&mut self.status, Phase::Gate, reason, why);
                        step.wake = tell::earlier(step.wake, due);
                        return Flow::Stay;
                    }
                }
            } else {
                self.settle(number - 1, step);
                return if self.halted(step, &Moved::default()) && self.status.rollback.is_some() {
                    Flow::Back
                } else {
                    Flow::Stay
                };
            }
        }

        let accepted =
            !bastion || self.plan.strategy.bastion.accept == Accept::Auto || self.accepted(0);
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

        if self.halted(step, &moved) {
            if self.status.rollback.is_some() {
                return Flow::Back;
            }
            return Flow::Stay;
        }

        let skipped = self.world.release.spec.skip.contains(&number);
        let complete =
            moved.finished + moved.failed >= moved.size && moved.behind == 0 && moved.followed;
        if bastion && !accepted && !skipped {
            let ready = moved.finished >= moved.size && moved.behind == 0;
            self.status.batches[index].state = if ready {
                BatchState::Ready
            } else {
                BatchState::Running
            };
            if ready {
                let names = tell::list(self.plan.batches[0].instances(self.group));
                let message =
                    format!("bastion {names} is ready and out of traffic: accept it to go on");
                tell::phase(&mut self.status, Phase::Gate, "AcceptBastion", message);
            } else {
                let message = tell::moving(&moved, "bastion", 0);
                tell::phase(&mut self.status, Phase::Bastion, "Updating", message);
            }
            return Flow::Stay;
        }
        // Skipping waits for no instance any more; but with the last batch nothing would take along
        // what is still behind.
        let given_up = skipped && (!last || moved.behind == 0 && moved.followed);
        if complete || given_up {
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

    /// While the release waits between batches: what has been updated returns to service, nothing else.
    fn settle(&mut self, through: i32, step: &mut Step) {
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
        self.plan.batches.iter().take(index).map(|b| b.size).sum()
    }

    /// Writes down what came of driving a batch.
    fn record(&mut self, index: usize, moved: &Moved) {
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

    /// Looks at what stops a release, and says so. True when it has to stand still or turn round.
    fn halted(&mut self, step: &mut Step, moved: &Moved) -> bool {
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
    fn trouble(&self, step: &mut Step, moved: &Moved) -> Option<(&'static str, String)> {
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

    /// All batches are done: nothing may be left behind, partitions come down to 0, the Group changes over.
    fn finish(mut self, mut step: Step) -> Step {
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
        if self.halted(&mut step, &Moved::default()) {
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
        if self.changeover(self.target, &mut step) {
            let began = self.status.started.as_ref().map_or(self.now, |t| t.0);
            let took = tell::took(self.now.duration_since(began));
            let failed = if moved.failed > 0 {
                format!(", {} of them failed within the tolerance", moved.failed)
            } else {
                String::new()
            };
            let message = format!(
                "{} instances run revision {} after {took}{failed}",
                moved.size, self.target
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
    fn changeover(&self, revision: i64, step: &mut Step) -> bool {
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

    fn end(&mut self, phase: Phase, reason: &str, message: String) {
        tell::phase(&mut self.status, phase, reason, message);
        self.status.finished = Some(Time(self.now));
        self.status.working.clear();
    }

    /// The way back: every instance to the revision the release began with.
    fn back(mut self) -> Step {
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
            .stopped()
            .map(|w| ("LineStopped", w))
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
        let mut order = self.order(self.from, self.everywhere(), 0, true, false);
        // What failed on the new revision has not failed on the old one.
        let turned = self.status.rollback.as_ref().map(|r| r.at.0);
        order.failed.clear();
        order.clock_floor = order.clock_floor.max(turned);
        let moved = drive(&order, self.now);
        step.actions.extend(moved.actions.iter().cloned());
        step.holds
            .extend(moved.holds.iter().map(|(k, v)| (k.clone(), *v)));
        step.wake = tell::earlier(step.wake, moved.wake);
        step.spared.extend(moved.spared.iter().cloned());
        self.keep_out(&mut step);
        self.status.working.clone_from(&moved.working);

        let returned = moved.behind == 0 && moved.followed && waiting.is_none();
        let unready = moved.size - moved.finished;
        let given_up = moved.late.len() as i32;
        if returned && unready <= given_up {
            if self.changeover(self.from, &mut step) {
                let rest = if unready > 0 {
                    format!("; {unready} are not ready")
                } else {
                    String::new()
                };
                let message = format!("back on revision {}: {why}{rest}", self.from);
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

    /// On the way back too, what nobody has accepted takes no traffic: not while the template is on its
    /// way, nor while the line is stopped.
    fn keep_out(&self, step: &mut Step) {
        if self.from == self.target
            || !self.has_bastion()
            || super::accepted(self.world.release, &self.status)
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
    fn aborted(mut self) -> Step {
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

enum Flow {
    /// Look at the next batch.
    Next,
    /// Nothing more for now.
    Stay,
    /// Turn round.
    Back,
}
