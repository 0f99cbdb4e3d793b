//! Rows of workloads, jobs, autoscalers and disruption budgets.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cells::{containers, labels, name, number, old, or, quantity, selector, since},
    human_duration, metadata,
};
use crate::validation::value::{at, down, flag, has, int, list, text};

fn template(o: &Value) -> &Value {
    down(o, &["spec", "template", "spec"])
}

fn fraction(ready: &Value, wanted: &Value) -> Value {
    let n = |v: &Value| v.as_i64().unwrap_or(0);
    format!("{}/{}", n(ready), n(wanted)).into()
}

pub fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let (names, images) = containers(template(o));
    vec![
        name(o),
        fraction(at(status, "readyReplicas"), at(spec, "replicas")),
        number(status, &["updatedReplicas"]),
        number(status, &["availableReplicas"]),
        old(o, now),
        names,
        images,
        selector(at(spec, "selector")).into(),
    ]
}

pub fn replica_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(template(o));
    vec![
        name(o),
        number(o, &["spec", "replicas"]),
        number(o, &["status", "replicas"]),
        number(o, &["status", "readyReplicas"]),
        old(o, now),
        names,
        images,
        selector(down(o, &["spec", "selector"])).into(),
    ]
}

pub fn replication_controller(o: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(template(o));
    vec![
        name(o),
        number(o, &["spec", "replicas"]),
        number(o, &["status", "replicas"]),
        number(o, &["status", "readyReplicas"]),
        old(o, now),
        names,
        images,
        labels(at(o, "spec"), "selector").into(),
    ]
}

pub fn stateful_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(template(o));
    vec![
        name(o),
        fraction(
            down(o, &["status", "readyReplicas"]),
            down(o, &["spec", "replicas"]),
        ),
        old(o, now),
        names,
        images,
    ]
}

pub fn daemon_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = at(o, "status");
    let (names, images) = containers(template(o));
    vec![
        name(o),
        number(status, &["desiredNumberScheduled"]),
        number(status, &["currentNumberScheduled"]),
        number(status, &["numberReady"]),
        number(status, &["updatedNumberScheduled"]),
        number(status, &["numberAvailable"]),
        labels(template(o), "nodeSelector").into(),
        old(o, now),
        names,
        images,
        selector(down(o, &["spec", "selector"])).into(),
    ]
}

pub fn pod_template(o: &Value, _: Timestamp) -> Vec<Value> {
    let (names, images) = containers(down(o, &["template", "spec"]));
    let pod_labels = labels(down(o, &["template", "metadata"]), "labels");
    vec![name(o), names, images, pod_labels.into()]
}

pub fn controller_revision(o: &Value, now: Timestamp) -> Vec<Value> {
    let controller = list(metadata(o), "ownerReferences")
        .iter()
        .find(|r| flag(r, "controller"));
    let controller = match controller {
        None => "<none>".to_owned(),
        Some(r) => {
            let kind = text(r, "kind").to_lowercase();
            match text(r, "apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", text(r, "name")),
                None => format!("{kind}/{}", text(r, "name")),
            }
        }
    };
    vec![
        name(o),
        controller.into(),
        number(o, &["revision"]),
        old(o, now),
    ]
}

fn time(value: &Value, field: &str) -> Option<Timestamp> {
    text(value, field).parse().ok()
}

