//! The shell of the DaemonSet controller: watches, carries out plans, writes status and revisions.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Patch;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::needs::own_tolerations;
use super::plan::{self, HASH, Plan, World};
use crate::hash::template_hash;
use crate::history;
use crate::model::meta::MetaOnly;
use crate::model::workload::{DaemonSet, DaemonSetStatus, Revision};
use crate::model::{DAEMON_SETS, Key, PODS, Pod, REVISIONS};
use crate::ownership;
use crate::runtime::api::{Deletion, or_null};
use crate::runtime::controller::{self, slow_start, together};
use crate::runtime::{ApiError, Context, Controller, Expectations, Outcome, Queue};

const NAME: &str = "daemonset-controller";
/// Many nodes change together: their news are taken in one look.
const CALM: Duration = Duration::from_millis(100);
/// How soon to look again after revisions of one template have become one.
const MERGED: Duration = Duration::from_millis(100);
/// A pod that keeps ending is replaced ever more slowly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// For a set and a node: until when it is left alone, and how long the wait was.
type Waits = FxHashMap<(Arc<str>, Arc<str>), (Instant, Duration)>;

struct DaemonSets {
    context: Context,
    expectations: Arc<Expectations>,
    waits: Mutex<Waits>,
}

/// Registers the controller's handlers; its workers start with the returned function.
pub fn start(context: &Context, workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let queue = Arc::new(Queue::default());
    let expectations = Arc::new(Expectations::default());
    let informers = &context.informers;
    ownership::follow(
        &informers.daemon_sets,
        &informers.pods,
        &queue,
        &expectations,
        |set, pod| set.spec.selector.matches(&pod.meta.labels),
    );
    {
        let (queue, sets) = (queue.clone(), informers.daemon_sets.clone());
        informers.revisions.on_change(move |_, new| {
            // One without an owner may be taken in.
            let Some(meta) = new
                .map(|r| &r.metadata)
                .filter(|m| m.controller().is_none())
            else {
                return;
            };
            for set in sets.in_namespace(&meta.namespace) {
                if set.spec.selector.matches(&meta.labels) {
                    queue.add(set.metadata.key());
                }
            }
        });
    }
    {
        let (queue, sets) = (queue.clone(), informers.daemon_sets.clone());
        informers.nodes.on_change(move |old, new| {
            // Heartbeats are none of a DaemonSet's business.
            if let (Some(old), Some(new)) = (old, new)
                && old.metadata.labels == new.metadata.labels
                && old.spec.taints == new.spec.taints
            {
                return;
            }
            for set in sets.all() {
                queue.add_after(set.metadata.key(), CALM);
            }
        });
    }
    let controller = Arc::new(DaemonSets {
        context: context.clone(),
        expectations,
        waits: Mutex::default(),
    });
    let stop = context.stop.clone();
    move |tasks| controller::spawn(controller, &queue, workers, tasks, &stop)
}

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ApiError> {
        let informers = &self.context.informers;
        let Some(set) = informers.daemon_sets.get(key) else {
            return Ok(Outcome::Done);
        };
        if set.spec.selector.is_empty() {
            self.context.recorder.warning(
                NAME,
                &DAEMON_SETS,
                &set.metadata,
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.".into(),
            );
            return Ok(Outcome::Done);
        }
        if !self.expectations.satisfied(key) {
            return Ok(Outcome::Done);
        }
        let pods = ownership::claim(
            &self.context.api,
            &informers.pods,
            &DAEMON_SETS,
            &set.metadata,
            &set.spec.selector,
            |_: &Pod| true,
        )
        .await?;
        let revisions = ownership::claim(
            &self.context.api,
            &informers.revisions,
            &DAEMON_SETS,
            &set.metadata,
            &set.spec.selector,
            |_: &Revision| true,
        )
        .await?;
        let mut collisions = set.status.collision_count;
        let hash = match set.metadata.deleted {
            None => {
                let revision = self.revision(&set, &revisions, &mut collisions).await?;
                let duplicates = history::duplicates(&revision, &revisions);
                if !duplicates.is_empty() {
                    self.merge(&revision, &duplicates, &pods).await?;
                    return Ok(Outcome::After(MERGED));
                }
                revision_hash(&revision).to_owned()
            }
            Some(_) => String::new(),
        };
        let nodes = informers.nodes.all();
        let mut plan = plan::plan(&World {
            set: &set,
            nodes: &nodes,
            pods: &pods,
            hash: &hash,
            now: Timestamp::now(),
        });
        plan.status.collision_count = collisions;
        let wait = self.hold_back(&set, &mut plan);
        let result = self.carry_out(&set, &plan, &hash).await;
        let status = std::mem::take(&mut plan.status);
        self.write_status(&set, status).await?;
        match result {
            Err(error) if error.namespace_terminating() => return Ok(Outcome::Done),
            result => result?,
        }
        if set.metadata.deleted.is_none() {
            let live = pods.iter().filter_map(|p| p.meta.labels.get(HASH));
            let live: Vec<&str> = live.chain([hash.as_str()]).collect();
            let limit = set.spec.revision_history_limit;
            let is_live = |r: &Revision| {
                let hash = r.metadata.labels.get(HASH);
                hash.is_some_and(|hash| live.contains(&hash))
            };
            history::forget(&self.context, limit, &revisions, is_live).await?;
        }
        let soonest = [plan.after, wait].into_iter().flatten().min();
        Ok(soonest.map_or(Outcome::Done, Outcome::After))
    }
}

