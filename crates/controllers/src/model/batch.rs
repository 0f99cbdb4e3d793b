//! Job.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::meta::nullable;
use super::workload::Condition;
use super::{JOBS, Kind, Meta, Watched};
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
    pub active_deadline_seconds: Option<i64>,
    pub ttl_seconds_after_finished: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    pub suspend: bool,
    #[serde(deserialize_with = "nullable")]
    pub completion_mode: String,
    pub selector: Selector,
    pub template: Arc<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    pub active: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub ready: Option<i32>,
    pub terminating: Option<i32>,
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    #[serde(deserialize_with = "nullable")]
    pub completed_indexes: String,
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

impl Watched for Job {
    const KIND: Kind = JOBS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
}
