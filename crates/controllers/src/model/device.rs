//! Claims to devices (dynamic resource allocation).

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::meta::nullable;
use super::pod::Toleration;
use super::{DEVICE_CLAIMS, DEVICE_SLICES, Kind, Meta, Watched, orphan_index};

/// A claim in a pod's spec, with the name of what was made for it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaim {
    /// In the pod.
    pub name: Box<str>,
    #[serde(rename = "resourceClaimName")]
    pub claim: Option<Box<str>>,
    #[serde(rename = "resourceClaimTemplateName")]
    pub template: Option<Box<str>>,
    /// As the pod's status tells it: the claim made from the template, if one was needed.
    #[serde(skip)]
    pub made: Option<Option<Box<str>>>,
}

impl PodClaim {
    /// The name of the claim that it stands for, once that is known.
    pub fn used(&self) -> Option<&str> {
        let made = || self.made.as_ref()?.as_deref();
        self.claim.as_deref().or_else(made)
    }
}

/// What a pod's status tells of a claim made for it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MadeClaim {
    name: Box<str>,
    resource_claim_name: Option<Box<str>>,
}

/// What a pod's status tells of the claim that its scheduler made for its extended resources.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtendedClaim {
    resource_claim_name: Box<str>,
}

/// A pod's claims with the names of what was made for them.
pub(super) fn with_names(
    mut claims: Vec<PodClaim>,
    made: Vec<MadeClaim>,
    extended: Option<ExtendedClaim>,
) -> Box<[PodClaim]> {
    for status in made {
        if let Some(claim) = claims.iter_mut().find(|c| c.name == status.name) {
            claim.made = Some(status.resource_claim_name);
        }
    }
    claims.extend(extended.map(|made| PodClaim {
        made: Some(Some(made.resource_claim_name)),
        ..PodClaim::default()
    }));
    claims.into()
}

/// A ResourceClaim.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DeviceClaim {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub status: DeviceClaimStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceClaimStatus {
    pub allocation: Option<Allocated>,
    #[serde(deserialize_with = "nullable")]
    pub reserved_for: Vec<Consumer>,
}

/// A claim has devices.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Allocated {
    #[serde(deserialize_with = "nullable")]
    pub devices: AllocatedDevices,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllocatedDevices {
    #[serde(deserialize_with = "nullable")]
    pub results: Vec<AllocatedDevice>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllocatedDevice {
    pub driver: Box<str>,
    pub pool: Box<str>,
    pub device: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub tolerations: Vec<Toleration>,
}

/// Index value of the slices that tell of a pool, and of the claims that have devices of it.
pub fn pool_index(driver: &str, pool: &str) -> Arc<str> {
    format!("{driver}/{pool}").into()
}

/// A ResourceSlice, as far as it tells of taints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DeviceSlice {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: SliceSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SliceSpec {
    pub driver: Box<str>,
    pub pool: SlicePool,
    /// Those that are tainted.
    #[serde(deserialize_with = "tainted")]
    pub devices: Vec<SliceDevice>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SlicePool {
    pub name: Box<str>,
    /// Slices of an older one no longer count.
    pub generation: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SliceDevice {
    pub name: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub taints: Vec<DeviceTaint>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceTaint {
    pub key: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub value: Box<str>,
    pub effect: Box<str>,
    pub time_added: Option<Timestamp>,
}

/// There may be many devices, and few are tainted.
fn tainted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SliceDevice>, D::Error> {
    let mut devices: Vec<SliceDevice> = nullable(deserializer)?;
    devices.retain(|device| !device.taints.is_empty());
    devices.shrink_to_fit();
    Ok(devices)
}

impl DeviceSlice {
    pub fn is_tainted(&self) -> bool {
        !self.spec.devices.is_empty()
    }

    pub fn pool(&self) -> Arc<str> {
        pool_index(&self.spec.driver, &self.spec.pool.name)
    }
}

impl Watched for DeviceSlice {
    const KIND: Kind = DEVICE_SLICES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        put(self.pool());
    }
}

/// Who may use a claim.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Consumer {
    #[serde(deserialize_with = "nullable")]
    pub api_group: Box<str>,
    pub resource: Box<str>,
    pub name: Box<str>,
    pub uid: Arc<str>,
}

impl Consumer {
    pub fn is_pod(&self) -> bool {
        self.api_group.is_empty() && &*self.resource == "pods"
    }
}

impl Watched for DeviceClaim {
    const KIND: Kind = DEVICE_CLAIMS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        match self.metadata.controller() {
            Some(owner) => put(owner.uid.clone()),
            None => put(orphan_index(&self.metadata.namespace)),
        }
        let allocation = self.status.allocation.iter();
        for device in allocation.flat_map(|a| &a.devices.results) {
            put(pool_index(&device.driver, &device.pool));
        }
    }
}
