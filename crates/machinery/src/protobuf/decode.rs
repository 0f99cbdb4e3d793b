//! Messages to JSON: one walk of the bytes beside the table.

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    table::{self, Field, Kind, Many, Message, Native, SCHEMA},
    wire::{BYTES, FIXED64, Fault, Reader, VARINT},
};

/// How deeply messages may nest. JSON is held to as much.
pub const DEPTH: u32 = 128;

/// Decodes a message into the members of an object, over what is there: a message given twice is
/// merged, as protocol buffers have it.
pub fn message(
    bytes: &[u8],
    message_type: &Message,
    into: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.tag()? {
        match message_type.field(number) {
            Some(field) => one_field(&mut reader, wire, field, into, depth)?,
            None => reader.skip(wire)?,
        }
    }
    Ok(())
}

fn one_field(
    reader: &mut Reader<'_>,
    wire: u8,
    field: &Field,
    into: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), Fault> {
    match field.many {
        Many::One => {
            let Kind::Message(id) = field.kind else {
                let value = single(reader, wire, field, field.kind, depth)?;
                into.insert(field.name.to_owned(), value);
                return Ok(());
            };
            let bytes = length_delimited(reader, wire, field)?;
            if field.name.is_empty() {
                return message(bytes, id.get(), into, depth);
            }
            if id.get().transparent().is_some() {
                let value = whole(bytes, id.get(), depth)?;
                into.insert(field.name.to_owned(), value);
                return Ok(());
            }
            let there = into
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            match there.as_object_mut() {
                Some(there) => message(bytes, id.get(), there, depth),
                None => Ok(()),
            }
        }
        Many::List => {
            let list = into
                .entry(field.name)
                .or_insert_with(|| Value::Array(Vec::new()));
            let Some(list) = list.as_array_mut() else {
                return Ok(());
            };
            let packable = matches!(field.kind, Kind::Bool | Kind::Int32 | Kind::Int64);
            if wire == BYTES && (packable || field.kind == Kind::Double) {
                let wire = if packable { VARINT } else { FIXED64 };
                let mut packed = Reader(reader.bytes()?);
                while !packed.0.is_empty() {
                    list.push(single(&mut packed, wire, field, field.kind, depth)?);
                }
                return Ok(());
            }
            list.push(single(reader, wire, field, field.kind, depth)?);
            Ok(())
        }
        Many::Map => {
            let (key, value) = entry(length_delimited(reader, wire, field)?, field, depth)?;
            let map = into
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Some(map) = map.as_object_mut() {
                map.insert(key, value);
            }
            Ok(())
        }
    }
}

/// A map's entry is a message of a key (1) and a value (2), either of which may be left out.
fn entry(bytes: &[u8], field: &Field, depth: u32) -> Result<(String, Value), Fault> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.tag()? {
        match number {
            1 => key = text(length_delimited(&mut reader, wire, field)?),
            2 => value = Some(single(&mut reader, wire, field, field.kind, depth)?),
            _ => reader.skip(wire)?,
        }
    }
    let value = match value {
        Some(value) => value,
        None => match field.kind {
            Kind::String | Kind::Bytes => Value::from(""),
            Kind::Bool => Value::Bool(false),
            Kind::Int32 | Kind::Int64 | Kind::Double => Value::from(0),
            Kind::Message(id) => whole(&[], id.get(), depth)?,
            Kind::Native(kind) => native(&[], kind, field, depth)?,
        },
    };
    Ok((key, value))
}

fn length_delimited<'a>(
    reader: &mut Reader<'a>,
    wire: u8,
    field: &Field,
) -> Result<&'a [u8], Fault> {
    expect(wire, BYTES, field)?;
    reader.bytes()
}

fn expect(wire: u8, wanted: u8, field: &Field) -> Result<(), Fault> {
    if wire == wanted {
        return Ok(());
    }
    Err(Fault::WrongWireType {
        wire,
        field: field.name.to_owned(),
    })
}

