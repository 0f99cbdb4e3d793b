//! Strategic merge patch: a merge patch in which the schema says which lists merge, and by which
//! key, and in which directives in the patch delete, replace and order.
//!
//! Semantics and error texts are those of `k8s.io/apimachinery/pkg/util/strategicpatch` with
//! parallel lists merged and unmatched nulls ignored, which is how the API server calls it.

use serde_json::{Map, Value};

use super::{golang, json, remove, without_nulls};
use crate::{
    schema::Schema,
    status::{Details, Failure},
};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// What went wrong, before it is dressed as a Status.
enum Fault {
    /// The patch is not in the format of strategic merge patches: 400.
    Format(&'static str),
    /// A list of lists, which no strategy can merge: 422.
    Content,
    /// All else. The API server answers 500 although the patch is to blame.
    Other(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Format(message) => Failure::new(400, "BadRequest", message),
            // The API server keeps the reason to itself here.
            Fault::Content => Failure::new(
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
            )
            .with_details(Details::default()),
            Fault::Other(message) => Failure::new(500, "", message),
        }
    }
}

const BAD_PRIMITIVE_LIST: Fault = Fault::Format("invalid patch format of primitive list");
const BAD_RETAIN_KEYS: Fault = Fault::Format("invalid patch format of retainKeys");
const BAD_ORDER: Fault = Fault::Format("invalid patch format of setElementOrder list");

/// Merges `patch` into `target`, both of the type that `schema` describes.
///
/// # Errors
/// 400 for a patch that is no object or has a directive in the wrong form, 422 and 500 as the API
/// server answers them (an unknown `$patch` value, a list item without its merge key, …).
pub fn strategic(schema: &Schema, target: Value, patch: Value) -> Result<Value, Failure> {
    let Value::Object(patch) = patch else {
        return Err(json::not_an_object(&patch));
    };
    let target = match target {
        Value::Object(target) => target,
        _ => Object::new(),
    };
    Ok(Value::Object(merge_map(Some(schema), target, patch)?))
}

/// Equality in which `1` and `1.0` are the same number.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

/// The field's strategy besides `retainKeys`, and its merge key.
fn strategy(schema: Option<&Schema>) -> (&str, &str) {
    let Some(schema) = schema else {
        return ("", "");
    };
    let strategy = schema
        .patch_strategies
        .iter()
        .find(|s| *s != "retainKeys")
        .map_or("", String::as_str);
    (strategy, schema.patch_merge_key.as_deref().unwrap_or(""))
}

fn merge_map(
    schema: Option<&Schema>,
    mut original: Object,
    mut patch: Object,
) -> Result<Object, Fault> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                remove(&mut patch, DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_patch_type(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(schema, &mut original, &mut patch)?;
    for (key, change) in patch {
        let deletes = key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
        let key = match deletes {
            true => after_slash(&key, DELETE_FROM_PRIMITIVE_LIST).ok_or(BAD_PRIMITIVE_LIST)?,
            false => key,
        };
        if change.is_null() {
            remove(&mut original, &key);
            continue;
        }
        let field = schema.and_then(|s| s.field(&key));
        let merged = match (original.get_mut(&key), change) {
            (Some(slot @ Value::Object(_)), Value::Object(change)) => {
                let Value::Object(old) = slot.take() else {
                    continue;
                };
                match strategy(field).0 {
                    "replace" => Value::Object(change),
                    _ => Value::Object(merge_map(field, old, change)?),
                }
            }
            (Some(slot @ Value::Array(_)), Value::Array(change)) => {
                let Value::Array(old) = slot.take() else {
                    continue;
                };
                Value::Array(merge_list(field, old, change, deletes)?)
            }
            _ if deletes => continue,
            (_, change) => match without_directives(without_nulls(change)) {
                Some(value) => value,
                None => {
                    remove(&mut original, &key);
                    continue;
                }
            },
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn bad_patch_type(directive: &Value, patch: &Object) -> Fault {
    Fault::Other(format!(
        "unknown patch type: {} in map: {}",
        golang::print(directive),
        golang::print(&Value::Object(patch.clone()))
    ))
}

fn no_merge_key(item: &Value, key: &str) -> Fault {
    Fault::Other(format!(
        "map: {} does not contain declared merge key: {key}",
        golang::print(item)
    ))
}

fn bad_type(expected: &str, found: &Value) -> Fault {
    Fault::Other(format!(
        "expected a {expected}, but received a {}",
        golang::type_name(found)
    ))
}

/// `name` of `$prefix/name`.
fn after_slash(key: &str, prefix: &str) -> Option<String> {
    key.split_once('/')
        .filter(|(before, _)| *before == prefix)
        .map(|(_, name)| name.to_owned())
}

/// `$retainKeys: [a, b]` removes every other member of the original, and the patch may set no
/// others: how a union changes its arm.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Fault> {
    let Some(keys) = remove(patch, RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(BAD_RETAIN_KEYS);
    };
    let kept = |name: &str| keys.iter().any(|k| k.as_str() == Some(name));
    for (name, value) in patch.iter() {
        let directive =
            name.starts_with(DELETE_FROM_PRIMITIVE_LIST) || name.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !directive && !kept(name) {
            return Err(BAD_RETAIN_KEYS);
        }
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

/// Carries out `$setElementOrder/list` together with the list's own patch.
fn order_lists(
    schema: Option<&Schema>,
    original: &mut Object,
    patch: &mut Object,
) -> Result<(), Fault> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let order = match remove(patch, &directive) {
            Some(Value::Array(order)) => order,
            Some(other) => return Err(bad_type("[]interface {}", &other)),
            None => continue,
        };
        let name = after_slash(&directive, SET_ELEMENT_ORDER).ok_or(BAD_ORDER)?;
        let list = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(a)) => Ok(Some(a.clone())),
            Some(other) => Err(bad_type("[]interface {}", other)),
        };
        let old = list(original.get(&name))?;
        let change = list(patch.get(&name))?;
        let field = schema.and_then(|s| s.field(&name));
        let (_, merge_key) = strategy(field);
        check_order(change.as_deref().unwrap_or_default(), &order, merge_key)?;
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, change) {
            (Some(old), None) => old,
            (None, Some(change)) => match without_directives(Value::Array(change)) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(old), Some(change)) => {
                if strategy(field).0 == "merge" {
                    merge_items(field, old, change, merge_key, false)?
                } else {
                    change
                }
            }
            (None, None) => continue,
        };
        let (in_order, others) = partition(merged, &order, merge_key)?;
        // Types are checked over what was there and what came, as one list.
        let kind = element_type(&[&server_order, &in_order])?;
        let both = arrange(in_order, others, &order, &server_order, merge_key, kind)?;
        original.insert(name.clone(), Value::Array(both));
        remove(patch, &name);
    }
    Ok(())
}

