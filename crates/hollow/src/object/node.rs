//! A node as a kubelet needs to know it.

use super::{or_default, slim_meta};
use k8s_openapi::ClusterResourceScope;
use kube::{Resource, core::ObjectMeta};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeMap};

/// A `v1` Node, slim.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeObject {
    /// Name, uid, labels, annotations, deletion.
    #[serde(deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    /// Address range and taints.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What it reports.
    #[serde(default)]
    pub status: NodeStatus,
}

/// The spec of a node, slim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Range of its pods' addresses.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// Its taints.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
}

/// A taint, whole: the list is written back whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it does.
    pub effect: String,
    /// When it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

/// The status of a node, slim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// What pods may ask for, as written.
    #[serde(deserialize_with = "or_default")]
    pub allocatable: BTreeMap<String, String>,
    /// What is there, as written.
    #[serde(deserialize_with = "or_default")]
    pub capacity: BTreeMap<String, String>,
    /// Its conditions.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<NodeCondition>,
    /// Its addresses.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<NodeAddress>,
    /// Who reports.
    pub node_info: NodeInfo,
    /// Where its kubelet listens.
    #[serde(deserialize_with = "or_default")]
    pub daemon_endpoints: DaemonEndpoints,
    /// Volumes that the attacher has brought.
    #[serde(deserialize_with = "or_default")]
    pub volumes_attached: Vec<AttachedVolume>,
    /// Volumes that the kubelet has said it uses.
    #[serde(deserialize_with = "or_default")]
    pub volumes_in_use: Vec<String>,
}

/// A volume that is attached to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AttachedVolume {
    /// Its unique name.
    pub name: String,
}

/// Where the daemons of a node listen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonEndpoints {
    /// Its kubelet.
    #[serde(deserialize_with = "or_default")]
    pub kubelet_endpoint: DaemonEndpoint,
}

/// Where a daemon listens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DaemonEndpoint {
    /// The port; none if zero.
    #[serde(rename = "Port")]
    pub port: u16,
}

/// A condition of a node, slim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Since when.
    pub last_transition_time: Option<String>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// Its kind.
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}

/// Who reports for the node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    /// Empty until the kubelet has reported.
    pub kubelet_version: String,
}

impl Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
