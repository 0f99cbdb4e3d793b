//! From `Pending` to a frozen plan: waits for what is missing, makes the revision, divides the group.

use gantry_api::{
    Group, ReleaseStatus, RevisionChange, StrategySpec,
    release::{BatchStatus, Method, Phase, Plan},
    revision::RevisionRef,
    strategy::InPlace,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    Step, World, check,
    gate::Ask,
    line,
    plan::{CellSize, batches, mark},
    promote,
    resolve::{self, Resolved},
    room, skip, tell,
};
use crate::{
    action::Action,
    render::{self, Source},
    world::{CellView, Revision},
};

/// Why a release does not begin.
enum Stop {
    /// Something may still come: reason, message.
    Wait(&'static str, String),
    /// It can never begin as it is: reason, message.
    Fail(&'static str, String),
    /// Nothing to do: message.
    Done(String),
    /// The revision has to be written down first.
    Record(Box<Revision>),
    /// Something has to be asked first: what, message.
    Ask(Vec<Ask>, String),
}

pub(super) fn step(world: &World<'_>, mut status: ReleaseStatus, now: Timestamp) -> Step {
    if world.release.spec.abort || world.release.spec.rollback {
        withdraw(&mut status, now);
        return Step {
            status,
            ..Step::default()
        };
    }
    let (mut actions, mut asks) = (Vec::new(), Vec::new());
    let mut wake = line::look(world, now).wake;
    match freeze(world, &mut status, &mut wake, now) {
        Ok(()) => {}
        Err(Stop::Wait(reason, message)) => set(&mut status, Phase::Pending, reason, message),
        Err(Stop::Fail(reason, message)) => {
            set(&mut status, Phase::Failed, reason, message);
            status.finished = Some(Time(now));
        }
        Err(Stop::Done(message)) => {
            set(&mut status, Phase::Succeeded, "NothingToDo", message);
            status.finished = Some(Time(now));
        }
        Err(Stop::Ask(questions, message)) => {
            set(&mut status, Phase::Pending, "Resolving", message);
            asks = questions;
        }
        Err(Stop::Record(revision)) => {
            let message = format!(
                "writes down revision {} ({})",
                revision.number, revision.spec.image
            );
            set(&mut status, Phase::Planning, "Recording", message);
            actions.push(Action::CreateRevision(revision));
        }
    }
    Step {
        status,
        actions,
        asks,
        wake,
        ..Step::default()
    }
}

/// Ends a release that has not begun.
pub(super) fn withdraw(status: &mut ReleaseStatus, now: Timestamp) {
    set(
        status,
        Phase::Aborted,
        "Withdrawn",
        "ended before it began; nothing was touched".to_owned(),
    );
    status.finished = Some(Time(now));
}

fn set(status: &mut ReleaseStatus, phase: Phase, reason: &str, message: String) {
    status.phase = phase;
    status.reason = reason.to_owned();
    status.message = message;
}

fn freeze(
    world: &World<'_>,
    status: &mut ReleaseStatus,
    wake: &mut Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Stop> {
    let spec = &world.release.spec;
    let missing = |what: String| Stop::Wait("Missing", what);
    let group = world
        .group
        .ok_or_else(|| missing(format!("group {} does not exist", spec.group)))?;
    let app = world
        .app
        .ok_or_else(|| missing(format!("app {} does not exist", group.spec.app)))?;
    let strategy = world.strategy.clone().map_err(missing)?;
    let current = group
        .status
        .as_ref()
        .and_then(|s| s.current.clone())
        .ok_or_else(|| missing(format!("group {} is on no revision yet", spec.group)))?;
    let base = world.revisions.get(&current.revision).ok_or_else(|| {
        missing(format!(
            "revision {} of {} is not kept",
            current.revision, spec.group
        ))
    })?;

    // First of all: a promotion that is refused is refused now, not when its turn comes.
    let change = promote::change(world, app, group, &base.spec, status, now)
        .map_err(|why| Stop::Fail("NotPromoted", why))?;
    if spec.paused {
        return Err(Stop::Wait("Paused", "paused before it began".to_owned()));
    }
    let mut line = line::look(world, now);
    if world.undoes {
        line.let_back();
        line::went_on(status, std::mem::take(&mut line.freezes));
    }
    if let Some((reason, why)) = line.halt {
        return Err(Stop::Wait(reason, why));
    }
    line::record(world.release, status, line.overridden, now);
    let guests: usize = world.cells.iter().map(|c| c.guests.len()).sum();
    if guests > 0 {
        return Err(Stop::Wait(super::ADOPTED, waits_for(guests)));
    }
    let (skipped, due) = skip::look(&strategy, world.cells, &[], &status.skipped_cells, now);
    *wake = tell::earlier(*wake, due);
    let planned: Vec<&CellView> = world
        .cells
        .iter()
        .filter(|c| skipped.iter().all(|s| s.cell != c.name))
        .collect();
    for cell in planned
        .iter()
        .filter(|c| c.weight.is_some_and(|w| w > 0) || c.set.is_some())
    {
        if !cell.reachable {
            return Err(Stop::Wait("Unreachable", unreachable(cell)));
        }
        if cell.set.is_none() {
            return Err(missing(format!(
                "cell {} has no StatefulSet of the group yet",
                cell.name
            )));
        }
    }

    let change = match resolve::change(world, &strategy, &change, status) {
        Resolved::Change(change) => change,
        Resolved::Asks(asks, message) => return Err(Stop::Ask(asks, message)),
        Resolved::Fail(why) => return Err(Stop::Fail("ImageNotResolved", why)),
    };
    let target = target(world, Source::new(app, group), &change, base)?;
    let cells: Vec<CellSize> = planned
        .iter()
        .map(|c| CellSize {
            cell: c.name.clone(),
            replicas: c.replicas(),
        })
        .collect();
    let everywhere = world.cells.iter().all(|c| {
        c.set
            .as_ref()
            .is_none_or(|s| s.revision == Some(target.number) && s.partition == 0)
            && c.instances.values().all(|i| c.at(i, target.number))
    });
    if everywhere && current.revision == target.number {
        return Err(Stop::Done(format!(
            "every instance already runs revision {}",
            target.number
        )));
    }

    status.skipped_cells = skipped;
    let plan = divide(world, group, &strategy, base, target, &cells);
    let problems = check::check(&plan, &strategy, &cells);
    let refused = room::refusals(&plan.rooms);
    if !problems.is_empty() || !refused.is_empty() {
        let text: Vec<String> = problems.into_iter().map(|p| p.0).chain(refused).collect();
        return Err(Stop::Fail("Impossible", text.join("; ")));
    }

    status.batches = plan
        .batches
        .iter()
        .map(|b| BatchStatus {
            index: b.index,
            ..BatchStatus::default()
        })
        .collect();
    status.from = Some(RevisionRef {
        revision: base.number,
        image: base.spec.image.clone(),
        release: current.release,
    });
    status.target = Some(RevisionRef {
        revision: target.number,
        image: target.spec.image.clone(),
        release: world.release.metadata.name.clone(),
    });
    status.started = Some(Time(now));
    let message = summary(&plan)
        + &room::told(&plan.rooms)
        + &skip::told(&status.skipped_cells)
        + &resolve::told(status);
    status.max_out = plan.max_out;
    status.plan = Some(plan);
    set(status, Phase::Planning, "PlanFrozen", message);
    Ok(())
}

/// Why a release does not begin as long as there are guests.
pub(super) fn waits_for(guests: usize) -> String {
    format!(
        "{guests} adopted instances are first replaced by named ones, which a release can take out of traffic one by one"
    )
}

/// A plan in one line.
pub(super) fn summary(plan: &Plan) -> String {
    let odd: i32 = plan
        .batches
        .iter()
        .flat_map(|b| &b.slices)
        .filter(|s| s.method.is_some())
        .map(gantry_api::release::Slice::size)
        .sum();
    let odd = if odd > 0 {
        format!(" ({odd} of them otherwise)")
    } else {
        String::new()
    };
    format!(
        "{} of {} instances{odd} in {} batches, at most {} out of service",
        method_word(plan.method),
        plan.replicas,
        plan.batches.len().saturating_sub(1),
        plan.max_out
    )
}

fn method_word(method: Method) -> &'static str {
    match method {
        Method::InPlace => "update in place",
        Method::Recreate => "replacement",
    }
}

pub(crate) fn unreachable(cell: &CellView) -> String {
    if cell.cluster.is_empty() {
        return format!("no cluster has a cell {}", cell.name);
    }
    match cell.unreachable_since {
        Some(since) => format!(
            "cell {} (cluster {}) cannot be reached since {}",
            cell.name,
            cell.cluster,
            tell::clock_time(since)
        ),
        None => format!(
            "cell {} (cluster {}) cannot be reached",
            cell.name, cell.cluster
        ),
    }
}

/// The revision that the release asks for, if it is written down already.
fn target<'a>(
    world: &'a World<'_>,
    source: Source<'_>,
    change: &RevisionChange,
    base: &Revision,
) -> Result<&'a Revision, Stop> {
    if let Some(number) = change.to {
        if change.has_changes() {
            return Err(Stop::Fail(
                "Invalid",
                format!(
                    "revision.to goes to revision {number} as it is; the other fields of revision must be empty"
                ),
            ));
        }
        return world.revisions.get(&number).ok_or_else(|| {
            let kept: Vec<String> = world.revisions.keys().map(ToString::to_string).collect();
            Stop::Fail(
                "Invalid",
                format!(
                    "revision {number} is not kept; kept are {}",
                    kept.join(", ")
                ),
            )
        });
    }
    let next = world.revisions.keys().next_back().copied().unwrap_or(0) + 1;
    let wanted = render::revision(source, &change.apply(&base.spec), next);
    match world.revisions.values().find(|r| r.digest == wanted.digest) {
        Some(known) => Ok(known),
        None => Err(Stop::Record(Box::new(wanted))),
    }
}

