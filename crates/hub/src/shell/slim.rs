//! Watched objects of members, decoded into what the planners need and nothing else: a member may hold a
//! hundred thousand pods.

use std::{borrow::Cow, collections::BTreeMap};

use gantry_api::labels;
use jiff::Timestamp;
use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer};

use crate::amount::{self, Amounts};
use crate::order::JobView;
use crate::world::{ContainerView, Gate, Instance, NodeView, SetView, Taint, Wish};

/// Null and absent are the same.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Metadata without managed fields and foreign annotations.
fn slim_meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut meta = ObjectMeta::deserialize(deserializer)?;
    meta.managed_fields = None;
    meta.owner_references = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|key, _| key == labels::IN_PLACE || key == labels::MOVED_TO);
    }
    Ok(meta)
}

macro_rules! slim_resource {
    ($name:ident, $scope:ty, $group:literal, $kind:literal, $plural:literal) => {
        impl Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}
slim_resource!(Pod, NamespaceResourceScope, "", "Pod", "pods");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(default)]
    pub containers: Vec<Container>,
    #[serde(default, deserialize_with = "nullable")]
    pub node_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Container {
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub image: String,
    #[serde(default, deserialize_with = "nullable")]
    pub resources: Resources,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Resources {
    #[serde(default, deserialize_with = "nullable")]
    pub requests: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    #[serde(default, deserialize_with = "nullable")]
    pub phase: String,
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
    pub observed_generation: Option<i64>,
    #[serde(rename = "podIP", default, deserialize_with = "nullable")]
    pub pod_ip: String,
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Vec<PodCondition>,
    #[serde(default, deserialize_with = "nullable")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(default, deserialize_with = "nullable")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub status: String,
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
    pub last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub name: String,
    #[serde(rename = "containerID", default, deserialize_with = "nullable")]
    pub container_id: String,
    #[serde(default)]
    pub restart_count: i32,
    #[serde(default)]
    pub ready: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub state: ContainerState,
    #[serde(default, deserialize_with = "nullable")]
    pub last_state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerState {
    pub waiting: Option<Waiting>,
    pub running: Option<Running>,
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Waiting {
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    pub started_at: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    #[serde(default)]
    pub exit_code: i32,
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
}

/// A StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Set {
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: SetSpec,
    #[serde(default)]
    pub status: SetStatus,
}
slim_resource!(
    Set,
    NamespaceResourceScope,
    "apps",
    "StatefulSet",
    "statefulsets"
);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetSpec {
    pub replicas: Option<i32>,
    #[serde(default)]
    pub template: Template,
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Template {
    #[serde(default)]
    pub metadata: TemplateMeta,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct TemplateMeta {
    #[serde(default, deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    #[serde(default, deserialize_with = "nullable")]
    pub rolling_update: RollingUpdate,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct RollingUpdate {
    pub partition: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetStatus {
    pub observed_generation: Option<i64>,
    #[serde(default, deserialize_with = "nullable")]
    pub update_revision: String,
    #[serde(default, deserialize_with = "nullable")]
    pub current_revision: String,
}

/// A Job.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Job {
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: JobSpec,
    #[serde(default)]
    pub status: JobStatus,
}
slim_resource!(Job, NamespaceResourceScope, "batch", "Job", "jobs");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    pub suspend: Option<bool>,
    pub ttl_seconds_after_finished: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobStatus {
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Vec<PodCondition>,
    pub active: Option<i32>,
}

impl Job {
    /// As the planner of the order `order` sees it.
    pub fn view(&self, order: &str) -> JobView {
        let holds = |kind: &str| {
            let mut all = self.status.conditions.iter();
            all.find(|c| c.kind == kind && c.status == "True")
        };
        let why = |c: &PodCondition| {
            let words = [c.reason.as_str(), c.message.as_str()];
            let words: Vec<&str> = words.into_iter().filter(|w| !w.is_empty()).collect();
            words.join(": ")
        };
        JobView {
            ours: label(&self.metadata, labels::ORDER).is_some_and(|o| o == order),
            complete: holds("Complete").is_some(),
            failed: holds("Failed").map(why),
            active: self.status.active.unwrap_or(0),
            expires: self.spec.ttl_seconds_after_finished.is_some(),
            suspended: self.spec.suspend.unwrap_or(false),
        }
    }
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Node {
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}
slim_resource!(Node, ClusterResourceScope, "", "Node", "nodes");

#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeSpec {
    #[serde(default)]
    pub unschedulable: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeStatus {
    #[serde(default, deserialize_with = "nullable")]
    pub allocatable: BTreeMap<String, Quantity>,
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Vec<PodCondition>,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Notes {
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    #[serde(default, deserialize_with = "nullable")]
    pub data: BTreeMap<String, String>,
}
slim_resource!(Notes, NamespaceResourceScope, "", "ConfigMap", "configmaps");

impl Node {
    /// As planners see it, without its pods.
    pub fn view(&self) -> NodeView {
        let mut total = Amounts::new();
        amount::add(&mut total, &self.status.allocatable);
        let ready = |c: &PodCondition| c.kind == "Ready" && c.status == "True";
        let taints = self.spec.taints.iter();
        NodeView {
            ready: self.status.conditions.iter().any(ready),
            cordoned: self.spec.unschedulable,
            taints: taints
                .filter(|t| t.key != "node.kubernetes.io/unschedulable")
                .cloned()
                .collect(),
            total,
            used: None,
        }
    }

    /// Ready and open for pods.
    pub fn usable(&self) -> bool {
        !self.spec.unschedulable
            && self
                .status
                .conditions
                .iter()
                .any(|c| c.kind == "Ready" && c.status == "True")
    }
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    meta.labels.as_ref()?.get(key)
}

impl Set {
    /// As planners see it.
    pub fn view(&self) -> SetView {
        let meta = &self.metadata;
        SetView {
            version: meta.resource_version.clone().unwrap_or_default(),
            replicas: self.spec.replicas.unwrap_or(1),
            partition: self
                .spec
                .update_strategy
                .rolling_update
                .partition
                .unwrap_or(0),
            revision: self
                .spec
                .template
                .metadata
                .labels
                .get(labels::REVISION)
                .and_then(|n| n.parse().ok()),
            observed: self.status.observed_generation >= meta.generation,
            update_hash: self.status.update_revision.clone(),
            current_hash: self.status.current_revision.clone(),
            terminating: meta.deletion_timestamp.is_some(),
        }
    }
}

impl Pod {
    fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    /// Ordinal of the instance: the last part of its name.
    pub fn ordinal(&self) -> Option<i32> {
        self.metadata
            .name
            .as_deref()?
            .rsplit('-')
            .next()?
            .parse()
            .ok()
    }

    /// As planners see it.
    pub fn view(&self) -> Instance {
        let meta = &self.metadata;
        let since = |c: &PodCondition| {
            c.last_transition_time
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |t| t.0)
        };
        let gate = match self.condition(labels::IN_SERVICE) {
            None => Gate::Unset,
            Some(c) if c.status == "True" => Gate::In,
            Some(c) => Gate::Out {
                reason: c.reason.clone(),
                since: since(c),
            },
        };
        let containers = self
            .spec
            .containers
            .iter()
            .map(|c| {
                let status = self
                    .status
                    .container_statuses
                    .iter()
                    .find(|s| s.name == c.name);
                let view = ContainerView {
                    image: c.image.clone(),
                    id: status.map(|s| s.container_id.clone()).unwrap_or_default(),
                    restarts: status.map_or(0, |s| s.restart_count),
                    running: status.is_some_and(|s| s.state.running.is_some()),
                };
                (c.name.clone(), view)
            })
            .collect();
        let done = matches!(self.status.phase.as_str(), "Failed" | "Succeeded");
        let ready_since = self
            .condition("ContainersReady")
            .filter(|c| c.status == "True" && !done)
            .map(since);
        Instance {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            revision: label(meta, labels::REVISION).and_then(|n| n.parse().ok()),
            hash: label(meta, labels::CONTROLLER_REVISION_HASH)
                .cloned()
                .unwrap_or_default(),
            terminating: meta.deletion_timestamp.is_some(),
            observed: self
                .status
                .observed_generation
                .is_none_or(|n| n >= meta.generation.unwrap_or(n)),
            ready_since,
            gate,
            mark: meta
                .annotations
                .as_ref()
                .and_then(|a| a.get(labels::IN_PLACE))
                .and_then(|text| serde_json::from_str(text).ok()),
            containers,
            unplaced_since: self
                .condition("PodScheduled")
                .filter(|c| c.status == "False" && c.reason == "Unschedulable")
                .map(since),
            node: self.spec.node_name.clone(),
            pinned: meta
                .annotations
                .as_ref()
                .and_then(|a| a.get(labels::MOVED_TO))
                .cloned(),
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            wish: Wish::None,
            trouble: if ready_since.is_some() {
                String::new()
            } else {
                self.trouble()
            },
        }
    }

    /// Why it is not ready, in one line, from what the kubelet and the scheduler report.
    fn trouble(&self) -> String {
        let status = &self.status;
        if matches!(status.phase.as_str(), "Failed" | "Succeeded") {
            return [status.phase.as_str(), &status.reason, &status.message]
                .iter()
                .filter(|s| !s.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join(": ");
        }
        for container in status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
        {
            if let Some(waiting) = container.state.waiting.as_ref().filter(|w| {
                !matches!(
                    w.reason.as_str(),
                    "" | "ContainerCreating" | "PodInitializing"
                )
            }) {
                let exit = container
                    .last_state
                    .terminated
                    .as_ref()
                    .map(|t| format!(", last exit code {}", t.exit_code))
                    .unwrap_or_default();
                let message = if waiting.message.is_empty() {
                    String::new()
                } else {
                    format!(": {}", waiting.message)
                };
                return format!(
                    "container {}: {}{message}{exit}",
                    container.name, waiting.reason
                );
            }
            if let Some(ended) = &container.state.terminated
                && !container.ready
                && ended.exit_code != 0
            {
                return format!(
                    "container {} ended with exit code {} ({})",
                    container.name, ended.exit_code, ended.reason
                );
            }
        }
        if let Some(c) = self
            .condition("PodScheduled")
            .filter(|c| c.status == "False")
        {
            return format!(
                "not placed on a node: {}",
                if c.message.is_empty() {
                    &c.reason
                } else {
                    &c.message
                }
            );
        }
        for container in status.container_statuses.iter().filter(|c| !c.ready) {
            if let Some(started) = container
                .state
                .running
                .as_ref()
                .and_then(|r| r.started_at.as_ref())
            {
                return format!(
                    "readiness probe of container {} failing since {}",
                    container.name,
                    crate::release::tell::clock_time(started.0)
                );
            }
        }
        if status
            .container_statuses
            .iter()
            .any(|c| c.state.waiting.is_some())
        {
            "its containers are being made".to_owned()
        } else {
            String::new()
        }
    }
}
