//! The release controller's planner: from what is wished and what is seen to what to do next.
//!
//! [`plan`] is called again whenever anything changes and keeps no memory of its own: what has been
//! decided stands in the Release's status, what has been done stands in the members' objects. The shell
//! writes the new status **before** it carries out the actions, so that a decision (this batch has
//! started, this instance has failed, the release has turned round) outlives a crash between any two of
//! them; every action is safe to repeat.
//!
//! How instances move, cell by cell:
//!
//! 1. The set gets the new template with a partition that covers every instance: nothing is touched,
//!    and an instance lost from now on still comes back on the old revision.
//! 2. A batch takes instances out of service, as many at once as may be out, and lets them drain.
//! 3. In place: the pod's images and labels are patched. Or recreated: once the instances from the
//!    cell's top down have drained, the partition is lowered past them and they are deleted.
//! 4. When they are ready, they go back into service (a bastion when it has been accepted).
//! 5. With all of a batch's instances in a cell on the new revision, the partition is lowered past
//!    them: an instance lost from now on comes back on the new one.
//!
//! Going back is the same with the revisions exchanged, over every instance at once or batch by batch.
//!
//! On each look, before anything is moved: buttons, then deadlines, then what stops the line, then cells
//! out of reach ([`skip`]). Gates ([`gate`]) stand before the bastion is accepted, between batches and at
//! the end.
//!
//! Rules for what changes while a release runs. Scaling down goes through; instances that are gone are
//! waited for no longer. Scaling up waits in a cell whose bastion nobody has accepted; elsewhere it goes
//! through, on the old revision where the cell has not been reached (the first batch there takes the new
//! instances along), on the new one where it has or where a cell had no instance at all. A cell that joins
//! begins on the Group's revision and is taken along with the last batch. An instance lost in the middle
//! comes back on the revision that the partition allows, and is updated with its batch if that was the old
//! one.

mod begin;
pub(crate) use begin::unreachable;
pub mod buttons;
pub mod check;
mod drive;
pub mod gate;
pub mod line;
pub mod pace;
pub mod plan;
mod preview;
pub mod promote;
mod resolve;
pub mod room;
mod run;
mod skip;
mod steps;
pub(crate) mod tell;
pub mod told;
pub mod window;

pub use preview::{Preview, cells, preview};

/// Reason of a release that waits for adopted instances to be replaced by named ones.
pub const ADOPTED: &str = "Adopted";

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{
    App, Group, Release, ReleaseStatus, StopLine, StrategySpec,
    gate::Point,
    labels,
    release::{BatchState, IfBusy, Phase},
    strategy::Accept,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    action::Action,
    world::{CellView, Hold, Revisions},
};

/// Everything the planner looks at.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The release.
    pub release: &'a Release,
    /// Its Group.
    pub group: Option<&'a Group>,
    /// The Group's App.
    pub app: Option<&'a App>,
    /// The strategy that holds, or why there is none.
    pub strategy: Result<StrategySpec, String>,
    /// Revisions of the Group.
    pub revisions: &'a Revisions,
    /// Cells of the Group, in its order.
    pub cells: &'a [CellView],
    /// The switches that stop the line, all of them.
    pub lines: &'a [StopLine],
    /// Answers that have come to what was asked.
    pub answers: &'a gate::Answers,
    /// The Group that `spec.promote` names, if there is one.
    pub origin: Option<promote::Origin>,
    /// Whether an order that is taken back has made it: then it goes back like any rollback.
    pub undoes: bool,
}

/// What to do next. The status goes first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The Release's new status.
    pub status: ReleaseStatus,
    /// Then these, in order.
    pub actions: Vec<Action>,
    /// Instances that have to be out of service, and why. The group planner turns the gates.
    pub holds: BTreeMap<String, Hold>,
    /// Instances that were taken out to be replaced, cannot be yet, and serve until then.
    pub spared: BTreeSet<String>,
    /// The revision that has been let into traffic beside the Group's current one.
    pub accepted: Option<i64>,
    /// Cells in which no instance may be added for now.
    pub frozen: BTreeSet<String>,
    /// To be asked, once each; the answers come with a later look.
    pub asks: Vec<gate::Ask>,
    /// When to ask again even if nothing changes.
    pub wake: Option<Timestamp>,
}

/// The most decisions that are written down as one.
const AT_ONCE: usize = 4;

