//! What happens to a custom resource before it is validated: unknown fields go, defaults come.

use serde_json::{Map, Value};

use crate::schema::{Kind, Schema};

/// Removes fields that the schema does not know and returns their paths (`spec.list[0].x`), which
/// the API server reports as unknown fields.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    walk(schema, object, &mut String::new(), &mut gone);
    // Kubernetes takes out what the schema does not know, sorts that, and only then looks at the
    // metadata of embedded objects.
    gone.sort_by(|(a, metadata), (b, other)| metadata.cmp(other).then_with(|| a.cmp(b)));
    gone.into_iter().map(|(path, _)| path).collect()
}

/// Whether a default has fields that its schema does not know. What is unknown in the metadata of objects
/// inside it just goes.
pub(super) fn has_unknown(schema: &Schema, default: &Value) -> bool {
    let mut gone = Vec::new();
    walk(schema, &mut default.clone(), &mut String::new(), &mut gone);
    gone.iter().any(|(_, metadata)| !metadata)
}

/// What went: its path, and whether it was in the metadata of an embedded object.
type Gone = Vec<(String, bool)>;

fn walk(schema: &Schema, value: &mut Value, path: &mut String, gone: &mut Gone) {
    let length = path.len();
    match value {
        Value::Object(members) => {
            // Built-in types without fields hold anything.
            let free = schema.source.is_none()
                && schema.properties.is_empty()
                && schema.additional.is_none();
            if free {
                return;
            }
            let known = |name: &str| {
                schema.preserve_unknown
                    || schema.properties.contains_key(name)
                    || schema.additional.is_some()
            };
            if !members.keys().all(|name| known(name)) {
                let kept = std::mem::take(members);
                for (name, member) in kept {
                    if known(&name) {
                        members.insert(name, member);
                    } else {
                        gone.push((join(path, &name), schema.source.is_none()));
                    }
                }
            }
            for (name, member) in members.iter_mut() {
                if let Some(field) = schema.field(name) {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                    walk(field, member, path, gone);
                    path.truncate(length);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = schema.item() else { return };
            for (i, value) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(item, value, path, gone);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Whether a schema has defaults anywhere.
pub fn has_defaults(schema: &Schema) -> bool {
    schema.default.is_some()
        || (schema.source.is_some()
            && (schema
                .properties
                .values()
                .any(|link| has_defaults(link.get()))
                || schema.item().is_some_and(has_defaults)
                || schema
                    .additional
                    .as_ref()
                    .is_some_and(|link| has_defaults(link.get()))))
}

/// Fills in defaults, and removes `null` where the schema allows none: there it means "not given".
pub fn default(schema: &Schema, object: &mut Value) {
    match object {
        Value::Object(members) => fill(schema, members),
        Value::Array(items) => {
            let Some(item) = schema.item() else { return };
            for value in items {
                if value.is_null()
                    && !item.nullable
                    && let Some(default) = &item.default
                {
                    *value = default.clone();
                }
                default_inside(item, value);
            }
        }
        _ => {}
    }
}

fn default_inside(schema: &Schema, value: &mut Value) {
    // Metadata and other built-in types have no defaults here.
    if schema.source.is_some() {
        default(schema, value);
    }
}

fn fill(schema: &Schema, members: &mut Map<String, Value>) {
    for (name, link) in &schema.properties {
        let field = link.get();
        let Some(default) = &field.default else {
            continue;
        };
        let missing = match members.get(name) {
            None => true,
            Some(value) => value.is_null() && !field.nullable,
        };
        if missing {
            members.insert(name.clone(), default.clone());
        }
    }
    let mut nulls = false;
    for (name, value) in members.iter_mut() {
        let Some(field) = schema.field(name) else {
            continue;
        };
        if field.source.is_none() {
            continue;
        }
        if value.is_null() && !field.nullable && field.kind != Kind::Any {
            match &field.default {
                Some(default) => *value = default.clone(),
                None => {
                    nulls = true;
                    continue;
                }
            }
        }
        default(field, value);
    }
    if nulls {
        members.retain(|name, value| {
            !value.is_null()
                || schema
                    .field(name)
                    .is_none_or(|f| f.source.is_none() || f.nullable || f.kind == Kind::Any)
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::structural, *};

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = structural(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "string"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {"x": {"type": "string"}}}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }}}})).unwrap();
        let mut object = json!({"apiVersion": "g/v1", "kind": "K", "extra": 1, "metadata": {"name": "x", "labels": {"a": "b"}, "nope": 1,
            "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]},
            "spec": {"a": 1, "b": 2, "list": [{"k": "1", "z": 1}], "map": {"m": {"v": "1", "w": 2}},
                "free": {"any": {"thing": 1}, "known": {"x": "1", "y": 2}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"c": []}}}});
        let mut gone = prune(&schema, &mut object);
        gone.sort();
        assert_eq!(
            gone,
            [
                "extra",
                "metadata.nope",
                "spec.b",
                "spec.free.known.y",
                "spec.list[0].z",
                "spec.map.m.w"
            ]
        );
        assert_eq!(
            object,
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x", "labels": {"a": "b"},
            "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]},
            "spec": {"a": 1, "list": [{"k": "1"}], "map": {"m": {"v": "1"}}, "free": {"any": {"thing": 1}, "known": {"x": "1"}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"c": []}}}})
        );
        assert!(prune(&schema, &mut object).is_empty());
    }

    #[test]
    fn defaults_come_level_by_level() {
        let schema = structural(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "size": {"type": "integer", "default": 3},
            "mode": {"type": "string", "default": "auto", "nullable": true},
            "deep": {"type": "object", "default": {"a": 1}, "properties": {"a": {"type": "integer"}, "b": {"type": "string", "default": "bee"}}},
            "plain": {"type": "string"},
        }}}})).unwrap();
        for (spec, expected) in [
            (
                None,
                json!({"size": 3, "mode": "auto", "deep": {"a": 1, "b": "bee"}}),
            ),
            (
                Some(json!({"mode": null, "deep": {}})),
                json!({"size": 3, "mode": null, "deep": {"b": "bee"}}),
            ),
            (
                Some(json!({"size": null, "plain": null})),
                json!({"size": 3, "mode": "auto", "deep": {"a": 1, "b": "bee"}}),
            ),
        ] {
            let mut object = json!({"metadata": {"name": "x"}});
            if let Some(spec) = spec {
                object["spec"] = spec;
            }
            default(&schema, &mut object);
            assert_eq!(object["spec"], expected);
            let again = object.clone();
            default(&schema, &mut object);
            assert_eq!(object, again);
        }
    }
}
