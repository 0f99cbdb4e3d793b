//! StatefulSet, ReplicaSet, ReplicationController, Deployment, ControllerRevision, DaemonSet.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::nullable;
use super::{
    DAEMON_SETS, DEPLOYMENTS, Kind, Labels, Meta, REPLICA_SETS, REPLICATION_CONTROLLERS, REVISIONS,
    STATEFUL_SETS, Watched,
};
use crate::selector::Selector;

macro_rules! watched {
    ($type:ty, $kind:expr) => {
        impl Watched for $type {
            const KIND: Kind = $kind;
            fn meta(&self) -> &Meta {
                &self.metadata
            }
        }
    };
}

/// A condition of a workload's status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct StatefulSet {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: StatefulSetSpec,
    #[serde(default)]
    pub status: StatefulSetStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetSpec {
    /// 1 where it is not set.
    pub replicas: Option<i32>,
    pub selector: Selector,
    pub template: Arc<Value>,
    #[serde(deserialize_with = "nullable")]
    pub volume_claim_templates: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    pub service_name: String,
    #[serde(deserialize_with = "nullable")]
    pub pod_management_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub update_strategy: UpdateStrategy,
    pub revision_history_limit: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    #[serde(deserialize_with = "nullable")]
    pub ordinals: Ordinals,
    #[serde(deserialize_with = "nullable")]
    pub persistent_volume_claim_retention_policy: ClaimRetention,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimRetention {
    #[serde(deserialize_with = "nullable")]
    pub when_deleted: String,
    #[serde(deserialize_with = "nullable")]
    pub when_scaled: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    pub start: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStrategy {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    pub rolling_update: Option<RollingUpdate>,
}

/// The fields of all rolling updates: a StatefulSet reads `partition` and `max_unavailable`, a
/// Deployment and a DaemonSet `max_surge` and `max_unavailable`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    pub partition: Option<i32>,
    pub max_unavailable: Option<IntOrString>,
    pub max_surge: Option<IntOrString>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub current_replicas: i32,
    pub updated_replicas: i32,
    pub available_replicas: i32,
    #[serde(deserialize_with = "nullable")]
    pub current_revision: String,
    #[serde(deserialize_with = "nullable")]
    pub update_revision: String,
    pub collision_count: Option<i32>,
}

watched!(StatefulSet, STATEFUL_SETS);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Revision {
    pub metadata: Meta,
    #[serde(default)]
    pub revision: i64,
    #[serde(default)]
    pub data: Arc<Value>,
}

watched!(Revision, REVISIONS);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ReplicaSet {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ReplicaSetSpec,
    #[serde(default)]
    pub status: ReplicaSetStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetSpec {
    /// 1 where it is not set.
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub selector: Selector,
    pub template: Arc<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub observed_generation: i64,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

watched!(ReplicaSet, REPLICA_SETS);

/// The older form of a ReplicaSet, whose selector is a plain map.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ReplicationController {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ReplicationControllerSpec,
    #[serde(default)]
    pub status: ReplicaSetStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationControllerSpec {
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub selector: Labels,
    pub template: Arc<Value>,
}

watched!(ReplicationController, REPLICATION_CONTROLLERS);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Deployment {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: DeploymentSpec,
    #[serde(default)]
    pub status: DeploymentStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    /// 1 where it is not set.
    pub replicas: Option<i32>,
    pub selector: Selector,
    pub template: Arc<Value>,
    #[serde(deserialize_with = "nullable")]
    pub strategy: UpdateStrategy,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub paused: bool,
    /// Seconds; `i32::MAX` means no deadline.
    pub progress_deadline_seconds: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub collision_count: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

watched!(Deployment, DEPLOYMENTS);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DaemonSet {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: DaemonSetSpec,
    #[serde(default)]
    pub status: DaemonSetStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    pub selector: Selector,
    pub template: Arc<Value>,
    #[serde(deserialize_with = "nullable")]
    pub update_strategy: UpdateStrategy,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    pub current_number_scheduled: i32,
    pub number_misscheduled: i32,
    pub desired_number_scheduled: i32,
    pub number_ready: i32,
    pub observed_generation: i64,
    pub updated_number_scheduled: i32,
    pub number_available: i32,
    pub number_unavailable: i32,
    pub collision_count: Option<i32>,
}

watched!(DaemonSet, DAEMON_SETS);

/// A count given as a number or as a percentage of `total`, rounded up or down; anything else is 0
/// (`GetScaledValueFromIntOrPercent` of apimachinery, on input that the API has validated).
pub fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let Some(percent) = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) else {
                return 0;
            };
            let product = percent.saturating_mul(i64::from(total));
            let value = if up {
                product.saturating_add(99).div_euclid(100)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(value).unwrap_or(i32::MAX)
        }
        None => 0,
    }
}
