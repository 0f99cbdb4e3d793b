//! JSON to messages, in one pass over the text of an object: no tree of it is made.
//!
//! The bytes are those that Go's generated encoders write: fields by number, keys of maps in
//! order, and every field that is no pointer, list or map even when it is empty. Which fields are
//! pointers stands in `data/wire.json`.

mod plan;
mod value;

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

pub use plan::Plan;
use value::{One, Text};

use super::{
    table::{Field, Kind, Many, Message, Native},
    wire::{BYTES, FIXED64, VARINT, put_bytes, put_tag},
};

/// The content of one value, somewhere in the writer's buffer.
#[derive(Clone, Copy)]
struct Part {
    /// Which leaf of the message's plan it belongs to.
    slot: u16,
    start: usize,
    end: usize,
}

/// Turns JSON into messages. Keeps its buffers: one writer for many objects.
#[derive(Default)]
pub struct Writer {
    /// Contents in the order of the JSON, those of open messages after each other.
    content: Vec<u8>,
    parts: Vec<Part>,
    /// A message being put in order.
    ordered: Vec<u8>,
}

impl Writer {
    /// The message of a type, of its JSON; members that it does not know are passed over.
    ///
    /// # Errors
    /// When the text is no JSON or not of the type.
    pub fn message(
        &mut self,
        message: &'static Message,
        json: &[u8],
    ) -> Result<&[u8], serde_json::Error> {
        self.content.clear();
        self.parts.clear();
        let mut text = serde_json::Deserializer::from_slice(json);
        Whole {
            writer: self,
            message,
        }
        .deserialize(&mut text)?;
        text.end()?;
        Ok(&self.content)
    }

    /// Closes a message: its parts, which are the last, become its bytes.
    fn close(&mut self, message: &'static Message, content: usize, parts: usize) {
        let plan = message.plan();
        let own = &mut self.parts[parts..];
        if !own.is_sorted_by_key(|p| p.slot) {
            // Stable: elements of a list stay in their order.
            own.sort_by_key(|p| p.slot);
        }
        self.ordered.clear();
        let mut at = Position { slot: 0, part: 0 };
        put_fields(
            &mut self.ordered,
            message,
            &plan.order,
            plan,
            &self.parts[parts..],
            &self.content,
            &mut at,
        );
        self.parts.truncate(parts);
        self.content.truncate(content);
        self.content.extend_from_slice(&self.ordered);
    }

    fn part(&mut self, slot: u16, start: usize) {
        let end = self.content.len();
        self.parts.push(Part { slot, start, end });
    }
}

struct Position {
    slot: usize,
    part: usize,
}

fn put_fields(
    out: &mut Vec<u8>,
    message: &'static Message,
    order: &[u16],
    plan: &Plan,
    parts: &[Part],
    content: &[u8],
    at: &mut Position,
) {
    for index in order {
        let field = &message.fields[usize::from(*index)];
        if let ("", Kind::Message(id)) = (field.name, field.kind) {
            let inner = id.get();
            let mut embedded = vec![];
            let order = &inner.plan().order;
            put_fields(&mut embedded, inner, order, plan, parts, content, at);
            put_bytes(out, field.number, &embedded);
            continue;
        }
        let Some(leaf) = plan.leaves.get(at.slot) else {
            return;
        };
        let mut written = false;
        while let Some(part) = parts
            .get(at.part)
            .filter(|p| usize::from(p.slot) == at.slot)
        {
            put_value(out, field, &content[part.start..part.end]);
            at.part += 1;
            written = true;
        }
        if leaf.always && !written {
            put_value(out, field, &zero(field.kind));
        }
        at.slot += 1;
    }
}

fn wire_of(field: &Field) -> u8 {
    if field.many == Many::Map {
        return BYTES;
    }
    match field.kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => VARINT,
        Kind::Double => FIXED64,
        Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Native(_) => BYTES,
    }
}

/// A tag and the value, whose content is given.
fn put_value(out: &mut Vec<u8>, field: &Field, content: &[u8]) {
    match wire_of(field) {
        BYTES => put_bytes(out, field.number, content),
        wire => {
            put_tag(out, field.number, wire);
            out.extend_from_slice(content);
        }
    }
}

