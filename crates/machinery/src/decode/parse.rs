//! Bytes to a tree: JSON and YAML, with the places of fields given twice.

use std::{cell::RefCell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, map::Entry};

use crate::{path::Path, protobuf};

/// The encodings of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    /// YAML 1.1, as Kubernetes reads it: an unquoted `y` is a boolean.
    Yaml,
    /// Kubernetes' protocol buffers: built-in kinds only.
    Protobuf,
}

/// A tree as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub value: Value,
    /// Paths of fields given more than once, in order; the last value stands.
    pub duplicates: Vec<String>,
}

/// Parses one JSON value or YAML document. The error is Kubernetes' text for it.
pub fn parse_bytes(bytes: &[u8], format: Format) -> Result<Parsed, String> {
    let seen = Seen::default();
    let value = read(bytes, format, &seen)?;
    Ok(Parsed {
        value,
        duplicates: seen.duplicates.into_inner(),
    })
}

fn read(bytes: &[u8], format: Format, seen: &Seen) -> Result<Value, String> {
    let root = Node {
        path: &Path::ROOT,
        seen,
    };
    match format {
        Format::Json => {
            let mut source = serde_json::Deserializer::from_slice(bytes);
            root.deserialize(&mut source)
                .and_then(|value| source.end().map(|()| value))
                .map_err(|e| json_error(&e, bytes))
        }
        Format::Yaml => {
            let mut options = serde_saphyr::Options::default();
            options.duplicate_keys = serde_saphyr::options::DuplicateKeyPolicy::LastWins;
            options.with_snippet = false;
            serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |source| {
                root.deserialize(source)
            })
            .map_err(|e| yaml_error(&e))
        }
        Format::Protobuf => protobuf::envelope(bytes)
            .and_then(|envelope| envelope.object())
            .map_err(|e| e.to_string()),
    }
}

/// `json parse error: …`, worded as Go's decoder words the common cases.
fn json_error(error: &serde_json::Error, bytes: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let offset = offset(bytes, error.line(), error.column());
    let text = error.to_string();
    let found = offset
        .checked_sub(1)
        .and_then(|at| bytes.get(at))
        .map(|b| format!("'{}'", char::from(*b)));
    match found {
        Some(c) if text.starts_with("expected ident") => {
            format!("invalid character {c} in literal")
        }
        Some(c) if text.starts_with("trailing characters") => {
            format!("invalid character {c} after top-level value")
        }
        Some(c) if text.starts_with("key must be a string") => {
            format!("invalid character {c} looking for beginning of object key string")
        }
        Some(c) if text.starts_with("expected `:`") => {
            format!("invalid character {c} after object key")
        }
        Some(c) if text.contains("expected `,` or `}`") => {
            format!("invalid character {c} after object key:value pair")
        }
        Some(c) if text.contains("expected `,` or `]`") => {
            format!("invalid character {c} after array element")
        }
        Some(c) if text.starts_with("trailing comma") => {
            format!("invalid character {c} looking for beginning of value")
        }
        Some(c) if text.starts_with("expected value") => {
            format!("invalid character {c} looking for beginning of value")
        }
        _ => text,
    }
}

/// Byte offset after the character at a line and column (both from 1).
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let before: usize = bytes
        .split_inclusive(|b| *b == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    before + column
}

fn yaml_error(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(at) => format!("yaml: line {}: {}", at.line(), text),
        None => format!("yaml: {text}"),
    }
}

/// The paths of all fields of a document that [`parse_bytes`] could read, in its order.
pub fn keys(bytes: &[u8], format: Format) -> Vec<String> {
    let seen = Seen {
        keys: Some(RefCell::default()),
        ..Seen::default()
    };
    // It was read before: an error could only be that of the first time.
    let _ = read(bytes, format, &seen);
    seen.keys.map(RefCell::into_inner).unwrap_or_default()
}

/// What is noted on the way through a document.
#[derive(Default)]
struct Seen {
    duplicates: RefCell<Vec<String>>,
    /// Where the order of fields is wanted.
    keys: Option<RefCell<Vec<String>>>,
}

/// One value; where it stands is known for the sake of what is noted alone.
struct Node<'p> {
    path: &'p Path<'p>,
    seen: &'p Seen,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(v)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = self.path.index(list.len());
            let Some(item) = items.next_element_seed(Node {
                path: &path,
                seen: self.seen,
            })?
            else {
                return Ok(Value::Array(list));
            };
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = self.path.child(&key);
            if let Some(keys) = &self.seen.keys {
                keys.borrow_mut().push(path.to_string());
            }
            let value = entries.next_value_seed(Node {
                path: &path,
                seen: self.seen,
            })?;
            match map.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(mut place) => {
                    let path = self.path.child(place.key()).to_string();
                    let mut duplicates = self.seen.duplicates.borrow_mut();
                    if !duplicates.contains(&path) {
                        duplicates.push(path);
                    }
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}
