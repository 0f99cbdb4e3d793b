//! Jobs and CronJobs.

use serde_json::Value;

use super::{
    Context, cron,
    errors::{Errors, show},
    names, pod,
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
    completions(spec, indexed, path, e);
    if let Some(manager) = at(spec, "managedBy").as_str() {
        let here = path.child("managedBy");
        let before = e.len();
        e.invalid_each(&here, manager, names::qualified_path(manager));
        if e.len() == before && manager.len() > 63 {
            e.too_long(&here, 63);
        }
    }
    match text(spec, "podReplacementPolicy") {
        "" | "TerminatingOrFailed" | "Failed" => {}
        policy => e.not_supported(
            &path.child("podReplacementPolicy"),
            policy,
            &["Failed", "TerminatingOrFailed"],
        ),
    }
    if has(spec, "podFailurePolicy") && text(spec, "podReplacementPolicy") == "TerminatingOrFailed"
    {
        e.not_supported(
            &path.child("podReplacementPolicy"),
            "TerminatingOrFailed",
            &["Failed"],
        );
    }
    failure_policy(spec, &path.child("podFailurePolicy"), e);
    success_policy(spec, indexed, &path.child("successPolicy"), e);
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

const INDEXES_MOST: i64 = 100_000;
const COMPLETIONS_MOST: i64 = 100_000;
const PARALLEL_MOST: i64 = 10_000;

/// How many pods in all and at once, and how often they may fail by index.
fn completions(spec: &Value, indexed: bool, path: &Path<'_>, e: &mut Errors) {
    let number = |field| int(spec, field);
    let (all, failed) = (number("completions"), number("maxFailedIndexes"));
    let by_index = number("backoffLimitPerIndex");
    if !indexed {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(n) = number(field) {
                e.invalid_int(&path.child(field), n, "requires indexed completion mode");
            }
        }
    } else {
        if all.is_none() {
            let detail = "when completion mode is Indexed";
            e.required(&path.child("completions"), detail);
        }
        let parallel = number("parallelism").unwrap_or(0);
        if parallel > INDEXES_MOST {
            let detail = format!(
                "must be less than or equal to {INDEXES_MOST} when completion mode is Indexed"
            );
            e.invalid_int(&path.child("parallelism"), parallel, &detail);
        }
        if let (Some(failed), Some(all)) = (failed, all)
            && failed > all
        {
            let detail = "must be less than or equal to completions";
            e.invalid_int(&path.child("maxFailedIndexes"), failed, detail);
        }
        if failed.is_some_and(|f| f > INDEXES_MOST) {
            let detail = format!("must be less than or equal to {INDEXES_MOST}");
            e.invalid_int(
                &path.child("maxFailedIndexes"),
                failed.unwrap_or(0),
                &detail,
            );
        }
        if all.is_some_and(|a| a > COMPLETIONS_MOST) && by_index.is_some() {
            match failed {
                None => e.required(
                    &path.child("maxFailedIndexes"),
                    &format!("must be specified when completions is above {COMPLETIONS_MOST}"),
                ),
                Some(failed) => {
                    if parallel > PARALLEL_MOST {
                        let detail = format!(
                            "must be less than or equal to {PARALLEL_MOST} when completions are above {COMPLETIONS_MOST} and used with backoff limit per index"
                        );
                        e.invalid_int(&path.child("parallelism"), parallel, &detail);
                    }
                    if failed > PARALLEL_MOST {
                        let detail = format!(
                            "must be less than or equal to {PARALLEL_MOST} when completions are above {COMPLETIONS_MOST} and used with backoff limit per index"
                        );
                        e.invalid_int(&path.child("maxFailedIndexes"), failed, &detail);
                    }
                }
            }
        }
    }
    if failed.is_some() && by_index.is_none() {
        let detail = "when maxFailedIndexes is specified";
        e.required(&path.child("backoffLimitPerIndex"), detail);
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
        let known = ["Count", "FailIndex", "FailJob", "Ignore"];
        match action {
            "" => e.required(
                &path.child("action"),
                "valid values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            ),
            "FailIndex" if !has(spec, "backoffLimitPerIndex") => e.invalid_text(
                &path.child("action"),
                action,
                "requires the backoffLimitPerIndex to be set",
            ),
            _ if known.contains(&action) => {}
            _ => e.not_supported(&path.child("action"), action, &known),
        }
        let codes = has(rule, "onExitCodes");
        let conditions = list(rule, "onPodConditions");
        if codes {
            exit_codes(spec, at(rule, "onExitCodes"), &path.child("onExitCodes"), e);
        }
        let here = path.child("onPodConditions");
        if conditions.len() > 20 {
            e.too_many(&here, conditions.len(), 20);
        }
        for (i, condition) in conditions.iter().enumerate() {
            let here = here.index(i);
            let kind = text(condition, "type");
            e.invalid_each(&here.child("type"), kind, names::qualified_name(kind));
            match text(condition, "status") {
                "" => e.required(
                    &here.child("status"),
                    "valid values: \"False\", \"True\", \"Unknown\"",
                ),
                "False" | "True" | "Unknown" => {}
                status => {
                    e.not_supported(&here.child("status"), status, &["False", "True", "Unknown"])
                }
            }
        }
        match (codes, !conditions.is_empty()) {
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

/// When enough indexes have succeeded.
fn success_policy(spec: &Value, indexed: bool, path: &Path<'_>, e: &mut Errors) {
    let policy = at(spec, "successPolicy");
    if policy.is_null() {
        return;
    }
    if !indexed {
        e.invalid(path, policy, "requires indexed completion mode");
        return;
    }
    let here = path.child("rules");
    let rules = list(policy, "rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        e.required(&here, detail);
    }
    if rules.len() > 20 {
        e.too_many(&here, rules.len(), 20);
    }
    let completions = int(spec, "completions").unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        let here = here.index(i);
        let (count, indexes) = (
            int(rule, "succeededCount"),
            at(rule, "succeededIndexes").as_str(),
        );
        if count.is_none() && indexes.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            e.required(&here, detail);
        }
        let mut total = completions;
        if let Some(indexes) = indexes {
            let here = here.child("succeededIndexes");
            if indexes.len() > 64 * 1024 {
                e.too_long(&here, 64 * 1024);
            }
            match index_count(indexes, completions) {
                Ok(n) => total = n,
                Err(fault) => {
                    let detail = format!("error parsing succeededIndexes: {fault}");
                    e.invalid_text(&here, indexes, &detail);
                }
            }
        }
        if let Some(count) = count {
            let path = here.child("succeededCount");
            if count < 0 {
                e.invalid_int(&path, count, "must be greater than or equal to 0");
            }
            if count > completions {
                let detail = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                e.invalid_int(&path, count, &detail);
            }
            if indexes.is_some() && count > total {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                e.invalid_int(&path, count, &detail);
            }
        }
    }
}

/// How many indexes a text such as `1,3-5` names: in order, below the number of completions.
fn index_count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let mut last = -1;
    let mut total = 0;
    for interval in text.split(',') {
        let parts: Vec<&str> = interval.split('-').collect();
        if parts.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |part: &str| {
            part.parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: {part:?}"))
        };
        let first = number(parts.first().copied().unwrap_or(""))?;
        let end = parts.get(1).map_or(Ok(first), |p| number(p))?;
        for index in [first, end] {
            if index >= completions {
                return Err(format!("too large index: {:?}", index.to_string()));
            }
        }
        if first <= last {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {first}"
            ));
        }
        if parts.len() == 2 && end <= first {
            return Err(format!(
                "non-increasing order, previous: {first}, current: {end}"
            ));
        }
        total += end - first + 1;
        last = end;
    }
    Ok(total)
}

