//! Single values: scalars, and the types that Kubernetes writes in a way of their own.

use std::{borrow::Cow, fmt};

use base64::Engine;
use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Whole, Writer};
use crate::protobuf::{
    raw::RawJson,
    table::{self, Kind, Native, SCHEMA},
    wire::{BYTES, VARINT, put_bytes, put_tag, put_varint},
};

/// A text, borrowed where it can be.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// One value as its content, without tag or length.
pub(super) struct One<'w> {
    pub writer: &'w mut Writer,
    pub kind: Kind,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        match self.kind {
            Kind::Message(id) => Whole {
                writer: self.writer,
                message: id.get(),
            }
            .deserialize(deserializer),
            Kind::Native(Native::Json | Native::RawExtension) => {
                let Writer {
                    content, ordered, ..
                } = self.writer;
                ordered.clear();
                let given = RawJson(ordered).deserialize(deserializer)?;
                if given {
                    put_bytes(content, 1, ordered);
                }
                Ok(given)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of kind {:?}", self.kind)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        let out = &mut self.writer.content;
        match self.kind {
            Kind::Bool => out.push(value.into()),
            Kind::Native(Native::SchemaOrBool) => out.extend([1 << 3, value.into()]),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        Ok(true)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        let out = &mut self.writer.content;
        match self.kind {
            Kind::Int32 | Kind::Int64 => put_varint(out, value as u64),
            Kind::Double => out.extend((value as f64).to_bits().to_le_bytes()),
            Kind::Native(Native::IntOrString) => {
                out.extend([1 << 3, 0, 2 << 3]);
                put_varint(out, value as u64);
                out.extend([0x1a, 0]);
            }
            Kind::Native(Native::Quantity) => put_bytes(out, 1, value.to_string().as_bytes()),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Signed(value), &self)),
        }
        Ok(true)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        match (self.kind, i64::try_from(value)) {
            (Kind::Double, Err(_)) => self.visit_f64(value as f64),
            (_, Ok(value)) => self.visit_i64(value),
            (_, Err(_)) => Err(E::invalid_value(
                serde::de::Unexpected::Unsigned(value),
                &self,
            )),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        if self.kind == Kind::Double {
            self.writer.content.extend(value.to_bits().to_le_bytes());
            return Ok(true);
        }
        let whole = value as i64;
        if whole as f64 == value {
            return self.visit_i64(whole);
        }
        Err(E::invalid_type(serde::de::Unexpected::Float(value), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        let out = &mut self.writer.content;
        let refused = |what: &dyn serde::de::Expected| {
            E::invalid_value(serde::de::Unexpected::Str(text), what)
        };
        match self.kind {
            Kind::String => out.extend_from_slice(text.as_bytes()),
            Kind::Bytes => base64::engine::general_purpose::STANDARD
                .decode_vec(text, out)
                .map_err(|_| refused(&"base64"))?,
            Kind::Native(Native::Quantity) => put_bytes(out, 1, text.as_bytes()),
            Kind::Native(Native::IntOrString) => {
                out.extend([1 << 3, 1, 2 << 3, 0]);
                put_bytes(out, 3, text.as_bytes());
            }
            Kind::Native(kind @ (Native::Time | Native::MicroTime)) => {
                let at: Timestamp = text.parse().map_err(|_| refused(&"a time"))?;
                let nanos = match kind {
                    Native::MicroTime => at.subsec_nanosecond().div_euclid(1000) * 1000,
                    // Kubernetes' times are of whole seconds.
                    _ => 0,
                };
                put_tag(out, 1, VARINT);
                put_varint(out, at.as_second() as u64);
                put_tag(out, 2, VARINT);
                put_varint(out, nanos as u64);
            }
            _ => return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let element = match self.kind {
            Kind::Native(Native::SchemaOrArray) => table::by_name(SCHEMA).map(Kind::Message),
            Kind::Native(Native::SchemaOrStrings) => Some(Kind::String),
            _ => None,
        };
        let Some(element) = element else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        };
        loop {
            let start = self.writer.content.len();
            let one = One {
                writer: self.writer,
                kind: element,
            };
            if seq.next_element_seed(one)?.is_none() {
                return Ok(true);
            }
            wrap(&mut self.writer.content, start, 2);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let number = match self.kind {
            Kind::Native(Native::SchemaOrArray | Native::SchemaOrStrings) => 1,
            Kind::Native(Native::SchemaOrBool) => {
                // A schema allows what it describes.
                self.writer.content.extend([1 << 3, 1]);
                2
            }
            _ => return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self)),
        };
        let Some(schema) = table::by_name(SCHEMA) else {
            return Err(A::Error::custom("the table has no schemas"));
        };
        let start = self.writer.content.len();
        Whole {
            writer: self.writer,
            message: schema.get(),
        }
        .visit_map(map)?;
        wrap(&mut self.writer.content, start, number);
        Ok(true)
    }
}

/// Makes what stands at the end a field of bytes.
fn wrap(content: &mut Vec<u8>, start: usize, number: u32) {
    let mut head = vec![];
    put_tag(&mut head, number, BYTES);
    put_varint(&mut head, (content.len() - start) as u64);
    content.splice(start..start, head);
}
