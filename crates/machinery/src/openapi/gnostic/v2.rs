//! The version 2 document: `openapi.v2.Document`.

use serde_json::Value;

use super::{
    Fields,
    Kind::{Any, Anys, Bool, Double, Int, Map as Entries, Message, Messages, Text, Texts},
    entries, nested, put,
};
use crate::protobuf::wire::{VARINT, put_bytes, put_tag, put_varint};

/// What clients ask for, and what it is called since media types may have no `@`.
pub const MEDIA_TYPES: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// The document.
pub fn document(json: &Value) -> Vec<u8> {
    const FIELDS: Fields = &[
        ("swagger", 1, Text),
        ("info", 2, Message(info)),
        ("paths", 8, Message(paths)),
        ("definitions", 9, Entries(schema)),
    ];
    let mut out = Vec::with_capacity(4 << 20);
    put(FIELDS, Some(16), json, &mut out);
    out
}

fn info(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("title", 1, Text),
        ("version", 2, Text),
        ("description", 3, Text),
    ];
    put(FIELDS, Some(7), json, out);
}

fn paths(json: &Value, out: &mut Vec<u8>) {
    entries(2, json, path, out);
}

fn path(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("get", 2, Message(operation)),
        ("put", 3, Message(operation)),
        ("post", 4, Message(operation)),
        ("delete", 5, Message(operation)),
        ("options", 6, Message(operation)),
        ("head", 7, Message(operation)),
        ("patch", 8, Message(operation)),
        ("parameters", 9, Messages(parameter)),
    ];
    put(FIELDS, Some(10), json, out);
}

fn operation(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Messages(parameter)),
        ("responses", 9, Message(responses)),
        ("schemes", 10, Texts),
        ("deprecated", 11, Bool),
    ];
    put(FIELDS, Some(13), json, out);
}

/// A `ParametersItem`: a parameter or a reference, and a parameter is of the body or of elsewhere.
fn parameter(json: &Value, out: &mut Vec<u8>) {
    const BODY: Fields = &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, Message(schema)),
    ];
    const QUERY: Fields = &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("pattern", 17, Text),
        ("uniqueItems", 20, Bool),
    ];
    const PATH: Fields = &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("pattern", 16, Text),
        ("uniqueItems", 19, Bool),
    ];
    if json.get("$ref").is_some() {
        nested(2, out, |out| {
            put(
                &[("$ref", 1, Text), ("description", 2, Text)],
                None,
                json,
                out,
            );
        });
        return;
    }
    let place = json.get("in").and_then(Value::as_str).unwrap_or_default();
    nested(1, out, |out| match place {
        "body" => nested(1, out, |out| put(BODY, Some(6), json, out)),
        "path" => nested(2, out, |out| {
            nested(4, out, |out| put(PATH, Some(22), json, out))
        }),
        "header" => nested(2, out, |out| {
            nested(1, out, |out| put(PATH, Some(22), json, out))
        }),
        _ => nested(2, out, |out| {
            nested(3, out, |out| put(QUERY, Some(23), json, out))
        }),
    });
}

fn responses(json: &Value, out: &mut Vec<u8>) {
    entries(1, json, response, out);
}

/// A `ResponseValue` that is a response.
fn response(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[("description", 1, Text), ("schema", 2, Message(item))];
    nested(1, out, |out| put(FIELDS, Some(5), json, out));
}

/// A `SchemaItem` that is a schema.
fn item(json: &Value, out: &mut Vec<u8>) {
    nested(1, out, |out| schema(json, out));
}

fn schema(json: &Value, out: &mut Vec<u8>) {
    const FIELDS: Fields = &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Message(additional)),
        ("type", 22, Message(type_item)),
        ("items", 23, Message(item)),
        ("allOf", 24, Messages(schema)),
        ("properties", 25, Entries(schema)),
        ("discriminator", 26, Text),
        ("readOnly", 27, Bool),
        ("example", 30, Any),
    ];
    put(FIELDS, Some(31), json, out);
}

fn additional(json: &Value, out: &mut Vec<u8>) {
    match json {
        Value::Bool(allowed) => {
            put_tag(out, 2, VARINT);
            put_varint(out, u64::from(*allowed));
        }
        other => nested(1, out, |out| schema(other, out)),
    }
}

/// One type, or a list of them.
fn type_item(json: &Value, out: &mut Vec<u8>) {
    match json {
        Value::Array(list) => list.iter().for_each(|one| type_item(one, out)),
        one => put_bytes(out, 1, one.as_str().unwrap_or_default().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_written_as_gnostic_has_it() {
        let mut out = vec![];
        let json = json!({
            "type": "object", "minimum": 0, "maxLength": 3, "x-a": [1], "nullable": true,
            "properties": {"b": {"$ref": "#/d"}}, "additionalProperties": false,
        });
        schema(&json, &mut out);
        let expected = [
            &[0x58, 3][..],            // maxLength
            &[0xaa, 0x01, 2, 0x10, 0], // additionalProperties: boolean
            &[0xb2, 0x01, 8, 0x0a, 6], // type: value
            b"object",
            &[0xca, 0x01, 12, 0x0a, 10, 0x0a, 1, b'b', 0x12, 5, 0x0a, 3],
            b"#/d",
            &[0xfa, 0x01, 12, 0x0a, 3], // vendor extension: name
            b"x-a",
            &[0x12, 5, 0x12, 3], // value: yaml
            b"[1]",
        ]
        .concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn parameters_say_where_they_are() {
        let mut out = vec![];
        parameter(
            &json!({"name": "n", "in": "path", "type": "string", "required": true}),
            &mut out,
        );
        let path = [
            &[0x0a, 23, 0x12, 21, 0x22, 19, 0x08, 1, 0x12, 4][..],
            b"path",
            &[0x22, 1, b'n', 0x2a, 6],
            b"string",
        ]
        .concat();
        assert_eq!(out, path);
    }

    #[test]
    fn the_whole_document_holds_every_definition() {
        let json = crate::openapi::v2(crate::resource::builtin_resources());
        let bytes = document(&json);
        for name in json["definitions"].as_object().expect("definitions").keys() {
            let name = name.as_bytes();
            assert!(bytes.windows(name.len()).any(|w| w == name));
        }
        assert!(bytes.len() > 300_000, "{}", bytes.len());
    }
}
