//! OpenAPI documents as protocol buffers (`openapi.v2.Document` and `openapi.v3.Document` of
//! google/gnostic): client-go asks for version 2 in no other form.
//!
//! Tables say which member of which message has which number; members that a message does not
//! know are left out, as Kubernetes leaves them out.

pub mod v2;
pub mod v3;

use serde_json::{Map, Value};

use crate::protobuf::wire::{FIXED64, VARINT, put_bytes, put_tag, put_varint};

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Int,
    Double,
    /// `Any`, as YAML (of which JSON is a part).
    Any,
    Message(Writer),
    /// Each element is a field of its own.
    Texts,
    Anys,
    Messages(Writer),
    /// A message whose only field (1) is the map's entries.
    Map(Writer),
}

/// Writes the content of a message.
type Writer = fn(&Value, &mut Vec<u8>);

type Fields = &'static [(&'static str, u32, Kind)];

use Kind::{Any, Anys, Bool, Double, Int, Map as Entries, Message, Messages, Text, Texts};

fn any(json: &Value, out: &mut Vec<u8>) {
    put_bytes(out, 2, json.to_string().as_bytes());
}

/// A field that is a message.
fn nested(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut content = vec![];
    write(&mut content);
    put_bytes(out, number, &content);
}

/// A map as repeated pairs of a name (1) and a message (2).
fn entries(number: u32, json: &Value, write: Writer, out: &mut Vec<u8>) {
    for (name, value) in json.as_object().into_iter().flatten() {
        nested(number, out, |out| {
            put_bytes(out, 1, name.as_bytes());
            nested(2, out, |out| write(value, out));
        });
    }
}

/// The members of a message by number; `extensions` is where those that begin with `x-` go.
fn put(fields: Fields, extensions: Option<u32>, json: &Value, out: &mut Vec<u8>) {
    let empty = Map::new();
    let members = json.as_object().unwrap_or(&empty);
    for (name, number, kind) in fields {
        if let Some(value) = members.get(*name) {
            field(*number, *kind, value, out);
        }
    }
    let Some(extensions) = extensions else { return };
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        nested(extensions, out, |out| {
            put_bytes(out, 1, name.as_bytes());
            nested(2, out, |out| any(value, out));
        });
    }
}

/// Numbers, texts and flags that are empty are not written.
fn field(number: u32, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    let list = || value.as_array().into_iter().flatten();
    match kind {
        Text => match value.as_str() {
            None | Some("") => {}
            Some(text) => put_bytes(out, number, text.as_bytes()),
        },
        Bool => {
            if value.as_bool() == Some(true) {
                put_tag(out, number, VARINT);
                put_varint(out, 1);
            }
        }
        Int => {
            if let Some(n) = value.as_i64().filter(|n| *n != 0) {
                put_tag(out, number, VARINT);
                put_varint(out, n as u64);
            }
        }
        Double => {
            if let Some(n) = value.as_f64().filter(|n| *n != 0.0) {
                put_tag(out, number, FIXED64);
                out.extend(n.to_bits().to_le_bytes());
            }
        }
        Any => nested(number, out, |out| any(value, out)),
        Message(write) => nested(number, out, |out| write(value, out)),
        Texts => list()
            .filter_map(Value::as_str)
            .for_each(|text| put_bytes(out, number, text.as_bytes())),
        Anys => list().for_each(|one| nested(number, out, |out| any(one, out))),
        Messages(write) => list().for_each(|one| nested(number, out, |out| write(one, out))),
        Entries(write) => nested(number, out, |out| entries(1, value, write, out)),
    }
}
