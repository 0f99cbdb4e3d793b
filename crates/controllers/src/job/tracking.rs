//! How pods that have ended are counted, each once, and how a Job is told to have ended.
//!
//! [`track`] says what the status is before finalizers are removed, [`settle`] what it is after.

use std::sync::Arc;

use jiff::Timestamp;
use rustc_hash::FxHashSet;

use super::plan::{Action, End, Plan, World, complete, condition, uncounted, valid_index};
use super::policy;
use crate::model::Pod;
use crate::model::batch::{Job, JobStatus};
use crate::model::pod::Phase;
use crate::model::workload::Condition;

/// Pods that wait to be counted, at most: their uids make the status big.
const MOST_UNCOUNTED: usize = 500;

/// How the plan's action went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub created: i32,
    pub deleted: i32,
    /// Those of the deleted that were ready.
    pub deleted_ready: i32,
}

/// What is told in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// The status to write before the finalizers of `release` are removed.
#[derive(Debug, PartialEq)]
pub struct Tracking {
    pub status: JobStatus,
    pub release: Vec<Arc<Pod>>,
    pub told: Vec<Told>,
    /// The uids of the pods that bear the finalizer.
    with_finalizer: FxHashSet<Arc<str>>,
    end: Option<End>,
    /// More pods wait to be counted than one sync does.
    more: bool,
}

pub fn track(world: &World<'_>, plan: &Plan, done: Done) -> Tracking {
    let job = world.job;
    let now = seconds(world.now);
    let mut status = job.status.clone();
    let mut told = Vec::new();
    let active = plan.active + done.created - done.deleted;
    let terminating = plan.terminating + done.deleted;
    if status.start_time.is_none() && !job.spec.suspend {
        status.start_time = Some(now);
    }
    let end = match (&plan.end, &plan.action) {
        // Not all pods are known to be going: the end must wait.
        (Some(_), Action::End(pods))
            if !world.settled || usize::try_from(done.deleted) != Ok(pods.len()) =>
        {
            None
        }
        (Some(end), _) => Some(end.clone()),
        (None, _) => complete(job, plan, active),
    };
    if plan.managed && end.is_none() {
        suspended(job, &mut status, now, &mut told);
    }
    status.active = active;
    status.ready = Some(plan.ready - done.deleted_ready);
    status.terminating = Some(terminating);

    let with_finalizer: FxHashSet<Arc<str>> = world
        .pods
        .iter()
        .filter(|p| uncounted(world.released, p))
        .map(|p| p.meta.uid.clone())
        .collect();
    move_counted(&mut status, &with_finalizer);
    let (release, more) = count(world, plan, end.as_ref(), &mut status);
    if let Some(end) = &end {
        let kind = if end.success {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        };
        if condition(&status.conditions, kind).is_none_or(|c| c.status != "True") {
            set(&mut status.conditions, kind, true, end, now);
        }
    }
    Tracking {
        status,
        release,
        told,
        with_finalizer,
        end,
        more,
    }
}

/// Tells in the conditions, and in an event, that a Job was suspended or resumed.
fn suspended(job: &Job, status: &mut JobStatus, now: Timestamp, told: &mut Vec<Told>) {
    if job.spec.suspend {
        // The deadline is about the time that a Job is active in one go: what is resumed starts
        // anew. The API takes another start only while the Job is suspended.
        status.start_time = None;
    }
    let (reason, message) = if job.spec.suspend {
        ("Suspended", "Job suspended")
    } else {
        ("Resumed", "Job resumed")
    };
    let because = End {
        success: false,
        reason: format!("Job{reason}"),
        message: message.into(),
    };
    if !set(
        &mut status.conditions,
        "Suspended",
        job.spec.suspend,
        &because,
        now,
    ) {
        return;
    }
    told.push(Told {
        warning: false,
        reason: reason.into(),
        message: message.into(),
    });
}

