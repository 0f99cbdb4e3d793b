//! The shell of node lifecycle: looks at all nodes now and then, and when one changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::Patch;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::plan::{self, Health, Heard, Limits, Pace, Zone};
use super::taints;
use crate::model::node::{Lease, Node};
use crate::model::pod::node_index;
use crate::model::{Key, Meta, NODES, PODS, Pod};
use crate::runtime::api::{Api, Deletion};
use crate::runtime::{ApiError, Context, controller};

const NAME: &str = "node-controller";
const LEASES_IN: &str = "kube-node-lease";
/// Node changes that come within this time are looked at together.
const BATCH: Duration = Duration::from_millis(100);

struct Lifecycle {
    context: Context,
    /// By the uid of the node.
    heard: FxHashMap<Arc<str>, (Arc<str>, Heard)>,
    limits: Limits,
}

/// Registers the controller's handlers; it starts with the returned function.
pub fn start(context: &Context, _workers: usize) -> impl FnOnce(&mut JoinSet<()>) + use<> {
    let wake = Arc::new(Notify::new());
    context.informers.pods.want();
    context.informers.leases.want();
    {
        let wake = wake.clone();
        context.informers.nodes.on_change(move |old, new| {
            // Heartbeats are no reason to look: they come all the time.
            let ready = |n: &Node| n.condition("Ready").map(|c| c.status.clone());
            let same = matches!((old, new), (Some(o), Some(n))
                if ready(o) == ready(n) && o.spec == n.spec);
            if !same {
                wake.notify_one();
            }
        });
    }
    let mut lifecycle = Lifecycle {
        context: context.clone(),
        heard: FxHashMap::default(),
        limits: Limits::default(),
    };
    let context = context.clone();
    move |tasks| {
        tasks.spawn(async move {
            loop {
                let look = async {
                    let wait = lifecycle.look().await;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = wake.notified() => tokio::time::sleep(BATCH).await,
                    }
                };
                tokio::select! {
                    () = context.stop.cancelled() => return,
                    () = look => {}
                }
            }
        });
    }
}

fn zone_of(node: &Node) -> String {
    let label = |key: &str| node.metadata.labels.get(key).unwrap_or_default();
    format!(
        "{}:{}",
        label("topology.kubernetes.io/region"),
        label("topology.kubernetes.io/zone")
    )
}

impl Lifecycle {
    /// An event about a node, in the words of Kubernetes.
    fn tell(&self, node: &Meta, reason: &'static str, what: &str) {
        let message = format!("Node {} event: {what}", node.name);
        let recorder = &self.context.recorder;
        recorder.normal(NAME, &NODES, node, reason, message);
    }

