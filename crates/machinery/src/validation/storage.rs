//! Volumes and claims for them.

use serde_json::Value;

use super::{
    errors::{Errors, quote},
    names, resources, selectors,
    value::{at, entries, has, list, same, text},
    volume_sources,
    volumes::backsteps,
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

/// The spec of a claim, also in templates. What `old` had stays allowed.
pub fn claim_spec(spec: &Value, old: Option<&Value>, path: &Path<'_>, e: &mut Errors) {
    access_modes(spec, "at least 1 access mode is required", path, e);
    if has(spec, "selector") {
        selectors::label_selector(at(spec, "selector"), &path.child("selector"), e);
    }
    resources::storage_requirements(at(spec, "resources"), &path.child("resources"), e);
    class_name(spec, path, e);
    volume_mode(spec, path, e);
    let fields = ["dataSource", "dataSourceRef"];
    let grouped = |spec: &Value| fields.iter().any(|f| has(at(spec, f), "apiGroup"));
    let lenient = old.is_some_and(grouped);
    for field in fields {
        if has(spec, field) {
            data_source(at(spec, field), lenient, &path.child(field), e);
        }
    }
    let (source, reference) = (at(spec, "dataSource"), at(spec, "dataSourceRef"));
    if !source.is_null() && !reference.is_null() {
        let abroad = !text(reference, "namespace").is_empty();
        let facts = |v| (text(v, "apiGroup"), text(v, "kind"), text(v, "name"));
        let shown = path.child("dataSource").to_string();
        if abroad {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            e.invalid_text(path, &shown, detail);
        } else if facts(source) != facts(reference) {
            e.invalid_text(path, &shown, "must match dataSourceRef");
        }
    }
    attributes_class(spec, path, e);
}

fn attributes_class(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let class = text(spec, "volumeAttributesClassName");
    if !class.is_empty() {
        let here = path.child("volumeAttributesClassName");
        e.invalid_each(&here, class, names::dns1123_subdomain(class));
    }
}

fn data_source(source: &Value, lenient: bool, path: &Path<'_>, e: &mut Errors) {
    for field in ["name", "kind"] {
        if text(source, field).is_empty() {
            e.required(&path.child(field), "");
        }
    }
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        e.invalid_text(path, kind, detail);
    }
    if !group.is_empty() && !lenient {
        let here = path.child("apiGroup");
        e.invalid_each(&here, group, names::dns1123_subdomain(group));
    }
    let namespace = text(source, "namespace");
    if !namespace.is_empty() {
        let here = path.child("namespace");
        e.invalid_each(&here, namespace, names::dns1123_label(namespace));
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
        let amount = resources::parse(value);
        if amount.is_negative() {
            e.invalid_int(&path, amount.value(), "must be a valid resource quantity");
        }
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
        volume_source(object, kind, at(spec, kind), &path, e);
        if kind == "local" && !has(spec, "nodeAffinity") {
            e.required(&here, "Local volume requires node affinity");
        }
    }
    if count == 0 {
        e.required(&path, "must specify a volume type");
    }
    let root = |p: &str| p.starts_with('/') && p.split('/').all(|part| matches!(part, "" | "."));
    if root(text(at(spec, "hostPath"), "path")) && policy == "Recycle" {
        e.forbidden(
            &path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    class_name(spec, &path, e);
    volume_mode(spec, &path, e);
}

/// The source of a volume that stands within another object: only drivers have such.
pub fn inline_volume(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["claimRef", "capacity"] {
        if has(spec, field) {
            let detail = "may not be specified in the context of inline volumes";
            e.forbidden(&path.child(field), detail);
        }
    }
    let here = path.child("csi");
    if has(spec, "csi") {
        volume_source(&Value::Null, "csi", at(spec, "csi"), &here, e);
    } else {
        e.required(
            &here,
            "has to be specified in the context of inline volumes",
        );
    }
    access_modes(spec, "", path, e);
}

/// One source of a persistent volume.
fn volume_source(volume: &Value, kind: &str, source: &Value, path: &Path<'_>, e: &mut Errors) {
    match kind {
        "csi" => {
            driver(source, path, e);
            if text(source, "volumeHandle").is_empty() {
                e.required(&path.child("volumeHandle"), "");
            }
            for field in [
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ] {
                if has(source, field) {
                    secret_reference(at(source, field), &path.child(field), e);
                }
            }
        }
        "local" => {
            let directory = text(source, "path");
            if directory.is_empty() {
                e.required(&path.child("path"), "");
            } else {
                backsteps(directory, &path.child("path"), e);
            }
        }
        _ => volume_sources::common(kind, source, path, e),
    }
    let name = text(at(volume, "metadata"), "name");
    let portal = text(source, "targetPortal");
    match kind {
        "iscsi" if has(source, "initiatorName") && name.len() + 1 + portal.len() > 64 => {
            let here = path.child("targetportal");
            e.invalid_text(&here, portal, volume_sources::PORTAL_TOO_LONG);
        }
        "glusterfs" => {
            if let Some(namespace) = at(source, "endpointsNamespace").as_str() {
                let here = path.child("endpointsNamespace");
                if namespace.is_empty() {
                    let detail =
                        "if the endpointnamespace is set, it must be a valid namespace name";
                    e.invalid_text(&here, namespace, detail);
                } else {
                    e.invalid_each(&here, namespace, names::dns1123_label(namespace));
                }
            }
        }
        "azureFile" if at(source, "secretNamespace").as_str() == Some("") => {
            e.required(&path.child("secretNamespace"), "");
        }
        "cinder" | "storageos"
            if has(source, "secretRef")
                && text(at(source, "secretRef"), "namespace").is_empty() =>
        {
            let path = path.child("secretRef");
            e.required(&path.child("namespace"), "");
        }
        _ => {}
    }
}

fn secret_reference(reference: &Value, path: &Path<'_>, e: &mut Errors) {
    let (name, namespace) = (text(reference, "name"), text(reference, "namespace"));
    if name.is_empty() {
        e.required(&path.child("name"), "");
    } else {
        e.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
    }
    if namespace.is_empty() {
        e.required(&path.child("namespace"), "");
    } else {
        let here = path.child("namespace");
        e.invalid_each(&here, namespace, names::dns1123_label(namespace));
    }
}

/// The `driver` of a source.
pub fn driver(source: &Value, path: &Path<'_>, e: &mut Errors) {
    driver_name(text(source, "driver"), &path.child("driver"), e);
}

pub fn volume_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    // The secret for expanding may be named later.
    const LATER: &str = "controllerExpandSecretRef";
    let kept = |s: &str| {
        let (new, old) = (at(new, s), at(old, s));
        if s == "csi" && has(new, LATER) && !old.is_null() && !has(old, LATER) {
            let mut without = new.clone();
            if let Some(map) = without.as_object_mut() {
                map.remove(LATER);
            }
            return without == *old;
        }
        same(new, old)
    };
    if !SOURCES.iter().all(|s| kept(s)) {
        e.forbidden(
            &path.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    // Kubernetes leaves `spec` out of the next two paths.
    if !same(at(new, "volumeMode"), at(old, "volumeMode")) {
        e.invalid(
            &Path::new("volumeMode"),
            at(new, "volumeMode"),
            "field is immutable",
        );
    }
    let (now, before) = (at(new, "nodeAffinity"), at(old, "nodeAffinity"));
    if has(old, "nodeAffinity") && !same(&renamed(now), &renamed(before)) {
        e.invalid(
            &Path::new("nodeAffinity"),
            now,
            "field is immutable, except for updating from beta label to GA",
        );
    }
    class_kept(new, old, false, &path, e);
}

/// An affinity with the labels of nodes under their present names.
fn renamed(affinity: &Value) -> Value {
    const LABELS: [(&str, &str); 5] = [
        (
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        (
            "beta.kubernetes.io/instance-type",
            "node.kubernetes.io/instance-type",
        ),
    ];
    let mut affinity = affinity.clone();
    let terms = affinity
        .pointer_mut("/required/nodeSelectorTerms")
        .and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        let expressions = term
            .get_mut("matchExpressions")
            .and_then(Value::as_array_mut);
        for expression in expressions.into_iter().flatten() {
            let key = text(expression, "key");
            if let Some((_, new)) = LABELS.iter().find(|(old, _)| *old == key)
                && let Some(map) = expression.as_object_mut()
            {
                map.insert("key".to_owned(), (*new).into());
            }
        }
    }
    affinity
}

/// A class of attributes is changed for another, not taken away.
fn class_kept(new: &Value, old: &Value, empty: bool, path: &Path<'_>, e: &mut Errors) {
    const FIELD: &str = "volumeAttributesClassName";
    let here = path.child(FIELD);
    if has(old, FIELD) && !has(new, FIELD) {
        e.forbidden(&here, "update from non-nil value to nil is forbidden");
    } else if empty
        && has(old, FIELD)
        && text(new, FIELD).is_empty()
        && !text(old, FIELD).is_empty()
    {
        let detail = "update from non-nil value to an empty string is forbidden";
        e.forbidden(&here, detail);
    }
}

/// Once made, a claim only grows, and only when bound; the class may be filled in.
pub fn claim_update(new_claim: &Value, old_claim: &Value, e: &mut Errors) {
    const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    let annotated = |c| text(at(at(c, "metadata"), "annotations"), ANNOTATION);
    if annotated(new_claim) != annotated(old_claim) {
        let metadata = Path::new("metadata");
        let here = metadata.child("annotations");
        let here = here.child(ANNOTATION);
        e.invalid_text(&here, annotated(new_claim), "field is immutable");
    }
    let bound = text(at(new_claim, "status"), "phase") == "Bound";
    let (new, old) = (new_claim, old_claim);
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
    const CLASS: &str = "volumeAttributesClassName";
    let changed = fields.iter().any(|f| !same(at(new, f), at(old, f))) || !limits;
    let reclassed = !same(at(new, CLASS), at(old, CLASS));
    if changed || (!bound && (now != before || reclassed)) {
        e.forbidden(
            &path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    // A failed expansion may be taken back, but not below what there is.
    let there = resources::parse(at(at(at(old_claim, "status"), "capacity"), "storage"));
    if now < before && now <= there {
        let resources = path.child("resources");
        let requests = resources.child("requests");
        e.forbidden(
            &requests.child("storage"),
            "field can not be less than status.capacity",
        );
    }
    if !same(at(new, "volumeMode"), at(old, "volumeMode")) {
        let here = Path::new("volumeMode");
        e.invalid(&here, at(new, "volumeMode"), "field is immutable");
    }
    class_kept(new, old, true, &path, e);
}

/// A driver's name: a domain of at most 63 characters, in any case.
pub fn driver_name(name: &str, path: &Path<'_>, e: &mut Errors) {
    if name.is_empty() {
        e.required(path, "");
    }
    if name.len() > 63 {
        e.too_long(path, 63);
    }
    let lower = name.to_lowercase();
    e.invalid_each(path, name, names::dns1123_subdomain(&lower));
}

/// What a claim got, and how its change goes on.
pub fn claim_status(status: &Value, path: &Path<'_>, e: &mut Errors) {
    const STATES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizePending",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
    ];
    let positive = |name: &str, value: &Value, path: &Path<'_>, e: &mut Errors| {
        let amount = resources::parse(value);
        if amount.is_negative() {
            let shown = quote(&amount.to_string());
            let detail = "must be a valid resource quantity";
            e.invalid_shown(&path.key(name), &shown, detail);
        }
    };
    // What has no domain is Kubernetes' own, of which only storage is a claim's.
    let known = |name: &str, path: &Path<'_>, e: &mut Errors| {
        let before = e.len();
        e.invalid_each(path, name, names::qualified_name(name));
        if e.len() == before && resources::is_native(name) && name != "storage" {
            e.not_supported(path, name, &["storage"]);
        }
        e.len() == before
    };
    let here = path.child("capacity");
    for (name, value) in entries(status, "capacity") {
        positive(name, value, &here, e);
    }
    let here = path.child("allocatedResourceStatus");
    for (name, state) in entries(status, "allocatedResourceStatuses") {
        let state = state.as_str().unwrap_or("");
        if known(name, &here, e) && !STATES.contains(&state) {
            let mut sorted = STATES;
            sorted.sort_unstable();
            e.not_supported(&here, name, &sorted);
        }
    }
    let here = path.child("allocatedResources");
    for (name, value) in entries(status, "allocatedResources") {
        if known(name, &here, e) {
            positive(name, value, &here, e);
        }
    }
}
