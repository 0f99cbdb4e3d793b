//! The way of each instance, step by step: told from what is under way now and what was before.

use gantry_api::{
    ReleaseStatus,
    release::{BatchState, BatchTimes, Doing, InstanceSteps, WorkingInstance},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::world::{CellView, Gate, Instance};

/// So many instances that are done are kept in a status; their times are in their batch's sums.
const KEPT: usize = 200;

/// Brings `after.steps` up to date. `goal` is the revision instances go to now.
pub(super) fn follow(
    before: &ReleaseStatus,
    after: &mut ReleaseStatus,
    cells: &[CellView],
    goal: i64,
    now: Timestamp,
) {
    if before.rollback.is_none() && after.rollback.is_some() {
        // What an instance took on the way forward says nothing of the way back.
        after.steps.clear();
    }
    let working = after.working.clone();
    let known: FxHashMap<String, usize> = after
        .steps
        .iter()
        .enumerate()
        .map(|(index, s)| (s.name.clone(), index))
        .collect();
    for under_way in &working {
        let mut entry = match known.get(&under_way.name) {
            Some(index) => after.steps[*index].clone(),
            None => InstanceSteps {
                name: under_way.name.clone(),
                batch: under_way.batch,
                ..InstanceSteps::default()
            },
        };
        note(&mut entry, under_way, goal, now);
        match known.get(&under_way.name) {
            Some(index) => after.steps[*index] = entry,
            None => after.steps.push(entry),
        }
    }
    let names: FxHashSet<&str> = working.iter().map(|w| w.name.as_str()).collect();
    let instances: FxHashMap<&str, (&CellView, &Instance)> = if after.steps.len() > names.len() {
        cells
            .iter()
            .flat_map(|c| c.instances.values().map(move |i| (i.name.as_str(), (c, i))))
            .collect()
    } else {
        FxHashMap::default()
    };
    let find = |name: &str| instances.get(name).copied();
    let mut done: Vec<(i32, InstanceSteps)> = Vec::new();
    after.steps.retain_mut(|entry| {
        if names.contains(entry.name.as_str()) {
            return true;
        }
        let Some((cell, instance)) = find(&entry.name) else {
            // It is gone with a scaling down.
            return false;
        };
        if !cell.at(instance, goal) {
            // Chosen and let go of again: it has not begun.
            return entry.updated.is_some() && !cell.reachable;
        }
        if instance.gate == Gate::In && instance.fit_since().is_some() {
            rest(entry, now);
            if entry.in_service.is_none() {
                for step in [
                    &mut entry.drained,
                    &mut entry.updated,
                    &mut entry.ready,
                    &mut entry.warm,
                ] {
                    step.get_or_insert(Time(now));
                }
                entry.in_service = Some(Time(now));
                done.push((entry.batch, entry.clone()));
            }
        }
        true
    });
    for (index, entry) in done {
        if let Some(batch) = after.batches.iter_mut().find(|b| b.index == index) {
            add(batch.times.get_or_insert_default(), &entry);
        }
    }
    // A batch that is over takes its instances along; of a big one the newest are kept.
    let over: Vec<i32> = after
        .batches
        .iter()
        .filter(|b| matches!(b.state, BatchState::Done | BatchState::Skipped))
        .map(|b| b.index)
        .collect();
    after
        .steps
        .retain(|s| s.in_service.is_none() || !over.contains(&s.batch));
    let finished = after
        .steps
        .iter()
        .filter(|s| s.in_service.is_some())
        .count();
    let mut excess = finished.saturating_sub(KEPT);
    after.steps.retain(|s| {
        let goes = excess > 0 && s.in_service.is_some();
        excess -= usize::from(goes);
        !goes
    });
    if after.phase.is_final() {
        after.steps.clear();
    }
}

fn note(entry: &mut InstanceSteps, under_way: &WorkingInstance, goal: i64, now: Timestamp) {
    let at = || Time(now);
    entry.chosen.get_or_insert_with(at);
    match under_way.doing {
        Doing::Draining => rest(entry, now),
        Doing::Updating => {
            entry.drained.get_or_insert_with(at);
            if under_way.revision == Some(goal) {
                entry.updated.get_or_insert_with(at);
            }
            if under_way.since.is_some() {
                entry.unready_since.get_or_insert_with(at);
            } else {
                // Out of sight: nobody can tell.
                rest(entry, now);
            }
        }
        Doing::Warming | Doing::Held | Doing::Returning => {
            entry.drained.get_or_insert_with(at);
            entry.updated.get_or_insert_with(at);
            entry.ready.get_or_insert_with(at);
            if under_way.doing != Doing::Warming {
                entry.warm.get_or_insert_with(at);
            }
            rest(entry, now);
        }
        Doing::Failed => {}
    }
}

/// A spell of being unready is over.
fn rest(entry: &mut InstanceSteps, now: Timestamp) {
    if let Some(since) = entry.unready_since.take() {
        entry.unready_seconds += now.duration_since(since.0).as_secs().max(0);
    }
}

fn add(times: &mut BatchTimes, entry: &InstanceSteps) {
    let between = |a: &Option<Time>, b: &Option<Time>| match (a, b) {
        (Some(a), Some(b)) => b.0.duration_since(a.0).as_secs().max(0),
        _ => 0,
    };
    let total = between(&entry.chosen, &entry.in_service);
    times.instances += 1;
    times.drain_seconds += between(&entry.chosen, &entry.drained);
    times.update_seconds += between(&entry.drained, &entry.ready);
    times.warm_up_seconds += between(&entry.ready, &entry.warm);
    times.total_seconds += total;
    if total >= times.slowest_seconds {
        times.slowest_seconds = total;
        times.slowest.clone_from(&entry.name);
    }
}

/// Time that instances have been unready before the present spell, by name: it counts against their
/// deadline.
pub(super) fn spent(status: &ReleaseStatus) -> std::collections::BTreeMap<String, i64> {
    status
        .steps
        .iter()
        .filter(|s| s.unready_seconds > 0)
        .map(|s| (s.name.clone(), s.unready_seconds))
        .collect()
}

/// Another try: what was unready before is forgiven.
pub(super) fn forgive(status: &mut ReleaseStatus, now: Timestamp) {
    for entry in &mut status.steps {
        entry.unready_seconds = 0;
        if entry.unready_since.is_some() {
            entry.unready_since = Some(Time(now));
        }
    }
}
