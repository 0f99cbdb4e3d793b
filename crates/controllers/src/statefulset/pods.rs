//! The pods and claims of a StatefulSet as they are created.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{claims, plan};
use crate::model::workload::StatefulSet;
use crate::model::{CLAIMS, Meta, STATEFUL_SETS};
use crate::ownership;

/// A pod of one revision, but for what its ordinal decides.
pub fn base(set: &StatefulSet, template: &Value, revision: &str) -> Value {
    let mut pod = ownership::pod_from_template(template, &STATEFUL_SETS, &set.metadata);
    pod["metadata"]["labels"][plan::REVISION] = revision.into();
    pod["spec"]["subdomain"] = set.spec.service_name.as_str().into();
    pod
}

pub fn with_identity(set: &StatefulSet, base: &Value, ordinal: i32) -> Value {
    let mut pod = base.clone();
    let name = format!("{}-{ordinal}", set.metadata.name);
    pod["metadata"]["labels"][plan::POD_NAME] = name.as_str().into();
    pod["metadata"]["labels"][plan::POD_INDEX] = ordinal.to_string().into();
    pod["metadata"]["name"] = name.as_str().into();
    if set.spec.service_name.is_empty()
        && let Some(spec) = pod["spec"].as_object_mut()
    {
        spec.remove("subdomain");
    }
    pod["spec"]["hostname"] = name.into();
    if !set.spec.volume_claim_templates.is_empty() {
        let claimed: Vec<(&str, Value)> = set
            .spec
            .volume_claim_templates
            .iter()
            .filter_map(|t| {
                let volume = t.pointer("/metadata/name")?.as_str()?;
                let claim = format!("{volume}-{}-{ordinal}", set.metadata.name);
                Some((
                    volume,
                    json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}),
                ))
            })
            .collect();
        let names: BTreeSet<&str> = claimed.iter().map(|(n, _)| *n).collect();
        let others = base
            .pointer("/spec/volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|v| !v["name"].as_str().is_some_and(|n| names.contains(n)))
            .cloned();
        let volumes: Vec<Value> = claimed
            .iter()
            .map(|(_, v)| v.clone())
            .chain(others)
            .collect();
        pod["spec"]["volumes"] = volumes.into();
    }
    pod
}

/// The claim of one pod by one template: `<template>-<set>-<ordinal>`.
pub fn claim(set: &StatefulSet, template: &Value, ordinal: i32) -> Value {
    let mut claim = template.clone();
    let name = template
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("");
    let Meta {
        name: set_name,
        namespace,
        ..
    } = &set.metadata;
    claim["apiVersion"] = "v1".into();
    claim["kind"] = CLAIMS.kind.into();
    claim["metadata"]["name"] = format!("{name}-{set_name}-{ordinal}").into();
    claim["metadata"]["namespace"] = Value::from(&**namespace);
    for (k, v) in set.spec.selector.match_labels.iter() {
        claim["metadata"]["labels"][k] = v.into();
    }
    if set
        .spec
        .persistent_volume_claim_retention_policy
        .when_deleted
        == "Delete"
    {
        claim["metadata"]["ownerReferences"] = json!([claims::to_set(&set.metadata)]);
    }
    if let Some(map) = claim.as_object_mut() {
        map.remove("status");
    }
    claim
}