    /// Looks at all nodes; how long to wait until the next look.
    async fn look(&mut self) -> Duration {
        let now = Timestamp::now();
        let timing = self.context.node_timing;
        let informers = &self.context.informers;
        let nodes = informers.nodes.all();
        let mut heard = std::mem::take(&mut self.heard);
        let mut looked = Vec::with_capacity(nodes.len());
        for node in nodes {
            let lease: Option<Arc<Lease>> = informers.leases.get(&Key {
                namespace: LEASES_IN.into(),
                name: node.metadata.name.clone(),
            });
            let of_node = match heard.remove(&node.metadata.uid) {
                Some((_, mut of_node)) => {
                    of_node.look(&node, lease.as_deref(), now);
                    of_node
                }
                None => {
                    let what = format!("Registered Node {} in Controller", node.metadata.name);
                    self.tell(&node.metadata, "RegisteredNode", &what);
                    Heard::first(&node, lease.as_deref(), now)
                }
            };
            let health = plan::health(&node, of_node.at, timing, now);
            let name = node.metadata.name.clone();
            self.heard
                .insert(node.metadata.uid.clone(), (name, of_node));
            let zone = zone_of(&node);
            looked.push((node, health, zone));
        }
        for (uid, (name, _)) in heard {
            let what = format!("Removing Node {name} from Controller");
            let gone = Meta {
                name,
                uid,
                ..Meta::default()
            };
            self.tell(&gone, "RemovingNode", &what);
        }
        let weighed = looked
            .iter()
            .map(|(node, health, zone)| (&**node, *health, zone.as_str()));
        let (names, counts): (Vec<&str>, Vec<Zone>) = plan::zones(weighed).into_iter().unzip();
        let paces: FxHashMap<&str, Pace> = names.into_iter().zip(plan::paces(&counts)).collect();
        let mut next = timing.period;
        for (node, health, zone) in &looked {
            let pace = paces.get(zone.as_str()).copied().unwrap_or(Pace::USUAL);
            if let Err(error) = self.settle(node, *health, zone, pace, now).await
                && !error.not_found()
            {
                tracing::debug!(
                    node = &*node.metadata.name,
                    error = &error as &dyn std::error::Error,
                    "node not settled; trying again"
                );
            }
            match self.evict(node, now).await {
                Ok(Some(soonest)) => next = next.min(soonest),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        node = &*node.metadata.name,
                        error = &error as &dyn std::error::Error,
                        "pods not evicted; trying again"
                    );
                }
            }
        }
        next
    }

    /// Writes what a node's health means for its conditions, its taints and its pods' readiness.
    async fn settle(
        &mut self,
        node: &Node,
        health: Health,
        zone: &str,
        pace: Pace,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let meta = &node.metadata;
        let api = &self.context.api;
        let informers = &self.context.informers;
        let mut version = meta.version;
        if health == Health::Unknown {
            let conditions = plan::unknown_conditions(node, now);
            if !conditions.is_empty() {
                // A kubelet that reports at this moment wins.
                let patch = Patch::Strategic(json!({
                    "metadata": {"uid": &*meta.uid, "resourceVersion": version.to_string()},
                    "status": {"conditions": conditions},
                }));
                let written: Node = api
                    .patch(&NODES, &meta.key(), Some("status"), &patch)
                    .await?;
                version = written.metadata.version;
                informers.nodes.apply(written);
                if node
                    .condition("Ready")
                    .is_none_or(|c| c.status != "Unknown")
                {
                    let message = format!("Node {} status is now: NodeNotReady", meta.name);
                    let recorder = &self.context.recorder;
                    recorder.normal(NAME, &NODES, meta, "NodeNotReady", message);
                }
            }
        }
        let limits = &mut self.limits;
        let taints = plan::wanted_taints(node, health, pace, || limits.take(zone, pace, now), now);
        if let Some(taints) = taints {
            let taints = if taints.is_empty() {
                Value::Null
            } else {
                json!(taints)
            };
            let patch = Patch::Merge(json!({
                "metadata": {"uid": &*meta.uid, "resourceVersion": version.to_string()},
                "spec": {"taints": taints},
            }));
            informers
                .nodes
                .apply(api.patch(&NODES, &meta.key(), None, &patch).await?);
        }
        if health == Health::Unknown {
            let unready: Vec<Arc<Pod>> = informers
                .pods
                .indexed(&node_index(&meta.name))
                .into_iter()
                .filter(|p| p.ready)
                .collect();
            let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let recorder = &self.context.recorder;
            let write = |n: usize| {
                let pod = unready.get(n);
                let condition =
                    json!({"type": "Ready", "status": "False", "lastTransitionTime": at});
                async move {
                    match pod {
                        Some(pod) => {
                            write_status(api, pod, json!({"conditions": [condition]})).await?;
                            let message = "Node is not ready".to_owned();
                            recorder.warning(NAME, &PODS, &pod.meta, "NodeNotReady", message);
                            Ok(())
                        }
                        None => Ok(()),
                    }
                }
            };
            if let (_, Some(error)) = controller::together(0..unready.len(), write).await {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the pods whose toleration of the node's taints is over; how long until that of the
    /// next one is.
    async fn evict(&self, node: &Node, now: Timestamp) -> Result<Option<Duration>, ApiError> {
        let informers = &self.context.informers;
        // With the taints that have just been written.
        let Some(node) = informers.nodes.get(&node.metadata.key()) else {
            return Ok(None);
        };
        if !node.spec.taints.iter().any(|t| t.effect == "NoExecute") {
            return Ok(None);
        }
        let mut due = Vec::new();
        let mut soonest: Option<Duration> = None;
        for pod in informers.pods.indexed(&node_index(&node.metadata.name)) {
            if pod.terminating() {
                continue;
            }
            let Some(at) = taints::leaves_at(&pod, &node.spec.taints) else {
                continue;
            };
            if at <= now {
                due.push(pod);
            } else if let Ok(left) = Duration::try_from(at.duration_since(now)) {
                soonest = Some(soonest.map_or(left, |s| s.min(left)));
            }
        }
        let evict = |n: usize| {
            let pod = due.get(n);
            async move {
                match pod {
                    Some(pod) => self.evict_one(pod).await,
                    None => Ok(()),
                }
            }
        };
        match controller::together(0..due.len(), evict).await {
            (_, Some(error)) => Err(error),
            _ => Ok(soonest),
        }
    }

    async fn evict_one(&self, pod: &Pod) -> Result<(), ApiError> {
        let api = &self.context.api;
        let message = format!("Marking for deletion Pod {}", pod.meta.key());
        let reason = "TaintManagerEviction";
        let recorder = &self.context.recorder;
        recorder.normal(
            "taint-eviction-controller",
            &PODS,
            &pod.meta,
            reason,
            message,
        );
        let message = "Taint manager: deleting due to NoExecute taint";
        disrupt(api, pod, "DeletionByTaintManager", message, None).await?;
        let deletion = Deletion::of(&pod.meta.uid);
        match api.delete(&PODS, &pod.meta.key(), deletion).await {
            // Another pod has the name by now.
            Err(error) if !error.conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Notes in a pod's status that a disruption ends it, and the phase that it thereby comes to.
pub(crate) async fn disrupt(
    api: &Api,
    pod: &Pod,
    reason: &str,
    message: &str,
    phase: Option<&str>,
) -> Result<(), ApiError> {
    let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut status = json!({"conditions": [{"type": "DisruptionTarget", "status": "True",
        "reason": reason, "message": message, "lastTransitionTime": at,
        "observedGeneration": pod.meta.generation}]});
    if let Some(phase) = phase {
        status["phase"] = phase.into();
        status["observedGeneration"] = pod.meta.generation.into();
    }
    write_status(api, pod, status).await
}

/// Notes that a pod that has not finished never will.
pub(crate) async fn fail(api: &Api, pod: &Pod) -> Result<(), ApiError> {
    let generation = pod.meta.generation;
    write_status(
        api,
        pod,
        json!({"phase": "Failed", "observedGeneration": generation}),
    )
    .await
}

async fn write_status(api: &Api, pod: &Pod, status: Value) -> Result<(), ApiError> {
    let patch = Patch::Strategic(json!({"metadata": {"uid": &*pod.meta.uid}, "status": status}));
    match api
        .patch::<crate::model::meta::MetaOnly>(&PODS, &pod.meta.key(), Some("status"), &patch)
        .await
    {
        // Gone, or another of that name.
        Err(error) if !error.not_found() && !error.conflict() => Err(error),
        _ => Ok(()),
    }
}
