//! `ServiceProfile`: what a scheduler has learned of the hours of an App.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing is asked for: a profile is learned.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "ServiceProfile",
    plural = "serviceprofiles",
    shortname = "sprof",
    namespaced,
    status = "ServiceProfileStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A ServiceProfile is what the scheduler has learned of the App of its name: how much CPU, memory and network one of its pods uses at which hour of the day. It is written at most once an hour, so that a scheduler that takes over knows it, too. Whoever deletes it has it learned anew.",
    printcolumn(name = "Hours", type_ = "integer", json_path = ".status.hoursKnown"),
    printcolumn(name = "Peak", type_ = "integer", json_path = ".status.peakHour"),
    printcolumn(name = "Network", type_ = "string", json_path = ".status.networkClass"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceProfileSpec {}

/// What one pod uses, by the hour of the day (UTC): 24 figures each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceProfileStatus {
    /// CPU in millicores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub cpu_milli: Vec<i64>,
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub memory_bytes: Vec<i64>,
    /// Network in bytes a second, in and out together, where that is measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub network_bytes: Vec<i64>,
    /// Low, below 10 Mbit/s in the busiest hour, Medium, below 100 Mbit/s, or High.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_class: Option<String>,
    /// Measurements behind each hour's figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub measurements: Vec<i64>,
    /// Hours of which something is known. Half of the day has to be, before the scheduler goes by it.
    #[serde(default)]
    pub hours_known: i32,
    /// The hour in which most CPU is used.
    #[serde(default)]
    pub peak_hour: i32,
}
