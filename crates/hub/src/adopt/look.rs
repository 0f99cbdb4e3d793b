//! What is on a member, as it is: whole objects, read when an adoption or a leaving is under way and not
//! before.

use std::collections::BTreeMap;

use serde_json::Value;

/// Kinds that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    ReplicaSet,
    /// `v1`.
    Pod,
}

impl Kind {
    /// Group, version and kind.
    pub fn gvk(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Deployment => ("apps", "v1", "Deployment"),
            Self::StatefulSet => ("apps", "v1", "StatefulSet"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet"),
            Self::Pod => ("", "v1", "Pod"),
        }
    }
}

/// What is there of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The Deployment or StatefulSet.
    pub workload: Option<Value>,
    /// ReplicaSets that it owns; when it is gone, those that were marked as its.
    pub sets: Vec<Value>,
    /// Pods that it or these own.
    pub pods: Vec<Value>,
    /// Cell by node, of the Group's cells on the member.
    pub cells: BTreeMap<String, String>,
    /// Instances that have become guests.
    pub guests: i32,
}

impl Found {
    /// The cell that a pod runs in; `otherwise` where its node is in none of the Group's.
    pub fn cell_of<'a>(&'a self, pod: &Value, otherwise: &'a str) -> &'a str {
        let node = text(&pod["spec"]["nodeName"]);
        self.cells.get(node).map_or(otherwise, String::as_str)
    }
}

/// A text, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A whole number.
pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_i64()
}

/// Its name.
pub fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

/// Its UID.
pub fn uid(object: &Value) -> &str {
    text(&object["metadata"]["uid"])
}

/// Its resource version.
pub fn version(object: &Value) -> &str {
    text(&object["metadata"]["resourceVersion"])
}

/// Its labels, as they are.
pub fn labels_of(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

/// UID of the object that controls it.
pub fn controller(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|o| o["controller"] == true)?;
    owner["uid"].as_str()
}

/// Whether it has all these labels.
pub(super) fn has_labels(object: &Value, wanted: &Value) -> bool {
    let have = labels_of(object);
    let mut all = wanted.as_object().into_iter().flatten();
    all.all(|(key, value)| have[key] == *value)
}

/// Whether its status is about its spec.
pub(super) fn observed(object: &Value) -> bool {
    number(&object["status"]["observedGeneration"]).unwrap_or(0)
        >= number(&object["metadata"]["generation"]).unwrap_or(0)
}
