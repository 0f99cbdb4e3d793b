//! The selectors that a review says a list is narrowed by.

use gantry_machinery::{
    status::Failure,
    validation::{label_value, qualified_name},
};
use serde_json::{Value, json};

use crate::{authz, object, rules::Fields};

/// Makes a failure of reason, field and message.
type Refuse<'a> = &'a dyn Fn(&str, &str, String) -> Failure;

/// What a selector says: its text, or its requirements.
enum Given<'a> {
    Raw(&'a str),
    Requirements(&'a [Value]),
}

/// The selector `field` of a review's resource attributes: one of its two forms.
fn given<'a>(
    attributes: &'a Value,
    field: &str,
    refuse: Refuse<'_>,
) -> Result<Option<(Given<'a>, String)>, Failure> {
    let path = format!("spec.resourceAttributes.{field}");
    let selector = attributes.get(field).filter(|s| !s.is_null());
    let Some(selector) = selector else {
        return Ok(None);
    };
    let raw = object::text(selector, "/rawSelector");
    let all = selector.get("requirements").and_then(Value::as_array);
    match (raw, all.map_or(&[][..], Vec::as_slice)) {
        ("", []) => Err(refuse(
            "FieldValueRequired",
            &format!("{path}.requirements"),
            format!(
                "Required value: when {path} is specified, requirements or rawSelector is required"
            ),
        )),
        ("", all) => Ok(Some((Given::Requirements(all), path))),
        (raw, []) => Ok(Some((Given::Raw(raw), path))),
        (raw, _) => Err(refuse(
            "FieldValueInvalid",
            &format!("{path}.rawSelector"),
            format!("Invalid value: {raw:?}: may not specified at the same time as requirements"),
        )),
    }
}

/// Fields that must have one value, with these.
pub fn fields(attributes: &Value, refuse: Refuse<'_>) -> Result<Vec<(String, String)>, Failure> {
    match given(attributes, "fieldSelector", refuse)? {
        None => Ok(vec![]),
        // What cannot be read narrows nothing.
        Some((Given::Raw(raw), _)) => {
            Ok(Fields::parse(raw).map_or(vec![], |fields| fields.equalities()))
        }
        Some((Given::Requirements(all), path)) => {
            let mut fields = vec![];
            for (i, requirement) in all.iter().enumerate() {
                let here = format!("{path}.requirements[{i}]");
                let values = operator(requirement, &here, refuse)?;
                let key = object::text(requirement, "/key");
                if key.is_empty() {
                    return Err(refuse(
                        "FieldValueRequired",
                        &format!("{here}.key"),
                        "Required value: must be specified".to_owned(),
                    ));
                }
                if let ("In", [one]) = (object::text(requirement, "/operator"), values.as_slice()) {
                    fields.push((key.to_owned(), one.clone()));
                }
            }
            Ok(fields)
        }
    }
}

/// Refuses a label selector that says what labels cannot be. No authorizer here narrows by labels.
pub fn labels(attributes: &Value, refuse: Refuse<'_>) -> Result<(), Failure> {
    let Some((Given::Requirements(all), path)) = given(attributes, "labelSelector", refuse)? else {
        return Ok(());
    };
    for (i, requirement) in all.iter().enumerate() {
        let here = format!("{path}.requirements[{i}]");
        let values = operator(requirement, &here, refuse)?;
        let wrong = |field: &str, value: &str, fault: &str| {
            let message = format!("Invalid value: {value:?}: {fault}");
            refuse("FieldValueInvalid", &format!("{here}.{field}"), message)
        };
        let key = object::text(requirement, "/key");
        if let Some(fault) = qualified_name(key).first() {
            return Err(wrong("key", key, fault));
        }
        for (i, value) in values.iter().enumerate() {
            if let Some(fault) = label_value(value).first() {
                return Err(wrong(&format!("values[{i}]"), value, fault));
            }
        }
    }
    Ok(())
}

/// The selectors of a review for somebody else, as requirements.
pub fn told(attributes: &Value) -> Option<Value> {
    let raw = |field: &str| object::text(attributes, &format!("/{field}/rawSelector")).to_owned();
    let read = authz::selectors(&raw("fieldSelector"), &raw("labelSelector"));
    let mut all = read.unwrap_or_else(|| json!({}));
    for field in ["fieldSelector", "labelSelector"] {
        let given = attributes.get(field).and_then(|s| s.get("requirements"));
        if let Some(given) = given.filter(|g| !g.is_null()) {
            all[field] = json!({"requirements": given});
        }
    }
    Some(all).filter(|all| all.as_object().is_some_and(|all| !all.is_empty()))
}

/// A requirement's values, which have to fit its operator.
fn operator(requirement: &Value, here: &str, refuse: Refuse<'_>) -> Result<Vec<String>, Failure> {
    let no = |reason: &str, field: &str, message: String| {
        Err(refuse(reason, &format!("{here}.{field}"), message))
    };
    let values = object::strings(requirement.get("values"));
    match (object::text(requirement, "/operator"), values.as_slice()) {
        ("In" | "NotIn", []) => no(
            "FieldValueRequired",
            "values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'".to_owned(),
        ),
        ("In" | "NotIn", _) | ("Exists" | "DoesNotExist", []) => Ok(values),
        ("Exists" | "DoesNotExist", _) => no(
            "FieldValueForbidden",
            "values",
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                .to_owned(),
        ),
        (other, _) => no(
            "FieldValueInvalid",
            "operator",
            format!("Invalid value: {other:?}: not a valid selector operator"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn refuse(_: &str, field: &str, message: String) -> Failure {
        Failure::new(422, "Invalid", format!("{field}: {message}"))
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"requirements": [{"key": key, "operator": operator, "values": values}]})
    }

    #[rstest]
    #[case(json!({}), "spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required")]
    #[case(json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]}), "spec.resourceAttributes.labelSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements")]
    #[case(requirement("a", "In", &[]), "spec.resourceAttributes.labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'")]
    #[case(requirement("a", "Exists", &["b"]), "spec.resourceAttributes.labelSelector.requirements[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")]
    #[case(requirement("a", "Odd", &[]), "spec.resourceAttributes.labelSelector.requirements[0].operator: Invalid value: \"Odd\": not a valid selector operator")]
    #[case(requirement("", "Exists", &[]), "spec.resourceAttributes.labelSelector.requirements[0].key: Invalid value: \"\": name part must be non-empty")]
    fn label_selectors_are_refused(#[case] selector: Value, #[case] message: &str) {
        let failure = labels(&json!({"labelSelector": selector}), &refuse).unwrap_err();
        assert_eq!(failure.message, message);
    }

    #[rstest]
    #[case(json!({"rawSelector": "spec.nodeName=n"}), &[("spec.nodeName", "n")])]
    #[case(requirement("spec.nodeName", "In", &["n"]), &[("spec.nodeName", "n")])]
    #[case(requirement("spec.nodeName", "NotIn", &["n"]), &[])]
    #[case(requirement("spec.nodeName", "In", &["n", "m"]), &[])]
    #[case(json!({"rawSelector": "!!"}), &[])]
    fn fields_narrow(#[case] selector: Value, #[case] expected: &[(&str, &str)]) {
        let found = fields(&json!({"fieldSelector": selector}), &refuse).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(found, expected);
        let label = json!({"labelSelector": requirement("a", "In", &["b"])});
        assert!(labels(&label, &refuse).is_ok());
    }
}
