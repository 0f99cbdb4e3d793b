//! Volumes, claims, storage classes, drivers.

use serde_json::Value;

use super::{
    errors::{Errors, quote},
    names, resources, selectors,
    value::{at, entries, has, list, same, text},
};
use crate::path::Path;

const MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

fn access_modes(spec: &Value, what: &str, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("accessModes");
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        e.required(&here, what);
    }
    for mode in modes {
        let mode = mode.as_str().unwrap_or("");
        if !MODES.contains(&mode) {
            e.not_supported(&here, mode, &MODES);
        }
    }
    let alone = modes.iter().any(|m| m == "ReadWriteOncePod");
    if alone && modes.len() > 1 {
        e.forbidden(
            &here,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

/// The spec of a claim, also in templates.
pub fn claim_spec(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    access_modes(spec, "at least 1 access mode is required", path, e);
    if has(spec, "selector") {
        selectors::label_selector(at(spec, "selector"), &path.child("selector"), e);
    }
    resources::storage_requirements(at(spec, "resources"), &path.child("resources"), e);
    class_name(spec, path, e);
    volume_mode(spec, path, e);
    for field in ["dataSource", "dataSourceRef"] {
        if !has(spec, field) {
            continue;
        }
        let source = at(spec, field);
        let path = path.child(field);
        for field in ["name", "kind"] {
            if text(source, field).is_empty() {
                e.required(&path.child(field), "");
            }
        }
        if text(source, "apiGroup").is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
            e.invalid_text(
                &path,
                text(source, "kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
    }
}

fn class_name(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let name = text(spec, "storageClassName");
    if !name.is_empty() {
        e.invalid_each(
            &path.child("storageClassName"),
            name,
            names::dns1123_subdomain(name),
        );
    }
}

fn volume_mode(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let mode = text(spec, "volumeMode");
    if !matches!(mode, "" | "Block" | "Filesystem") {
        e.not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

/// In the order in which Kubernetes looks for them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub fn persistent_volume(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    access_modes(spec, "", &path, e);
    let capacity = path.child("capacity");
    if entries(spec, "capacity").is_empty() {
        e.required(&capacity, "");
    } else if !has(at(spec, "capacity"), "storage") || entries(spec, "capacity").len() > 1 {
        e.not_supported_shown(
            &capacity,
            &super::errors::show(at(spec, "capacity")),
            &["storage"],
        );
    }
    for (name, value) in entries(spec, "capacity") {
        let path = capacity.key(name);
        resources::name(name, &path, e);
        let amount = resources::parse(value);
        if amount.is_zero() || amount.is_negative() {
            e.invalid_shown(
                &path,
                &quote(&amount.to_string()),
                "must be greater than zero",
            );
        }
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !matches!(policy, "" | "Delete" | "Recycle" | "Retain") {
        e.not_supported(
            &path.child("persistentVolumeReclaimPolicy"),
            policy,
            &["Delete", "Recycle", "Retain"],
        );
    }
    let affinity = at(spec, "nodeAffinity");
    let here = path.child("nodeAffinity");
    if has(spec, "nodeAffinity") {
        if has(affinity, "required") {
            selectors::node_selector(at(affinity, "required"), &here.child("required"), e);
        } else {
            e.required(
                &here.child("required"),
                "must specify required node constraints",
            );
        }
    }
    let mut count = 0;
    for kind in SOURCES {
        if !has(spec, kind) {
            continue;
        }
        let path = path.child(kind);
        if count > 0 {
            e.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        count += 1;
        let source = at(spec, kind);
        let mandatory: &[&str] = match kind {
            "hostPath" | "local" => &["path"],
            "nfs" => &["server", "path"],
            "csi" => &["driver", "volumeHandle"],
            "iscsi" => &["targetPortal", "iqn"],
            _ => &[],
        };
        for field in mandatory {
            if text(source, field).is_empty() {
                e.required(&path.child(field), "");
            }
        }
        if kind == "csi" && !text(source, "driver").is_empty() {
            driver_name(text(source, "driver"), &path.child("driver"), e);
        }
        if kind == "local" && !has(spec, "nodeAffinity") {
            e.required(&here, "Local volume requires node affinity");
        }
    }
    if count == 0 {
        e.required(&path, "must specify a volume type");
    }
    if text(at(spec, "hostPath"), "path") == "/" && policy == "Recycle" {
        e.forbidden(
            &path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    class_name(spec, &path, e);
    volume_mode(spec, &path, e);
}

pub fn volume_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    if SOURCES.iter().any(|s| !same(at(new, s), at(old, s))) {
        e.forbidden(
            &path.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    if !same(at(new, "volumeMode"), at(old, "volumeMode")) {
        e.invalid(
            &path.child("volumeMode"),
            at(new, "volumeMode"),
            "field is immutable",
        );
    }
    if has(old, "nodeAffinity") && !same(at(new, "nodeAffinity"), at(old, "nodeAffinity")) {
        e.invalid(
            &path.child("nodeAffinity"),
            at(new, "nodeAffinity"),
            "field is immutable",
        );
    }
}

/// Once made, a claim only grows, and only when bound; the class may be filled in.
pub fn claim_update(new: &Value, old: &Value, e: &mut Errors) {
    let bound = text(at(old, "status"), "phase") == "Bound";
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    let mut fields = vec![
        "accessModes",
        "selector",
        "volumeMode",
        "dataSource",
        "dataSourceRef",
    ];
    if !text(old, "volumeName").is_empty() {
        fields.push("volumeName");
    }
    // A class nobody chose may still be chosen.
    if has(old, "storageClassName") {
        fields.push("storageClassName");
    }
    let request = |spec: &Value| {
        let requests = at(at(spec, "resources"), "requests");
        resources::parse(at(requests, "storage"))
    };
    let (now, before) = (request(new), request(old));
    let limits = same(
        at(at(new, "resources"), "limits"),
        at(at(old, "resources"), "limits"),
    );
    let changed = fields.iter().any(|f| !same(at(new, f), at(old, f))) || !limits;
    if changed || (!bound && now != before) {
        e.forbidden(
            &path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    } else if now < before {
        let resources = path.child("resources");
        let requests = resources.child("requests");
        e.forbidden(
            &requests.child("storage"),
            "field can not be less than status.capacity",
        );
    }
}

/// A driver's name: a domain of at most 63 characters, in any case.
pub fn driver_name(name: &str, path: &Path<'_>, e: &mut Errors) {
    if name.len() > 63 {
        e.too_long(path, 63);
    }
    let lower = name.to_lowercase();
    e.invalid_each(path, name, names::dns1123_subdomain(&lower));
}

/// The kinds of storage.k8s.io.
pub fn storage(kind: &str, object: &Value, _old: Option<&Value>, e: &mut Errors) {
    match kind {
        "StorageClass" => class(object, e),
        "CSIDriver" => driver(object, e),
        "CSINode" => {
            let path = Path::new("spec");
            let path = path.child("drivers");
            for (i, driver) in list(at(object, "spec"), "drivers").iter().enumerate() {
                let path = path.index(i);
                driver_name(text(driver, "name"), &path.child("name"), e);
                if text(driver, "nodeID").is_empty() {
                    e.required(&path.child("nodeID"), "");
                }
            }
        }
        "VolumeAttachment" => {
            let spec = at(object, "spec");
            let path = Path::new("spec");
            let attacher = text(spec, "attacher");
            if attacher.is_empty() {
                e.required(&path.child("attacher"), "");
            } else {
                driver_name(attacher, &path.child("attacher"), e);
            }
            if text(spec, "nodeName").is_empty() {
                e.required(&path.child("nodeName"), "");
            }
        }
        "VolumeAttributesClass" if text(object, "driverName").is_empty() => {
            e.required(&Path::new("driverName"), "");
        }
        _ => {}
    }
}

fn class(object: &Value, e: &mut Errors) {
    let provisioner = text(object, "provisioner");
    let path = Path::new("provisioner");
    if provisioner.is_empty() {
        e.required(&path, "");
    } else {
        e.invalid_each(
            &path,
            provisioner,
            names::qualified_name(&provisioner.to_lowercase()),
        );
    }
    let path = Path::new("parameters");
    let all = entries(object, "parameters");
    if all.len() > 512 {
        e.too_long(&path, 512);
    }
    for (key, _) in all {
        if key.is_empty() {
            e.invalid_text(&path, key, "field can not be empty.");
        }
    }
    let policy = text(object, "reclaimPolicy");
    if !matches!(policy, "" | "Delete" | "Retain") {
        e.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let path = Path::new("volumeBindingMode");
    match text(object, "volumeBindingMode") {
        "" => e.required(&path, ""),
        "Immediate" | "WaitForFirstConsumer" => {}
        mode => e.not_supported(&path, mode, &["Immediate", "WaitForFirstConsumer"]),
    }
}

fn driver(object: &Value, e: &mut Errors) {
    let name = text(at(object, "metadata"), "name");
    let metadata = Path::new("metadata");
    if name.len() > 63 {
        e.too_long(&metadata.child("name"), 63);
    }
    let spec = at(object, "spec");
    let path = Path::new("spec");
    for mode in list(spec, "volumeLifecycleModes") {
        let mode = mode.as_str().unwrap_or("");
        if !matches!(mode, "Persistent" | "Ephemeral") {
            e.not_supported(
                &path.child("volumeLifecycleModes"),
                mode,
                &["Persistent", "Ephemeral"],
            );
        }
    }
    let policy = text(spec, "fsGroupPolicy");
    if !matches!(policy, "" | "ReadWriteOnceWithFSType" | "File" | "None") {
        e.not_supported(
            &path.child("fsGroupPolicy"),
            policy,
            &["ReadWriteOnceWithFSType", "File", "None"],
        );
    }
}
