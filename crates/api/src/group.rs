//! `Group`: an App's instances in one environment; the smallest unit of release.

#![expect(
    clippy::duplicated_attributes,
    reason = "clippy takes the type of two printer columns for one attribute"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ServicePort,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    count::CountOrPercent,
    revision::{RevisionRef, RevisionSpec},
    span::Span,
    strategy::StrategyChoice,
};

/// Where an App's instances run in one environment, how many, and on which revision they begin.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Group",
    plural = "groups",
    namespaced,
    status = "GroupStatus",
    category = "gantry",
    derive = "PartialEq",
    doc = "A Group is an App's instances in one environment, over one or more cells: one StatefulSet a cell. It is the smallest unit of release.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "App", type_ = "string", json_path = ".spec.app"),
    printcolumn(name = "Env", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    printcolumn(
        name = "In-Service",
        type_ = "integer",
        json_path = ".status.inService"
    ),
    printcolumn(
        name = "Revision",
        type_ = "integer",
        json_path = ".status.current.revision"
    ),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.current.image"),
    printcolumn(
        name = "Release",
        type_ = "string",
        json_path = ".status.target.release",
        description = "The Release under way"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpec {
    /// The App, in the same namespace.
    #[schemars(length(min = 1))]
    pub app: String,
    /// The environment: prod, staging …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// How many instances, over all cells.
    #[serde(default = "one")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Where they run.
    pub placement: Placement,
    /// The revision that a new Group begins with. Afterwards Releases change it, and the hub writes
    /// here what they brought; an edit by hand changes nothing and is reported in the status.
    pub revision: RevisionSpec,
    /// What is said to the network about instances' addresses. Not in effect yet: an instance keeps its address while
    /// its pod lives (images are replaced in place), and has another after its pod was made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// How its Releases go, unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyChoice>,
    /// How much of it must stay up.
    #[serde(default)]
    pub availability: Availability,
    /// Services on each member. None given: one ClusterIP Service named as the Group with the App's
    /// ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<GroupService>,
    /// What is wished for single instances, in the order in which it is granted: as many at once as
    /// `availability` allows to be out of service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub instances: Vec<InstanceWish>,
    /// Every instance whose pod is older than this is replaced by a new pod of the same name, on the same
    /// revision, as many at once as `availability` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_before: Option<Time>,
    /// How many revisions that are no longer in use are kept to go back to.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    pub revision_history_limit: i32,
    /// What runs on a member already and becomes the Group's first instances, untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// What becomes of the instances when the Group is deleted.
    #[serde(default, skip_serializing_if = "OnDelete::is_remove")]
    pub on_delete: OnDelete,
}

impl GroupSpec {
    /// Name of the StatefulSet in `cell` of the Group `group`: the adopted one keeps its own.
    pub fn set_in(&self, group: &str, cell: &str) -> String {
        match &self.adopt {
            Some(adopt) if adopt.kind == AdoptKind::StatefulSet && adopt.cell == cell => {
                adopt.name.clone()
            }
            _ => Group::set_name(group, cell),
        }
    }
}

fn one() -> i32 {
    1
}

fn ten() -> i32 {
    10
}

/// A workload of a member, in the namespace of the Group's own name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// What it is.
    pub kind: AdoptKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The cell it runs in. Of a Deployment, which may run in several cells of a cluster: the cell of
    /// instances that no other cell of the Group has.
    #[schemars(length(min = 1, max = 40))]
    pub cell: String,
    /// Instances of a Deployment have names that no StatefulSet can give. They stay until this is true or
    /// until the first release, and are then replaced, new ones first.
    #[serde(default)]
    pub replace: bool,
}

/// What can be adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptKind {
    /// Its instances stay, as guests, until they are replaced by instances with names of their own.
    #[default]
    Deployment,
    /// It becomes the Group's StatefulSet in its cell: names, volumes and addresses stay for good.
    StatefulSet,
}

impl AdoptKind {
    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// What becomes of a Group's instances when it is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// They are removed.
    #[default]
    Remove,
    /// They stay, untouched, as plain StatefulSets (guests as Deployments).
    LeaveStatefulSets,
    /// They stay, untouched, as plain Deployments.
    LeaveDeployments,
}

impl OnDelete {
    /// Whether it is the default.
    pub fn is_remove(&self) -> bool {
        *self == Self::Remove
    }
}

/// What is wished for one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceWish {
    /// The instance.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// It takes no traffic for as long as this is said. Releases update it all the same.
    #[serde(default)]
    pub out_of_service: bool,
    /// Its pod, if it is older than this, is replaced by a new one of the same name; not while a release of
    /// the Group is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_before: Option<Time>,
    /// Its cell does without it, and without those of higher numbers. Only the last of a cell can go: a
    /// StatefulSet's numbers have no gaps.
    #[serde(default, skip_serializing_if = "is_false")]
    pub remove: bool,
    /// It goes, as with `remove`, once this cell has one more in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub to: Option<String>,
    /// It is replaced by a new pod of the same name on another node of its cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_node: Option<ToNode>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Who wishes it: the user's own name, which the API server holds to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub by: String,
}

/// Which node an instance is wished onto. Asked for once: a pod made later, for whatever reason, is placed freely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToNode {
    /// The node, one of the instance's cell.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The pod is replaced if it is older than this and on another node.
    pub before: Time,
    /// For the record: the node that the instance was on when this was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub from: String,
}

