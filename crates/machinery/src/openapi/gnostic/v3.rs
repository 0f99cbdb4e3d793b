//! The version 3 document of a group and version: `openapi.v3.Document`.

use serde_json::Value;

use super::{
    Fields,
    Kind::{Any, Anys, Bool, Double, Int, Map as Entries, Message, Messages, Text, Texts},
    entries, nested, put,
};
use crate::protobuf::wire::{FIXED64, VARINT, put_bytes, put_tag, put_varint};

/// What clients ask for, and what it is called since media types may have no `@`.
pub const MEDIA_TYPES: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
];

/// The document.
pub fn document(json: &Value) -> Vec<u8> {
    const FIELDS: Fields = &[
        ("openapi", 1, Text),
        ("info", 2, Message(info)),
        ("paths", 4, Message(paths)),
        ("components", 5, Message(components)),
    ];
    let mut out = Vec::with_capacity(1 << 20);
    put(FIELDS, Some(9), json, &mut out);
    out
}

fn info(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("title", 1, Text),
        ("description", 2, Text),
        ("version", 6, Text),
    ];
    put(FIELDS, Some(7), json, out);
}

fn components(json: &Value, out: &mut Vec<u8>) {
    put(&[("schemas", 1, Entries(schema_item))], Some(10), json, out);
}

fn paths(json: &Value, out: &mut Vec<u8>) {
    entries(1, json, path, out);
}

fn path(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, Message(operation)),
        ("put", 5, Message(operation)),
        ("post", 6, Message(operation)),
        ("delete", 7, Message(operation)),
        ("options", 8, Message(operation)),
        ("head", 9, Message(operation)),
        ("patch", 10, Message(operation)),
        ("parameters", 13, Messages(parameter)),
    ];
    put(FIELDS, Some(14), json, out);
}

fn operation(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("parameters", 6, Messages(parameter)),
        ("requestBody", 7, Message(request)),
        ("responses", 8, Message(responses)),
        ("deprecated", 10, Bool),
    ];
    put(FIELDS, Some(13), json, out);
}

/// Something (1) or a reference to it (2).
fn or_reference(fields: Fields, extensions: u32, json: &Value, out: &mut Vec<u8>) {
    const REFERENCE: Fields = &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
    ];
    if json.get("$ref").is_some() {
        nested(2, out, |out| put(REFERENCE, None, json, out));
    } else {
        nested(1, out, |out| put(fields, Some(extensions), json, out));
    }
}

fn parameter(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Bool),
        ("deprecated", 5, Bool),
        ("allowEmptyValue", 6, Bool),
        ("style", 7, Text),
        ("explode", 8, Bool),
        ("allowReserved", 9, Bool),
        ("schema", 10, Message(schema_item)),
        ("content", 13, Entries(media)),
    ];
    or_reference(FIELDS, 14, json, out);
}

fn request(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("description", 1, Text),
        ("content", 2, Entries(media)),
        ("required", 3, Bool),
    ];
    or_reference(FIELDS, 4, json, out);
}

fn responses(json: &Value, out: &mut Vec<u8>) {
    for (code, value) in json.as_object().into_iter().flatten() {
        match code.as_str() {
            "default" => nested(1, out, |out| response(value, out)),
            _ => nested(2, out, |out| {
                put_bytes(out, 1, code.as_bytes());
                nested(2, out, |out| response(value, out));
            }),
        }
    }
}

fn response(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[("description", 1, Text), ("content", 3, Entries(media))];
    or_reference(FIELDS, 5, json, out);
}

fn media(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[("schema", 1, Message(schema_item)), ("example", 2, Any)];
    put(FIELDS, Some(5), json, out);
}

const SCHEMA: Fields = &[
    ("nullable", 1, Bool),
    ("readOnly", 3, Bool),
    ("writeOnly", 4, Bool),
    ("externalDocs", 6, Message(docs)),
    ("example", 7, Any),
    ("deprecated", 8, Bool),
    ("title", 9, Text),
    ("multipleOf", 10, Double),
    ("maximum", 11, Double),
    ("exclusiveMaximum", 12, Bool),
    ("minimum", 13, Double),
    ("exclusiveMinimum", 14, Bool),
    ("maxLength", 15, Int),
    ("minLength", 16, Int),
    ("pattern", 17, Text),
    ("maxItems", 18, Int),
    ("minItems", 19, Int),
    ("uniqueItems", 20, Bool),
    ("maxProperties", 21, Int),
    ("minProperties", 22, Int),
    ("required", 23, Texts),
    ("enum", 24, Anys),
    ("type", 25, Text),
    ("allOf", 26, Messages(schema_item)),
    ("oneOf", 27, Messages(schema_item)),
    ("anyOf", 28, Messages(schema_item)),
    ("not", 29, Message(schema)),
    ("items", 30, Message(items)),
    ("properties", 31, Entries(schema_item)),
    ("additionalProperties", 32, Message(additional)),
    ("default", 33, Message(default)),
    ("description", 34, Text),
    ("format", 35, Text),
];

