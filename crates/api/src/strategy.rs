//! `Strategy`: how carefully a release goes.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{count::CountOrPercent, gate::Gate, span::Span, window::Window};

/// How a release goes: bastion, batches, pauses, limits. Read when a Release starts; a change
/// reaches the next Release.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Strategy",
    plural = "strategies",
    namespaced,
    category = "gantry",
    derive = "PartialEq",
    doc = "A Strategy says how carefully releases go. Groups and Releases refer to it by name.",
    printcolumn(
        name = "Bastion",
        type_ = "integer",
        json_path = ".spec.bastion.instances"
    ),
    printcolumn(name = "Accept", type_ = "string", json_path = ".spec.bastion.accept"),
    printcolumn(name = "Pause", type_ = "string", json_path = ".spec.pause"),
    printcolumn(name = "MaxOut", type_ = "string", json_path = ".spec.maxUnavailable"),
    printcolumn(name = "OnFailure", type_ = "string", json_path = ".spec.onFailure"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct StrategySpec {
    /// The first instances, updated alone.
    pub bastion: Bastion,
    /// How the rest is divided.
    pub batches: Batches,
    /// Cells in the order to be released; those not named follow in the Group's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub cell_order: Vec<String>,
    /// How many cells a batch may span: so many are released to their end before the next ones begin,
    /// and a batch that would reach into them is split there. Absent or 0: every batch spans all cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cells_at_once: Option<i32>,
    /// How instances follow each other within a batch.
    pub within_batch: WithinBatch,
    /// Where the release stops to be let on (`spec.acceptedThrough` of the Release).
    pub pause: Pause,
    /// Whether instances are updated without being replaced.
    pub in_place: InPlace,
    /// Whether tags of new images are resolved to digests before the revision is written down. Default: as
    /// the hub is run (`gantry hub --resolve-tags`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_tags: Option<ResolveTags>,
    /// How many instances of the Group may be out of service at once, those included that are
    /// unready for reasons of their own. Percentages round down; at least one. Default: the Group's
    /// `availability.maxUnavailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<CountOrPercent>,
    /// How many instances may fail before the release stops. Percentages round down. A failed
    /// bastion always stops it.
    pub failure_tolerance: CountOrPercent,
    /// Time between the end of a batch and the start of the next.
    pub interval: Span,
    /// How long an updated instance must have been ready before it goes back into service: time to
    /// warm up. It takes no traffic meanwhile.
    pub min_ready: Span,
    /// Time limits.
    pub deadlines: Deadlines,
    /// What happens when more fails than is tolerated.
    pub on_failure: OnFailure,
    /// How the release goes back, when it does.
    pub rollback: Rollback,
    /// What becomes of a cell that cannot be reached.
    pub unreachable: Unreachable,
    /// What must hold before the bastion is accepted, between batches and at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gates: Vec<Gate>,
    /// When the bastion and batches may begin. None given: at any time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<Window>,
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self {
            bastion: Bastion::default(),
            batches: Batches::default(),
            cell_order: Vec::new(),
            cells_at_once: None,
            pause: Pause::default(),
            in_place: InPlace::default(),
            resolve_tags: None,
            max_unavailable: None,
            failure_tolerance: CountOrPercent::Count(0),
            interval: Span::default(),
            min_ready: Span::default(),
            deadlines: Deadlines::default(),
            on_failure: OnFailure::default(),
            within_batch: WithinBatch::default(),
            rollback: Rollback::default(),
            unreachable: Unreachable::default(),
            gates: Vec::new(),
            windows: Vec::new(),
        }
    }
}

/// How instances follow each other within a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WithinBatch {
    /// As soon as one is back in service the next goes out.
    #[default]
    SlidingWindow,
    /// In waves: as many as may be out go out together, and the next wave when all of them are back.
    LockStep,
}

/// How a release goes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollback {
    /// In which order.
    pub pace: RollbackPace,
    /// How many instances may be out of service at once on the way back. Default: as on the way
    /// forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<CountOrPercent>,
}

/// In which order instances go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackPace {
    /// All touched instances together, as many at once as may be out of service.
    #[default]
    AllAtOnce,
    /// Batch by batch in the order of the plan, each done before the next begins.
    Batches,
}

/// What becomes of a cell whose member cannot be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Unreachable {
    /// Whether it is waited for.
    pub then: UnreachableThen,
    /// How long it is waited for before it is skipped.
    pub after: Span,
}

impl Default for Unreachable {
    fn default() -> Self {
        Self {
            then: UnreachableThen::default(),
            after: Span::minutes(10),
        }
    }
}

/// Whether a cell that cannot be reached is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnreachableThen {
    /// It is marked in the status and left out; when it comes back before the release has ended, it is
    /// taken along.
    #[default]
    Skip,
    /// The release waits for it.
    Wait,
}

/// The first instances of a release: updated alone and kept out of traffic until accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Bastion {
    /// How many. 0: no bastion.
    #[schemars(range(min = 0))]
    pub instances: i32,
    /// Who accepts it.
    pub accept: Accept,
}

impl Default for Bastion {
    fn default() -> Self {
        Self {
            instances: 1,
            accept: Accept::default(),
        }
    }
}

/// Who lets the bastion into traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Accept {
    /// A person, by `spec.acceptedThrough: 0` of the Release.
    #[default]
    Manual,
    /// The hub, as soon as it is ready.
    Auto,
}

/// How the instances beside the bastion are divided. `sizes` wins over `count`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Batches {
    /// So many batches of equal size. Default 5 where `sizes` is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: Option<i32>,
    /// Sizes over the whole Group, as counts or as percentages of the instances beside the bastion. The
    /// last size repeats until every instance is covered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub sizes: Vec<CountOrPercent>,
}

/// Where a release stops to be let on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Pause {
    /// Nowhere (a bastion with `accept: Manual` still waits to be accepted).
    #[default]
    Never,
    /// After the bastion.
    AfterBastion,
    /// After the bastion and after every batch but the last.
    EachBatch,
}

/// Whether instances are updated without being replaced. That is possible where only images differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InPlace {
    /// Always replace.
    Never,
    /// Update in place where possible, else replace.
    #[default]
    IfPossible,
    /// Refuse a release that would have to replace instances.
    Required,
}

/// Whether tags of images are resolved to digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResolveTags {
    /// They stay as they are.
    #[default]
    Never,
    /// Where the registry cannot say, the tag stays, and the release says so.
    IfReachable,
    /// Where the registry cannot say, the release fails.
    Required,
}

/// Time limits. Time in which the release waits for a person does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Deadlines {
    /// For one instance: how long it may be unready from its update on. All such time until its batch is
    /// done adds up, so that an instance that becomes ready again and again gains nothing by it.
    pub instance: Span,
    /// For one batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Span>,
    /// For the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Span>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            instance: Span::minutes(5),
            batch: None,
            total: None,
        }
    }
}

/// What happens when more instances fail than is tolerated, or a deadline passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The release stands still; a person retries, skips, rolls back or aborts.
    #[default]
    Pause,
    /// The release goes back by itself.
    Rollback,
}

/// A Strategy by name, or written out. `inline` wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StrategyChoice {
    /// Name of a Strategy in the same namespace.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A strategy of this object's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<StrategySpec>,
}
