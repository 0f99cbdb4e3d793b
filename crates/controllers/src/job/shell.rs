//! The shell of the Job controller.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::plan::{self, Action, NewPod, Plan, World};
use super::pods;
use super::release::{Orphans, Released, remove_finalizer};
use super::tracking::{self, Done, Told};
use crate::model::batch::{Job, JobStatus};
use crate::model::meta::MetaOnly;
use crate::model::pod::TRACKING;
use crate::model::{JOBS, Key, PODS, Pod};
use crate::ownership;
use crate::runtime::api::{Deletion, or_null};
use crate::runtime::controller::{self, slow_start, together};
use crate::runtime::{ApiError, Context, Controller, Expectations, Outcome, Queue};

const COMPONENT: &str = "job-controller";

struct Jobs {
    context: Context,
    expectations: Arc<Expectations>,
    released: Arc<Released>,
    backoffs: Mutex<FxHashMap<Key, Backoff>>,
}

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let orphan_queue = Arc::new(Queue::default());
    let expectations = Arc::new(Expectations::default());
    let released = Arc::new(Released::default());
    let informers = &context.informers;
    {
        let (queue, orphans, expectations) =
            (queue.clone(), orphan_queue.clone(), expectations.clone());
        let pods = informers.pods.clone();
        informers.jobs.on_change(move |old, new| {
            let over = match (old, new) {
                (Some(old), None) => {
                    expectations.forget(&old.metadata.key());
                    Some(old)
                }
                (_, new) => new.filter(|job| job.finished().is_some()),
            };
            for pod in over
                .into_iter()
                .flat_map(|job| pods.indexed(&job.metadata.uid))
            {
                if pod.meta.has_finalizer(TRACKING) {
                    orphans.add(pod.meta.key());
                }
            }
            if let Some(job) = new.or(old) {
                queue.add(job.metadata.key());
            }
        });
    }
    {
        let (queue, orphans, expectations, released) = (
            queue.clone(),
            orphan_queue.clone(),
            expectations.clone(),
            released.clone(),
        );
        let (jobs, pods) = (informers.jobs.clone(), informers.pods.clone());
        informers.pods.on_change(move |old, new| {
            note_release(&released, old, new);
            if let Some(pod) = new.filter(|pod| pod.meta.has_finalizer(TRACKING))
                && !counted_by_a_job(pod, |job| {
                    jobs.get(job)
                        .filter(|job| job.finished().is_none())
                        .map(|job| job.metadata.uid.clone())
                })
            {
                orphans.add(pod.meta.key());
            }
            ownership::pod_changed(&JOBS, &pods, &queue, &expectations, old, new, |orphan| {
                for job in jobs.in_namespace(&orphan.meta.namespace) {
                    let selector = &job.spec.selector;
                    if !selector.is_empty() && selector.matches(&orphan.meta.labels) {
                        queue.add(job.metadata.key());
                    }
                }
            });
        });
    }
    let orphans = Arc::new(Orphans {
        context: context.clone(),
    });
    let controller = Arc::new(Jobs {
        context: context.clone(),
        expectations,
        released,
        backoffs: Mutex::default(),
    });
    let stop = context.stop.clone();
    move |tasks| {
        controller::spawn(controller, &queue, workers, tasks, &stop);
        controller::spawn(orphans, &orphan_queue, workers, tasks, &stop);
    }
}

fn job_of(pod: &Pod) -> Option<(Key, &str)> {
    let owner = pod.meta.controller()?;
    let of_a_job = *owner.kind == *JOBS.kind && *owner.api_version == *JOBS.api_version();
    let key = Key {
        namespace: pod.meta.namespace.clone(),
        name: owner.name.clone(),
    };
    of_a_job.then_some((key, &*owner.uid))
}

/// Whether the pod is owned, by a Job that has not finished or by something else; `job` is the uid
/// of such a Job.
fn counted_by_a_job(pod: &Pod, job: impl FnOnce(&Key) -> Option<Arc<str>>) -> bool {
    match job_of(pod) {
        Some((key, uid)) => job(&key).is_some_and(|job| *job == *uid),
        None => pod.meta.controller().is_some(),
    }
}

