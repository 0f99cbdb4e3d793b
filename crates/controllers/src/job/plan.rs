//! The planner of a Job: what its pods amount to, whether it is over, and which pods to create or
//! to delete. What is written and counted in consequence is the business of [`super::tracking`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashSet;

use super::backoff::{self, Backoff, finished_at};
use super::indexes::Indexes;
use super::policy::{self, Verdict, only_replace_failed};
use crate::model::Pod;
use crate::model::batch::Job;
use crate::model::pod::{
    COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, Phase, TRACKING,
};
use crate::model::workload::Condition;

/// Pods one sync creates or deletes at most.
const BURST: usize = 500;
/// A replacement that waits is looked at no sooner than this.
const SOONEST: Duration = Duration::from_secs(1);

/// What a sync looks at.
pub struct World<'a> {
    pub job: &'a Job,
    pub pods: &'a [Arc<Pod>],
    /// Pods whose finalizer has been removed already, though the cache may not show it.
    pub released: &'a FxHashSet<Arc<str>>,
    /// The cache shows all pods that were created and deleted for this Job.
    pub settled: bool,
    pub backoff: &'a Backoff,
    /// How long is waited after a first failure.
    pub first_wait: Duration,
    pub now: Timestamp,
}

/// How a Job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub success: bool,
    pub reason: String,
    pub message: String,
}

/// What is to be done to pods.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    None,
    /// The Job is over: these are told to go, and keep their finalizer until they are counted.
    End(Vec<Arc<Pod>>),
    /// Too many, or the Job is suspended: these go and do not count.
    Remove(Vec<Arc<Pod>>),
    Create(Vec<NewPod>),
}

/// A pod to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPod {
    pub index: Option<u32>,
    /// Where the Job has a limit per index: how many pods failed for this index, and how many more
    /// did so that do not count.
    pub failures: Option<(u32, u32)>,
}

/// What the pods of a Job amount to, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub active: i32,
    pub ready: i32,
    pub terminating: i32,
    pub succeeded: i32,
    /// Indexes that were counted before, and those with what has succeeded since.
    pub completed_before: Indexes,
    pub completed: Indexes,
    /// There only with a limit per index.
    pub failed_indexes: Option<Indexes>,
    /// Failed pods that stay until their replacement has taken over their count of failures.
    pub kept: BTreeMap<u32, Arc<Pod>>,
    pub backoff: Backoff,
    pub end: Option<End>,
    /// The planner decided about pods, so that what `suspend` says can be told as done.
    pub managed: bool,
    pub action: Action,
    /// Look again after this long at the latest.
    pub after: Option<Duration>,
}

impl Plan {
    fn look_again(&mut self, after: Duration) {
        self.after = Some(self.after.map_or(after, |before| before.min(after)));
    }
}

/// `spec.completions` as a bound of indexes.
pub fn bound(job: &Job) -> u32 {
    job.spec
        .completions
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(0)
}

fn annotation<T: std::str::FromStr>(pod: &Pod, name: &str) -> Option<T> {
    pod.meta.annotations.get(name)?.parse().ok()
}

/// The index that a pod works on.
pub fn index_of(pod: &Pod) -> Option<u32> {
    annotation(pod, COMPLETION_INDEX)
}

/// The index that a pod works on, if the Job has it.
pub fn valid_index(job: &Job, pod: &Pod) -> Option<u32> {
    index_of(pod).filter(|index| *index < bound(job))
}

fn failures_of(pod: &Pod) -> (u32, u32) {
    (
        annotation(pod, INDEX_FAILURES).unwrap_or(0),
        annotation(pod, INDEX_IGNORED_FAILURES).unwrap_or(0),
    )
}

fn all_failures_of(pod: &Pod) -> u32 {
    let (counted, ignored) = failures_of(pod);
    counted.saturating_add(ignored)
}

/// The finalizer is on the pod, and this controller has not removed it.
pub fn uncounted(released: &FxHashSet<Arc<str>>, pod: &Pod) -> bool {
    pod.meta.has_finalizer(TRACKING) && !released.contains(&pod.meta.uid)
}

pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

fn standing<'a>(job: &'a Job, kind: &str) -> Option<&'a Condition> {
    condition(&job.status.conditions, kind).filter(|c| c.status == "True")
}

