//! `Strategy`: how carefully a release goes.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{count::CountOrPercent, span::Span};

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
    pub cell_order: Vec<String>,
    /// How many cells a batch may span. Absent or 0: every batch spans all cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cells_at_once: Option<i32>,
    /// Where the release stops to be let on (`spec.acceptedThrough` of the Release).
    pub pause: Pause,
    /// Whether instances are updated without being replaced.
    pub in_place: InPlace,
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
    /// How long an updated instance must have been ready before it counts.
    pub min_ready: Span,
    /// Time limits.
    pub deadlines: Deadlines,
    /// What happens when more fails than is tolerated.
    pub on_failure: OnFailure,
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
            max_unavailable: None,
            failure_tolerance: CountOrPercent::Count(0),
            interval: Span::default(),
            min_ready: Span::default(),
            deadlines: Deadlines::default(),
            on_failure: OnFailure::default(),
        }
    }
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
    #[schemars(range(min = 1))]
    pub count: Option<i32>,
    /// Sizes over the whole Group, as counts or as percentages of the instances beside the bastion. The
    /// last size repeats until every instance is covered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
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

/// Time limits. Time in which the release waits for a person does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Deadlines {
    /// For one instance, from its update to its being ready.
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