pub fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let done = int(status, "succeeded").unwrap_or(0);
    let completions = match (int(spec, "completions"), int(spec, "parallelism")) {
        (Some(n), _) => format!("{done}/{n}"),
        (None, Some(n)) if n > 1 => format!("{done}/1 of {n}"),
        _ => format!("{done}/1"),
    };
    let duration = match (time(status, "startTime"), time(status, "completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => human_duration(end.unwrap_or(now).as_second() - start.as_second()),
    };
    let holds = |kind: &str| {
        list(status, "conditions")
            .iter()
            .any(|c| text(c, "type") == kind && text(c, "status") == "True")
    };
    let state = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if has(metadata(o), "deletionTimestamp") {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let (names, images) = containers(template(o));
    vec![
        name(o),
        state.into(),
        completions.into(),
        duration.into(),
        old(o, now),
        names,
        images,
        selector(at(spec, "selector")).into(),
    ]
}

pub fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let last = match text(status, "lastScheduleTime") {
        "" => "<none>".to_owned(),
        time => since(time, now),
    };
    let suspended = if flag(spec, "suspend") {
        "True"
    } else {
        "False"
    };
    let job = down(spec, &["jobTemplate", "spec"]);
    let (names, images) = containers(down(job, &["template", "spec"]));
    vec![
        name(o),
        text(spec, "schedule").into(),
        or(text(spec, "timeZone"), "<none>").into(),
        suspended.into(),
        list(status, "active").len().into(),
        last.into(),
        old(o, now),
        names,
        images,
        selector(at(job, "selector")).into(),
    ]
}

pub fn disruption_budget(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let shown = |field: &str| match at(spec, field) {
        Value::String(text) => text.clone(),
        Value::Number(n) => n.to_string(),
        _ => "N/A".into(),
    };
    vec![
        name(o),
        shown("minAvailable").into(),
        shown("maxUnavailable").into(),
        number(o, &["status", "disruptionsAllowed"]),
        old(o, now),
    ]
}

pub fn autoscaler(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(o, "spec"), at(o, "status"));
    let target = at(spec, "scaleTargetRef");
    let low = int(spec, "minReplicas").map_or("<unset>".to_owned(), |n| n.to_string());
    vec![
        name(o),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        metrics(spec, status).into(),
        low.into(),
        number(spec, &["maxReplicas"]),
        number(status, &["currentReplicas"]),
        old(o, now),
    ]
}

/// `cpu: 10%/80%`, what is against what should be; at most two, then how many more.
fn metrics(spec: &Value, status: &Value) -> String {
    // The first version has one metric, under other names.
    if let Some(wanted) = int(spec, "targetCPUUtilizationPercentage") {
        let current = int(status, "currentCPUUtilizationPercentage");
        let current = current.map_or("<unknown>".to_owned(), |n| format!("{n}%"));
        return format!("cpu: {current}/{wanted}%");
    }
    let wanted = list(spec, "metrics");
    let current = list(status, "currentMetrics");
    let all: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(i, metric)| one_metric(metric, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    match all.len() {
        0 => "<none>".into(),
        1 | 2 => all.join(", "),
        n => format!("{} + {} more...", all[..2].join(", "), n - 2),
    }
}

fn one_metric(metric: &Value, current: &Value) -> String {
    let kind = text(metric, "type");
    let field = match kind {
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => return "<unknown type>".into(),
    };
    let (wanted, now) = (at(metric, field), at(current, field));
    let (target, value) = (at(wanted, "target"), at(now, "current"));
    let shown = |field: &str| match at(value, field) {
        Value::Null => "<unknown>".to_owned(),
        found => quantity(found),
    };
    let percent = |v: &Value| v.as_i64().map(|n| format!("{n}%"));
    let pair = if let Some(wanted) = percent(at(target, "averageUtilization")) {
        let now = percent(at(value, "averageUtilization"));
        format!("{}/{wanted}", now.unwrap_or_else(|| "<unknown>".into()))
    } else if has(target, "averageValue") {
        let average = if matches!(kind, "Object" | "External") {
            " (avg)"
        } else {
            ""
        };
        format!(
            "{}/{}{average}",
            shown("averageValue"),
            quantity(at(target, "averageValue"))
        )
    } else {
        format!("{}/{}", shown("value"), quantity(at(target, "value")))
    };
    match kind {
        "Resource" | "ContainerResource" => format!("{}: {pair}", text(wanted, "name")),
        _ => pair,
    }
}