fn number(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

pub fn plan(world: &World<'_>) -> Plan {
    let job = world.job;
    let (spec, status) = (&job.spec, &job.status);
    let active: Vec<Arc<Pod>> = world.pods.iter().filter(|p| p.active()).cloned().collect();
    let new = |uncounted_uids: &[String], wanted: &dyn Fn(&Pod) -> bool| -> Vec<Arc<Pod>> {
        let listed: FxHashSet<&str> = uncounted_uids.iter().map(String::as_str).collect();
        let fresh = |p: &&Arc<Pod>| {
            uncounted(world.released, p)
                && !listed.contains(&*p.meta.uid)
                && (!job.indexed() || valid_index(job, p).is_some())
                && wanted(p)
        };
        world.pods.iter().filter(fresh).cloned().collect()
    };
    let listed = &status.uncounted_terminated_pods;
    let new_succeeded = new(&listed.succeeded, &|p| p.phase == Phase::Succeeded);
    let new_failed = new(&listed.failed, &|p| policy::failed(job, p));
    let counted_failures = new_failed
        .iter()
        .filter(|p| policy::judge(spec.pod_failure_policy.as_ref(), p).counts())
        .count();
    let failed = status.failed + number(counted_failures + listed.failed.len());

    let mut plan = Plan {
        active: number(active.len()),
        ready: number(active.iter().filter(|p| p.ready).count()),
        terminating: number(
            world
                .pods
                .iter()
                .filter(|p| p.terminating() && !p.finished())
                .count(),
        ),
        succeeded: status.succeeded + number(new_succeeded.len() + listed.succeeded.len()),
        completed_before: Indexes::default(),
        completed: Indexes::default(),
        failed_indexes: None,
        kept: BTreeMap::new(),
        backoff: world.backoff.with(&new_succeeded, &new_failed),
        end: decided(world).or_else(|| over_limits(world, failed)),
        managed: false,
        action: Action::None,
        after: None,
    };
    if job.indexed() {
        weigh_indexes(world, &active, &mut plan);
    }
    if plan.end.is_some() {
        plan.action = Action::End(active);
        return plan;
    }
    if let Some(left) = deadline(world).filter(|left| !left.is_zero()) {
        plan.look_again(left);
    }
    if world.settled && job.metadata.deleted.is_none() {
        plan.managed = true;
        manage(world, &active, &mut plan);
    }
    plan
}

/// Whether the Job has reached what it was for, given the pods that are active after the plan's
/// action was carried out.
pub fn complete(job: &Job, plan: &Plan, active: i32) -> Option<End> {
    let enough = match job.spec.completions {
        // One success ends the Job, once the other pods have ended too.
        None => plan.succeeded > 0,
        Some(completions) => plan.succeeded >= completions,
    };
    (plan.end.is_none() && enough && active == 0).then(|| End {
        success: true,
        reason: "CompletionsReached".into(),
        message: "Reached expected number of succeeded pods".into(),
    })
}

fn fail(reason: &str, message: &str) -> End {
    End {
        success: false,
        reason: reason.into(),
        message: message.into(),
    }
}

/// An end that is written in the status already, or that a failed pod brings by the failure policy.
fn decided(world: &World<'_>) -> Option<End> {
    let job = world.job;
    for (kind, success) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
        if let Some(condition) = standing(job, kind) {
            return Some(End {
                success,
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            });
        }
    }
    let policy = job.spec.pod_failure_policy.as_ref()?;
    let mut failed = world.pods.iter().filter(|p| policy::failed(job, p));
    failed.find_map(|pod| match policy::judge(Some(policy), pod) {
        Verdict::FailJob(message) => Some(fail("PodFailurePolicy", &message)),
        _ => None,
    })
}

fn over_limits(world: &World<'_>, failed: i32) -> Option<End> {
    let limit = world.job.spec.backoff_limit.unwrap_or(6);
    if failed > limit || restarts_over(world, limit) {
        return Some(fail(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ));
    }
    deadline(world).filter(Duration::is_zero).map(|_| {
        fail(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )
    })
}

/// Pods that restart their containers do not fail: their restarts count instead.
fn restarts_over(world: &World<'_>, limit: i32) -> bool {
    let template = &world.job.spec.template;
    if template
        .pointer("/spec/restartPolicy")
        .and_then(|p| p.as_str())
        != Some("OnFailure")
    {
        return false;
    }
    let restarts: i32 = world
        .pods
        .iter()
        .filter(|p| matches!(p.phase, Phase::Running | Phase::Pending))
        .filter_map(|p| Some(p.tracked.as_ref()?.restarts))
        .fold(0, i32::saturating_add);
    if limit == 0 {
        restarts > 0
    } else {
        restarts >= limit
    }
}

