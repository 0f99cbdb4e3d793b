//! Volumes of pods: one source each, names unique, paths that stay inside.

use serde_json::Value;

use super::{
    errors::{Errors, show},
    metadata, names,
    pod_parts::{pull_policy, resource_field},
    resources, selectors,
    value::{at, has, int, list, text},
    volume_sources,
};
use crate::path::Path;

/// The valid volumes, which mounts may refer to.
pub struct Volumes<'a>(Vec<&'a Value>);

impl<'a> Volumes<'a> {
    pub fn find(&self, name: &str) -> Option<&'a Value> {
        self.0.iter().find(|v| text(v, "name") == name).copied()
    }
}

/// `pod` is the name of the pod, where there is one: ephemeral volumes' claims are named by it.
pub fn volumes<'a>(
    spec: &'a Value,
    pod: Option<&str>,
    path: &Path<'_>,
    e: &mut Errors,
) -> Volumes<'a> {
    let mut valid: Vec<&'a Value> = Vec::new();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(i);
        let name = text(volume, "name");
        let before = e.len();
        source(volume, pod, &path, e);
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else {
            e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        if valid.iter().any(|v| text(v, "name") == name) {
            e.duplicate_text(&path.child("name"), name);
        }
        if e.len() == before {
            valid.push(volume);
        }
    }
    Volumes(valid)
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

fn source(volume: &Value, pod: Option<&str>, path: &Path<'_>, e: &mut Errors) {
    let mut count = 0;
    for kind in SOURCES {
        if !has(volume, kind) {
            continue;
        }
        let source = at(volume, kind);
        let here = path.child(kind);
        if count > 0 {
            e.forbidden(&here, "may not specify more than 1 volume type");
            continue;
        }
        count += 1;
        one(kind, source, pod.is_some(), &here, e);
        let name = text(volume, "name");
        match kind {
            "iscsi"
                if has(source, "initiatorName")
                    && name.len() + 1 + text(source, "targetPortal").len() > 64 =>
            {
                e.invalid_text(&path.child("name"), name, volume_sources::PORTAL_TOO_LONG);
            }
            "ephemeral" => {
                let pod = pod.unwrap_or("");
                if !pod.is_empty() && !name.is_empty() {
                    let claim = format!("{pod}-{name}");
                    for fault in names::dns1123_subdomain(&claim) {
                        let detail = format!("PVC name {claim:?}: {fault}");
                        e.invalid_text(&path.child("name"), name, &detail);
                    }
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        e.required(path, "must specify a volume type");
    }
}

/// Fields that must not be empty, by source.
fn mandatory(kind: &str) -> &'static [&'static str] {
    match kind {
        "secret" => &["secretName"],
        "persistentVolumeClaim" => &["claimName"],
        "configMap" => &["name"],
        _ => &[],
    }
}

fn one(kind: &str, source: &Value, in_pod: bool, path: &Path<'_>, e: &mut Errors) {
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
        "persistentVolumeClaim" => {}
        "secret" | "configMap" => {
            mode(source, "defaultMode", path, e);
            items(source, path, e);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, e);
            // Kubernetes names neither the list nor the position here.
            for file in list(source, "items") {
                downward(file, path, e);
            }
        }
        "projected" => projected(source, path, e),
        "csi" => {
            super::storage::driver(source, path, e);
            let secret = at(source, "nodePublishSecretRef");
            if !secret.is_null() {
                let name = text(secret, "name");
                if name.is_empty() {
                    let here = path.child("nodePublishSecretRef");
                    e.required(&here.child("name"), "");
                } else {
                    e.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
                }
            }
        }
        "ephemeral" => {
            let template = at(source, "volumeClaimTemplate");
            let path = path.child("volumeClaimTemplate");
            if template.is_null() {
                e.required(&path, "");
            } else {
                claim_metadata(at(template, "metadata"), &path.child("metadata"), e);
                super::storage::claim_spec(at(template, "spec"), None, &path.child("spec"), e);
            }
        }
        "image" => {
            if in_pod && text(source, "reference").is_empty() {
                e.required(&path.child("reference"), "");
            }
            pull_policy(text(source, "pullPolicy"), &path.child("pullPolicy"), e);
        }
        _ => volume_sources::common(kind, source, path, e),
    }
}