/// How a wish for an instance stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceNote {
    /// The instance.
    pub name: String,
    /// `Waiting`, `OutOfService`, `Restarting`, `Going`, `Gone` or `Missing`; of a move to a node `Refused`,
    /// `Moving`, `Moved` or `Elsewhere`.
    pub state: String,
    /// What it waits for, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where instances run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Cells and their shares. Fixed numbers are given first, in this order; the rest is divided by weight,
    /// such that adding a replica never takes one from any cell. Without weights it is spread evenly.
    #[schemars(length(min = 1))]
    pub cells: Vec<CellShare>,
    /// How instances spread over the nodes of a cell.
    #[serde(default)]
    pub spread: Spread,
    /// When a cell counts as full, so that others take what it cannot. Default: instances wait for nodes
    /// where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// When a cell counts as lost, so that others take its share. Default: its instances are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostCell>,
}

/// When a cell counts as full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Overflow {
    /// When instances there have found no node for so long.
    pub after: Span,
    /// After so long it is asked for its whole share again; others give instances up only as those there
    /// have come into service.
    pub back: Span,
}

impl Default for Overflow {
    fn default() -> Self {
        Self {
            after: Span::minutes(5),
            back: Span::minutes(30),
        }
    }
}

/// When a cell counts as lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LostCell {
    /// When its cluster has been out of reach for so long.
    pub after: Span,
    /// How many instances another cell takes beyond its own share, at most.
    pub max_extra: CountOrPercent,
}

impl Default for LostCell {
    fn default() -> Self {
        Self {
            after: Span::minutes(15),
            max_extra: CountOrPercent::Percent(50),
        }
    }
}

/// One cell's share of a Group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellShare {
    /// Name of the cell.
    pub name: String,
    /// Its weight against the other cells'. 0: no instances, but those there are removed in order.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub weight: i32,
    /// A fixed number of instances, instead of a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Most instances that the cell is given, whatever its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max: Option<i32>,
}

/// How instances spread over the nodes of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Spread {
    /// By how many instances two nodes may differ.
    #[schemars(range(min = 1))]
    pub max_skew: i32,
    /// Whether an instance that would break the rule waits instead of being placed.
    pub required: bool,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            max_skew: 1,
            required: false,
        }
    }
}

/// What is said to the network about instances' addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// An instance keeps its address for life. Not in effect yet.
    #[serde(default)]
    pub sticky: bool,
    /// The pool addresses come from. Not in effect yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// How much of a Group must stay up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Availability {
    /// How many instances may be out of service at once, by releases and by evictions.
    pub max_unavailable: CountOrPercent,
}

impl Default for Availability {
    fn default() -> Self {
        Self {
            max_unavailable: CountOrPercent::Percent(10),
        }
    }
}

/// A Service that the hub keeps on each member, selecting the Group's instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupService {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// ClusterIP, NodePort or LoadBalancer.
    #[serde(rename = "type", default)]
    pub kind: ServiceType,
    /// No virtual address: the name resolves to the instances.
    #[serde(default)]
    pub headless: bool,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `ClientIP` keeps a client on one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// From inside the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// On a port of every node.
    NodePort,
    /// Through a load balancer of the cloud.
    LoadBalancer,
}

impl ServiceType {
    /// The name as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// What the hub knows of the Group. Counts of a member that cannot be reached are the last known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The revision that the Group is on; new instances and lost ones come back on it. Changes when a
    /// Release succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<RevisionRef>,
    /// The revision that a Release is bringing, while one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RevisionRef>,
    /// Instances that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Instances whose containers are ready, in traffic or not.
    #[serde(default)]
    pub ready: i32,
    /// Instances that receive traffic.
    #[serde(default)]
    pub in_service: i32,
    /// Instances on the target revision, or on the current one where no Release runs.
    #[serde(default)]
    pub updated: i32,
    /// The same by cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<GroupCellStatus>,
    /// How wishes for single instances stand; of many the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceNote>,
    /// Set once `spec.adopt` has come through: when, and how many instances there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// Label selector of the instances, as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// `Ready`: as many instances in service as wished. `Placed`: every cell is known and reachable and
    /// took the wish. `Settled`: every instance is on the current revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What keeps the Group from its wish, in one line; empty when nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An adoption that has come through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopted {
    /// When.
    pub at: Time,
    /// Instances taken over without touching them.
    pub instances: i32,
}

/// A Group's instances in one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupCellStatus {
    /// The cell.
    pub name: String,
    /// The member that the cell belongs to.
    #[serde(default)]
    pub cluster: String,
    /// Instances wished for.
    pub desired: i32,
    /// Instances that exist.
    pub replicas: i32,
    /// Of these, adopted ones that have no name of the Group's yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub guests: i32,
    /// Instances whose containers are ready.
    pub ready: i32,
    /// Instances that receive traffic.
    pub in_service: i32,
    /// Instances on the target revision, or on the current one where no Release runs.
    pub updated: i32,
    /// Since when the cell's member cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<Time>,
    /// Set while the cell counts as full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<CellFull>,
    /// Set while the cell counts as lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
}

fn is_false(b: &bool) -> bool {
    !b
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// How much of a Group a full cell has room for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CellFull {
    /// Since when it counts as full.
    pub since: Time,
    /// Instances that had found a node by then.
    pub room: i32,
}

impl Group {
    /// Name of its StatefulSet in `cell`.
    pub fn set_in(&self, cell: &str) -> String {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.set_in(name, cell)
    }

    /// Name that a Group's StatefulSet in `cell` is given, and so the stem of its instances' names.
    pub fn set_name(group: &str, cell: &str) -> String {
        format!("{group}-{cell}")
    }

    /// Name of an instance.
    pub fn instance_name(group: &str, cell: &str, ordinal: i32) -> String {
        format!("{group}-{cell}-{ordinal}")
    }
}
