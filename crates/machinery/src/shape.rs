//! How Go sees the built-in types: which fields are pointers, which are left out when empty, what
//! their Go types are called. Kubernetes decodes into Go structs and encodes them again, and this
//! round trip is part of its behaviour: it drops unknown fields and nulls, leaves out empty
//! optional values and fills in mandatory ones.
//!
//! The facts come from `data/wire.json` (one letter a field) beside the schema table.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use crate::{
    defaults,
    schema::{self, Kind, Link, Schema, TypeId},
};

/// How a field is written when it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// A value with `omitempty`: left out when zero (also maps and lists).
    Omit,
    /// A value that is always written (also lists and maps: as `null` when empty).
    Always,
    /// A struct value: always written, if only as `{}`.
    Struct,
    /// A struct value with `omitzero`.
    OmitZero,
    /// A pointer: written when it was given, whatever its value.
    Pointer,
    /// A pointer without `omitempty`: `null` when not given.
    NullablePointer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    Bytes,
    Quantity,
    /// RFC 3339, written in whole seconds.
    Time,
    /// RFC 3339 with exactly six digits of a second.
    MicroTime,
    IntOrString,
    /// Any JSON.
    Any,
}

#[derive(Debug)]
pub enum Shape {
    Struct(StructId),
    Map(Box<Shape>),
    List(Box<Shape>),
    Scalar(Scalar),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StructId(u32);

impl StructId {
    pub fn get(self) -> &'static Struct {
        static EMPTY: OnceLock<Struct> = OnceLock::new();
        table()
            .structs
            .get(self.0 as usize)
            .unwrap_or_else(|| EMPTY.get_or_init(Struct::default))
    }
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub wire: Wire,
    /// `v1.PullPolicy`, `[]v1.Container`: as error messages name it.
    pub go_type: String,
    pub shape: Shape,
}

#[derive(Debug, Default)]
pub struct Struct {
    /// `io.k8s.api.core.v1.Container`
    pub name: String,
    /// `Container`
    pub go_name: String,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Places in `fields`, by length of the name and then by name: names are looked up for every
    /// field of every object, and few of one type are equally long.
    by_length: Box<[u16]>,
    /// Fields written even when nobody gave them, with what they then hold.
    pub always: Vec<(String, Value)>,
    /// Values of fields nobody gave.
    pub defaults: Vec<(String, Value)>,
    /// Values that depend on others.
    pub compute: Option<defaults::Compute>,
    /// Whether this type or any below it has defaults.
    pub defaulted: bool,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let named = |at: &u16| self.fields.get(usize::from(*at)).map_or("", |f| &f.name);
        let found = self.by_length.binary_search_by(|at| {
            let other = named(at);
            let length = other.len().cmp(&name.len());
            length.then_with(|| other.cmp(name))
        });
        let at = self.by_length.get(found.ok()?)?;
        self.fields.get(usize::from(*at))
    }
}

struct Table {
    structs: Vec<Struct>,
    by_name: FxHashMap<String, StructId>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(load)
}

/// The struct of a built-in type by its OpenAPI name.
pub fn by_name(name: &str) -> Option<StructId> {
    table().by_name.get(name).copied()
}

/// The struct of a resource's objects; `None` for custom resources.
pub fn of(link: &Link) -> Option<StructId> {
    match link {
        Link::Builtin(id) => by_name(schema::type_name(*id)),
        Link::Owned(_) => None,
    }
}

