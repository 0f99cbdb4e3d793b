//! Validation of custom resources against their structural schema.
//!
//! An update is ratcheted (KEP-4008): what was there before and did not change is not held against
//! the writer, so that a schema may be tightened under existing objects.

use serde_json::{Map, Value};

use super::{
    causes::{invalid, not_supported, required, too_long, too_many, type_invalid},
    format::has_format,
    rules,
    unique::unique,
};
use crate::{
    schema::{Junctors, ListType, Schema},
    status::Cause,
    validation,
};

/// All faults of an object, `old` being what it was before an update.
///
/// Covers types, `required`, `enum`, lengths, bounds, `pattern`, `format`, `anyOf`/`oneOf`/`allOf`/
/// `not`, uniqueness of `set` and `map` lists, what embedded resources must have, and CEL rules.
pub fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut faults = Vec::new();
    node(schema, object, old, "", &mut faults);
    embedded(schema, object, "", &mut faults);
    let mut twice = Vec::new();
    unique(schema, object, "", &mut twice);
    if !twice.is_empty() {
        let mut before = Vec::new();
        if let Some(old) = old {
            unique(schema, old, "", &mut before);
        }
        if before.is_empty() {
            faults.extend(twice);
        }
    }
    if schema.has_rules {
        // Rules rest on the object being what its schema says.
        if faults.iter().any(|f| BLOCKING.contains(&f.reason.as_str())) {
            faults.push(invalid("<nil>", &Value::Null, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"));
        } else {
            faults.extend(rules::run(schema, object, old));
        }
    }
    faults
}

/// Faults after which no rules are run.
const BLOCKING: [&str; 5] = [
    "FieldValueNotFound",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

/// As [`validate`], for a value that stands somewhere in an object.
pub(super) fn validate_at(schema: &Schema, value: &Value, path: &str) -> Vec<Cause> {
    let mut faults = Vec::new();
    node(schema, value, None, path, &mut faults);
    unique(schema, value, path, &mut faults);
    faults
}

pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A path as a fault names it: there is none for the object itself.
fn field(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if is_integer(n) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `1.0` is an integer too.
fn is_integer(number: &serde_json::Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, faults: &mut Vec<Cause>) {
    if old.is_some_and(|old| unchanged(Some(schema), old, value)) {
        return;
    }
    let Some(Value::Object(own)) = &schema.source else {
        // A built-in type (metadata): only what a definition's author put into it is checked here.
        for (name, value) in value.as_object().into_iter().flatten() {
            if let Some(field) = schema.field(name).filter(|f| f.source.is_some()) {
                let old = old.and_then(|o| o.get(name));
                node(field, value, old, &child(path, name), faults);
            }
        }
        return;
    };
    let source = own;
    let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
    if value.is_null() && schema.nullable {
        return;
    }
    let wanted = source.get("type").and_then(Value::as_str).unwrap_or("");
    let int_or_string = flag("x-kubernetes-int-or-string");
    let found = type_of(value);
    let fits = if int_or_string {
        matches!(found, "integer" | "string")
    } else {
        wanted.is_empty() || wanted == found || (wanted == "number" && found == "integer")
    };
    if !fits {
        let wanted = if int_or_string {
            "integer,string"
        } else {
            wanted
        };
        faults.push(type_invalid(
            field(path),
            &Value::from(found),
            &format!("{path} in body must be of type {wanted}: {found:?}"),
        ));
    }
    if let Some(junctors) = &schema.junctors {
        junction(junctors, value, path, faults);
    }
    match value {
        Value::String(s) => string(schema, source, s, path, faults),
        Value::Number(n) => number(source, wanted, n, path, faults),
        Value::Array(items) => {
            if let Some(most) = source.get("maxItems").and_then(Value::as_u64)
                && items.len() as u64 > most
            {
                faults.push(too_many(field(path), items.len(), most));
            } else if let Some(least) = source.get("minItems").and_then(Value::as_u64)
                && (items.len() as u64) < least
            {
                faults.push(invalid(
                    field(path),
                    &Value::from(items.len()),
                    &format!("{path} in body should have at least {least} items"),
                ));
            }
        }
        _ => {}
    }
    if !schema.enumeration.is_empty() && !schema.enumeration.iter().any(|e| same(e, value)) {
        let supported: Vec<String> = schema
            .enumeration
            .iter()
            .map(|e| match e {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            })
            .collect();
        faults.push(not_supported(field(path), value, &supported));
    }
    match value {
        Value::Object(members) => object(schema, source, members, old, path, faults),
        Value::Array(items) => {
            let Some(item) = schema.item() else { return };
            for (i, value) in items.iter().enumerate() {
                let old = old.and_then(|old| correlate(schema, old, value));
                node(item, value, old, &format!("{path}[{i}]"), faults);
            }
        }
        _ => {}
    }
}

/// The item's value before an update. Only items that are told apart by keys have one.
fn correlate<'a>(schema: &Schema, old: &'a Value, item: &Value) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list_type else {
        return None;
    };
    let olds = old.as_array()?;
    olds.iter()
        .find(|o| keys.iter().all(|k| o.get(k) == item.get(k)))
}

fn object(
    schema: &Schema,
    source: &Map<String, Value>,
    members: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    faults: &mut Vec<Cause>,
) {
    let count = members.len() as u64;
    if let Some(least) = source.get("minProperties").and_then(Value::as_u64)
        && count < least
    {
        faults.push(invalid(
            field(path),
            &Value::from(least),
            &format!("{path} in body should have at least {least} properties"),
        ));
    }
    if let Some(most) = source.get("maxProperties").and_then(Value::as_u64)
        && count > most
    {
        faults.push(too_many(field(path), members.len(), most));
    }
    for name in &schema.required {
        if !members.contains_key(name) {
            faults.push(required(&child(path, name), ""));
        }
    }
    for (name, value) in members {
        if let Some(field) = schema.field(name) {
            let old = old.and_then(|o| o.get(name));
            node(field, value, old, &child(path, name), faults);
        }
    }
}

fn string(
    schema: &Schema,
    source: &Map<String, Value>,
    value: &str,
    path: &str,
    faults: &mut Vec<Cause>,
) {
    let bound = |name: &str| source.get(name).and_then(Value::as_u64);
    let length = value.chars().count() as u64;
    let text = Value::from(value);
    if let Some(most) = bound("maxLength").filter(|most| length > *most) {
        faults.push(too_long(field(path), most));
    } else if let Some(least) = bound("minLength").filter(|least| length < *least) {
        faults.push(invalid(
            field(path),
            &text,
            &format!("{path} in body should be at least {least} chars long"),
        ));
    } else if let Some(pattern) = schema.pattern.as_ref().filter(|p| !p.is_match(value)) {
        faults.push(invalid(
            field(path),
            &text,
            &format!("{path} in body should match '{}'", pattern.as_str()),
        ));
    }
    if let Some(format) = schema.format.as_deref()
        && !has_format(format, value)
    {
        faults.push(type_invalid(
            field(path),
            &text,
            &format!("{path} in body must be of type {format}: {value:?}"),
        ));
    }
}

fn number(
    source: &Map<String, Value>,
    wanted: &str,
    value: &serde_json::Number,
    path: &str,
    faults: &mut Vec<Cause>,
) {
    let own = Value::Number(value.clone());
    let x = value.as_f64().unwrap_or_default();
    let format = source.get("format").and_then(Value::as_str).unwrap_or("");
    if wanted == "integer" {
        let in_range = match format {
            "int32" => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&x),
            "uint32" => (0.0..=f64::from(u32::MAX)).contains(&x),
            _ => true,
        };
        if !is_integer(value) || !in_range {
            let how = match format {
                "" => "(default format)".to_owned(),
                format => format!("with format {format}"),
            };
            // Kubernetes finds this fault apart from the others and knows no field for it.
            faults.push(invalid(
                "<nil>",
                &Value::from(""),
                &format!("Checked value must be of type integer {how} in {path}"),
            ));
        }
    }
    let bound = |name: &str| source.get(name).and_then(|v| v.as_f64().map(|f| (f, v)));
    let exclusive = |name: &str| source.get(name) == Some(&Value::Bool(true));
    let mut fault = |what: String| {
        faults.push(invalid(
            field(path),
            &own,
            &format!("{path} in body should be {what}"),
        ));
    };
    if let Some((step, shown)) = bound("multipleOf") {
        let times = x / step;
        if (times - times.round()).abs() > 1e-9 {
            fault(format!("a multiple of {shown}"));
        }
    }
    if let Some((most, shown)) = bound("maximum") {
        if exclusive("exclusiveMaximum") {
            if x >= most {
                fault(format!("less than {shown}"));
            }
        } else if x > most {
            fault(format!("less than or equal to {shown}"));
        }
    }
    if let Some((least, shown)) = bound("minimum") {
        if exclusive("exclusiveMinimum") {
            if x <= least {
                fault(format!("greater than {shown}"));
            }
        } else if x < least {
            fault(format!("greater than or equal to {shown}"));
        }
    }
}