/// What to do next for the release that governs its Group, as far as that goes without anything being done or asked:
/// decisions that nothing comes between are written down as one.
pub fn settle(world: &World<'_>, now: Timestamp) -> Step {
    let mut step = plan(world, now);
    // What has been answered has been taken note of.
    let answers = gate::Answers::new();
    let mut before = world.release.status.clone().unwrap_or_default();
    for _ in 1..AT_ONCE {
        let acts = !step.actions.is_empty() || !step.asks.is_empty();
        if acts || step.status.phase.is_final() || told::only_told(&before, &step.status) {
            break;
        }
        let release = Release {
            status: Some(step.status.clone()),
            ..world.release.clone()
        };
        let next = World {
            release: &release,
            answers: &answers,
            ..world.clone()
        };
        before = std::mem::replace(&mut step, plan(&next, now)).status;
    }
    step
}

/// One decision for the release that governs its Group.
pub fn plan(world: &World<'_>, now: Timestamp) -> Step {
    let mut status = world.release.status.clone().unwrap_or_default();
    status.observed_generation = world.release.metadata.generation;
    status.requested_by = requested_by(world.release);
    let mut step = match (status.phase, &status.plan) {
        (Phase::Succeeded | Phase::RolledBack | Phase::Failed, _) => Step {
            status,
            ..Step::default()
        },
        (_, None) => begin::step(world, status, now),
        (_, Some(frozen)) => {
            let frozen = frozen.clone();
            run::step(world, &frozen, status, now)
        }
    };
    if step.status.rollback.is_none() && accepted(world.release, &step.status) {
        step.accepted = step.status.target.as_ref().map(|t| t.revision);
    }
    tell::clock(
        &world.release.status.clone().unwrap_or_default(),
        &mut step.status,
        now,
    );
    step
}

/// Whether the bastion has been let into traffic, or may be.
fn accepted(release: &Release, status: &ReleaseStatus) -> bool {
    let past = status
        .batches
        .first()
        .is_some_and(|b| matches!(b.state, BatchState::Done | BatchState::Skipped));
    let auto = status
        .plan
        .as_ref()
        .is_some_and(|p| p.strategy.bastion.accept == Accept::Auto);
    let open = || {
        let plan = status.plan.as_ref();
        plan.is_none_or(|p| gate::passed(p, &status.gates, Point::Bastion, 0))
    };
    past || status.phase.is_active() && (auto || release.spec.accepted_through.is_some()) && open()
}

/// The status of a release that waits for another to end.
pub fn queued(release: &Release, ahead: &str, now: Timestamp) -> ReleaseStatus {
    let mut status = release.status.clone().unwrap_or_default();
    status.observed_generation = release.metadata.generation;
    status.requested_by = requested_by(release);
    if release.spec.abort || release.spec.rollback {
        begin::withdraw(&mut status, now);
        return status;
    }
    if release.spec.if_busy == IfBusy::Refuse {
        status.finished = Some(Time(now));
        tell::phase(
            &mut status,
            Phase::Failed,
            "Busy",
            format!("release {ahead} of the group has not ended, and this one does not wait"),
        );
        return status;
    }
    status.phase = Phase::Queued;
    status.reason = "Queued".to_owned();
    status.message = format!("waits for release {ahead}");
    status
}

fn requested_by(release: &Release) -> String {
    if release.spec.requested_by.is_empty() {
        let annotations = release.metadata.annotations.as_ref();
        annotations
            .and_then(|a| a.get(labels::REQUESTED_BY))
            .cloned()
            .unwrap_or_default()
    } else {
        release.spec.requested_by.clone()
    }
}

/// Which of a Group's releases governs it: the one that runs; else one that ended by abort and is to be
/// taken back, as long as nothing has started after it; else the oldest that has not ended; else the
/// aborted one that ended last, which still keeps its bastion out of service.
pub fn governing<'a>(releases: &[&'a Release]) -> Option<&'a Release> {
    let phase = |r: &Release| r.status.as_ref().map(|s| s.phase).unwrap_or_default();
    let started = |r: &Release| {
        r.status
            .as_ref()
            .and_then(|s| s.started.as_ref())
            .map(|t| t.0)
    };
    let order = |r: &&&'a Release| {
        (
            r.metadata.creation_timestamp.as_ref().map(|t| t.0),
            r.metadata.name.clone(),
        )
    };
    if let Some(active) = releases
        .iter()
        .filter(|r| phase(r).is_active())
        .min_by_key(order)
    {
        return Some(active);
    }
    let last = releases
        .iter()
        .filter(|r| started(r).is_some())
        .max_by_key(|r| started(r));
    let aborted = last.filter(|r| phase(r) == Phase::Aborted).copied();
    if let Some(release) = aborted.filter(|r| r.spec.rollback) {
        return Some(release);
    }
    releases
        .iter()
        .filter(|r| !phase(r).is_final())
        .min_by_key(order)
        .copied()
        .or(aborted)
}

#[cfg(test)]
pub(crate) mod found;
#[cfg(test)]
mod stated;
#[cfg(test)]
mod tests;
