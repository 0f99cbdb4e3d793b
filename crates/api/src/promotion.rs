//! Environments of an App in order, and what takes a revision from one to the next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::revision::RevisionChange;

/// One environment of an App. Their order in the App is the order in which revisions go through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Its name, as Groups say it in `spec.environment`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// New images come here by promotion alone: a Release that brings another image without
    /// `spec.promote` is refused, unless it has an emergency, which is recorded.
    #[serde(default)]
    pub only_promoted: bool,
}

/// Which Group's revision a Release brings, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promote {
    /// The Group, of the same App and in the environment before.
    #[schemars(length(min = 1, max = 253))]
    pub from: String,
    /// The revision of that Group that is meant. Refused where it is on another by then. Default: the
    /// one that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub revision: Option<i64>,
    /// What is brought beside the images. Images go through as they are, with their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub with: Vec<Part>,
    /// Why it is promoted although the environment before has not succeeded, or out of order.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub overriding: Option<PromoteOverride>,
}

/// A part of a revision that environments usually have of their own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Part {
    /// Environment variables: those of the other Group are set, none is removed.
    Env,
    /// Configuration files: those of the other Group are set, none is removed.
    Config,
    /// Compute resources.
    Resources,
    /// Health checks.
    Probes,
    /// Command and arguments.
    Command,
}

/// Who overrides the order of environments, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromoteOverride {
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who says so: the user's own name, which the API server holds to.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
}

/// What a promotion brings, frozen when it was let through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promoted {
    /// The Group that it comes from.
    pub from: String,
    /// Its environment.
    pub environment: String,
    /// Its revision.
    pub revision: i64,
    /// The change that this makes.
    pub change: RevisionChange,
}

/// What is where: one environment of an App.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentStatus {
    /// The environment.
    pub name: String,
    /// Its Groups, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<PlaceStatus>,
    /// Whether what it runs differs from what the environment before it runs.
    #[serde(default)]
    pub behind: bool,
    /// In one line: how it stands, and what could be promoted to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What one Group runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlaceStatus {
    /// The Group.
    pub group: String,
    /// The revision that it is on, by its own count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The image of that revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The Release that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// How it stands.
    #[serde(default)]
    pub state: PlaceState,
    /// The Release under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<String>,
}

/// How a Group stands with its revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PlaceState {
    /// It is on no revision yet.
    #[default]
    Unknown,
    /// Every instance runs its revision.
    Settled,
    /// A Release is taking it to another.
    Releasing,
    /// Instances run several revisions, and no Release is under way.
    Mixed,
}

impl PlaceState {
    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Settled => "Settled",
            Self::Releasing => "Releasing",
            Self::Mixed => "Mixed",
        }
    }
}
