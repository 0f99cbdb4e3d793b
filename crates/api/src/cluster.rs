//! `Cluster`: a member of the fleet.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::labels;

/// How to reach a member cluster and how it is divided.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    status = "ClusterStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A Cluster is a member of the fleet: a Kubernetes cluster that runs instances. The hub acts on it as an ordinary client of its API server.",
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.nodesReady",
        description = "Ready nodes of all nodes"
    ),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances"),
    printcolumn(
        name = "Stopped",
        type_ = "string",
        json_path = ".spec.stopTheLine.reason",
        description = "Why no release moves here"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// The region, for people and for placement.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// How the hub reaches the cluster.
    #[serde(default)]
    pub access: Access,
    /// The cells of the cluster. A Group names the cells it is placed on.
    #[serde(default)]
    pub cells: Vec<Cell>,
    /// The switch that halts every release that touches this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_the_line: Option<StopTheLine>,
}

/// How the hub reaches a member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The Secret with the member's kubeconfig. Without it the member is the hub's own cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret: Option<KubeconfigSecret>,
}

/// A Secret that holds a kubeconfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeconfigSecret {
    /// Namespace of the Secret, in the hub.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Key in the Secret's data.
    #[serde(default = "kubeconfig_key")]
    pub key: String,
}

fn kubeconfig_key() -> String {
    "kubeconfig".to_owned()
}

/// A cell: one availability zone of the cluster and the boundary of its layer-2 network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// Name, unique in the fleet.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Labels of the nodes that make the cell. Empty means `topology.kubernetes.io/zone` with the
    /// cell's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
}

impl Cell {
    /// The node labels that make the cell, with the rule for an empty selector applied.
    pub fn selector(&self) -> BTreeMap<String, String> {
        if self.node_selector.is_empty() {
            BTreeMap::from([(labels::ZONE.to_owned(), self.name.clone())])
        } else {
            self.node_selector.clone()
        }
    }

    /// Whether `node` belongs to the cell.
    pub fn holds(&self, node: &Node) -> bool {
        let labels = node.metadata.labels.as_ref();
        self.selector()
            .iter()
            .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
    }
}

/// The switch that halts releases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopTheLine {
    /// Why. Releases stand still here for as long as it is not empty.
    #[serde(default)]
    pub reason: String,
    /// Who threw the switch.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// What the hub knows of the member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// `Ready`: the member answers and its watches are current.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Kubernetes version of the member's API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Address of the member's API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When the member last answered, to the minute while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// Nodes of the whole member.
    #[serde(default)]
    pub nodes: NodeCount,
    /// Ready nodes of all nodes, as `198/200`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nodes_ready: String,
    /// Instances of Groups on the member.
    #[serde(default)]
    pub instances: i32,
    /// Allocatable resources of the Ready nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, Quantity>,
    /// Resource requests of the instances of Groups. Pods that Gantry does not manage are not counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requested: BTreeMap<String, Quantity>,
    /// The same by cell, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellStatus>,
}

/// Nodes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCount {
    /// Nodes whose Ready condition is True and that are not cordoned.
    pub ready: i32,
    /// All nodes.
    pub total: i32,
}

/// What the hub knows of one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellStatus {
    /// The cell.
    pub name: String,
    /// Its nodes.
    pub nodes: NodeCount,
    /// Instances of Groups in it.
    pub instances: i32,
    /// Allocatable resources of its Ready nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, Quantity>,
    /// Resource requests of the instances of Groups in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requested: BTreeMap<String, Quantity>,
}
