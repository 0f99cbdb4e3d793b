//! LimitRanger: default requests and limits, and the bounds of a namespace's LimitRanges.

use gantry_machinery::{
    quota::{Amounts, amounts},
    status::Failure,
};
use serde_json::{Map, Value, json};

use super::all;
use crate::{api::Cx, errors, object};

const BUCKET: &str = "/limitranges";
const LISTS: [(&str, &str); 2] = [
    ("containers", "container"),
    ("initContainers", "init container"),
];

fn items(range: &Value) -> impl Iterator<Item = &Value> {
    range
        .pointer("/spec/limits")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn table<'a>(item: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    item.get(name).and_then(Value::as_object)
}

/// Default requests and limits of containers that name none, noted in an annotation.
pub fn fill(cx: &Cx, pod: &mut Value) -> Result<(), Failure> {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for range in all(cx, BUCKET, &cx.target.namespace) {
        for item in items(&range) {
            if object::text(item, "/type") == "Container" {
                requests.extend(table(item, "defaultRequest").cloned().unwrap_or_default());
                limits.extend(table(item, "default").cloned().unwrap_or_default());
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return Ok(());
    }
    let mut notes = vec![];
    for (list, what) in LISTS {
        for container in pod
            .pointer_mut(&format!("/spec/{list}"))
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let name = object::text(container, "/name").to_owned();
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let resources = container.entry("resources").or_insert_with(|| json!({}));
            for (field, word, defaults) in [
                ("requests", "request", &requests),
                ("limits", "limit", &limits),
            ] {
                let Some(resources) = resources.as_object_mut() else {
                    continue;
                };
                let own = resources.entry(field).or_insert_with(|| json!({}));
                let Some(own) = own.as_object_mut() else {
                    continue;
                };
                let mut set = vec![];
                for (resource, value) in defaults {
                    if !own.contains_key(resource) {
                        own.insert(resource.clone(), value.clone());
                        set.push(resource.clone());
                    }
                }
                if own.is_empty() {
                    resources.remove(field);
                }
                if !set.is_empty() {
                    set.sort();
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty()
        && let Some(meta) = object::meta_mut(pod)
    {
        let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(
                "kubernetes.io/limit-ranger".to_owned(),
                format!("LimitRanger plugin set: {}", notes.join("; ")).into(),
            );
        }
    }
    Ok(())
}

/// Refuses what is outside the bounds.
pub fn check(cx: &Cx, object: &Value) -> Result<(), Failure> {
    let of = match (cx.resource().group.as_str(), cx.resource().plural.as_str()) {
        ("", "pods") => "pods",
        ("", "persistentvolumeclaims") => "claims",
        _ => return Ok(()),
    };
    let mut wrong = vec![];
    for range in all(cx, BUCKET, &cx.target.namespace) {
        for item in items(&range) {
            let kind = object::text(item, "/type");
            match (of, kind) {
                ("pods", "Container") => {
                    for (list, _) in LISTS {
                        for container in object
                            .pointer(&format!("/spec/{list}"))
                            .and_then(Value::as_array)
                            .into_iter()
                            .flatten()
                        {
                            bounds(
                                item,
                                kind,
                                &amounts(container.pointer("/resources/requests")),
                                &amounts(container.pointer("/resources/limits")),
                                &mut wrong,
                            );
                        }
                    }
                }
                ("pods", "Pod") => {
                    let sum = |field: &str| {
                        let mut total = Amounts::new();
                        for container in object
                            .pointer("/spec/containers")
                            .and_then(Value::as_array)
                            .into_iter()
                            .flatten()
                        {
                            let own = amounts(container.pointer(&format!("/resources/{field}")));
                            for (k, v) in own {
                                let at = total.remove(&k);
                                let v = at.map_or(v, |a| a.saturating_add(v));
                                total.insert(k, v);
                            }
                        }
                        total
                    };
                    bounds(item, kind, &sum("requests"), &sum("limits"), &mut wrong);
                }
                ("claims", "PersistentVolumeClaim") => {
                    let asked = amounts(object.pointer("/spec/resources/requests"));
                    bounds(item, kind, &asked, &Amounts::new(), &mut wrong);
                }
                _ => {}
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let text = if let [one] = wrong.as_slice() {
        one.clone()
    } else {
        format!("[{}]", wrong.join(", "))
    };
    Err(errors::forbidden(
        cx.resource(),
        object::name(object),
        &text,
    ))
}

fn bounds(item: &Value, kind: &str, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    let claim = kind == "PersistentVolumeClaim";
    for (resource, min) in amounts(item.get("min")) {
        let (request, limit) = (requests.get(&resource), limits.get(&resource));
        match request {
            None => wrong.push(format!(
                "minimum {resource} usage per {kind} is {min}.  No request is specified"
            )),
            Some(r) if *r < min => wrong.push(format!(
                "minimum {resource} usage per {kind} is {min}, but request is {r}"
            )),
            Some(_) => {}
        }
        if let Some(l) = limit.filter(|l| **l < min && !claim) {
            wrong.push(format!(
                "minimum {resource} usage per {kind} is {min}, but limit is {l}"
            ));
        }
    }
    for (resource, max) in amounts(item.get("max")) {
        let (request, limit) = (requests.get(&resource), limits.get(&resource));
        if claim {
            if let Some(r) = request.filter(|r| **r > max) {
                wrong.push(format!(
                    "maximum {resource} usage per {kind} is {max}, but request is {r}"
                ));
            }
            continue;
        }
        match limit {
            None => wrong.push(format!(
                "maximum {resource} usage per {kind} is {max}.  No limit is specified"
            )),
            Some(l) if *l > max => wrong.push(format!(
                "maximum {resource} usage per {kind} is {max}, but limit is {l}"
            )),
            Some(_) => {
                if let Some(r) = request.filter(|r| **r > max) {
                    wrong.push(format!(
                        "maximum {resource} usage per {kind} is {max}, but request is {r}"
                    ));
                }
            }
        }
    }
    for (resource, ratio) in amounts(item.get("maxLimitRequestRatio")) {
        match (requests.get(&resource), limits.get(&resource)) {
            (Some(r), Some(l)) if !r.is_zero() => {
                let real = l.milli() as f64 / r.milli() as f64;
                if real > ratio.milli() as f64 / 1000.0 {
                    wrong.push(format!(
                        "{resource} max limit to request ratio per {kind} is {ratio}, but provided ratio is {real:.6}"
                    ));
                }
            }
            _ => wrong.push(format!(
                "{resource} max limit to request ratio per {kind} is {ratio}, but no request is specified or request is 0"
            )),
        }
    }
}
