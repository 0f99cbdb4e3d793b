//! Kubernetes' protocol buffers: what Go clients with types send as
//! `application/vnd.kubernetes.protobuf`.
//!
//! A body is four bytes `k8s\0` and a `runtime.Unknown`: version and kind, and the object as the
//! bytes of its own message. Messages of built-in types are decoded by the numbers in
//! `data/protobuf.json` to the same JSON that a client would have sent as JSON, except for empty
//! values, which Go writes out in one form and not in the other: [`crate::decode`] takes the
//! object through its type afterwards, and that settles them.
//!
//! Custom resources have no such form.
//!
//! Answers go the other way: [`Encoder`] turns stored JSON into the bytes a Go server would write.

mod decode;
mod encode;
mod order;
mod raw;
mod table;
pub(crate) mod wire;

use serde_json::{Map, Value};

pub use order::patched;
pub use wire::Fault;

use crate::schema;
use table::{Field, Kind, Many};
use wire::{BYTES, Reader, put_bytes, put_tag, put_varint};

/// The media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// How every body begins.
pub const PREFIX: [u8; 4] = *b"k8s\0";

/// `runtime.Unknown`: an object whose message is not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    /// The object's message.
    pub raw: &'a [u8],
}

const UNKNOWN: Field = Field {
    name: "Unknown",
    number: 0,
    many: Many::One,
    kind: Kind::Bytes,
};

/// Opens a body.
///
/// # Errors
/// When it has not the prefix, or is cut off or malformed.
pub fn envelope(body: &[u8]) -> Result<Envelope<'_>, Fault> {
    let unknown = body.strip_prefix(&PREFIX).ok_or(Fault::Prefix)?;
    let mut envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &[],
    };
    let mut reader = Reader(unknown);
    while let Some((number, wire)) = reader.tag()? {
        // 3 and 4 are the encoding and type of the content, which Kubernetes passes over as well.
        if !matches!(number, 1 | 2) {
            reader.skip(wire)?;
            continue;
        }
        if wire != BYTES {
            let field = UNKNOWN.name.to_owned();
            return Err(Fault::WrongWireType { wire, field });
        }
        let bytes = reader.bytes()?;
        if number == 2 {
            envelope.raw = bytes;
            continue;
        }
        let text = |n| decode::bytes_at(bytes, n, &UNKNOWN);
        let owned = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        if let Some(version) = text(1)? {
            envelope.api_version = owned(version);
        }
        if let Some(kind) = text(2)? {
            envelope.kind = owned(kind);
        }
    }
    Ok(envelope)
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The OpenAPI name of a version and kind, `None` when Kubernetes has no such kind. Options and
/// Status belong to every group.
pub fn type_name(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(id) = schema::builtin_by_gvk(group, version, kind) {
        return Some(schema::type_name(id).to_owned());
    }
    match (api_version, kind) {
        (_, "DeleteOptions" | "Status")
        | ("meta.k8s.io/v1", "PartialObjectMetadata" | "PartialObjectMetadataList")
        | ("meta.k8s.io/v1beta1", "PartialObjectMetadata") => Some(format!("{META}{kind}")),
        ("meta.k8s.io/v1beta1", "PartialObjectMetadataList") => {
            Some("io.k8s.apimachinery.pkg.apis.meta.v1beta1.PartialObjectMetadataList".to_owned())
        }
        // What discovery answers is of no group.
        ("v1", "APIGroup" | "APIGroupList" | "APIResourceList" | "APIVersions") => {
            Some(format!("{META}{kind}"))
        }
        ("apidiscovery.k8s.io/v2" | "apidiscovery.k8s.io/v2beta1", "APIGroupDiscoveryList") => {
            Some(format!("io.k8s.api.apidiscovery.{version}.{kind}"))
        }
        _ => None,
    }
}

/// The message of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(table::MessageId);

impl Type {
    /// `None` when the kind is not built in.
    pub fn of(api_version: &str, kind: &str) -> Option<Type> {
        table::by_name(&type_name(api_version, kind)?).map(Type)
    }
}

/// Why an object could not be written as a message.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
    #[error("encoding an object as protobuf: {0}")]
    Object(#[from] serde_json::Error),
}

/// Turns JSON into protocol buffers. One encoder serves for many objects, and keeps its buffers.
#[derive(Default)]
pub struct Encoder(encode::Writer);

