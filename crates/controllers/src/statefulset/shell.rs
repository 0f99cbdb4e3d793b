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
use crate::history::{self as revision, Update};
use crate::model::meta::MetaOnly;
use crate::model::workload::{Revision, StatefulSet, StatefulSetStatus};
use crate::model::{CLAIMS, Key, Meta, PODS, Pod, REVISIONS, STATEFUL_SETS};
use crate::ownership;
use crate::runtime::api::{Deletion, or_null, status_patch};
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
    {
        let (queue, expectations) = (queue.clone(), expectations.clone());
        informers
            .stateful_sets
            .on_change(move |old, new| match (old, new) {
                (Some(old), None) => {
                    expectations.forget(&old.metadata.key());
                    queue.add(old.metadata.key());
                }
                (_, Some(new)) => queue.add(new.metadata.key()),
                (None, None) => {}
            });
    }
    {
        let (queue, expectations) = (queue.clone(), expectations.clone());
        let (sets, pods) = (informers.stateful_sets.clone(), informers.pods.clone());
        informers.pods.on_change(move |old, new| {
            ownership::pod_changed(
                &STATEFUL_SETS,
                &pods,
                &queue,
                &expectations,
                old,
                new,
                |orphan| {
                    for set in sets.in_namespace(&orphan.meta.namespace) {
                        if set.spec.selector.matches(&orphan.meta.labels)
                            && plan::ordinal(&set.metadata.name, &orphan.meta.name).is_some()
                        {
                            queue.add(set.metadata.key());
                        }
                    }
                },
            );
        });
    }
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
        let revisions = self.context.informers.revisions.indexed(&set.metadata.uid);
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
            for old in revision::expired(limit, &revisions, |r| live.contains(&*r.metadata.name)) {
                let deletion = Deletion::of(&old.metadata.uid);
                api.delete(&REVISIONS, &old.metadata.key(), deletion)
                    .await?;
            }
        }
        let after = plan.after.into_iter().chain(waits.then_some(CLAIM_GONE));
        Ok(after.min().map_or(Outcome::Done, Outcome::After))
    }
}

/// How soon a pod is tried again that waits for an old claim of its name to be gone.
const CLAIM_GONE: Duration = Duration::from_millis(500);

