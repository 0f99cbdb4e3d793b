//! What a schema declares to the expressions of its rules: types, and bounds on sizes.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;

use crate::{
    cel::{Decl, Field, ListKind, Object, Text, Type, escape},
    crd::structural::text,
};

/// The largest request that the API server takes, in bytes: nothing in an object can be larger.
pub(super) const MOST_BYTES: u64 = 3 * 1024 * 1024;

fn number(schema: &Json, name: &str) -> Option<u64> {
    let value = schema.get(name)?;
    Some(value.as_i64().map_or(0, |n| u64::try_from(n).unwrap_or(0)))
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name) == Some(&Json::Bool(true))
}

fn simple(ty: Type, least_bytes: u64) -> Decl {
    Decl {
        ty,
        least_bytes,
        ..Decl::default()
    }
}

/// The declared type of a value under a schema; `None` where expressions cannot reach it, since
/// nothing is known of it. `resource` adds what all objects have.
pub(super) fn declare(schema: &Json, resource: bool) -> Option<Decl> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Some(Decl {
            ty: Type::Dyn,
            most: MOST_BYTES - 2,
            least_bytes: 1,
            ..Decl::default()
        });
    }
    match text(schema, "type") {
        "array" => {
            let items = declare(schema.get("items")?, false)?;
            let most = number(schema, "maxItems")
                .unwrap_or_else(|| (MOST_BYTES - 2) / (items.least_bytes + 1));
            let keys = schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Json::as_array);
            let keys = keys.into_iter().flatten().filter_map(Json::as_str);
            Some(Decl {
                ty: Type::list(items.ty.clone()),
                most,
                least_bytes: 2,
                items: Some(Arc::new(items)),
                list: match text(schema, "x-kubernetes-list-type") {
                    "set" => ListKind::Set,
                    "map" => ListKind::Map(keys.map(str::to_owned).collect()),
                    _ => ListKind::Atomic,
                },
                text: Text::Plain,
            })
        }
        "object" => match schema.get("additionalProperties") {
            Some(values @ Json::Object(_)) => {
                let values = declare(values, false)?;
                let most = number(schema, "maxProperties")
                    .unwrap_or_else(|| (MOST_BYTES - 2) / (values.least_bytes + 6));
                Some(Decl {
                    ty: Type::map(Type::String, values.ty.clone()),
                    most,
                    least_bytes: 2,
                    items: Some(Arc::new(values)),
                    ..Decl::default()
                })
            }
            _ => Some(object(
                schema,
                resource || flag(schema, "x-kubernetes-embedded-resource"),
            )),
        },
        "string" => Some(string(schema)),
        "boolean" => Some(simple(Type::Bool, 4)),
        "number" => Some(simple(Type::Double, 1)),
        "integer" => Some(simple(Type::Int, 1)),
        _ => None,
    }
}

fn object(schema: &Json, resource: bool) -> Decl {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut fields = BTreeMap::new();
    let mut least_bytes = 2;
    let properties = schema.get("properties").and_then(Json::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let Some(decl) = declare(property, false) else {
            continue;
        };
        if required.contains(&name.as_str()) && property.get("default").is_none() {
            least_bytes += name.len() as u64 + decl.least_bytes + 4;
        }
        put(&mut fields, name, decl);
    }
    if resource {
        for name in ["apiVersion", "kind"] {
            put(&mut fields, name, header_text());
        }
        let mut metadata = BTreeMap::new();
        for name in ["name", "generateName"] {
            let declared = schema
                .get("properties")
                .and_then(|p| p.get("metadata")?.get("properties")?.get(name))
                .and_then(|s| declare(s, false));
            put(&mut metadata, name, declared.unwrap_or_else(header_text));
        }
        let metadata = Decl {
            least_bytes: 2,
            ..named(metadata)
        };
        put(&mut fields, "metadata", metadata);
    }
    Decl {
        least_bytes,
        ..named(fields)
    }
}

fn header_text() -> Decl {
    Decl {
        ty: Type::String,
        most: MOST_BYTES - 2,
        least_bytes: 2,
        ..Decl::default()
    }
}

fn named(fields: BTreeMap<String, Field>) -> Decl {
    Decl {
        ty: Type::Object(Arc::new(Object {
            name: "object".to_owned(),
            fields,
            open: false,
        })),
        ..Decl::default()
    }
}

fn put(fields: &mut BTreeMap<String, Field>, name: &str, decl: Decl) {
    if let Some(escaped) = escape(name) {
        let field = Field {
            json: name.into(),
            decl: Arc::new(decl),
        };
        fields.insert(escaped, field);
    }
}

fn string(schema: &Json) -> Decl {
    let most = number(schema, "maxLength");
    let plain = |text: Text, ty: Type, most: u64, least_bytes: u64| Decl {
        ty,
        most,
        least_bytes,
        text,
        ..Decl::default()
    };
    match text(schema, "format") {
        "byte" => plain(Text::Bytes, Type::Bytes, most.unwrap_or(MOST_BYTES - 2), 2),
        "duration" => plain(Text::Duration, Type::Duration, most.unwrap_or(32), 3),
        "date" => plain(Text::Date, Type::Timestamp, 12, 12),
        "date-time" => plain(Text::DateTime, Type::Timestamp, 34, 21),
        _ => {
            let values = schema.get("enum").and_then(Json::as_array);
            let longest = values.map(|v| {
                let lengths = v.iter().filter_map(Json::as_str).map(str::len);
                lengths.max().unwrap_or(0) as u64
            });
            let most = match (most, longest) {
                // Lengths are declared in characters, of four bytes each at most.
                (Some(most), _) => most.saturating_mul(4),
                (None, Some(longest)) => longest,
                (None, None) => MOST_BYTES - 2,
            };
            plain(Text::Plain, Type::String, most, 2)
        }
    }
}
