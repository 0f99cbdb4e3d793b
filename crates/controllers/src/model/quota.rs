//! What governs a namespace: its quotas.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Kind, Meta, QUOTAS, Watched};

/// A ResourceQuota; what it says stays JSON, as the reckoning of quotas reads it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Quota {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: Arc<Value>,
    #[serde(default)]
    pub status: Arc<Value>,
}

impl Watched for Quota {
    const KIND: Kind = QUOTAS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
