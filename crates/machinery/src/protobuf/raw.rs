//! JSON within messages: a value's text, compact, copied without making a tree of it.

use std::fmt;

use serde::{
    Serialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};

/// Appends the value's text; tells whether there was one (`null` is none).
pub struct RawJson<'o>(pub &'o mut Vec<u8>);

impl RawJson<'_> {
    fn put<T: Serialize + ?Sized, E: Error>(self, value: &T) -> Result<bool, E> {
        serde_json::to_writer(self.0, value).map_err(E::custom)?;
        Ok(true)
    }
}

impl<'de> DeserializeSeed<'de> for RawJson<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The same for values within: `null` is written.
struct Inner<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Inner<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !RawJson(self.0).deserialize(deserializer)? {
            self.0.extend_from_slice(b"null");
        }
        Ok(())
    }
}

/// A member's name and the colon after it.
struct Key<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        RawJson(self.0).deserialize(deserializer)?;
        self.0.push(b':');
        Ok(())
    }
}

impl<'de> Visitor<'de> for RawJson<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        self.put(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.put(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.put(&value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        self.put(&value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        self.put(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        self.0.push(b'[');
        let start = self.0.len();
        loop {
            let before = self.0.len();
            if before > start {
                self.0.push(b',');
            }
            if seq.next_element_seed(Inner(self.0))?.is_none() {
                self.0.truncate(before);
                self.0.push(b']');
                return Ok(true);
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        self.0.push(b'{');
        let start = self.0.len();
        loop {
            let before = self.0.len();
            if before > start {
                self.0.push(b',');
            }
            if map.next_key_seed(Key(self.0))?.is_none() {
                self.0.truncate(before);
                self.0.push(b'}');
                return Ok(true);
            }
            map.next_value_seed(Inner(self.0))?;
        }
    }
}