fn revision_hash(revision: &Revision) -> &str {
    revision.metadata.labels.get(HASH).unwrap_or_default()
}

impl DaemonSets {
    /// Takes out of the plan the pods that ended too short after others did on their nodes, and
    /// tells how long to wait for the first of them.
    fn hold_back(&self, set: &DaemonSet, plan: &mut Plan) -> Option<Duration> {
        let mut waits = self.waits.lock();
        let now = Instant::now();
        let mut soonest = None;
        let mut held: Vec<Arc<str>> = Vec::new();
        for pod in &plan.ended {
            let Some(node) = pod.node.clone() else {
                continue;
            };
            let id = (set.metadata.uid.clone(), node);
            match waits.get(&id) {
                Some((until, _)) if *until > now => {
                    let left = until.duration_since(now);
                    soonest = Some(soonest.map_or(left, |s: Duration| s.min(left)));
                    held.push(pod.meta.uid.clone());
                }
                earlier => {
                    let wait = earlier.map_or(FIRST_WAIT, |(until, wait)| {
                        // Long quiet since: it starts anew.
                        if now.duration_since(*until) > LONGEST_WAIT * 2 {
                            FIRST_WAIT
                        } else {
                            (*wait * 2).min(LONGEST_WAIT)
                        }
                    });
                    waits.insert(id, (now + wait, wait));
                }
            }
        }
        plan.delete.retain(|p| !held.contains(&p.meta.uid));
        plan.ended.retain(|p| !held.contains(&p.meta.uid));
        soonest
    }

    /// The revision of the template.
    async fn revision(
        &self,
        set: &DaemonSet,
        revisions: &[Arc<Revision>],
        collisions: &mut Option<i32>,
    ) -> Result<Arc<Revision>, ApiError> {
        let (template, meta) = (&set.spec.template, &set.metadata);
        let data = history::data_of(template);
        let object = |number, collisions| {
            let hash = template_hash(template, collisions);
            history::object_named(&DAEMON_SETS, meta, template, &data, number, (HASH, &hash))
        };
        history::ensure(&self.context, meta, &data, revisions, collisions, object).await
    }

    /// Of several revisions of one template one is kept, and the pods of the others are its.
    async fn merge(
        &self,
        kept: &Revision,
        duplicates: &[Arc<Revision>],
        pods: &[Arc<Pod>],
    ) -> Result<(), ApiError> {
        let (api, informers) = (&self.context.api, &self.context.informers);
        let hashes: Vec<&str> = duplicates.iter().map(|d| revision_hash(d)).collect();
        for pod in pods {
            if !hashes.contains(&pod.meta.labels.get(HASH).unwrap_or_default()) {
                continue;
            }
            let patch = Patch::Merge(json!({"metadata": {
                "uid": &*pod.meta.uid,
                "labels": {HASH: revision_hash(kept)},
            }}));
            match api.patch(&PODS, &pod.meta.key(), None, &patch).await {
                Ok(written) => informers.pods.apply(written),
                Err(error) if error.not_found() || error.conflict() => {}
                Err(error) => return Err(error),
            }
        }
        for duplicate in duplicates {
            let key = duplicate.metadata.key();
            let deletion = Deletion::of(&duplicate.metadata.uid);
            api.delete(&REVISIONS, &key, deletion).await?;
            informers.revisions.remove(&key);
        }
        Ok(())
    }

