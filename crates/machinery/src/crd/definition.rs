//! Rules for CustomResourceDefinitions themselves.

use serde_json::{Value, json};

use super::{
    causes::{forbidden, invalid, not_supported, required},
    structural::text,
    versions::versions,
};
use crate::{
    path::Path,
    status::Cause,
    validation::{Errors, admission},
};

const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const DNS_1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const APPROVED: &str = "api-approved.kubernetes.io";
/// Fills in what a definition may leave out: the singular name, the list's kind, the conversion
/// strategy. Comes before [`validate_definition`].
pub fn set_defaults(crd: &mut Value) {
    let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        for (name, value) in [
            ("singular", kind.to_lowercase()),
            ("listKind", format!("{kind}List")),
        ] {
            let given = names.get(name).and_then(Value::as_str).unwrap_or("");
            if given.is_empty() && !kind.is_empty() {
                names.insert(name.to_owned(), Value::from(value));
            }
        }
    }
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
}

/// All faults of a definition (after [`set_defaults`]), `old` being what it was before an update.
///
/// CEL rules are stored and not yet evaluated, so they are not compiled here either: a definition
/// with a wrong rule is accepted.
///
/// Fields are named as Kubernetes names them: what is the same in all versions stands at the top
/// (`spec.validation`, `spec.subresources`, `spec.additionalPrinterColumns`).
pub fn validate_definition(crd: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut faults = Vec::new();
    let empty = Value::Null;
    let spec = crd.get("spec").unwrap_or(&empty);
    let names = spec.get("names").unwrap_or(&empty);
    let name = crd
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or("");
    let group = text(spec, "group");
    if name != format!("{}.{group}", text(names, "plural")) {
        faults.push(invalid(
            "metadata.name",
            &Value::from(name),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    approval(crd, group, old.is_none(), &mut faults);
    if group.is_empty() {
        faults.push(required("spec.group", ""));
    } else if !group.split('.').all(is_dns_1123) {
        faults.push(invalid(
            "spec.group",
            &Value::from(group),
            DNS_1123_SUBDOMAIN,
        ));
    } else if !group.contains('.') {
        faults.push(invalid(
            "spec.group",
            &Value::from(group),
            "should be a domain with at least one dot",
        ));
    }
    one_of(
        spec,
        "spec.scope",
        "scope",
        &["Cluster", "Namespaced"],
        &mut faults,
    );
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(true)) {
        faults.push(invalid(
            "spec.preserveUnknownFields",
            &Value::Bool(true),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    versions(spec, &mut faults);
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(names, field).is_empty() {
            faults.push(required(&format!("spec.names.{field}"), ""));
        }
    }
    spec_names(names, &mut faults);
    conversion(spec, &mut faults);
    stored_versions(crd, spec, &mut faults);
    if let Some(old) = old {
        immutable(crd, old, &mut faults);
    }
    faults
}

fn is_dns_1123(label: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    end(label.chars().next())
        && end(label.chars().last())
        && label
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub(super) fn dns_1035_fault(label: &str) -> Option<String> {
    let mut faults = Vec::new();
    if label.len() > 63 {
        faults.push("must be no more than 63 bytes");
    }
    if !is_dns_1123(label) || !label.starts_with(|c: char| c.is_ascii_lowercase()) {
        faults.push(DNS_1035);
    }
    (!faults.is_empty()).then(|| faults.join(","))
}

/// Groups of the Kubernetes project need its consent.
fn approval(crd: &Value, group: &str, create: bool, faults: &mut Vec<Cause>) {
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|g| group == *g || group.ends_with(&format!(".{g}")));
    if !protected || !create {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    let approved = crd
        .pointer("/metadata/annotations")
        .map_or("", |a| text(a, APPROVED));
    let reason = format!(
        "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
    );
    if approved.is_empty() {
        faults.push(required(&field, &reason));
    } else if !approved.starts_with("https://") && !approved.starts_with("unapproved") {
        faults.push(invalid(&field, &Value::from(approved), &reason));
    }
}

fn one_of(owner: &Value, field: &str, name: &str, accepted: &[&str], faults: &mut Vec<Cause>) {
    let value = text(owner, name);
    if value.is_empty() {
        faults.push(required(field, ""));
    } else if !accepted.contains(&value) {
        let accepted: Vec<String> = accepted.iter().map(|a| (*a).to_owned()).collect();
        faults.push(not_supported(field, &Value::from(value), &accepted));
    }
}

fn spec_names(names: &Value, faults: &mut Vec<Cause>) {
    let mut label = |field: String, value: &str, mixed: bool| {
        if value.is_empty() {
            return;
        }
        let checked = if mixed {
            value.to_lowercase()
        } else {
            value.to_owned()
        };
        if let Some(fault) = dns_1035_fault(&checked) {
            let prefix = if mixed {
                "may have mixed case, but should otherwise match: "
            } else {
                ""
            };
            faults.push(invalid(
                &field,
                &Value::from(value),
                &format!("{prefix}{fault}"),
            ));
        }
    };
    label("spec.names.plural".to_owned(), text(names, "plural"), false);
    label(
        "spec.names.singular".to_owned(),
        text(names, "singular"),
        false,
    );
    label("spec.names.kind".to_owned(), text(names, "kind"), true);
    label(
        "spec.names.listKind".to_owned(),
        text(names, "listKind"),
        true,
    );
    for field in ["shortNames", "categories"] {
        let list = names.get(field).and_then(Value::as_array);
        for (i, value) in list.into_iter().flatten().enumerate() {
            label(
                format!("spec.names.{field}[{i}]"),
                value.as_str().unwrap_or(""),
                false,
            );
        }
    }
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        faults.push(invalid(
            "spec.names.listKind",
            &Value::from(kind),
            "kind and listKind may not be the same",
        ));
    }
}

fn conversion(spec: &Value, faults: &mut Vec<Cause>) {
    let Some(conversion) = spec.get("conversion").filter(|c| !c.is_null()) else {
        return;
    };
    one_of(
        conversion,
        "spec.conversion.strategy",
        "strategy",
        &["None", "Webhook"],
        faults,
    );
    let webhook = conversion.get("webhook").filter(|w| !w.is_null());
    match (text(conversion, "strategy"), webhook) {
        ("Webhook", None) => faults.push(required(
            "spec.conversion.webhookClientConfig",
            "required when strategy is set to Webhook",
        )),
        ("Webhook", Some(webhook)) => {
            let mut errors = Errors::default();
            let spec = Path::new("spec");
            admission::conversion(webhook, &spec.child("conversion"), &mut errors);
            faults.extend(errors.into_causes());
        }
        ("None", Some(_)) => faults.push(forbidden(
            "spec.conversion.webhookClientConfig",
            "should not be set when strategy is not set to Webhook",
        )),
        _ => {}
    }
}

fn stored_versions(crd: &Value, spec: &Value, faults: &mut Vec<Cause>) {
    let versions: Vec<&Value> = spec
        .get("versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let storage = versions.iter().find(|v| v["storage"] == true);
    // A create starts with the storage version; without one there is nothing to start with.
    let stored = crd
        .pointer("/status/storedVersions")
        .and_then(Value::as_array);
    let Some(stored) = stored.filter(|s| !s.is_empty()) else {
        if storage.is_none() {
            faults.push(invalid(
                "status.storedVersions",
                &Value::Null,
                "must have at least one stored version",
            ));
        }
        return;
    };
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|v| v.get("name") == Some(name)) {
            let shown = name.as_str().unwrap_or("");
            faults.push(invalid(
                &format!("status.storedVersions[{i}]"),
                name,
                &format!(
                    "missing from spec.versions; {shown} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {shown} and removes {shown} from status.storedVersions"
                ),
            ));
        }
    }
}

fn immutable(crd: &Value, old: &Value, faults: &mut Vec<Cause>) {
    let established = old
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .is_some_and(|c| {
            c.iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
        });
    for (path, field, always) in [
        ("/spec/scope", "spec.scope", false),
        ("/spec/names/kind", "spec.names.kind", false),
        ("/spec/group", "spec.group", true),
        ("/spec/names/plural", "spec.names.plural", true),
    ] {
        let (new, old) = (crd.pointer(path), old.pointer(path));
        if (always || established) && new != old {
            faults.push(invalid(
                field,
                new.unwrap_or(&Value::Null),
                "field is immutable",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        let mut crd = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}});
        set_defaults(&mut crd);
        crd
    }

    #[test]
    fn defaults() {
        let crd = good();
        assert_eq!(crd["spec"]["names"]["singular"], "widget");
        assert_eq!(crd["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(crd["spec"]["conversion"]["strategy"], "None");
        assert_eq!(validate_definition(&crd, None), []);
    }

    #[test]
    fn one_fault_each() {
        let schema = "/spec/versions/0/schema/openAPIV3Schema";
        let size = format!("{schema}/properties/spec/properties/size");
        for (path, value, field, message) in [
            (
                "/metadata/name",
                json!("x"),
                "metadata.name",
                "Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
            ),
            (
                "/spec/scope",
                json!("Galaxy"),
                "spec.scope",
                "Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
            ),
            (
                "/spec/names/kind",
                json!("WidgetList"),
                "spec.names.listKind",
                "Invalid value: \"WidgetList\": kind and listKind may not be the same",
            ),
            (
                "/spec/conversion/strategy",
                json!("Magic"),
                "spec.conversion.strategy",
                "Unsupported value: \"Magic\": supported values: \"None\", \"Webhook\"",
            ),
            (
                &size,
                json!({"type": "thing"}),
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].type",
                "Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ),
            (
                &size,
                json!({"type": "integer", "default": "x"}),
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].default",
                "Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ),
            (
                &size,
                json!({"type": "string", "pattern": "("}),
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].pattern",
                "",
            ),
            (
                &size,
                json!({"type": "string", "oneOf": [{"type": "string"}]}),
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].oneOf[0].type",
                "Forbidden: must be empty to be structural",
            ),
            (
                &size,
                json!({"type": "object", "anyOf": [{"properties": {"q": {"minimum": 1}}}]}),
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].properties[q]",
                "Required value: because it is defined in spec.validation.openAPIV3Schema.properties[spec].properties[size].anyOf[0].properties[q]",
            ),
            (
                &size,
                json!({"type": "array"}),
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].items",
                "Required value: must be specified",
            ),
        ] {
            let mut crd = good();
            *crd.pointer_mut(path).unwrap() = value;
            let faults = validate_definition(&crd, None);
            assert_eq!(faults.len(), 1, "{path}: {faults:?}");
            assert_eq!(faults[0].field, field);
            assert!(
                message.is_empty() || faults[0].message == message,
                "{}",
                faults[0].message
            );
        }
    }

    #[test]
    fn selectable_fields() {
        let mut crd = good();
        crd["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.size"}]);
        assert_eq!(validate_definition(&crd, None), []);
        for (path, message) in [
            (".metadata.name", "must not point to fields in metadata"),
            (
                ".spec",
                "must point to a field of type string, boolean or integer",
            ),
            (".spec.nope", "is an invalid path"),
            ("spec.size", "is an invalid path"),
        ] {
            crd["spec"]["versions"][0]["selectableFields"][0]["jsonPath"] = json!(path);
            let faults = validate_definition(&crd, None);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].field, "spec.selectableFields[0].jsonPath");
            assert!(faults[0].message.contains(message), "{}", faults[0].message);
        }
    }

    #[test]
    fn updates() {
        let mut old = good();
        old["status"] = super::super::status_conditions(&old, [], jiff::Timestamp::UNIX_EPOCH);
        let mut new = old.clone();
        new["spec"]["scope"] = json!("Cluster");
        let faults = validate_definition(&new, Some(&old));
        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].message,
            "Invalid value: \"Cluster\": field is immutable"
        );
        let mut new = old.clone();
        new["spec"]["versions"][0]["name"] = json!("v2");
        let faults = validate_definition(&new, Some(&old));
        assert_eq!(faults[0].field, "status.storedVersions[0]");
    }
}
