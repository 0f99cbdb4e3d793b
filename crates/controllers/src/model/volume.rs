//! Persistent volumes, the claims to them, and the classes by which they are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::meta::nullable;
use super::{
    ATTACHMENTS, ATTRIBUTES_CLASSES, CLAIMS, DRIVERS, Kind, Meta, STORAGE_CLASSES, VOLUMES, Watched,
};
use crate::selector::Selector;

/// Amounts by name, such as `storage: 1Gi`.
pub type Amounts = BTreeMap<String, String>;

/// Index value of the claims that have no volume yet.
pub const UNBOUND: &str = "unbound";

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Claim {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ClaimSpec,
    #[serde(default)]
    pub status: ClaimStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    #[serde(deserialize_with = "nullable")]
    pub access_modes: Vec<String>,
    pub selector: Option<Selector>,
    #[serde(deserialize_with = "nullable")]
    pub resources: Resources,
    #[serde(deserialize_with = "nullable")]
    pub volume_name: String,
    /// `None` and empty mean the same here: no class.
    #[serde(deserialize_with = "nullable")]
    pub storage_class_name: String,
    #[serde(deserialize_with = "nullable")]
    pub volume_mode: String,
    pub volume_attributes_class_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "nullable")]
    pub requests: Amounts,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
    #[serde(deserialize_with = "nullable")]
    pub access_modes: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub capacity: Amounts,
    pub current_volume_attributes_class_name: Option<String>,
    pub modify_volume_status: Option<ModifyStatus>,
}

/// A change of attributes that is under way.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModifyStatus {
    #[serde(deserialize_with = "nullable")]
    pub target_volume_attributes_class_name: String,
}

impl Claim {
    /// The VolumeAttributesClasses that it names: the one it wants, has, and comes to have.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        let status = &self.status;
        let target = status.modify_volume_status.as_ref();
        [
            self.spec.volume_attributes_class_name.as_deref(),
            status.current_volume_attributes_class_name.as_deref(),
            target.map(|t| t.target_volume_attributes_class_name.as_str()),
        ]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
    }
}

/// Index value of the claims and the volumes that name a VolumeAttributesClass.
pub fn attributes_index(class: &str) -> Arc<str> {
    format!("attributes/{class}").into()
}

impl Watched for Claim {
    const KIND: Kind = CLAIMS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        if self.spec.volume_name.is_empty() {
            put(UNBOUND.into());
        } else {
            put(volume_index(&self.spec.volume_name));
        }
        for class in self.attributes() {
            put(attributes_index(class));
        }
    }
}

/// Index value of the claims and the attachments that name a volume.
pub fn volume_index(volume: &str) -> Arc<str> {
    format!("/{volume}").into()
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Volume {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: VolumeSpec,
    #[serde(default)]
    pub status: VolumeStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    #[serde(deserialize_with = "nullable")]
    pub capacity: Amounts,
    #[serde(deserialize_with = "nullable")]
    pub access_modes: Vec<String>,
    pub claim_ref: Option<ClaimRef>,
    #[serde(deserialize_with = "nullable")]
    pub persistent_volume_reclaim_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub storage_class_name: String,
    #[serde(deserialize_with = "nullable")]
    pub volume_mode: String,
    pub csi: Option<Csi>,
    pub volume_attributes_class_name: Option<String>,
}

/// The volume as its driver knows it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Csi {
    #[serde(deserialize_with = "nullable")]
    pub driver: String,
    #[serde(deserialize_with = "nullable")]
    pub volume_handle: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClaimRef {
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Empty where somebody has reserved the volume for a claim that may not be there yet.
    #[serde(deserialize_with = "nullable")]
    pub uid: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
}

impl Watched for Volume {
    const KIND: Kind = VOLUMES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        if let Some(class) = &self.spec.volume_attributes_class_name {
            put(attributes_index(class));
        }
    }
}

/// A VolumeAttributesClass: what it says is its driver's business.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct AttributesClass {
    pub metadata: Meta,
}

impl Watched for AttributesClass {
    const KIND: Kind = ATTRIBUTES_CLASSES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageClass {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub provisioner: String,
    #[serde(default, deserialize_with = "nullable")]
    pub reclaim_policy: String,
    #[serde(default, deserialize_with = "nullable")]
    pub volume_binding_mode: String,
    #[serde(default, deserialize_with = "nullable")]
    pub mount_options: Vec<String>,
}

impl Watched for StorageClass {
    const KIND: Kind = STORAGE_CLASSES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

/// A volume on its way to a node, or there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Attachment {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: AttachmentSpec,
    #[serde(default)]
    pub status: AttachmentStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSpec {
    #[serde(deserialize_with = "nullable")]
    pub attacher: String,
    #[serde(deserialize_with = "nullable")]
    pub node_name: String,
    #[serde(deserialize_with = "nullable")]
    pub source: AttachmentSource,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSource {
    /// Empty where the volume is written inline.
    #[serde(deserialize_with = "nullable")]
    pub persistent_volume_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AttachmentStatus {
    #[serde(deserialize_with = "nullable")]
    pub attached: bool,
}

impl Watched for Attachment {
    const KIND: Kind = ATTACHMENTS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        put(self.spec.node_name.as_str().into());
        put(volume_index(&self.spec.source.persistent_volume_name));
    }
}

/// What a driver of volumes says of itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Driver {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: DriverSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DriverSpec {
    /// `None` is yes.
    pub attach_required: Option<bool>,
}

impl Watched for Driver {
    const KIND: Kind = DRIVERS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