pub fn object_meta() -> Option<StructId> {
    by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

fn load() -> Table {
    // The table is part of the binary: a build with a broken one fails every test.
    let rows: FxHashMap<String, String> =
        serde_json::from_str(include_str!("../data/wire.json")).unwrap_or_default();
    let types: Vec<(&str, &'static Schema)> = schema::builtin_types().collect();
    let mut by_name = FxHashMap::default();
    for (name, schema) in &types {
        if schema.kind == Kind::Object && rows.contains_key(*name) {
            by_name.insert((*name).to_owned(), StructId(by_name.len() as u32));
        }
    }
    let mut structs = Vec::with_capacity(by_name.len());
    for (name, schema) in &types {
        if let (true, Some(row)) = (by_name.contains_key(*name), rows.get(*name)) {
            structs.push(build(name, schema, row, &by_name));
        }
    }
    for i in 0..structs.len() {
        structs[i].always = always(i, &structs);
    }
    defaults::attach(&mut structs);
    // A type needs a visit when one below it does; types refer to themselves, so until it settles.
    loop {
        let mut changed = false;
        for i in 0..structs.len() {
            if structs[i].defaulted {
                continue;
            }
            let s = &structs[i];
            let own = !s.defaults.is_empty() || s.compute.is_some();
            if own || s.fields.iter().any(|f| reaches(&f.shape, &structs)) {
                structs[i].defaulted = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    Table { structs, by_name }
}

fn reaches(shape: &Shape, structs: &[Struct]) -> bool {
    match shape {
        Shape::Struct(id) => structs[id.0 as usize].defaulted,
        Shape::Map(inner) | Shape::List(inner) => reaches(inner, structs),
        Shape::Scalar(_) => false,
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn build(name: &str, schema: &Schema, row: &str, ids: &FxHashMap<String, StructId>) -> Struct {
    let mut fields: Vec<Field> = row
        .split(' ')
        .filter_map(|entry| {
            let (field, facts) = entry.split_once('=')?;
            let (wire, go_type) = facts.split_once(':').unwrap_or((facts, ""));
            let link = schema.properties.get(field)?;
            let shape = shape_of(link, ids);
            Some(Field {
                wire: match wire {
                    "o" => Wire::Omit,
                    "v" | "n" => Wire::Always,
                    "s" => Wire::Struct,
                    "z" => Wire::OmitZero,
                    "q" => Wire::NullablePointer,
                    _ => Wire::Pointer,
                },
                go_type: if go_type.is_empty() {
                    go_type_of(&shape, link)
                } else {
                    go_type.to_owned()
                },
                name: field.to_owned(),
                shape,
            })
        })
        .collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let count = u16::try_from(fields.len()).unwrap_or(u16::MAX);
    let mut by_length: Box<[u16]> = (0..count).collect();
    by_length.sort_by_key(|at| {
        let name = fields[usize::from(*at)].name.as_str();
        (name.len(), name)
    });
    Struct {
        name: name.to_owned(),
        go_name: last(name).to_owned(),
        fields,
        by_length,
        ..Struct::default()
    }
}

/// The built-in type a field refers to, be it through a copy that refines it.
fn type_of(link: &Link) -> Option<TypeId> {
    match link {
        Link::Builtin(id) => Some(*id),
        Link::Owned(schema) => schema.refines,
    }
}

fn shape_of(link: &Link, ids: &FxHashMap<String, StructId>) -> Shape {
    if let Some(id) = type_of(link) {
        let name = schema::type_name(id);
        match last(name) {
            "Quantity" => return Shape::Scalar(Scalar::Quantity),
            "Time" => return Shape::Scalar(Scalar::Time),
            "MicroTime" => return Shape::Scalar(Scalar::MicroTime),
            "IntOrString" => return Shape::Scalar(Scalar::IntOrString),
            "FieldsV1" => return Shape::Scalar(Scalar::Any),
            _ => {}
        }
        if let Some(id) = ids.get(name) {
            return Shape::Struct(*id);
        }
    }
    let schema = link.get();
    let inner = |l: &Option<Link>| {
        Box::new(
            l.as_ref()
                .map_or(Shape::Scalar(Scalar::Any), |l| shape_of(l, ids)),
        )
    };
    match schema.kind {
        Kind::Object if schema.additional.is_some() => Shape::Map(inner(&schema.additional)),
        Kind::Object => Shape::Scalar(Scalar::Any),
        Kind::Array => Shape::List(inner(&schema.items)),
        Kind::String if schema.format.as_deref() == Some("byte") => Shape::Scalar(Scalar::Bytes),
        Kind::String => Shape::Scalar(Scalar::String),
        Kind::Integer if schema.format.as_deref() == Some("int32") => Shape::Scalar(Scalar::Int32),
        Kind::Integer => Shape::Scalar(Scalar::Int64),
        Kind::Number => Shape::Scalar(Scalar::Float),
        Kind::Boolean => Shape::Scalar(Scalar::Bool),
        Kind::IntOrString => Shape::Scalar(Scalar::IntOrString),
        Kind::Any => Shape::Scalar(Scalar::Any),
    }
}

fn go_type_of(shape: &Shape, link: &Link) -> String {
    let of = |inner: &Option<Link>, shape: &Shape| {
        inner
            .as_ref()
            .map_or_else(String::new, |l| go_type_of(shape, l))
    };
    match shape {
        Shape::Struct(_) => match type_of(link) {
            Some(id) => {
                let mut parts = schema::type_name(id).rsplit('.');
                let (name, version) = (parts.next(), parts.next());
                format!("{}.{}", version.unwrap_or("v1"), name.unwrap_or(""))
            }
            None => "struct".into(),
        },
        Shape::Map(inner) => format!("map[string]{}", of(&link.get().additional, inner)),
        Shape::List(inner) => format!("[]{}", of(&link.get().items, inner)),
        Shape::Scalar(scalar) => match scalar {
            Scalar::String => "string",
            Scalar::Bool => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Float => "float64",
            Scalar::Bytes => "[]uint8",
            Scalar::Quantity => "resource.Quantity",
            Scalar::Time => "string",
            Scalar::MicroTime => "string",
            Scalar::IntOrString => "int32",
            Scalar::Any => "interface {}",
        }
        .into(),
    }
}

/// What a shape holds when nobody gave anything.
fn zero(shape: &Shape, structs: &[Struct]) -> Value {
    match shape {
        Shape::Struct(id) => Value::Object(
            always(id.0 as usize, structs)
                .into_iter()
                .collect::<Map<_, _>>(),
        ),
        Shape::Map(_) | Shape::List(_) => Value::Null,
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Bytes => Value::from(""),
            Scalar::Bool => Value::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::Float | Scalar::IntOrString => Value::from(0),
            Scalar::Quantity => Value::from("0"),
            Scalar::Time | Scalar::MicroTime | Scalar::Any => Value::Null,
        },
    }
}

/// Value structs nest in each other, never in themselves, so this ends.
fn always(index: usize, structs: &[Struct]) -> Vec<(String, Value)> {
    structs[index]
        .fields
        .iter()
        .filter_map(|f| match f.wire {
            Wire::Always | Wire::Struct => Some((f.name.clone(), zero(&f.shape, structs))),
            Wire::NullablePointer => Some((f.name.clone(), Value::Null)),
            Wire::Omit | Wire::OmitZero | Wire::Pointer => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> &'static Struct {
        by_name(name).expect("built in").get()
    }

    #[test]
    fn every_field_of_every_type_has_its_go_facts() {
        for (name, schema) in schema::builtin_types() {
            let Some(id) = by_name(name) else {
                assert!(schema.properties.is_empty(), "{name}");
                continue;
            };
            for field in schema.properties.keys() {
                assert!(id.get().field(field).is_some(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn go_types_and_always_written_fields() {
        let spec = named("io.k8s.api.core.v1.PodSpec");
        let field = |n: &str| spec.field(n).expect("field");
        assert_eq!(field("containers").go_type, "[]v1.Container");
        assert_eq!(field("nodeSelector").go_type, "map[string]string");
        assert_eq!(field("restartPolicy").go_type, "v1.RestartPolicy");
        let daemon_set = named("io.k8s.api.apps.v1.DaemonSet");
        let status = daemon_set.always.iter().find(|(n, _)| n == "status");
        assert_eq!(
            status.map(|(_, v)| v.clone()),
            Some(
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                        "numberMisscheduled": 0, "numberReady": 0})
            )
        );
    }
}