fn junction(junctors: &Junctors, value: &Value, path: &str, faults: &mut Vec<Cause>) {
    let run = |branch: &Schema| {
        let mut faults = Vec::new();
        node(branch, value, None, path, &mut faults);
        faults
    };
    // The fault of the whole comes first, then those of the branch that came closest.
    let failed = |what: String, mut runs: Vec<Vec<Cause>>, faults: &mut Vec<Cause>| {
        faults.push(invalid("<nil>", &Value::from(""), &what));
        runs.sort_by_key(Vec::len);
        faults.extend(runs.into_iter().find(|f| !f.is_empty()).unwrap_or_default());
    };
    if !junctors.any_of.is_empty() {
        let runs: Vec<Vec<Cause>> = junctors.any_of.iter().map(run).collect();
        if !runs.iter().any(Vec::is_empty) {
            let what = format!("{path:?} must validate at least one schema (anyOf)");
            failed(what, runs, faults);
        }
    }
    if !junctors.one_of.is_empty() {
        let runs: Vec<Vec<Cause>> = junctors.one_of.iter().map(run).collect();
        let valid = runs.iter().filter(|f| f.is_empty()).count();
        let whole = format!("{path:?} must validate one and only one schema (oneOf).");
        match valid {
            1 => {}
            0 => failed(format!("{whole} Found none valid"), runs, faults),
            n => failed(
                format!("{whole} Found {n} valid alternatives"),
                Vec::new(),
                faults,
            ),
        }
    }
    if !junctors.all_of.is_empty() {
        let runs: Vec<Vec<Cause>> = junctors.all_of.iter().map(run).collect();
        let valid = runs.iter().filter(|f| f.is_empty()).count();
        let none = if valid == 0 { ". None validated" } else { "" };
        let all = valid == runs.len();
        faults.extend(runs.into_iter().flatten());
        if !all {
            let what = format!("{path:?} must validate all the schemas (allOf){none}");
            faults.push(invalid("<nil>", &Value::from(""), &what));
        }
    }
    if let Some(not) = &junctors.not
        && run(not).is_empty()
    {
        let what = format!("{path:?} must not validate the schema (not)");
        faults.push(invalid("<nil>", &Value::from(""), &what));
    }
}