/// The cache shows a pod without the finalizer, or no longer shows it.
fn note_release(released: &Released, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
    if new.is_some_and(|pod| pod.meta.has_finalizer(TRACKING)) {
        return;
    }
    for pod in old.into_iter().chain(new) {
        if let Some((job, _)) = job_of(pod) {
            released.seen(&job, &pod.meta.uid);
        }
    }
}

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(job) = informers.jobs.get(key) else {
            self.backoffs.lock().remove(key);
            self.expectations.forget(key);
            self.released.forget(key);
            return Ok(Outcome::Done);
        };
        if job.finished().is_some() {
            self.backoffs.lock().remove(key);
            return Ok(Outcome::Done);
        }
        if job.managed_elsewhere() || job.spec.selector.is_empty() {
            return Ok(Outcome::Done);
        }
        // Before the pods are read: one that appears in between is seen by the next sync.
        let settled = self.expectations.satisfied(key);
        let released = self.released.of(key);
        let pods = ownership::claim_with(
            &self.context.api,
            &informers.pods,
            &JOBS,
            &job.metadata,
            &job.spec.selector,
            |_: &Pod| true,
            &[TRACKING],
        )
        .await?;
        let backoff = self.backoffs.lock().get(key).cloned().unwrap_or_default();
        let world = World {
            job: &job,
            pods: &pods,
            released: &released,
            settled,
            backoff: &backoff,
            first_wait: self.context.job_backoff,
            now: Timestamp::now(),
        };
        let plan = plan::plan(&world);
        let (done, failed) = self.carry_out(&job, &plan).await;
        if let Some(job) = self.count(&world, &plan, done).await? {
            informers.jobs.apply(job);
        }
        match failed {
            Some(error) if error.namespace_terminating() => Ok(Outcome::Done),
            Some(error) => Err(error),
            None => Ok(plan.after.map_or(Outcome::Done, Outcome::After)),
        }
    }
}

impl Jobs {
    async fn carry_out(&self, job: &Job, plan: &Plan) -> (Done, Option<ApiError>) {
        match &plan.action {
            Action::None => (Done::default(), None),
            Action::Create(pods) => {
                let (created, error) = self.create(job, pods).await;
                let done = Done {
                    created: i32::try_from(created).unwrap_or(i32::MAX),
                    ..Done::default()
                };
                (done, error)
            }
            Action::End(pods) => self.delete(job, pods, false).await,
            Action::Remove(pods) => self.delete(job, pods, true).await,
        }
    }

    async fn create(&self, job: &Job, new: &[NewPod]) -> (usize, Option<ApiError>) {
        let (api, meta) = (&self.context.api, &job.metadata);
        let owner = &meta.key();
        let base = &pods::base(job);
        self.expectations.expect_creations(owner, new.len());
        let (succeeded, error) = slow_start(new.len(), |n| {
            let pod = new.get(n).map(|new| pods::one(job, base, new));
            async move {
                let Some(pod) = pod else { return Ok(()) };
                match api.create::<MetaOnly>(&PODS, &meta.namespace, &pod).await {
                    Ok(created) => {
                        let name = &created.metadata.name;
                        self.tell(
                            job,
                            false,
                            "SuccessfulCreate",
                            format!("Created pod: {name}"),
                        );
                        Ok(())
                    }
                    Err(error) => {
                        if !error.namespace_terminating() {
                            let message = format!("Error creating: {}", error.message());
                            self.tell(job, true, "FailedCreate", message);
                        }
                        Err(error)
                    }
                }
            }
        })
        .await;
        // Those that failed, and those not tried after a failure, will not be seen.
        for _ in succeeded..new.len() {
            self.expectations.created(owner);
        }
        (succeeded, error)
    }

    /// Deletes pods. Those that do not count lose their finalizer first.
    async fn delete(
        &self,
        job: &Job,
        pods: &[Arc<Pod>],
        uncounted: bool,
    ) -> (Done, Option<ApiError>) {
        let owner = &job.metadata.key();
        if uncounted {
            for pod in pods {
                self.expectations
                    .expect_deletion(owner, pod.meta.uid.clone());
            }
        }
        let gone = &Mutex::new(Done::default());
        let (_, error) = together(0..pods.len(), |n| async move {
            let Some(pod) = pods.get(n) else {
                return Ok(());
            };
            match self.delete_one(job, owner, pod, uncounted).await {
                Ok(()) => {
                    let mut gone = gone.lock();
                    gone.deleted += 1;
                    gone.deleted_ready += i32::from(pod.ready);
                    Ok(())
                }
                Err(error) => {
                    self.expectations.deleted(owner, &pod.meta.uid);
                    let message = format!("Error deleting: {}", error.message());
                    self.tell(job, true, "FailedDelete", message);
                    Err(error)
                }
            }
        })
        .await;
        let done = *gone.lock();
        (done, error)
    }

    async fn delete_one(
        &self,
        job: &Job,
        owner: &Key,
        pod: &Pod,
        uncounted: bool,
    ) -> Result<(), ApiError> {
        if uncounted && pod.meta.has_finalizer(TRACKING) {
            self.release(owner, pod).await?;
        }
        let there = self
            .context
            .api
            .delete(&PODS, &pod.meta.key(), Deletion::of(&pod.meta.uid))
            .await?;
        if !there {
            self.expectations.deleted(owner, &pod.meta.uid);
        }
        let message = format!("Deleted pod: {}", pod.meta.name);
        self.tell(job, false, "SuccessfulDelete", message);
        Ok(())
    }

