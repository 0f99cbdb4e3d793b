//! Names and amounts of resources.

use serde_json::Value;

use super::{
    errors::{Errors, quote},
    names,
    value::{at, has},
};
use crate::{path::Path, quantity::Quantity};

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const STANDARD: [&str; 21] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
    "count/pods",
];

pub fn parse(value: &Value) -> Quantity {
    value
        .as_str()
        .and_then(|t| Quantity::parse(t).ok())
        .unwrap_or(Quantity::ZERO)
}

pub fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources without a domain, or under `kubernetes.io/`, are Kubernetes' own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a name is one of a resource that nodes have beyond Kubernetes' own.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// A resource's name as anything may use it.
pub fn name(name: &str, path: &Path<'_>, e: &mut Errors) -> bool {
    let before = e.len();
    e.invalid_each(path, name, names::qualified_name(name));
    if e.len() == before && !name.contains('/') && !is_hugepages(name) && !STANDARD.contains(&name)
    {
        e.invalid_text(
            path,
            name,
            "must be a standard resource type or fully qualified",
        );
    }
    e.len() == before
}

/// A resource's name as containers use it.
pub fn container_name(resource: &str, path: &Path<'_>, e: &mut Errors) {
    name(resource, path, e);
    if !resource.contains('/') {
        if !CONTAINER.contains(&resource) && !is_hugepages(resource) {
            e.invalid_text(path, resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        e.invalid_text(
            path,
            resource,
            "doesn't follow extended resource name standard",
        );
    }
}

/// Not negative, and whole where the resource is counted in pieces.
pub fn amount(resource: &str, value: &Value, path: &Path<'_>, e: &mut Errors) {
    let quantity = parse(value);
    let shown = quote(&quantity.to_string());
    if quantity.is_negative() {
        e.invalid_shown(path, &shown, "must be greater than or equal to 0");
    }
    if counted(resource) && !quantity.is_integer() {
        e.invalid_shown(path, &shown, "must be an integer");
    }
}

fn counted(resource: &str) -> bool {
    matches!(
        resource,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || resource.starts_with("count/")
        || is_extended(resource)
}

/// Whether more may be promised than there is.
pub fn overcommits(resource: &str) -> bool {
    is_native(resource) && !is_hugepages(resource)
}

/// `resources` of a claim for storage.
pub fn storage_requirements(resources: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(at(resources, "requests"), "storage") {
        e.required(&path.key("storage"), "");
        return;
    }
    let request = at(at(resources, "requests"), "storage");
    let quantity = parse(request);
    if quantity.is_zero() || quantity.is_negative() {
        let shown = quote(&quantity.to_string());
        e.invalid_shown(&path.key("storage"), &shown, "must be greater than zero");
    }
}

/// Whether a name without domain is one that quotas know.
pub fn is_quota(resource: &str) -> bool {
    let derived = ["requests.", "limits."]
        .iter()
        .any(|p| resource.strip_prefix(p).is_some_and(is_hugepages));
    STANDARD.contains(&resource) || derived || is_hugepages(resource)
}

/// A resource's name as a quota may limit it.
pub fn quota_name(resource: &str, path: &Path<'_>, e: &mut Errors) {
    name(resource, path, e);
    if !resource.contains('/') && !is_quota(resource) {
        e.invalid_text(path, resource, "must be a standard resource for quota");
    }
}
