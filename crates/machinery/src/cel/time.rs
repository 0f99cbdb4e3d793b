//! Durations and points in time.

use jiff::tz::TimeZone;

use super::{error::Fault, value::Value};

/// `1h30m`, `-1.5s`, `10ms` as Go reads it, in nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction.bytes().take(18) {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// As `90m` becomes `5400s`: seconds with as many decimals as there are.
pub(super) fn show_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let (seconds, rest) = (all / 1_000_000_000, all % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let decimals = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", decimals.trim_end_matches('0'))
}

/// RFC 3339.
pub(super) fn parse_timestamp(text: &str) -> Option<jiff::Timestamp> {
    let strict = text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T');
    strict.then(|| text.parse().ok()).flatten()
}

pub(super) fn show_timestamp(time: jiff::Timestamp) -> String {
    time.to_string()
}

/// `getHours()` and its like, of a point in time; `zone` is a name or an offset such as `+01:00`.
pub(super) fn part_of_timestamp(
    part: &str,
    time: jiff::Timestamp,
    zone: Option<&str>,
) -> Result<i64, Fault> {
    let zone = match zone {
        None | Some("" | "UTC") => TimeZone::UTC,
        Some(name) => {
            named_zone(name).ok_or_else(|| Fault::new(format!("unknown time zone {name}")))?
        }
    };
    let at = time.to_zoned(zone);
    Ok(match part {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return Err(Fault::no_overload()),
    })
}

fn named_zone(name: &str) -> Option<TimeZone> {
    let (sign, digits) = match name.as_bytes().first()? {
        b'-' => (-1, &name[1..]),
        b'+' => (1, &name[1..]),
        b'0'..=b'9' => (1, name),
        _ => return TimeZone::get(name).ok(),
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = sign * (hours * 3600 + minutes * 60);
    jiff::tz::Offset::from_seconds(seconds)
        .ok()
        .map(TimeZone::fixed)
}

/// `getHours()` and its like, of a duration: the whole of it in that unit.
pub(super) fn part_of_duration(part: &str, nanoseconds: i64) -> Result<i64, Fault> {
    Ok(match part {
        "getHours" => nanoseconds / 3_600_000_000_000,
        "getMinutes" => nanoseconds / 60_000_000_000,
        "getSeconds" => nanoseconds / 1_000_000_000,
        "getMilliseconds" => nanoseconds / 1_000_000 % 1000,
        _ => return Err(Fault::no_overload()),
    })
}

/// `+` and `-` where a time or a duration takes part.
pub(super) fn arithmetic<'a>(
    operator: &str,
    a: &Value<'a>,
    b: &Value<'a>,
) -> Result<Value<'a>, Fault> {
    let overflow = || Fault::new("duration overflow");
    let shift = |t: jiff::Timestamp, d: i64| {
        t.checked_add(jiff::SignedDuration::from_nanos(d))
            .map(Value::Timestamp)
            .map_err(|_| Fault::new("timestamp overflow"))
    };
    match (operator, a, b) {
        ("_+_", Value::Timestamp(t), Value::Duration(d))
        | ("_+_", Value::Duration(d), Value::Timestamp(t)) => shift(*t, *d),
        ("_-_", Value::Timestamp(t), Value::Duration(d)) => {
            shift(*t, d.checked_neg().ok_or_else(overflow)?)
        }
        ("_-_", Value::Timestamp(a), Value::Timestamp(b)) => {
            i64::try_from(a.as_nanosecond() - b.as_nanosecond())
                .map(Value::Duration)
                .map_err(|_| overflow())
        }
        ("_+_", Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map(Value::Duration).ok_or_else(overflow)
        }
        ("_-_", Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Duration).ok_or_else(overflow)
        }
        _ => Err(Fault::no_overload()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanoseconds, shown) in [
            ("1h30m", 5_400_000_000_000, "5400s"),
            ("-1.5s", -1_500_000_000, "-1.5s"),
            ("10ms", 10_000_000, "0.01s"),
            ("0", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Some(nanoseconds), "{text}");
            assert_eq!(show_duration(nanoseconds), shown);
        }
        for text in ["", "1", "h", "1d", "1.2.3s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