/// A `SchemaOrReference`.
fn schema_item(json: &Value, out: &mut Vec<u8>) {
    or_reference(SCHEMA, 36, json, out);
}

fn schema(json: &Value, out: &mut Vec<u8>) {
    put(SCHEMA, Some(36), json, out);
}

fn docs(json: &Value, out: &mut Vec<u8>) {
    put(
        &[("description", 1, Text), ("url", 2, Text)],
        Some(3),
        json,
        out,
    );
}

fn items(json: &Value, out: &mut Vec<u8>) {
    nested(1, out, |out| schema_item(json, out));
}

fn additional(json: &Value, out: &mut Vec<u8>) {
    match json {
        Value::Bool(allowed) => {
            put_tag(out, 2, VARINT);
            put_varint(out, u64::from(*allowed));
        }
        other => nested(1, out, |out| schema_item(other, out)),
    }
}

/// A default that is a number, a flag or text; gnostic knows no others, and keeps of them that there is
/// one.
fn default(json: &Value, out: &mut Vec<u8>) {
    match json {
        Value::Number(number) => {
            put_tag(out, 1, FIXED64);
            let number = number.as_f64().unwrap_or_default();
            out.extend(number.to_bits().to_le_bytes());
        }
        Value::Bool(flag) => {
            put_tag(out, 2, VARINT);
            put_varint(out, u64::from(*flag));
        }
        Value::String(text) => put_bytes(out, 3, text.as_bytes()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::protobuf::wire::{BYTES, Reader};

    /// The fields of a message: numbers with bytes, or with the number that they are.
    fn fields(message: &[u8]) -> Vec<(u32, Result<&[u8], u64>)> {
        let mut reader = Reader(message);
        let mut all = vec![];
        while let Some((number, wire)) = reader.tag().expect("a tag") {
            all.push((
                number,
                match wire {
                    BYTES => Ok(reader.bytes().expect("bytes")),
                    FIXED64 => Err(reader.fixed64().expect("a number")),
                    _ => Err(reader.varint().expect("a number")),
                },
            ));
        }
        all
    }

    fn one(message: &[u8], number: u32) -> &[u8] {
        let mut all = fields(message).into_iter().filter(|(n, _)| *n == number);
        all.next().expect("the field").1.expect("bytes")
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    /// What a reader that knows `OpenAPIv3.proto` makes of a map's messages.
    fn map(message: &[u8], number: u32, read: fn(&[u8]) -> Value) -> Map<String, Value> {
        let all = fields(message).into_iter().filter(|(n, _)| *n == number);
        all.map(|(_, pair)| {
            let pair = pair.expect("a pair");
            (text(one(pair, 1)), read(one(pair, 2)))
        })
        .collect()
    }

    fn yaml(any: &[u8]) -> Value {
        serde_json::from_slice(one(any, 2)).expect("JSON")
    }

    fn read_item(message: &[u8]) -> Value {
        match fields(message).as_slice() {
            [(1, Ok(schema))] => read_schema(schema),
            [(2, Ok(reference))] => {
                let mut out = json!({"$ref": text(one(reference, 1))});
                for (number, value) in fields(reference) {
                    if number == 3 {
                        out["description"] = text(value.expect("text")).into();
                    }
                }
                out
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn read_schema(message: &[u8]) -> Value {
        let mut out = Map::new();
        for (number, value) in fields(message) {
            let push = |out: &mut Map<String, Value>, name: &str, value: Value| {
                let list = out.entry(name.to_owned()).or_insert_with(|| json!([]));
                list.as_array_mut().expect("a list").push(value);
            };
            let (name, value) = match (number, value) {
                (1, Err(1)) => ("nullable", json!(true)),
                (13, Err(bits)) => ("minimum", json!(f64::from_bits(bits))),
                (11, Err(bits)) => ("maximum", json!(f64::from_bits(bits))),
                (15, Err(n)) => ("maxLength", json!(n)),
                (16, Err(n)) => ("minLength", json!(n)),
                (17, Ok(t)) => ("pattern", text(t).into()),
                (18, Err(n)) => ("maxItems", json!(n)),
                (20, Err(1)) => ("uniqueItems", json!(true)),
                (23, Ok(t)) => {
                    push(&mut out, "required", text(t).into());
                    continue;
                }
                (24, Ok(t)) => {
                    push(&mut out, "enum", yaml(t));
                    continue;
                }
                (25, Ok(t)) => ("type", text(t).into()),
                (26, Ok(t)) => {
                    push(&mut out, "allOf", read_item(t));
                    continue;
                }
                (27, Ok(t)) => {
                    push(&mut out, "oneOf", read_item(t));
                    continue;
                }
                (28, Ok(t)) => {
                    push(&mut out, "anyOf", read_item(t));
                    continue;
                }
                (6, Ok(t)) => ("externalDocs", json!({"url": text(one(t, 2))})),
                (30, Ok(t)) => ("items", read_item(one(t, 1))),
                (31, Ok(t)) => ("properties", map(t, 1, read_item).into()),
                (32, Ok(t)) => (
                    "additionalProperties",
                    match fields(t).as_slice() {
                        [(2, Err(flag))] => json!(*flag == 1),
                        [(1, Ok(item))] => read_item(item),
                        other => unreachable!("{other:?}"),
                    },
                ),
                (33, Ok(t)) => (
                    "default",
                    match fields(t).as_slice() {
                        [(1, Err(bits))] => json!(f64::from_bits(*bits)),
                        [(2, Err(flag))] => json!(*flag == 1),
                        [(3, Ok(t))] => text(t).into(),
                        _ => Value::Null,
                    },
                ),
                (34, Ok(t)) => ("description", text(t).into()),
                (35, Ok(t)) => ("format", text(t).into()),
                (36, Ok(t)) => {
                    out.insert(text(one(t, 1)), yaml(one(t, 2)));
                    continue;
                }
                (other, _) => unreachable!("field {other}"),
            };
            out.insert(name.to_owned(), value);
        }
        Value::Object(out)
    }

    /// A schema as it can come back: numbers as doubles where they are, defaults as far as gnostic
    /// knows them.
    fn expected(schema: &Value) -> Value {
        let Some(members) = schema.as_object() else {
            return schema.clone();
        };
        if schema.get("$ref").is_some() {
            let mut out = json!({"$ref": schema["$ref"]});
            if let Some(text) = schema.get("description") {
                out["description"] = text.clone();
            }
            return out;
        }
        let double = |value: &Value| json!(value.as_f64());
        let mut out = Map::new();
        for (name, value) in members {
            let value = match (name.as_str(), value) {
                ("minimum" | "maximum", value) => double(value),
                ("default", Value::Number(_)) => double(value),
                ("default", Value::Object(_) | Value::Array(_)) => Value::Null,
                ("properties", Value::Object(all)) => {
                    let all = all.iter().map(|(k, v)| (k.clone(), expected(v)));
                    Value::Object(all.collect())
                }
                ("items" | "additionalProperties", value) => expected(value),
                ("allOf" | "oneOf" | "anyOf", Value::Array(all)) => {
                    all.iter().map(expected).collect()
                }
                ("description", Value::String(text)) if text.is_empty() => continue,
                (_, value) => value.clone(),
            };
            out.insert(name.clone(), value);
        }
        Value::Object(out)
    }

    #[test]
    fn every_schema_comes_back_from_its_message() {
        let all = crate::resource::builtin_resources();
        for (group, version) in [("", "v1"), ("apps", "v1"), ("apiextensions.k8s.io", "v1")] {
            let json = crate::openapi::v3_document(all, group, version);
            let bytes = document(&json);
            assert_eq!(text(one(&bytes, 1)), "3.0.0");
            let found = map(one(one(&bytes, 5), 1), 1, read_item);
            let schemas = json["components"]["schemas"].as_object().expect("schemas");
            assert_eq!(found.len(), schemas.len());
            for (name, schema) in schemas {
                assert_eq!(found[name], expected(schema), "{name}");
            }
        }
    }

    #[test]
    fn operations_say_what_they_take_and_give() {
        let all = crate::resource::builtin_resources();
        let json = crate::openapi::v3_document(all, "apps", "v1");
        let bytes = document(&json);
        let name = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        let paths = fields(one(&bytes, 4));
        let path = paths
            .iter()
            .map(|(_, pair)| pair.expect("a pair"))
            .find(|pair| text(one(pair, 1)) == name)
            .expect("the path");
        let put = one(one(path, 2), 5);
        assert_eq!(text(one(put, 5)), "replaceAppsV1NamespacedDeployment");
        let body = one(one(put, 7), 1);
        assert_eq!(fields(body).last(), Some(&(3, Err(1))), "required");
        let media = map(one(body, 2), 1, |media| read_item(one(media, 1)));
        let reference = "#/components/schemas/io.k8s.api.apps.v1.Deployment";
        assert!(media.values().all(|m| m["$ref"] == reference), "{media:?}");
        let responses = one(put, 8);
        assert_eq!(text(one(one(responses, 2), 1)), "200");
        let extensions: Vec<String> = fields(put)
            .into_iter()
            .filter(|(number, _)| *number == 13)
            .map(|(_, named)| text(one(named.expect("a pair"), 1)))
            .collect();
        assert_eq!(
            extensions,
            ["x-kubernetes-action", "x-kubernetes-group-version-kind"]
        );
    }
}
