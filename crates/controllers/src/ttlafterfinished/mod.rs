//! Finished Jobs are deleted once their `ttlSecondsAfterFinished` is over.
//!
//! Behaviour is that of `pkg/controller/ttlafterfinished` of Kubernetes 1.36.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::PropagationPolicy;
use tokio::task::JoinSet;

use crate::model::batch::Job;
use crate::model::{JOBS, Key};
use crate::runtime::api::Deletion;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue, controller};

struct Cleaner {
    context: Context,
}

pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    {
        let queue = queue.clone();
        context.informers.jobs.on_change(move |_, new| {
            if let Some(job) = new
                && let Some(left) = left(job, Timestamp::now())
            {
                queue.add_after(job.metadata.key(), left);
            }
        });
    }
    let controller = Arc::new(Cleaner {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

/// How long a Job may stay yet; `None` where it stays until somebody deletes it.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = job.spec.ttl_seconds_after_finished?;
    if job.metadata.deleted.is_some() {
        return None;
    }
    let finished = job.finished()?.last_transition_time?;
    let until = finished.checked_add(SignedDuration::from_secs(ttl)).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let due = |job: &Job| left(job, Timestamp::now());
        match informers.jobs.get(key).and_then(|job| due(&job)) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        // The time to live may have been changed: the last word is the API server's.
        let api = &self.context.api;
        let Some(job) = api.get::<Job>(&JOBS, key).await? else {
            return Ok(Outcome::Done);
        };
        match due(&job) {
            None => Ok(Outcome::Done),
            Some(left) if !left.is_zero() => Ok(Outcome::After(left)),
            Some(_) => {
                let deletion = Deletion {
                    propagation: Some(PropagationPolicy::Foreground),
                    ..Deletion::of(&job.metadata.uid)
                };
                api.delete(&JOBS, key, deletion).await?;
                Ok(Outcome::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::runs(json!({"ttlSecondsAfterFinished": 60}), "SuccessCriteriaMet", None)]
    #[case::stays(json!({}), "Complete", None)]
    #[case::waits(json!({"ttlSecondsAfterFinished": 60}), "Complete", Some(50))]
    #[case::failed(json!({"ttlSecondsAfterFinished": 60}), "Failed", Some(50))]
    #[case::over(json!({"ttlSecondsAfterFinished": 5}), "Complete", Some(0))]
    #[case::at_once(json!({"ttlSecondsAfterFinished": 0}), "Complete", Some(0))]
    fn lives(#[case] spec: Value, #[case] condition: &str, #[case] seconds: Option<u64>) {
        let job: Job = serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": {
            "conditions": [{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!(left(&job, now), seconds.map(Duration::from_secs));
    }
}
