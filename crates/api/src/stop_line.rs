//! `StopLine`: the switch that halts releases, and the freeze that is announced.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which releases stand still, why, and by whom. Making one throws the switch, deleting it lets the
/// releases go on.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "StopLine",
    plural = "stoplines",
    shortname = "stop",
    category = "gantry",
    derive = "PartialEq",
    doc = "A StopLine halts every release that it is about, at once and for as long as it exists: those of some tenants, those in some cells or clusters, or all. As a freeze it does so between two times, and an emergency may override it.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Tenants", type_ = "string", json_path = ".spec.tenants"),
    printcolumn(name = "Cells", type_ = "string", json_path = ".spec.cells"),
    printcolumn(name = "Clusters", type_ = "string", json_path = ".spec.clusters"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct StopLineSpec {
    /// Stop or Freeze.
    #[serde(default)]
    pub kind: StopKind,
    /// Tenants (namespaces) whose releases stand still. None given: those of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tenants: Vec<String>,
    /// Cells in which they do. A release that has instances in one of them stands still as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub cells: Vec<String>,
    /// The same for all cells of these clusters. Neither cells nor clusters given: everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub clusters: Vec<String>,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Who threw the switch.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// From when on. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Until when. Default: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// Whether an emergency overrides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StopKind {
    /// Nothing overrides it.
    #[default]
    Stop,
    /// Planned: a release with `spec.emergency` goes on, and that is recorded in its status.
    Freeze,
}