/// Of the metadata of a claim to be made only labels and annotations are taken.
fn claim_metadata(metadata: &Value, path: &Path<'_>, e: &mut Errors) {
    metadata::annotations(metadata, &path.child("annotations"), e);
    metadata::labels(metadata, "labels", &path.child("labels"), e);
    for (field, value) in metadata.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "annotations" | "labels") && !super::value::blank(value) {
            e.forbidden(&path.child(field), "cannot be set");
        }
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
        super::pod_parts::field_path(field, &known, &path.child("fieldRef"), e);
        if has(file, "resourceFieldRef") {
            e.invalid_text(
                path,
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
    let here = path.child("sources");
    let mut taken: Vec<&str> = Vec::new();
    // Two sources must not write one file; `shown` is what the message shows for it.
    let mut take = |file, shown: &str, e: &mut Errors| {
        if taken.contains(&file) {
            e.invalid_text(path, shown, "conflicting duplicate paths");
        }
        taken.push(file);
    };
    for (i, source) in list(source, "sources").iter().enumerate() {
        let here = here.index(i);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            if !has(source, kind) {
                continue;
            }
            count += 1;
            let (source, here) = (at(source, kind), here.child(kind));
            let name = text(source, "name");
            if name.is_empty() {
                e.required(&here.child("name"), "");
            }
            items(source, &here, e);
            for item in list(source, "items") {
                let file = text(item, "path");
                if !file.is_empty() {
                    take(file, name, e);
                }
            }
        }
        if has(source, "downwardAPI") {
            count += 1;
            let here = here.child("downwardAPI");
            for file in list(at(source, "downwardAPI"), "items") {
                downward(file, &here, e);
                let file = text(file, "path");
                if !file.is_empty() {
                    take(file, file, e);
                }
            }
        }
        if has(source, "serviceAccountToken") {
            count += 1;
            let token = at(source, "serviceAccountToken");
            let here = here.child("serviceAccountToken");
            token_expiry(token, &here.child("expirationSeconds"), e);
            // The path is reported as the volume's.
            let file = text(token, "path");
            if file.is_empty() {
                e.required(&path.child("path"), "");
            } else {
                relative_path(file, &path.child("path"), e);
            }
        }
        if has(source, "clusterTrustBundle") {
            count += 1;
            let bundle = at(source, "clusterTrustBundle");
            trust_bundle(bundle, &here.child("clusterTrustBundle"), e);
            let file = text(bundle, "path");
            take(file, file, e);
        }
        if has(source, "podCertificate") {
            count += 1;
            let certificate = at(source, "podCertificate");
            pod_certificate(certificate, &here.child("podCertificate"), e);
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let file = text(certificate, field);
                if !file.is_empty() {
                    take(file, file, e);
                }
            }
        }
        if count > 1 {
            let detail = "may not specify more than 1 volume type per source";
            e.forbidden(&here, detail);
        }
    }
}

fn token_expiry(token: &Value, path: &Path<'_>, e: &mut Errors) {
    let seconds = int(token, "expirationSeconds").unwrap_or(3600);
    if seconds < 600 {
        let detail = "may not specify a duration less than 10 minutes";
        e.invalid_int(path, seconds, detail);
    }
    if seconds > 1 << 32 {
        let detail = "may not specify a duration larger than 2^32 seconds";
        e.invalid_int(path, seconds, detail);
    }
}

fn trust_bundle(bundle: &Value, path: &Path<'_>, e: &mut Errors) {
    let name = at(bundle, "name").as_str();
    let signer = at(bundle, "signerName").as_str();
    match (name, signer) {
        (Some(_), Some(_)) => {
            let detail = "only one of name and signerName may be used";
            e.invalid_shown(path, &show(bundle), detail);
        }
        (Some(name), None) => {
            let here = path.child("name");
            if name.is_empty() {
                e.required(&here, "must be a valid object name");
            }
            for fault in names::trust_bundle(name, None) {
                let detail = format!("not a valid clustertrustbundlename: {fault}");
                e.invalid_text(&here, name, &detail);
            }
            if has(bundle, "labelSelector") {
                let detail = "labelSelector must be unset if name is specified";
                let here = path.child("labelSelector");
                e.invalid(&here, at(bundle, "labelSelector"), detail);
            }
        }
        (None, Some(signer)) => {
            let here = path.child("signerName");
            if signer.is_empty() {
                e.required(&here, "must be a valid signer name");
            }
            super::certificates::signer_name(signer, &here, e);
            let selector = at(bundle, "labelSelector");
            selectors::label_selector(selector, &path.child("labelSelector"), e);
        }
        (None, None) => e.required(path, "either name or signerName must be specified"),
    }
    let file = text(bundle, "path");
    if file.is_empty() {
        e.required(&path.child("path"), "");
    }
    relative_path(file, &path.child("path"), e);
}

/// A certificate for the pod: a signer, a kind of key, and files to write it to.
fn pod_certificate(certificate: &Value, path: &Path<'_>, e: &mut Errors) {
    let signer = text(certificate, "signerName");
    super::certificates::signer_name(signer, &path.child("signerName"), e);
    let known = [
        "RSA3072",
        "RSA4096",
        "ECDSAP256",
        "ECDSAP384",
        "ECDSAP521",
        "ED25519",
    ];
    let kind = text(certificate, "keyType");
    if !known.contains(&kind) {
        e.not_supported(&path.child("keyType"), kind, &known);
    }
    if let Some(seconds) = int(certificate, "maxExpirationSeconds") {
        let here = path.child("maxExpirationSeconds");
        if seconds < 3600 {
            let detail = "if provided, maxExpirationSeconds must be >= 3600";
            e.invalid_int(&here, seconds, detail);
        } else if seconds > 91 * 86_400 {
            let detail = "if provided, maxExpirationSeconds must be <= 7862400";
            e.invalid_int(&here, seconds, detail);
        }
    }
    let fields = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for field in fields {
        relative_path(text(certificate, field), &path.child(field), e);
    }
    if fields.iter().all(|f| text(certificate, f).is_empty()) {
        e.required(
            path,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
}

/// A path below the volume: not absolute, without `..`, not beginning with it.
pub fn relative_path(text: &str, path: &Path<'_>, e: &mut Errors) {
    descending_path(text, path, e);
    if text.starts_with("..") && !text.starts_with("../") {
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

pub fn backsteps(text: &str, path: &Path<'_>, e: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        e.invalid_text(path, text, "must not contain '..'");
    }
}
