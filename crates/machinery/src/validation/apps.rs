//! Deployments, ReplicaSets, StatefulSets, DaemonSets and their kin.

use serde_json::Value;

use super::{
    Context,
    errors::{Errors, quote, show},
    names, pod,
    pod_parts::non_negative,
    selectors,
    value::{at, down, has, int, list, same, text},
};
use crate::path::Path;

/// A count or a percentage: not negative, at most `most` percent where a most is given.
pub fn count_or_percent(value: &Value, path: &Path<'_>, e: &mut Errors) {
    match value {
        Value::String(text) => e.invalid_each(path, text, names::percent(text)),
        Value::Number(n) if n.as_i64().unwrap_or(0) < 0 => {
            e.invalid(path, value, "must be greater than or equal to 0");
        }
        _ => {}
    }
}

/// Whether a count or percentage is nothing.
pub fn is_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => text
            .strip_suffix('%')
            .and_then(|n| n.parse::<i64>().ok())
            .is_some_and(|n| n == 0),
        other => other.as_i64() == Some(0),
    }
}

fn above_hundred(value: &Value, path: &Path<'_>, e: &mut Errors) {
    let percent = value
        .as_str()
        .and_then(|t| t.strip_suffix('%'))
        .and_then(|n| n.parse::<i64>().ok());
    if percent.is_some_and(|n| n > 100) {
        e.invalid(path, value, "must not be greater than 100%");
    }
}

/// The selector of a workload and the template it must match.
fn selector_and_template(cx: &Context<'_>, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    template_matches(spec, path, e);
    pod::template(cx, at(spec, "template"), &path.child("template"), e);
    // Deployments are held to the rules of the ReplicaSets they make.
    let kind = match cx.resource.kind.as_str() {
        "Deployment" => "ReplicaSet",
        kind => kind,
    };
    always(spec, kind, path, e);
}

fn selector(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let selector = at(spec, "selector");
    let here = path.child("selector");
    if selector.is_null() {
        e.required(&here, "");
        return;
    }
    selectors::label_selector(selector, &here, e);
    if selectors::is_empty(selector) {
        e.invalid(&here, selector, "empty selector is invalid for deployment");
    }
}

