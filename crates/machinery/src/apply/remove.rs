//! An object without some of its fields.

use serde_json::{Map, Value};

use super::{
    FieldSet, PathElement,
    types::{Atom, Type},
};

/// The value without the fields of the set. A map or list that loses all it has becomes `null`, as
/// does one that is atomic and of which parts should go.
pub(super) fn without(ty: Type<'_>, value: &Value, fields: &FieldSet) -> Value {
    if fields.is_empty() {
        return value.clone();
    }
    match (ty.resolve(Some(value)), value) {
        (Atom::Scalar, _) => value.clone(),
        (Atom::List(list), Value::Array(items)) => {
            if list.merge.is_none() {
                return Value::Null;
            }
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let Ok(element) = list.element(item) else {
                    kept.push(item.clone());
                    continue;
                };
                if fields.has(&element) {
                    continue;
                }
                kept.push(match fields.below(&element) {
                    Some(below) => without(list.items, item, below),
                    None => item.clone(),
                });
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        (Atom::Map(map), Value::Object(members)) => {
            if map.atomic {
                return Value::Null;
            }
            let mut kept = Map::new();
            for (name, member) in members {
                let element = PathElement::field(name);
                if fields.has(&element) {
                    continue;
                }
                let left = match (fields.below(&element), map.field(name)) {
                    (Some(below), Some(ty)) => without(ty, member, below),
                    _ => member.clone(),
                };
                kept.insert(name.clone(), left);
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        _ => Value::Null,
    }
}
