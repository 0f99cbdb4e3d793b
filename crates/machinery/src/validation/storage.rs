//! Volumes, claims, storage classes, drivers.

use serde_json::Value;

use super::{
    errors::{Errors, quote},
    names, resources, selectors,
    value::{at, entries, flag, has, int, list, same, text},
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

/// The kinds of storage.k8s.io.
pub fn storage(kind: &str, object: &Value, _old: Option<&Value>, e: &mut Errors) {
    match kind {
        "StorageClass" => class(object, e),
        "CSIDriver" => csi_driver(object, e),
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
            driver_name(attacher, &path.child("attacher"), e);
            if text(spec, "nodeName").is_empty() {
                e.required(&path.child("nodeName"), "");
            }
            let source = at(spec, "source");
            let here = path.child("source");
            let inline = has(source, "inlineVolumeSpec");
            match at(source, "persistentVolumeName").as_str() {
                None if inline => {}
                None => e.required(
                    &here,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ),
                Some(_) if inline => e.forbidden(
                    &here,
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ),
                Some("") => e.required(
                    &here.child("persistentVolumeName"),
                    "must specify non empty persistentVolumeName",
                ),
                Some(_) => {}
            }
        }
        "VolumeAttributesClass" => attributes(object, e),
        "CSIStorageCapacity" => {
            let name = text(object, "storageClassName");
            let path = Path::new("storageClassName");
            e.invalid_each(&path, name, names::dns1123_subdomain(name));
            let path = Path::new("nodeTopology");
            selectors::label_selector(at(object, "nodeTopology"), &path, e);
            for field in ["capacity", "maximumVolumeSize"] {
                let amount = resources::parse(at(object, field));
                if amount.is_negative() {
                    let shown = quote(&amount.to_string());
                    let detail = "must be greater than or equal to 0";
                    e.invalid_shown(&Path::new(field), &shown, detail);
                }
            }
        }
        _ => {}
    }
}

/// Parameters of a class: limited in number and size, and named.
fn parameters(object: &Value, needed: bool, e: &mut Errors) {
    let path = Path::new("parameters");
    let all = entries(object, "parameters");
    if needed && all.is_empty() {
        e.required(&path, "must contain at least one key/value pair");
    }
    if all.len() > 512 {
        e.too_long(&path, 512);
        return;
    }
    let mut size = 0;
    for (key, value) in all {
        if key.is_empty() {
            e.invalid_text(&path, key, "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > 256 * 1024 {
        e.too_long(&path, 256 * 1024);
    }
}

fn attributes(object: &Value, e: &mut Errors) {
    let driver = text(object, "driverName");
    let path = Path::new("driverName");
    if driver.is_empty() {
        e.required(&path, "");
    } else {
        let lower = driver.to_lowercase();
        e.invalid_each(&path, driver, names::qualified_name(&lower));
    }
    parameters(object, true, e);
}

/// What a class of attributes is cannot change.
pub fn attributes_update(new: &Value, old: &Value, e: &mut Errors) {
    if text(new, "driverName") != text(old, "driverName") {
        let path = Path::new("driverName");
        e.forbidden(&path, "updates to driverName are forbidden.");
    }
    if !same(at(new, "parameters"), at(old, "parameters")) {
        let path = Path::new("parameters");
        e.forbidden(&path, "updates to parameters are forbidden.");
    }
}

/// What a driver says of a node: it stays, but drivers come and go.
pub fn csi_node_update(new: &Value, old: &Value, e: &mut Errors) {
    let path = Path::new("CSINode");
    let path = path.child("specDrivers");
    for before in list(at(old, "spec"), "drivers") {
        let name = text(before, "name");
        let all = list(at(new, "spec"), "drivers");
        // The count may be filled in.
        let kept = |after: &Value| {
            let fields = ["nodeID", "topologyKeys"];
            fields.iter().all(|f| same(at(after, f), at(before, f)))
                && (!has(before, "allocatable")
                    || at(after, "allocatable") == at(before, "allocatable"))
        };
        if let Some(after) = all.iter().find(|d| text(d, "name") == name)
            && !kept(after)
        {
            e.invalid(&path, after, "field is immutable");
        }
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
    parameters(object, false, e);
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
    topologies(object, e);
}

/// Where volumes of a class may be: terms of labels with values, no two the same.
fn topologies(object: &Value, e: &mut Errors) {
    let path = Path::new("allowedTopologies");
    let terms = list(object, "allowedTopologies");
    let facts = |term: &Value| {
        let mut all: Vec<(String, Vec<String>)> = list(term, "matchLabelExpressions")
            .iter()
            .map(|x| {
                let mut values: Vec<String> =
                    list(x, "values").iter().map(Value::to_string).collect();
                values.sort_unstable();
                (text(x, "key").to_owned(), values)
            })
            .collect();
        all.sort_unstable();
        all
    };
    let mut seen = vec![];
    for (i, term) in terms.iter().enumerate() {
        let here = path.index(i);
        let expressions = here.child("matchLabelExpressions");
        let all = list(term, "matchLabelExpressions");
        for (j, expression) in all.iter().enumerate() {
            let path = expressions.index(j);
            let values = list(expression, "values");
            let values_path = path.child("values");
            if values.is_empty() {
                e.required(&values_path, "");
            }
            for (k, value) in values.iter().enumerate() {
                if values[..k].contains(value) {
                    e.duplicate(&values_path.index(k), value);
                }
            }
            let key = text(expression, "key");
            e.invalid_each(&path.child("key"), key, names::qualified_name(key));
            if all[..j].iter().any(|x| text(x, "key") == key) {
                e.duplicate_text(&path.child("key"), key);
            }
        }
        let own = facts(term);
        if seen.contains(&own) {
            e.duplicate_shown(&here.child("matchLabelExpressions"), "\"\"");
        }
        seen.push(own);
    }
}

fn csi_driver(object: &Value, e: &mut Errors) {
    let name = text(at(object, "metadata"), "name");
    let metadata = Path::new("metadata");
    if name.len() > 63 {
        e.too_long(&metadata.child("name"), 63);
    }
    let spec = at(object, "spec");
    let path = Path::new("spec");
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !has(spec, field) {
            e.required(&path.child(field), "");
        }
    }
    token_requests(spec, &path.child("tokenRequests"), e);
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