fn template_matches(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let labels = down(spec, &["template", "metadata", "labels"]);
    let selector = at(spec, "selector");
    let fits = !selector.is_null() && selectors::matches(selector, labels);
    let everything = has(spec, "selector") && selectors::is_empty(selector);
    if !fits && !everything {
        let template = path.child("template");
        let metadata = template.child("metadata");
        e.invalid(
            &metadata.child("labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
}

fn always(spec_of: &Value, kind: &str, path: &Path<'_>, e: &mut Errors) {
    let policy = text(down(spec_of, &["template", "spec"]), "restartPolicy");
    if policy != "Always" && matches!(policy, "OnFailure" | "Never") {
        let template = path.child("template");
        let spec = template.child("spec");
        e.not_supported(&spec.child("restartPolicy"), policy, &["Always"]);
    }
    if has(
        down(spec_of, &["template", "spec"]),
        "activeDeadlineSeconds",
    ) {
        let template = path.child("template");
        let spec = template.child("spec");
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        e.forbidden(&spec.child("activeDeadlineSeconds"), &detail);
    }
}

pub fn deployment(cx: &Context<'_>, object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    non_negative(spec, "replicas", &path, e);
    selector(spec, &path, e);
    selector_and_template(cx, spec, &path, e);
    strategy(at(spec, "strategy"), &path.child("strategy"), e);
    non_negative(spec, "minReadySeconds", &path, e);
    non_negative(spec, "revisionHistoryLimit", &path, e);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds") {
        let here = path.child("progressDeadlineSeconds");
        if deadline < 0 {
            e.invalid_int(&here, deadline, "must be greater than or equal to 0");
        }
        if deadline <= int(spec, "minReadySeconds").unwrap_or(0) {
            e.invalid_int(&here, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(strategy: &Value, path: &Path<'_>, e: &mut Errors) {
    let kind = text(strategy, "type");
    let rolling = at(strategy, "rollingUpdate");
    let here = path.child("rollingUpdate");
    match kind {
        "Recreate" => {
            if !rolling.is_null() {
                e.forbidden(
                    &here,
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => {
            if rolling.is_null() {
                e.required(&here, "this should be defaulted and never be nil");
            } else {
                rolling_update(rolling, &here, e);
            }
        }
        _ => e.not_supported(&path.child("type"), kind, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &Value, path: &Path<'_>, e: &mut Errors) {
    let (gone, more) = (at(rolling, "maxUnavailable"), at(rolling, "maxSurge"));
    let (gone_path, more_path) = (path.child("maxUnavailable"), path.child("maxSurge"));
    count_or_percent(gone, &gone_path, e);
    count_or_percent(more, &more_path, e);
    if is_nothing(gone) && is_nothing(more) {
        e.invalid(&gone_path, gone, "may not be 0 when `maxSurge` is 0");
    }
    above_hundred(gone, &gone_path, e);
}

pub fn replica_set(cx: &Context<'_>, object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    non_negative(spec, "replicas", &path, e);
    non_negative(spec, "minReadySeconds", &path, e);
    selector(spec, &path, e);
    selector_and_template(cx, spec, &path, e);
}

pub fn replication_controller(cx: &Context<'_>, object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    non_negative(spec, "minReadySeconds", &path, e);
    let selector = at(spec, "selector");
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        e.required(&path.child("selector"), "");
    }
    non_negative(spec, "replicas", &path, e);
    if !has(spec, "template") {
        e.required(&path.child("template"), "");
        return;
    }
    let labels = down(spec, &["template", "metadata", "labels"]);
    let fits = selector
        .as_object()
        .is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)));
    if !fits {
        let template = path.child("template");
        let metadata = template.child("metadata");
        e.invalid(
            &metadata.child("labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
    pod::template(cx, at(spec, "template"), &path.child("template"), e);
    always(spec, "ReplicationController", &path, e);
}

pub fn stateful_set(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    if old.is_none() {
        // Pods carry the name as a label and host name.
        let name = text(at(object, "metadata"), "name");
        if name.len() > 63 && e.is_empty() {
            let metadata = Path::new("metadata");
            e.invalid_each(&metadata.child("name"), name, [names::too_long(63)]);
        }
    }
    match text(spec, "podManagementPolicy") {
        "" => e.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        policy => e.invalid_text(
            &path.child("podManagementPolicy"),
            policy,
            "must be 'OrderedReady' or 'Parallel'",
        ),
    }
    let strategy = at(spec, "updateStrategy");
    let here = path.child("updateStrategy");
    let rolling = at(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "" => e.required(&here, ""),
        "OnDelete" => {
            if !rolling.is_null() {
                e.invalid(
                    &here.child("rollingUpdate"),
                    rolling,
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            let here = here.child("rollingUpdate");
            non_negative(rolling, "partition", &here, e);
            if has(rolling, "maxUnavailable") {
                let gone = at(rolling, "maxUnavailable");
                let here = here.child("maxUnavailable");
                count_or_percent(gone, &here, e);
                if is_nothing(gone) {
                    e.invalid(&here, gone, "cannot be 0");
                }
                above_hundred(gone, &here, e);
            }
        }
        kind => e.invalid_shown(&here, &quote(kind), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let policy = at(spec, "persistentVolumeClaimRetentionPolicy");
    let here = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let value = text(policy, field);
        if !matches!(value, "" | "Retain" | "Delete") {
            e.not_supported(&here.child(field), value, &["Retain", "Delete"]);
        }
    }
    non_negative(spec, "replicas", &path, e);
    non_negative(spec, "minReadySeconds", &path, e);
    non_negative(at(spec, "ordinals"), "start", &path.child("ordinals"), e);
    selector_of_set(spec, &path, e);
    template_matches(spec, &path, e);
    // What the pods run is looked at when they are made: only then are the volumes there that
    // claims become.
    pod::template_metadata(at(spec, "template"), &path.child("template"), e);
    always(spec, "StatefulSet", &path, e);
}

fn selector_of_set(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let selector = at(spec, "selector");
    let here = path.child("selector");
    if selector.is_null() {
        e.required(&here, "");
        return;
    }
    selectors::label_selector(selector, &here, e);
    if selectors::is_empty(selector) {
        e.invalid(&here, selector, "empty selector is invalid for statefulset");
    }
}

pub fn daemon_set(cx: &Context<'_>, object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let selector = at(spec, "selector");
    if selector.is_null() {
        e.required(&path.child("selector"), "");
    }
    selectors::label_selector(selector, &path.child("selector"), e);
    if !selector.is_null() && selectors::is_empty(selector) {
        e.invalid(
            &path.child("selector"),
            selector,
            "empty selector is invalid for daemonset",
        );
    }
    selector_and_template(cx, spec, &path, e);
    non_negative(spec, "minReadySeconds", &path, e);
    let strategy = at(spec, "updateStrategy");
    let here = path.child("updateStrategy");
    let rolling = at(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let here = here.child("rollingUpdate");
            if rolling.is_null() {
                e.required(&here, "");
            } else {
                let (gone, more) = (at(rolling, "maxUnavailable"), at(rolling, "maxSurge"));
                let gone_path = here.child("maxUnavailable");
                count_or_percent(gone, &gone_path, e);
                above_hundred(gone, &gone_path, e);
                count_or_percent(more, &here.child("maxSurge"), e);
                above_hundred(more, &here.child("maxSurge"), e);
                match (is_nothing(gone), is_nothing(more)) {
                    (true, true) => e.required(&gone_path, "cannot be 0 when maxSurge is 0"),
                    (false, false) => e.invalid(
                        &here.child("maxSurge"),
                        more,
                        "may not be set when maxUnavailable is non-zero",
                    ),
                    _ => {}
                }
            }
        }
        kind => e.not_supported_shown(
            &here,
            &format!(
                "{{\"Type\":{},\"RollingUpdate\":{}}}",
                quote(kind),
                show(rolling)
            ),
            &["RollingUpdate", "OnDelete"],
        ),
    }
    non_negative(spec, "revisionHistoryLimit", &path, e);
}

pub fn controller_revision(object: &Value, e: &mut Errors) {
    if at(object, "data").is_null() {
        e.required(&Path::new("data"), "data is mandatory");
    }
    non_negative(object, "revision", &Path::ROOT, e);
}

/// What of a StatefulSet's spec may change.
pub fn stateful_set_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let free = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = ["serviceName", "podManagementPolicy", "selector"];
    let changed = fixed.iter().any(|f| !same(at(new, f), at(old, f)))
        || !same_claims(
            list(new, "volumeClaimTemplates"),
            list(old, "volumeClaimTemplates"),
        );
    if changed {
        let free: Vec<String> = free.iter().map(|f| format!("'{f}'")).collect();
        let (most, last) = free.split_at(free.len() - 1);
        e.forbidden(
            &Path::new("spec"),
            &format!(
                "updates to statefulset spec for fields other than {} and {} are forbidden",
                most.join(", "),
                last.concat()
            ),
        );
    }
}

fn same_claims(new: &[Value], old: &[Value]) -> bool {
    let facts = |c: &Value| {
        (
            text(at(c, "metadata"), "name").to_owned(),
            down(c, &["metadata", "labels"]).clone(),
            down(c, &["metadata", "annotations"]).clone(),
            at(c, "spec").clone(),
        )
    };
    new.len() == old.len() && new.iter().zip(old).all(|(a, b)| facts(a) == facts(b))
}
