//! How the schema sees a value under ownership: a scalar, a list or a map, merged or atomic.

use serde_json::{Map, Value};

use super::{FieldSet, PathElement};
use crate::schema::{Kind, ListType, Schema};

/// The type of a value.
#[derive(Clone, Copy)]
pub(super) enum Type<'a> {
    Schema(&'a Schema),
    /// No schema, and each field is owned on its own (custom resources that keep unknown fields):
    /// maps merge, lists are atomic.
    Deduced,
    /// No schema, and the value is owned as a whole.
    Opaque,
}

/// What a type makes of a value.
#[derive(Clone, Copy)]
pub(super) enum Atom<'a> {
    Scalar,
    List(List<'a>),
    Map(MapType<'a>),
}

#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    /// `None` for an atomic list.
    pub merge: Option<Merging<'a>>,
    pub items: Type<'a>,
}

/// How items of a list that merges are told apart.
#[derive(Clone, Copy)]
pub(super) enum Merging<'a> {
    Set,
    Keys(&'a [String]),
}

#[derive(Clone, Copy)]
pub(super) struct MapType<'a> {
    pub atomic: bool,
    fields: Fields<'a>,
}

#[derive(Clone, Copy)]
enum Fields<'a> {
    Schema(&'a Schema),
    All(Type<'a>),
}

impl<'a> Type<'a> {
    pub(super) fn resolve(self, value: Option<&Value>) -> Atom<'a> {
        let schema = match self {
            Type::Schema(schema) => schema,
            Type::Deduced | Type::Opaque => {
                return match value {
                    Some(Value::Array(_)) => Atom::List(List {
                        merge: None,
                        items: Type::Opaque,
                    }),
                    Some(Value::Object(_) | Value::Null) | None => Atom::Map(MapType {
                        atomic: matches!(self, Type::Opaque),
                        fields: Fields::All(self),
                    }),
                    Some(_) => Atom::Scalar,
                };
            }
        };
        match schema.kind {
            Kind::Object => Atom::Map(MapType {
                atomic: schema.atomic_map,
                fields: Fields::Schema(schema),
            }),
            Kind::Array => Atom::List(List {
                merge: match &schema.list_type {
                    ListType::Atomic => None,
                    ListType::Set => Some(Merging::Set),
                    ListType::Map(keys) => Some(Merging::Keys(keys)),
                },
                items: schema.item().map_or(Type::Opaque, Type::of),
            }),
            // Built-in types that hold any JSON are owned whole; in custom resources each field.
            Kind::Any if schema.source.is_some() && !schema.atomic_map => {
                Type::Deduced.resolve(value)
            }
            Kind::Any => Type::Opaque.resolve(value),
            Kind::String | Kind::Integer | Kind::Number | Kind::Boolean | Kind::IntOrString => {
                Atom::Scalar
            }
        }
    }

    pub(super) fn of(schema: &'a Schema) -> Self {
        Type::Schema(schema)
    }

    pub(super) fn schema(self) -> Option<&'a Schema> {
        match self {
            Type::Schema(schema) => Some(schema),
            _ => None,
        }
    }
}

impl<'a> MapType<'a> {
    /// The type of a member; `None` where the schema has no such field.
    pub(super) fn field(&self, name: &str) -> Option<Type<'a>> {
        match self.fields {
            Fields::All(element) => Some(element),
            Fields::Schema(schema) => match schema.field(name) {
                Some(field) => Some(Type::Schema(field)),
                None if schema.embedded_resource && is_object_header(name) => Some(Type::Opaque),
                None if schema.preserve_unknown => Some(Type::Deduced),
                None => None,
            },
        }
    }

    /// Whether the schema names the member, in contrast to keys of a free-form map.
    pub(super) fn declares(&self, name: &str) -> bool {
        match self.fields {
            Fields::All(_) => false,
            Fields::Schema(schema) => schema.properties.contains_key(name),
        }
    }

    pub(super) fn schema(&self) -> Option<&'a Schema> {
        match self.fields {
            Fields::All(_) => None,
            Fields::Schema(schema) => Some(schema),
        }
    }
}

