//! Pod disruption budgets.

use serde_json::Value;

use super::{
    apps::count_or_percent,
    errors::{Errors, show},
    selectors,
    value::{at, has, text},
};
use crate::path::Path;

pub fn disruption_budget(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            show(at(spec, "minAvailable")),
            show(at(spec, "selector")),
            show(at(spec, "maxUnavailable")),
            show(at(spec, "unhealthyPodEvictionPolicy")),
        );
        e.invalid_shown(
            &path,
            &shown,
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let value = at(spec, field);
        let here = path.child(field);
        count_or_percent(value, &here, e);
        let percent = value
            .as_str()
            .and_then(|t| t.strip_suffix('%'))
            .and_then(|n| n.parse::<i64>().ok());
        if percent.is_some_and(|n| n > 100) {
            e.invalid(&here, value, "must not be greater than 100%");
        }
    }
    selectors::label_selector(at(spec, "selector"), &path.child("selector"), e);
    let policy = text(spec, "unhealthyPodEvictionPolicy");
    if !matches!(policy, "" | "IfHealthyBudget" | "AlwaysAllow") {
        e.not_supported(
            &path.child("unhealthyPodEvictionPolicy"),
            policy,
            &["AlwaysAllow", "IfHealthyBudget"],
        );
    }
}
