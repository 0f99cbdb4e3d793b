//! The shell of the ReplicaSet and ReplicationController controllers.

use std::sync::Arc;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::plan::{self, World};
use crate::model::meta::MetaOnly;
use crate::model::workload::{ReplicaSet, ReplicaSetStatus, ReplicationController};
use crate::model::{Key, Labels, Meta, PODS, Pod, REPLICATION_CONTROLLERS, Watched};
use crate::ownership;
use crate::runtime::api::{Deletion, or_null};
use crate::runtime::controller::{self, slow_start, together};
use crate::runtime::{ApiError, Context, Controller, Expectations, Informer, Outcome, Queue};
use crate::selector::Selector;

/// What the two kinds have in common.
pub trait Replicated: Watched {
    const CONTROLLER: &'static str;
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn selector(&self) -> Selector;
    fn template(&self) -> &Value;
    fn status(&self) -> &ReplicaSetStatus;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }
    fn selector(&self) -> Selector {
        self.spec.selector.clone()
    }
    fn template(&self) -> &Value {
        &self.spec.template
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";
    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }
    fn selector(&self) -> Selector {
        Selector::of_labels(self.spec.selector.clone())
    }
    fn template(&self) -> &Value {
        &self.spec.template
    }
    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }
}

struct Sets<T> {
    context: Context,
    informer: Arc<Informer<T>>,
    expectations: Arc<Expectations>,
}

pub fn start_replica_sets(
    context: &Context,
    workers: usize,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    start::<ReplicaSet>(context, context.informers.replica_sets.clone(), workers)
}

pub fn start_replication_controllers(
    context: &Context,
    workers: usize,
) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    start::<ReplicationController>(
        context,
        context.informers.replication_controllers.clone(),
        workers,
    )
}

