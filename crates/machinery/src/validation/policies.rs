//! ValidatingAdmissionPolicies, MutatingAdmissionPolicies and their bindings.

use serde_json::Value;

use super::{
    admission::{self, FAILURE_POLICIES, REINVOCATION_POLICIES, one_of},
    errors::Errors,
    names, selectors,
    value::{at, has, list, text},
};
use crate::{
    path::Path,
    policy::{Compiler, Wanted},
};

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const MOST_ANNOTATIONS: usize = 20;
/// Bytes that the expression of an audit annotation may have.
const LONGEST_ANNOTATION: usize = 5 * 1024;

fn spec_of(object: &Value) -> &Value {
    at(object, "spec")
}

/// What both kinds of policies have; the compiler knows their variables then.
fn common(
    spec: &Value,
    old: Option<&Value>,
    mutating: bool,
    path: &Path<'_>,
    e: &mut Errors,
) -> Compiler {
    if !has(spec, "failurePolicy") {
        e.required(&path.child("failurePolicy"), "");
    }
    one_of(spec, "failurePolicy", FAILURE_POLICIES, path, e);
    let params = has(spec, "paramKind");
    if params {
        param_kind(at(spec, "paramKind"), &path.child("paramKind"), e);
    }
    let constraints = at(spec, "matchConstraints");
    let at_constraints = path.child("matchConstraints");
    if constraints.is_null() {
        e.required(&at_constraints, "");
    } else {
        admission::match_resources(constraints, &at_constraints, e);
        let rules = at_constraints.child("resourceRules");
        if list(constraints, "resourceRules").is_empty() {
            e.required(&rules, "");
        }
        if mutating {
            operations(constraints, &rules.child("operations"), e);
        }
    }
    let same = old.is_some_and(|old| {
        ["paramKind", "matchConditions"]
            .iter()
            .all(|field| at(old, field) == at(spec, field))
    });
    if !same {
        admission::conditions(spec, params, &path.child("matchConditions"), e);
    }
    let mut compiler = Compiler::new(params);
    for (i, variable) in list(spec, "variables").iter().enumerate() {
        let path = path.child("variables");
        let path = path.index(i);
        let (name, expression) = (text(variable, "name"), text(variable, "expression"));
        if name.trim().is_empty() {
            e.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            e.invalid_text(
                &path.child("name"),
                name,
                "name is not a valid CEL identifier",
            );
        }
        if expression.trim().is_empty() {
            e.required(&path.child("expression"), "expression is not specified");
        } else if let Err(why) = compiler.variable(name, expression) {
            e.invalid_text(&path.child("expression"), expression, &why);
        }
    }
    compiler
}

