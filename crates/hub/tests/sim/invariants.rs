//! What must hold after every step, checked against the truth and not against what the hub sees.

use std::collections::BTreeMap;

use gantry_api::{
    CountOrPercent, Release, ReleaseStatus,
    gate::{GateState, Point},
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
        match deed {
            Deed::Touched { name, served: true } => {
                return Err(format!("{name} was touched while it served"));
            }
            Deed::OutOfStep { name } => {
                return Err(format!("{name} was chosen while its wave was under way"));
            }
            _ => {}
        }
    }
    if let Some(release) = fleet
        .releases
        .iter()
        .find(|r| phase(r).is_active() && r.status.as_ref().is_some_and(|s| s.plan.is_some()))
    {
        limit(fleet, release, deeds, strict)?;
        gates(fleet, release)?;
        order(fleet, release)?;
        bastion(fleet, release)?;
    } else {
        budget(fleet, deeds)?;
    }
    for release in &fleet.releases {
        let Some(status) = &release.status else {
            continue;
        };
        told(release, status)?;
        if !status.phase.is_final() && status.message.is_empty() {
            return Err(format!(
                "{:?} stands in {:?} without a word",
                release.metadata.name, status.phase
            ));
        }
    }
    Ok(())
}

/// With no release under way, what people wish for instances takes no more of them out of service than the
/// Group allows, as far as the hub can see.
fn budget(fleet: &Fleet, deeds: &[Deed]) -> Result<(), String> {
    if !deeds
        .iter()
        .any(|d| matches!(d, Deed::TookOut { fresh: true }))
    {
        return Ok(());
    }
    let (mut out, mut total) = (0, 0);
    for cell in fleet.cells() {
        let replicas = cell.set.as_ref().map_or(0, |s| s.replicas);
        total += replicas;
        out += (0..replicas)
            .filter(|n| !cell.pods.get(n).is_some_and(super::member::Pod::serves))
            .count() as i32;
    }
    let limit = fleet
        .group
        .spec
        .availability
        .max_unavailable
        .max_out(total as u32) as i32;
    if out > limit {
        return Err(format!(
            "someone was taken out by a wish: {out} of {total} are out and {limit} may be"
        ));
    }
    Ok(())
}

/// What a status tells does not contradict itself.
fn told(release: &Release, status: &ReleaseStatus) -> Result<(), String> {
    let name = release.metadata.name.as_deref().unwrap_or_default();
    for step in &status.steps {
        let order = [
            &step.chosen,
            &step.drained,
            &step.updated,
            &step.ready,
            &step.warm,
            &step.in_service,
        ];
        let mut last = None;
        for at in order.into_iter().flatten() {
            if last.is_some_and(|l| at.0 < l) {
                return Err(format!(
                    "{name}: the steps of {} go back: {step:?}",
                    step.name
                ));
            }
            last = Some(at.0);
        }
        if step.in_service.is_some() && (step.ready.is_none() || step.chosen.is_none()) {
            return Err(format!(
                "{name}: {} serves without having been ready",
                step.name
            ));
        }
    }
    if !status.overrides.is_empty() && release.spec.emergency.is_none() {
        return Err(format!("{name} overrode {:?} unasked", status.overrides));
    }
    Ok(())
}

/// The limit as people have set it: by the button, for the way back, by the plan.
fn max_out(release: &Release) -> Option<i32> {
    let status = release.status.as_ref()?;
    let plan = status.plan.as_ref()?;
    let of = |c: CountOrPercent| (c.floor(plan.replicas as u32) as i32).max(1);
    if let Some(pressed) = release.spec.pace.as_ref().and_then(|p| p.max_unavailable) {
        return Some(of(pressed));
    }
    if status.rollback.is_some()
        && let Some(back) = plan.strategy.rollback.max_unavailable
    {
        return Some(of(back));
    }
    Some(plan.max_out)
}