/// Go keeps bytes that are no UTF-8 in strings, and replaces them when it writes JSON.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One value: a field's, or an element of its list or map.
fn single(
    reader: &mut Reader<'_>,
    wire: u8,
    field: &Field,
    kind: Kind,
    depth: u32,
) -> Result<Value, Fault> {
    Ok(match kind {
        Kind::String => text(length_delimited(reader, wire, field)?).into(),
        Kind::Bytes => {
            let bytes = length_delimited(reader, wire, field)?;
            base64::engine::general_purpose::STANDARD
                .encode(bytes)
                .into()
        }
        Kind::Bool => {
            expect(wire, VARINT, field)?;
            Value::Bool(reader.varint()? != 0)
        }
        // Negative numbers are sign-extended to 64 bits; as in Go the upper half does not count.
        Kind::Int32 => {
            expect(wire, VARINT, field)?;
            Value::from(reader.varint()? as i32)
        }
        Kind::Int64 => {
            expect(wire, VARINT, field)?;
            Value::from(reader.varint()? as i64)
        }
        Kind::Double => {
            expect(wire, FIXED64, field)?;
            let number = f64::from_bits(reader.fixed64()?);
            serde_json::Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| bad(field, format!("{number}, which is no JSON number")))?
        }
        Kind::Message(id) => whole(length_delimited(reader, wire, field)?, id.get(), depth)?,
        Kind::Native(kind) => native(length_delimited(reader, wire, field)?, kind, field, depth)?,
    })
}

/// A message on its own.
pub fn whole(bytes: &[u8], message_type: &Message, depth: u32) -> Result<Value, Fault> {
    let mut map = Map::new();
    message(bytes, message_type, &mut map, depth)?;
    if let Some(field) = message_type.transparent() {
        let empty = || Value::Array(Vec::new());
        return Ok(map.remove(field.name).unwrap_or_else(empty));
    }
    Ok(Value::Object(map))
}

fn bad(field: &Field, what: impl Into<String>) -> Fault {
    Fault::Value {
        field: field.name.to_owned(),
        what: what.into(),
    }
}

/// The few messages whose JSON is something else than their fields.
fn native(bytes: &[u8], kind: Native, field: &Field, depth: u32) -> Result<Value, Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
    match kind {
        Native::Time | Native::MicroTime => time(bytes, kind, field),
        Native::Quantity => {
            let quantity = string_at(bytes, 1, field)?.unwrap_or_default();
            Ok(if quantity.is_empty() {
                Value::from("0")
            } else {
                quantity.into()
            })
        }
        Native::IntOrString => int_or_string(bytes, field),
        Native::Json | Native::RawExtension => {
            let raw = bytes_at(bytes, 1, field)?.unwrap_or_default();
            if raw.is_empty() {
                return Ok(Value::Null);
            }
            if kind == Native::RawExtension && raw.starts_with(&super::PREFIX) {
                return super::nested(raw, depth);
            }
            serde_json::from_slice(raw).map_err(|e| bad(field, format!("bad JSON: {e}")))
        }
        Native::SchemaOrArray => {
            let (schema, list, _) = schemas(bytes, field, depth)?;
            Ok(schema.unwrap_or(Value::Array(list)))
        }
        Native::SchemaOrBool => {
            let mut reader = Reader(bytes);
            let (mut allows, mut schema) = (false, None);
            while let Some((number, wire)) = reader.tag()? {
                match number {
                    1 => {
                        expect(wire, VARINT, field)?;
                        allows = reader.varint()? != 0;
                    }
                    2 => {
                        let bytes = length_delimited(&mut reader, wire, field)?;
                        schema = Some(one_schema(bytes, depth)?);
                    }
                    _ => reader.skip(wire)?,
                }
            }
            Ok(schema.unwrap_or(Value::Bool(allows)))
        }
        Native::SchemaOrStrings => {
            let (schema, _, strings) = schemas(bytes, field, depth)?;
            Ok(if strings.is_empty() {
                schema.unwrap_or_else(|| Value::Array(vec![]))
            } else {
                Value::Array(strings)
            })
        }
    }
}

