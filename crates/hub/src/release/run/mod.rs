//! A release under way: buttons and template first, then [`batches`] forward or the way [`back`].

mod back;
mod batches;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    ReleaseStatus, Span,
    gate::GateState,
    release::{BatchState, Phase, Plan, Retried, Turn},
    strategy::WithinBatch,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Step, World, begin,
    drive::Order,
    gate,
    line::{self, Line},
    pace, skip, steps, tell,
};
use crate::action::Action;

/// What the release is about to do, once buttons and deadlines have been looked at.
struct Turnout<'a> {
    world: &'a World<'a>,
    plan: &'a Plan,
    status: ReleaseStatus,
    now: Timestamp,
    group: &'a str,
    from: i64,
    target: i64,
    /// What stops the line, and when that changes.
    line: Line,
    /// Cells that are left out.
    skipped: BTreeSet<String>,
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
    let before = status.clone();
    let line = line::look(world, now);
    // Nothing goes on past a bastion that nobody has seen.
    let needed: Vec<&str> = match (status.batches.first(), plan.batches.first()) {
        (Some(first), Some(bastion))
            if !matches!(first.state, BatchState::Done | BatchState::Skipped)
                && status.rollback.is_none() =>
        {
            bastion.slices.iter().map(|s| s.cell.as_str()).collect()
        }
        _ => Vec::new(),
    };
    let (skipped, due) = skip::look(
        &plan.strategy,
        world.cells,
        &needed,
        &status.skipped_cells,
        now,
    );
    let mut wake = tell::earlier(line.wake, due);
    let mut turnout = Turnout {
        world,
        plan,
        status,
        now,
        group,
        from,
        target,
        skipped: skipped.iter().map(|s| s.cell.clone()).collect(),
        line,
    };
    turnout.status.skipped_cells = skipped;
    turnout.buttons();
    if turnout.status.rollback.is_some() || world.undoes {
        turnout.line.let_back();
    }
    let freezes = std::mem::take(&mut turnout.line.freezes);
    wake = tell::earlier(wake, turnout.deadlines());
    let overridden = std::mem::take(&mut turnout.line.overridden);
    line::record(world.release, &mut turnout.status, overridden, now);
    let mut step = if turnout.status.phase == Phase::Aborted {
        turnout.aborted()
    } else if turnout.status.rollback.is_some() {
        turnout.back()
    } else {
        turnout.forward()
    };
    step.wake = tell::earlier(step.wake, wake);
    let back = step.status.rollback.is_some();
    let turned = back && (before.rollback.is_none() || !before.phase.is_final());
    let aborted = step.status.phase == Phase::Aborted && before.phase != Phase::Aborted;
    if turned || aborted || world.undoes && !before.phase.is_final() {
        line::went_on(&mut step.status, freezes);
    }
    tell::in_freezes(&mut step.status);
    step.status.max_out = pace::max_out(world.release, plan, back);
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
    steps::follow(&before, &mut step.status, world.cells, goal, now);
    tell::counts(world.cells, goal, target, &mut step.status);
    step
}

pub(super) fn signed(span: Span) -> SignedDuration {
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
                batch: 0,
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
            steps::forgive(&mut self.status, self.now);
            gate::retry(&mut self.status.gates);
            for batch in &mut self.status.batches {
                if batch.state == BatchState::Failed {
                    batch.state = BatchState::Running;
                }
            }
        }
        // A gate that had halted it is overridden.
        let halted = self.status.halt.as_ref();
        if let Some(emergency) = &spec.emergency
            && halted.is_some_and(|h| h.reason == "GateFailed")
            && self
                .status
                .gates
                .iter()
                .any(|g| g.state == GateState::Failed && emergency.overrides(&g.name))
        {
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

    /// Brings every reachable set to `goal`'s template with no instance touched. True when all are there.
    fn templates(&self, goal: i64, step: &mut Step) -> Result<(), String> {
        let mut waiting = None;
        for cell in self.world.cells {
            let Some(set) = &cell.set else { continue };
            if self.skipped.contains(&cell.name) {
                continue;
            }
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
            lock_step: strategy.within_batch == WithinBatch::LockStep,
            max_out: pace::max_out(
                self.world.release,
                self.plan,
                self.status.rollback.is_some(),
            ),
            drain: SignedDuration::from_secs(i64::from(self.plan.drain_seconds)),
            min_ready: signed(strategy.min_ready),
            deadline: signed(strategy.deadlines.instance),
            batch,
            before: &self.status.working,
            spent: steps::spent(&self.status),
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
        floors.retain(|cell, _| !self.skipped.contains(cell));
        floors
    }

    fn everywhere(&self) -> BTreeMap<String, i32> {
        self.world
            .cells
            .iter()
            .filter(|c| !self.skipped.contains(&c.name))
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

    fn end(&mut self, phase: Phase, reason: &str, message: String) {
        tell::phase(&mut self.status, phase, reason, message);
        self.status.finished = Some(Time(self.now));
        self.status.working.clear();
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