/// No batch begins before the gates that follow the one before hold, the release does not succeed before
/// those at the end do, and none holds without answers that agreed.
fn gates(fleet: &Fleet, release: &Release) -> Result<(), String> {
    let Some(status) = &release.status else {
        return Ok(());
    };
    let Some(plan) = &status.plan else {
        return Ok(());
    };
    let name = release.metadata.name.as_deref().unwrap();
    let last = plan.batches.len() as i32 - 1;
    for gate in &plan.strategy.gates {
        let stands = |point| gate.at.is_empty() || gate.at.contains(&point);
        let state = |batch: i32| {
            let known = status
                .gates
                .iter()
                .find(|g| g.name == gate.name && g.batch == batch);
            known.map(|g| g.state)
        };
        let open = |batch| {
            matches!(
                state(batch),
                Some(GateState::Passed | GateState::Overridden)
            )
        };
        for batch in status.batches.iter().filter(|b| b.started.is_some()) {
            let before = batch.index - 1;
            let due = before > 0 && stands(Point::Batch)
                || before == 0 && stands(Point::Bastion) && plan.batches[0].size > 0;
            if due && !open(before) {
                return Err(format!(
                    "{name}: batch {} has begun, yet gate {} after {before} is {:?}",
                    batch.index,
                    gate.name,
                    state(before)
                ));
            }
        }
        if status.phase == Phase::Succeeded && stands(Point::End) && !open(last) {
            return Err(format!("{name} has succeeded without gate {}", gate.name));
        }
        for passed in status
            .gates
            .iter()
            .filter(|g| g.name == gate.name && g.state == GateState::Passed)
        {
            let wanted = match (&gate.metric, &gate.webhook) {
                (Some(metric), _) => metric.count,
                (_, Some(_)) => 1,
                _ => continue,
            };
            let of_it = format!("{name}/{}@{}#", gate.name, passed.batch);
            let agreed = fleet
                .agreed
                .iter()
                .filter(|(id, agreed)| id.starts_with(&of_it) && **agreed)
                .count() as i32;
            if agreed < wanted {
                return Err(format!(
                    "{name}: gate {} holds after {} with {agreed} of {wanted} answers",
                    gate.name, passed.batch
                ));
            }
        }
        if let Some(gate_status) = status
            .gates
            .iter()
            .find(|g| g.name == gate.name && g.state == GateState::Overridden)
            && release.spec.emergency.is_none()
        {
            return Err(format!("{name}: {gate_status:?} without an emergency"));
        }
    }
    Ok(())
}

fn phase(release: &Release) -> Phase {
    release.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

/// Whether a release has left instances on other revisions than its end says.
fn left_mixed(release: &Release) -> bool {
    phase(release) == Phase::Aborted
        || release
            .status
            .as_ref()
            .is_some_and(|s| s.phase == Phase::Failed || !s.skipped_cells.is_empty())
}

/// Never more instances out of service by Gantry's doing than allowed; and with a true view, no instance
/// taken out while the limit is used up by whatever cause.
fn limit(fleet: &Fleet, release: &Release, deeds: &[Deed], strict: bool) -> Result<(), String> {
    let Some(max_out) = max_out(release) else {
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
    if took_any && by_gantry.len() as i32 > max_out {
        return Err(format!(
            "{} instances are out by Gantry's doing, {} are allowed: {by_gantry:?}",
            by_gantry.len(),
            max_out
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
        if out > max_out && took {
            return Err(format!(
                "an instance was taken out though {out} are out and {max_out} may be"
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
    if status.from.as_ref().unwrap().revision == target || fleet.releases.iter().any(left_mixed) {
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
    let asked_for =
        release.spec.accepted_through.is_some() || plan.strategy.bastion.accept == Accept::Auto;
    let open = plan
        .strategy
        .gates
        .iter()
        .filter(|g| g.at.is_empty() || g.at.contains(&Point::Bastion))
        .all(|g| {
            status.gates.iter().any(|s| {
                s.name == g.name
                    && s.batch == 0
                    && matches!(s.state, GateState::Passed | GateState::Overridden)
            })
        });
    let accepted = asked_for && open || release.spec.skip.contains(&0);
    let waiting = status
        .batches
        .first()
        .is_some_and(|b| !matches!(b.state, BatchState::Done | BatchState::Skipped));
    if accepted || !waiting || plan.batches[0].size == 0 || fleet.releases.iter().any(left_mixed) {
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
    gates(fleet, release)?;
    for cell in fleet.cells() {
        if status.skipped_cells.iter().any(|s| s.cell == cell.name) {
            continue;
        }
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
            let restarts = fleet.group.spec.restart_before.as_ref();
            let due = restarts.is_some_and(|t| super::member::at(pod.created) < t.0);
            // One that never becomes ready may use up all that may be out.
            let all_serve = || {
                let mut pods = fleet.cells().flat_map(|c| c.pods.values());
                pods.all(super::member::Pod::serves)
            };
            if due && all_serve() {
                return Err(format!("{}-{ordinal} was to be restarted", cell.name));
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