/// What is deleted is not changed.
fn operations(constraints: &Value, path: &Path<'_>, e: &mut Errors) {
    const SUPPORTED: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
    for rule in list(constraints, "resourceRules") {
        for operation in list(rule, "operations") {
            let operation = operation.as_str().unwrap_or_default();
            if !SUPPORTED.contains(&operation) {
                e.not_supported(path, operation, SUPPORTED);
            }
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !crate::cel::RESERVED.contains(&name)
}

fn param_kind(kind: &Value, path: &Path<'_>, e: &mut Errors) {
    let version = text(kind, "apiVersion");
    let at_version = path.child("apiVersion");
    match version.matches('/').count() {
        _ if version.is_empty() => e.required(&at_version, ""),
        0 | 1 => {
            let (group, name) = version.split_once('/').unwrap_or(("", version));
            let faults = names::dns1123_subdomain(group);
            if !group.is_empty() && !faults.is_empty() {
                e.invalid_text(&at_version, group, &faults.join(","));
            }
            let faults = names::dns1035_label(name);
            if name.is_empty() {
                e.invalid_text(&at_version, version, "version must be specified");
            } else if !faults.is_empty() {
                e.invalid_text(&at_version, name, &faults.join(","));
            }
        }
        _ => e.invalid_text(
            &at_version,
            version,
            &format!("unexpected GroupVersion string: {version}"),
        ),
    }
    let name = text(kind, "kind");
    let faults = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        e.required(&path.child("kind"), "");
    } else if !faults.is_empty() {
        e.invalid_text(
            &path.child("kind"),
            name,
            &format!(
                "may have mixed case, but should otherwise match: {}",
                faults.join(",")
            ),
        );
    }
}

fn broken(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// A ValidatingAdmissionPolicy.
pub fn validating(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = spec_of(object);
    let path = &Path::new("spec");
    let compiler = common(spec, old.map(spec_of), false, path, e);
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        e.required(&path.child("validations"), why);
        e.required(&path.child("auditAnnotations"), why);
    }
    for (i, validation) in validations.iter().enumerate() {
        let path = path.child("validations");
        let path = path.index(i);
        let given = text(validation, "expression");
        let at_expression = path.child("expression");
        if given.trim().is_empty() {
            e.required(&at_expression, "expression is not specified");
        } else if let Err(why) = compiler.compile(given, Wanted::Bool, true) {
            e.invalid_text(&at_expression, given, &why);
        }
        let given = text(validation, "messageExpression");
        let at_expression = path.child("messageExpression");
        if !given.is_empty() && given.trim().is_empty() {
            e.invalid_text(&at_expression, given, "must be non-empty if specified");
        } else if !given.is_empty()
            && let Err(why) = compiler.compile(given, Wanted::Text, false)
        {
            e.invalid_text(&at_expression, given, &why);
        }
        let message = text(validation, "message");
        let at_message = path.child("message");
        if !message.is_empty() && message.trim().is_empty() {
            let why = "message must be non-empty if specified";
            e.invalid_text(&at_message, message, why);
        } else if broken(message.trim()) {
            let why = "message must not contain line breaks";
            e.invalid_text(&at_message, message, why);
        }
        one_of(validation, "reason", REASONS, &path, e);
    }
    if annotations.len() > MOST_ANNOTATIONS {
        e.invalid(
            &path.child("auditAnnotations"),
            at(spec, "auditAnnotations"),
            &format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations"),
        );
    }
    let name = text(at(object, "metadata"), "name");
    let mut seen = vec![];
    for (i, annotation) in annotations.iter().enumerate() {
        let path = path.child("auditAnnotations");
        let path = path.index(i);
        let key = text(annotation, "key");
        if name.is_empty() {
            let why = "requires metadata.name be non-empty";
            e.invalid_text(&path.child("key"), key, why);
        } else {
            let whole = format!("{name}/{key}");
            e.invalid_each(&path.child("key"), &whole, names::qualified_name(&whole));
        }
        let value = text(annotation, "valueExpression");
        let at_value = path.child("valueExpression");
        if value.trim().is_empty() {
            e.required(&at_value, "valueExpression is not specified");
        } else if value.trim().len() > LONGEST_ANNOTATION {
            let why = format!("must not exceed {LONGEST_ANNOTATION} bytes in length");
            e.required(&at_value, &why);
        } else if let Err(why) = compiler.compile(value.trim(), Wanted::TextOrNull, true) {
            e.invalid_text(&at_value, value, &why);
        }
        if seen.contains(&key) {
            e.duplicate_text(&path.child("key"), key);
        }
        seen.push(key);
    }
}

/// A MutatingAdmissionPolicy.
pub fn mutating(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = spec_of(object);
    let path = &Path::new("spec");
    let compiler = common(spec, old.map(spec_of), true, path, e);
    let mutations = list(spec, "mutations");
    if mutations.is_empty() {
        let why = "mutations must contain at least one item";
        e.required(&path.child("mutations"), why);
    }
    const TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];
    for (i, mutation) in mutations.iter().enumerate() {
        let path = path.child("mutations");
        let path = path.index(i);
        let given = text(mutation, "patchType");
        let (field, other, wanted) = match given {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Wanted::Object),
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Wanted::Patch),
            "" => {
                e.required(&path.child("patchType"), "");
                continue;
            }
            other => {
                e.not_supported(&path.child("patchType"), other, TYPES);
                continue;
            }
        };
        if has(mutation, field) {
            let path = path.child(field);
            let path = path.child("expression");
            let given = text(at(mutation, field), "expression").trim();
            if given.is_empty() {
                e.required(&path, "");
            } else if let Err(why) = compiler.compile(given, wanted, true) {
                e.invalid_text(&path, given, &why);
            }
        } else {
            let why = format!("must be specified when patchType is {given}");
            e.required(&path.child(field), &why);
        }
        if has(mutation, other) {
            let why = format!("must not be specified when patchType is {given}");
            e.invalid_text(&path.child(other), &format!("{{{other}}}"), &why);
        }
    }
    if !has(spec, "reinvocationPolicy") || text(spec, "reinvocationPolicy").is_empty() {
        e.required(&path.child("reinvocationPolicy"), "");
    } else {
        one_of(spec, "reinvocationPolicy", REINVOCATION_POLICIES, path, e);
    }
}

/// A binding of either kind.
pub fn binding(object: &Value, mutating: bool, e: &mut Errors) {
    let spec = spec_of(object);
    let path = &Path::new("spec");
    let name = text(spec, "policyName");
    if name.is_empty() {
        e.required(&path.child("policyName"), "");
    } else {
        let faults = names::dns1123_subdomain(name);
        e.invalid_each(&path.child("policyName"), name, faults);
    }
    if has(spec, "paramRef") {
        param_ref(at(spec, "paramRef"), &path.child("paramRef"), e);
    }
    if has(spec, "matchResources") {
        let resources = at(spec, "matchResources");
        let path = path.child("matchResources");
        admission::match_resources(resources, &path, e);
        if mutating {
            let rules = path.child("resourceRules");
            operations(resources, &rules.child("operations"), e);
        }
    }
    if mutating {
        return;
    }
    let path = path.child("validationActions");
    let mut seen = vec![];
    for (i, action) in list(spec, "validationActions").iter().enumerate() {
        let action = action.as_str().unwrap_or_default();
        if !ACTIONS.contains(&action) {
            e.not_supported(&path.index(i), action, ACTIONS);
        }
        if seen.contains(&action) {
            e.duplicate_text(&path.index(i), action);
        }
        seen.push(action);
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        e.invalid(
            &path,
            at(spec, "validationActions"),
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        );
    }
    if seen.is_empty() {
        e.required(&path, "at least one validation action is required");
    }
}

