//! `Reservation`: room held for pods that are still to come.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, Time},
    },
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Span;

/// How much room, for whom, and for how long.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Reservation",
    plural = "reservations",
    shortname = "resv",
    namespaced,
    status = "ReservationStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A Reservation holds room on nodes for pods of its namespace that are still to come: the surge of a release, the other end of a migration. Each slot takes the room of one pod, and gives it to the first pod of the owners that comes.",
    printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Held", type_ = "integer", json_path = ".status.held"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Expires", type_ = "date", json_path = ".status.expires"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ReservationSpec {
    /// How many slots.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// What each takes, as a pod would request it.
    #[schemars(extend("minProperties" = 1))]
    pub requests: BTreeMap<String, Quantity>,
    /// Labels of the nodes that will do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods to come tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// For which pods, of the reservation's namespace.
    pub owners: LabelSelector,
    /// For how long after it was made. What is not used by then is free again.
    pub ttl: Span,
}

const fn one() -> i32 {
    1
}

/// What is held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationStatus {
    /// The generation of the spec that is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(default)]
    pub phase: ReservationPhase,
    /// When its time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
    /// Slots that hold room.
    #[serde(default)]
    pub held: i32,
    /// Slots whose pod has come.
    #[serde(default)]
    pub used: i32,
    /// Nodes on which slots hold room, one entry for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReservationPhase {
    /// Some slot has found no node yet.
    #[default]
    Pending,
    /// All slots hold room, or have given it.
    Held,
    /// All slots have given their room.
    Used,
    /// Its time is over.
    Expired,
}
