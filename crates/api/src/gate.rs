//! Gates: what must hold before a release goes on.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Span;

/// Something that must hold before a release goes on. Exactly one of `wait`, `metric`, `webhook` and
/// `approval` says what. A gate that cannot answer is not a pass: it is asked again until its time is
/// over, and then it has failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Its name, for the status and for people.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Where it stands. None given: before the bastion is accepted, between batches and at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub at: Vec<Point>,
    /// How long it may take. Default: for ever where people are asked, else an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Time that has to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Span>,
    /// A value that has to be within bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// A program that has to agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// People who have to agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// Where a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Point {
    /// When the bastion is ready, before it is accepted.
    Bastion,
    /// After every batch but the last.
    Batch,
    /// After the last batch, before the release has succeeded.
    End,
}

/// A query to Prometheus' HTTP API that yields one number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Address of the server, as http://prometheus.monitoring:9090.
    #[schemars(length(max = 512), regex(pattern = "^https?://"))]
    pub address: String,
    /// The query. `{{pods}}` stands for a regular expression of the names of the instances on the new
    /// revision: `rate(errors{pod=~"{{pods}}"}[1m])`.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The value must not be below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The value must not be above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Bounds against the instances that are still on the old revision. The query is asked once more
    /// with their names for `{{pods}}`. Where none is left there is nothing to compare with, and only
    /// `min` and `max` count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// Time between two measurements.
    #[serde(default = "half_a_minute")]
    pub interval: Span,
    /// How many measurements must be within bounds.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,
    /// How many may be out of bounds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: i32,
    /// Key of a Secret in the release's namespace with a bearer token for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretKey>,
}

/// Bounds of a value against that of the instances on the old revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// The value must not be above so many times the old one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<f64>,
    /// The value must not be above the old one's by more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_above: Option<f64>,
    /// The value must not be below the old one's by more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_below: Option<f64>,
}

/// A URL that is sent a POST in the form of Flagger's webhooks; an answer of 200 to 202 agrees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The URL.
    #[schemars(length(max = 2048), regex(pattern = "^https?://"))]
    pub url: String,
    /// How long an answer may take.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,
    /// Time between two calls.
    #[serde(default = "half_a_minute")]
    pub interval: Span,
    /// How many answers may be other than 200 to 202 before the gate has failed.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: i32,
    /// Sent along.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Key of a Secret in the release's namespace with a bearer token for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretKey>,
}

/// Key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// People who have to agree, by `spec.approvals` of the Release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// How many different people.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub count: i32,
    /// Users who may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
    /// Groups of users whose members may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
    /// Whether whoever asked for the release may approve it too.
    #[serde(default)]
    pub own: bool,
}

/// What one person says of a gate. Written once, never changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The gate.
    #[schemars(length(min = 1, max = 63))]
    pub gate: String,
    /// After which batch (0: the bastion). Absent: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub batch: Option<i32>,
    /// Who. The API server takes no name but the user's own.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// Groups that the user is in, as far as they matter. The API server takes none but the user's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub groups: Vec<String>,
    /// Whether it is a no. One no of someone who may approve fails the gate.
    #[serde(default)]
    pub reject: bool,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub note: String,
}

/// Where one gate stands after one batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// The gate.
    pub name: String,
    /// After which batch (0: the bastion).
    pub batch: i32,
    /// Where it stands.
    #[serde(default)]
    pub state: GateState,
    /// When it was first looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// When it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Time>,
    /// How often it has been asked.
    #[serde(default)]
    pub measured: i32,
    /// Answers that agreed.
    #[serde(default)]
    pub passes: i32,
    /// Answers that did not.
    #[serde(default)]
    pub failures: i32,
    /// The last value, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The last value of the instances on the old revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub baseline: String,
    /// What it came to, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where a gate stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateState {
    /// It is being asked.
    #[default]
    Running,
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It was overridden by `spec.emergency`.
    Overridden,
}

fn one() -> i32 {
    1
}

fn half_a_minute() -> Span {
    Span::seconds(30)
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}