pub(super) fn divide(
    world: &World<'_>,
    group: &Group,
    strategy: &StrategySpec,
    base: &Revision,
    target: &Revision,
    cells: &[CellSize],
) -> Plan {
    let total = cells.iter().map(|c| c.replicas).sum::<i32>().max(0);
    let allowed = strategy
        .max_unavailable
        .unwrap_or(group.spec.availability.max_unavailable);
    let max_out = allowed.max_out(total as u32) as i32;
    let (method, method_reason) = match (
        strategy.in_place,
        render::in_place(&base.template, &target.template),
    ) {
        (InPlace::Never, _) => (Method::Recreate, "the strategy says so".to_owned()),
        (_, Ok(_)) => (Method::InPlace, "only images differ".to_owned()),
        (_, Err(why)) => (Method::Recreate, why),
    };
    let mut plan = Plan {
        digest: String::new(),
        batches: batches(strategy, cells, max_out),
        replicas: total,
        max_out,
        tolerance: strategy.failure_tolerance.floor(total as u32) as i32,
        method,
        method_reason,
        drain_seconds: world
            .app
            .and_then(|a| a.spec.container.lifecycle.drain_seconds)
            .unwrap_or(0),
        strategy: strategy.clone(),
        rooms: room::rooms(world.cells, cells, base, target, world.revisions),
    };
    // Instances may be on other revisions than the Group's: what an earlier release left behind.
    let mut known = std::collections::BTreeMap::new();
    let mut how = |cell: &str, ordinal: i32| {
        let instance = world
            .cells
            .iter()
            .find(|c| c.name == cell)
            .and_then(|c| c.instances.get(&ordinal));
        let from = instance.and_then(|i| i.revision).unwrap_or(base.number);
        known
            .entry(from)
            .or_insert_with(|| match world.revisions.get(&from) {
                _ if from == base.number => (plan.method, plan.method_reason.clone()),
                _ if strategy.in_place == InPlace::Never => {
                    (plan.method, plan.method_reason.clone())
                }
                // One that is there already is not touched.
                _ if from == target.number => (plan.method, String::new()),
                Some(other) => match render::in_place(&other.template, &target.template) {
                    Ok(_) => (
                        Method::InPlace,
                        format!("on revision {from}, only images differ"),
                    ),
                    Err(why) => (Method::Recreate, format!("on revision {from}, {why}")),
                },
                None => (Method::Recreate, format!("revision {from} is not kept")),
            })
            .clone()
    };
    let mut batches = std::mem::take(&mut plan.batches);
    mark(&mut batches, plan.method, &mut how);
    // An adopted StatefulSet has kept its name, and so its instances theirs.
    for slice in batches.iter_mut().flat_map(|b| &mut b.slices) {
        let cell = world.cells.iter().find(|c| c.name == slice.cell);
        slice.set = cell.and_then(|c| c.set_name.clone());
    }
    plan.batches = batches;
    plan.digest = render::digest(&json!(plan));
    plan
}
