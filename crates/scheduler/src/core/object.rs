//! API objects cut down to what scheduling reads. Everything else in a watched object is skipped while decoding:
//! a hundred thousand pods are held by what they ask for, not by their manifests.

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference, Time,
};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

mod storage;

pub use storage::*;

/// Decodes only the metadata that scheduling uses; managed fields and annotations are never materialised.
fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let slim = Slim::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        labels: slim.labels,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        owner_references: slim.owner_references,
        ..ObjectMeta::default()
    })
}

/// A list that the API may send as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A pod.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: PodSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: PodStatus,
}

/// A pod's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: Option<String>,
    pub scheduler_name: Option<String>,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub scheduling_gates: Vec<k8s::PodSchedulingGate>,
    #[serde(deserialize_with = "nullable")]
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<k8s::Affinity>,
    #[serde(deserialize_with = "nullable")]
    pub tolerations: Vec<k8s::Toleration>,
    #[serde(deserialize_with = "nullable")]
    pub topology_spread_constraints: Vec<k8s::TopologySpreadConstraint>,
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub overhead: BTreeMap<String, Quantity>,
    pub resources: Option<Resources>,
    pub host_network: Option<bool>,
    pub host_users: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    pub volumes: Vec<Volume>,
    /// Devices asked for.
    #[serde(deserialize_with = "nullable")]
    pub resource_claims: Vec<k8s::PodResourceClaim>,
}

/// A container: what it requests and which host ports it takes.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub image: Option<String>,
    pub restart_policy: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub restart_policy_rules: Vec<RestartRule>,
    pub resources: Option<Resources>,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<Port>,
}

/// What is done when a container has exited.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct RestartRule {
    pub action: String,
}

/// Requested resources; limits count only where a request is absent, which the API server's defaults settle, and in who
/// is given cores of its own.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "nullable")]
    pub requests: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "nullable")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A container port.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    pub host_port: Option<i32>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
}

/// A volume: claims matter to placement, and disks that are named without one.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<k8s::PersistentVolumeClaimVolumeSource>,
    pub ephemeral: Option<serde::de::IgnoredAny>,
    pub gce_persistent_disk: Option<k8s::GCEPersistentDiskVolumeSource>,
    pub aws_elastic_block_store: Option<k8s::AWSElasticBlockStoreVolumeSource>,
    pub iscsi: Option<k8s::ISCSIVolumeSource>,
    pub rbd: Option<k8s::RBDVolumeSource>,
    pub azure_disk: Option<k8s::AzureDiskVolumeSource>,
    pub cinder: Option<k8s::CinderVolumeSource>,
}

/// A pod's status.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
    /// The node where room was made for the pod.
    pub nominated_node_name: Option<String>,
    pub start_time: Option<Time>,
    /// The claims that were made for it from templates.
    #[serde(deserialize_with = "nullable")]
    pub resource_claim_statuses: Vec<k8s::PodResourceClaimStatus>,
    #[serde(deserialize_with = "nullable")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Pod-level resources as the node has allotted and applied them.
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
    pub resources: Option<AppliedResources>,
}

/// What the node says of a container's resources while they change.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
    pub resources: Option<AppliedResources>,
}

/// Resources that are in force.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct AppliedResources {
    pub requests: Option<BTreeMap<String, Quantity>>,
}

/// A pod condition: the scheduler reads back its own, so as not to write the same again.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

impl Pod {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// The namespace; empty if absent.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The name; empty if absent.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The uid; empty if absent.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The node it is bound to.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref().filter(|n| !n.is_empty())
    }

    /// Whose task it is to place it.
    #[must_use]
    pub fn scheduler_name(&self) -> &str {
        self.spec
            .scheduler_name
            .as_deref()
            .filter(|n| !n.is_empty())
            .unwrap_or("default-scheduler")
    }

    /// Finished pods hold no resources.
    #[must_use]
    pub fn finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }
}

/// A node.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Node {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: NodeSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: NodeStatus,
}

/// A node's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(deserialize_with = "nullable")]
    pub unschedulable: bool,
    #[serde(deserialize_with = "nullable")]
    pub taints: Vec<k8s::Taint>,
}

/// A node's status.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub allocatable: BTreeMap<String, Quantity>,
    #[serde(rename = "declaredFeatures", deserialize_with = "nullable")]
    pub declared_features: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub images: Vec<Image>,
}

/// An image that a node has.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    pub size_bytes: i64,
}

/// A namespace: its labels are what `namespaceSelector`s read.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Namespace {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
}

/// A Service, for default spreading.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Service {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: ServiceSpec,
}

/// A Service's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ServiceSpec {
    #[serde(deserialize_with = "nullable")]
    pub selector: BTreeMap<String, String>,
}

/// A ReplicaSet or StatefulSet, for default spreading.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Owner {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: OwnerSpec,
}

/// An owner's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct OwnerSpec {
    pub selector: Option<LabelSelector>,
}

/// A PodDisruptionBudget: preemption would rather not break it.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct DisruptionBudget {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: OwnerSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: BudgetStatus,
}

/// A budget's status.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    pub disruptions_allowed: i64,
}

/// Koordinator's NodeMetric: what a node uses.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct NodeMetric {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: NodeMetricSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: NodeMetricStatus,
}

/// A NodeMetric's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMetricSpec {
    pub metric_collect_policy: Option<CollectPolicy>,
}

/// How usage is collected.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct CollectPolicy {
    pub aggregate_duration_seconds: Option<i64>,
}

/// A NodeMetric's status.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMetricStatus {
    pub update_time: Option<Time>,
    pub node_metric: Option<NodeMetricInfo>,
}

/// Usage of the node as a whole.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMetricInfo {
    #[serde(deserialize_with = "nullable")]
    pub node_usage: ResourceMap,
}

/// Amounts by resource.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ResourceMap {
    #[serde(deserialize_with = "nullable")]
    pub resources: BTreeMap<String, Quantity>,
}

/// scheduler-plugins' and Koordinator's ElasticQuota.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ElasticQuota {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: ElasticQuotaSpec,
}

/// What a quota guarantees, and what it allows at most.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ElasticQuotaSpec {
    #[serde(deserialize_with = "nullable")]
    pub min: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "nullable")]
    pub max: BTreeMap<String, Quantity>,
}

/// coscheduling's PodGroup.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct PodGroup {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: PodGroupSpec,
}

/// How many pods a group needs, and how long it may take.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGroupSpec {
    pub min_member: Option<i64>,
    pub schedule_timeout_seconds: Option<i64>,
}

/// NFD's NodeResourceTopology: the NUMA nodes of a node.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTopology {
    /// With its annotations, of which some speak of cores.
    pub metadata: ObjectMeta,
    /// As older writers have it.
    #[serde(deserialize_with = "nullable")]
    pub topology_policies: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub attributes: Vec<Attribute>,
    #[serde(deserialize_with = "nullable")]
    pub zones: Vec<Zone>,
}

/// Something that is said of a node.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Attribute {
    pub name: String,
    pub value: String,
}

/// A NUMA node, or another part.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Zone {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub resources: Vec<ZoneResource>,
}

/// What is free of a resource, and all there is.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ZoneResource {
    pub name: String,
    pub available: Quantity,
    pub allocatable: Quantity,
    pub capacity: Quantity,
}
