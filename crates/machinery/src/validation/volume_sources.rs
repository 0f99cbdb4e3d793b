//! Sources that pods' volumes and persistent volumes have in common: storage systems, by what each
//! must be told.

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    value::{at, entries, flag, has, int, list, text},
    volumes::{backsteps, descending_path},
};
use crate::path::Path;

pub const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Fields that must not be empty, by source.
fn mandatory(kind: &str) -> &'static [&'static str] {
    match kind {
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "azureDisk" => &["diskName", "diskURI"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "flexVolume" => &["driver"],
        _ => &[],
    }
}

/// The rules of one source.
pub fn common(kind: &str, source: &Value, path: &Path<'_>, e: &mut Errors) {
    // The disks of two clouds stand under other names in messages.
    let renamed;
    let path = if kind == "gcePersistentDisk" {
        renamed = path.sibling("persistentDisk");
        &renamed
    } else {
        path
    };
    for field in mandatory(kind) {
        if text(source, field).is_empty() {
            e.required(&path.child(field), "");
        }
    }
    match kind {
        "hostPath" => host_path(source, path, e),
        "gitRepo" => descending_path(text(source, "directory"), &path.child("directory"), e),
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = int(source, "partition").unwrap_or(0);
            if !(0..=255).contains(&partition) {
                let detail = "must be between 1 and 255, inclusive";
                e.invalid_int(&path.child("partition"), partition, detail);
            }
        }
        "nfs" => {
            let directory = text(source, "path");
            if !directory.starts_with('/') {
                e.invalid_text(&path.child("path"), directory, "must be an absolute path");
            }
        }
        "iscsi" => iscsi(source, path, e),
        "fc" => fibre_channel(source, path, e),
        "rbd" | "cephfs" => {
            if list(source, "monitors").is_empty() {
                e.required(&path.child("monitors"), "");
            }
            if kind == "rbd" && text(source, "image").is_empty() {
                e.required(&path.child("image"), "");
            }
        }
        "cinder" => secret(source, path, e),
        "quobyte" => quobyte(source, path, e),
        "flocker" => {
            let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
            if name.is_empty() && uuid.is_empty() {
                e.required(path, "one of datasetName and datasetUUID is required");
            }
            if !name.is_empty() && !uuid.is_empty() {
                let detail = "datasetName and datasetUUID can not be specified simultaneously";
                e.invalid_text(path, "resource", detail);
            }
            if name.contains('/') {
                e.invalid_text(&path.child("datasetName"), name, "must not contain '/'");
            }
        }
        "flexVolume" => {
            let here = path.child("options");
            for (key, _) in entries(source, "options") {
                let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
                let domain = format!(".{}", domain.to_lowercase());
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    let detail = "kubernetes.io and k8s.io namespaces are reserved";
                    e.invalid_text(&here.key(key), key, detail);
                }
            }
        }
        "azureDisk" => azure_disk(source, path, e),
        "storageos" => {
            let name = text(source, "volumeName");
            let here = path.child("volumeName");
            if name.is_empty() {
                e.required(&here, "");
            } else {
                e.invalid_each(&here, name, names::dns1123_label(name));
            }
            let namespace = text(source, "volumeNamespace");
            if !namespace.is_empty() {
                let here = path.child("volumeNamespace");
                e.invalid_each(&here, namespace, names::dns1123_label(namespace));
            }
            secret(source, path, e);
        }
        _ => {}
    }
}

fn secret(source: &Value, path: &Path<'_>, e: &mut Errors) {
    if has(source, "secretRef") && text(at(source, "secretRef"), "name").is_empty() {
        let path = path.child("secretRef");
        e.required(&path.child("name"), "");
    }
}