/// How long the Job may still be active; zero if its time is over.
fn deadline(world: &World<'_>) -> Option<Duration> {
    let job = world.job;
    let seconds = job.spec.active_deadline_seconds?;
    if job.spec.suspend {
        return None;
    }
    let start = job.status.start_time.unwrap_or(world.now);
    let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let passed = Duration::try_from(world.now.duration_since(start)).unwrap_or(Duration::ZERO);
    Some(allowed.saturating_sub(passed))
}

/// Which indexes have succeeded and failed, and whether that ends the Job.
fn weigh_indexes(world: &World<'_>, active: &[Arc<Pod>], plan: &mut Plan) {
    let job = world.job;
    let completions = bound(job);
    plan.completed_before = Indexes::parse(&job.status.completed_indexes, completions);
    let uncounted_pods = || world.pods.iter().filter(|p| uncounted(world.released, p));
    let succeeded = uncounted_pods()
        .filter(|p| p.phase == Phase::Succeeded)
        .filter_map(|p| valid_index(job, p));
    plan.completed = plan.completed_before.with(succeeded);
    plan.succeeded = number(plan.completed.total());
    if let Some(limit) = job.spec.backoff_limit_per_index {
        let before = job.status.failed_indexes.as_deref().unwrap_or_default();
        let failed = uncounted_pods()
            .filter(|p| index_fails(job, p, limit))
            .filter_map(|p| valid_index(job, p));
        let failed = Indexes::parse(before, completions).with(failed);
        if plan.end.is_none() {
            let most = job.spec.max_failed_indexes;
            let (bad, good) = (number(failed.total()), plan.succeeded);
            if most.is_some_and(|most| bad > most) {
                plan.end = Some(fail(
                    "MaxFailedIndexesExceeded",
                    "Job has exceeded the specified maximal number of failed indexes",
                ));
            } else if bad > 0
                && bad.saturating_add(good) >= job.spec.completions.unwrap_or(i32::MAX)
            {
                plan.end = Some(fail("FailedIndexes", "Job has failed indexes"));
            }
        }
        plan.kept = kept(world, active, &plan.completed, &failed);
        plan.failed_indexes = Some(failed);
    }
    if plan.end.is_none()
        && let Some(policy) = &job.spec.success_policy
        && let Some(message) = policy::enough(policy, &plan.completed, completions)
    {
        plan.end = Some(End {
            success: true,
            reason: "SuccessPolicy".into(),
            message,
        });
    }
}

/// Whether the failure of this pod is the last that its index may have.
fn index_fails(job: &Job, pod: &Pod, limit: i32) -> bool {
    if !policy::failed(job, pod) {
        return false;
    }
    match policy::judge(job.spec.pod_failure_policy.as_ref(), pod) {
        Verdict::FailIndex => true,
        verdict => verdict.counts() && i64::from(failures_of(pod).0) >= i64::from(limit),
    }
}

/// The last failed pod of each index that is to be tried again: it knows how many failed before.
fn kept(
    world: &World<'_>,
    active: &[Arc<Pod>],
    completed: &Indexes,
    failed: &Indexes,
) -> BTreeMap<u32, Arc<Pod>> {
    let job = world.job;
    let running: BTreeSet<u32> = active.iter().filter_map(|p| index_of(p)).collect();
    let mut kept: BTreeMap<u32, Arc<Pod>> = BTreeMap::new();
    for pod in world.pods {
        let Some(index) = valid_index(job, pod) else {
            continue;
        };
        let done = completed.contains(index) || failed.contains(index) || running.contains(&index);
        if done || !uncounted(world.released, pod) || !policy::failed(job, pod) {
            continue;
        }
        let later = |other: &Arc<Pod>| {
            all_failures_of(other) <= all_failures_of(pod) && finished_at(pod) >= finished_at(other)
        };
        if kept.get(&index).is_none_or(later) {
            kept.insert(index, pod.clone());
        }
    }
    kept
}

