//! The field selector that a review says a list is narrowed by.

use gantry_machinery::status::Failure;
use serde_json::Value;

use crate::{object, rules::Fields};

const PATH: &str = "spec.resourceAttributes.fieldSelector";

/// Fields that must have one value, with these. `refuse` makes a failure of reason, field and
/// message.
pub fn fields(
    attributes: &Value,
    refuse: &dyn Fn(&str, &str, String) -> Failure,
) -> Result<Vec<(String, String)>, Failure> {
    let selector = attributes.get("fieldSelector").filter(|s| !s.is_null());
    let Some(selector) = selector else {
        return Ok(vec![]);
    };
    let raw = object::text(selector, "/rawSelector");
    let all = selector.get("requirements").and_then(Value::as_array);
    match (raw, all.filter(|all| !all.is_empty())) {
        ("", None) => Err(refuse(
            "FieldValueRequired",
            &format!("{PATH}.requirements"),
            format!(
                "Required value: when {PATH} is specified, requirements or rawSelector is required"
            ),
        )),
        ("", Some(all)) => {
            let mut fields = vec![];
            for (i, requirement) in all.iter().enumerate() {
                let here = format!("{PATH}.requirements[{i}]");
                fields.extend(one(requirement, &here, refuse)?);
            }
            Ok(fields)
        }
        // What cannot be read narrows nothing.
        (raw, None) => Ok(Fields::parse(raw).map_or(vec![], |fields| fields.equalities())),
        (raw, Some(_)) => Err(refuse(
            "FieldValueInvalid",
            &format!("{PATH}.rawSelector"),
            format!("Invalid value: {raw:?}: may not specified at the same time as requirements"),
        )),
    }
}

fn one(
    requirement: &Value,
    here: &str,
    refuse: &dyn Fn(&str, &str, String) -> Failure,
) -> Result<Option<(String, String)>, Failure> {
    let no = |reason: &str, field: &str, message: String| {
        Err(refuse(reason, &format!("{here}.{field}"), message))
    };
    let key = object::text(requirement, "/key");
    if key.is_empty() {
        return no(
            "FieldValueRequired",
            "key",
            "Required value: must be specified".to_owned(),
        );
    }
    let values = object::strings(requirement.get("values"));
    match (object::text(requirement, "/operator"), values.as_slice()) {
        ("In" | "NotIn", []) => no(
            "FieldValueRequired",
            "values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'".to_owned(),
        ),
        ("In", [one]) => Ok(Some((key.to_owned(), one.clone()))),
        ("In" | "NotIn", _) | ("Exists" | "DoesNotExist", []) => Ok(None),
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
