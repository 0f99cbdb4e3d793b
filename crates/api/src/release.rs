//! `Release`: one run that takes a Group from one revision to another.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    count::CountOrPercent,
    gate::{GateStatus, Verdict},
    group::Group,
    promotion::{Promote, Promoted},
    revision::{RevisionChange, RevisionRef},
    span::Span,
    strategy::{RollbackPace, StrategyChoice, StrategySpec},
};

/// What to release, how carefully, and the buttons that people press while it runs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Release",
    plural = "releases",
    shortname = "rel",
    namespaced,
    status = "ReleaseStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A Release is one run that takes a Group from one revision to another. Its plan is frozen in its status when it starts; its record stays. The fields paused, acceptedThrough, pace, skip, retry, approvals, emergency, abort and rollback are buttons: declared, and safe to press twice.",
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.group"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Batch", type_ = "string", json_path = ".status.progress.batch"),
    printcolumn(
        name = "Updated",
        type_ = "string",
        json_path = ".status.progress.updated"
    ),
    printcolumn(name = "Out", type_ = "integer", json_path = ".status.instances.out"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.target.image"),
    printcolumn(name = "By", type_ = "string", json_path = ".status.requestedBy"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseSpec {
    /// The Group, in the same namespace. Cannot be changed.
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
    /// What changes. Cannot be changed.
    #[serde(default)]
    pub revision: RevisionChange,
    /// Instead of `revision`: bring what a Group in the environment before runs. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
    /// How it goes. Default: the Group's strategy. Read once, when the release starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyChoice>,
    /// What happens while another release of the Group runs.
    #[serde(default)]
    pub if_busy: IfBusy,
    /// Who asked for it, for the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub requested_by: String,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub note: String,
    /// Button: stand still. Instances under way are finished, no other is touched.
    #[serde(default)]
    pub paused: bool,
    /// Button: how far the release has been let on. Absent: nothing; 0: the bastion; n: batch n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub accepted_through: Option<i32>,
    /// Button: another pace than the plan's, from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Button: what people say of gates that ask for approval. Entries are only ever added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub approvals: Vec<Verdict>,
    /// Button: go on in spite of freezes and closed windows, and of the gates it names. What it overrode
    /// is recorded in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Emergency>,
    /// Button: batches no longer waited for. What of them has been updated stays so; what has not is
    /// taken along by the next batch of its cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub skip: Vec<i32>,
    /// Button: raise it by one to try failed instances again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub retry: i32,
    /// Button: end here and leave every instance as it is.
    #[serde(default)]
    pub abort: bool,
    /// Button: take every touched instance back to where it came from. Also takes back an aborted
    /// release, for as long as no other has started.
    #[serde(default)]
    pub rollback: bool,
    /// In which order instances go back. Default: as the strategy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_pace: Option<RollbackPace>,
}

/// What happens to a release while another one of its Group runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IfBusy {
    /// It waits for its turn, in order of creation.
    #[default]
    Queue,
    /// It fails.
    Refuse,
}

/// Another pace than the plan's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// How many instances may be out of service at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<CountOrPercent>,
    /// Time between the end of a batch and the start of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

/// Why a release goes on in spite of what would hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Emergency {
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who says so.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// Gates that are not waited for, by name; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub gates: Vec<String>,
}

impl Emergency {
    /// Whether it goes on in spite of that gate.
    pub fn overrides(&self, gate: &str) -> bool {
        self.gates.iter().any(|it| it == gate || it == "*")
    }
}

/// Where a release stands.
///
/// ```text
/// Pending ─→ Queued ─→ Planning ─→ Bastion ─→ Gate ─→ Batch ⇄ Gate ─→ Succeeded
///    │          │          │          └────────┴────────┴─→ Paused (and back)
///    └──────────┴──────────┴─→ Failed        any from Planning on ─→ RollingBack ─→ RolledBack
///                                             any                  ─→ Aborted (─→ RollingBack)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Seen; its Group, Strategy or members are waited for.
    #[default]
    Pending,
    /// Another Release of the Group runs.
    Queued,
    /// The plan is frozen; members are being given the new template, no instance is touched.
    Planning,
    /// The bastion is being updated.
    Bastion,
    /// A batch is being updated.
    Batch,
    /// A person, a gate, a window or an interval is waited for.
    Gate,
    /// It stands still: by the button, by a stopped line, or because too much failed.
    Paused,
    /// Every touched instance is being taken back.
    RollingBack,
    /// Ended: every instance runs the target revision.
    Succeeded,
    /// Ended: every instance runs the revision the release began with.
    RolledBack,
    /// Ended by the button; instances are as they were at that time.
    Aborted,
    /// Ended without having been done: the message says why.
    Failed,
}