impl StatefulSets {
    /// The name of the revision that the template is; creates or raises it where needed.
    async fn update_revision(
        &self,
        set: &StatefulSet,
        revisions: &[Arc<Revision>],
        collisions: &mut Option<i32>,
    ) -> Result<Arc<str>, ApiError> {
        let api = &self.context.api;
        let data = revision::data_of(&set.spec.template);
        let number = match revision::resolve(&data, revisions) {
            Update::Is(name) => return Ok(name),
            Update::Raise(name, number) => {
                let key = Key {
                    namespace: set.metadata.namespace.clone(),
                    name: name.clone(),
                };
                let patch = Patch::Merge(json!({"revision": number}));
                let raised: Revision = api.patch(&REVISIONS, &key, None, &patch).await?;
                self.context.informers.revisions.apply(raised);
                return Ok(name);
            }
            Update::New(number) => number,
        };
        loop {
            let count = collisions.unwrap_or(0);
            let object = revision::object(
                &STATEFUL_SETS,
                &set.metadata,
                &set.spec.template,
                &data,
                number,
                count,
            );
            match api
                .create::<Revision>(&REVISIONS, &set.metadata.namespace, &object)
                .await
            {
                Ok(created) => {
                    let name = created.metadata.name.clone();
                    self.context.informers.revisions.apply(created);
                    return Ok(name);
                }
                Err(error) if error.already_exists() => {
                    let key = Key::new(
                        &set.metadata.namespace,
                        object
                            .pointer("/metadata/name")
                            .and_then(Value::as_str)
                            .unwrap_or(""),
                    );
                    match api.get::<Revision>(&REVISIONS, &key).await? {
                        Some(there)
                            if *there.data == data
                                && there.metadata.controlled_by(&set.metadata.uid) =>
                        {
                            self.context.informers.revisions.apply(there);
                            return Ok(key.name);
                        }
                        // Another's, or other data with the same hash: count on and try again.
                        Some(_) => *collisions = Some(count + 1),
                        // Deleted in between: the name is free again.
                        None => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
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
        let patch = status_patch(
            &set.metadata.uid,
            json!({
                "observedGeneration": status.observed_generation,
                "replicas": status.replicas,
                "readyReplicas": or_null(status.ready_replicas),
                "currentReplicas": or_null(status.current_replicas),
                "updatedReplicas": or_null(status.updated_replicas),
                "availableReplicas": status.available_replicas,
                "currentRevision": status.current_revision,
                "updateRevision": status.update_revision,
                "collisionCount": status.collision_count.unwrap_or(0),
            }),
        );
        match self
            .context
            .api
            .patch::<StatefulSet>(&STATEFUL_SETS, &set.metadata.key(), Some("status"), &patch)
            .await
        {
            Ok(written) => {
                self.context.informers.stateful_sets.apply(written);
                Ok(())
            }
            Err(error) if error.not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A pod of one revision, but for what its ordinal decides.
fn base(set: &StatefulSet, template: &Value, revision: &str) -> Value {
    let mut pod = ownership::pod_from_template(template, &STATEFUL_SETS, &set.metadata);
    pod["metadata"]["labels"][plan::REVISION] = revision.into();
    pod["spec"]["subdomain"] = set.spec.service_name.as_str().into();
    pod
}

fn with_identity(set: &StatefulSet, base: &Value, ordinal: i32) -> Value {
    let mut pod = base.clone();
    let name = format!("{}-{ordinal}", set.metadata.name);
    pod["metadata"]["labels"][plan::POD_NAME] = name.as_str().into();
    pod["metadata"]["labels"][plan::POD_INDEX] = ordinal.to_string().into();
    pod["metadata"]["name"] = name.as_str().into();
    if set.spec.service_name.is_empty()
        && let Some(spec) = pod["spec"].as_object_mut()
    {
        spec.remove("subdomain");
    }
    pod["spec"]["hostname"] = name.into();
    if !set.spec.volume_claim_templates.is_empty() {
        let claimed: Vec<(&str, Value)> = set
            .spec
            .volume_claim_templates
            .iter()
            .filter_map(|t| {
                let volume = t.pointer("/metadata/name")?.as_str()?;
                let claim = format!("{volume}-{}-{ordinal}", set.metadata.name);
                Some((
                    volume,
                    json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}),
                ))
            })
            .collect();
        let names: BTreeSet<&str> = claimed.iter().map(|(n, _)| *n).collect();
        let others = base
            .pointer("/spec/volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|v| !v["name"].as_str().is_some_and(|n| names.contains(n)))
            .cloned();
        let volumes: Vec<Value> = claimed
            .iter()
            .map(|(_, v)| v.clone())
            .chain(others)
            .collect();
        pod["spec"]["volumes"] = volumes.into();
    }
    pod
}

/// The claim of one pod by one template: `<template>-<set>-<ordinal>`.
fn claim(set: &StatefulSet, template: &Value, ordinal: i32) -> Value {
    let mut claim = template.clone();
    let name = template
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("");
    let Meta {
        name: set_name,
        namespace,
        ..
    } = &set.metadata;
    claim["apiVersion"] = "v1".into();
    claim["kind"] = CLAIMS.kind.into();
    claim["metadata"]["name"] = format!("{name}-{set_name}-{ordinal}").into();
    claim["metadata"]["namespace"] = Value::from(&**namespace);
    for (k, v) in set.spec.selector.match_labels.iter() {
        claim["metadata"]["labels"][k] = v.into();
    }
    if set
        .spec
        .persistent_volume_claim_retention_policy
        .when_deleted
        == "Delete"
    {
        claim["metadata"]["ownerReferences"] = json!([claims::to_set(&set.metadata)]);
    }
    if let Some(map) = claim.as_object_mut() {
        map.remove("status");
    }
    claim
}
