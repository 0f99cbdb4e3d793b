//! Webhook configurations.

use serde_json::Value;

use super::{
    errors::Errors,
    names, selectors,
    value::{at, has, int, list, text},
};
use crate::path::Path;

/// Mutating and validating webhook configurations; policies are checked no further.
pub fn webhooks(kind: &str, object: &Value, e: &mut Errors) {
    if !kind.ends_with("WebhookConfiguration") {
        return;
    }
    let path = Path::new("webhooks");
    let mut seen: Vec<&str> = Vec::new();
    for (i, hook) in list(object, "webhooks").iter().enumerate() {
        let path = path.index(i);
        let name = text(hook, "name");
        if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        }
        seen.push(name);
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else {
            let faults = names::dns1123_subdomain(name);
            if faults.is_empty() && name.split('.').count() < 3 {
                e.invalid_text(
                    &path.child("name"),
                    name,
                    "should be a domain with at least three segments separated by dots",
                );
            }
            e.invalid_each(&path.child("name"), name, faults);
        }
        selectors::label_selector(
            at(hook, "namespaceSelector"),
            &path.child("namespaceSelector"),
            e,
        );
        for (field, supported) in [
            ("failurePolicy", &["Fail", "Ignore"][..]),
            ("matchPolicy", &["Equivalent", "Exact"]),
        ] {
            let value = text(hook, field);
            if !value.is_empty() && !supported.contains(&value) {
                e.not_supported(&path.child(field), value, supported);
            }
        }
        let effects = text(hook, "sideEffects");
        if effects.is_empty() {
            e.required(
                &path.child("sideEffects"),
                "must specify one of None, NoneOnDryRun",
            );
        } else if !matches!(effects, "None" | "NoneOnDryRun") {
            e.not_supported(
                &path.child("sideEffects"),
                effects,
                &["None", "NoneOnDryRun"],
            );
        }
        if let Some(seconds) = int(hook, "timeoutSeconds")
            && !(1..=30).contains(&seconds)
        {
            e.invalid_int(
                &path.child("timeoutSeconds"),
                seconds,
                "the timeout value must be between 1 and 30 seconds",
            );
        }
        if list(hook, "admissionReviewVersions").is_empty() {
            e.required(
                &path.child("admissionReviewVersions"),
                "must specify one of v1, v1beta1",
            );
        }
        client(at(hook, "clientConfig"), &path.child("clientConfig"), e);
    }
}

fn client(config: &Value, path: &Path<'_>, e: &mut Errors) {
    match (has(config, "url"), has(config, "service")) {
        (true, true) | (false, false) => {
            e.required(path, "exactly one of url or service is required");
        }
        (false, true) => {
            let service = at(config, "service");
            let path = path.child("service");
            for field in ["name", "namespace"] {
                if text(service, field).is_empty() {
                    e.required(&path.child(field), &format!("service {field} is required"));
                }
            }
        }
        (true, false) => {
            let url = text(config, "url");
            if !url.starts_with("https://") {
                let scheme = url.split("://").next().unwrap_or("");
                e.invalid_text(
                    &path.child("url"),
                    scheme,
                    "'https' is the only allowed URL scheme",
                );
            }
        }
    }
}
