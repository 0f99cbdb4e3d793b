//! Priority classes, runtime classes and leases.

use serde_json::{Value, json};

use super::{
    errors::Errors,
    metadata, names,
    pod_parts::non_negative,
    pod_resources, selectors,
    value::{at, flag, int, list, text},
};
use crate::path::Path;

const HIGHEST: i64 = 1_000_000_000;
/// The one strategy of Kubernetes' own by which a holder is chosen.
const OLDEST: &str = "OldestEmulationVersion";

pub fn priority_class(object: &Value, e: &mut Errors) {
    let name = text(at(object, "metadata"), "name");
    let value = int(object, "value").unwrap_or(0);
    if name.starts_with("system-") {
        if let Some(fault) = system_class(name, value, flag(object, "globalDefault")) {
            let metadata = Path::new("metadata");
            e.forbidden(
                &metadata.child("name"),
                &format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {fault}"
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

/// What is wrong with a class that has a name of the system's.
fn system_class(name: &str, value: i64, default: bool) -> Option<String> {
    let known = match name {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        _ => return Some(format!("{name} is not a known system priority class")),
    };
    if value != known {
        return Some(format!("value of {name} PriorityClass must be {known}"));
    }
    default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

pub fn runtime_class(object: &Value, e: &mut Errors) {
    let handler = text(object, "handler");
    e.invalid_each(
        &Path::new("handler"),
        handler,
        names::dns1123_label(handler),
    );
    // Kubernetes looks at what a pod needs more as at limits.
    let fixed = json!({"limits": at(at(object, "overhead"), "podFixed")});
    pod_resources::requirements(&fixed, &[], &Path::new("overhead"), e);
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
        // Kubernetes names the field twice.
        let here = here.child("strategy");
        if strategy.contains('/') {
            e.invalid_each(&here, strategy, names::qualified_name(strategy));
        } else if strategy != OLDEST {
            e.not_supported(&here, strategy, &[OLDEST]);
        }
    }
    if at(spec, "preferredHolder")
        .as_str()
        .is_some_and(|h| !h.is_empty())
        && text(spec, "strategy").is_empty()
    {
        let here = path.child("preferredHolder");
        e.forbidden(&here, "may only be specified if `strategy` is defined");
    }
}