impl Encoder {
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// A body: the envelope of an object, whose JSON is given.
    ///
    /// # Errors
    /// When the kind is not built in, or the JSON not of the kind.
    pub fn body(
        &mut self,
        api_version: &str,
        kind: &str,
        json: &[u8],
    ) -> Result<Vec<u8>, EncodeError> {
        let Some(Type(message)) = Type::of(api_version, kind) else {
            return Err(EncodeError::UnknownKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            });
        };
        let raw = self.0.message(message.get(), json)?;
        let mut out = envelope_head(api_version, kind, raw.len(), raw.len());
        out.extend_from_slice(raw);
        out.extend_from_slice(&ENVELOPE_TAIL);
        Ok(out)
    }

    /// Appends an item of a list to `out`.
    ///
    /// # Errors
    /// When the JSON is not of the item's type.
    pub fn item(&mut self, list: &List, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_bytes(out, list.items, self.0.message(list.item.get(), json)?);
        Ok(())
    }

    /// The beginning of a list's body: after it come `items` bytes of items, then
    /// [`ENVELOPE_TAIL`].
    ///
    /// # Errors
    /// When the JSON is no list metadata.
    pub fn list_head(
        &mut self,
        list: &List,
        meta_json: &[u8],
        items: usize,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut meta = vec![];
        let bytes = self.0.message(list.meta.get(), meta_json)?;
        put_bytes(&mut meta, list.metadata, bytes);
        let mut out = envelope_head(
            &list.api_version,
            &list.kind,
            meta.len() + items,
            meta.len(),
        );
        out.extend_from_slice(&meta);
        Ok(out)
    }
}

/// How a kind's lists are written.
#[derive(Debug, Clone)]
pub struct List {
    api_version: String,
    kind: String,
    metadata: u32,
    meta: table::MessageId,
    items: u32,
    item: table::MessageId,
}

impl List {
    /// `None` when there is no such kind of list.
    pub fn of(api_version: &str, kind: &str) -> Option<List> {
        let Type(message) = Type::of(api_version, kind)?;
        let field = |name: &str| {
            let field = message.get().fields.iter().find(|f| f.name == name)?;
            match field.kind {
                Kind::Message(id) => Some((field.number, id)),
                _ => None,
            }
        };
        let (metadata, meta) = field("metadata")?;
        let (items, item) = field("items")?;
        Some(List {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            metadata,
            meta,
            items,
            item,
        })
    }
}

/// The end of every envelope: no encoding and no type of the content, both written.
pub const ENVELOPE_TAIL: [u8; 4] = [0x1a, 0, 0x22, 0];

/// An envelope up to the content, which is `raw` bytes long; `room` for what will be appended.
fn envelope_head(api_version: &str, kind: &str, raw: usize, room: usize) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(type_meta.len() + room + 24);
    out.extend_from_slice(&PREFIX);
    put_bytes(&mut out, 1, &type_meta);
    put_tag(&mut out, 2, BYTES);
    put_varint(&mut out, raw as u64);
    out
}

/// A frame of a watch: four bytes of length, then a `WatchEvent` of a type (`ADDED`, …) and an
/// object's body.
pub fn watch_frame(kind: &str, body: &[u8]) -> Vec<u8> {
    // `object` is a RawExtension, whose only field is the bytes.
    let mut head = Vec::with_capacity(16);
    put_tag(&mut head, 1, BYTES);
    put_varint(&mut head, body.len() as u64);
    let mut out = vec![0; 4];
    out.reserve(body.len() + kind.len() + 24);
    put_bytes(&mut out, 1, kind.as_bytes());
    put_tag(&mut out, 2, BYTES);
    put_varint(&mut out, (head.len() + body.len()) as u64);
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

impl Envelope<'_> {
    /// The object as JSON, with its version and kind.
    ///
    /// # Errors
    /// When the kind is not built in, and when the message is cut off or malformed.
    pub fn object(&self) -> Result<Value, Fault> {
        self.object_within(decode::DEPTH)
    }

    fn object_within(&self, depth: u32) -> Result<Value, Fault> {
        if self.kind.is_empty() {
            return Err(Fault::MissingKind);
        }
        let name = type_name(&self.api_version, &self.kind);
        let message = name.and_then(|name| table::by_name(&name));
        let message = message.ok_or_else(|| Fault::UnknownKind {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
        })?;
        let mut map = Map::new();
        map.insert("apiVersion".to_owned(), self.api_version.clone().into());
        map.insert("kind".to_owned(), self.kind.clone().into());
        decode::message(self.raw, message.get(), &mut map, depth)?;
        Ok(Value::Object(map))
    }
}

/// An envelope within a message.
fn nested(body: &[u8], depth: u32) -> Result<Value, Fault> {
    envelope(body)?.object_within(depth)
}

#[cfg(test)]
mod encode_tests;
#[cfg(test)]
mod tests;
