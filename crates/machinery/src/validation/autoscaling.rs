//! Horizontal pod autoscalers.

use serde_json::Value;

use super::{
    errors::Errors,
    names, selectors,
    value::{at, has, int, list, text},
};
use crate::{path::Path, validation::resources};

pub fn autoscaler(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let low = int(spec, "minReplicas").unwrap_or(1);
    if low < 1 {
        e.invalid_int(
            &path.child("minReplicas"),
            low,
            "must be greater than or equal to 1",
        );
    }
    let high = int(spec, "maxReplicas").unwrap_or(0);
    if high < 1 {
        e.required(&path.child("maxReplicas"), "must be set and greater than 0");
    }
    if high < low {
        e.invalid_int(
            &path.child("maxReplicas"),
            high,
            "must be greater than or equal to `minReplicas`",
        );
    }
    target_reference(at(spec, "scaleTargetRef"), &path.child("scaleTargetRef"), e);
    let metrics = path.child("metrics");
    for (i, metric) in list(spec, "metrics").iter().enumerate() {
        metric_spec(metric, &metrics.index(i), e);
    }
    if let Some(percent) = int(spec, "targetCPUUtilizationPercentage").filter(|p| *p < 1) {
        e.invalid_int(
            &path.child("targetCPUUtilizationPercentage"),
            percent,
            "must be greater than 0",
        );
    }
    let behavior = path.child("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = at(at(spec, "behavior"), direction);
        if !rules.is_null() {
            scaling_rules(rules, &behavior.child(direction), e);
        }
    }
}

fn target_reference(reference: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["kind", "name"] {
        let value = text(reference, field);
        if value.is_empty() {
            e.required(&path.child(field), "");
        } else {
            e.invalid_each(&path.child(field), value, names::path_segment(value));
        }
    }
    let version = text(reference, "apiVersion");
    let core = matches!(
        (version, text(reference, "kind")),
        ("v1", "ReplicationController")
    );
    if !version.contains('/') && !core {
        e.invalid_text(
            &path.child("apiVersion"),
            version,
            "apiVersion must specify API group",
        );
    }
}

fn metric_spec(metric: &Value, path: &Path<'_>, e: &mut Errors) {
    let kind = text(metric, "type");
    let known = [
        "ContainerResource",
        "External",
        "Object",
        "Pods",
        "Resource",
    ];
    if kind.is_empty() {
        e.required(&path.child("type"), "must specify a metric source type");
    }
    if !known.contains(&kind) {
        e.not_supported(&path.child("type"), kind, &known);
    }
    // Whatever the type: the first source that is there is looked at.
    let mut given = SOURCES.iter().filter(|(_, field)| has(metric, field));
    if let Some((kind, field)) = given.next() {
        source(kind, at(metric, field), &path.child(field), e);
    }
    match SOURCES.iter().find(|(k, _)| *k == kind) {
        Some((_, field)) if !has(metric, field) => e.required(
            &path.child(field),
            "must populate information for the given metric source",
        ),
        Some(_) => {}
        // So Kubernetes says once more.
        None => e.not_supported(&path.child("type"), kind, &known),
    }
    let given: Vec<_> = SOURCES.iter().filter(|(_, f)| has(metric, f)).collect();
    if given.len() > 1 {
        for (_, field) in given.into_iter().filter(|(k, _)| *k != kind) {
            e.forbidden(
                &path.child(field),
                "must populate the given metric source only",
            );
        }
    }
}

/// Types of metrics and where each says more, in the order in which Kubernetes looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

/// One source of a metric.
fn source(kind: &str, source: &Value, here: &Path<'_>, e: &mut Errors) {
    match kind {
        "Resource" | "ContainerResource" => {
            if text(source, "name").is_empty() {
                e.required(&here.child("name"), "must specify a resource name");
            }
            let container = text(source, "container");
            if kind == "ContainerResource" {
                if container.is_empty() {
                    e.required(&here.child("container"), "must specify a container");
                } else {
                    let path = here.child("container");
                    e.invalid_each(&path, container, names::dns1123_label(container));
                }
            }
        }
        _ => {
            if kind == "Object" {
                described(
                    at(source, "describedObject"),
                    &here.child("describedObject"),
                    e,
                );
            }
            let selector = at(at(source, "metric"), "selector");
            let path = here.child("metric");
            selectors::label_selector(selector, &path.child("selector"), e);
            let name = text(at(source, "metric"), "name");
            let here = here.child("metric");
            if name.is_empty() {
                e.required(&here.child("name"), "must specify a metric name");
            } else {
                e.invalid_each(&here.child("name"), name, names::path_segment(name));
            }
        }
    }
    target(kind, at(source, "target"), &here.child("target"), e);
}