fn is_object_header(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

impl List<'_> {
    /// The path element of an item of a list that merges.
    ///
    /// # Errors
    /// Why the item cannot be told apart.
    pub(super) fn element(&self, item: &Value) -> Result<PathElement, String> {
        match self.merge {
            None => Err("invalid indexing of non-associative list".to_owned()),
            Some(Merging::Set) => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => Err(
                    "associative list without keys has an element that's an explicit null"
                        .to_owned(),
                ),
                scalar => Ok(PathElement::Value(scalar.clone())),
            },
            Some(Merging::Keys(names)) => {
                let item = match item {
                    Value::Object(item) => item,
                    Value::Null => {
                        return Err(
                            "associative list with keys may not have a null element".to_owned()
                        );
                    }
                    _ => {
                        return Err(
                            "associative list with keys may not have non-map elements".to_owned()
                        );
                    }
                };
                let mut keys: Vec<(Box<str>, Value)> = Vec::with_capacity(names.len());
                for name in names {
                    if let Some(value) = item.get(name).or_else(|| self.default(name)) {
                        keys.push((name.as_str().into(), value.clone()));
                    }
                }
                if keys.is_empty() && !names.is_empty() {
                    let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                        names.join(" ")
                    ));
                }
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(PathElement::Key(keys))
            }
        }
    }

    fn default(&self, name: &str) -> Option<&Value> {
        self.items
            .schema()
            .and_then(|s| s.field(name))
            .and_then(|f| f.default.as_ref())
    }
}

/// A list that may be missing or `null`.
pub(super) fn as_list(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}

/// A map that may be missing or `null`.
pub(super) fn as_map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    match value {
        Some(Value::Object(map)) => Some(map),
        _ => None,
    }
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

/// All fields of an applied object: what its applier owns. Members that the schema names and that
/// hold others are not owned by themselves.
pub(super) fn fields_of(ty: Type<'_>, value: &Value) -> FieldSet {
    collect(ty, value).1
}

/// Whether the value is a member by itself, and the members below it.
fn collect(ty: Type<'_>, value: &Value) -> (bool, FieldSet) {
    let mut out = FieldSet::new();
    match ty.resolve(Some(value)) {
        Atom::Scalar => return (true, out),
        Atom::List(list) => {
            if list.merge.is_none() {
                return (true, out);
            }
            let items = as_list(Some(value));
            let elements: Vec<Option<PathElement>> =
                items.iter().map(|i| list.element(i).ok()).collect();
            for (item, element) in items.iter().zip(&elements) {
                let Some(element) = element else { continue };
                let twice = elements
                    .iter()
                    .filter(|e| e.as_ref() == Some(element))
                    .count()
                    > 1;
                let below = match twice {
                    true => FieldSet::new(),
                    false => collect(list.items, item).1,
                };
                out.push(element.clone(), true, below);
            }
        }
        Atom::Map(map) => {
            if map.atomic {
                return (true, out);
            }
            for (name, member) in as_map(Some(value)).into_iter().flatten() {
                let Some(ty) = map.field(name) else { continue };
                let (leaf, below) = collect(ty, member);
                let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                out.push(
                    PathElement::field(name),
                    leaf || empty || !map.declares(name),
                    below,
                );
            }
        }
    }
    out.sort();
    (false, out)
}

/// The set with every member that the schema names and under which something is owned.
pub(super) fn with_named_parents(ty: Type<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::with_capacity(set.nodes().len());
    for node in set.nodes() {
        let (declared, below) = match (&node.element, ty_at(ty)) {
            (PathElement::Field(name), Place::Map(map)) => (map.declares(name), map.field(name)),
            (_, Place::List(list)) => (false, Some(list.items)),
            _ => (false, None),
        };
        let children = match below {
            Some(below) => with_named_parents(below, &node.children),
            None => node.children.clone(),
        };
        let member = node.member || (declared && !node.children.is_empty());
        out.push(node.element.clone(), member, children);
    }
    out
}

