//! The shell of the CronJob controller.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{Patch, PropagationPolicy};
use rustc_hash::FxHashSet;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{self, Plan, Start, Told, World};
use super::schedule::{Times, stamp};
use crate::model::batch::{CronJob, CronJobStatus, Job, Reference};
use crate::model::{CRON_JOBS, JOBS, Key, Meta, Owner};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

const COMPONENT: &str = "cronjob-controller";
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

struct CronJobs {
    context: Context,
}

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    {
        let queue = queue.clone();
        let changed = move |old: Option<&Arc<CronJob>>, new: Option<&Arc<CronJob>>| {
            let Some(cron) = new.or(old) else { return };
            let key = cron.metadata.key();
            if let Some(old) = old
                && (&old.spec.schedule, &old.spec.time_zone)
                    != (&cron.spec.schedule, &cron.spec.time_zone)
                && let Ok(times) = Times::of(&cron.spec)
                && let Some(wait) = plan::next_look(cron, &times, Timestamp::now())
            {
                // A new schedule is for the time to come: its times in the past were not missed.
                queue.add_after(key, wait);
            } else {
                queue.add(key);
            }
        };
        context.informers.cron_jobs.on_change(changed);
    }
    {
        let queue = queue.clone();
        context.informers.jobs.on_change(move |old, new| {
            let over = |job: Option<&Arc<Job>>| job.map(|job| job.finished().is_some());
            if over(old) == over(new) {
                return;
            }
            if let Some(key) = new.or(old).and_then(|job| owner(&job.metadata)) {
                queue.add(key);
            }
        });
    }
    let controller = Arc::new(CronJobs {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// The CronJob that a Job is of.
fn owner(job: &Meta) -> Option<Key> {
    let owner = job.controller()?;
    let of_cron = *owner.kind == *CRON_JOBS.kind && *owner.api_version == *CRON_JOBS.api_version();
    of_cron.then(|| Key {
        namespace: job.namespace.clone(),
        name: owner.name.clone(),
    })
}

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        COMPONENT
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(cron) = informers.cron_jobs.get(key) else {
            return Ok(Outcome::Done);
        };
        let mut jobs = informers.jobs.indexed(&cron.metadata.uid);
        jobs.retain(|job| job.metadata.namespace == cron.metadata.namespace);
        jobs.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let gone = self.gone(&cron, &jobs).await?;
        let mut plan = plan::plan(&World {
            cron: &cron,
            jobs: &jobs,
            gone: &gone,
            now: Timestamp::now(),
        });
        self.tell_all(&cron, &plan.told);
        let mut status = std::mem::take(&mut plan.status);
        let failed = self.carry_out(&cron, &plan, &mut status).await.err();
        for job in &plan.forget {
            self.delete(&cron, &job.metadata.name, &job.metadata.uid)
                .await?;
        }
        self.write_status(&cron, status).await?;
        match failed {
            Some(error) if error.namespace_terminating() => Ok(Outcome::Done),
            Some(error) => Err(error),
            None => Ok(plan.after.map_or(Outcome::Done, Outcome::After)),
        }
    }
}

