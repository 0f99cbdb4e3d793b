//! What is done in or to a container at certain moments: lifecycle hooks and probes.

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    pod_parts::non_negative,
    value::{at, has, int, list, text},
};
use crate::path::Path;

pub fn lifecycle(container: &Value, grace: Option<i64>, path: &Path<'_>, e: &mut Errors) {
    let hooks = at(container, "lifecycle");
    let path = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if has(hooks, hook) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(at(hooks, hook), &kinds, grace, &path.child(hook), e);
        }
    }
}

/// Exactly one action of those there may be.
fn handler(handler: &Value, kinds: &[&str], grace: Option<i64>, path: &Path<'_>, e: &mut Errors) {
    let mut count = 0;
    for kind in kinds {
        if !has(handler, kind) {
            continue;
        }
        let action = at(handler, kind);
        let path = path.child(kind);
        if count > 0 {
            e.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        count += 1;
        match *kind {
            "exec" if list(action, "command").is_empty() => {
                e.required(&path.child("command"), "");
            }
            "httpGet" => http(action, &path, e),
            "tcpSocket" | "grpc" => port_or_name(at(action, "port"), &path.child("port"), e),
            "sleep" => {
                let seconds = int(action, "seconds").unwrap_or(0);
                if let Some(grace) = grace
                    && !(0..=grace).contains(&seconds)
                {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    );
                    e.invalid_int(&path, seconds, &detail);
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        e.required(path, "must specify a handler type");
    }
}

fn http(action: &Value, path: &Path<'_>, e: &mut Errors) {
    if text(action, "path").is_empty() {
        e.required(&path.child("path"), "");
    }
    port_or_name(at(action, "port"), &path.child("port"), e);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        e.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    let here = path.child("httpHeaders");
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        e.invalid_each(&here, name, names::header_name(name));
    }
}

/// A port by number or by a container port's name.
pub fn port_or_name(port: &Value, path: &Path<'_>, e: &mut Errors) {
    match port {
        Value::String(name) => e.invalid_each(path, name, names::port_name(name)),
        number => {
            let number = number.as_i64().unwrap_or(0);
            for fault in names::port(number) {
                e.invalid_int(path, number, &fault);
            }
        }
    }
}

pub fn probes(container: &Value, path: &Path<'_>, e: &mut Errors) {
    for (field, once) in [
        ("livenessProbe", true),
        ("readinessProbe", false),
        ("startupProbe", true),
    ] {
        if !has(container, field) {
            continue;
        }
        let probe = at(container, field);
        let path = path.child(field);
        let kinds = ["exec", "httpGet", "tcpSocket", "grpc"];
        handler(probe, &kinds, None, &path, e);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            non_negative(probe, field, &path, e);
        }
        if let Some(seconds) = int(probe, "terminationGracePeriodSeconds") {
            let path = path.child("terminationGracePeriodSeconds");
            if seconds <= 0 {
                e.invalid_int(&path, seconds, "must be greater than 0");
            }
            if !once {
                e.invalid_int(&path, seconds, "must not be set for readinessProbes");
            }
        }
        let threshold = int(probe, "successThreshold").unwrap_or(1);
        if once && threshold != 1 {
            e.invalid_int(&path.child("successThreshold"), threshold, "must be 1");
        }
    }
}