/// Which pods to create or delete so that as many run as should.
fn manage(world: &World<'_>, active: &[Arc<Pod>], plan: &mut Plan) {
    let spec = &world.job.spec;
    if spec.suspend {
        if !active.is_empty() {
            plan.action = Action::Remove(active.to_vec());
        }
        return;
    }
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let wanted = match spec.completions {
        None if plan.succeeded > 0 => active.len(),
        None => parallelism,
        Some(completions) => usize::try_from(completions.saturating_sub(plan.succeeded))
            .unwrap_or(0)
            .min(parallelism),
    };
    let mut surplus = surplus(world.job, active, active.len().saturating_sub(wanted));
    surplus.truncate(BURST);
    if !surplus.is_empty() {
        plan.action = Action::Remove(surplus);
        return;
    }
    let replace_failed_only = only_replace_failed(world.job);
    let leaving = if replace_failed_only {
        usize::try_from(plan.terminating).unwrap_or(0)
    } else {
        0
    };
    let missing = wanted.saturating_sub(active.len() + leaving).min(BURST);
    if missing == 0 {
        return;
    }
    let per_index = spec.backoff_limit_per_index.is_some();
    if !per_index {
        let wait = plan.backoff.wait(world.first_wait, world.now);
        if !wait.is_zero() {
            plan.look_again(wait.max(SOONEST));
            return;
        }
    }
    let pods: Vec<NewPod> = if world.job.indexed() {
        let mut taken = plan.completed.clone();
        if let Some(failed) = &plan.failed_indexes {
            taken = taken.union(failed);
        }
        let holds =
            |p: &&Arc<Pod>| p.active() || (replace_failed_only && p.terminating() && !p.finished());
        let held = world.pods.iter().filter(holds).filter_map(|p| index_of(p));
        let pending = taken.with(held).first_absent(missing, bound(world.job));
        if per_index {
            ripe(world, pending, plan)
        } else {
            let new = |index| NewPod {
                index: Some(index),
                failures: None,
            };
            pending.into_iter().map(new).collect()
        }
    } else {
        vec![NewPod::default(); missing]
    };
    if !pods.is_empty() {
        plan.action = Action::Create(pods);
    }
}

/// Of the indexes that miss a pod those that need not wait any longer.
fn ripe(world: &World<'_>, pending: Vec<u32>, plan: &mut Plan) -> Vec<NewPod> {
    let mut pods = Vec::new();
    let mut soonest: Option<Duration> = None;
    for index in pending {
        let last = plan.kept.get(&index);
        let wait = last.map_or(Duration::ZERO, |pod| {
            let failures = all_failures_of(pod).saturating_add(1);
            backoff::wait(world.first_wait, failures, finished_at(pod), world.now)
        });
        if wait.is_zero() {
            let policy = world.job.spec.pod_failure_policy.as_ref();
            let failures = last.map_or((0, 0), |pod| {
                let (counted, ignored) = failures_of(pod);
                if policy::judge(policy, pod).counts() {
                    (counted.saturating_add(1), ignored)
                } else {
                    (counted, ignored.saturating_add(1))
                }
            });
            pods.push(NewPod {
                index: Some(index),
                failures: Some(failures),
            });
        } else {
            soonest = Some(soonest.map_or(wait, |s| s.min(wait)));
        }
    }
    if let Some(wait) = soonest {
        plan.look_again(wait.max(SOONEST));
    }
    pods
}

/// Active pods that must go: those without an index that the Job has, all but one of an index, and
/// as many more as it takes, those first that are least missed.
fn surplus(job: &Job, active: &[Arc<Pod>], at_least: usize) -> Vec<Arc<Pod>> {
    let mut pods = active.to_vec();
    pods.sort_by_cached_key(|pod| {
        let phase = match pod.phase {
            Phase::Pending | Phase::None => 0,
            Phase::Unknown => 1,
            _ => 2,
        };
        let since = pod.ready_since.filter(|_| pod.ready);
        (
            (pod.node.is_some(), phase, pod.ready),
            (
                Reverse(since),
                Reverse(pod.restarts),
                Reverse(pod.meta.created),
            ),
        )
    });
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    if job.indexed() {
        let mut best: BTreeMap<u32, Arc<Pod>> = BTreeMap::new();
        for pod in &pods {
            match valid_index(job, pod) {
                Some(index) => gone.extend(best.insert(index, pod.clone())),
                None => gone.push(pod.clone()),
            }
        }
        left.extend(pods.into_iter().filter(|pod| {
            index_of(pod)
                .and_then(|index| best.get(&index))
                .is_some_and(|b| Arc::ptr_eq(b, pod))
        }));
    } else {
        left = pods;
    }
    let more = at_least.saturating_sub(gone.len());
    gone.extend(left.into_iter().take(more));
    gone
}
