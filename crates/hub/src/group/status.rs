//! What a Group's status says.

use gantry_api::{GroupStatus, group::GroupCellStatus, labels};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::World;
use crate::world::{CellView, Instance};

/// Fills `status` from what is seen.
pub(super) fn fill(
    world: &World<'_>,
    desired: &[i32],
    problems: &[String],
    now: Timestamp,
    status: &mut GroupStatus,
) {
    let group = world.group;
    status.observed_generation = group.metadata.generation;
    status.target.clone_from(&world.release.target);
    status.selector = format!(
        "{}={}",
        labels::GROUP,
        group.metadata.name.as_deref().unwrap_or_default()
    );
    let goal = status
        .target
        .as_ref()
        .or(status.current.as_ref())
        .map(|r| r.revision);
    status.cells = world
        .cells
        .iter()
        .enumerate()
        .map(|(i, cell)| of_cell(cell, desired.get(i).copied().unwrap_or(0), goal))
        .collect();
    status.replicas = status.cells.iter().map(|c| c.replicas).sum();
    status.ready = status.cells.iter().map(|c| c.ready).sum();
    status.in_service = status.cells.iter().map(|c| c.in_service).sum();
    status.updated = status.cells.iter().map(|c| c.updated).sum();

    let wish = group.spec.replicas;
    let up = status.in_service >= wish && problems.is_empty();
    let message = format!("{} of {wish} instances are in service", status.in_service);
    set_condition(
        &mut status.conditions,
        "Ready",
        status.in_service >= wish,
        if status.in_service >= wish {
            "InService"
        } else {
            "Missing"
        },
        message.clone(),
        group.metadata.generation,
        now,
    );
    let placed = problems.is_empty();
    let why = problems.join("; ");
    set_condition(
        &mut status.conditions,
        "Placed",
        placed,
        if placed { "Placed" } else { "Waiting" },
        why.clone(),
        group.metadata.generation,
        now,
    );
    let settled = status.updated == status.replicas && status.target.is_none();
    let number = goal.unwrap_or(0);
    let where_to = format!(
        "{} of {} instances are on revision {number}",
        status.updated, status.replicas
    );
    set_condition(
        &mut status.conditions,
        "Settled",
        settled,
        if settled { "Settled" } else { "Mixed" },
        where_to.clone(),
        group.metadata.generation,
        now,
    );
    status.message = match (problems.first(), up) {
        (Some(problem), _) => problem.clone(),
        (None, false) => message,
        (None, true) if !settled && status.target.is_none() => where_to,
        (None, true) => String::new(),
    };
}

/// Whether the difference is in counts and in what follows from them: it may wait for a moment, and others go with it.
pub fn only_counts(before: &GroupStatus, after: &GroupStatus) -> bool {
    let rest = |status: &GroupStatus| {
        let mut rest = GroupStatus {
            replicas: 0,
            ready: 0,
            in_service: 0,
            updated: 0,
            conditions: Vec::new(),
            message: String::new(),
            ..status.clone()
        };
        for cell in &mut rest.cells {
            (cell.replicas, cell.ready, cell.in_service, cell.updated) = (0, 0, 0, 0);
        }
        rest
    };
    rest(before) == rest(after)
}

fn of_cell(cell: &CellView, desired: i32, goal: Option<i64>) -> GroupCellStatus {
    let count = |test: &dyn Fn(&Instance) -> bool| {
        cell.instances.values().filter(|i| test(i)).count() as i32
    };
    let guests = cell.guests.len() as i32;
    let current = cell.guests.iter().filter(|g| g.revision == goal).count() as i32;
    GroupCellStatus {
        name: cell.name.clone(),
        cluster: cell.cluster.clone(),
        desired,
        replicas: count(&|_| true) + guests,
        guests,
        ready: count(&|i| i.fit_since().is_some()) + cell.guests_serving(),
        in_service: count(&Instance::in_service) + cell.guests_serving(),
        updated: count(&|i| goal.is_some_and(|g| cell.at(i, g))) + current,
        unreachable_since: cell.unreachable_since.filter(|_| !cell.reachable).map(Time),
        // Of these the planner of shares tells.
        ..GroupCellStatus::default()
    }
}

/// Sets a condition; its transition time changes with its status alone.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if status { "True" } else { "False" }.to_owned();
    let since = conditions
        .iter()
        .find(|c| c.type_ == kind && c.status == status)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    let fresh = Condition {
        type_: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => *old = fresh,
        None => conditions.push(fresh),
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::group::InstanceNote;

    use super::*;

    #[test]
    fn counts_may_wait_and_nothing_else() {
        type Change = fn(&mut GroupStatus);
        let cases: [(&str, bool, Change); 6] = [
            ("in service", true, |s| {
                (s.in_service, s.cells[0].in_service) = (3, 3)
            }),
            ("message", true, |s| s.message = "3 of 4".into()),
            ("wished for", false, |s| s.cells[0].desired = 4),
            ("lost", false, |s| {
                s.cells[0].lost_since = Some(Time(Timestamp::UNIX_EPOCH))
            }),
            ("a generation", false, |s| s.observed_generation = Some(2)),
            ("a wish", false, |s| {
                s.instances.push(InstanceNote::default())
            }),
        ];
        let before = GroupStatus {
            cells: vec![GroupCellStatus::default()],
            ..GroupStatus::default()
        };
        for (what, waits, change) in cases {
            let mut after = before.clone();
            change(&mut after);
            assert_eq!(only_counts(&before, &after), waits, "{what}");
        }
    }
}
