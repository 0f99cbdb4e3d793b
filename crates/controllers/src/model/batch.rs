//! Job and CronJob.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::meta::nullable;
use super::workload::Condition;
use super::{CRON_JOBS, JOBS, Kind, Meta, Watched};
use crate::selector::Selector;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Job {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: JobSpec,
    #[serde(default)]
    pub status: JobStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSpec {
    pub parallelism: Option<i32>,
    pub completions: Option<i32>,
    pub backoff_limit: Option<i32>,
    pub backoff_limit_per_index: Option<i32>,
    pub max_failed_indexes: Option<i32>,
    pub active_deadline_seconds: Option<i64>,
    pub ttl_seconds_after_finished: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    pub suspend: bool,
    #[serde(deserialize_with = "nullable")]
    pub completion_mode: String,
    #[serde(deserialize_with = "nullable")]
    pub pod_replacement_policy: String,
    pub pod_failure_policy: Option<FailurePolicy>,
    pub success_policy: Option<SuccessPolicy>,
    pub managed_by: Option<Box<str>>,
    pub selector: Selector,
    pub template: Arc<Value>,
}

/// `spec.podFailurePolicy`: the first rule that a failed pod meets says what follows from it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FailurePolicy {
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<FailureRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailureRule {
    pub action: String,
    pub on_exit_codes: Option<ExitCodes>,
    #[serde(deserialize_with = "nullable")]
    pub on_pod_conditions: Vec<ConditionPattern>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitCodes {
    /// Any container where none is named.
    pub container_name: Option<Box<str>>,
    pub operator: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub values: Vec<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConditionPattern {
    #[serde(rename = "type")]
    pub kind: Box<str>,
    pub status: Box<str>,
}

/// `spec.successPolicy`: what is enough for an indexed Job to have succeeded.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SuccessPolicy {
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<SuccessRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRule {
    pub succeeded_indexes: Option<Box<str>>,
    pub succeeded_count: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    #[serde(deserialize_with = "nullable")]
    pub active: i32,
    #[serde(deserialize_with = "nullable")]
    pub succeeded: i32,
    #[serde(deserialize_with = "nullable")]
    pub failed: i32,
    pub ready: Option<i32>,
    pub terminating: Option<i32>,
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    #[serde(deserialize_with = "nullable")]
    pub completed_indexes: String,
    /// There only with `backoffLimitPerIndex`, and then even if empty.
    pub failed_indexes: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
    #[serde(deserialize_with = "nullable")]
    pub uncounted_terminated_pods: Uncounted,
}

/// Pods that have finished and still bear the tracking finalizer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Uncounted {
    #[serde(deserialize_with = "nullable")]
    pub succeeded: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub failed: Vec<String>,
}

impl Job {
    pub fn indexed(&self) -> bool {
        self.spec.completion_mode == "Indexed"
    }

    /// The condition Complete or Failed, if it has finished.
    pub fn finished(&self) -> Option<&Condition> {
        self.status
            .conditions
            .iter()
            .find(|c| matches!(c.kind.as_str(), "Complete" | "Failed") && c.status == "True")
    }

    /// Another controller than Kubernetes' own manages it.
    pub fn managed_elsewhere(&self) -> bool {
        self.spec
            .managed_by
            .as_deref()
            .is_some_and(|by| by != "kubernetes.io/job-controller")
    }
}

impl Watched for Job {
    const KIND: Kind = JOBS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct CronJob {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: CronJobSpec,
    #[serde(default)]
    pub status: CronJobStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    pub schedule: String,
    pub time_zone: Option<String>,
    pub starting_deadline_seconds: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    pub concurrency_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub suspend: bool,
    pub job_template: Arc<Value>,
    pub successful_jobs_history_limit: Option<i32>,
    pub failed_jobs_history_limit: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobStatus {
    #[serde(deserialize_with = "nullable")]
    pub active: Vec<Reference>,
    pub last_schedule_time: Option<Timestamp>,
    pub last_successful_time: Option<Timestamp>,
}

/// What is read of an ObjectReference.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

impl Watched for CronJob {
    const KIND: Kind = CRON_JOBS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}