fn one_schema(bytes: &[u8], depth: u32) -> Result<Value, Fault> {
    match table::by_name(SCHEMA) {
        Some(id) => whole(bytes, id.get(), depth),
        None => Ok(Value::Null),
    }
}

/// Field 1 as a schema, field 2 as a list, both as schemas and as strings (only one reading is
/// wanted, and only that one is made).
type Schemas = (Option<Value>, Vec<Value>, Vec<Value>);

fn schemas(bytes: &[u8], field: &Field, depth: u32) -> Result<Schemas, Fault> {
    let as_strings = field.kind == Kind::Native(Native::SchemaOrStrings);
    let (mut schema, mut list, mut strings) = (None, vec![], vec![]);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.tag()? {
        if !matches!(number, 1 | 2) {
            reader.skip(wire)?;
            continue;
        }
        let bytes = length_delimited(&mut reader, wire, field)?;
        match number {
            1 => schema = Some(one_schema(bytes, depth)?),
            _ if as_strings => strings.push(text(bytes).into()),
            _ => list.push(one_schema(bytes, depth)?),
        }
    }
    Ok((schema, list, strings))
}

/// The last value of a field of bytes; all others are skipped.
pub fn bytes_at<'a>(
    bytes: &'a [u8],
    wanted: u32,
    field: &Field,
) -> Result<Option<&'a [u8]>, Fault> {
    let mut reader = Reader(bytes);
    let mut found = None;
    while let Some((number, wire)) = reader.tag()? {
        if number == wanted {
            found = Some(length_delimited(&mut reader, wire, field)?);
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(found)
}

fn string_at(bytes: &[u8], wanted: u32, field: &Field) -> Result<Option<String>, Fault> {
    Ok(bytes_at(bytes, wanted, field)?.map(text))
}

fn int_or_string(bytes: &[u8], field: &Field) -> Result<Value, Fault> {
    let mut reader = Reader(bytes);
    let (mut is_string, mut number, mut string) = (false, 0i32, String::new());
    while let Some((tag, wire)) = reader.tag()? {
        match tag {
            1 => {
                expect(wire, VARINT, field)?;
                is_string = match reader.varint()? {
                    0 => false,
                    1 => true,
                    _ => return Err(bad(field, "neither an integer nor a string")),
                };
            }
            2 => {
                expect(wire, VARINT, field)?;
                number = reader.varint()? as i32;
            }
            3 => string = text(length_delimited(&mut reader, wire, field)?),
            _ => reader.skip(wire)?,
        }
    }
    Ok(if is_string {
        string.into()
    } else {
        number.into()
    })
}

/// Seconds and nanoseconds since 1970; an empty message is Go's zero time, `null` in JSON.
fn time(bytes: &[u8], kind: Native, field: &Field) -> Result<Value, Fault> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let mut reader = Reader(bytes);
    let (mut seconds, mut nanos) = (0i64, 0i32);
    while let Some((number, wire)) = reader.tag()? {
        match number {
            1 => {
                expect(wire, VARINT, field)?;
                seconds = reader.varint()? as i64;
            }
            2 => {
                expect(wire, VARINT, field)?;
                nanos = reader.varint()? as i32;
            }
            _ => reader.skip(wire)?,
        }
    }
    const SECOND: i32 = 1_000_000_000;
    let at = seconds
        .checked_add(nanos.div_euclid(SECOND).into())
        .and_then(|seconds| Timestamp::new(seconds, nanos.rem_euclid(SECOND)).ok())
        .filter(|at| {
            let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
            (0..=9999).contains(&year)
        })
        .ok_or_else(|| bad(field, "a time out of range"))?;
    let format = match kind {
        Native::MicroTime => "%Y-%m-%dT%H:%M:%S.%6fZ",
        _ => "%Y-%m-%dT%H:%M:%SZ",
    };
    Ok(at.strftime(format).to_string().into())
}
