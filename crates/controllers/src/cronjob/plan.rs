//! The planner of a CronJob: whether a Job is due, which of its Jobs to delete, and the status.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustc_hash::FxHashSet;

use super::schedule::{NoTimes, Times};
use crate::model::batch::{CronJob, CronJobStatus, Job, Reference};

/// A sync comes a little late rather than early: clocks differ.
const LATE: Duration = Duration::from_millis(100);
/// So many missed times are worth a warning.
const MANY: i64 = 100;

pub struct World<'a> {
    pub cron: &'a CronJob,
    /// The Jobs that it controls.
    pub jobs: &'a [Arc<Job>],
    /// Uids of active Jobs that are no longer there, by the API server's own word.
    pub gone: &'a FxHashSet<String>,
    pub now: Timestamp,
}

/// What is told in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

fn normal(reason: &'static str, message: String) -> Told {
    Told {
        warning: false,
        reason,
        message,
    }
}

fn warning(reason: &'static str, message: String) -> Told {
    Told {
        warning: true,
        ..normal(reason, message)
    }
}

/// A Job to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub at: Timestamp,
    pub name: String,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The status, before what is started.
    pub status: CronJobStatus,
    pub told: Vec<Told>,
    /// Active Jobs that make way for the one that is started.
    pub replace: Vec<Reference>,
    pub start: Option<Start>,
    /// Jobs that have finished and are beyond the limits of history.
    pub forget: Vec<Arc<Job>>,
    pub after: Option<Duration>,
}

pub fn plan(world: &World<'_>) -> Plan {
    let mut plan = Plan {
        status: world.cron.status.clone(),
        ..Plan::default()
    };
    look_at_jobs(world, &mut plan);
    if world.cron.metadata.deleted.is_none() {
        schedule(world, &mut plan);
    }
    plan.forget = beyond_history(world);
    plan
}

/// What has become of the Jobs.
fn look_at_jobs(world: &World<'_>, plan: &mut Plan) {
    for job in world.jobs {
        let (name, uid) = (&job.metadata.name, &job.metadata.uid);
        let active = |status: &CronJobStatus| status.active.iter().any(|r| *r.uid == **uid);
        let Some(end) = job.finished() else {
            if !active(&plan.status) {
                plan.told.push(warning(
                    "UnexpectedJob",
                    format!("Saw a job that the controller did not create or forgot: {name}"),
                ));
            }
            continue;
        };
        if active(&plan.status) {
            plan.status.active.retain(|r| *r.uid != **uid);
            plan.told.push(normal(
                "SawCompletedJob",
                format!("Saw completed job: {name}, condition: {}", end.kind),
            ));
        }
        if end.kind == "Complete" {
            let last = &mut plan.status.last_successful_time;
            *last = (*last).max(job.status.completion_time);
        }
    }
    let gone = |r: &Reference| world.gone.contains(&r.uid);
    for reference in plan.status.active.iter().filter(|r| gone(r)) {
        plan.told.push(normal(
            "MissingJob",
            format!("Active job went missing: {}", reference.name),
        ));
    }
    plan.status.active.retain(|r| !gone(r));
}

fn schedule(world: &World<'_>, plan: &mut Plan) {
    let (cron, now) = (world.cron, world.now);
    let spec = &cron.spec;
    let times = match Times::of(spec) {
        Ok(times) => times,
        Err(error @ NoTimes::Zone { .. }) => {
            plan.told
                .push(warning("UnknownTimeZone", error.to_string()));
            return;
        }
        Err(_) if spec.suspend => return,
        Err(error) => {
            plan.told
                .push(warning("UnparseableSchedule", error.to_string()));
            return;
        }
    };
    if spec.suspend {
        return;
    }
    if spec.schedule.contains("TZ") {
        let schedule = &spec.schedule;
        plan.told.push(warning(
            "UnsupportedSchedule",
            format!("CRON_TZ or TZ used in schedule {schedule:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"),
        ));
    }
    plan.after = next_look(cron, &times, now);
    let recent = match recent(cron, &times, now, true) {
        Ok(recent) => recent,
        Err(why) => {
            plan.after = None;
            let schedule = &spec.schedule;
            plan.told.push(warning(
                "InvalidSchedule",
                format!("invalid schedule: {schedule} : {why}"),
            ));
            return;
        }
    };
    let Some(due) = recent.due else {
        return;
    };
    if recent.missed > MANY {
        plan.told.push(warning(
            "TooManyMissedTimes",
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew".into(),
        ));
    }
    let too_late = spec
        .starting_deadline_seconds
        .and_then(|seconds| due.checked_add(SignedDuration::from_secs(seconds)).ok())
        .is_some_and(|until| until < now);
    if too_late {
        let due = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
        plan.told.push(warning(
            "MissSchedule",
            format!("Missed scheduled time to start a job: {due}"),
        ));
        return;
    }
    let name = job_name(cron, due);
    let started = cron.status.last_schedule_time == Some(due)
        || plan.status.active.iter().any(|r| r.name == name);
    if started {
        return;
    }
    match spec.concurrency_policy.as_str() {
        "Forbid" if !plan.status.active.is_empty() => {
            plan.told.push(normal(
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is Forbid".into(),
            ));
            return;
        }
        "Replace" => plan.replace = std::mem::take(&mut plan.status.active),
        _ => {}
    }
    plan.start = Some(Start { at: due, name });
}