/// What embedded resources must have besides what their schema asks for.
fn embedded(schema: &Schema, value: &Value, path: &str, faults: &mut Vec<Cause>) {
    if schema.source.is_none() {
        return;
    }
    match value {
        Value::Object(members) => {
            if schema.embedded_resource {
                faults.extend(validation::embedded(members, path));
            }
            for (name, value) in members {
                if let Some(field) = schema.field(name) {
                    embedded(field, value, &child(path, name), faults);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = schema.item() else { return };
            for (i, value) in items.iter().enumerate() {
                embedded(item, value, &format!("{path}[{i}]"), faults);
            }
        }
        _ => {}
    }
}

/// Whether an update leaves a value as it was. Another order of items that keys tell apart is no
/// change.
pub(super) fn unchanged(schema: Option<&Schema>, old: &Value, new: &Value) -> bool {
    let Some(schema) = schema else {
        return same(old, new);
    };
    match (old, new) {
        (Value::Array(olds), Value::Array(news))
            if matches!(schema.list_type, ListType::Map(_)) =>
        {
            let kept = |new: &Value| {
                let old = correlate(schema, old, new);
                old.is_some_and(|old| unchanged(schema.item(), old, new))
            };
            olds.len() == news.len() && news.iter().all(kept)
        }
        (Value::Object(olds), Value::Object(news)) => {
            let kept = |(name, new): (&String, &Value)| {
                let old = olds.get(name);
                old.is_some_and(|old| unchanged(schema.field(name), old, new))
            };
            olds.len() == news.len() && news.iter().all(kept)
        }
        _ => same(old, new),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// The branches of a node, read.
pub(super) fn junctors(json: &Value) -> Option<Box<Junctors>> {
    let list = |name: &str| -> Vec<Schema> {
        let branches = json.get(name).and_then(Value::as_array);
        branches
            .into_iter()
            .flatten()
            .map(super::structural::node)
            .collect()
    };
    let out = Junctors {
        all_of: list("allOf"),
        any_of: list("anyOf"),
        one_of: list("oneOf"),
        not: json
            .get("not")
            .filter(|n| n.is_object())
            .map(super::structural::node),
    };
    let some = !out.all_of.is_empty()
        || !out.any_of.is_empty()
        || !out.one_of.is_empty()
        || out.not.is_some();
    some.then(|| Box::new(out))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::structural, *};

    fn faults(spec_schema: Value, spec: Value, old: Option<Value>) -> Vec<String> {
        let schema = structural(&json!({"type": "object", "properties": {"spec": spec_schema}}))
            .unwrap_or_else(|e| panic!("{e:?}"));
        let old = old.map(|o| json!({"spec": o}));
        validate(&schema, &json!({"spec": spec}), old.as_ref())
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn words_of_kubernetes() {
        let schema = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
            "mode": {"type": "string", "enum": ["on", "off"]},
            "size": {"type": "integer", "maximum": 10, "multipleOf": 2},
            "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": true},
            "list": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "when": {"type": "string", "format": "date-time"},
            "port": {"x-kubernetes-int-or-string": true},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
            "obj": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }});
        for (spec, expected) in [
            (
                json!({"name": "ab", "port": "x", "when": "2026-01-01T00:00:00Z", "ratio": 0.5, "size": 4}),
                vec![],
            ),
            (json!({}), vec!["spec.name: Required value"]),
            (
                json!({"name": 5}),
                vec![
                    "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\"",
                ],
            ),
            (
                json!({"name": "A"}),
                vec![
                    "spec.name: Invalid value: \"A\": spec.name in body should be at least 2 chars long",
                ],
            ),
            (
                json!({"name": "AB"}),
                vec!["spec.name: Invalid value: \"AB\": spec.name in body should match '^[a-z]+$'"],
            ),
            (
                json!({"name": "abcde"}),
                vec!["spec.name: Too long: may not be more than 4 bytes"],
            ),
            (
                json!({"name": "ab", "mode": "maybe"}),
                vec!["spec.mode: Unsupported value: \"maybe\": supported values: \"on\", \"off\""],
            ),
            (
                json!({"name": "ab", "size": 12}),
                vec![
                    "spec.size: Invalid value: 12: spec.size in body should be less than or equal to 10",
                ],
            ),
            (
                json!({"name": "ab", "size": 2.5}),
                vec![
                    "spec.size: Invalid value: \"number\": spec.size in body must be of type integer: \"number\"",
                    "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec.size",
                    "spec.size: Invalid value: 2.5: spec.size in body should be a multiple of 2",
                ],
            ),
            (
                json!({"name": "ab", "ratio": 0}),
                vec!["spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"],
            ),
            (
                json!({"name": "ab", "list": ["1", "2", "3"]}),
                vec!["spec.list: Too many: 3: must have at most 2 items"],
            ),
            (
                json!({"name": "ab", "map": {"a": "x"}}),
                vec![
                    "spec.map.a: Invalid value: \"string\": spec.map.a in body must be of type integer: \"string\"",
                ],
            ),
            (
                json!({"name": "ab", "when": "noon"}),
                vec![
                    "spec.when: Invalid value: \"noon\": spec.when in body must be of type date-time: \"noon\"",
                ],
            ),
            (
                json!({"name": "ab", "port": true}),
                vec![
                    "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
                ],
            ),
            (
                json!({"name": "ab", "set": ["a", "b", "a", "a"]}),
                vec!["spec.set[2]: Duplicate value: \"a\""],
            ),
            (
                json!({"name": "ab", "keyed": [{"k": "1"}, {"k": "1"}]}),
                vec!["spec.keyed[1]: Duplicate value: {\"k\":\"1\"}"],
            ),
            (
                json!({"name": "ab", "obj": {"metadata": {"name": "p"}}}),
                vec![
                    "spec.obj.apiVersion: Required value",
                    "spec.obj.kind: Required value",
                ],
            ),
            (
                json!([]),
                vec![
                    "spec: Invalid value: \"array\": spec in body must be of type object: \"array\"",
                ],
            ),
        ] {
            assert_eq!(
                faults(schema.clone(), spec.clone(), None),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn junctions() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(faults(schema.clone(), json!({"a": "1"}), None).is_empty());
        assert_eq!(
            faults(schema.clone(), json!({}), None),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "spec.a: Required value"
            ]
        );
        assert_eq!(
            faults(schema, json!({"a": "1", "b": "2"}), None),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
            ]
        );
        let not = json!({"type": "object", "properties": {"a": {"type": "string"}}, "not": {"required": ["a"]}});
        assert_eq!(faults(not, json!({"a": "1"}), None).len(), 1);
        let port = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%$"});
        assert!(faults(port.clone(), json!(5), None).is_empty());
        assert!(faults(port.clone(), json!("5%"), None).is_empty());
        assert_eq!(faults(port, json!("x"), None).len(), 1);
    }

    #[test]
    fn an_update_answers_only_for_what_it_changed() {
        let schema = json!({"type": "object", "required": ["new"], "properties": {
            "new": {"type": "string"}, "a": {"type": "integer", "maximum": 5}, "b": {"type": "integer", "maximum": 5},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items":
                {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}}}}});
        let old =
            json!({"new": "x", "a": 9, "b": 1, "l": [{"k": "1", "v": 9}, {"k": "2", "v": 9}]});
        assert!(faults(schema.clone(), old.clone(), Some(old.clone())).is_empty());
        let mut new = old.clone();
        new["b"] = json!(2);
        new["l"] = json!([{"k": "2", "v": 9}, {"k": "1", "v": 9}]);
        assert!(faults(schema.clone(), new, Some(old.clone())).is_empty());
        let mut new = old.clone();
        new["a"] = json!(8);
        assert_eq!(faults(schema, new, Some(old)).len(), 1);
    }
}
