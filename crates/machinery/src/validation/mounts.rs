//! Where a container mounts volumes, and which block devices it sees.

use serde_json::Value;

use super::{
    errors::Errors,
    value::{at, down, flag, has, list, text},
    volumes::{Volumes, descending_path},
};
use crate::path::Path;

/// `volumeMounts`
pub fn mounts(container: &Value, path: &Path<'_>, volumes: &Volumes<'_>, e: &mut Errors) {
    let devices = list(container, "volumeDevices");
    let mut points: Vec<&str> = Vec::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let here = path.index(i);
        let name = text(mount, "name");
        if name.is_empty() {
            e.required(&here.child("name"), "");
        }
        if volumes.find(name).is_none() {
            e.not_found(&here.child("name"), name);
        }
        let point = text(mount, "mountPath");
        if point.is_empty() {
            e.required(&here.child("mountPath"), "");
        }
        if points.contains(&point) {
            e.invalid_text(&here.child("mountPath"), point, "must be unique");
        }
        points.push(point);
        if devices.iter().any(|d| text(d, "name") == name) {
            let detail = "must not already exist in volumeDevices";
            e.invalid_text(&here.child("name"), name, detail);
        }
        if devices.iter().any(|d| text(d, "devicePath") == point) {
            let detail = "must not already exist as a path in volumeDevices";
            e.invalid_text(&here.child("mountPath"), point, detail);
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if volumes.find(name).is_some_and(|v| has(v, "image")) {
            for (field, value) in [("subPath", sub), ("subPathExpr", expression)] {
                if !value.is_empty() {
                    let detail = "not allowed in image volume sources";
                    e.invalid_text(&here.child(field), value, detail);
                }
            }
        }
        // Kubernetes leaves the position out of the paths from here on.
        if !sub.is_empty() {
            descending_path(sub, &path.child("subPath"), e);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                e.invalid_text(
                    &here.child("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            descending_path(expression, &path.child("subPathExpr"), e);
        }
        propagation(container, mount, &path.child("mountPropagation"), e);
        recursive(mount, &path.child("recursiveReadOnly"), e);
    }
}

fn propagation(container: &Value, mount: &Value, path: &Path<'_>, e: &mut Errors) {
    let Some(propagation) = at(mount, "mountPropagation").as_str() else {
        return;
    };
    let supported = ["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&propagation) {
        e.not_supported(path, propagation, &supported);
    }
    let privileged = flag(at(container, "securityContext"), "privileged");
    if propagation == "Bidirectional" && !privileged {
        e.forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn recursive(mount: &Value, path: &Path<'_>, e: &mut Errors) {
    match at(mount, "recursiveReadOnly").as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                e.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                e.forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        Some(other) => e.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// `volumeDevices`: block devices are claims.
pub fn devices(container: &Value, path: &Path<'_>, volumes: &Volumes<'_>, e: &mut Errors) {
    let mounts = list(container, "volumeMounts");
    let (mut names, mut points): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (i, device) in list(container, "volumeDevices").iter().enumerate() {
        let here = path.index(i);
        let (name, point) = (text(device, "name"), text(device, "devicePath"));
        let (name_path, point_path) = (here.child("name"), here.child("devicePath"));
        if name.is_empty() {
            e.required(&name_path, "");
        }
        if names.contains(&name) {
            e.invalid_text(&name_path, name, "must be unique");
        }
        match volumes.find(name) {
            None => e.not_found(&name_path, name),
            Some(v) if !has(v, "persistentVolumeClaim") && !has(v, "ephemeral") => e.invalid_text(
                &name_path,
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        if point.is_empty() {
            e.required(&point_path, "");
        }
        if points.contains(&point) {
            e.invalid_text(&point_path, point, "must be unique");
        }
        if point.split('/').any(|part| part == "..") {
            e.invalid_text(&point_path, point, "can not contain backsteps ('..')");
        } else {
            points.push(point);
        }
        if mounts.iter().any(|m| text(m, "name") == name) {
            e.invalid_text(&name_path, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| text(m, "mountPath") == point) {
            let detail = "must not already exist as a path in volumeMounts";
            e.invalid_text(&point_path, point, detail);
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
}

/// Ephemeral containers mount whole volumes only.
pub fn whole_volumes(container: &Value, path: &Path<'_>, detail: &str, e: &mut Errors) {
    let here = path.child("volumeMounts");
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !text(mount, field).is_empty() {
                e.forbidden(&here.index(i).child(field), detail);
            }
        }
    }
}

/// A pod without a service account has no token to project.
pub fn projected_tokens(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    if !text(spec, "serviceAccountName").is_empty() {
        return;
    }
    let here = path.child("volumes");
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let volume_path = here.index(i);
        let projected = volume_path.child("projected");
        let sources = projected.child("sources");
        let all = list(down(volume, &["projected"]), "sources");
        for (i, source) in all.iter().enumerate() {
            if has(source, "serviceAccountToken") {
                e.forbidden(
                    &sources.index(i).child("serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
}