impl Phase {
    /// Whether the release has ended. An aborted one may still be rolled back.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::RolledBack | Self::Aborted | Self::Failed
        )
    }

    /// Whether the release holds the Group: no other may start.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::Planning
                | Self::Bastion
                | Self::Batch
                | Self::Gate
                | Self::Paused
                | Self::RollingBack
        )
    }

    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Queued => "Queued",
            Self::Planning => "Planning",
            Self::Bastion => "Bastion",
            Self::Batch => "Batch",
            Self::Gate => "Gate",
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
pub struct ReleaseStatus {
    /// Where the release stands.
    #[serde(default)]
    pub phase: Phase,
    /// Why it stands there, as one word for machines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why it stands there, in one line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Who asked for it: `spec.requestedBy`, or the annotation `gantry.dev/requested-by`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub requested_by: String,
    /// When the plan was frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When the release ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// The revision the Group was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RevisionRef>,
    /// The revision the release brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RevisionRef>,
    /// What `spec.promote` came to, frozen when it was let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Promoted>,
    /// What will be done, frozen at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What has been done, batch by batch; index 0 is the bastion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<BatchStatus>,
    /// For a table: how far it is.
    #[serde(default)]
    pub progress: Progress,
    /// Instances by what is happening to them.
    #[serde(default)]
    pub instances: InstanceCounts,
    /// Instances under way and failed ones, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub working: Vec<WorkingInstance>,
    /// Instances of the running batch step by step, those that are done included; of those the newest 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<InstanceSteps>,
    /// How many instances may be out of service at once, as things stand.
    #[serde(default)]
    pub max_out: i32,
    /// Cells that are left out because they cannot be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_cells: Vec<SkippedCell>,
    /// Gates, by the batch that they follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// What became of the tags of new images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ResolvedImage>,
    /// What `spec.emergency` or `spec.promote.override` has overridden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Freezes that did not hold it when it was aborted or turned round: they hold what goes forward.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_freezes: Vec<String>,
    /// Instances given up on. An entry counts while its `retry` equals that of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// Set once the release has turned round; never unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Turn>,
    /// What stopped the release; unset by retry or skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt: Option<Turn>,
    /// When `spec.retry` was last seen raised, and to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<Retried>,
    /// Since when the release has been waiting for a person. That time counts toward no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// Seconds spent waiting for people in the whole release, the present wait not included.
    #[serde(default)]
    pub waited_seconds: i64,
}

/// A turning point: why and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// One word for machines.
    pub reason: String,
    /// One line for people.
    pub message: String,
    /// When.
    pub at: Time,
    /// On a way back batch by batch: the batch that it has come to.
    #[serde(default)]
    pub batch: i32,
}

/// A cell that the release has left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedCell {
    /// The cell.
    pub cell: String,
    /// Since when it is left out.
    pub since: Time,
    /// Instances that it had when it was last seen.
    pub instances: i32,
    /// Why, in one line.
    pub message: String,
}

/// What a registry has said of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedImage {
    /// The image as it was asked for.
    pub image: String,
    /// The same with its digest; absent where the registry could not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
    /// Why it could not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Something that people have overridden.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// What would have held the release.
    pub what: String,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was first overridden.
    pub at: Time,
}

/// One instance's way to the other revision, step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSteps {
    /// The instance.
    pub name: String,
    /// Its batch.
    pub batch: i32,
    /// When it was chosen to go out of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Time>,
    /// When its connections had ended and it was touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Time>,
    /// When it was first seen on the other revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<Time>,
    /// When its containers were first ready there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Time>,
    /// When it had warmed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Time>,
    /// When it was first back in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_service: Option<Time>,
    /// Seconds that it has been unready since it was touched, the present spell not included.
    #[serde(default)]
    pub unready_seconds: i64,
    /// Since when it has been unready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready_since: Option<Time>,
}

/// How long the steps of a batch's instances took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchTimes {
    /// Instances that these sums are of.
    pub instances: i32,
    /// Seconds from being chosen to being touched, added up.
    pub drain_seconds: i64,
    /// Seconds from being touched to being ready, added up.
    pub update_seconds: i64,
    /// Seconds from being ready to being warm, added up.
    pub warm_up_seconds: i64,
    /// Seconds from being chosen to being back in service, added up.
    pub total_seconds: i64,
    /// The instance that took longest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub slowest: String,
    /// How long it took, in seconds.
    #[serde(default)]
    pub slowest_seconds: i64,
}

/// The last time someone asked for another try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retried {
    /// The value of `spec.retry` seen.
    pub count: i32,
    /// When.
    pub at: Time,
}

/// The plan of a release. Pure data: what it says is what will be done, and a checker proves it
/// against the strategy before anything is touched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// SHA-256 of the rest of the plan, in hexadecimal, shortened to 16 digits.
    #[serde(default)]
    pub digest: String,
    /// Index 0 is the bastion (empty where there is none); the batches follow from 1.
    pub batches: Vec<BatchPlan>,
    /// Instances when the plan was made.
    pub replicas: i32,
    /// How many instances may be out of service at once.
    pub max_out: i32,
    /// How many instances may fail.
    pub tolerance: i32,
    /// How instances are updated.
    pub method: Method,
    /// Why so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method_reason: String,
    /// Seconds between taking an instance out of service and touching it.
    #[serde(default)]
    pub drain_seconds: i32,
    /// The strategy as it was read at the start.
    pub strategy: StrategySpec,
    /// What quotas and cells leave, and what instances ask beyond what they have now. Updates keep names, so
    /// that nothing is asked for twice: it is the difference between two revisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<Room>,
}