fn target(kind: &str, target: &Value, path: &Path<'_>, e: &mut Errors) {
    let form = text(target, "type");
    if form.is_empty() {
        e.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(form, "Utilization" | "Value" | "AverageValue") {
        e.invalid_text(
            &path.child("type"),
            form,
            "must be either Utilization, Value, or AverageValue",
        );
    }
    for field in ["value", "averageValue"] {
        if has(target, field) {
            let amount = resources::parse(at(target, field));
            if amount.is_zero() || amount.is_negative() {
                let shown = super::errors::quote(&amount.to_string());
                e.invalid_shown(&path.child(field), &shown, "must be positive");
            }
        }
    }
    if let Some(percent) = int(target, "averageUtilization").filter(|p| *p < 1) {
        e.invalid_int(
            &path.child("averageUtilization"),
            percent,
            "must be greater than 0",
        );
    }
    if matches!(kind, "Resource" | "ContainerResource") {
        let (share, amount) = (
            has(target, "averageUtilization"),
            has(target, "averageValue"),
        );
        if !share && !amount {
            e.required(
                &path.child("averageUtilization"),
                "must set either a target raw value or a target utilization",
            );
        } else if share && amount {
            e.forbidden(
                &path.child("averageValue"),
                "may not set both a target raw value and a target utilization",
            );
        }
    } else if kind == "Object" && !has(target, "value") && !has(target, "averageValue") {
        e.required(
            &path.child("averageValue"),
            "must set either a target value or averageValue",
        );
    } else if kind == "External" {
        match (has(target, "value"), has(target, "averageValue")) {
            (false, false) => e.required(
                &path.child("averageValue"),
                "must set either a target value for metric or a per-pod target",
            ),
            (true, true) => e.forbidden(
                &path.child("value"),
                "may not set both a target value for metric and a per-pod target",
            ),
            _ => {}
        }
    } else if kind == "Pods" && !has(target, "averageValue") {
        e.required(
            &path.child("averageValue"),
            "must specify a positive target averageValue",
        );
    }
}

/// The object whose metric is meant.
fn described(reference: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["kind", "name"] {
        let value = text(reference, field);
        if value.is_empty() {
            e.required(&path.child(field), "");
        } else {
            e.invalid_each(&path.child(field), value, names::path_segment(value));
        }
    }
}

fn scaling_rules(rules: &Value, path: &Path<'_>, e: &mut Errors) {
    if let Some(seconds) = int(rules, "stabilizationWindowSeconds") {
        let here = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            e.invalid_int(&here, seconds, "must be greater than or equal to zero");
        } else if seconds > 3600 {
            e.invalid_int(&here, seconds, "must be less than or equal to 3600");
        }
    }
    let select = text(rules, "selectPolicy");
    if !matches!(select, "" | "Max" | "Min" | "Disabled") {
        e.not_supported(
            &path.child("selectPolicy"),
            select,
            &["Disabled", "Max", "Min"],
        );
    }
    let here = path.child("policies");
    if list(rules, "policies").is_empty() {
        e.required(&here, "must specify at least one Policy");
    }
    for (i, policy) in list(rules, "policies").iter().enumerate() {
        let path = here.index(i);
        let kind = text(policy, "type");
        if !matches!(kind, "Pods" | "Percent") {
            e.not_supported(&path.child("type"), kind, &["Percent", "Pods"]);
        }
        for (field, most) in [("value", i64::MAX), ("periodSeconds", 1800)] {
            let n = int(policy, field).unwrap_or(0);
            if n <= 0 {
                e.invalid_int(&path.child(field), n, "must be greater than zero");
            } else if n > most {
                e.invalid_int(
                    &path.child(field),
                    n,
                    &format!("must be less than or equal to {most}"),
                );
            }
        }
    }
}
