//! Objects as JSON: metadata helpers, the stored layout, and the small view of a stored object
//! that selectors look at.
//!
//! A stored value always begins `{"kind":K,"apiVersion":V,"metadata":{"resourceVersion":"N",` so
//! that the store can insert the revision at a known place, a list can leave out kind and
//! apiVersion by cutting a prefix, and nothing is serialised twice.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gantry_machinery::{resource::Resource, status::Failure};
use gantry_store::{Key, Stored};
use serde_json::{Map, Value};

use crate::{errors, registry::Entry};

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub fn meta(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata").and_then(Value::as_object)
}

/// The metadata, made when there is none.
pub fn meta_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let object = object.as_object_mut()?;
    let meta = object
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if !meta.is_object() {
        *meta = Value::Object(Map::new());
    }
    meta.as_object_mut()
}

pub fn set_meta(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(meta) = meta_mut(object) {
        meta.insert(field.to_owned(), value.into());
    }
}

pub fn remove_meta(object: &mut Value, field: &str) -> Option<Value> {
    object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|m| m.remove(field))
}

pub fn meta_text<'a>(object: &'a Value, field: &str) -> &'a str {
    meta(object)
        .and_then(|m| m.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    meta_text(object, "name")
}

pub fn deleting(object: &Value) -> bool {
    meta(object).is_some_and(|m| m.get("deletionTimestamp").is_some_and(|t| !t.is_null()))
}

pub fn finalizers(object: &Value) -> Vec<String> {
    strings(meta(object).and_then(|m| m.get("finalizers")))
}

pub fn strings(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// `metadata.time` in Kubernetes' second-exact form.
pub fn time(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The name in the store: `ns/name`, or `name` for cluster-wide objects.
pub fn key(entry: &Entry, namespace: &str, name: &str) -> Key {
    let name: Arc<str> = if entry.resource.namespaced() {
        format!("{namespace}/{name}").into()
    } else {
        name.into()
    };
    Key {
        bucket: entry.bucket.clone(),
        name,
    }
}

/// `{"kind":"Pod","apiVersion":"v1",`
pub fn head(resource: &Resource) -> String {
    format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",",
        resource.kind,
        resource.api_version()
    )
}

const STAMP: &str = "\"metadata\":{\"resourceVersion\":\"";

/// Where the revision stands in a value with this head.
pub fn stamp(head: &str) -> usize {
    head.len() + STAMP.len()
}

/// Serialises an object in the stored layout, with this resourceVersion (empty: to be stamped).
pub fn encode(head: &str, object: &Value, version: &str) -> Result<Bytes, Failure> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(STAMP.as_bytes());
    out.extend_from_slice(version.as_bytes());
    out.push(b'"');
    let field = |out: &mut Vec<u8>, name: &str, value: &Value| {
        out.push(b',');
        serde_json::to_writer(&mut *out, name)
            .and_then(|()| {
                out.push(b':');
                serde_json::to_writer(&mut *out, value)
            })
            .map_err(errors::internal)
    };
    for (k, v) in meta(object).into_iter().flatten() {
        if k != "resourceVersion" {
            field(&mut out, k, v)?;
        }
    }
    out.push(b'}');
    for (k, v) in object.as_object().into_iter().flatten() {
        if !matches!(k.as_str(), "kind" | "apiVersion" | "metadata") {
            field(&mut out, k, v)?;
        }
    }
    out.push(b'}');
    Ok(out.into())
}

/// The value with another resourceVersion.
pub fn restamp(head: &str, value: &Bytes, version: u64) -> Bytes {
    let at = stamp(head);
    let Some(tail) = value.get(at..) else {
        return value.clone();
    };
    let end = tail.iter().position(|b| *b == b'"').unwrap_or(0);
    let mut out = BytesMut::with_capacity(value.len() + 8);
    out.extend_from_slice(&value[..at]);
    out.extend_from_slice(version.to_string().as_bytes());
    out.extend_from_slice(&tail[end..]);
    out.freeze()
}

/// The bytes of `metadata` in a stored value, found without parsing it.
pub fn metadata_bytes<'a>(head: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    let start = head.len() + "\"metadata\":".len();
    let tail = value.get(start..)?;
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (i, b) in tail.iter().enumerate() {
        if quoted {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match b {
            b'"' => quoted = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return tail.get(..=i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Parses a stored value.
pub fn parse(value: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(value)
        .map_err(|e| errors::internal(format_args!("decoding a stored object: {e}")))
}

/// What selectors and admission ask of a stored object, parsed once and kept with it.
#[derive(Debug, Default)]
pub struct View {
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Selectable fields by path, of the kinds that have any beside name and namespace.
    pub fields: Vec<(Box<str>, Box<str>)>,
    pub deleting: bool,
}

impl View {
    pub fn of(entry: &Entry, object: &Value) -> View {
        let labels = meta(object)
            .and_then(|m| m.get("labels"))
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
            .collect();
        View {
            labels,
            fields: crate::rules::selectable(&entry.storage, object),
            deleting: deleting(object),
        }
    }

    /// The view of a stored object, from its cache or parsed now.
    pub fn get<'a>(entry: &Entry, stored: &'a Stored) -> &'a View {
        static EMPTY: View = View {
            labels: Vec::new(),
            fields: Vec::new(),
            deleting: false,
        };
        stored
            .ext
            .get_or_init(|| {
                let object = serde_json::from_slice(&stored.value).unwrap_or_default();
                Box::new(View::of(entry, &object))
            })
            .downcast_ref()
            .unwrap_or(&EMPTY)
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }

    pub fn field(&self, path: &str) -> Option<&str> {
        find(&self.fields, path)
    }
}

fn find<'a>(pairs: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| &**k == name).map(|(_, v)| &**v)
}