/// What a quota or a cell's nodes leave of one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// `quota NAME` or `cell NAME`.
    pub of: String,
    /// The cluster.
    pub cluster: String,
    /// The resource: `requests.cpu`; of cells `cpu`.
    pub resource: String,
    /// All there is.
    pub total: Quantity,
    /// What is used already.
    pub used: Quantity,
    /// What the release asks beyond that; less than nothing where it gives back.
    pub more: Quantity,
    /// Whether that is there.
    pub fits: bool,
}

impl Room {
    /// Whether it is a quota, which is kept to; nodes may come.
    pub fn is_quota(&self) -> bool {
        self.of.starts_with("quota ")
    }
}

/// How an instance gets to another revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// Its containers are restarted on the new images; the pod stays.
    #[default]
    InPlace,
    /// The pod is replaced by one of the same name.
    Recreate,
}

/// What one batch covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchPlan {
    /// 0 is the bastion.
    pub index: i32,
    /// How many instances.
    pub size: i32,
    /// How many of them are out of service at once, at most.
    #[serde(default)]
    pub out: i32,
    /// Which, by cell. A StatefulSet is updated from its highest ordinal downwards, so that a batch is
    /// one range a cell.
    #[serde(default)]
    pub slices: Vec<Slice>,
}

/// A range of instances of one cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    /// The cell.
    pub cell: String,
    /// Highest ordinal, included.
    pub highest: i32,
    /// Lowest ordinal, included.
    pub lowest: i32,
    /// Name of the StatefulSet, where it is an adopted one with a name of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// How these instances are updated, where it is not as the plan says for most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Why so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Slice {
    /// How many instances the slice holds.
    pub fn size(&self) -> i32 {
        (self.highest - self.lowest + 1).max(0)
    }

    /// Name of one of its instances.
    pub fn instance(&self, group: &str, ordinal: i32) -> String {
        match &self.set {
            Some(set) => format!("{set}-{ordinal}"),
            None => Group::instance_name(group, &self.cell, ordinal),
        }
    }
}

impl BatchPlan {
    /// Names of the instances, cell by cell, highest ordinal first.
    pub fn instances(&self, group: &str) -> Vec<String> {
        self.slices
            .iter()
            .flat_map(|s| (s.lowest..=s.highest).rev().map(|n| s.instance(group, n)))
            .collect()
    }
}

/// Where a batch stands: `Waiting → Running → Done`, with `Failed` and `Skipped` on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BatchState {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// It is being updated.
    Running,
    /// Updated and ready, waiting to be accepted (bastion only).
    Ready,
    /// All its instances are updated and in service, or failed within the tolerance.
    Done,
    /// It stopped the release.
    Failed,
    /// No longer waited for.
    Skipped,
}

/// What has been done of one batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// 0 is the bastion.
    pub index: i32,
    /// Where it stands.
    #[serde(default)]
    pub state: BatchState,
    /// When its first instance was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// `waitedSeconds` of the release when the batch started, for its deadline.
    #[serde(default)]
    pub waited_before: i64,
    /// Instances of it on the target revision.
    #[serde(default)]
    pub updated: i32,
    /// Instances of it given up on.
    #[serde(default)]
    pub failed: i32,
    /// How long its instances took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<BatchTimes>,
}

/// For a table: how far a release is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Batches done of all, as `2/5`; the bastion is not counted.
    #[serde(default)]
    pub batch: String,
    /// Instances on the target revision of all, as `11/30`.
    #[serde(default)]
    pub updated: String,
}

/// Instances by what is happening to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceCounts {
    /// On another revision than the one they go to, and not yet touched.
    pub waiting: i32,
    /// Out of service, for whatever reason.
    pub out: i32,
    /// Being updated.
    pub updating: i32,
    /// On the revision they go to, and in service.
    pub done: i32,
    /// Given up on.
    pub failed: i32,
}

/// What is happening to one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Doing {
    /// Out of service; its connections are ending.
    #[default]
    Draining,
    /// On its way to the other revision, not yet ready.
    Updating,
    /// Updated and ready, and not yet for long enough.
    Warming,
    /// Updated and ready, kept out of service until it is accepted.
    Held,
    /// Updated and ready, on its way back into service.
    Returning,
    /// Given up on.
    Failed,
}

/// One instance under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkingInstance {
    /// The instance.
    pub name: String,
    /// Its cell.
    pub cell: String,
    /// Its batch.
    pub batch: i32,
    /// What is happening to it.
    #[serde(rename = "state")]
    pub doing: Doing,
    /// The revision it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What is wrong with it, in its own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An instance given up on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The instance.
    pub instance: String,
    /// Its cell.
    pub cell: String,
    /// Its batch.
    pub batch: i32,
    /// What was wrong with it, in its own words.
    pub message: String,
    /// When.
    pub at: Time,
    /// The value of `spec.retry` at that time.
    #[serde(default)]
    pub retry: i32,
}