/// The patch's items must come in the order that `$setElementOrder` names.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), Fault> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut at = 0;
    for item in patch {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        loop {
            let Some(expected) = order.get(at) else {
                return Err(Fault::Other(format!(
                    "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                    golang::print(&Value::Array(patch.to_vec())),
                    golang::print(&Value::Array(order.to_vec())),
                )));
            };
            at += 1;
            let same = if merge_key.is_empty() {
                item == expected
            } else {
                let of = |v: &Value| -> Result<Value, Fault> {
                    match v {
                        Value::Object(o) => o
                            .get(merge_key)
                            .cloned()
                            .ok_or_else(|| no_merge_key(v, merge_key)),
                        other => Err(bad_type("map[string]interface {}", other)),
                    }
                };
                of(item)? == of(expected)?
            };
            if same {
                break;
            }
        }
    }
    Ok(())
}

fn merge_list(
    field: Option<&Schema>,
    original: Vec<Value>,
    patch: Vec<Value>,
    deletes: bool,
) -> Result<Vec<Value>, Fault> {
    let (strategy, merge_key) = strategy(field);
    if strategy == "merge" || deletes {
        merge_items(field, original, patch, merge_key, deletes)
    } else {
        Ok(patch)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Map,
    Scalar,
}

/// The one type of all items.
fn element_type(lists: &[&[Value]]) -> Result<Element, Fault> {
    let mut first: Option<&Value> = None;
    for item in lists.iter().flat_map(|l| l.iter()) {
        match first {
            None if item.is_array() => {
                return Err(Fault::Content);
            }
            None => first = Some(item),
            Some(first) if golang::type_name(first) == golang::type_name(item) => {}
            Some(_) => {
                let all = lists.iter().map(|l| Value::Array(l.to_vec())).collect();
                return Err(Fault::Other(format!(
                    "list element types are not identical: {}",
                    golang::print(&Value::Array(all))
                )));
            }
        }
    }
    match first {
        Some(Value::Object(_)) => Ok(Element::Map),
        Some(_) => Ok(Element::Scalar),
        None => Err(Fault::Other(
            "no elements in any of the given slices".to_owned(),
        )),
    }
}

fn merge_items(
    field: Option<&Schema>,
    original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
    deletes: bool,
) -> Result<Vec<Value>, Fault> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let kind = element_type(&[&original, &patch])?;
    if kind == Element::Scalar {
        if deletes {
            return Ok(original
                .into_iter()
                .filter(|v| !patch.contains(v))
                .collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        let (from_patch, others) = partition(merged, &patch, merge_key)?;
        return arrange(from_patch, others, &patch, &original, merge_key, kind);
    }
    if merge_key.is_empty() {
        return Err(Fault::Other(
            "cannot merge lists without merge key for struct".to_owned(),
        ));
    }
    let (original, patch) = item_directives(original, patch, merge_key)?;
    let items = field.and_then(Schema::item);
    let mut merged = original.clone();
    for change in &patch {
        let key = change
            .get(merge_key)
            .ok_or_else(|| no_merge_key(change, merge_key))?;
        let Value::Object(change_map) = change else {
            continue;
        };
        match merged.iter_mut().find(|v| v.get(merge_key) == Some(key)) {
            Some(slot) => {
                let Value::Object(old) = slot.take() else {
                    continue;
                };
                *slot = Value::Object(merge_map(items, old, change_map.clone())?);
            }
            None => merged.push(change.clone()),
        }
    }
    let (from_patch, others) = partition(merged, &patch, merge_key)?;
    arrange(from_patch, others, &patch, &original, merge_key, kind)
}

/// Carries out `$patch` in list items: `delete` removes the item with the same key, `replace`
/// drops all old items. What is left is the list and the items still to be merged.
fn item_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let key = item
                    .get(merge_key)
                    .ok_or_else(|| no_merge_key(&item, merge_key))?;
                original.retain(|v| v.get(merge_key) != Some(key));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Fault::Other(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => match &item {
                Value::Object(map) => return Err(bad_patch_type(directive, map)),
                _ => return Err(bad_type("map[string]interface {}", &item)),
            },
        }
    }
    if replace {
        // What stays is a list of its own: nothing is left to merge into it.
        return Ok((plain, Vec::new()));
    }
    Ok((original, plain))
}