fn exit_codes(spec: &Value, codes: &Value, path: &Path<'_>, e: &mut Errors) {
    let operator = text(codes, "operator");
    match operator {
        "In" | "NotIn" => {}
        "" => e.required(&path.child("operator"), "valid values: \"In\", \"NotIn\""),
        _ => e.not_supported(&path.child("operator"), operator, &["In", "NotIn"]),
    }
    if let Some(name) = at(codes, "containerName").as_str() {
        let pod = down(spec, &["template", "spec"]);
        let known = |kind: &&str| list(pod, kind).iter().any(|c| text(c, "name") == name);
        if !["containers", "initContainers"].iter().any(known) {
            let detail = "must be one of the container or initContainer names in the pod template";
            e.invalid_text(&path.child("containerName"), name, detail);
        }
    }
    let values = list(codes, "values");
    let here = path.child("values");
    if values.is_empty() {
        e.invalid_shown(&here, "[]", "at least one value is required");
    }
    if values.len() > 255 {
        e.too_many(&here, values.len(), 255);
    }
    for (i, code) in values.iter().enumerate() {
        if operator == "In" && code.as_i64() == Some(0) {
            e.invalid(&here.index(i), code, "must not be 0 for the In operator");
        }
        if values[..i].contains(code) {
            e.duplicate(&here.index(i), code);
        }
        if values[..i].iter().any(|v| v.as_i64() > code.as_i64()) && !values[..i].contains(code) {
            // Reported once, at the first that is out of order.
            let sorted = values[..i]
                .windows(2)
                .all(|w| w[0].as_i64() <= w[1].as_i64());
            if sorted {
                e.invalid(&here, at(codes, "values"), "must be ordered");
            }
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
    if has(job, "selector") {
        let here = here.child("selector");
        e.invalid(
            &here,
            at(job, "selector"),
            "`selector` will be auto-generated",
        );
    }
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
    let completions = at(new, "completions");
    if !same(completions, at(old, "completions")) {
        let here = path.child("completions");
        // A Job of numbered pods may grow and shrink, as long as all of them run at once. (That it
        // has a number of completions is said elsewhere.)
        if text(new, "completionMode") != "Indexed" {
            e.invalid(&here, completions, IMMUTABLE);
        } else if !completions.is_null() && int(new, "completions") != int(new, "parallelism") {
            let detail = "can only be modified in tandem with spec.parallelism";
            e.invalid(&here, completions, detail);
        }
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
        "successPolicy",
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
