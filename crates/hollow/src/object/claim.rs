//! A claim to devices as a kubelet needs to know it.

use super::{or_default, slim_meta};
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, core::ObjectMeta};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// A `resource.k8s.io/v1` ResourceClaim, slim.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ClaimObject {
    /// Name, uid, version.
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    /// What it was given, and who may use it.
    #[serde(default, deserialize_with = "or_default")]
    pub status: ClaimStatus,
}

/// The status of a claim, slim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    /// What it was given.
    pub allocation: Option<Allocation>,
    /// Who may use it.
    #[serde(deserialize_with = "or_default")]
    pub reserved_for: Vec<Consumer>,
    /// What drivers say of its devices, as written.
    #[serde(deserialize_with = "or_default")]
    pub devices: Vec<Value>,
}

/// What a claim was given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Allocation {
    /// Its devices.
    #[serde(deserialize_with = "or_default")]
    pub devices: Results,
}

/// Devices that a claim was given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Results {
    /// One by one.
    #[serde(deserialize_with = "or_default")]
    pub results: Vec<AllocatedDevice>,
}

/// A device that a claim was given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllocatedDevice {
    /// Its driver.
    pub driver: String,
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub device: String,
    /// Which share of it.
    #[serde(rename = "shareID")]
    pub share_id: Option<String>,
}

/// Who may use a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Consumer {
    /// The uid.
    pub uid: String,
}

impl Resource for ClaimObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ResourceClaim".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "resource.k8s.io".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "resourceclaims".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
