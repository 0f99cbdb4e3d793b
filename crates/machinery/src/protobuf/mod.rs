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

mod decode;
mod table;
mod wire;

use serde_json::{Map, Value};

pub use wire::Fault;

use crate::schema;
use table::{Field, Kind, Many};
use wire::{BYTES, Reader};

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
    matches!(kind, "DeleteOptions" | "Status").then(|| format!("{META}{kind}"))
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
mod tests;
