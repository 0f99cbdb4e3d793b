//! Node, its lease, and the objects that every namespace has.

use std::borrow::Cow;
use std::sync::Arc;

use gantry_machinery::quantity::Quantity;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::meta::nullable;
use super::workload::Condition;
use super::{CONFIG_MAPS, Kind, LEASES, Meta, NAMESPACES, NODES, SERVICE_ACCOUNTS, Watched};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Node {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(deserialize_with = "nullable")]
    pub taints: Vec<Taint>,
    #[serde(deserialize_with = "nullable")]
    pub unschedulable: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub value: String,
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<NodeCondition>,
    #[serde(deserialize_with = "nullable")]
    pub volumes_attached: Vec<AttachedVolume>,
    #[serde(deserialize_with = "nullable")]
    pub allocatable: Allocatable,
}

/// What of a node's allocatable resources is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Allocatable {
    /// Thousandths of CPUs.
    #[serde(deserialize_with = "milli")]
    pub cpu: Option<i64>,
}

fn milli<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text: Option<Cow<'_, str>> = Option::deserialize(deserializer)?;
    Ok(text.and_then(|it| Some(Quantity::parse(&it).ok()?.milli())))
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachedVolume {
    pub name: String,
    pub device_path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub last_heartbeat_time: Option<Timestamp>,
    pub last_transition_time: Option<Timestamp>,
    #[serde(deserialize_with = "nullable")]
    pub reason: String,
}

impl Node {
    pub fn condition(&self, kind: &str) -> Option<&NodeCondition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    /// It is not ready, and somebody has declared that it will not come back as it was.
    pub fn out_of_service(&self) -> bool {
        let ready = self.condition("Ready").is_some_and(|c| c.status == "True");
        let declared = |t: &Taint| t.key == "node.kubernetes.io/out-of-service";
        !ready && self.spec.taints.iter().any(declared)
    }
}

impl Watched for Node {
    const KIND: Kind = NODES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Lease {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub renew_time: Option<Timestamp>,
}

impl Watched for Lease {
    const KIND: Kind = LEASES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Namespace {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: NamespaceSpec,
    #[serde(default)]
    pub status: NamespaceStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

impl Watched for Namespace {
    const KIND: Kind = NAMESPACES;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ServiceAccount {
    pub metadata: Meta,
}

impl Watched for ServiceAccount {
    const KIND: Kind = SERVICE_ACCOUNTS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ConfigMap {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub data: std::collections::BTreeMap<String, String>,
}

impl Watched for ConfigMap {
    const KIND: Kind = CONFIG_MAPS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
