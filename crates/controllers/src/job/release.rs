//! Removing the tracking finalizer: from pods that are counted, and from pods that no Job counts.

use std::sync::Arc;

use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::json;

use crate::model::meta::MetaOnly;
use crate::model::pod::TRACKING;
use crate::model::{JOBS, Key, PODS, Pod, Watched};
use crate::runtime::{Api, ApiError, Context, Controller, Outcome};

/// Pods whose finalizer was removed and that the cache may still show with it, by Job. Such a pod
/// must not be counted again.
#[derive(Default)]
pub struct Released(Mutex<FxHashMap<Key, FxHashSet<Arc<str>>>>);

impl Released {
    pub fn of(&self, job: &Key) -> FxHashSet<Arc<str>> {
        self.0.lock().get(job).cloned().unwrap_or_default()
    }

    pub fn expect(&self, job: &Key, pod: &Arc<str>) {
        let mut all = self.0.lock();
        all.entry(job.clone()).or_default().insert(pod.clone());
    }

    /// The cache shows it, or it was not removed after all.
    pub fn seen(&self, job: &Key, pod: &str) {
        let mut all = self.0.lock();
        if let Some(pods) = all.get_mut(job) {
            pods.remove(pod);
            if pods.is_empty() {
                all.remove(job);
            }
        }
    }

    pub fn forget(&self, job: &Key) {
        self.0.lock().remove(job);
    }
}

/// Removes the finalizer of a pod; one that is gone has none.
pub async fn remove_finalizer(api: &Api, pod: &Pod) -> Result<(), ApiError> {
    let patch = Patch::Strategic(json!({"metadata": {
        "uid": &*pod.meta.uid,
        "$deleteFromPrimitiveList/finalizers": [TRACKING],
    }}));
    match api
        .patch::<MetaOnly>(&PODS, &pod.meta.key(), None, &patch)
        .await
    {
        // Another pod has the name by now, where the uid differs.
        Err(error) if !error.not_found() && !error.conflict() => Err(error),
        _ => Ok(()),
    }
}

/// Frees pods that bear the finalizer although no Job will count them: their Job is gone, or has
/// finished, or they belong to nobody.
pub struct Orphans {
    pub context: Context,
}

impl Controller for Orphans {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        if !pod.meta.has_finalizer(TRACKING) {
            return Ok(Outcome::Done);
        }
        if let Some(owner) = pod.meta.controller() {
            if *owner.kind != *JOBS.kind || *owner.api_version != *JOBS.api_version() {
                return Ok(Outcome::Done);
            }
            let job = Key {
                namespace: key.namespace.clone(),
                name: owner.name.clone(),
            };
            let job = informers.jobs.get(&job);
            if job
                .filter(|job| job.meta().uid == owner.uid)
                .is_some_and(|job| job.managed_elsewhere() || job.finished().is_none())
            {
                return Ok(Outcome::Done);
            }
        }
        remove_finalizer(&self.context.api, &pod).await?;
        Ok(Outcome::Done)
    }
}