/// The content of a value that nobody gave.
fn zero(kind: Kind) -> Cow<'static, [u8]> {
    match kind {
        Kind::String | Kind::Bytes => Cow::Borrowed(&[]),
        Kind::Bool | Kind::Int32 | Kind::Int64 => Cow::Borrowed(&[0]),
        Kind::Double => Cow::Borrowed(&[0; 8]),
        Kind::Native(Native::Quantity) => Cow::Borrowed(b"\x0a\x010"),
        Kind::Native(Native::IntOrString) => Cow::Borrowed(&[0x08, 0, 0x10, 0, 0x1a, 0]),
        Kind::Native(_) => Cow::Borrowed(&[]),
        Kind::Message(id) => {
            let message = id.get();
            let mut out = vec![];
            let plan = message.plan();
            let mut at = Position { slot: 0, part: 0 };
            put_fields(&mut out, message, &plan.order, plan, &[], &[], &mut at);
            Cow::Owned(out)
        }
    }
}

/// A JSON object (or, of a transparent message, a list) as a message at the end of the content.
struct Whole<'w> {
    writer: &'w mut Writer,
    message: &'static Message,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visitors tell whether there was a value: `null` is none.
impl<'de> Visitor<'de> for Whole<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of type {}", self.message.name)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Whole { writer, message } = self;
        let (content, parts) = (writer.content.len(), writer.parts.len());
        let plan = message.plan();
        while let Some(slot) = map.next_key_seed(Name(plan))? {
            let Some(slot) = slot else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let field = plan.leaves[usize::from(slot)].field;
            map.next_value_seed(Filled {
                writer,
                field,
                slot,
            })?;
        }
        writer.close(message, content, parts);
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<bool, A::Error> {
        let Whole { writer, message } = self;
        let Some(field) = message.transparent() else {
            return Err(A::Error::invalid_type(
                serde::de::Unexpected::Seq,
                &"an object",
            ));
        };
        let (content, parts) = (writer.content.len(), writer.parts.len());
        let slot = 0;
        Filled {
            writer,
            field,
            slot,
        }
        .visit_seq(seq)?;
        writer.close(message, content, parts);
        Ok(true)
    }
}

/// A member's name as its slot.
struct Name<'p>(&'p Plan);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<u16>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<u16>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<u16>, E> {
        Ok(self.0.by_name.get(name).copied())
    }
}

/// All that a field holds, as parts.
struct Filled<'w> {
    writer: &'w mut Writer,
    field: &'static Field,
    slot: u16,
}

impl<'de> DeserializeSeed<'de> for Filled<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.field.many != Many::One {
            return deserializer.deserialize_any(self);
        }
        let start = self.writer.content.len();
        let one = One {
            writer: self.writer,
            kind: self.field.kind,
        };
        if one.deserialize(deserializer)? {
            self.writer.part(self.slot, start);
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Filled<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.many {
            Many::Map => write!(f, "a map in {}", self.field.name),
            _ => write!(f, "a list in {}", self.field.name),
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let kind = self.field.kind;
        if self.field.many != Many::List {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        loop {
            let start = self.writer.content.len();
            let one = One {
                writer: self.writer,
                kind,
            };
            match seq.next_element_seed(one)? {
                None => return Ok(()),
                Some(true) => {}
                Some(false) => self.writer.content.extend_from_slice(&zero(kind)),
            }
            self.writer.part(self.slot, start);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.field.many != Many::Map {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        }
        let kind = self.field.kind;
        let first = self.writer.parts.len();
        // An entry is a message of a key (1) and a value (2).
        let of_bytes = Field {
            name: "",
            number: 2,
            many: Many::One,
            kind,
        };
        let mut value = vec![];
        while let Some(key) = map.next_key_seed(Text)? {
            let start = self.writer.content.len();
            put_bytes(&mut self.writer.content, 1, key.as_bytes());
            let inner = self.writer.content.len();
            let one = One {
                writer: self.writer,
                kind,
            };
            let given = map.next_value_seed(one)?;
            value.clear();
            value.extend_from_slice(&self.writer.content[inner..]);
            self.writer.content.truncate(inner);
            if given {
                put_value(&mut self.writer.content, &of_bytes, &value);
            } else if kind != Kind::Bytes {
                put_value(&mut self.writer.content, &of_bytes, &zero(kind));
            }
            self.writer.part(self.slot, start);
        }
        let content = &self.writer.content;
        let entries = &mut self.writer.parts[first..];
        let key = |part: &Part| entry_key(&content[part.start..part.end]);
        if !entries.is_sorted_by_key(key) {
            entries.sort_by_key(key);
        }
        Ok(())
    }
}

/// The key at the beginning of a map's entry.
fn entry_key(entry: &[u8]) -> &[u8] {
    let mut reader = super::wire::Reader(entry.get(1..).unwrap_or_default());
    reader.bytes().unwrap_or_default()
}