fn host_path(source: &Value, path: &Path<'_>, e: &mut Errors) {
    let directory = text(source, "path");
    if directory.is_empty() {
        e.required(&path.child("path"), "");
        return;
    }
    backsteps(directory, &path.child("path"), e);
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

/// The three forms of names there are: `iqn.2001-04.com.example:x`, `eui.` and `naa.` with 16 and
/// 32 letters or digits.
fn is_initiator(name: &str) -> bool {
    let plain = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_alphanumeric());
    if let Some(rest) = name.strip_prefix("eui.") {
        return plain(rest, 16);
    }
    if let Some(rest) = name.strip_prefix("naa.") {
        return plain(rest, 32);
    }
    let Some(rest) = name.strip_prefix("iqn.") else {
        return false;
    };
    let Some((date, rest)) = rest.split_once('.') else {
        return false;
    };
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    let dated = date
        .split_once('-')
        .is_some_and(|(y, m)| digits(y, 4) && digits(m, 2));
    let (authority, tail) = match rest.split_once(':') {
        Some((authority, tail)) => (authority, Some(tail)),
        None => (rest, None),
    };
    let named = !authority.is_empty()
        && authority
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    let tailed = tail.is_some_and(|t| {
        !t.is_empty()
            && !t.contains(|c: char| {
                matches!(c, ',' | ';' | '*' | '&' | '$' | '|') || c.is_whitespace()
            })
    });
    dated && named && tailed
}

fn iscsi(source: &Value, path: &Path<'_>, e: &mut Errors) {
    let check = |field: &str, name: &str, e: &mut Errors| {
        let known = ["iqn", "eui", "naa"].iter().any(|p| name.starts_with(p));
        if !known {
            let detail = "must be valid format starting with iqn, eui, or naa";
            e.invalid_text(&path.child(field), name, detail);
        } else if !is_initiator(name) {
            e.invalid_text(&path.child(field), name, "must be valid format");
        }
    };
    let iqn = text(source, "iqn");
    if !iqn.is_empty() {
        check("iqn", iqn, e);
    }
    let lun = int(source, "lun").unwrap_or(0);
    if !(0..=255).contains(&lun) {
        let detail = "must be between 0 and 255, inclusive";
        e.invalid_int(&path.child("lun"), lun, detail);
    }
    let secured = flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession");
    if secured && !has(source, "secretRef") {
        e.required(&path.child("secretRef"), "");
    }
    if let Some(name) = at(source, "initiatorName").as_str() {
        check("initiatorname", name, e);
    }
}

fn fibre_channel(source: &Value, path: &Path<'_>, e: &mut Errors) {
    let (names, ids) = (list(source, "targetWWNs"), list(source, "wwids"));
    let here = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        e.required(
            &here,
            "must specify either targetWWNs or wwids, but not both",
        );
    }
    if !names.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        e.invalid(&here, at(source, "targetWWNs"), detail);
    }
    if !names.is_empty() {
        let here = path.child("lun");
        match int(source, "lun") {
            None => e.required(&here, "lun is required if targetWWNs is specified"),
            Some(lun) if !(0..=255).contains(&lun) => {
                e.invalid_int(&here, lun, "must be between 0 and 255, inclusive");
            }
            Some(_) => {}
        }
    }
}

fn quobyte(source: &Value, path: &Path<'_>, e: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    let here = path.child("registry");
    if registry.is_empty() {
        e.required(&here, PAIRS);
    } else if text(source, "tenant").len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        e.required(&path.child("tenant"), detail);
    } else {
        for pair in registry.split(',') {
            let good = pair
                .rsplit_once(':')
                .is_some_and(|(host, _)| !host.contains(':') || host.starts_with('['));
            if !good {
                e.invalid_text(&here, registry, PAIRS);
            }
        }
    }
    if text(source, "volume").is_empty() {
        e.required(&path.child("volume"), "");
    }
}

fn azure_disk(source: &Value, path: &Path<'_>, e: &mut Errors) {
    for (field, known) in [
        ("cachingMode", ["None", "ReadOnly", "ReadWrite"]),
        ("kind", ["Dedicated", "Managed", "Shared"]),
    ] {
        if let Some(value) = at(source, field).as_str()
            && !known.contains(&value)
        {
            e.not_supported(&path.child(field), value, &known);
        }
    }
    let uri = text(source, "diskURI");
    let here = path.child("diskURI");
    match at(source, "kind").as_str() {
        Some("Managed") if !uri.starts_with("/subscriptions/") => e.not_supported(
            &here,
            uri,
            &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"],
        ),
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => e.not_supported(
            &here,
            uri,
            &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"],
        ),
        _ => {}
    }
}
