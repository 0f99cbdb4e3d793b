//! What drivers of storage tell and are told: CSIDrivers, CSINodes, attachments, capacities.

use serde_json::Value;

use super::{
    errors::{Errors, quote},
    names,
    pod_parts::non_negative,
    resources, security, selectors,
    storage::{driver_name, inline_volume},
    value::{at, entries, flag, has, int, list, same, text},
};
use crate::path::Path;

const MOST_NODE_ID: usize = 256;
const MOST_METADATA: usize = 256 * 1024;
const MOST_MESSAGE: usize = 1024;

pub fn driver(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    for (field, shown) in [
        // So Kubernetes names it.
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !has(spec, field) {
            e.required(&path.child(shown), "");
        }
    }
    if let Some(policy) = at(spec, "fsGroupPolicy").as_str() {
        let known = ["File", "None", "ReadWriteOnceWithFSType"];
        if !known.contains(&policy) {
            e.not_supported(&path.child("fsGroupPolicy"), policy, &known);
        }
    }
    token_requests(spec, &path.child("tokenRequests"), e);
    for mode in list(spec, "volumeLifecycleModes") {
        let mode = mode.as_str().unwrap_or("");
        let known = ["Persistent", "Ephemeral"];
        if !known.contains(&mode) {
            e.not_supported(&path.child("volumeLifecycleModes"), mode, &known);
        }
    }
    if let Some(seconds) = int(spec, "nodeAllocatableUpdatePeriodSeconds").filter(|s| *s < 10) {
        let here = path.child("nodeAllocatableUpdatePeriodSeconds");
        e.invalid_int(
            &here,
            seconds,
            "must be greater than or equal to 10 seconds",
        );
    }
    if flag(spec, "serviceAccountTokenInSecrets") && list(spec, "tokenRequests").is_empty() {
        let here = path.child("serviceAccountTokenInSecrets");
        let detail = "cannot be true when tokenRequests is empty";
        e.invalid_shown(&here, "true", detail);
    }
}

/// What a driver is does not change.
pub fn driver_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    for (field, shown) in [
        ("attachRequired", "attachedRequired"),
        ("volumeLifecycleModes", "volumeLifecycleModes"),
    ] {
        let (now, before) = (at(new, field), at(old, field));
        if !same(now, before) {
            e.invalid(&path.child(shown), now, "field is immutable");
        }
    }
}

/// Tokens that a driver asks for: one an audience, good for a while.
fn token_requests(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let all = list(spec, "tokenRequests");
    for (i, request) in all.iter().enumerate() {
        let here = path.index(i);
        let audience = text(request, "audience");
        if all[..i].iter().any(|r| text(r, "audience") == audience) {
            e.duplicate_text(&here.child("audience"), audience);
            continue;
        }
        if let Some(seconds) = int(request, "expirationSeconds") {
            let here = here.child("expirationSeconds");
            if seconds < 600 {
                let detail = "may not specify a duration less than 10 minutes";
                e.invalid_int(&here, seconds, detail);
            }
            if seconds > 1 << 32 {
                let detail = "may not specify a duration larger than 2^32 seconds";
                e.invalid_int(&here, seconds, detail);
            }
        }
    }
}

pub fn node(object: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
    let path = spec.child("drivers");
    let drivers = list(at(object, "spec"), "drivers");
    for (i, driver) in drivers.iter().enumerate() {
        let path = path.index(i);
        let name = text(driver, "name");
        driver_name(name, &path.child("name"), e);
        let id = text(driver, "nodeID");
        let here = path.child("nodeID");
        if id.is_empty() {
            e.required(&here, "");
        }
        if id.len() > MOST_NODE_ID {
            let detail = format!("must be {MOST_NODE_ID} characters or less");
            e.invalid_text(&here, id, &detail);
        }
        non_negative(
            at(driver, "allocatable"),
            "count",
            &path.child("allocatable"),
            e,
        );
        if drivers[..i].iter().any(|d| text(d, "name") == name) {
            e.duplicate_text(&path.child("name"), name);
        }
        let keys = list(driver, "topologyKeys");
        for (i, key) in keys.iter().enumerate() {
            let text = key.as_str().unwrap_or("");
            if text.is_empty() {
                e.required(&path, "");
            }
            if keys[..i].contains(key) {
                e.duplicate_text(&path, text);
            }
            e.invalid_each(&path, text, names::qualified_name(text));
        }
    }
}

