//! ClusterRole.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::meta::nullable;
use super::{CLUSTER_ROLES, Kind, Meta, Watched};
use crate::selector::Selector;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ClusterRole {
    pub metadata: Meta,
    /// As they are: what this build does not know of a rule is gathered too.
    #[serde(default, deserialize_with = "nullable")]
    pub rules: Vec<Value>,
    #[serde(default, rename = "aggregationRule")]
    pub aggregation: Option<Aggregation>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Aggregation {
    #[serde(rename = "clusterRoleSelectors", deserialize_with = "nullable")]
    pub selectors: Vec<Selector>,
}

impl Watched for ClusterRole {
    const KIND: Kind = CLUSTER_ROLES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
