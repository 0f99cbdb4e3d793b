//! `PlacementPolicy`: a rule of where pods may and should go that can be changed at run time.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::Level;

/// Which pods, and where they may and should go.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "PlacementPolicy",
    plural = "placementpolicies",
    shortname = "pp",
    status = "PlacementPolicyStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A PlacementPolicy says where pods may and should go: how they spread, whom they seek and avoid, which pools are theirs. It holds from the next placement on; pods that run stay where they are. Where several policies select a pod, restrictions add up; of what can be said only once (strategy, pools, load, a spread over one key) the policy of the highest priority decides, of equal ones the first by name.",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Tenants",
        type_ = "string",
        json_path = ".spec.pods.namespaces"
    ),
    printcolumn(name = "Apps", type_ = "string", json_path = ".spec.pods.apps"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods"),
    printcolumn(
        name = "Effective",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Effective\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PlacementPolicySpec {
    /// Of several policies that say different things of a pod, the highest decides.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Which pods it is about; a pod must meet all that is given. Nothing given: all pods.
    #[serde(default)]
    pub pods: PodChoice,
    /// How they spread over domains of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub spread: Vec<SpreadRule>,
    /// Whether they fill nodes one after another or use all evenly. Default: as the scheduler's profile has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<PackingStrategy>,
    /// Pods that they seek.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub seek: Vec<Neighbour>,
    /// Pods that they avoid. A required rule holds the other way too: those are kept from their domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub avoid: Vec<Neighbour>,
    /// Pools that they may use, in this order: the next one when those before are full, as elastic or public
    /// capacity is. Default: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pools: Vec<Pool>,
    /// Nodes that are set apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Exclusive>,
    /// Per cent of what a node has that may really be used before it takes no more of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadLimits>,
    /// Which kinds of machines they need or like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// Whether they need one NUMA node for all of their containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<NumaAlignment>,
}

/// Which pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodChoice {
    /// Tenants: those in these namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Those of these Apps (label `gantry.dev/app`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub apps: Vec<String>,
    /// Those of these levels: label `gantry.dev/level`, without one by the priority of the level's class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub levels: Vec<Level>,
    /// Those with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A spread over the domains of a node label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpreadRule {
    /// The node label whose values are the domains.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// By how many pods the fullest domain may be ahead of the emptiest.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_skew: i32,
    /// DoNotSchedule (pods wait) or ScheduleAnyway (as well as can be).
    #[serde(default)]
    pub when_unsatisfiable: Unsatisfiable,
}

const fn one() -> i32 {
    1
}

/// What happens to a pod that cannot spread as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unsatisfiable {
    /// It waits.
    #[default]
    DoNotSchedule,
    /// It is placed as well as can be.
    ScheduleAnyway,
}

/// How nodes are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PackingStrategy {
    /// Fuller nodes first.
    Pack,
    /// Emptier nodes first.
    Spread,
}

/// Pods to be near to, or away from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// Which pods.
    pub selector: LabelSelector,
    /// In which namespaces. Default: the pod's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// The node label whose values are the domains.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// How much it is wished for. Default: it is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
}

/// Nodes that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name, for people.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Labels of its nodes.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 8))]
    pub node_selector: BTreeMap<String, String>,
}

/// Nodes set apart for pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exclusive {
    /// Labels of the nodes.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 8))]
    pub node_selector: BTreeMap<String, String>,
    /// Nodes: no other pods there. Pods: these pods nowhere else. Both: either.
    #[serde(default)]
    pub scope: ExclusiveScope,
}

/// Who is bound to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExclusiveScope {
    /// No other pods on these nodes; these pods may go elsewhere.
    Nodes,
    /// These pods only on these nodes; others may come.
    Pods,
    /// These pods only there, and nobody else.
    #[default]
    Both,
}

/// Bounds of real usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadLimits {
    /// Per cent of CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub cpu: Option<i32>,
    /// Per cent of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub memory: Option<i32>,
}

/// Kinds of machines, told by labels of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// Labels with the values that will do; all must hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub required: BTreeMap<String, Vec<String>>,
    /// What is liked, and how much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub preferred: Vec<HardwareWish>,
}

/// Machines that are liked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardwareWish {
    /// How much.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Labels with the values that will do; all must hold.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 8))]
    pub labels: BTreeMap<String, Vec<String>>,
}

/// How containers sit on NUMA nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NumaAlignment {
    /// All of a pod's containers on one NUMA node: only nodes that align so and have one with room.
    SingleNumaNode,
}

/// What the scheduler made of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementPolicyStatus {
    /// The generation of the spec that placements follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods it selects.
    #[serde(default)]
    pub pods: i64,
    /// What of it cannot be followed, or is overruled by another policy; at most 16 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Effective: True while placements follow all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
