//! The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use jiff::Timestamp;

use super::plan::{Sized, Step, World};
use crate::model::workload::{Condition, Deployment, DeploymentStatus};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A condition of now.
pub(super) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Condition {
    let now = Timestamp::from_second(now.as_second()).ok();
    Condition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_update_time: now,
        last_transition_time: now,
        ..Condition::default()
    }
}

fn get<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.kind == kind)
}

/// Sets a condition unless it says what it said before; a change of reason alone is no transition.
pub(super) fn set(status: &mut DeploymentStatus, mut new: Condition) {
    if let Some(old) = get(status, &new.kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time;
        }
    }
    status.conditions.retain(|c| c.kind != new.kind);
    status.conditions.push(new);
}

fn deadline(deployment: &Deployment) -> Option<i64> {
    deployment
        .spec
        .progress_deadline_seconds
        .filter(|d| *d != i32::MAX)
        .map(i64::from)
}

/// Notes that a rollout was paused or resumed, so that time on hold does not count as no progress.
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = get(status, PROGRESSING).map(|c| c.reason.as_str());
    if reason == Some(TIMED_OUT) {
        return;
    }
    let was_paused = reason == Some("DeploymentPaused");
    let (reason, message) = match (deployment.spec.paused, was_paused) {
        (true, false) => ("DeploymentPaused", "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    set(
        status,
        condition(PROGRESSING, "Unknown", reason, message.into(), now),
    );
}

/// All replicas are of the newest revision and available, and nothing else is left.
pub(super) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(progress)) = (deadline(deployment), get(status, PROGRESSING)) else {
        return false;
    };
    match progress.reason.as_str() {
        NEW_AVAILABLE => false,
        TIMED_OUT => true,
        _ => progress
            .last_update_time
            .is_some_and(|since| since.as_second() + deadline < now.as_second()),
    }
}

/// Brings the status up to date after a step. `created`: the step makes the new ReplicaSet;
/// `rollout`: it was a step of a rollout, whose progress is then judged.
pub(super) fn after(step: &Step<'_>, created: bool, rollout: bool, status: &mut DeploymentStatus) {
    let deployment = step.world.deployment;
    let now = step.world.now;
    let old = deployment.status.clone();
    let has_deadline = deadline(deployment).is_some();

    if let Some(new) = &step.new
        && has_deadline
    {
        let name = &new.name;
        if created {
            let message = format!("Created new replica set \"{name}\"");
            set(
                status,
                condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now),
            );
        } else if get(status, PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{name}\"");
            set(
                status,
                condition(PROGRESSING, "True", "FoundNewReplicaSet", message, now),
            );
        }
    }
    count(step, status);

    let wanted = step.wanted();
    let available = if status.available_replicas >= wanted - step.max_unavailable() {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
            now,
        )
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".into(),
            now,
        )
    };
    set(status, available);
    if !rollout {
        return;
    }

    if !has_deadline {
        status.conditions.retain(|c| c.kind != PROGRESSING);
    }
    let current = get(status, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason == NEW_AVAILABLE);
    if has_deadline && !was_complete && !created {
        judge(step, &old, current, status);
    }
    let failure = step
        .new
        .iter()
        .chain(&step.old)
        .filter_map(|s| s.set.as_ref())
        .flat_map(|s| &s.status.conditions)
        .find(|c| c.kind == FAILURE);
    match failure {
        Some(failure) => {
            let mut copy = failure.clone();
            copy.last_update_time = failure.last_transition_time;
            set(status, copy);
        }
        None => status.conditions.retain(|c| c.kind != FAILURE),
    }
}

fn judge(
    step: &Step<'_>,
    old: &DeploymentStatus,
    current: Option<Condition>,
    status: &mut DeploymentStatus,
) {
    let deployment = step.world.deployment;
    let now = step.world.now;
    let subject = match &step.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name),
        None => format!("Deployment \"{}\"", deployment.metadata.name),
    };
    if complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(
            status,
            condition(PROGRESSING, "True", NEW_AVAILABLE, message, now),
        );
    } else if progressing(old, status) {
        let message = format!("{subject} is progressing.");
        let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            new.last_transition_time = current.last_transition_time;
        }
        // Replaced even where it says the same: the time of the update is what counts.
        status.conditions.retain(|c| c.kind != PROGRESSING);
        status.conditions.push(new);
    } else if timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set(
            status,
            condition(PROGRESSING, "False", TIMED_OUT, message, now),
        );
    }
}

fn count(step: &Step<'_>, status: &mut DeploymentStatus) {
    let sum = |get: fn(&crate::model::workload::ReplicaSet) -> i32| {
        step.all().map(|s: &Sized| s.status(get)).sum::<i32>()
    };
    status.observed_generation = step.world.deployment.metadata.generation;
    status.replicas = sum(|s| s.status.replicas);
    status.updated_replicas = step
        .new
        .as_ref()
        .map_or(0, |s| s.status(|s| s.status.replicas));
    status.ready_replicas = sum(|s| s.status.ready_replicas);
    status.available_replicas = sum(|s| s.status.available_replicas);
    status.unavailable_replicas = (step.total() - status.available_replicas).max(0);
    // Known only if every ReplicaSet tells it.
    status.terminating_replicas = step
        .all()
        .filter_map(|s| s.set.as_ref())
        .map(|s| s.status.terminating_replicas)
        .sum::<Option<i32>>();
}

/// When the progress deadline is to be looked at again.
pub(super) fn look_again(
    deployment: &Deployment,
    status: &DeploymentStatus,
    world: &World<'_>,
) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let progress = get(status, PROGRESSING)?;
    if deployment.spec.paused
        || complete(deployment, status)
        || matches!(progress.reason.as_str(), TIMED_OUT | NEW_AVAILABLE)
    {
        return None;
    }
    let left = progress.last_update_time?.as_second() + deadline - world.now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1))
}
