//! Priority classes, runtime classes and leases.

use serde_json::Value;

use super::{
    errors::Errors,
    metadata, names,
    pod_parts::non_negative,
    resources, selectors,
    value::{at, entries, int, list, text},
};
use crate::path::Path;

const HIGHEST: i64 = 1_000_000_000;

pub fn priority_class(object: &Value, e: &mut Errors) {
    let name = text(at(object, "metadata"), "name");
    let value = int(object, "value").unwrap_or(0);
    if name.starts_with("system-") {
        let known = matches!(
            (name, value),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if !known {
            let metadata = Path::new("metadata");
            e.forbidden(
                &metadata.child("name"),
                &format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
                ),
            );
        }
    } else if value > HIGHEST {
        e.forbidden(
            &Path::new("value"),
            &format!("maximum allowed value of a user defined priority is {HIGHEST}"),
        );
    }
    let policy = text(object, "preemptionPolicy");
    if !matches!(policy, "" | "PreemptLowerPriority" | "Never") {
        e.not_supported(
            &Path::new("preemptionPolicy"),
            policy,
            &["Never", "PreemptLowerPriority"],
        );
    }
}

pub fn runtime_class(object: &Value, e: &mut Errors) {
    let handler = text(object, "handler");
    e.invalid_each(
        &Path::new("handler"),
        handler,
        names::dns1123_label(handler),
    );
    let path = Path::new("overhead");
    let path = path.child("podFixed");
    for (name, value) in entries(at(object, "overhead"), "podFixed") {
        let path = path.key(name);
        resources::container_name(name, &path, e);
        resources::amount(name, value, &path, e);
    }
    let path = Path::new("scheduling");
    let scheduling = at(object, "scheduling");
    metadata::labels(scheduling, "nodeSelector", &path.child("nodeSelector"), e);
    let here = path.child("tolerations");
    selectors::tolerations(scheduling, &here, e);
    let all = list(scheduling, "tolerations");
    for (i, toleration) in all.iter().enumerate() {
        if all[..i].contains(toleration) {
            e.duplicate(&here.index(i), toleration);
        }
    }
}

pub fn lease(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|n| *n <= 0) {
        e.invalid_int(
            &path.child("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
    non_negative(spec, "leaseTransitions", &path, e);
    if let Some(strategy) = at(spec, "strategy").as_str() {
        let here = path.child("strategy");
        let faults = if strategy.contains('/') {
            names::qualified_path(strategy)
        } else {
            names::qualified_name(strategy)
        };
        e.invalid_each(&here, strategy, faults);
    }
    if at(spec, "preferredHolder")
        .as_str()
        .is_some_and(|h| !h.is_empty())
        && text(spec, "strategy").is_empty()
    {
        let here = path.child("preferredHolder");
        e.forbidden(&here, "may only be specified when strategy is defined");
    }
    if at(spec, "holderIdentity").as_str() == Some("") {
        e.invalid_text(&path.child("holderIdentity"), "", "must not be empty");
    }
}
