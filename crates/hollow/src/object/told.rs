//! What was reported of a pod.

use super::{container::Resources, or_default};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// The status of a pod, slim: read when a pod is taken over, and for its readiness gates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusWire {
    /// Its phase.
    pub phase: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// When the kubelet took it.
    pub start_time: Option<Time>,
    /// Its conditions.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<ConditionWire>,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatusWire>,
    /// Its init containers.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatusWire>,
    /// Its ephemeral containers.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_container_statuses: Vec<ContainerStatusWire>,
    /// Claims that were made for it.
    #[serde(deserialize_with = "or_default")]
    pub resource_claim_statuses: Vec<MadeClaim>,
    /// The claim that was made for its extended resources.
    pub extended_resource_claim_status: Option<ExtendedClaim>,
    /// What is set aside for it as a whole.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: BTreeMap<String, String>,
    /// What it runs with as a whole.
    pub resources: Option<Resources>,
}

/// A claim that was made for a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MadeClaim {
    /// What the pod calls it.
    pub name: String,
    /// Its name; none if it turned out not to be needed.
    pub resource_claim_name: Option<Arc<str>>,
}

/// The claim that serves a pod's extended resources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtendedClaim {
    /// Its name.
    pub resource_claim_name: Arc<str>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionWire {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// The generation of the pod that it speaks of.
    pub observed_generation: Option<i64>,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// The status of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusWire {
    /// Its name.
    pub name: String,
    /// The image it runs.
    pub image: Arc<str>,
    /// Restarts so far.
    pub restart_count: u32,
    /// Whether its startup probe has passed.
    pub started: Option<bool>,
    /// Whether its readiness probe passes.
    pub ready: bool,
    /// What is set aside for it.
    #[serde(deserialize_with = "or_default")]
    pub allocated_resources: BTreeMap<String, String>,
    /// What it runs with.
    pub resources: Option<Resources>,
    /// What it does.
    #[serde(deserialize_with = "or_default")]
    pub state: StateWire,
    /// How it last ended.
    #[serde(deserialize_with = "or_default")]
    pub last_state: StateWire,
}

impl ContainerStatusWire {
    /// Whether the container has ever run.
    #[must_use]
    pub fn created(&self) -> bool {
        let ran = |it: &StateWire| it.running.is_some() || it.terminated.is_some();
        self.restart_count > 0 || ran(&self.state) || ran(&self.last_state)
    }
}

/// The state of a container: one of three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StateWire {
    /// It waits.
    pub waiting: Option<WaitingWire>,
    /// It runs.
    pub running: Option<RunningWire>,
    /// It has ended.
    pub terminated: Option<TerminatedWire>,
}

/// A container that waits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WaitingWire {
    /// For what.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<Arc<str>>,
}

/// A container that runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunningWire {
    /// Since when.
    pub started_at: Option<Time>,
}

/// A container that has ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminatedWire {
    /// Its code.
    pub exit_code: i32,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// For people.
    pub message: Option<Arc<str>>,
    /// When it started.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}
