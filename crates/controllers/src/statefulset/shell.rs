//! The shell of the StatefulSet controller: watches, carries out plans, writes status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Patch;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::claims;
use super::plan::{self, Create, On, Plan, World};
use super::pods::{base, claim, with_identity};
use crate::history as revision;
use crate::model::meta::MetaOnly;
use crate::model::workload::{Revision, StatefulSet, StatefulSetStatus};
use crate::model::{CLAIMS, Key, PODS, Pod, STATEFUL_SETS};
use crate::ownership;
use crate::runtime::api::{Deletion, or_null};
use crate::runtime::controller::{self, slow_start, together};
use crate::runtime::{ApiError, Context, Controller, Expectations, Outcome, Queue};

const NAME: &str = "statefulset-controller";

struct StatefulSets {
    context: Context,
    expectations: Arc<Expectations>,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let expectations = Arc::new(Expectations::default());
    let informers = &context.informers;
    informers.revisions.want();
    informers.claims.want();
    ownership::follow(
        &informers.stateful_sets,
        &informers.pods,
        &queue,
        &expectations,
        |set, pod| {
            set.spec.selector.matches(&pod.meta.labels)
                && plan::ordinal(&set.metadata.name, &pod.meta.name).is_some()
        },
    );
    let controller = Arc::new(StatefulSets {
        context: context.clone(),
        expectations,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(set) = self.context.informers.stateful_sets.get(key) else {
            return Ok(Outcome::Done);
        };
        if set.spec.selector.is_empty() || !self.expectations.satisfied(key) {
            return Ok(Outcome::Done);
        }
        let api = &self.context.api;
        let pods = ownership::claim(
            api,
            &self.context.informers.pods,
            &STATEFUL_SETS,
            &set.metadata,
            &set.spec.selector,
            |pod: &Pod| plan::ordinal(&set.metadata.name, &pod.meta.name).is_some(),
        )
        .await?;
        let revisions = ownership::claim(
            api,
            &self.context.informers.revisions,
            &STATEFUL_SETS,
            &set.metadata,
            &set.spec.selector,
            |_: &Revision| true,
        )
        .await?;
        let mut collisions = set.status.collision_count;
        let update = self
            .update_revision(&set, &revisions, &mut collisions)
            .await?;
        let current = revisions
            .iter()
            .map(|r| &r.metadata.name)
            .find(|name| ***name == *set.status.current_revision)
            .unwrap_or(&update)
            .clone();
        let mut plan = plan::plan(&World {
            set: &set,
            pods: &pods,
            current: &current,
            update: &update,
            now: Timestamp::now(),
        });
        plan.status.collision_count = collisions;

        if set.metadata.deleted.is_none() {
            // Before pods are deleted: their claims are to go with them.
            self.settle_claims(&set, &pods).await?;
        }
        let result = self.carry_out(&set, &plan, &current, &revisions).await;
        // Status is written even if an action failed: it says what was seen.
        self.write_status(&set, plan.status).await?;
        let waits = result?;
        if set.metadata.deleted.is_none() {
            let live: BTreeSet<&str> = pods
                .iter()
                .filter_map(|p| p.meta.labels.get(plan::REVISION))
                .chain([&*current, &*update])
                .collect();
            let limit = set.spec.revision_history_limit;
            let is_live = |r: &Revision| live.contains(&*r.metadata.name);
            revision::forget(&self.context, limit, &revisions, is_live).await?;
        }
        let after = plan.after.into_iter().chain(waits.then_some(CLAIM_GONE));
        Ok(after.min().map_or(Outcome::Done, Outcome::After))
    }
}

/// How soon a pod is tried again that waits for an old claim of its name to be gone.
const CLAIM_GONE: Duration = Duration::from_millis(500);

impl StatefulSets {
    /// The name of the revision that the template is, which is there after this.
    async fn update_revision(
        &self,
        set: &StatefulSet,
        revisions: &[Arc<Revision>],
        collisions: &mut Option<i32>,
    ) -> Result<Arc<str>, ApiError> {
        let (template, meta) = (&set.spec.template, &set.metadata);
        let data = revision::data_of(template);
        let object = |number, collisions: Option<i32>| {
            let collisions = collisions.unwrap_or(0);
            revision::object(&STATEFUL_SETS, meta, template, &data, number, collisions)
        };
        let found = revision::ensure(&self.context, meta, &data, revisions, collisions, object);
        Ok(found.await?.metadata.name.clone())
    }

