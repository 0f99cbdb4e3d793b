//! What is decoded of watched objects: only what a kubelet acts on, so that a hundred thousand of
//! them pass through at the cost of a few.

mod claim;
mod container;
mod node;
mod pod;
mod quantity;
mod told;

pub use claim::{AllocatedDevice, ClaimObject};
pub use container::{
    ContainerSpec, Exec, Hook, Mount, Port, Probe, PullPolicy, ResizePolicy, Resources,
    SecurityContext, Variable,
};
pub use node::{NodeCondition, NodeObject, NodeSpec, NodeStatus, Taint};
pub use pod::{DeviceClaim, PodObject, PodSpec, RestartPolicy, Volume, VolumeSource};
pub use quantity::{Amounts, parse_quantity};
pub use told::{ConditionWire, ContainerStatusWire, PodStatusWire, StateWire, TerminatedWire};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// The parts of `ObjectMeta` that are kept; above all not `managedFields`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaWire {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    owner_references: Option<Vec<OwnerReference>>,
}

fn slim_meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let wire = MetaWire::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: wire.name,
        namespace: wire.namespace,
        uid: wire.uid,
        resource_version: wire.resource_version,
        generation: wire.generation,
        labels: wire.labels,
        annotations: wire.annotations,
        deletion_timestamp: wire.deletion_timestamp,
        deletion_grace_period_seconds: wire.deletion_grace_period_seconds,
        owner_references: wire.owner_references,
        ..ObjectMeta::default()
    })
}

/// `null` as the default: Go writes null for nil slices and maps.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