fn param_ref(reference: &Value, path: &Path<'_>, e: &mut Errors) {
    let name = text(reference, "name");
    let selects = has(reference, "selector");
    let why = "name and selector are mutually exclusive";
    if !name.is_empty() {
        e.invalid_each(&path.child("name"), name, names::path_segment(name));
        if selects {
            e.forbidden(&path.child("name"), why);
        }
    }
    if selects {
        let path = path.child("selector");
        selectors::label_selector(at(reference, "selector"), &path, e);
        if !name.is_empty() {
            e.forbidden(&path, why);
        }
    }
    if name.is_empty() && !selects {
        e.required(path, "one of name or selector must be specified");
    }
    if text(reference, "parameterNotFoundAction").is_empty() {
        e.required(&path.child("parameterNotFoundAction"), "");
    } else {
        const NOT_FOUND: &[&str] = &["Deny", "Allow"];
        one_of(reference, "parameterNotFoundAction", NOT_FOUND, path, e);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(errors: Errors) -> Vec<String> {
        let causes = errors.into_causes();
        causes
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    fn constraints(operations: Value) -> Value {
        json!({
            "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "resourceRules": [{"operations": operations, "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    }

    #[test]
    fn an_empty_policy_lacks_what_it_must_have() {
        let mut errors = Errors::default();
        validating(
            &json!({"metadata": {"name": "p"}, "spec": {}}),
            None,
            &mut errors,
        );
        mutating(
            &json!({"metadata": {"name": "p"}, "spec": {}}),
            None,
            &mut errors,
        );
        let either = "validations or auditAnnotations must contain at least one item";
        assert_eq!(
            shown(errors),
            [
                "spec.failurePolicy: Required value".to_owned(),
                "spec.matchConstraints: Required value".to_owned(),
                format!("spec.validations: Required value: {either}"),
                format!("spec.auditAnnotations: Required value: {either}"),
                "spec.failurePolicy: Required value".to_owned(),
                "spec.matchConstraints: Required value".to_owned(),
                "spec.mutations: Required value: mutations must contain at least one item"
                    .to_owned(),
                "spec.reinvocationPolicy: Required value".to_owned(),
            ]
        );
    }

    #[test]
    fn expressions_see_the_variables_before_them() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {
            "failurePolicy": "Fail", "matchConstraints": constraints(json!(["*"])),
            "variables": [
                {"name": "a", "expression": "object.spec"},
                {"name": "in", "expression": "variables.later"},
            ],
            "validations": [
                {"expression": "has(variables.a.x)", "message": "two\nlines", "reason": "NotFound"},
                {"expression": "params == null", "messageExpression": "authorizer.group('').resource('x').check('get').reason()"},
            ],
            "auditAnnotations": [{"key": "k", "valueExpression": "1"}, {"key": "k", "valueExpression": "'v'"}],
        }});
        let mut errors = Errors::default();
        validating(&policy, None, &mut errors);
        let found = shown(errors);
        for (i, expected) in [
            "spec.variables[1].name: Invalid value: \"in\": name is not a valid CEL identifier",
            "spec.variables[1].expression: Invalid value: \"variables.later\": compilation failed: ERROR: <input>:1:10: undefined field 'later'",
            "spec.validations[0].message: Invalid value: \"two\\nlines\": message must not contain line breaks",
            "spec.validations[0].reason: Unsupported value: \"NotFound\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            "spec.validations[1].expression: Invalid value: \"params == null\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params'",
            "spec.validations[1].messageExpression: Invalid value:",
            "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
            "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
        ]
        .iter()
        .enumerate()
        {
            let got = found.get(i).map_or("", String::as_str);
            assert!(got.starts_with(expected), "{expected}\n{found:#?}");
        }
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn mutations_are_for_creations_and_updates() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": constraints(json!(["CREATE", "DELETE"])),
            "mutations": [
                {"patchType": "Other"}, {"patchType": "JSONPatch"},
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "{}"}, "jsonPatch": {"expression": "[]"}},
            ],
        }});
        let mut errors = Errors::default();
        mutating(&policy, None, &mut errors);
        let found = shown(errors);
        assert_eq!(
            found,
            [
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
                "spec.mutations[0].patchType: Unsupported value: \"Other\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
                "spec.mutations[1].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[2].applyConfiguration.expression: Invalid value: \"{}\": must evaluate to Object but got map(dyn, dyn)",
                "spec.mutations[2].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
            ]
        );
    }

    #[test]
    fn bindings_name_a_policy_actions_and_parameters() {
        let object = json!({"spec": {
            "policyName": "p", "validationActions": ["Deny", "Warn"],
            "paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Maybe"},
        }});
        let mut errors = Errors::default();
        binding(&object, false, &mut errors);
        assert_eq!(
            shown(errors),
            [
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Maybe\": supported values: \"Deny\", \"Allow\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            ]
        );
    }
}
