//! Computed defaults of jobs.

use serde_json::{Map, Value};

use super::{Compute, set};

pub const COMPUTED: &[(&str, Compute)] = &[("batch.v1.Job", job)];

type Object = Map<String, Value>;

fn job(job: &mut Object) {
    let labels = job
        .get("spec")
        .and_then(|s| s.get("template"))
        .and_then(|t| t.get("metadata"))
        .and_then(|m| m.get("labels"))
        .cloned();
    if let Some(Value::Object(spec)) = job.get_mut("spec") {
        sizes(spec);
    }
    if let (Some(labels), Some(Value::Object(metadata))) = (labels, job.get_mut("metadata")) {
        set(metadata, "labels", labels);
    }
}

/// Of jobs alone, not of a CronJob's template, whose defaults come when a job is made of it.
fn sizes(spec: &mut Object) {
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        set(spec, "completions", 1);
        set(spec, "parallelism", 1);
    }
    set(spec, "parallelism", 1);
    if !spec.contains_key("backoffLimit") {
        let unlimited = spec.contains_key("backoffLimitPerIndex");
        let limit = if unlimited { i32::MAX } else { 6 };
        spec.insert("backoffLimit".into(), limit.into());
    }
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    if !spec.contains_key("podReplacementPolicy") {
        let policy = if spec.contains_key("podFailurePolicy") {
            "Failed"
        } else {
            "TerminatingOrFailed"
        };
        spec.insert("podReplacementPolicy".into(), policy.into());
    }
}