    /// Returns whether a pod was not made because an old claim of its name is not gone yet.
    async fn carry_out(
        &self,
        set: &StatefulSet,
        plan: &Plan,
        current: &str,
        revisions: &[Arc<Revision>],
    ) -> Result<bool, ApiError> {
        let context = &self.context;
        let owner = set.metadata.key();
        for pod in &plan.mend {
            let n = plan::ordinal(&set.metadata.name, &pod.meta.name).unwrap_or(0);
            let patch = Patch::Merge(json!({"metadata": {"uid": &*pod.meta.uid, "labels": {
                plan::POD_NAME: &*pod.meta.name,
                plan::POD_INDEX: n.to_string(),
            }}}));
            context
                .api
                .patch::<MetaOnly>(&PODS, &pod.meta.key(), None, &patch)
                .await?;
        }
        for n in &plan.pending {
            self.ensure_claims(set, *n).await?;
        }
        let waits = self
            .create_pods(set, &owner, plan, current, revisions)
            .await?;

        let (_, error) = together(0..plan.delete.len(), |i| {
            let pod: Option<&Arc<Pod>> = plan.delete.get(i);
            async move {
                match pod {
                    Some(pod) => self.delete_pod(set, pod).await,
                    None => Ok(()),
                }
            }
        })
        .await;
        error.map_or(Ok(waits), Err)
    }

    async fn delete_pod(&self, set: &StatefulSet, pod: &Pod) -> Result<(), ApiError> {
        let owner = set.metadata.key();
        let (pod_name, set_name) = (&pod.meta.name, &set.metadata.name);
        self.expectations
            .expect_deletion(&owner, pod.meta.uid.clone());
        let deletion = Deletion::of(&pod.meta.uid);
        match self
            .context
            .api
            .delete(&PODS, &pod.meta.key(), deletion)
            .await
        {
            Ok(there) => {
                if !there {
                    self.expectations.deleted(&owner, &pod.meta.uid);
                }
                self.context.recorder.normal(
                    NAME,
                    &STATEFUL_SETS,
                    &set.metadata,
                    "SuccessfulDelete",
                    format!("delete Pod {pod_name} in StatefulSet {set_name} successful"),
                );
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(&owner, &pod.meta.uid);
                let message = error.message();
                self.context.recorder.warning(
                    NAME,
                    &STATEFUL_SETS,
                    &set.metadata,
                    "FailedDelete",
                    format!(
                        "delete Pod {pod_name} in StatefulSet {set_name} failed error: {message}"
                    ),
                );
                Err(error)
            }
        }
    }

    async fn create_pods(
        &self,
        set: &StatefulSet,
        owner: &Key,
        plan: &Plan,
        current: &str,
        revisions: &[Arc<Revision>],
    ) -> Result<bool, ApiError> {
        if plan.create.is_empty() {
            return Ok(false);
        }
        let update = plan.status.update_revision.as_str();
        let old = if plan.create.iter().any(|c| c.revision == On::Current) && current != update {
            revisions
                .iter()
                .find(|r| *r.metadata.name == *current)
                .map(|r| revision::template_of(&r.data))
        } else {
            None
        };
        let bases = [
            (update, base(set, &set.spec.template, update)),
            match &old {
                Some(template) => (current, base(set, template, current)),
                None => (update, Value::Null),
            },
        ];
        let api = &self.context.api;
        let recorder = &self.context.recorder;
        let waits = AtomicBool::new(false);
        let (_, error) = slow_start(plan.create.len(), |i| {
            let create: Option<&Create> = plan.create.get(i);
            let bases = &bases;
            let old = old.is_some();
            let waits = &waits;
            async move {
                let Some(create) = create else { return Ok(()) };
                let body = match create.revision {
                    On::Current if old => &bases[1].1,
                    _ => &bases[0].1,
                };
                if self.waits_for_claims(set, create.ordinal) {
                    waits.store(true, Relaxed);
                    return Ok(());
                }
                self.ensure_claims(set, create.ordinal).await?;
                let name = format!("{}-{}", set.metadata.name, create.ordinal);
                let pod = with_identity(set, body, create.ordinal);
                self.expectations.expect_creations(owner, 1);
                match api
                    .create::<MetaOnly>(&PODS, &set.metadata.namespace, &pod)
                    .await
                {
                    Ok(_) => {
                        recorder.normal(
                            NAME,
                            &STATEFUL_SETS,
                            &set.metadata,
                            "SuccessfulCreate",
                            format!(
                                "create Pod {name} in StatefulSet {} successful",
                                set.metadata.name
                            ),
                        );
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.created(owner);
                        if error.already_exists() {
                            // Its predecessor is not seen to be gone, or it is not seen to be there.
                            return Err(error);
                        }
                        recorder.warning(
                            NAME,
                            &STATEFUL_SETS,
                            &set.metadata,
                            "FailedCreate",
                            format!(
                                "create Pod {name} in StatefulSet {} failed error: {}",
                                set.metadata.name,
                                error.message()
                            ),
                        );
                        Err(error)
                    }
                }
            }
        })
        .await;
        error.map_or(Ok(waits.into_inner()), Err)
    }

