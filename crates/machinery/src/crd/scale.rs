//! What must be where the scale of a custom resource is read from.

use serde_json::Value;

use super::causes::invalid;
use crate::{
    resource::{Resource, ScalePaths},
    status::Cause,
};

/// Faults of the replicas and the selector. `status`: only the status was written.
pub fn scale_faults(resource: &Resource, object: &Value, status: bool) -> Vec<Cause> {
    let custom = resource.custom.as_ref();
    let Some(paths) = custom.and_then(|custom| custom.scale.as_ref()) else {
        return vec![];
    };
    let ScalePaths {
        spec_replicas,
        status_replicas,
        label_selector,
    } = paths;
    let mut faults = vec![];
    if !status {
        replicas(object, spec_replicas, &mut faults);
    }
    replicas(object, status_replicas, &mut faults);
    if let Some(path) = label_selector {
        match find(object, path) {
            Ok(None | Some(Value::String(_))) => {}
            Ok(Some(other)) => {
                faults.push(invalid(path, &"".into(), &wrong(path, other, "string")))
            }
            Err(why) => faults.push(invalid(path, &"".into(), &why)),
        }
    }
    faults
}

fn replicas(object: &Value, path: &str, faults: &mut Vec<Cause>) {
    let number = match find(object, path) {
        Ok(None) => return,
        Ok(Some(value)) => value.as_i64().ok_or_else(|| wrong(path, value, "int64")),
        Err(why) => Err(why),
    };
    match number {
        Err(why) => faults.push(invalid(path, &0.into(), &why)),
        Ok(number) if number < 0 => {
            faults.push(invalid(
                path,
                &number.into(),
                "should be a non-negative integer",
            ));
        }
        Ok(number) if number > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            faults.push(invalid(path, &number.into(), &why));
        }
        Ok(_) => {}
    }
}

fn find<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut at = object;
    for field in path.trim_start_matches('.').split('.') {
        let Some(members) = at.as_object() else {
            return Err(wrong(path, at, "map[string]interface{}"));
        };
        match members.get(field) {
            Some(value) => at = value,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn wrong(path: &str, value: &Value, expected: &str) -> String {
    let kind = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let shown = match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        ".{} accessor error: {shown} is of the type {kind}, expected {expected}",
        path.trim_start_matches('.')
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::Custom;

    #[test]
    fn replicas_are_small_numbers_and_the_selector_is_text() {
        let scale = ScalePaths {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            label_selector: Some(".status.selector".to_owned()),
        };
        let mut resource = Resource::clone(&crate::resource::builtin_resources()[0]);
        resource.custom = Some(Custom {
            scale: Some(scale),
            ..Custom::default()
        });
        for (object, status, expected) in [
            (
                json!({"spec": {"replicas": 1}, "status": {"selector": "a=b"}}),
                false,
                vec![],
            ),
            (json!({}), false, vec![]),
            (
                json!({"spec": {"replicas": i64::MAX}, "status": {"replicas": -1}}),
                false,
                vec![
                    ".spec.replicas: Invalid value: 9223372036854775807: should be less than or equal to 2147483647",
                    ".status.replicas: Invalid value: -1: should be a non-negative integer",
                ],
            ),
            (json!({"spec": {"replicas": -1}}), true, vec![]),
            (
                json!({"spec": {"replicas": "x"}, "status": {"selector": 1}}),
                false,
                vec![
                    ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: x is of the type string, expected int64",
                    ".status.selector: Invalid value: \"\": .status.selector accessor error: 1 is of the type float64, expected string",
                ],
            ),
        ] {
            let faults = scale_faults(&resource, &object, status);
            let found: Vec<String> = faults
                .iter()
                .map(|c| format!("{}: {}", c.field, c.message))
                .collect();
            assert_eq!(found, expected, "{object}");
        }
    }
}
