//! Nodes.

use serde_json::Value;

use super::{
    errors::Errors,
    names, resources, selectors,
    value::{at, entries, list, text},
};
use crate::path::Path;

pub fn node(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let metadata = Path::new("metadata");
    // Kubernetes reports taints under metadata.
    selectors::taints(spec, &metadata.child("taints"), e);
    let status = Path::new("status");
    for field in ["capacity", "allocatable"] {
        let path = status.child(field);
        for (name, value) in entries(at(object, "status"), field) {
            let path = path.key(name);
            resources::name(name, &path, e);
            resources::amount(name, value, &path, e);
        }
    }
    let path = Path::new("spec");
    let path = path.child("podCIDRs");
    for (i, cidr) in list(spec, "podCIDRs").iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or("");
        e.invalid_each(&path.index(i), cidr, names::cidr(cidr));
    }
}

/// A node keeps the addresses for pods that it once was given, and its provider's name for it.
pub fn node_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    let before = list(old, "podCIDRs");
    if !before.is_empty() && list(new, "podCIDRs") != before {
        e.forbidden(
            &path.child("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let before = text(old, "providerID");
    if !before.is_empty() && text(new, "providerID") != before {
        e.forbidden(
            &path.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}
