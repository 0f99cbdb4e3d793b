//! Jobs and CronJobs.

use serde_json::Value;

use super::{
    Context, cron,
    errors::{Errors, show},
    pod,
    pod_parts::non_negative,
    selectors,
    value::{at, down, flag, has, int, list, same, text},
};
use crate::path::Path;

pub fn job(cx: &Context<'_>, object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    if old.is_none() && !flag(spec, "manualSelector") && has(spec, "selector") {
        // The server makes the selector of the job's uid; one that says more was given.
        let made = at(spec, "selector");
        let labels = at(made, "matchLabels").as_object();
        let uid = down(object, &["metadata", "uid"]);
        let own = labels.is_some_and(|l| {
            l.len() == 1
                && l.keys()
                    .all(|k| k == "batch.kubernetes.io/controller-uid" || k == "controller-uid")
                && (uid.is_null() || l.values().all(|v| v == uid))
        });
        if !own || !list(made, "matchExpressions").is_empty() {
            e.invalid_shown(
                &path.child("selector"),
                &show(made),
                "`selector` not auto-generated",
            );
        }
    }
    job_spec(cx, spec, &path, e);
}

fn job_spec(cx: &Context<'_>, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(spec, field, path, e);
    }
    let indexed = text(spec, "completionMode") == "Indexed";
    match text(spec, "completionMode") {
        "" | "NonIndexed" | "Indexed" => {}
        mode => e.not_supported(
            &path.child("completionMode"),
            mode,
            &["Indexed", "NonIndexed"],
        ),
    }
    if indexed {
        if !has(spec, "completions") {
            e.required(
                &path.child("completions"),
                "when completion mode is Indexed",
            );
        }
        let parallelism = int(spec, "parallelism").unwrap_or(0);
        if parallelism > 100_000 && int(spec, "completions").is_some_and(|c| c > 100_000) {
            e.invalid_int(
                &path.child("parallelism"),
                parallelism,
                "must be less than or equal to 100000 when completion mode is Indexed",
            );
        }
    } else if has(spec, "backoffLimitPerIndex") {
        e.invalid(
            &path.child("backoffLimitPerIndex"),
            at(spec, "backoffLimitPerIndex"),
            "requires indexed completion mode",
        );
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        e.required(
            &path.child("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        );
    }
    match text(spec, "podReplacementPolicy") {
        "" | "TerminatingOrFailed" | "Failed" => {}
        policy => e.not_supported(
            &path.child("podReplacementPolicy"),
            policy,
            &["Failed", "TerminatingOrFailed"],
        ),
    }
    failure_policy(spec, &path.child("podFailurePolicy"), e);
    selectors::label_selector(at(spec, "selector"), &path.child("selector"), e);
    let template = path.child("template");
    let labels = down(spec, &["template", "metadata", "labels"]);
    if has(spec, "selector") && !selectors::matches(at(spec, "selector"), labels) {
        let metadata = template.child("metadata");
        e.invalid(
            &metadata.child("labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
    pod::template(cx, at(spec, "template"), &template, e);
    let pod = template.child("spec");
    let policy = text(down(spec, &["template", "spec"]), "restartPolicy");
    match policy {
        "Always" | "" => e.required(
            &pod.child("restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        ),
        "OnFailure" if has(spec, "podFailurePolicy") => e.invalid_text(
            &pod.child("restartPolicy"),
            policy,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        "OnFailure" | "Never" => {}
        _ => e.not_supported(&pod.child("restartPolicy"), policy, &["OnFailure", "Never"]),
    }
}

fn failure_policy(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let rules = path.child("rules");
    let policy = at(spec, "podFailurePolicy");
    if list(policy, "rules").len() > 20 {
        e.too_many(&rules, list(policy, "rules").len(), 20);
    }
    for (i, rule) in list(policy, "rules").iter().enumerate() {
        let path = rules.index(i);
        let action = text(rule, "action");
        match action {
            "" => e.required(
                &path.child("action"),
                "valid values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            ),
            "Count" | "FailIndex" | "FailJob" | "Ignore" => {}
            _ => e.not_supported(
                &path.child("action"),
                action,
                &["Count", "FailIndex", "FailJob", "Ignore"],
            ),
        }
        let codes = has(rule, "onExitCodes");
        let conditions = !list(rule, "onPodConditions").is_empty();
        if codes {
            exit_codes(at(rule, "onExitCodes"), &path.child("onExitCodes"), e);
        }
        match (codes, conditions) {
            (true, true) => e.invalid_shown(
                &path,
                "specifying both OnExitCodes and OnPodConditions is not supported",
                "",
            ),
            (false, false) => e.invalid_shown(
                &path,
                "specifying one of OnExitCodes and OnPodConditions is required",
                "",
            ),
            _ => {}
        }
    }
}

fn exit_codes(codes: &Value, path: &Path<'_>, e: &mut Errors) {
    let operator = text(codes, "operator");
    match operator {
        "In" | "NotIn" => {}
        "" => e.required(&path.child("operator"), "valid values: \"In\", \"NotIn\""),
        _ => e.not_supported(&path.child("operator"), operator, &["In", "NotIn"]),
    }
    let values = list(codes, "values");
    let here = path.child("values");
    if values.is_empty() {
        e.invalid_shown(&here, "[]", "at least one value is required");
    }
    for (i, code) in values.iter().enumerate() {
        if operator == "In" && code.as_i64() == Some(0) {
            e.invalid(&here.index(i), code, "must not be 0 for the In operator");
        }
        if values[..i].contains(code) {
            e.duplicate(&here.index(i), code);
        }
    }
}

pub fn cron_job(cx: &Context<'_>, object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let name = text(at(object, "metadata"), "name");
    if name.len() > 52 {
        // A job's name is this one and eleven more.
        let metadata = Path::new("metadata");
        e.invalid_text(
            &metadata.child("name"),
            name,
            "must be no more than 52 characters",
        );
    }
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        e.required(&path.child("schedule"), "");
    } else {
        let unchanged = old.is_some_and(|o| text(at(o, "spec"), "schedule") == schedule);
        if let Err(fault) = cron::Schedule::parse(schedule)
            && !unchanged
        {
            e.invalid_text(&path.child("schedule"), schedule, &fault);
        }
        let zoned = schedule.contains("TZ");
        if zoned && old.is_none() {
            e.invalid_text(
                &path.child("schedule"),
                schedule,
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            );
        }
    }
    if let Some(zone) = at(spec, "timeZone").as_str() {
        time_zone(zone, &path.child("timeZone"), e);
    }
    non_negative(spec, "startingDeadlineSeconds", &path, e);
    match text(spec, "concurrencyPolicy") {
        "Allow" | "Forbid" | "Replace" => {}
        "" => e.required(&path.child("concurrencyPolicy"), ""),
        policy => e.not_supported(
            &path.child("concurrencyPolicy"),
            policy,
            &["Allow", "Forbid", "Replace"],
        ),
    }
    non_negative(spec, "successfulJobsHistoryLimit", &path, e);
    non_negative(spec, "failedJobsHistoryLimit", &path, e);
    let template = path.child("jobTemplate");
    let job = down(spec, &["jobTemplate", "spec"]);
    let here = template.child("spec");
    if flag(job, "manualSelector") {
        e.not_supported_shown(&here.child("manualSelector"), "true", &["nil", "false"]);
    }
    job_spec(cx, job, &here, e);
}

fn time_zone(zone: &str, path: &Path<'_>, e: &mut Errors) {
    if zone.is_empty() {
        e.invalid_text(path, zone, "timeZone must be nil or non-empty string");
        return;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'_' | b'.');
    let well_formed = zone
        .split('/')
        .all(|part| !part.is_empty() && part.bytes().all(plain) && part != "." && part != "..");
    let known =
        !zone.eq_ignore_ascii_case("local") && well_formed && jiff::tz::TimeZone::get(zone).is_ok();
    if !known {
        e.invalid_text(path, zone, &format!("unknown time zone {zone}"));
    }
}

/// What of a job may not change once it is there.
pub fn job_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    let elastic = text(new, "completionMode") == "Indexed"
        && int(new, "completions") == int(new, "parallelism");
    if !elastic && !same(at(new, "completions"), at(old, "completions")) {
        e.invalid(
            &path.child("completions"),
            at(new, "completions"),
            IMMUTABLE,
        );
    }
    if !same(at(new, "selector"), at(old, "selector")) {
        e.invalid(&path.child("selector"), at(new, "selector"), IMMUTABLE);
    }
    let suspended = flag(old, "suspend");
    if !same_template(at(new, "template"), at(old, "template"), suspended) {
        e.invalid(&path.child("template"), at(new, "template"), IMMUTABLE);
    }
    for field in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
    ] {
        if !same(at(new, field), at(old, field)) {
            e.invalid(&path.child(field), at(new, field), IMMUTABLE);
        }
    }
}

const IMMUTABLE: &str = "field is immutable";

/// A suspended job's scheduling directives may still change.
fn same_template(new: &Value, old: &Value, suspended: bool) -> bool {
    if !suspended {
        return new == old;
    }
    let strip = |template: &Value| {
        let mut template = template.clone();
        if let Some(Value::Object(metadata)) = template.get_mut("metadata") {
            metadata.remove("labels");
            metadata.remove("annotations");
        }
        if let Some(Value::Object(spec)) = template.get_mut("spec") {
            for field in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                spec.remove(field);
            }
            for list in ["containers", "initContainers"] {
                let containers = spec.get_mut(list).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    if let Value::Object(container) = container {
                        container.remove("resources");
                    }
                }
            }
        }
        template
    };
    strip(new) == strip(old)
}
