//! A write as it lies on disk.
//!
//! ```text
//! crc32c u32 │ kind u8 │ created u64 │ previous u64 │ at u64 │ bucket u16 │ name u16 │ bucket… name… value…
//! ```
//!
//! Little-endian. The checksum covers the record's revision (its key in the table) and everything
//! after the checksum. `previous` is the revision of the version that this one replaced, 0 for
//! none: it chains an object's versions, so that a record that is missing shows.

use std::sync::Arc;

use bytes::Bytes;

use crate::{EventKind, Revision, Stored};

const HEADER: usize = 4 + 1 + 8 + 8 + 8 + 2 + 2;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) revision: Revision,
    pub(crate) kind: EventKind,
    pub(crate) created: Revision,
    pub(crate) previous: Revision,
    /// When it was committed, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) bucket: &'a str,
    pub(crate) name: &'a str,
    pub(crate) value: &'a [u8],
}

/// What is wrong with a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("its checksum does not match")]
    Checksum,
    #[error("it is malformed although its checksum matches")]
    Form,
}

impl<'a> Record<'a> {
    pub(crate) fn len(&self) -> usize {
        HEADER + self.bucket.len() + self.name.len() + self.value.len()
    }

    /// Fills `out`, which must have the record's length. Names are at most 65,535 bytes long.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let mut rest = &mut out[4..];
        put(
            &mut rest,
            &[match self.kind {
                EventKind::Put => 1,
                EventKind::Delete => 2,
            }],
        );
        put(&mut rest, &self.created.to_le_bytes());
        put(&mut rest, &self.previous.to_le_bytes());
        put(&mut rest, &self.at.to_le_bytes());
        put(&mut rest, &(self.bucket.len() as u16).to_le_bytes());
        put(&mut rest, &(self.name.len() as u16).to_le_bytes());
        put(&mut rest, self.bucket.as_bytes());
        put(&mut rest, self.name.as_bytes());
        put(&mut rest, self.value);
        let sum = checksum(self.revision, &out[4..]);
        out[..4].copy_from_slice(&sum.to_le_bytes());
    }

    pub(crate) fn decode(revision: Revision, bytes: &'a [u8]) -> Result<Record<'a>, Damage> {
        let (sum, mut rest) = bytes.split_first_chunk::<4>().ok_or(Damage::Form)?;
        if checksum(revision, rest) != u32::from_le_bytes(*sum) {
            return Err(Damage::Checksum);
        }
        let [kind] = take(&mut rest)?;
        let kind = match kind {
            1 => EventKind::Put,
            2 => EventKind::Delete,
            _ => return Err(Damage::Form),
        };
        let created = u64::from_le_bytes(take(&mut rest)?);
        let previous = u64::from_le_bytes(take(&mut rest)?);
        let at = u64::from_le_bytes(take(&mut rest)?);
        let bucket = u16::from_le_bytes(take(&mut rest)?);
        let name = u16::from_le_bytes(take(&mut rest)?);
        let (bucket, rest) = rest.split_at_checked(bucket.into()).ok_or(Damage::Form)?;
        let (name, value) = rest.split_at_checked(name.into()).ok_or(Damage::Form)?;
        let bucket = std::str::from_utf8(bucket).map_err(|_| Damage::Form)?;
        let name = std::str::from_utf8(name).map_err(|_| Damage::Form)?;
        Ok(Record {
            revision,
            kind,
            created,
            previous,
            at,
            bucket,
            name,
            value,
        })
    }
}

/// A write on its way to the disk.
#[derive(Clone)]
pub(crate) struct Logged {
    pub(crate) object: Arc<Stored>,
    pub(crate) kind: EventKind,
    /// The revision it replaced; 0 for none.
    pub(crate) previous: Revision,
    /// When it was committed, in milliseconds since 1970.
    pub(crate) at: u64,
    /// What is kept of the value, where that is something else.
    pub(crate) kept: Option<Bytes>,
}

impl Logged {
    pub(crate) fn record(&self) -> Record<'_> {
        let object = &self.object;
        Record {
            revision: object.revision,
            kind: self.kind,
            created: object.created,
            previous: self.previous,
            at: self.at,
            bucket: &object.key.bucket,
            name: &object.key.name,
            value: self.kept.as_ref().unwrap_or(&object.value),
        }
    }
}

fn put(out: &mut &mut [u8], bytes: &[u8]) {
    let (here, rest) = std::mem::take(out).split_at_mut(bytes.len());
    here.copy_from_slice(bytes);
    *out = rest;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Damage::Form)?;
    *bytes = rest;
    Ok(*taken)
}

pub(crate) fn checksum(revision: Revision, bytes: &[u8]) -> u32 {
    !crc32c(crc32c(!0, &revision.to_le_bytes()), bytes)
}

/// CRC-32C (Castagnoli), eight bytes at a time.
pub(crate) fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(crc);
        crc = TABLES[7][(word & 0xff) as usize]
            ^ TABLES[6][(word >> 8 & 0xff) as usize]
            ^ TABLES[5][(word >> 16 & 0xff) as usize]
            ^ TABLES[4][(word >> 24 & 0xff) as usize]
            ^ TABLES[3][(word >> 32 & 0xff) as usize]
            ^ TABLES[2][(word >> 40 & 0xff) as usize]
            ^ TABLES[1][(word >> 48 & 0xff) as usize]
            ^ TABLES[0][(word >> 56) as usize];
    }
    for byte in tail {
        crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
    }
    crc
}

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720, B.4.
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, expected) in [
            (&[0u8; 32][..], 0x8a91_36aa_u32),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(!crc32c(!0, bytes), expected);
        }
    }

    #[test]
    fn a_record_is_read_as_written_and_any_flipped_bit_shows() {
        for (kind, value) in [(EventKind::Put, &b"value"[..]), (EventKind::Delete, b"")] {
            let record = Record {
                revision: 7,
                kind,
                created: 5,
                previous: 6,
                at: 9,
                bucket: "/pods",
                name: "a/b",
                value,
            };
            let mut bytes = vec![0; record.len()];
            record.encode(&mut bytes);
            assert_eq!(Record::decode(7, &bytes), Ok(record));
            assert_eq!(Record::decode(8, &bytes), Err(Damage::Checksum));
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(7, &bytes), Err(Damage::Checksum));
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            for length in 0..bytes.len() {
                assert!(Record::decode(7, &bytes[..length]).is_err());
            }
        }
    }
}
