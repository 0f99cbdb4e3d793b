//! The live object with an applied object on top.

use serde_json::{Map, Value};

use super::{
    PathElement,
    types::{Atom, List, MapType, Type, as_list, as_map},
};
use crate::schema::Schema;

/// Merges `config` into `live`: what `config` has wins, what it lacks stays.
///
/// # Errors
/// Why a list of either cannot be merged.
pub(super) fn merge(ty: Type<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    Ok(merged(ty, Some(live), Some(config))?.unwrap_or_default())
}

/// Merges a configuration into an object without regard to who owns what. Nothing that is owned
/// as a whole may be in it: what it leaves out there would be lost.
///
/// # Errors
/// Why the two cannot be merged.
pub fn merge_configuration(
    schema: &Schema,
    object: &Value,
    configuration: &Value,
) -> Result<Value, String> {
    let (mut whole, mut unknown) = (vec![], vec![]);
    let found = (&mut whole, &mut unknown);
    atomics(Type::of(schema), configuration, String::new(), found);
    if !unknown.is_empty() {
        let all: Vec<String> = unknown
            .iter()
            .map(|path| format!("{path}: field not declared in schema"))
            .collect();
        return Err(format!(
            "failed to convert patch object to typed object: {}",
            all.join(", ")
        ));
    }
    if !whole.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            whole.join(", ")
        ));
    }
    merge(Type::of(schema), object, configuration)
        .map_err(|why| format!("failed to merge patch: {why}"))
}

/// The places in a value that are owned as a whole, and those that the schema does not know.
fn atomics(
    ty: Type<'_>,
    value: &Value,
    path: String,
    (found, unknown): (&mut Vec<String>, &mut Vec<String>),
) {
    match (ty.resolve(Some(value)), value) {
        (Atom::Map(map), Value::Object(members)) => {
            if map.atomic {
                found.push(path.clone());
            }
            for (name, member) in members {
                let path = format!("{path}.{name}");
                match map.field(name) {
                    None => unknown.push(path),
                    Some(field) if map.declares(name) => {
                        atomics(field, member, path, (found, unknown));
                    }
                    Some(_) => {}
                }
            }
        }
        (Atom::List(list), Value::Array(items)) => {
            if list.merge.is_none() {
                found.push(path.clone());
            }
            for (i, item) in items.iter().enumerate() {
                atomics(list.items, item, format!("{path}[{i}]"), (found, unknown));
            }
        }
        _ => {}
    }
}

fn merged(
    ty: Type<'_>,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Result<Option<Value>, String> {
    let Some(new) = config else {
        return Ok(live.cloned());
    };
    match ty.resolve(Some(new)) {
        Atom::Map(map) => merge_map(&map, live, new),
        Atom::List(list) => merge_list(&list, live, new),
        Atom::Scalar => Ok(Some(new.clone())),
    }
}

fn merge_map(
    map: &MapType<'_>,
    live: Option<&Value>,
    config: &Value,
) -> Result<Option<Value>, String> {
    let (old, new) = (as_map(live), as_map(Some(config)));
    let empty = |m: Option<&Map<String, Value>>| m.is_none_or(Map::is_empty);
    if map.atomic || (empty(old) && empty(new)) {
        return Ok(Some(config.clone()));
    }
    let mut out = Map::new();
    for (name, value) in old.into_iter().flatten() {
        let change = new.and_then(|m| m.get(name));
        let result = match map.field(name) {
            Some(ty) => merged(ty, Some(value), change)?,
            None => Some(change.unwrap_or(value).clone()),
        };
        if let Some(result) = result {
            out.insert(name.clone(), result);
        }
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_some_and(|m| m.contains_key(name)) {
            continue;
        }
        let result = match map.field(name) {
            Some(ty) => merged(ty, None, Some(value))?,
            None => Some(value.clone()),
        };
        if let Some(result) = result {
            out.insert(name.clone(), result);
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

fn elements(list: &List<'_>, items: &[Value]) -> Result<Vec<PathElement>, String> {
    items
        .iter()
        .enumerate()
        .map(|(i, item)| list.element(item).map_err(|e| format!("element {i}: {e}")))
        .collect()
}

/// Items of both lists in one order: the applied items keep theirs, and items that only the live
/// list has stay where they were between them.
fn merge_list(
    list: &List<'_>,
    live: Option<&Value>,
    config: &Value,
) -> Result<Option<Value>, String> {
    let (old, new) = (as_list(live), as_list(Some(config)));
    if list.merge.is_none() || (old.is_empty() && new.is_empty()) {
        return Ok(Some(config.clone()));
    }
    let (old_keys, new_keys) = (elements(list, old)?, elements(list, new)?);
    let find = |keys: &[PathElement], key: &PathElement| keys.iter().position(|k| k == key);
    for (i, key) in new_keys.iter().enumerate() {
        if find(&new_keys, key) != Some(i) {
            return Err(format!("duplicate entries for key {key}"));
        }
    }
    // An item that the live list has twice is replaced, not merged.
    let old_of = |key: &PathElement| {
        let first = find(&old_keys, key)?;
        let twice = old_keys[first + 1..].contains(key);
        if twice { None } else { old.get(first) }
    };
    let mut shared = new_keys.iter().filter(|k| find(&old_keys, k).is_some());
    let mut next_shared = shared.next();
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let mut taken = vec![false; new.len()];
    let (mut l, mut r) = (0, 0);
    while l < old.len() || r < new.len() {
        if let (Some(key), Some(other)) = (old_keys.get(l), new_keys.get(r)) {
            if key == other {
                taken[r] = true;
                out.extend(merged(list.items, old_of(key), new.get(r))?);
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            let shared_later =
                find(&new_keys, key).is_some() && next_shared.is_some_and(|next| next != key);
            if shared_later {
                l += 1;
                continue;
            }
        }
        if let Some(key) = old_keys.get(l) {
            match find(&new_keys, key) {
                None => {
                    out.extend(merged(list.items, old.get(l), None)?);
                    l += 1;
                    continue;
                }
                Some(at) if taken[at] => l += 1,
                Some(_) => {}
            }
        }
        if let Some(key) = new_keys.get(r) {
            taken[r] = true;
            out.extend(merged(list.items, old_of(key), new.get(r))?);
            r += 1;
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}