    /// Removes a pod's finalizer and remembers it until the cache shows it.
    async fn release(&self, owner: &Key, pod: &Pod) -> Result<(), ApiError> {
        let uid = &pod.meta.uid;
        self.released.expect(owner, uid);
        let result = remove_finalizer(&self.context.api, pod).await;
        let shown = || self.context.informers.pods.get(&pod.meta.key());
        // A pod that is no longer in the cache will not be seen to change.
        if result.is_err() || shown().is_none_or(|shown| shown.meta.uid != *uid) {
            self.released.seen(owner, uid);
        }
        result
    }

    /// Writes what was counted, removes finalizers, and writes what follows from that. The Job as
    /// last written, if it was.
    async fn count(
        &self,
        world: &World<'_>,
        plan: &Plan,
        done: Done,
    ) -> Result<Option<Job>, ApiError> {
        let job = world.job;
        let owner = &job.metadata.key();
        let tracking = tracking::track(world, plan, done);
        let mut written = None;
        if tracking.status != job.status {
            match self
                .write_status(job, &job.status, &tracking.status)
                .await?
            {
                Some(new) => written = Some(new),
                None => return Ok(None),
            }
        }
        if *world.backoff != plan.backoff {
            let mut backoffs = self.backoffs.lock();
            backoffs.insert(owner.clone(), plan.backoff.clone());
        }
        self.tell_all(job, &tracking.told);

        let released = &Mutex::new(Vec::new());
        let (_, error) = together(0..tracking.release.len(), |n| {
            let pod = tracking.release.get(n);
            async move {
                let Some(pod) = pod else { return Ok(()) };
                self.release(owner, pod).await?;
                released.lock().push(pod.meta.uid.clone());
                Ok(())
            }
        })
        .await;
        let released = std::mem::take(&mut *released.lock());
        let (status, told) =
            tracking::settle(job, &tracking, &released, error.is_none(), Timestamp::now());
        if status != tracking.status {
            let base = written.as_ref().unwrap_or(job);
            match self.write_status(base, &tracking.status, &status).await? {
                Some(new) => written = Some(new),
                None => return Ok(None),
            }
            self.tell_all(job, &told);
        }
        match error {
            Some(error) => {
                if let Some(job) = written {
                    self.context.informers.jobs.apply(job);
                }
                Err(error)
            }
            None => Ok(written),
        }
    }

    /// Writes the status over the version that it was made from: counters that are added up must
    /// not be added to another writer's. `None` if the Job is gone.
    async fn write_status(
        &self,
        job: &Job,
        old: &JobStatus,
        new: &JobStatus,
    ) -> Result<Option<Job>, ApiError> {
        let meta = &job.metadata;
        let patch = Patch::Merge(json!({
            "metadata": {"uid": &*meta.uid, "resourceVersion": meta.version.to_string()},
            "status": status_json(old, new),
        }));
        let result = self
            .context
            .api
            .patch::<Job>(&JOBS, &meta.key(), Some("status"), &patch)
            .await;
        match result {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tell(
        &self,
        job: &Job,
        warning: bool,
        reason: impl Into<std::borrow::Cow<'static, str>>,
        message: String,
    ) {
        let recorder = &self.context.recorder;
        if warning {
            recorder.warning(COMPONENT, &JOBS, &job.metadata, reason, message);
        } else {
            recorder.normal(COMPONENT, &JOBS, &job.metadata, reason, message);
        }
    }

    fn tell_all(&self, job: &Job, told: &[Told]) {
        for one in told {
            self.tell(job, one.warning, one.reason.clone(), one.message.clone());
        }
    }
}

/// The status as a merge patch.
fn status_json(old: &JobStatus, new: &JobStatus) -> Value {
    let list = |uids: &[String]| {
        if uids.is_empty() {
            Value::Null
        } else {
            json!(uids)
        }
    };
    let time = |time: Option<Timestamp>| time.map(|t| t.to_string());
    let uncounted = &new.uncounted_terminated_pods;
    let mut status = json!({
        "active": or_null(new.active),
        "succeeded": or_null(new.succeeded),
        "failed": or_null(new.failed),
        "ready": new.ready,
        "terminating": new.terminating,
        "startTime": time(new.start_time),
        "completionTime": time(new.completion_time),
        "completedIndexes": Some(&new.completed_indexes).filter(|i| !i.is_empty()),
        "failedIndexes": new.failed_indexes,
        "uncountedTerminatedPods": {
            "succeeded": list(&uncounted.succeeded),
            "failed": list(&uncounted.failed),
        },
    });
    if old.conditions != new.conditions {
        status["conditions"] = json!(new.conditions);
    }
    status
}
