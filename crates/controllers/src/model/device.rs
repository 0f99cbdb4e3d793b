//! Claims to devices (dynamic resource allocation).

use std::sync::Arc;

use serde::Deserialize;

use super::meta::nullable;
use super::{DEVICE_CLAIMS, Kind, Meta, Watched};

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
    /// There or not: what it holds is the drivers' business.
    pub allocation: Option<Allocated>,
    #[serde(deserialize_with = "nullable")]
    pub reserved_for: Vec<Consumer>,
}

/// A claim has devices.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Allocated {}

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
}