    async fn carry_out(&self, set: &DaemonSet, plan: &Plan, hash: &str) -> Result<(), ApiError> {
        let (api, recorder) = (&self.context.api, &self.context.recorder);
        let (meta, owner) = (&set.metadata, &set.metadata.key());
        let warn = |reason, message| recorder.warning(NAME, &DAEMON_SETS, meta, reason, message);
        for pod in &plan.ended {
            let node = pod.node.as_deref().unwrap_or("");
            let (what, reason) = match pod.phase {
                crate::model::pod::Phase::Succeeded => ("succeeded", "SucceededDaemonPod"),
                _ => ("failed", "FailedDaemonPod"),
            };
            let (namespace, name) = (&pod.meta.namespace, &pod.meta.name);
            let message = format!(
                "Found {what} daemon pod {namespace}/{name} on node {node}, will try to {} it",
                if what == "failed" { "kill" } else { "delete" }
            );
            match what {
                "failed" => warn(reason, message),
                _ => recorder.normal(NAME, &DAEMON_SETS, meta, reason, message),
            }
        }
        if !plan.create.is_empty() {
            let base = self.pod(set, hash);
            self.expectations.expect_creations(owner, plan.create.len());
            let (succeeded, error) = slow_start(plan.create.len(), |i| {
                let base = &base;
                let node = plan.create.get(i);
                async move {
                    let Some(node) = node else { return Ok(()) };
                    let pod = on_node(base, node);
                    match api.create::<MetaOnly>(&PODS, &meta.namespace, &pod).await {
                        Ok(created) => {
                            let message = format!("Created pod: {}", created.metadata.name);
                            recorder.normal(NAME, &DAEMON_SETS, meta, "SuccessfulCreate", message);
                            Ok(())
                        }
                        Err(error) => {
                            if !error.namespace_terminating() {
                                warn(
                                    "FailedCreate",
                                    format!("Error creating: {}", error.message()),
                                );
                            }
                            Err(error)
                        }
                    }
                }
            })
            .await;
            for _ in succeeded..plan.create.len() {
                self.expectations.created(owner);
            }
            if let Some(error) = error {
                return Err(error);
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
                let deletion = Deletion::of(&pod.meta.uid);
                match api.delete(&PODS, &pod.meta.key(), deletion).await {
                    Ok(there) => {
                        if !there {
                            self.expectations.deleted(owner, &pod.meta.uid);
                            return Ok(());
                        }
                        let message = format!("Deleted pod: {name}");
                        recorder.normal(NAME, &DAEMON_SETS, meta, "SuccessfulDelete", message);
                        Ok(())
                    }
                    Err(error) => {
                        self.expectations.deleted(owner, &pod.meta.uid);
                        warn(
                            "FailedDelete",
                            format!("Error deleting: {}", error.message()),
                        );
                        Err(error)
                    }
                }
            }
        })
        .await;
        error.map_or(Ok(()), Err)
    }

    /// A pod of today's template, but for the node.
    fn pod(&self, set: &DaemonSet, hash: &str) -> Value {
        let mut pod = ownership::pod_from_template(&set.spec.template, &DAEMON_SETS, &set.metadata);
        pod["metadata"]["generateName"] = format!("{}-", set.metadata.name).into();
        pod["metadata"]["labels"][HASH] = hash.into();
        let generation = set
            .metadata
            .annotations
            .get("deprecated.daemonset.template.generation");
        if let Some(generation) = generation {
            pod["metadata"]["labels"]["pod-template-generation"] = generation.into();
        }
        let host_network = pod["spec"]["hostNetwork"] == true;
        let mut tolerations = pod["spec"]["tolerations"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for own in own_tolerations(host_network) {
            let same = |t: &Value| {
                ["key", "operator", "effect"]
                    .iter()
                    .all(|f| t[*f] == own[*f])
                    && t.get("tolerationSeconds").is_none()
            };
            if !tolerations.iter().any(same) {
                tolerations.push(own);
            }
        }
        pod["spec"]["tolerations"] = tolerations.into();
        pod
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), ApiError> {
        if status == set.status {
            return Ok(());
        }
        let mut body = json!({
            "observedGeneration": status.observed_generation,
            "currentNumberScheduled": status.current_number_scheduled,
            "numberMisscheduled": status.number_misscheduled,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "numberReady": status.number_ready,
            "updatedNumberScheduled": or_null(status.updated_number_scheduled),
            "numberAvailable": or_null(status.number_available),
            "numberUnavailable": or_null(status.number_unavailable),
        });
        if let Some(count) = status.collision_count {
            body["collisionCount"] = count.into();
        }
        self.context
            .informers
            .daemon_sets
            .write_status(&self.context.api, &set.metadata, body)
            .await
    }
}

/// The pod for one node: an affinity to its name, in every term that the template has.
fn on_node(base: &Value, node: &str) -> Value {
    let mut pod = base.clone();
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    // As Kubernetes: what the template asks has been looked at, only the name is left.
    *required = json!({"nodeSelectorTerms": [{"matchFields": field}]});
    pod
}
