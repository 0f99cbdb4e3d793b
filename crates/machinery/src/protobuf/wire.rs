//! The encoding of protocol buffers: varints, tags and lengths, with nothing of Kubernetes in it.
//!
//! Every read is checked against what is left, so that hostile input ends in a [`Fault`].

/// Why bytes could not be read. The words are those of Go's generated decoders where they have any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("unexpected EOF")]
    Eof,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag {number} (wire type {wire})")]
    IllegalTag { number: u64, wire: u8 },
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    #[error("proto: unexpected end of group")]
    EndOfGroup,
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWireType { wire: u8, field: String },
    #[error("proto: messages are nested too deeply")]
    TooDeep,
    #[error("proto: field {field} holds {what}")]
    Value { field: String, what: String },
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
    #[error("Object 'Kind' is missing")]
    MissingKind,
}

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const BYTES: u8 = 2;
pub const START_GROUP: u8 = 3;
pub const END_GROUP: u8 = 4;
pub const FIXED32: u8 = 5;

/// How deeply groups of unknown fields may nest.
const GROUPS: u32 = 100;

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_tag(out: &mut Vec<u8>, number: u32, wire: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire));
}

/// A field of bytes: tag, length and content.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            // The tenth byte has room for the topmost bit alone; Go lets the others fall off.
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 {
            Fault::Eof
        } else {
            Fault::Overflow
        })
    }

    /// The next field's number and wire type; `None` at the end.
    pub fn tag(&mut self) -> Result<Option<(u32, u8)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (number, wire) = (key >> 3, (key & 7) as u8);
        match u32::try_from(number) {
            Ok(n) if n != 0 && n <= i32::MAX as u32 => Ok(Some((n, wire))),
            _ => Err(Fault::IllegalTag { number, wire }),
        }
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Fault::Eof)?;
        self.0 = rest;
        Ok(head)
    }

    /// A length and as many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.varint()?).map_err(|_| Fault::Eof)?;
        self.take(length)
    }

    pub fn fixed64(&mut self) -> Result<u64, Fault> {
        let mut value = [0; 8];
        value.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(value))
    }

    /// Passes over the value of a field nobody asked for.
    pub fn skip(&mut self, mut wire: u8) -> Result<(), Fault> {
        let mut depth = 0u32;
        loop {
            match wire {
                VARINT => {
                    self.varint()?;
                }
                FIXED64 => {
                    self.take(8)?;
                }
                BYTES => {
                    self.bytes()?;
                }
                START_GROUP => {
                    depth += 1;
                    if depth > GROUPS {
                        return Err(Fault::TooDeep);
                    }
                }
                END_GROUP => depth = depth.checked_sub(1).ok_or(Fault::EndOfGroup)?,
                FIXED32 => {
                    self.take(4)?;
                }
                other => return Err(Fault::IllegalWireType(other)),
            }
            if depth == 0 {
                return Ok(());
            }
            wire = self.tag()?.ok_or(Fault::Eof)?.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_or_are_refused() {
        assert_eq!(Reader(&[0xac, 0x02]).varint(), Ok(300));
        assert_eq!(Reader(&[0xff; 9]).varint(), Err(Fault::Eof));
        assert_eq!(Reader(&[0xff; 11]).varint(), Err(Fault::Overflow));
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader(&minus_one).varint(), Ok(u64::MAX));
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        assert_eq!(Reader(&[5, 1, 2]).bytes(), Err(Fault::Eof));
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert_eq!(Reader(&huge).bytes(), Err(Fault::Eof));
    }

    #[test]
    fn unknown_fields_of_every_wire_type_are_skipped() {
        // Field 1: varint, fixed64, bytes, a group with a group and a field in it, fixed32.
        let all = [
            0x08, 0x80, 0x01, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 2, 7, 7, 0x0b, 0x13, 0x08, 1,
            0x14, 0x0c, 0x0d, 0, 0, 0, 0,
        ];
        let mut reader = Reader(&all);
        let mut wires = vec![];
        while let Some((number, wire)) = reader.tag().expect("a tag") {
            assert_eq!(number, 1);
            reader.skip(wire).expect("skipped");
            wires.push(wire);
        }
        assert_eq!(wires, [0, 1, 2, 3, 5]);
        let nested = vec![0x0b; 1000];
        let mut reader = Reader(&nested);
        let (_, wire) = reader.tag().expect("a tag").expect("not empty");
        assert_eq!(reader.skip(wire), Err(Fault::TooDeep));
        assert!(Reader(&[0x00, 0x00]).tag().is_err());
    }
}
