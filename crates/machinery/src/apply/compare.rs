//! What changed between two objects, as sets of fields.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::{
    FieldSet, PathElement,
    types::{Atom, List, MapType, Type, as_list, as_map, equal},
};
use crate::{
    schema::{Link, Schema},
    shape,
};

/// The change from one object to another. No field is in two of the sets.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub removed: FieldSet,
    pub modified: FieldSet,
    pub added: FieldSet,
}

impl Comparison {
    /// Fields that are new or have another value.
    pub(super) fn written(&self) -> FieldSet {
        self.modified.union(&self.added)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Modified,
    Added,
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// Compares two objects; `old` is `None` before the object exists.
///
/// Go's types have fields that are there even when nothing set them: structs held by value, and
/// members that are written out although they are zero. Such a field is no addition when it is
/// first set, so the walk puts Go's zero in the place of a missing one.
pub(super) fn compare(schema: &Schema, old: Option<&Value>, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    let old = old.unwrap_or(&EMPTY);
    diff(Type::of(schema), Some(old), Some(new), &mut out);
    out
}

/// The change of the value itself; what changed inside goes to `out`.
fn diff(
    ty: Type<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Comparison,
) -> Option<Change> {
    match (old, new) {
        (None, None) => None,
        (None, Some(new)) => {
            out.added = everything(ty, new);
            Some(Change::Added)
        }
        (Some(old), None) => {
            out.removed = everything(ty, old);
            Some(Change::Removed)
        }
        (Some(old), Some(new)) => match (ty.resolve(Some(old)), ty.resolve(Some(new))) {
            (Atom::Map(map), Atom::Map(_)) => diff_map(map, old, new, out),
            (Atom::List(list), Atom::List(_)) => diff_list(list, old, new, out),
            (Atom::Scalar, Atom::Scalar) => leaf(old, new),
            // A value without schema changed its form: the parts of either form come and go.
            _ => {
                out.removed = everything(ty, old);
                out.added = everything(ty, new);
                Some(Change::Modified)
            }
        },
    }
}

fn leaf(old: &Value, new: &Value) -> Option<Change> {
    (!equal(old, new)).then_some(Change::Modified)
}

fn diff_map(map: MapType<'_>, old: &Value, new: &Value, out: &mut Comparison) -> Option<Change> {
    let (before, after) = (as_map(Some(old)), as_map(Some(new)));
    let empty = |m: Option<&Map<String, Value>>| m.is_none_or(Map::is_empty);
    if map.atomic || (empty(before) && empty(after)) {
        return leaf(old, new);
    }
    // In a Go type `null` is how a missing list or map is written.
    let custom = map.schema().is_none_or(|s| s.source.is_some());
    for (name, value) in after.into_iter().flatten() {
        let old = before.and_then(|m| m.get(name));
        // Most of an object does not change: telling so needs no schema.
        if old == Some(value) {
            continue;
        }
        let Some(ty) = map.field(name) else { continue };
        let old = old.or_else(|| zero(&map, name));
        if old.is_none() && value.is_null() && !custom {
            continue;
        }
        child(ty, old, Some(value), out, || PathElement::field(name));
    }
    for (name, value) in before.into_iter().flatten() {
        if after.is_some_and(|m| m.contains_key(name)) {
            continue;
        }
        let Some(ty) = map.field(name) else { continue };
        let new = zero(&map, name);
        if new.is_none() && value.is_null() && !custom {
            continue;
        }
        child(ty, Some(value), new, out, || PathElement::field(name));
    }
    finish(out);
    None
}

/// What Go holds in a field that was not given, where it holds something.
fn zero(map: &MapType<'_>, name: &str) -> Option<&'static Value> {
    let owner = map.schema()?;
    let id = owner.type_id.or(owner.refines)?;
    let go = shape::of(&Link::Builtin(id))?.get();
    go.always.iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

fn diff_list(list: List<'_>, old: &Value, new: &Value, out: &mut Comparison) -> Option<Change> {
    let (before, after) = (as_list(Some(old)), as_list(Some(new)));
    if list.merge.is_none() || (before.is_empty() && after.is_empty()) {
        return leaf(old, new);
    }
    if before == after {
        return None;
    }
    let before = by_element(&list, before);
    let after = by_element(&list, after);
    // Both are sorted by element: join them, a run of equal elements at a time.
    let (mut l, mut r) = (before.as_slice(), after.as_slice());
    while let Some(element) = match (l.first(), r.first()) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { &a.0 } else { &b.0 }),
        (Some(a), None) => Some(&a.0),
        (None, Some(b)) => Some(&b.0),
        (None, None) => None,
    } {
        let run = |items: &[(PathElement, &Value)]| {
            items.iter().take_while(|(e, _)| e == element).count()
        };
        let (olds, left) = l.split_at(run(l));
        let (news, right) = r.split_at(run(r));
        match (olds.len(), news.len()) {
            (0 | 1, 0 | 1) => child(
                list.items,
                olds.first().map(|(_, v)| *v),
                news.first().map(|(_, v)| *v),
                out,
                || element.clone(),
            ),
            // Items that cannot be told apart are compared and owned together.
            (2.., 2..) => {
                let same =
                    olds.len() == news.len() && olds.iter().zip(news).all(|(a, b)| equal(a.1, b.1));
                if !same {
                    out.modified.push(element.clone(), true, FieldSet::new());
                }
            }
            (2.., _) => {
                if let Some((_, new)) = news.first() {
                    child(list.items, None, Some(new), out, || element.clone());
                }
                out.removed.push(element.clone(), true, FieldSet::new());
            }
            (_, _) => {
                if let Some((_, old)) = olds.first() {
                    child(list.items, Some(old), None, out, || element.clone());
                }
                out.added.push(element.clone(), true, FieldSet::new());
            }
        }
        (l, r) = (left, right);
    }
    finish(out);
    None
}

/// Items with their elements, sorted; items in no form to have one are left out.
fn by_element<'v>(list: &List<'_>, items: &'v [Value]) -> Vec<(PathElement, &'v Value)> {
    let mut all: Vec<(PathElement, &Value)> = items
        .iter()
        .filter_map(|i| list.element(i).ok().map(|e| (e, i)))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn child(
    ty: Type<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Comparison,
    element: impl Fn() -> PathElement,
) {
    let mut inner = Comparison::default();
    let change = diff(ty, old, new, &mut inner);
    let put = |set: &mut FieldSet, below: FieldSet, kind: Change| {
        let member = change == Some(kind);
        if member || !below.is_empty() {
            set.push(element(), member, below);
        }
    };
    put(&mut out.removed, inner.removed, Change::Removed);
    put(&mut out.modified, inner.modified, Change::Modified);
    put(&mut out.added, inner.added, Change::Added);
}

fn finish(out: &mut Comparison) {
    out.removed.sort();
    out.modified.sort();
    out.added.sort();
}

/// All fields of a value that came or went as a whole: every level is a member.
fn everything(ty: Type<'_>, value: &Value) -> FieldSet {
    let mut out = FieldSet::new();
    match ty.resolve(Some(value)) {
        Atom::Scalar => {}
        Atom::Map(map) => {
            if map.atomic {
                return out;
            }
            let Some(members) = as_map(Some(value)) else {
                return out;
            };
            out = FieldSet::with_capacity(members.len());
            for (name, member) in members {
                if let Some(ty) = map.field(name) {
                    out.push(PathElement::field(name), true, everything(ty, member));
                }
            }
        }
        Atom::List(list) => {
            if list.merge.is_none() {
                return out;
            }
            let items = by_element(&list, as_list(Some(value)));
            for (i, (element, item)) in items.iter().enumerate() {
                let same = |j: Option<usize>| {
                    j.and_then(|j| items.get(j))
                        .is_some_and(|o| o.0 == *element)
                };
                let below = if same(i.checked_sub(1)) || same(Some(i + 1)) {
                    FieldSet::new()
                } else {
                    everything(list.items, item)
                };
                out.push(element.clone(), true, below);
            }
        }
    }
    out.sort();
    out
}
