//! The typed round trip: an object as it looks after Kubernetes decoded it into its Go type and
//! encoded it again. In place, in one walk of value and type.

use base64::Engine;
use serde_json::{Map, Value};

use super::time::{micro_time, time};
use crate::{
    path::Path,
    quantity::Quantity,
    shape::{Field, Scalar, Shape, Struct, Wire},
};

/// Leaves a field's unmarshaller raised: decoding stops at it.
#[derive(Debug)]
pub struct Abort(pub String);

/// What the walk found beside the object.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first value of a wrong type, in the words of Go's decoder.
    pub mismatch: Option<String>,
    /// Paths of fields the type does not have.
    pub unknown: Vec<String>,
}

/// Where the walk stands, for the words of a mismatch.
struct Place<'a> {
    struct_name: &'a str,
    path: &'a Path<'a>,
    go_type: &'a str,
}

impl Findings {
    fn wrong(&mut self, place: &Place<'_>, value: &str) {
        if self.mismatch.is_some() {
            return;
        }
        let fields = place.path.fields();
        self.mismatch = Some(if fields.is_empty() {
            format!(
                "json: cannot unmarshal {value} into Go value of type {}",
                place.go_type
            )
        } else {
            format!(
                "json: cannot unmarshal {value} into Go struct field {}.{fields} of type {}",
                place.struct_name, place.go_type
            )
        });
    }
}

/// Takes an object of a struct type through the round trip.
pub fn object(
    shape: &Struct,
    map: &mut Map<String, Value>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Result<(), Abort> {
    let mut abort = None;
    map.retain(|name, value| {
        if abort.is_some() {
            return true;
        }
        let here = path.child(name);
        let Some(field) = shape.field(name) else {
            findings.unknown.push(here.to_string());
            return false;
        };
        match field_value(shape, field, value, &here, findings) {
            // To forget who owns what, one may say that nobody does.
            Ok(false) if name == "managedFields" && value.is_array() => {
                here.to_string() == "metadata.managedFields"
            }
            Ok(keep) => keep,
            Err(e) => {
                abort = Some(e);
                true
            }
        }
    });
    if let Some(abort) = abort {
        return Err(abort);
    }
    for (name, zero) in &shape.always {
        if !map.contains_key(name) {
            map.insert(name.clone(), zero.clone());
        }
    }
    Ok(())
}

/// Whether the field stays; an absent mandatory one is filled in by the caller.
fn field_value(
    parent: &Struct,
    field: &Field,
    value: &mut Value,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Result<bool, Abort> {
    if value.is_null() {
        return Ok(false);
    }
    let place = Place {
        struct_name: &parent.go_name,
        path,
        go_type: &field.go_type,
    };
    one(&field.shape, value, &place, findings)?;
    Ok(match field.wire {
        Wire::Pointer => true,
        Wire::NullablePointer | Wire::Struct => !value.is_null(),
        // Empty lists and maps do not survive storage: they come back as null.
        Wire::Always => !matches!(&field.shape, Shape::List(_) | Shape::Map(_)) || !is_empty(value),
        Wire::Omit | Wire::OmitZero => !is_empty(value),
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

fn one(
    shape: &Shape,
    value: &mut Value,
    place: &Place<'_>,
    findings: &mut Findings,
) -> Result<(), Abort> {
    match shape {
        Shape::Struct(id) => match value {
            Value::Object(map) => object(id.get(), map, place.path, findings)?,
            Value::Null => {
                let zero = id.get().always.iter().cloned().collect();
                *value = Value::Object(zero);
            }
            other => findings.wrong(place, kind(other)),
        },
        Shape::List(inner) => match value {
            Value::Array(items) => {
                let go_type = place.go_type.strip_prefix("[]").unwrap_or(place.go_type);
                for (i, item) in items.iter_mut().enumerate() {
                    let here = place.path.index(i);
                    let place = Place {
                        struct_name: place.struct_name,
                        path: &here,
                        go_type,
                    };
                    one(inner, item, &place, findings)?;
                }
            }
            Value::Null => {}
            other => findings.wrong(place, kind(other)),
        },
        Shape::Map(inner) => match value {
            Value::Object(entries) => {
                let go_type = place
                    .go_type
                    .strip_prefix("map[string]")
                    .unwrap_or(place.go_type);
                for (key, entry) in entries.iter_mut() {
                    let here = place.path.key(key);
                    let place = Place {
                        struct_name: place.struct_name,
                        path: &here,
                        go_type,
                    };
                    one(inner, entry, &place, findings)?;
                }
            }
            Value::Null => {}
            other => findings.wrong(place, kind(other)),
        },
        Shape::Scalar(kind) => scalar(*kind, value, place, findings)?,
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn scalar(
    scalar: Scalar,
    value: &mut Value,
    place: &Place<'_>,
    findings: &mut Findings,
) -> Result<(), Abort> {
    match (scalar, &*value) {
        (Scalar::Any, _)
        | (Scalar::String, Value::String(_))
        | (Scalar::Bool, Value::Bool(_))
        | (Scalar::Float, Value::Number(_))
        | (Scalar::IntOrString, Value::String(_))
        | (Scalar::Time | Scalar::MicroTime, Value::Null) => {}
        (Scalar::String | Scalar::Bytes, Value::Null) => *value = Value::from(""),
        (Scalar::Bool, Value::Null) => *value = Value::Bool(false),
        (Scalar::Int32 | Scalar::Int64 | Scalar::Float | Scalar::IntOrString, Value::Null) => {
            *value = Value::from(0);
        }
        (Scalar::Int32 | Scalar::IntOrString, Value::Number(n)) => {
            if n.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
                findings.wrong(place, &format!("number {n}"));
            }
        }
        (Scalar::Int64, Value::Number(n)) => {
            if !n.is_i64() {
                findings.wrong(place, &format!("number {n}"));
            }
        }
        (Scalar::Bytes, Value::String(text)) => {
            if let Some(canonical) = bytes(text)? {
                *value = Value::String(canonical);
            }
        }
        (Scalar::Quantity, Value::Null) => *value = Value::from("0"),
        (Scalar::Quantity, Value::String(text)) => {
            let canonical = quantity(text.trim())?;
            if canonical != *text {
                *value = Value::String(canonical);
            }
        }
        (Scalar::Quantity, other) => *value = Value::String(quantity(&other.to_string())?),
        (Scalar::Time, Value::String(text)) => {
            *value = Value::String(time(text).map_err(Abort)?);
        }
        (Scalar::MicroTime, Value::String(text)) => {
            *value = Value::String(micro_time(text).map_err(Abort)?);
        }
        (_, other) => findings.wrong(place, kind(other)),
    }
    Ok(())
}

fn quantity(text: &str) -> Result<String, Abort> {
    Quantity::parse(text)
        .map(|q| q.to_string())
        .map_err(|e| Abort(e.to_string()))
}

/// The canonical text of base64 data, `None` when it is already so.
fn bytes(text: &str) -> Result<Option<String>, Abort> {
    let engine = &base64::engine::general_purpose::STANDARD;
    if engine.decode(text).is_ok() {
        return Ok(None);
    }
    // Go's decoder passes over line ends.
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match engine.decode(&joined) {
        Ok(data) => Ok(Some(engine.encode(data))),
        Err(e) => {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    joined.len() / 4 * 4
                }
            };
            Err(Abort(format!("illegal base64 data at input byte {at}")))
        }
    }
}