/// Writes to the status which pods have ended, and says which may lose their finalizer.
fn count(
    world: &World<'_>,
    plan: &Plan,
    end: Option<&End>,
    status: &mut JobStatus,
) -> (Vec<Arc<Pod>>, bool) {
    let job = world.job;
    let policy = job.spec.pod_failure_policy.as_ref();
    let listed = |uids: &[String]| -> FxHashSet<Arc<str>> {
        uids.iter().map(|uid| Arc::from(uid.as_str())).collect()
    };
    let before = &job.status.uncounted_terminated_pods;
    let (listed_succeeded, listed_failed) = (listed(&before.succeeded), listed(&before.failed));
    let mut pods: Vec<&Arc<Pod>> = world
        .pods
        .iter()
        .filter(|p| uncounted(world.released, p))
        .collect();
    if job.indexed() {
        pods.sort_by_key(|p| valid_index(job, p));
    }
    let mut release = Vec::new();
    let mut new_indexes = 0;
    let mut more = false;
    for pod in pods {
        let failed = policy::failed(job, pod);
        let over = job.metadata.deleted.is_some() || end.is_some();
        if !over && pod.phase != Phase::Succeeded && (!failed || is_kept(plan, job, pod)) {
            continue;
        }
        release.push(pod.clone());
        let index = valid_index(job, pod);
        let uid = &pod.meta.uid;
        let to_count = &mut status.uncounted_terminated_pods;
        if pod.phase == Phase::Succeeded && !listed_failed.contains(uid) {
            if job.indexed() {
                // The index is enough to not count it again.
                let new = index.is_some_and(|i| !plan.completed_before.contains(i));
                new_indexes += usize::from(new);
            } else if !listed_succeeded.contains(uid) {
                to_count.succeeded.push(uid.to_string());
            }
        } else if (failed || end.is_some_and(|e| !e.success))
            && !listed_failed.contains(uid)
            && (!job.indexed() || index.is_some())
            && policy::judge(policy, pod).counts()
        {
            to_count.failed.push(uid.to_string());
        }
        if new_indexes + to_count.succeeded.len() + to_count.failed.len() >= MOST_UNCOUNTED {
            more = true;
            break;
        }
    }
    if job.indexed() {
        status.succeeded = i32::try_from(plan.completed.total()).unwrap_or(i32::MAX);
        status.completed_indexes = plan.completed.to_string();
        status.failed_indexes = plan.failed_indexes.as_ref().map(ToString::to_string);
    }
    (release, more)
}

fn is_kept(plan: &Plan, job: &Job, pod: &Pod) -> bool {
    valid_index(job, pod)
        .and_then(|index| plan.kept.get(&index))
        .is_some_and(|kept| kept.meta.uid == pod.meta.uid)
}

/// Pods that have lost their finalizer move from the list to the counter.
fn move_counted(status: &mut JobStatus, with_finalizer: &FxHashSet<Arc<str>>) {
    let take = |uids: &mut Vec<String>| {
        let before = uids.len();
        uids.retain(|uid| with_finalizer.contains(uid.as_str()));
        i32::try_from(before - uids.len()).unwrap_or(i32::MAX)
    };
    let listed = &mut status.uncounted_terminated_pods;
    status.succeeded = status.succeeded.saturating_add(take(&mut listed.succeeded));
    status.failed = status.failed.saturating_add(take(&mut listed.failed));
}

/// The status after finalizers were removed from `released`, and what to tell if the Job has now
/// ended. `all`: from every pod that was to lose it.
pub fn settle(
    job: &Job,
    tracking: &Tracking,
    released: &[Arc<str>],
    all: bool,
    now: Timestamp,
) -> (JobStatus, Vec<Told>) {
    let now = seconds(now);
    let mut status = tracking.status.clone();
    let mut left = tracking.with_finalizer.clone();
    for uid in released {
        left.remove(uid);
    }
    move_counted(&mut status, &left);
    let waits = &status.uncounted_terminated_pods;
    let counted = waits.succeeded.is_empty() && waits.failed.is_empty();
    let Some(end) = tracking
        .end
        .as_ref()
        .filter(|_| all && !tracking.more && counted && status.terminating.unwrap_or(0) == 0)
    else {
        return (status, Vec::new());
    };
    let kind = if end.success { "Complete" } else { "Failed" };
    set(&mut status.conditions, kind, true, end, now);
    let tell = |warning, reason: &str, message: &str| Told {
        warning,
        reason: reason.into(),
        message: message.into(),
    };
    let mut told = Vec::new();
    if end.success {
        status.completion_time = Some(now);
        if job.spec.completions.is_some_and(|n| status.succeeded > n) {
            told.push(tell(
                true,
                "TooManySucceededPods",
                "Too many succeeded pods running after completion count reached",
            ));
        }
        told.push(tell(false, "Completed", "Job completed"));
    } else {
        told.push(tell(true, &end.reason, &end.message));
    }
    (status, told)
}

/// The API's times are whole seconds.
pub fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Sets a condition; whether that changes anything. One that is not there is not false either.
fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    holds: bool,
    because: &End,
    now: Timestamp,
) -> bool {
    let new = Condition {
        kind: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        last_probe_time: Some(now),
        last_transition_time: Some(now),
        reason: because.reason.clone(),
        message: because.message.clone(),
        ..Condition::default()
    };
    match conditions.iter_mut().find(|c| c.kind == kind) {
        Some(old) => {
            let same = (&old.status, &old.reason, &old.message)
                == (&new.status, &new.reason, &new.message);
            if !same {
                *old = new;
            }
            !same
        }
        None => {
            if holds {
                conditions.push(new);
            }
            holds
        }
    }
}
