//! Volumes of pods: one source each, names unique, paths that stay inside.

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    pod_parts::resource_field,
    resources,
    value::{at, has, int, list, text},
};
use crate::path::Path;

/// Names of the volumes that mounts may refer to.
pub struct Volumes<'a>(Vec<&'a str>);

impl Volumes<'_> {
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

pub fn volumes<'a>(spec: &'a Value, path: &Path<'_>, e: &mut Errors) -> Volumes<'a> {
    let mut seen: Vec<&str> = Vec::new();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(i);
        let name = text(volume, "name");
        let before = e.len();
        source(volume, &path, e);
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else {
            e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        }
        if e.len() == before || !name.is_empty() {
            seen.push(name);
        }
    }
    Volumes(seen)
}

/// In the order in which Kubernetes looks for them: the first stands, others are too many.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

fn source(volume: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut count = 0;
    for kind in SOURCES {
        if !has(volume, kind) {
            continue;
        }
        let source = at(volume, kind);
        let path = path.child(kind);
        if count > 0 {
            e.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        count += 1;
        one(kind, source, &path, e);
    }
    if count == 0 {
        e.required(path, "must specify a volume type");
    }
}

/// Fields that must not be empty, by source.
fn mandatory(kind: &str) -> &'static [&'static str] {
    match kind {
        "hostPath" => &["path"],
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" => &["volumeID"],
        "secret" => &["secretName"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "persistentVolumeClaim" => &["claimName"],
        "cinder" => &["volumeID"],
        "configMap" => &["name"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "azureDisk" => &["diskName", "diskURI"],
        "csi" | "flexVolume" => &["driver"],
        _ => &[],
    }
}

fn one(kind: &str, source: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in mandatory(kind) {
        if text(source, field).is_empty() {
            e.required(&path.child(field), "");
        }
    }
    match kind {
        "emptyDir" => {
            let limit = at(source, "sizeLimit");
            if !limit.is_null() && resources::parse(limit).is_negative() {
                e.forbidden(
                    &path.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                );
            }
        }
        "hostPath" => {
            backsteps(text(source, "path"), &path.child("path"), e);
            let kind = text(source, "type");
            let known = [
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ];
            if !known.contains(&kind) {
                e.not_supported(&path.child("type"), kind, &known);
            }
        }
        "nfs" => {
            let directory = text(source, "path");
            if !directory.is_empty() && !directory.starts_with('/') {
                e.invalid_text(&path.child("path"), directory, "must be an absolute path");
            }
        }
        "secret" | "configMap" => {
            mode(source, "defaultMode", path, e);
            items(source, path, e);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, e);
            let path = path.child("items");
            for file in list(source, "items") {
                downward(file, &path, e);
            }
        }
        "projected" => projected(source, path, e),
        "csi" => {
            let driver = text(source, "driver");
            if !driver.is_empty() {
                super::storage::driver_name(driver, &path.child("driver"), e);
            }
        }
        "ephemeral" => {
            let template = at(source, "volumeClaimTemplate");
            let path = path.child("volumeClaimTemplate");
            if template.is_null() {
                e.required(&path, "");
            } else {
                super::storage::claim_spec(at(template, "spec"), &path.child("spec"), e);
            }
        }
        _ => {}
    }
}

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

fn mode(source: &Value, field: &str, path: &Path<'_>, e: &mut Errors) {
    if let Some(mode) = int(source, field)
        && !(0..=0o777).contains(&mode)
    {
        e.invalid_int(&path.child(field), mode, MODE);
    }
}

/// `items`: keys to paths.
fn items(source: &Value, path: &Path<'_>, e: &mut Errors) {
    let path = path.child("items");
    for (i, item) in list(source, "items").iter().enumerate() {
        let path = path.index(i);
        if text(item, "key").is_empty() {
            e.required(&path.child("key"), "");
        }
        let file = text(item, "path");
        if file.is_empty() {
            e.required(&path.child("path"), "");
        }
        relative_path(file, &path.child("path"), e);
        mode(item, "mode", &path, e);
    }
}

fn downward(file: &Value, path: &Path<'_>, e: &mut Errors) {
    let name = text(file, "path");
    if name.is_empty() {
        e.required(&path.child("path"), "");
    }
    relative_path(name, &path.child("path"), e);
    if has(file, "fieldRef") {
        let field = text(at(file, "fieldRef"), "fieldPath");
        let known = [
            "metadata.annotations",
            "metadata.labels",
            "metadata.name",
            "metadata.namespace",
            "metadata.uid",
        ];
        let path = path.child("fieldRef");
        let map = field.split_once("['").map_or(field, |(map, _)| map);
        if field.is_empty() {
            e.required(&path.child("fieldPath"), "");
        } else if !known.contains(&map) {
            e.not_supported(&path.child("fieldPath"), field, &known);
        }
        if has(file, "resourceFieldRef") {
            e.invalid_text(
                &path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        }
    } else if has(file, "resourceFieldRef") {
        resource_field(
            at(file, "resourceFieldRef"),
            true,
            &path.child("resourceFieldRef"),
            e,
        );
    } else {
        e.required(path, "one of fieldRef and resourceFieldRef is required");
    }
    mode(file, "mode", path, e);
}

fn projected(source: &Value, path: &Path<'_>, e: &mut Errors) {
    mode(source, "defaultMode", path, e);
    let path = path.child("sources");
    for (i, source) in list(source, "sources").iter().enumerate() {
        let path = path.index(i);
        let mut count = 0;
        for kind in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            if !has(source, kind) {
                continue;
            }
            let path = path.child(kind);
            if count > 0 {
                e.forbidden(&path, "may not specify more than 1 volume type");
                continue;
            }
            count += 1;
            let source = at(source, kind);
            match kind {
                "secret" | "configMap" => {
                    if text(source, "name").is_empty() {
                        e.required(&path.child("name"), "");
                    }
                    items(source, &path, e);
                }
                "downwardAPI" => {
                    for file in list(source, "items") {
                        downward(file, &path, e);
                    }
                }
                "serviceAccountToken" => {
                    let seconds = int(source, "expirationSeconds").unwrap_or(3600);
                    if seconds < 600 {
                        e.invalid_int(
                            &path.child("expirationSeconds"),
                            seconds,
                            "may not specify a duration less than 10 minutes",
                        );
                    }
                    let file = text(source, "path");
                    if file.is_empty() {
                        e.required(&path.child("path"), "");
                    } else {
                        relative_path(file, &path.child("path"), e);
                    }
                }
                _ => {}
            }
        }
        if count == 0 {
            e.required(&path, "must specify a volume type");
        }
    }
}

/// A path below the volume: not absolute, without `..`.
pub fn relative_path(text: &str, path: &Path<'_>, e: &mut Errors) {
    if text.starts_with('/') {
        e.invalid_text(path, text, "must be a relative path");
        return;
    }
    backsteps(text, path, e);
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        e.invalid_text(path, text, "must not start with '..'");
    }
}

/// A path that only goes down.
pub fn descending_path(text: &str, path: &Path<'_>, e: &mut Errors) {
    if text.starts_with('/') {
        e.invalid_text(path, text, "must be a relative path");
    }
    backsteps(text, path, e);
}

fn backsteps(text: &str, path: &Path<'_>, e: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        e.invalid_text(path, text, "must not contain '..'");
    }
}
