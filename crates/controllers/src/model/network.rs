//! Service and EndpointSlice, and the disruption budget (which selects pods as a Service does).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::meta::nullable;
use super::workload::Condition;
use super::{
    DISRUPTION_BUDGETS, ENDPOINT_SLICES, ENDPOINTS, Kind, Labels, Meta, SERVICE_RANGES, SERVICES,
    Watched,
};
use crate::selector::Selector;

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of an EndpointSlice that names the controller in charge of it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Service {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// Without a selector somebody else looks after the endpoints.
    pub selector: Option<Labels>,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP", deserialize_with = "nullable")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "ipFamilies", deserialize_with = "nullable")]
    pub ip_families: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub publish_not_ready_addresses: bool,
    #[serde(deserialize_with = "nullable")]
    pub traffic_distribution: String,
}

/// ServiceCIDR: addresses for Services.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ServiceRange {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: RangeSpec,
    #[serde(default)]
    pub status: RangeStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RangeSpec {
    #[serde(deserialize_with = "nullable")]
    pub cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RangeStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

impl Watched for ServiceRange {
    const KIND: Kind = SERVICE_RANGES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
    pub port: i32,
    pub target_port: Option<IntOrString>,
    pub app_protocol: Option<String>,
}

impl Watched for Service {
    const KIND: Kind = SERVICES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    pub metadata: Meta,
    #[serde(default)]
    pub address_type: String,
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint, in the form in which it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub for_zones: Vec<Named>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub for_nodes: Vec<Named>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    pub port: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

impl Watched for EndpointSlice {
    const KIND: Kind = ENDPOINT_SLICES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, put: &mut dyn FnMut(Arc<str>)) {
        if let Some(service) = self.metadata.labels.get(SERVICE_NAME) {
            put(service_index(&self.metadata.namespace, service));
        }
    }
}

/// Index value of the slices of one Service.
pub fn service_index(namespace: &str, service: &str) -> Arc<str> {
    format!("{namespace}/{service}").into()
}

/// The legacy Endpoints object of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Endpoints {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub subsets: Vec<Subset>,
}

/// Addresses that serve the same ports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub addresses: Vec<Address>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub not_ready_addresses: Vec<Address>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    pub ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
}

impl Watched for Endpoints {
    const KIND: Kind = ENDPOINTS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Budget {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: BudgetSpec,
    #[serde(default)]
    pub status: BudgetStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetSpec {
    pub min_available: Option<IntOrString>,
    pub max_unavailable: Option<IntOrString>,
    pub selector: Option<Selector>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    pub observed_generation: i64,
    /// Pods whose eviction was granted and is not yet seen, with the time of the grant.
    #[serde(deserialize_with = "nullable")]
    pub disrupted_pods: BTreeMap<String, Timestamp>,
    pub disruptions_allowed: i32,
    pub current_healthy: i32,
    pub desired_healthy: i32,
    pub expected_pods: i32,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<BudgetCondition>,
}

/// A condition of meta/v1: its message is required, even if there is nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    /// The generation of the spec that it speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub last_transition_time: Option<Timestamp>,
    pub reason: String,
    pub message: String,
}

impl Watched for Budget {
    const KIND: Kind = DISRUPTION_BUDGETS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
