//! The shell of the Deployment controller.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::{Patch, PropagationPolicy};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{self, Action, REVISION, ROLLBACK_TO, TEMPLATE_HASH, World};
use super::status;
use crate::model::meta::MetaOnly;
use crate::model::workload::{Deployment, DeploymentStatus, ReplicaSet};
use crate::model::{DEPLOYMENTS, Key, Labels, Meta, Owner, REPLICA_SETS};
use crate::ownership;
use crate::runtime::api::{Deletion, or_null};
use crate::runtime::controller;
use crate::runtime::{ApiError, Context, Controller, Outcome, Queue};

const NAME: &str = "deployment-controller";

struct Deployments {
    context: Context,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let informers = &context.informers;
    {
        let queue = queue.clone();
        informers.deployments.on_change(move |old, new| {
            if let Some(deployment) = new.or(old) {
                queue.add(deployment.metadata.key());
            }
        });
    }
    {
        let (queue, deployments) = (queue.clone(), informers.deployments.clone());
        informers.replica_sets.on_change(move |old, new| {
            let before = old.and_then(|set| owner_of(&set.metadata));
            let after = new.and_then(|set| owner_of(&set.metadata));
            if let Some(key) = &before
                && after != before
            {
                queue.add(key.clone());
            }
            match (after, new) {
                (Some(key), _) => queue.add(key),
                (None, Some(set)) if set.metadata.controller().is_none() => {
                    for deployment in deployments.in_namespace(&set.metadata.namespace) {
                        if deployment.spec.selector.matches(&set.metadata.labels) {
                            queue.add(deployment.metadata.key());
                        }
                    }
                }
                _ => {}
            }
        });
    }
    {
        // Under Recreate the end of the last old pod is what a rollout waits for.
        let queue = queue.clone();
        let (sets, deployments) = (
            informers.replica_sets.clone(),
            informers.deployments.clone(),
        );
        informers.pods.on_change(move |old, new| {
            let ended = match (old, new) {
                (Some(_), None) => true,
                (Some(old), Some(new)) => !old.finished() && new.finished(),
                _ => false,
            };
            let Some(owner) = old.filter(|_| ended).and_then(|p| p.meta.controller()) else {
                return;
            };
            let namespace = old.map(|p| p.meta.namespace.clone()).unwrap_or_default();
            let set = sets.get(&Key {
                namespace,
                name: owner.name.clone(),
            });
            if let Some(key) = set.and_then(|s| owner_of(&s.metadata))
                && deployments
                    .get(&key)
                    .is_some_and(|d| d.spec.strategy.kind == "Recreate")
            {
                queue.add(key);
            }
        });
    }
    let controller = Arc::new(Deployments {
        context: context.clone(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

fn owner_of(meta: &Meta) -> Option<Key> {
    let owner = meta.controller()?;
    (&*owner.kind == "Deployment" && owner.api_version.starts_with("apps/")).then(|| Key {
        namespace: meta.namespace.clone(),
        name: owner.name.clone(),
    })
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(deployment) = informers.deployments.get(key) else {
            return Ok(Outcome::Done);
        };
        if deployment.spec.selector.is_empty() {
            self.context.recorder.warning(
                NAME,
                &DEPLOYMENTS,
                &deployment.metadata,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.".into(),
            );
            return Ok(Outcome::Done);
        }
        let sets = ownership::claim(
            &self.context.api,
            &informers.replica_sets,
            &DEPLOYMENTS,
            &deployment.metadata,
            &deployment.spec.selector,
            |_: &ReplicaSet| true,
        )
        .await?;
        let pods = informers.pods.clone();
        let has_pods = move |uid: &str| pods.indexed(uid).iter().any(|pod| !pod.finished());
        let mut plan = plan::plan(&World {
            deployment: &deployment,
            sets: &sets,
            has_pods: &has_pods,
            now: Timestamp::now(),
        });
        let mut outcome = Ok(());
        for action in std::mem::take(&mut plan.actions) {
            outcome = self.carry_out(&deployment, action, &mut plan.status).await;
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            let (recorder, about) = (&self.context.recorder, &deployment.metadata);
            for (reason, message) in plan.events {
                recorder.normal(NAME, &DEPLOYMENTS, about, reason, message);
            }
            if let Some((reason, message)) = plan.warning {
                recorder.warning(NAME, &DEPLOYMENTS, about, reason, message);
            }
        }
        self.write_status(&deployment, plan.status).await?;
        outcome?;
        Ok(plan.after.map_or(Outcome::Done, Outcome::After))
    }
}

impl Deployments {
    async fn carry_out(
        &self,
        deployment: &Deployment,
        action: Action,
        status: &mut DeploymentStatus,
    ) -> Result<(), ApiError> {
        let api = &self.context.api;
        let informers = &self.context.informers;
        match action {
            Action::Create {
                name,
                hash,
                replicas,
                annotations,
            } => {
                let object = replica_set(deployment, &name, &hash, replicas, &annotations);
                match api
                    .create::<ReplicaSet>(&REPLICA_SETS, &deployment.metadata.namespace, &object)
                    .await
                {
                    Ok(created) => informers.replica_sets.apply(created),
                    Err(error) if error.already_exists() => {
                        let key = Key::new(&deployment.metadata.namespace, &name);
                        let there: Option<ReplicaSet> = api.get(&REPLICA_SETS, &key).await?;
                        match there {
                            Some(set)
                                if set.metadata.controlled_by(&deployment.metadata.uid)
                                    && plan::same_template(
                                        &set.spec.template,
                                        &deployment.spec.template,
                                    ) =>
                            {
                                // Ours, from before; the cache has not shown it yet.
                                informers.replica_sets.apply(set);
                            }
                            Some(_) => {
                                // The name is taken by another template: the next one has another
                                // hash. Nothing else has happened.
                                let before = deployment.status.clone();
                                *status = DeploymentStatus {
                                    collision_count: Some(before.collision_count.unwrap_or(0) + 1),
                                    ..before
                                };
                                return Err(error);
                            }
                            None => return Err(error),
                        }
                    }
                    Err(error) => {
                        self.creation_failed(deployment, &name, &error, status);
                        return Err(error);
                    }
                }
            }
            Action::Update {
                set,
                replicas,
                annotations,
                min_ready_seconds,
            } => {
                let removed = set
                    .metadata
                    .annotations
                    .iter()
                    .filter(|(k, _)| annotations.get(k).is_none());
                let mut changed = annotations.to_json();
                for (key, _) in removed {
                    changed[key] = Value::Null;
                }
                let patch = Patch::Merge(json!({
                    "metadata": {"uid": &*set.metadata.uid, "annotations": changed},
                    "spec": {"replicas": replicas, "minReadySeconds": or_null(min_ready_seconds)},
                }));
                let updated: ReplicaSet = api
                    .patch(&REPLICA_SETS, &set.metadata.key(), None, &patch)
                    .await?;
                informers.replica_sets.apply(updated);
            }
            Action::Delete(set) => {
                let deletion = Deletion {
                    propagation: Some(PropagationPolicy::Background),
                    ..Deletion::of(&set.metadata.uid)
                };
                api.delete(&REPLICA_SETS, &set.metadata.key(), deletion)
                    .await?;
            }
            Action::RollBack(to) => {
                let meta = &deployment.metadata;
                let mut change = json!({"metadata": {
                    "uid": &*meta.uid,
                    "resourceVersion": meta.version.to_string(),
                    "annotations": {ROLLBACK_TO: null},
                }});
                if let Some((template, annotations)) = to {
                    change["metadata"]["annotations"] = annotations.to_json();
                    change["spec"]["template"] = template;
                    for replaced in ["/metadata/annotations", "/spec/template"] {
                        if let Some(field) = change.pointer_mut(replaced) {
                            field["$patch"] = "replace".into();
                        }
                    }
                }
                let patch = Patch::Strategic(change);
                let key = meta.key();
                api.patch::<MetaOnly>(&DEPLOYMENTS, &key, None, &patch)
                    .await?;
            }
            Action::SetRevision(number) => {
                let patch = Patch::Merge(json!({"metadata": {
                    "uid": &*deployment.metadata.uid,
                    "annotations": {REVISION: number},
                }}));
                api.patch::<MetaOnly>(&DEPLOYMENTS, &deployment.metadata.key(), None, &patch)
                    .await?;
            }
        }
        Ok(())
    }

    fn creation_failed(
        &self,
        deployment: &Deployment,
        name: &str,
        error: &ApiError,
        status: &mut DeploymentStatus,
    ) {
        if error.namespace_terminating() {
            return;
        }
        let message = format!(
            "Failed to create new replica set \"{name}\": {}",
            error.message()
        );
        self.context.recorder.warning(
            NAME,
            &DEPLOYMENTS,
            &deployment.metadata,
            "ReplicaSetCreateError",
            message.clone(),
        );
        if deployment.spec.progress_deadline_seconds.is_some() {
            status::set(
                status,
                status::condition(
                    status::PROGRESSING,
                    "False",
                    "ReplicaSetCreateError",
                    message,
                    Timestamp::now(),
                ),
            );
        }
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> Result<(), ApiError> {
        if status == deployment.status {
            return Ok(());
        }
        let body = json!({
            "observedGeneration": status.observed_generation,
            "replicas": or_null(status.replicas),
            "updatedReplicas": or_null(status.updated_replicas),
            "readyReplicas": or_null(status.ready_replicas),
            "availableReplicas": or_null(status.available_replicas),
            "unavailableReplicas": or_null(status.unavailable_replicas),
            "terminatingReplicas": status.terminating_replicas,
            "collisionCount": status.collision_count,
            "conditions": status.conditions,
        });
        self.context
            .informers
            .deployments
            .write_status(&self.context.api, &deployment.metadata, body)
            .await
    }
}

/// The ReplicaSet of a Deployment's template.
fn replica_set(
    deployment: &Deployment,
    name: &str,
    hash: &str,
    replicas: i32,
    annotations: &Labels,
) -> Value {
    let mut template = (*deployment.spec.template).clone();
    template["metadata"]["labels"][TEMPLATE_HASH] = hash.into();
    let mut spec = json!({
        "replicas": replicas,
        "selector": deployment.spec.selector.with(TEMPLATE_HASH, hash).to_json(),
        "template": template,
    });
    if deployment.spec.min_ready_seconds > 0 {
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds.into();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": &*deployment.metadata.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": annotations.to_json(),
            "ownerReferences": [Owner::controller_json(&DEPLOYMENTS, &deployment.metadata)],
        },
        "spec": spec,
    })
}