impl CronJobs {
    /// Of the active Jobs that the cache does not show those that are not there.
    async fn gone(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<FxHashSet<String>, ApiError> {
        let mut gone = FxHashSet::default();
        for reference in &cron.status.active {
            if jobs.iter().any(|job| *job.metadata.uid == *reference.uid) {
                continue;
            }
            let key = Key::new(&reference.namespace, &reference.name);
            if self.context.api.get::<Job>(&JOBS, &key).await?.is_none() {
                gone.insert(reference.uid.clone());
            }
        }
        Ok(gone)
    }

    async fn carry_out(
        &self,
        cron: &CronJob,
        plan: &Plan,
        status: &mut CronJobStatus,
    ) -> Result<(), ApiError> {
        for (n, job) in plan.replace.iter().enumerate() {
            if let Err(error) = self.delete(cron, &job.name, &job.uid).await {
                // The others are active still.
                status.active.extend(plan.replace.iter().skip(n).cloned());
                return Err(error);
            }
        }
        let Some(start) = &plan.start else {
            return Ok(());
        };
        if let Some(job) = self.create(cron, start).await? {
            status.active.push(reference(&job));
            status.last_schedule_time = Some(start.at);
        }
        Ok(())
    }

    /// Creates the Job of a time. One that is there already was created by a run of this controller
    /// that did not come to write its status; `None` if it is somebody else's.
    async fn create(&self, cron: &CronJob, start: &Start) -> Result<Option<Job>, ApiError> {
        let namespace = &cron.metadata.namespace;
        let object = job(cron, start);
        match self
            .context
            .api
            .create::<Job>(&JOBS, namespace, &object)
            .await
        {
            Ok(job) => {
                self.normal(
                    cron,
                    "SuccessfulCreate",
                    format!("Created job {}", start.name),
                );
                Ok(Some(job))
            }
            Err(error) if error.already_exists() => {
                let key = Key::new(namespace, &start.name);
                let job: Option<Job> = self.context.api.get(&JOBS, &key).await?;
                Ok(job.filter(|job| job.metadata.controlled_by(&cron.metadata.uid)))
            }
            Err(error) => {
                if !error.namespace_terminating() {
                    let message = format!("Error creating job: {}", error.message());
                    self.warning(cron, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, cron: &CronJob, name: &str, uid: &str) -> Result<(), ApiError> {
        let deletion = Deletion {
            propagation: Some(PropagationPolicy::Background),
            ..Deletion::of(uid)
        };
        let key = Key::new(&cron.metadata.namespace, name);
        match self.context.api.delete(&JOBS, &key, deletion).await {
            Ok(_) => {
                self.normal(cron, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            // Another Job has the name by now.
            Err(error) if error.conflict() => Ok(()),
            Err(error) => {
                let message = format!("Deleted job: {}", error.message());
                self.warning(cron, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn write_status(&self, cron: &CronJob, new: CronJobStatus) -> Result<(), ApiError> {
        if cron.status == new {
            return Ok(());
        }
        let meta = &cron.metadata;
        let active: Vec<Value> = new.active.iter().map(reference_json).collect();
        let time = |time: Option<Timestamp>| time.map(|t| t.to_string());
        let patch = Patch::Merge(json!({
            "metadata": {"uid": &*meta.uid, "resourceVersion": meta.version.to_string()},
            "status": {
                "active": Some(active).filter(|a| !a.is_empty()),
                "lastScheduleTime": time(new.last_schedule_time),
                "lastSuccessfulTime": time(new.last_successful_time),
            },
        }));
        let result = self
            .context
            .api
            .patch::<CronJob>(&CRON_JOBS, &meta.key(), Some("status"), &patch)
            .await;
        match result {
            Ok(written) => {
                self.context.informers.cron_jobs.apply(written);
                Ok(())
            }
            Err(error) if error.not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn normal(&self, cron: &CronJob, reason: &'static str, message: String) {
        let recorder = &self.context.recorder;
        recorder.normal(COMPONENT, &CRON_JOBS, &cron.metadata, reason, message);
    }

    fn warning(&self, cron: &CronJob, reason: &'static str, message: String) {
        let recorder = &self.context.recorder;
        recorder.warning(COMPONENT, &CRON_JOBS, &cron.metadata, reason, message);
    }

    fn tell_all(&self, cron: &CronJob, told: &[Told]) {
        for one in told {
            if one.warning {
                self.warning(cron, one.reason, one.message.clone());
            } else {
                self.normal(cron, one.reason, one.message.clone());
            }
        }
    }
}

/// The Job of one time.
fn job(cron: &CronJob, start: &Start) -> Value {
    let template = &cron.spec.job_template;
    let mut metadata = json!({
        "name": start.name,
        "namespace": &*cron.metadata.namespace,
        "annotations": {},
        "ownerReferences": [Owner::controller_json(&CRON_JOBS, &cron.metadata)],
    });
    for field in ["labels", "annotations"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}"))
            && value.is_object()
        {
            metadata[field] = value.clone();
        }
    }
    metadata["annotations"][SCHEDULED] = stamp(&cron.spec, start.at).into();
    json!({
        "apiVersion": JOBS.api_version(),
        "kind": JOBS.kind,
        "metadata": metadata,
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
    })
}

fn reference(job: &Job) -> Reference {
    let meta = &job.metadata;
    Reference {
        api_version: JOBS.api_version(),
        kind: JOBS.kind.into(),
        namespace: meta.namespace.to_string(),
        name: meta.name.to_string(),
        uid: meta.uid.to_string(),
        resource_version: meta.version.to_string(),
    }
}

fn reference_json(reference: &Reference) -> Value {
    json!({
        "apiVersion": reference.api_version,
        "kind": reference.kind,
        "namespace": reference.namespace,
        "name": reference.name,
        "uid": reference.uid,
        "resourceVersion": reference.resource_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_made_of_the_template_and_tells_its_time() {
        let cron: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "nightly", "namespace": "n", "uid": "u"},
            "spec": {"schedule": "0 0 * * *", "timeZone": "Asia/Tokyo", "jobTemplate": {
                "metadata": {"labels": {"a": "1"}, "annotations": {"b": "2"}},
                "spec": {"completions": 2}}}}))
        .unwrap();
        let start = Start {
            at: "2026-01-01T15:00:00Z".parse().unwrap(),
            name: "nightly-1".into(),
        };
        assert_eq!(
            job(&cron, &start),
            json!({"apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"name": "nightly-1", "namespace": "n", "labels": {"a": "1"},
                    "annotations": {"b": "2", SCHEDULED: "2026-01-02T00:00:00+09:00"},
                    "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly",
                        "uid": "u", "controller": true, "blockOwnerDeletion": true}]},
                "spec": {"completions": 2}})
        );
    }
}