/// Drivers come and go; what one says of a node stays, but how many volumes the node takes.
pub fn node_update(new: &Value, old: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
    let path = spec.child("drivers");
    for before in list(at(old, "spec"), "drivers") {
        for after in list(at(new, "spec"), "drivers") {
            let kept = ["nodeID", "topologyKeys"]
                .iter()
                .all(|f| same(at(after, f), at(before, f)));
            if text(after, "name") != text(before, "name") || kept {
                continue;
            }
            let shown = security::internal(
                after,
                &[
                    ("Name", "name"),
                    ("NodeID", "nodeID"),
                    ("TopologyKeys", "topologyKeys"),
                    ("Allocatable", ""),
                ],
            );
            e.invalid_shown(&path, &shown, "field is immutable");
        }
    }
}

pub fn attachment(object: &Value, e: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let attacher = text(spec, "attacher");
    if attacher.is_empty() {
        e.required(&path.child("attacher"), "");
    }
    let source = at(spec, "source");
    let here = path.child("source");
    let inline = has(source, "inlineVolumeSpec");
    let named = at(source, "persistentVolumeName").as_str();
    let name_path = here.child("persistentVolumeName");
    match named {
        None if inline => {
            let here = here.child("inlineVolumeSpec");
            inline_volume(at(source, "inlineVolumeSpec"), &here, e);
        }
        None => e.required(&here, ONE),
        Some(_) if inline => e.forbidden(&here, ONE),
        Some("") => e.required(&name_path, "must specify non empty persistentVolumeName"),
        Some(_) => {}
    }
    let node = text(spec, "nodeName");
    e.invalid_each(
        &path.child("nodeName"),
        node,
        names::dns1123_subdomain(node),
    );
    attachment_status(object, e);
    // Kubernetes looks at the next two apart, for this version of the API alone.
    driver_name(attacher, &path.child("attacher"), e);
    if let Some(name) = named {
        e.invalid_each(&name_path, name, names::dns1123_subdomain(name));
    }
}

/// How the attachment went.
pub fn attachment_status(object: &Value, e: &mut Errors) {
    let status = at(object, "status");
    let path = Path::new("status");
    let size: usize = entries(status, "attachmentMetadata")
        .into_iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MOST_METADATA {
        e.too_long(&path.child("attachmentMetadata"), MOST_METADATA);
    }
    for field in ["attachError", "detachError"] {
        let error = at(status, field);
        let here = path.child(field);
        if text(error, "message").len() > MOST_MESSAGE {
            // Kubernetes names the other bound.
            e.too_long(&here.child("message"), MOST_METADATA);
        }
        if let Some(code) = int(error, "errorCode").filter(|c| *c < 0) {
            let detail = "must be between 0 and 2147483647, inclusive";
            e.invalid_int(&here.child("errorCode"), code, detail);
        }
    }
}

pub fn capacity(object: &Value, e: &mut Errors) {
    let path = Path::new("nodeTopology");
    selectors::label_selector(at(object, "nodeTopology"), &path, e);
    let name = text(object, "storageClassName");
    let path = Path::new("storageClassName");
    e.invalid_each(&path, name, names::dns1123_subdomain(name));
    let amount = resources::parse(at(object, "capacity"));
    if amount.is_negative() {
        let shown = quote(&amount.to_string());
        let detail = "must be greater than or equal to 0";
        e.invalid_shown(&Path::new("capacity"), &shown, detail);
    }
}
