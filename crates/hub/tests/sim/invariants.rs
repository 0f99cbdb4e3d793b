//! What must hold after every step, checked against the truth and not against what the hub sees.

use std::collections::BTreeMap;

use gantry_api::{
    Release,
    release::{BatchState, Phase},
    strategy::Accept,
};
use gantry_hub::world::Gate;

use super::hub::{Deed, Fleet};

/// What is wrong, if anything.
pub fn check(fleet: &Fleet, deeds: &[Deed], killed: &[String], strict: bool) -> Result<(), String> {
    if let Some(name) = killed.first() {
        return Err(format!(
            "{name} was deleted by its StatefulSet while it served"
        ));
    }
    for deed in deeds {
        if let Deed::Touched { name, served: true } = deed {
            return Err(format!("{name} was touched while it served"));
        }
    }
    if let Some(release) = fleet
        .releases
        .iter()
        .find(|r| phase(r).is_active() && r.status.as_ref().is_some_and(|s| s.plan.is_some()))
    {
        limit(fleet, release, deeds, strict)?;
        order(fleet, release)?;
        bastion(fleet, release)?;
    }
    for release in &fleet.releases {
        let Some(status) = &release.status else {
            continue;
        };
        if !status.phase.is_final() && status.message.is_empty() {
            return Err(format!(
                "{:?} stands in {:?} without a word",
                release.metadata.name, status.phase
            ));
        }
    }
    Ok(())
}

