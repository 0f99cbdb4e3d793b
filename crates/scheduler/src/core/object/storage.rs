//! Claims, volumes, and what can serve them.

use super::{Resources, nullable, slim_metadata};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A PersistentVolumeClaim.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Claim {
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: ClaimSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: ClaimStatus,
}

/// A claim's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    pub volume_name: Option<String>,
    pub storage_class_name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub access_modes: Vec<String>,
    pub volume_mode: Option<String>,
    pub volume_attributes_class_name: Option<String>,
    pub selector: Option<LabelSelector>,
    #[serde(deserialize_with = "nullable")]
    pub resources: Resources,
}

/// A claim's status.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct ClaimStatus {
    pub phase: Option<String>,
}

/// A PersistentVolume.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct PersistentVolume {
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: PersistentVolumeSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: ClaimStatus,
}

/// A volume's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeSpec {
    #[serde(deserialize_with = "nullable")]
    pub capacity: BTreeMap<String, Quantity>,
    #[serde(deserialize_with = "nullable")]
    pub access_modes: Vec<String>,
    pub claim_ref: Option<k8s::ObjectReference>,
    pub storage_class_name: Option<String>,
    pub volume_mode: Option<String>,
    pub volume_attributes_class_name: Option<String>,
    pub node_affinity: Option<k8s::VolumeNodeAffinity>,
    pub csi: Option<Csi>,
    // What drivers have taken over.
    pub aws_elastic_block_store: Option<k8s::AWSElasticBlockStoreVolumeSource>,
    pub gce_persistent_disk: Option<k8s::GCEPersistentDiskVolumeSource>,
    pub azure_disk: Option<k8s::AzureDiskVolumeSource>,
    pub cinder: Option<k8s::CinderPersistentVolumeSource>,
}

/// Which driver attaches a volume, under which handle.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Csi {
    pub driver: String,
    pub volume_handle: String,
}

/// A VolumeAttachment: a volume is, or is to be, attached to a node.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct Attachment {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: AttachmentSpec,
}

/// What is attached where, by which driver.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSpec {
    pub attacher: String,
    pub node_name: String,
    pub source: AttachmentSource,
}

/// Which volume is attached.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSource {
    pub persistent_volume_name: Option<String>,
}

/// A StorageClass.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    pub provisioner: String,
    pub volume_binding_mode: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub allowed_topologies: Vec<k8s::TopologySelectorTerm>,
}

/// A CSINode: how many volumes of each driver a node can attach.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct CsiNode {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: CsiNodeSpec,
}

/// A CSINode's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct CsiNodeSpec {
    #[serde(deserialize_with = "nullable")]
    pub drivers: Vec<CsiNodeDriver>,
}

/// A driver on a node.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct CsiNodeDriver {
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub allocatable: AttachLimit,
}

/// How many volumes fit.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct AttachLimit {
    pub count: Option<i64>,
}

/// A CSIDriver: whether it tells how much room its storage has.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
pub struct CsiDriver {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: CsiDriverSpec,
}

/// A driver's spec.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriverSpec {
    pub storage_capacity: Option<bool>,
}

/// A CSIStorageCapacity: how large a new volume of a class may be, reachable from which nodes.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageCapacity {
    #[serde(deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    pub storage_class_name: String,
    pub node_topology: Option<LabelSelector>,
    pub capacity: Option<Quantity>,
    pub maximum_volume_size: Option<Quantity>,
}
