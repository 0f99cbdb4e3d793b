//! Objects inside custom resources: what says what they are has Go types.

use serde_json::Value;

use super::typed;
use crate::{path::Path, schema::Schema, shape};

/// The first value of a wrong type in that, in the words of Go's decoder.
pub fn misfit(schema: &Schema, value: &Value, path: &Path<'_>) -> Option<String> {
    // Built-in types have no such objects.
    schema.source.as_ref()?;
    match value {
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let here = path.child(name);
            if schema.embedded_resource {
                let why = match name.as_str() {
                    "apiVersion" | "kind" if !member.is_string() => "must be a string".to_owned(),
                    "metadata" => metadata(member).unwrap_or_default(),
                    _ => String::new(),
                };
                if !why.is_empty() {
                    return Some(format!("{here}: Invalid value: {member}: {why}"));
                }
            }
            misfit(schema.field(name)?, member, &here)
        }),
        Value::Array(items) => {
            let item = schema.item()?;
            let mut all = items.iter().enumerate();
            all.find_map(|(i, value)| misfit(item, value, &path.index(i)))
        }
        _ => None,
    }
}

fn metadata(value: &Value) -> Option<String> {
    let found = match value {
        Value::Null => return None,
        Value::Object(members) => {
            let mut findings = typed::Findings::default();
            let mut members = members.clone();
            let shape = shape::object_meta()?;
            return match typed::object(shape.get(), &mut members, &Path::ROOT, &mut findings) {
                Err(abort) => Some(abort.0),
                Ok(()) => findings.mismatch,
            };
        }
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Some(format!(
        "json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_what_an_object_is_has_types() {
        let schema = crate::crd::structural(&json!({"type": "object", "properties": {
            "one": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items":
                {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}},
        }}))
        .unwrap();
        for (object, expected) in [
            (
                json!({"one": {"apiVersion": "v1", "kind": "A", "metadata": {"name": "x", "other": 1}}}),
                None,
            ),
            (
                json!({"one": {"metadata": {"namespace": 42}}}),
                Some(
                    "one.metadata: Invalid value: {\"namespace\":42}: json: cannot unmarshal number into Go struct field ObjectMeta.namespace of type string",
                ),
            ),
            (
                json!({"list": [{"kind": "A"}, {"kind": 1}]}),
                Some("list[1].kind: Invalid value: 1: must be a string"),
            ),
            (
                json!({"one": {"metadata": "x"}}),
                Some(
                    "one.metadata: Invalid value: \"x\": json: cannot unmarshal string into Go value of type v1.ObjectMeta",
                ),
            ),
        ] {
            assert_eq!(misfit(&schema, &object, &Path::ROOT).as_deref(), expected);
        }
    }
}
