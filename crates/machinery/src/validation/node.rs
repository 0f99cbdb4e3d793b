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
    amounts(object, e);
    let path = Path::new("spec");
    let path = path.child("podCIDRs");
    let all: Vec<&str> = list(spec, "podCIDRs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for (i, cidr) in all.iter().enumerate() {
        e.invalid_each(&path.index(i), cidr, names::cidr(cidr));
    }
    if all.len() > 1 {
        if !names::dual_stack(&all) {
            let detail = "may specify no more than one CIDR for each IP family";
            e.invalid(&path, at(spec, "podCIDRs"), detail);
        }
        for (i, cidr) in all.iter().enumerate() {
            if all[..i].contains(cidr) {
                e.duplicate_text(&path.index(i), cidr);
            }
        }
    }
}

/// What a node has and what of it pods may use.
pub fn amounts(object: &Value, e: &mut Errors) {
    let status = Path::new("status");
    for field in ["capacity", "allocatable"] {
        let path = status.child(field);
        for (name, value) in entries(at(object, "status"), field) {
            resources::amount(name, value, &path.child(name), e);
        }
    }
}

/// A node keeps the addresses for pods that it once was given, and its provider's name for it.
pub fn node_update(new: &Value, old: &Value, e: &mut Errors) {
    let status = Path::new("status");
    let here = status.child("addresses");
    let addresses = list(at(new, "status"), "addresses");
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            let shown =
                super::security::internal(address, &[("Type", "type"), ("Address", "address")]);
            e.duplicate_shown(&here.index(i), &shown);
        }
    }
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
    if text(new, "externalID") != text(old, "externalID") {
        e.forbidden(&path.child("externalID"), "may not be updated");
    }
}
