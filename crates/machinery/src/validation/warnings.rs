//! What is allowed but probably not meant: texts for `Warning` headers.

use serde_json::Value;

use super::{
    pod_parts::hidden_variables,
    value::{at, down, entries, list, text},
};
use crate::{path::Path, resource::Resource};

/// Warnings about an object that was created or replaced.
pub fn warnings(resource: &Resource, object: &Value) -> Vec<String> {
    let (spec, prefix): (&Value, &[&str]) = match (resource.group.as_str(), resource.kind.as_str())
    {
        ("", "Pod") => (down(object, &["spec"]), &["spec"]),
        ("", "PodTemplate") => (down(object, &["template", "spec"]), &["template", "spec"]),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => (
            down(object, &["spec", "template", "spec"]),
            &["spec", "template", "spec"],
        ),
        ("batch", "CronJob") => (
            down(object, &["spec", "jobTemplate", "spec", "template", "spec"]),
            &["spec", "jobTemplate", "spec", "template", "spec"],
        ),
        _ => return Vec::new(),
    };
    let mut out = Vec::new();
    if spec.is_object() {
        let prefix = prefix.join(".");
        pod_spec(spec, &Path::new(&prefix), &mut out);
    }
    out
}

fn pod_spec(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    for name in ["initContainers", "containers"] {
        let here = path.child(name);
        for (i, container) in list(spec, name).iter().enumerate() {
            let path = here.index(i);
            variables(container, &path, out);
            ports(container, &path, out);
            fractions(container, &path, out);
        }
    }
}

/// Bytes come whole: a fraction of one is a mistyped `M`.
fn fractions(container: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let path = path.child("resources");
    for kind in ["limits", "requests"] {
        let path = path.child(kind);
        for (name, value) in entries(at(container, "resources"), kind) {
            let value = value.as_str().unwrap_or("");
            if matches!(name, "memory" | "ephemeral-storage") && value.ends_with('m') {
                out.push(format!(
                    "{}: fractional byte value \"{value}\" is invalid, must be an integer",
                    path.key(name)
                ));
            }
        }
    }
}

fn variables(container: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let env = path.child("env");
    for (i, name) in hidden_variables(container) {
        out.push(format!(
            "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
            env.index(i)
        ));
    }
}

fn ports(container: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let here = path.child("ports");
    let all = list(container, "ports");
    let key = |p: &Value| {
        (
            p.get("containerPort").cloned(),
            text(p, "protocol").to_owned(),
            p.get("hostIP").cloned(),
            p.get("hostPort").cloned(),
        )
    };
    for (i, port) in all.iter().enumerate() {
        if let Some(first) = all[..i].iter().position(|p| key(p) == key(port)) {
            out.push(format!(
                "{}: duplicate port definition with {}",
                here.index(i),
                here.index(first)
            ));
        }
    }
}