/// The set after a list or map became atomic: who owned parts owns the whole.
pub(super) fn with_atomic_parents(ty: Type<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::with_capacity(set.nodes().len());
    for node in set.nodes() {
        let below = match (&node.element, ty_at(ty)) {
            (PathElement::Field(name), Place::Map(map)) => map.field(name),
            (_, Place::List(list)) => Some(list.items),
            _ => None,
        };
        let atomic = match below.map(ty_at) {
            Some(Place::Map(map)) => map.atomic && map.schema().is_some(),
            Some(Place::List(list)) => list.merge.is_none(),
            _ => false,
        };
        match below {
            Some(_) if atomic && !node.children.is_empty() => {
                out.push(node.element.clone(), true, FieldSet::new());
            }
            Some(below) => out.push(
                node.element.clone(),
                node.member,
                with_atomic_parents(below, &node.children),
            ),
            None => out.push(node.element.clone(), node.member, node.children.clone()),
        }
    }
    out
}

enum Place<'a> {
    Map(MapType<'a>),
    List(List<'a>),
    Leaf,
}

/// What a type is without a value to look at.
fn ty_at(ty: Type<'_>) -> Place<'_> {
    match ty.resolve(None) {
        Atom::Map(map) => Place::Map(map),
        Atom::List(list) => Place::List(list),
        Atom::Scalar => Place::Leaf,
    }
}

/// Whether an applied object has the form that its schema asks for.
///
/// # Errors
/// All faults in the words of `structured-merge-diff`.
pub(super) fn validate(ty: Type<'_>, value: &Value) -> Result<(), String> {
    let mut faults = Vec::new();
    check(ty, value, "", &mut faults);
    match faults.len() {
        0 => Ok(()),
        1 => Err(faults.swap_remove(0)),
        _ => Err(format!("errors:\n  {}", faults.join("\n  "))),
    }
}

fn check(ty: Type<'_>, value: &Value, path: &str, faults: &mut Vec<String>) {
    let mut fault = |why: String| faults.push(format!("{path}: {why}"));
    match ty.resolve(Some(value)) {
        Atom::Scalar => {
            if let Some(why) = scalar_fault(ty, value) {
                fault(why);
            }
        }
        Atom::List(list) => {
            let items = match value {
                Value::Array(items) => items,
                Value::Null => return,
                other => return fault(format!("expected list, got {}", boxed(other))),
            };
            let mut seen: Vec<PathElement> = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let element = match list.merge {
                    None => PathElement::Index(i as i64),
                    Some(_) => match list.element(item) {
                        Ok(element) => element,
                        Err(why) => {
                            faults.push(format!("{path}: element {i}: {why}"));
                            return;
                        }
                    },
                };
                if list.merge.is_some() && seen.contains(&element) {
                    faults.push(format!("{path}: duplicate entries for key {element}"));
                }
                check(list.items, item, &format!("{path}{element}"), faults);
                seen.push(element);
            }
        }
        Atom::Map(map) => {
            let members = match value {
                Value::Object(members) => members,
                Value::Null => return,
                other => return fault(format!("expected map, got {}", boxed(other))),
            };
            for (name, member) in members {
                let path = format!("{path}.{name}");
                match map.field(name) {
                    Some(ty) => check(ty, member, &path, faults),
                    None => {
                        faults.push(format!("{path}: field not declared in schema"));
                        return;
                    }
                }
            }
        }
    }
}

fn scalar_fault(ty: Type<'_>, value: &Value) -> Option<String> {
    let schema = ty.schema()?;
    let go_type = || match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let composite = value.is_array() || value.is_object();
    match schema.kind {
        _ if value.is_null() => None,
        Kind::Integer | Kind::Number if !value.is_number() => Some(format!(
            "expected numeric (int or float), got {}",
            go_type()
        )),
        Kind::Boolean if !value.is_boolean() => {
            Some(format!("expected boolean, got {}", boxed(value)))
        }
        Kind::String if schema.any_scalar && composite => {
            Some(format!("expected any scalar, got {}", boxed(value)))
        }
        Kind::String if !schema.any_scalar && !value.is_string() => Some(format!(
            "expected string, got &value.valueUnstructured{{Value:{value}}}"
        )),
        Kind::IntOrString if composite => {
            Some(format!("expected any scalar, got {}", boxed(value)))
        }
        _ => None,
    }
}

/// Go prints the box around the value too.
fn boxed(value: &Value) -> String {
    match value {
        Value::String(s) => format!("&{{{s}}}"),
        other => format!("&{{{other}}}"),
    }
}