/// The Job of one time has one name, so that it is not created twice.
fn job_name(cron: &CronJob, at: Timestamp) -> String {
    let minute = at.as_second().div_euclid(60);
    format!("{}-{minute}", cron.metadata.name)
}

/// What the schedule says of the time since the last Job was started.
struct Recent {
    earliest: Timestamp,
    /// The last time that has come.
    due: Option<Timestamp>,
    /// About how many have.
    missed: i64,
}

fn recent(
    cron: &CronJob,
    times: &Times,
    now: Timestamp,
    with_deadline: bool,
) -> Result<Recent, &'static str> {
    let mut earliest = cron
        .status
        .last_schedule_time
        .or(cron.metadata.created)
        .unwrap_or(now);
    if let Some(seconds) = cron
        .spec
        .starting_deadline_seconds
        .filter(|_| with_deadline)
        && let Ok(bound) = now.checked_sub(SignedDuration::from_secs(seconds))
    {
        // Nothing before it will be started.
        earliest = earliest.max(bound);
    }
    // A schedule without times, as of 31 February, comes here too.
    const NO_TIMES: &str = "time difference between two schedules is less than 1 second";
    let first = times.next(earliest).ok_or(NO_TIMES)?;
    let mut recent = Recent {
        earliest,
        due: None,
        missed: 0,
    };
    if now < first {
        return Ok(recent);
    }
    let Some(second) = times.next(first).filter(|second| *second <= now) else {
        recent.due = Some(first);
        return Ok(recent);
    };
    let apart = second.as_second() - first.as_second();
    if apart < 1 {
        return Err(NO_TIMES);
    }
    // By the distance of the first two: an estimate, since a cluster that was away for a year
    // should not count the minutes of it.
    recent.missed = (now.as_second() - first.as_second()) / apart + 1;
    let skipped = SignedDuration::from_secs((recent.missed - 2).saturating_mul(apart));
    let mut from = first.checked_add(skipped).unwrap_or(first);
    while let Some(at) = times.next(from).filter(|at| *at <= now) {
        recent.due = Some(at);
        from = at;
    }
    Ok(recent)
}

/// When to look again for the next time.
pub fn next_look(cron: &CronJob, times: &Times, now: Timestamp) -> Option<Duration> {
    let from = match recent(cron, times, now, false) {
        Err(_) => now,
        Ok(Recent { due: Some(due), .. }) => due,
        Ok(Recent {
            missed: 0,
            earliest,
            ..
        }) => earliest,
        Ok(_) => now,
    };
    let wait = times.next(from)?.duration_since(now);
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO) + LATE)
}

/// Finished Jobs beyond the number to keep, the oldest first.
fn beyond_history(world: &World<'_>) -> Vec<Arc<Job>> {
    let spec = &world.cron.spec;
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    let mut beyond = Vec::new();
    for (kind, limit) in limits {
        let Some(limit) = limit else { continue };
        let mut jobs: Vec<&Arc<Job>> = world
            .jobs
            .iter()
            .filter(|job| job.finished().is_some_and(|end| end.kind == kind))
            .collect();
        // One that never started comes last.
        jobs.sort_by_key(|job| {
            let start = job.status.start_time;
            (start.is_none(), start, job.metadata.name.clone())
        });
        let surplus = jobs
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        beyond.extend(jobs.into_iter().take(surplus).cloned());
    }
    beyond
}
