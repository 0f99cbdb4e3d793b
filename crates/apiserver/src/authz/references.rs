//! The objects that a pod or a volume names, for who may read them.

use std::sync::Arc;

use serde_json::Value;

use super::node::{Kind, Reference};
use crate::object;

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let items = value.get(field).and_then(Value::as_array);
    items.into_iter().flatten()
}

/// Where a volume of a pod names a Secret of the pod's namespace.
const VOLUME_SECRETS: [&str; 10] = [
    "/secret/secretName",
    "/azureFile/secretName",
    "/cephfs/secretRef/name",
    "/cinder/secretRef/name",
    "/flexVolume/secretRef/name",
    "/rbd/secretRef/name",
    "/scaleIO/secretRef/name",
    "/iscsi/secretRef/name",
    "/storageos/secretRef/name",
    "/csi/nodePublishSecretRef/name",
];

/// Where the source of a volume that others bind names a Secret that its node reads.
const SOURCE_SECRETS: [&str; 8] = [
    "cephfs/secretRef",
    "cinder/secretRef",
    "flexVolume/secretRef",
    "rbd/secretRef",
    "scaleIO/secretRef",
    "iscsi/secretRef",
    "csi/nodePublishSecretRef",
    "csi/nodeStageSecretRef",
];

/// Secrets and ConfigMaps that a pod names, in containers, volumes and for its images.
pub fn settings(pod: &Value) -> Vec<(Kind, String)> {
    let mut found = vec![];
    let Some(spec) = pod.get("spec") else {
        return found;
    };
    let mut add = |kind: Kind, value: &Value, pointer: &str| {
        let name = object::text(value, pointer);
        if !name.is_empty() {
            found.push((kind, name.to_owned()));
        }
    };
    for secret in list(spec, "imagePullSecrets") {
        add(Kind::Secret, secret, "/name");
    }
    for part in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(spec, part) {
            for from in list(container, "envFrom") {
                add(Kind::Secret, from, "/secretRef/name");
                add(Kind::ConfigMap, from, "/configMapRef/name");
            }
            for env in list(container, "env") {
                add(Kind::Secret, env, "/valueFrom/secretKeyRef/name");
                add(Kind::ConfigMap, env, "/valueFrom/configMapKeyRef/name");
            }
        }
    }
    for volume in list(spec, "volumes") {
        for pointer in VOLUME_SECRETS {
            add(Kind::Secret, volume, pointer);
        }
        add(Kind::ConfigMap, volume, "/configMap/name");
        if let Some(projected) = volume.get("projected") {
            for source in list(projected, "sources") {
                add(Kind::Secret, source, "/secret/name");
                add(Kind::ConfigMap, source, "/configMap/name");
            }
        }
    }
    found
}

/// Names of the claims of a pod's volumes, the generated ones too.
pub fn claims(pod: &Value) -> Vec<String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let claim = |volume: &Value| {
        if volume.get("ephemeral").is_some_and(Value::is_object) {
            let volume = object::text(volume, "/name");
            return Some(format!("{}-{volume}", object::name(pod)));
        }
        let name = object::text(volume, "/persistentVolumeClaim/claimName");
        (!name.is_empty()).then(|| name.to_owned())
    };
    volumes.into_iter().flatten().filter_map(claim).collect()
}

/// All that a pod's node may read for it.
pub fn of_pod(pod: &Value) -> Vec<Reference> {
    // A mirror of what a node runs by itself must not make the node see more.
    let notes = object::meta(pod).and_then(|m| m.get("annotations"));
    if notes.is_some_and(|n| n.get("kubernetes.io/config.mirror").is_some()) {
        return vec![];
    }
    let namespace = object::meta_text(pod, "namespace");
    let full = |name: &str| Arc::from(format!("{namespace}/{name}"));
    let mut all: Vec<Reference> = settings(pod)
        .into_iter()
        .map(|(kind, name)| (kind, full(&name)))
        .collect();
    all.extend(claims(pod).iter().map(|name| (Kind::Claim, full(name))));
    let account = object::text(pod, "/spec/serviceAccountName");
    if !account.is_empty() {
        all.push((Kind::Account, full(account)));
    }
    if let Some(spec) = pod.get("spec") {
        for claim in list(spec, "resourceClaims") {
            let name = object::text(claim, "/resourceClaimName");
            if !name.is_empty() {
                all.push((Kind::ResourceClaim, full(name)));
            }
        }
    }
    if let Some(status) = pod.get("status") {
        for claim in list(status, "resourceClaimStatuses") {
            let name = object::text(claim, "/resourceClaimName");
            if !name.is_empty() {
                all.push((Kind::ResourceClaim, full(name)));
            }
        }
        // The claim that the scheduler made for extended resources.
        let name = object::text(status, "/extendedResourceClaimStatus/resourceClaimName");
        if !name.is_empty() {
            all.push((Kind::ResourceClaim, full(name)));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Secrets, as `namespace/name`, that the node of a PersistentVolume reads.
pub fn of_volume(volume: &Value) -> Vec<Arc<str>> {
    let Some(spec) = volume.get("spec") else {
        return vec![];
    };
    let bound = object::text(spec, "/claimRef/namespace");
    let mut all: Vec<Arc<str>> = vec![];
    let mut add = |namespace: &str, name: &str| {
        let namespace = if namespace.is_empty() {
            bound
        } else {
            namespace
        };
        if !name.is_empty() && !namespace.is_empty() {
            all.push(format!("{namespace}/{name}").into());
        }
    };
    for source in SOURCE_SECRETS.iter().chain(&["csi/nodeExpandSecretRef"]) {
        let of = |field: &str| object::text(spec, &format!("/{source}/{field}"));
        add(of("namespace"), of("name"));
    }
    let file = |field: &str| object::text(spec, &format!("/azureFile/{field}"));
    add(file("secretNamespace"), file("secretName"));
    let os = |field: &str| object::text(spec, &format!("/storageos/secretRef/{field}"));
    add(os("namespace"), os("name"));
    all
}
