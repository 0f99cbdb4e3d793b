//! Field numbers of the built-in types, read once from the facts table `data/protobuf.json`.
//!
//! A row is a type's OpenAPI name and its fields as `name=number:kind`, the name being the one in
//! JSON. A kind is `string`, `bytes`, `bool`, `int32`, `int64`, `double` or a type, of the same
//! package unless it is named in full; `[]` before it makes a list and `{}` a map from strings.
//! A field without a name is a Go struct embedded in its parent: its fields are the parent's in
//! JSON. A field called `*` is all there is in JSON of its message (lists that can be null).

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::encode::Plan;

/// Types whose JSON is not an object of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// One field of bytes, which are JSON.
    Json,
    /// The same, or another envelope.
    RawExtension,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Message(MessageId),
    Native(Native),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    One,
    List,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId(u16);

impl MessageId {
    pub fn get(self) -> &'static Message {
        static EMPTY: Message = Message {
            name: "",
            plan: OnceLock::new(),
            fields: Vec::new(),
            by_number: Vec::new(),
        };
        table().messages.get(usize::from(self.0)).unwrap_or(&EMPTY)
    }
}

#[derive(Debug)]
pub struct Field {
    /// The name in JSON; empty for an embedded struct.
    pub name: &'static str,
    pub number: u32,
    pub many: Many,
    pub kind: Kind,
}

#[derive(Debug)]
pub struct Message {
    /// The type's OpenAPI name.
    pub name: &'static str,
    plan: OnceLock<Plan>,
    /// In the table's order.
    pub fields: Vec<Field>,
    /// Index into `fields` plus one, by number.
    by_number: Vec<u16>,
}

impl Message {
    pub fn field(&self, number: u32) -> Option<&Field> {
        let index = *self.by_number.get(usize::try_from(number).ok()?)?;
        self.fields.get(usize::from(index).checked_sub(1)?)
    }

    /// How it is written.
    pub fn plan(&'static self) -> &'static Plan {
        self.plan.get_or_init(|| Plan::of(self))
    }

    /// The field that is all of this message's JSON, if there is one.
    pub fn transparent(&self) -> Option<&Field> {
        self.fields.first().filter(|f| f.name == "*")
    }
}

struct Table {
    messages: Vec<Message>,
    by_name: FxHashMap<&'static str, MessageId>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(load)
}

/// The message of a type by its OpenAPI name.
pub fn by_name(name: &str) -> Option<MessageId> {
    table().by_name.get(name).copied()
}

/// All messages, for tests of the table.
#[cfg(test)]
pub fn all() -> impl Iterator<Item = (&'static str, &'static Message)> {
    table().by_name.iter().map(|(name, id)| (*name, id.get()))
}

pub const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

fn native(name: &str) -> Option<Native> {
    let (package, last) = name.rsplit_once('.')?;
    Some(match (package, last) {
        ("io.k8s.apimachinery.pkg.apis.meta.v1", "Time") => Native::Time,
        ("io.k8s.apimachinery.pkg.apis.meta.v1", "MicroTime") => Native::MicroTime,
        ("io.k8s.apimachinery.pkg.apis.meta.v1", "FieldsV1") => Native::Json,
        ("io.k8s.apimachinery.pkg.api.resource", "Quantity") => Native::Quantity,
        ("io.k8s.apimachinery.pkg.util.intstr", "IntOrString") => Native::IntOrString,
        ("io.k8s.apimachinery.pkg.runtime", "RawExtension") => Native::RawExtension,
        ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1", schema) => match schema {
            "JSON" => Native::Json,
            "JSONSchemaPropsOrArray" => Native::SchemaOrArray,
            "JSONSchemaPropsOrBool" => Native::SchemaOrBool,
            "JSONSchemaPropsOrStringArray" => Native::SchemaOrStrings,
            _ => return None,
        },
        _ => return None,
    })
}

fn load() -> Table {
    // The table is part of the binary: a build with a broken one fails every test.
    let rows: std::collections::BTreeMap<&'static str, &'static str> =
        serde_json::from_str(include_str!("../../data/protobuf.json")).unwrap_or_default();
    let by_name: FxHashMap<&'static str, MessageId> = rows
        .keys()
        .enumerate()
        .map(|(i, name)| (*name, MessageId(i as u16)))
        .collect();
    let messages = rows
        .iter()
        .map(|(name, row)| message(name, row, &by_name))
        .collect();
    Table { messages, by_name }
}

fn message(
    name: &'static str,
    row: &'static str,
    ids: &FxHashMap<&'static str, MessageId>,
) -> Message {
    let package = name.rsplit_once('.').map_or("", |(package, _)| package);
    let fields: Vec<Field> = row
        .split(' ')
        .filter_map(|entry| {
            let (name, facts) = entry.split_once('=')?;
            let (number, kind) = facts.split_once(':')?;
            let (many, kind) = if let Some(kind) = kind.strip_prefix("[]") {
                (Many::List, kind)
            } else if let Some(kind) = kind.strip_prefix("{}") {
                (Many::Map, kind)
            } else {
                (Many::One, kind)
            };
            Some(Field {
                name,
                number: number.parse().ok()?,
                many,
                kind: kind_of(kind, package, ids)?,
            })
        })
        .collect();
    let most = fields.iter().map(|f| f.number as usize).max();
    let mut by_number = vec![0; most.map_or(0, |n| n + 1)];
    for (i, field) in fields.iter().enumerate() {
        by_number[field.number as usize] = i as u16 + 1;
    }
    Message {
        name,
        plan: OnceLock::new(),
        fields,
        by_number,
    }
}

fn kind_of(text: &str, package: &str, ids: &FxHashMap<&'static str, MessageId>) -> Option<Kind> {
    Some(match text {
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "bool" => Kind::Bool,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "double" => Kind::Double,
        local if !local.contains('.') => {
            return kind_of(&format!("{package}.{local}"), package, ids);
        }
        full => match native(full) {
            Some(native) => Kind::Native(native),
            None => Kind::Message(*ids.get(full)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn every_entry_of_the_table_is_understood() {
        let rows: FxHashMap<&str, &str> =
            serde_json::from_str(include_str!("../../data/protobuf.json")).expect("valid JSON");
        assert_eq!(rows.len(), all().count());
        for (name, message) in all() {
            let row = rows[name];
            let entries = row.split(' ').filter(|e| !e.is_empty()).count();
            assert_eq!(message.fields.len(), entries, "{name}: {row}");
            for field in &message.fields {
                let found = message.field(field.number).expect("found by its number");
                assert_eq!(found.name, field.name, "{name}");
            }
        }
    }

    /// Every field of the types of `data/definitions.json` has a number, but those that the
    /// envelope carries.
    #[test]
    fn every_json_field_has_a_number() {
        fn names(message: &Message, into: &mut Vec<&'static str>) {
            for field in &message.fields {
                match (field.name, field.kind) {
                    ("", Kind::Message(id)) => names(id.get(), into),
                    (name, _) => into.push(name),
                }
            }
        }
        for (name, schema) in schema::builtin_types() {
            let Some(id) = by_name(name) else {
                assert!(
                    native(name).is_some() || name.ends_with("version.Info"),
                    "{name}"
                );
                continue;
            };
            let mut known = vec![];
            names(id.get(), &mut known);
            for field in schema.properties.keys() {
                assert!(
                    known.contains(&field.as_str())
                        || matches!(field.as_str(), "apiVersion" | "kind"),
                    "{name}.{field}"
                );
            }
            for field in known {
                assert!(schema.properties.contains_key(field), "{name}.{field}");
            }
        }
    }
}
