//! A length of time as people write it: `90s`, `5m`, `1h30m`, `250ms`.

use std::{fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, to the millisecond. Written as in Go (`1h30m`), without fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// Why a text is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time such as 90s, 5m or 1h30m")]
pub struct ParseSpanError(pub String);

impl Span {
    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// So many minutes.
    pub const fn minutes(n: u64) -> Self {
        Self(Duration::from_secs(n * 60))
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(Duration::from_millis(
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        ))
    }
}

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSpanError(text.to_owned());
        if text == "0" {
            return Ok(Self::default());
        }
        if text.is_empty() {
            return Err(wrong());
        }
        let mut rest = text;
        let mut millis = 0u64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
            let (unit, factor) = units
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))
                .ok_or_else(wrong)?;
            rest = &rest[unit.len()..];
            millis = number
                .checked_mul(factor)
                .and_then(|n| millis.checked_add(n))
                .ok_or_else(wrong)?;
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size, limit) in [
            ("h", 3_600_000, u128::MAX),
            ("m", 60_000, 60),
            ("s", 1_000, 60),
            ("ms", 1, 1_000),
        ] {
            let n = millis / size % limit;
            if n > 0 {
                write!(f, "{n}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The bound is for the API server: it weighs rules (`duration(self.interval)`) by the longest text.
        json_schema!({"type": "string", "maxLength": 32, "pattern": "^(0|([0-9]+(ms|s|m|h))+)$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, millis, shown) in [
            ("90s", Some(90_000), "1m30s"),
            ("5m", Some(300_000), "5m"),
            ("1h30m", Some(5_400_000), "1h30m"),
            ("250ms", Some(250), "250ms"),
            ("1m500ms", Some(60_500), "1m500ms"),
            ("0", Some(0), "0s"),
            ("0s", Some(0), "0s"),
            ("", None, ""),
            ("5", None, ""),
            ("m", None, ""),
            ("1.5h", None, ""),
            ("-5s", None, ""),
            ("99999999999999999999h", None, ""),
        ] {
            let got = text.parse::<Span>().ok();
            assert_eq!(got.map(|s| s.duration().as_millis()), millis, "{text:?}");
            if let Some(got) = got {
                assert_eq!(got.to_string(), shown);
                assert_eq!(shown.parse::<Span>().unwrap(), got);
            }
        }
    }
}