fn phase(release: &Release) -> Phase {
    release.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

/// Never more instances out of service by Gantry's doing than allowed; and with a true view, no instance
/// taken out while the limit is used up by whatever cause.
fn limit(fleet: &Fleet, release: &Release, deeds: &[Deed], strict: bool) -> Result<(), String> {
    let Some(plan) = release.status.as_ref().and_then(|s| s.plan.as_ref()) else {
        return Ok(());
    };
    let by_gantry: Vec<String> = fleet
        .cells()
        .flat_map(|c| {
            c.pods
                .iter()
                .filter(|(n, p)| p.out_by_gantry && **n < c.set.as_ref().map_or(0, |s| s.replicas))
                .map(|(n, _)| format!("{}-{n}", c.name))
        })
        .collect();
    let took_any = deeds.iter().any(|d| matches!(d, Deed::TookOut { .. }));
    // What a release that has ended left out (failed and skipped, or an aborted one's bastion) its
    // successor inherits, and may have more of than its own limit; it may not add to them.
    if took_any && by_gantry.len() as i32 > plan.max_out {
        return Err(format!(
            "{} instances are out by Gantry's doing, {} are allowed: {by_gantry:?}",
            by_gantry.len(),
            plan.max_out
        ));
    }
    let took = deeds
        .iter()
        .any(|d| matches!(d, Deed::TookOut { fresh: true, .. }));
    if took || strict {
        let out: i32 = fleet
            .cells()
            .map(|c| {
                (0..c.set.as_ref().map_or(0, |s| s.replicas))
                    .filter(|n| !c.pods.get(n).is_some_and(super::member::Pod::serves))
                    .count() as i32
            })
            .sum();
        if out > plan.max_out && took {
            return Err(format!(
                "an instance was taken out though {out} are out and {} may be",
                plan.max_out
            ));
        }
    }
    Ok(())
}

/// No batch begins before the one before it is done, and no instance runs the new revision before its
/// batch has begun.
fn order(fleet: &Fleet, release: &Release) -> Result<(), String> {
    let Some(status) = &release.status else {
        return Ok(());
    };
    let Some(plan) = &status.plan else {
        return Ok(());
    };
    let begun = status
        .batches
        .iter()
        .rposition(|b| b.state != BatchState::Waiting);
    for batch in status.batches.iter().take(begun.unwrap_or(0)) {
        if !matches!(batch.state, BatchState::Done | BatchState::Skipped) {
            return Err(format!(
                "batch {} is {:?}, yet batch {begun:?} has begun",
                batch.index, batch.state
            ));
        }
    }
    let target = status.target.as_ref().unwrap().revision;
    if status.from.as_ref().unwrap().revision == target
        || fleet.releases.iter().any(|r| phase(r) == Phase::Aborted)
    {
        // Instances may have been on it from the start.
        return Ok(());
    }
    if begun.is_some_and(|b| b + 1 == plan.batches.len()) {
        return Ok(());
    }
    let mut floors: BTreeMap<&str, i32> = BTreeMap::new();
    for slice in plan
        .batches
        .iter()
        .take(begun.map_or(0, |b| b + 1))
        .flat_map(|b| &b.slices)
    {
        let floor = floors.entry(slice.cell.as_str()).or_insert(slice.lowest);
        *floor = slice.lowest.min(*floor);
    }
    for cell in fleet.cells() {
        // A set without instances on the old revision makes new ones on the new revision only.
        if cell.set.as_ref().is_some_and(|s| s.current == target) {
            continue;
        }
        let floor = floors.get(cell.name.as_str()).copied().unwrap_or(i32::MAX);
        for (ordinal, pod) in &cell.pods {
            if pod.revision == target && *ordinal < floor {
                return Err(format!(
                    "{}-{ordinal} runs revision {target} before its batch (floor {floor})",
                    cell.name
                ));
            }
        }
    }
    Ok(())
}

/// A bastion takes no traffic until it is accepted.
fn bastion(fleet: &Fleet, release: &Release) -> Result<(), String> {
    let Some(status) = &release.status else {
        return Ok(());
    };
    let Some(plan) = &status.plan else {
        return Ok(());
    };
    let accepted = release.spec.accepted_through.is_some()
        || plan.strategy.bastion.accept == Accept::Auto
        || release.spec.skip.contains(&0);
    let waiting = status
        .batches
        .first()
        .is_some_and(|b| !matches!(b.state, BatchState::Done | BatchState::Skipped));
    if accepted
        || !waiting
        || plan.batches[0].size == 0
        || fleet.releases.iter().any(|r| phase(r) == Phase::Aborted)
    {
        return Ok(());
    }
    let (from, target) = (
        status.from.as_ref().unwrap().revision,
        status.target.as_ref().unwrap().revision,
    );
    for cell in fleet.cells() {
        for (ordinal, pod) in &cell.pods {
            if from != target
                && pod.revision == target
                && pod.gate == Gate::In
                && pod.gone_at.is_none()
            {
                return Err(format!(
                    "{}-{ordinal} takes traffic before it is accepted",
                    cell.name
                ));
            }
        }
    }
    Ok(())
}

/// After the end, once the members have come to rest.
pub fn at_rest(fleet: &Fleet, release: &Release) -> Result<(), String> {
    let Some(status) = &release.status else {
        return Err("no status".to_owned());
    };
    let goal = match status.phase {
        Phase::Succeeded => status.target.as_ref().map(|t| t.revision),
        Phase::RolledBack => status.from.as_ref().map(|f| f.revision),
        _ => None,
    };
    let Some(goal) = goal else { return Ok(()) };
    for cell in fleet.cells() {
        let set = cell.set.as_ref().ok_or("a set is gone")?;
        if set.revision != goal || set.partition != 0 {
            return Err(format!(
                "{} is at template {} and partition {} after {:?} on {goal}",
                cell.name, set.revision, set.partition, status.phase
            ));
        }
        for (ordinal, pod) in &cell.pods {
            if pod.revision != goal {
                return Err(format!(
                    "{}-{ordinal} runs revision {} after {:?} on {goal}",
                    cell.name, pod.revision, status.phase
                ));
            }
            if pod.ready_since.is_some() && pod.gate != Gate::In {
                return Err(format!(
                    "{}-{ordinal} is ready and left out of service after {:?}",
                    cell.name, status.phase
                ));
            }
        }
    }
    let current = fleet
        .group
        .status
        .as_ref()
        .and_then(|s| s.current.as_ref())
        .map(|c| c.revision);
    if current != Some(goal) {
        return Err(format!(
            "the group is on {current:?} after {:?} on {goal}",
            status.phase
        ));
    }
    Ok(())
}