fn start<T: Replicated>(
    context: &Context,
    informer: Arc<Informer<T>>,
    workers: usize,
) -> impl FnOnce(&mut JoinSet<()>) + use<T> {
    let queue = Arc::new(Queue::default());
    let expectations = Arc::new(Expectations::default());
    ownership::follow(
        &informer,
        &context.informers.pods,
        &queue,
        &expectations,
        |set: &T, pod| {
            let selector = set.selector();
            !selector.is_empty() && selector.matches(&pod.meta.labels)
        },
    );
    let controller = Arc::new(Sets {
        context: context.clone(),
        informer,
        expectations,
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl<T: Replicated> Controller for Sets<T> {
    fn name(&self) -> &'static str {
        T::CONTROLLER
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let Some(set) = self.informer.get(key) else {
            return Ok(Outcome::Done);
        };
        let selector = set.selector();
        if selector.is_empty() {
            return Ok(Outcome::Done);
        }
        let settled = self.expectations.satisfied(key);
        let informers = &self.context.informers;
        let pods = ownership::claim(
            &self.context.api,
            &informers.pods,
            &T::KIND,
            set.meta(),
            &selector,
            // Finished orphans count for nothing.
            |pod: &Pod| pod.active(),
        )
        .await?;
        let template_labels = Labels::from_json(set.template().pointer("/metadata/labels"));
        let mut world = World {
            generation: set.meta().generation,
            deleting: set.meta().deleted.is_some(),
            replicas: set.replicas(),
            min_ready_seconds: set.min_ready_seconds(),
            template_labels: &template_labels,
            status: set.status(),
            pods: &pods,
            per_node: &FxHashMap::default(),
            now: Timestamp::now(),
        };
        let too_many = pods.iter().filter(|p| p.active()).count()
            > usize::try_from(set.replicas()).unwrap_or(0);
        let per_node = if too_many && settled {
            self.per_node(set.meta())
        } else {
            FxHashMap::default()
        };
        world.per_node = &per_node;
        let plan = plan::plan(&world);
        let mut failed = None;
        if settled {
            failed = self.carry_out(set.as_ref(), &plan).await;
        }
        let failure = failed
            .as_ref()
            // That nothing can be made in a namespace that goes away is no failure of the set.
            .filter(|error| !error.namespace_terminating())
            .map(ApiError::message);
        let status = plan::status(&world, failure.as_deref());
        self.write_status(set.as_ref(), status).await?;
        match failed {
            Some(error) if error.namespace_terminating() => Ok(Outcome::Done),
            Some(error) => Err(error),
            // Expectations bring the key back for the rest of a burst.
            None => Ok(plan.after.map_or(Outcome::Done, Outcome::After)),
        }
    }
}

impl<T: Replicated> Sets<T> {
    /// Pods of this set and its siblings on each node.
    fn per_node(&self, meta: &Meta) -> FxHashMap<Arc<str>, usize> {
        let siblings = match meta.controller() {
            Some(owner) => self.informer.indexed(&owner.uid),
            None => self.informer.get(&meta.key()).into_iter().collect(),
        };
        let mut count = FxHashMap::default();
        for sibling in siblings {
            for pod in self.context.informers.pods.indexed(&sibling.meta().uid) {
                if let Some(node) = pod.node.clone().filter(|_| pod.active()) {
                    *count.entry(node).or_insert(0) += 1;
                }
            }
        }
        count
    }

    async fn carry_out(&self, set: &T, plan: &plan::Plan) -> Option<ApiError> {
        let (api, recorder) = (&self.context.api, &self.context.recorder);
        let meta = set.meta();
        let owner = &meta.key();
        if plan.create > 0 {
            let mut pod = ownership::pod_from_template(set.template(), &T::KIND, meta);
            let mut prefix = format!("{}-", meta.name);
            // Names that leave no room for a suffix lose their dash, as in `podtemplate` of 1.36.
            if prefix.len() > 248 {
                prefix.truncate(248);
            }
            pod["metadata"]["generateName"] = prefix.into();
            self.expectations.expect_creations(owner, plan.create);
            let (succeeded, error) = slow_start(plan.create, |_| {
                let pod = &pod;
                async move {
                    match api.create::<MetaOnly>(&PODS, &meta.namespace, pod).await {
                        Ok(created) => {
                            let name = &created.metadata.name;
                            recorder.normal(
                                T::CONTROLLER,
                                &T::KIND,
                                meta,
                                "SuccessfulCreate",
                                format!("Created pod: {name}"),
                            );
                            Ok(())
                        }
                        Err(error) => {
                            if !error.namespace_terminating() {
                                let message = format!("Error creating: {}", error.message());
                                recorder.warning(
                                    T::CONTROLLER,
                                    &T::KIND,
                                    meta,
                                    "FailedCreate",
                                    message,
                                );
                            }
                            Err(error)
                        }
                    }
                }
            })
            .await;
            // Those that failed, and those not tried after a failure, will not be seen.
            for _ in succeeded..plan.create {
                self.expectations.created(owner);
            }
            if error.is_some() {
                return error;
            }
        }
        for pod in &plan.delete {
            self.expectations
                .expect_deletion(owner, pod.meta.uid.clone());
        }
        let (_, error) = together(0..plan.delete.len(), |i| {
            let pod: Option<&Arc<Pod>> = plan.delete.get(i);
            async move {
                let Some(pod) = pod else { return Ok(()) };
                let name = &pod.meta.name;
                match api
                    .delete(&PODS, &pod.meta.key(), Deletion::of(&pod.meta.uid))
                    .await
                {
                    Ok(there) => {
                        if !there {
                            self.expectations.deleted(owner, &pod.meta.uid);
                            return Ok(());
                        }
                        recorder.normal(
                            T::CONTROLLER,
                            &T::KIND,
                            meta,
                            "SuccessfulDelete",
                            format!("Deleted pod: {name}"),
                        );
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.deleted(owner, &pod.meta.uid);
                        let message = format!("Error deleting: {}", error.message());
                        recorder.warning(T::CONTROLLER, &T::KIND, meta, "FailedDelete", message);
                        Err(error)
                    }
                }
            }
        })
        .await;
        error
    }

    async fn write_status(&self, set: &T, status: ReplicaSetStatus) -> Result<(), ApiError> {
        let old = set.status();
        let mut status = status;
        let core = T::KIND == REPLICATION_CONTROLLERS;
        if core {
            status.terminating_replicas = None;
        }
        if *old == status {
            return Ok(());
        }
        let mut body = json!({
            "replicas": status.replicas,
            "fullyLabeledReplicas": or_null(status.fully_labeled_replicas),
            "readyReplicas": or_null(status.ready_replicas),
            "availableReplicas": or_null(status.available_replicas),
            "observedGeneration": status.observed_generation,
        });
        if let Some(n) = status.terminating_replicas {
            body["terminatingReplicas"] = n.into();
        }
        if old.conditions != status.conditions {
            body["conditions"] = if status.conditions.is_empty() {
                Value::Null
            } else {
                json!(status.conditions)
            };
        }
        self.informer
            .write_status(&self.context.api, set.meta(), body)
            .await
    }
}
