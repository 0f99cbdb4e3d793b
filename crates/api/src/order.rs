//! `ReleaseOrder`: releases of many Groups, and the Jobs between them, in the order that they depend on
//! each other.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    promotion::Promote, release::Turn, revision::RevisionChange, span::Span,
    strategy::StrategyChoice,
};

/// What is released together, what waits for what, and the buttons that people press while it runs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "ReleaseOrder",
    plural = "releaseorders",
    shortname = "order",
    namespaced,
    status = "ReleaseOrderStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A ReleaseOrder runs releases of many Groups, and Jobs such as a database migration, as a graph: each node begins when those it comes after have succeeded. What depends on a failed node is never begun. The fields paused, retry, abort and rollback are buttons: declared, and safe to press twice.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.progress.done"),
    printcolumn(
        name = "Running",
        type_ = "string",
        json_path = ".status.progress.running"
    ),
    printcolumn(
        name = "Failed",
        type_ = "string",
        json_path = ".status.progress.failed"
    ),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.requestedBy"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseOrderSpec {
    /// What is done, as a directed graph. Cannot be changed.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<OrderNode>,
    /// How many nodes run at the same time. Default: all that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub at_once: Option<i32>,
    /// What happens when a node has failed.
    #[serde(default)]
    pub on_failure: OrderFailure,
    /// Who asked for it, for the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub requested_by: String,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub note: String,
    /// Button: stand still. Releases under way are paused, nothing else is begun; Jobs run on.
    #[serde(default)]
    pub paused: bool,
    /// Button: raise it by one to try failed nodes again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub retry: i32,
    /// Button: end here. Releases under way are aborted, Jobs run on, nothing else is begun.
    #[serde(default)]
    pub abort: bool,
    /// Button: take back what has been done, the last first.
    #[serde(default)]
    pub rollback: bool,
}

/// What happens when a node has failed. Nodes that do not depend on it are run to their end in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderFailure {
    /// What depends on it waits for `retry`, `rollback` or `abort`.
    #[default]
    Pause,
    /// Everything is taken back, the last first.
    Rollback,
}

/// One thing to do: a release or a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderNode {
    /// Its name; part of the names of what it makes.
    #[schemars(
        length(min = 1, max = 30),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Nodes that have to have succeeded before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 30)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub after: Vec<String>,
    /// A release of a Group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<NodeRelease>,
    /// A Job in a cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<NodeJob>,
}

/// A release of a Group, as in a Release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRelease {
    /// The Group, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
    /// What changes.
    #[serde(default)]
    pub revision: RevisionChange,
    /// Instead of `revision`: bring what a Group in the environment before runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
    /// How it goes. Default: the Group's strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyChoice>,
    /// How it goes back once it has succeeded. Default: no bastion, one batch, as many at once as the Group
    /// allows to be out of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_strategy: Option<StrategyChoice>,
}

/// A Job that is run in one cell, such as a database migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeJob {
    /// The cell that it runs in.
    #[schemars(length(min = 1, max = 63))]
    pub cell: String,
    /// A JobSpec (`kubectl explain job.spec`).
    #[schemars(schema_with = "any_object")]
    pub spec: Map<String, Value>,
    /// A JobSpec that takes back what `spec` has done. Without one a rollback leaves that as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub undo: Option<Map<String, Value>>,
    /// How long it may take; then it is ended and has failed. Sets the Job's `activeDeadlineSeconds`
    /// where that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

/// An object of any shape.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderPhase {
    /// Seen.
    #[default]
    Pending,
    /// Nodes run, or what they wait for does.
    Running,
    /// It stands still: by the button, or because a node failed that others depend on.
    Paused,
    /// What has been done is being taken back.
    RollingBack,
    /// Ended: every node has succeeded.
    Succeeded,
    /// Ended: everything has been taken back, as far as it can be.
    RolledBack,
    /// Ended by the button.
    Aborted,
    /// Ended before it began: the message says why.
    Failed,
}

impl OrderPhase {
    /// Whether it has ended. An aborted one may still be rolled back.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::RolledBack | Self::Aborted | Self::Failed
        )
    }

    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::RollingBack => "RollingBack",
            Self::Succeeded => "Succeeded",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
            Self::Failed => "Failed",
        }
    }
}

/// What the hub has decided and done. A decision is written here before it is acted on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseOrderStatus {
    /// Where it stands.
    #[serde(default)]
    pub phase: OrderPhase,
    /// Why it stands there, as one word for machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why it stands there, in one line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When it was found possible, and begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// For a table: how far it is.
    #[serde(default)]
    pub progress: OrderProgress,
    /// Node by node, in an order in which each comes after those it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeStatus>,
    /// Set once the order has turned round; never unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Turn>,
    /// The value of `spec.retry` that has been acted on.
    #[serde(default)]
    pub retried: i32,
}

/// For a table: how far an order is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderProgress {
    /// Nodes that have succeeded of all, as `2/5`; on the way back, those taken back.
    #[serde(default)]
    pub done: String,
    /// Names of the nodes under way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub running: String,
    /// Names of the nodes that have failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
}

/// Where a node stands: `Waiting → Running → Succeeded → Undoing → Undone`, with `Failed` on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeState {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// Its release or Job is under way.
    Running,
    /// Done.
    Succeeded,
    /// Its release or Job has failed.
    Failed,
    /// It is being taken back.
    Undoing,
    /// It has been taken back, or left as it is where that cannot be: the message says which.
    Undone,
    /// Taking it back has failed.
    UndoFailed,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub state: NodeState,
    /// In one line: how its release or Job stands, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The Release or Job of the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// The Release or Job that takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Made>,
    /// When it was last begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// Whether the order has paused its release.
    #[serde(default)]
    pub held: bool,
}

/// Something that a node has made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// Name of the Release or Job.
    pub name: String,
    /// Whether it has been seen: one that was and is no longer has been deleted, and is not made again.
    #[serde(default)]
    pub seen: bool,
}
