//! CertificateSigningRequest.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use super::meta::nullable;
use super::{Kind, Meta, SIGNING_REQUESTS, Watched};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct SigningRequest {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: SigningSpec,
    #[serde(default)]
    pub status: SigningStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SigningSpec {
    pub request: String,
    pub signer_name: String,
    #[serde(rename = "expirationSeconds")]
    pub seconds: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    pub usages: Vec<String>,
    pub username: String,
    pub uid: String,
    #[serde(deserialize_with = "nullable")]
    pub groups: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SigningStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<SigningCondition>,
    #[serde(deserialize_with = "nullable")]
    pub certificate: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SigningCondition {
    #[serde(rename = "type")]
    pub kind: Box<str>,
    pub last_update_time: Option<Timestamp>,
}

impl SigningRequest {
    pub fn is(&self, condition: &str) -> bool {
        self.status.conditions.iter().any(|c| *c.kind == *condition)
    }

    /// Whether it was approved or denied.
    pub fn decided(&self) -> bool {
        self.is("Approved") || self.is("Denied")
    }
}

impl Watched for SigningRequest {
    const KIND: Kind = SIGNING_REQUESTS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
