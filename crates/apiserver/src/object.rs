//! Objects as JSON: metadata helpers, the stored layout, and the small view of a stored object
//! that selectors look at.
//!
//! A stored value always begins `{"kind":K,"apiVersion":V,"metadata":{"resourceVersion":"N",` so
//! that the store can insert the revision at a known place, a list can leave out kind and
//! apiVersion by cutting a prefix, and nothing is serialised twice.

use gantry_machinery::path::At as _;
use std::{
    borrow::Cow,
    ops::Range,
    sync::{Arc, LazyLock, OnceLock},
};

use bytes::{Bytes, BytesMut};
use gantry_machinery::{resource::Resource, status::Failure};
use gantry_store::{Key, Stored};
use serde_json::{Map, Value};

use crate::{errors, registry::Entry, sealed::Pieces};

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .at(pointer)
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

/// A new object's uid: a random UUID, from the generator of the thread instead of the kernel.
pub fn uid() -> String {
    uuid::Builder::from_random_bytes(rand::random())
        .into_uuid()
        .to_string()
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
    encode_with(head, object, version, &Pieces::default())
}

/// The same of an object that was opened in part only.
pub fn encode_with(
    head: &str,
    object: &Value,
    version: &str,
    pieces: &Pieces,
) -> Result<Bytes, Failure> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(STAMP.as_bytes());
    out.extend_from_slice(version.as_bytes());
    out.push(b'"');
    let field = |out: &mut Vec<u8>, name: &str, value: &Value, sealed: bool| {
        out.push(b',');
        serde_json::to_writer(&mut *out, name)
            .and_then(|()| {
                out.push(b':');
                match sealed && !pieces.is_empty() {
                    true => pieces.write(out, value),
                    false => serde_json::to_writer(&mut *out, value),
                }
            })
            .map_err(errors::internal)
    };
    for (k, v) in meta(object).into_iter().flatten() {
        if k != "resourceVersion" {
            field(&mut out, k, v, k == "managedFields")?;
        }
    }
    out.push(b'}');
    for (k, v) in object.as_object().into_iter().flatten() {
        if !matches!(k.as_str(), "kind" | "apiVersion" | "metadata") {
            field(&mut out, k, v, pieces.within(k))?;
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

/// The apiVersion and kind that an object's JSON names; read off its beginning where it is in the
/// stored layout. Discovery's objects may lack the first: they are `v1`.
pub fn type_of(json: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), Failure> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Type<'a> {
        #[serde(borrow, default)]
        api_version: Cow<'a, str>,
        #[serde(borrow, default)]
        kind: Cow<'a, str>,
    }
    let of_head = || {
        let rest = json.strip_prefix(b"{\"kind\":\"")?;
        let (kind, rest) = rest.split_at_checked(rest.iter().position(|b| *b == b'"')?)?;
        let rest = rest.strip_prefix(b"\",\"apiVersion\":\"")?;
        let (version, _) = rest.split_at_checked(rest.iter().position(|b| *b == b'"')?)?;
        Some((
            str::from_utf8(version).ok()?.into(),
            str::from_utf8(kind).ok()?.into(),
        ))
    };
    if let Some(found) = of_head() {
        return Ok(found);
    }
    let mut found: Type<'_> = serde_json::from_slice(json).map_err(errors::internal)?;
    if found.api_version.is_empty() {
        found.api_version = "v1".into();
    }
    Ok((found.api_version, found.kind))
}

/// Parses a stored value.
pub fn parse(value: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(value)
        .map_err(|e| errors::internal(format_args!("decoding a stored object: {e}")))
}

/// What selectors and admission ask of a stored object, parsed once and kept with it.
///
/// There is one for every stored object, so its texts share one allocation.
#[derive(Debug, Default)]
pub struct View {
    /// Keys and values of labels, then paths and values of selectable fields (of the kinds that
    /// have any beside name and namespace).
    texts: Box<str>,
    /// Where each text ends.
    ends: Box<[u32]>,
    /// How many of the pairs are labels.
    labels: u32,
    pub deleting: bool,
    /// The whole object, of the few kinds that admission reads.
    whole: OnceLock<Value>,
}