/// Items that are in `by`, and the others.
fn partition(
    items: Vec<Value>,
    by: &[Value],
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    let mut inside = Vec::with_capacity(by.len());
    let mut outside = Vec::new();
    for item in items {
        let found = if merge_key.is_empty() {
            by.contains(&item)
        } else {
            if !item.is_object() {
                return Err(bad_type("map[string]interface {}", &item));
            }
            let key = item
                .get(merge_key)
                .ok_or_else(|| no_merge_key(&item, merge_key))?;
            by.iter().any(|v| v.get(merge_key) == Some(key))
        };
        if found {
            inside.push(item);
        } else {
            outside.push(item);
        }
    }
    Ok((inside, outside))
}

/// The merged list: items of the patch in the patch's order, items that only the server had in the
/// server's order; where the server knew both, its order decides between the two.
fn arrange(
    from_patch: Vec<Value>,
    others: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: &str,
    kind: Element,
) -> Result<Vec<Value>, Fault> {
    if kind == Element::Map {
        for item in from_patch.iter().chain(&others).chain(patch_order) {
            if item.get(merge_key).is_none() {
                return Err(no_merge_key(item, merge_key));
            }
        }
    }
    let position = |order: &[Value], item: &Value| {
        order.iter().position(|v| match kind {
            Element::Map => v.get(merge_key) == item.get(merge_key),
            Element::Scalar => v == item,
        })
    };
    let sorted = |items: Vec<Value>, order: &[Value]| {
        let mut placed: Vec<(usize, Value)> = items
            .into_iter()
            .map(|v| (position(order, &v).unwrap_or(usize::MAX), v))
            .collect();
        placed.sort_by_key(|(at, _)| *at);
        placed.into_iter().map(|(_, v)| v)
    };
    let mut left = sorted(others, server_order).peekable();
    let mut right = sorted(from_patch, patch_order).peekable();
    let mut all = Vec::with_capacity(left.len() + right.len());
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => matches!(
                (position(server_order, l), position(server_order, r)),
                (Some(l), Some(r)) if l < r
            ),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return Ok(all),
        };
        all.extend(if take_left { left.next() } else { right.next() });
    }
}

/// The value without objects that carry a directive: those only make sense against an old value.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(o) if o.contains_key(DIRECTIVE) => None,
        Value::Object(o) => Some(Value::Object(
            o.into_iter()
                .filter(|(k, _)| !is_directive(k))
                .filter_map(|(k, v)| without_directives(v).map(|v| (k, v)))
                .collect(),
        )),
        Value::Array(a) => Some(Value::Array(
            a.into_iter().filter_map(without_directives).collect(),
        )),
        other => Some(other),
    }
}

/// Members that tell how to merge, of which nothing is left to do.
fn is_directive(name: &str) -> bool {
    name == RETAIN_KEYS
        || name.starts_with(SET_ELEMENT_ORDER)
        || name.starts_with(DELETE_FROM_PRIMITIVE_LIST)
}

#[cfg(test)]
mod tests;
