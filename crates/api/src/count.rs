//! A count of instances, or a share of them: `3` or `"10%"`.
//!
//! Rounding follows the Deployment API: what may be *missing* rounds down, what must be *covered*
//! rounds up. Where rounding down would allow nothing to move at all, one instance may.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of instances or a percentage of the instances in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountOrPercent {
    /// So many instances.
    Count(u32),
    /// So many of every hundred. Over 100 is read as 100 when it is resolved.
    Percent(u32),
}

/// Why a text is no [`CountOrPercent`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a count (3) nor a percentage (\"10%\")")]
pub struct ParseCountError(pub String);

impl CountOrPercent {
    /// Instances meant, of `total`, rounded down, never more than `total`.
    pub fn floor(self, total: u32) -> u32 {
        match self {
            Self::Count(n) => n.min(total),
            Self::Percent(p) => (u64::from(p.min(100)) * u64::from(total) / 100) as u32,
        }
    }

    /// Instances meant, of `total`, rounded up, never more than `total`.
    pub fn ceil(self, total: u32) -> u32 {
        match self {
            Self::Count(n) => n.min(total),
            Self::Percent(p) => (u64::from(p.min(100)) * u64::from(total)).div_ceil(100) as u32,
        }
    }

    /// How many of `total` may be out of service at once: rounded down, but at least one, or
    /// nothing could ever be updated.
    pub fn max_out(self, total: u32) -> u32 {
        self.floor(total).max(1)
    }
}

impl FromStr for CountOrPercent {
    type Err = ParseCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseCountError(text.to_owned());
        // `u32::from_str` lets "+3" pass, the schema's pattern does not.
        let number = |digits: &str| {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            digits.parse::<u32>().map_err(|_| wrong())
        };
        match text.strip_suffix('%') {
            Some(digits) => number(digits).map(Self::Percent),
            None => number(text).map(Self::Count),
        }
    }
}

impl fmt::Display for CountOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}

impl Serialize for CountOrPercent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(n) => serializer.serialize_u32(*n),
            Self::Percent(p) => serializer.collect_str(&format_args!("{p}%")),
        }
    }
}

impl<'de> Deserialize<'de> for CountOrPercent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = CountOrPercent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count or a percentage")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Self::Value, E> {
                u32::try_from(n)
                    .map(CountOrPercent::Count)
                    .map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Self::Value, E> {
                u32::try_from(n)
                    .map(CountOrPercent::Count)
                    .map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for CountOrPercent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CountOrPercent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 10, "pattern": "^([0-9]+|([0-9]|[1-9][0-9]|100)%)$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, want) in [
            ("3", Some(CountOrPercent::Count(3))),
            ("10%", Some(CountOrPercent::Percent(10))),
            ("0", Some(CountOrPercent::Count(0))),
            ("", None),
            ("%", None),
            ("+3", None),
            ("-1", None),
            ("1.5%", None),
            ("99999999999", None),
        ] {
            assert_eq!(text.parse::<CountOrPercent>().ok(), want, "{text:?}");
        }
    }

    #[test]
    fn json_round_trip() {
        for text in ["3", "\"10%\""] {
            let value: CountOrPercent = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        // A count written as a string is taken too: YAML authors quote.
        assert_eq!(
            serde_json::from_str::<CountOrPercent>("\"3\"").unwrap(),
            CountOrPercent::Count(3)
        );
        assert!(serde_json::from_str::<CountOrPercent>("-1").is_err());
    }

    #[test]
    fn rounding() {
        use CountOrPercent::{Count, Percent};
        for (value, total, floor, ceil, out) in [
            (Percent(10), 30, 3, 3, 3),
            (Percent(10), 29, 2, 3, 2),
            (Percent(10), 5, 0, 1, 1),
            (Percent(0), 5, 0, 0, 1),
            (Percent(100), 7, 7, 7, 7),
            (Percent(250), 7, 7, 7, 7),
            (Count(4), 3, 3, 3, 3),
            (Count(0), 3, 0, 0, 1),
            (Percent(100), u32::MAX, u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert_eq!(
                (value.floor(total), value.ceil(total), value.max_out(total)),
                (floor, ceil, out),
                "{value} of {total}"
            );
        }
    }
}