impl View {
    pub fn of(entry: &Entry, object: &Value) -> View {
        let (mut texts, mut ends) = (String::new(), Vec::new());
        let mut labels = 0;
        let mut put = |text: &str| {
            texts.push_str(text);
            // An object is at most a few MiB.
            ends.push(u32::try_from(texts.len()).unwrap_or(u32::MAX));
        };
        let all = meta(object).and_then(|m| m.get("labels"));
        for (key, value) in all.and_then(Value::as_object).into_iter().flatten() {
            put(key);
            put(value.as_str().unwrap_or_default());
            labels += 1;
        }
        for (path, value) in crate::rules::selectable(&entry.storage, object) {
            put(path);
            put(&value);
        }
        View {
            texts: texts.into(),
            ends: ends.into(),
            labels,
            deleting: deleting(object),
            whole: OnceLock::new(),
        }
    }

    /// The view of a stored object, from its cache or parsed now.
    pub fn get<'a>(entry: &Entry, stored: &'a Stored) -> &'a View {
        static EMPTY: LazyLock<View> = LazyLock::new(View::default);
        stored
            .ext
            .get_or_init(|| {
                let object = serde_json::from_slice(&stored.value).unwrap_or_default();
                Box::new(View::of(entry, &object))
            })
            .downcast_ref()
            .unwrap_or(&EMPTY)
    }

    /// The whole object, parsed once and kept as long as its version: for the small objects that
    /// admission reads for every request.
    pub fn whole<'a>(entry: &Entry, stored: &'a Stored) -> &'a Value {
        View::get(entry, stored)
            .whole
            .get_or_init(|| serde_json::from_slice(&stored.value).unwrap_or_default())
    }

    fn text(&self, at: usize) -> &str {
        let start = match at.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(u32::MAX),
            None => 0,
        };
        let end = self.ends.get(at).copied().unwrap_or(u32::MAX);
        self.texts
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    fn find(&self, mut pairs: Range<usize>, name: &str) -> Option<&str> {
        pairs
            .find(|pair| self.text(2 * pair) == name)
            .map(|pair| self.text(2 * pair + 1))
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.find(0..self.labels as usize, name)
    }

    pub fn field(&self, path: &str) -> Option<&str> {
        self.find(self.labels as usize..self.ends.len() / 2, path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn an_objects_type_is_found_in_any_layout() {
        for json in [
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#,
            r#"{"apiVersion":"v1","a":{"kind":"X"},"kind":"Pod"}"#,
            r#"{"kind":"Pod"}"#,
            r#" {"kind" : "P\u006fd", "apiVersion":"v1"}"#,
        ] {
            let (version, kind) = type_of(json.as_bytes()).expect("typed");
            assert_eq!((&*version, &*kind), ("v1", "Pod"), "{json}");
        }
        assert!(type_of(b"{").is_err());
    }

    #[test]
    fn a_view_finds_labels_and_fields_each_among_its_own() {
        let registry = Registry::new(vec![], 0);
        let entry = registry.lookup("", "v1", "pods").expect("served");
        let pod = json!({
            "metadata": {"labels": {"a": "1", "b": "", "spec.nodeName": "label"}},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running"},
        });
        let view = View::of(entry, &pod);
        for (name, label, field) in [
            ("a", Some("1"), None),
            ("b", Some(""), None),
            ("spec.nodeName", Some("label"), Some("n")),
            ("status.phase", None, Some("Running")),
            ("1", None, None),
        ] {
            assert_eq!(view.label(name), label, "{name}");
            assert_eq!(view.field(name), field, "{name}");
        }
        assert!(!view.deleting);
    }
}
