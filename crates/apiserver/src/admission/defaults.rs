//! Small fillings-in: default classes, the taint of a new node.

use gantry_machinery::path::At as _;
use serde_json::{Value, json};

use super::all;
use crate::{api::Cx, object};

/// TaintNodesByCondition: nothing is placed on a node before it has said that it is ready.
pub fn not_ready_taint(node: &mut Value) {
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let Some(node) = node.as_object_mut() else {
        return;
    };
    let spec = node.entry("spec").or_insert_with(|| json!({}));
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else {
        return;
    };
    let there = taints
        .iter()
        .any(|t| t.get("key") == taint.get("key") && t.get("effect") == taint.get("effect"));
    if !there {
        taints.push(taint);
    }
}

/// The newest class of a kind that is marked as default by an annotation.
fn default_class(cx: &Cx, bucket: &str, annotation: &str) -> Option<String> {
    all(cx, bucket, "")
        .into_iter()
        .filter(|class| {
            object::meta(class)
                .and_then(|m| m.get("annotations"))
                .and_then(|a| a.get(annotation))
                .and_then(Value::as_str)
                == Some("true")
        })
        .max_by(|a, b| {
            let age = |c| object::meta_text(c, "creationTimestamp").to_owned();
            age(a)
                .cmp(&age(b))
                .then_with(|| object::name(b).cmp(object::name(a)))
        })
        .map(|class| object::name(&class).to_owned())
}

pub fn storage_class(cx: &Cx, claim: &mut Value) {
    let legacy = object::meta(claim)
        .and_then(|m| m.get("annotations"))
        .is_some_and(|a| a.get("volume.beta.kubernetes.io/storage-class").is_some());
    if legacy || claim.at("/spec/storageClassName").is_some() {
        return;
    }
    let annotation = "storageclass.kubernetes.io/is-default-class";
    if let Some(class) = default_class(cx, "storage.k8s.io/storageclasses", annotation)
        && let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.insert("storageClassName".to_owned(), class.into());
    }
}

pub fn ingress_class(cx: &Cx, ingress: &mut Value) {
    let legacy = object::meta(ingress)
        .and_then(|m| m.get("annotations"))
        .is_some_and(|a| a.get("kubernetes.io/ingress.class").is_some());
    if legacy || ingress.at("/spec/ingressClassName").is_some() {
        return;
    }
    let annotation = "ingressclass.kubernetes.io/is-default-class";
    if let Some(class) = default_class(cx, "networking.k8s.io/ingressclasses", annotation)
        && let Some(spec) = ingress.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.insert("ingressClassName".to_owned(), class.into());
    }
}
