//! Reading a decoded object without ceremony: what is absent reads as empty.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// A field, `null` where there is none.
pub fn at<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&NULL)
}

/// A field some levels down.
pub fn down<'a>(value: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().fold(value, |v, name| at(v, name))
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    at(value, name).as_str().unwrap_or("")
}

pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    at(value, name).as_array().map_or(&[], Vec::as_slice)
}

pub fn int(value: &Value, name: &str) -> Option<i64> {
    at(value, name).as_i64()
}

pub fn flag(value: &Value, name: &str) -> bool {
    at(value, name).as_bool().unwrap_or(false)
}

pub fn has(value: &Value, name: &str) -> bool {
    !at(value, name).is_null()
}

/// Entries of a map field in the order of their keys, in which Kubernetes would report them at
/// best: Go's own order is random.
pub fn entries<'a>(value: &'a Value, name: &str) -> Vec<(&'a str, &'a Value)> {
    let mut all: Vec<(&str, &Value)> = at(value, name)
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.as_str(), v))
        .collect();
    all.sort_by_key(|(k, _)| *k);
    all
}

pub fn map<'a>(value: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    at(value, name).as_object()
}

/// Whether two optional values say the same: absent, null and empty are one.
pub fn same(a: &Value, b: &Value) -> bool {
    a == b || (blank(a) && blank(b))
}

pub fn blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}