    /// Gives the claims of pods the owners that the retention policy asks for.
    async fn settle_claims(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<(), ApiError> {
        let first = set.spec.ordinals.start;
        let all = first..first.saturating_add(set.spec.replicas.unwrap_or(1));
        for template in &set.spec.volume_claim_templates {
            let volume = template.pointer("/metadata/name").and_then(Value::as_str);
            for pod in pods {
                let ordinal = plan::ordinal(&set.metadata.name, &pod.meta.name);
                let (Some(volume), Some(ordinal)) = (volume, ordinal) else {
                    continue;
                };
                let name = format!("{volume}-{}", pod.meta.name);
                let key = Key::new(&set.metadata.namespace, &name);
                let Some(claim) = self.context.informers.claims.get(&key) else {
                    continue;
                };
                let now = &claim.metadata.owners;
                let condemned = !all.contains(&ordinal);
                let Some(owners) = claims::owners(set, pod, condemned, now) else {
                    continue;
                };
                let patch = Patch::Merge(json!({"metadata": {
                    "uid": &*claim.metadata.uid,
                    "resourceVersion": claim.metadata.version.to_string(),
                    "ownerReferences": owners,
                }}));
                let api = &self.context.api;
                match api
                    .patch::<crate::model::volume::Claim>(&CLAIMS, &key, None, &patch)
                    .await
                {
                    Ok(written) => self.context.informers.claims.apply(written),
                    Err(error) if error.not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn waits_for_claims(&self, set: &StatefulSet, ordinal: i32) -> bool {
        let pod = format!("{}-{ordinal}", set.metadata.name);
        let mut volumes = set.spec.volume_claim_templates.iter();
        volumes.any(|template| {
            let volume = template.pointer("/metadata/name").and_then(Value::as_str);
            let name = format!("{}-{pod}", volume.unwrap_or_default());
            let key = Key::new(&set.metadata.namespace, &name);
            let claim = self.context.informers.claims.get(&key);
            claim.is_some_and(|claim| claims::is_going(set, &claim.metadata, &pod))
        })
    }

    /// Creates the claims of one pod that are not there.
    async fn ensure_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), ApiError> {
        let context = &self.context;
        for template in &set.spec.volume_claim_templates {
            let claim = claim(set, template, ordinal);
            let Some(name) = claim.pointer("/metadata/name").and_then(Value::as_str) else {
                continue;
            };
            let key = Key::new(&set.metadata.namespace, name);
            if context.informers.claims.get(&key).is_some() {
                continue;
            }
            match context
                .api
                .create::<crate::model::volume::Claim>(&CLAIMS, &set.metadata.namespace, &claim)
                .await
            {
                Ok(created) => {
                    context.informers.claims.apply(created);
                    context.recorder.normal(
                        NAME,
                        &STATEFUL_SETS,
                        &set.metadata,
                        "SuccessfulCreate",
                        format!(
                            "create Claim {name} Pod {}-{ordinal} in StatefulSet {} success",
                            set.metadata.name, set.metadata.name
                        ),
                    );
                }
                Err(error) if error.already_exists() => {}
                Err(error) => {
                    context.recorder.warning(NAME, &STATEFUL_SETS, &set.metadata, "FailedCreate",
                        format!("create Claim {name} for Pod {}-{ordinal} in StatefulSet {} failed error: {}", set.metadata.name, set.metadata.name, error.message()));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        status: StatefulSetStatus,
    ) -> Result<(), ApiError> {
        if status == set.status {
            return Ok(());
        }
        let body = json!({
            "observedGeneration": status.observed_generation,
            "replicas": status.replicas,
            "readyReplicas": or_null(status.ready_replicas),
            "currentReplicas": or_null(status.current_replicas),
            "updatedReplicas": or_null(status.updated_replicas),
            "availableReplicas": status.available_replicas,
            "currentRevision": status.current_revision,
            "updateRevision": status.update_revision,
            "collisionCount": status.collision_count.unwrap_or(0),
        });
        self.context
            .informers
            .stateful_sets
            .write_status(&self.context.api, &set.metadata, body)
            .await
    }
}
