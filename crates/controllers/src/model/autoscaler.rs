//! HorizontalPodAutoscaler (`autoscaling/v2`) as its controller reads it.

use std::sync::Arc;

use gantry_machinery::quota::quantity;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::meta::nullable;
use super::{AUTOSCALERS, Kind, Meta, Watched};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Autoscaler {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: AutoscalerSpec,
    #[serde(default)]
    pub status: AutoscalerStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalerSpec {
    pub scale_target_ref: ObjectRef,
    pub min_replicas: Option<i32>,
    pub max_replicas: i32,
    #[serde(deserialize_with = "nullable")]
    pub metrics: Vec<MetricSpec>,
    pub behavior: Option<Behavior>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

impl ObjectRef {
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(g, _)| g)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricSpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub resource: Option<ResourceMetric>,
    pub container_resource: Option<ResourceMetric>,
    pub pods: Option<NamedMetric>,
    pub object: Option<NamedMetric>,
    pub external: Option<NamedMetric>,
}

/// A resource of pods, or of one container of theirs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResourceMetric {
    pub name: String,
    pub container: String,
    pub target: Target,
}

/// A metric by name: of pods, of an object, or from outside.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedMetric {
    pub metric: Identifier,
    pub described_object: ObjectRef,
    pub target: Target,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identifier {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Value>,
}

/// What a metric should be; amounts in thousandths.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "milli")]
    pub value: Option<i64>,
    #[serde(deserialize_with = "milli")]
    pub average_value: Option<i64>,
    pub average_utilization: Option<i32>,
}

fn milli<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.as_ref().and_then(quantity).map(|q| q.milli()))
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    pub scale_up: Rules,
    pub scale_down: Rules,
}

/// How fast to scale in one direction. The API server fills in what was left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    pub stabilization_window_seconds: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub select_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub policies: Vec<Policy>,
    /// Thousandths by which the metric may be off without consequence.
    #[serde(deserialize_with = "milli")]
    pub tolerance: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: i32,
    pub period_seconds: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalerStatus {
    pub last_scale_time: Option<Timestamp>,
    #[serde(deserialize_with = "nullable")]
    pub current_replicas: i32,
    #[serde(deserialize_with = "nullable")]
    pub desired_replicas: i32,
    #[serde(deserialize_with = "nullable")]
    pub current_metrics: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<AutoscalerCondition>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalerCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub last_transition_time: Option<Timestamp>,
    pub reason: String,
    pub message: String,
}

impl Watched for Autoscaler {
    const KIND: Kind = AUTOSCALERS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
