//! Times as Go's RFC 3339 parser takes them and Kubernetes writes them.

use jiff::{Timestamp, tz::TimeZone};

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// `metav1.Time`: any fraction and offset is taken; written in UTC and whole seconds.
pub fn time(text: &str) -> Result<String, String> {
    let at = parse(text).map_err(|rest| refusal(text, SECONDS, &rest))?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `metav1.MicroTime`: exactly six digits of a second.
pub fn micro_time(text: &str) -> Result<String, String> {
    let digits = text
        .get(19..)
        .and_then(|t| t.strip_prefix('.'))
        .map_or(0, |t| t.bytes().take_while(u8::is_ascii_digit).count());
    let at = parse(text).map_err(|rest| refusal(text, MICROS, &rest))?;
    if digits != 6 {
        let rest = text.get(19..).unwrap_or("");
        return Err(format!(
            "parsing time {} as {}: cannot parse {} as \".000000\"",
            quote(text),
            quote(MICROS),
            quote(rest)
        ));
    }
    Ok(at
        .to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string())
}

fn quote(text: &str) -> String {
    format!("\"{text}\"")
}

/// What could not be read, and as what.
struct Rest {
    text: String,
    layout: &'static str,
    out_of_range: Option<&'static str>,
}

fn refusal(text: &str, layout: &str, rest: &Rest) -> String {
    match rest.out_of_range {
        Some(unit) => format!("parsing time {}: {unit} out of range", quote(text)),
        None => format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(text),
            quote(layout),
            quote(&rest.text),
            quote(rest.layout)
        ),
    }
}

/// RFC 3339 from left to right, so that the error names the first thing that does not fit.
fn parse(text: &str) -> Result<Timestamp, Rest> {
    let parts: [(usize, usize, &'static str, &'static str); 6] = [
        (0, 4, "2006", "-"),
        (5, 2, "01", "-"),
        (8, 2, "02", "T"),
        (11, 2, "15", ":"),
        (14, 2, "04", ":"),
        (17, 2, "05", ""),
    ];
    let fail = |at: usize, layout| Rest {
        text: text.get(at..).unwrap_or("").to_owned(),
        layout,
        out_of_range: None,
    };
    for (at, len, layout, separator) in parts {
        let digits = text.get(at..at + len).unwrap_or("");
        if digits.len() != len || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(fail(at, layout));
        }
        if !separator.is_empty() && text.get(at + len..at + len + 1) != Some(separator) {
            return Err(fail(at + len, separator));
        }
    }
    let mut zone = 19;
    if text.as_bytes().get(19) == Some(&b'.') {
        zone += 1 + text[20..].bytes().take_while(u8::is_ascii_digit).count();
    }
    let offset = text.get(zone..).unwrap_or("");
    let numeric = offset.len() == 6
        && matches!(offset.as_bytes()[0], b'+' | b'-')
        && offset.as_bytes()[3] == b':';
    if offset != "Z" && !numeric {
        return Err(fail(zone, "Z07:00"));
    }
    text.parse::<Timestamp>().map_err(|_| {
        let number = |at: usize| text.get(at..at + 2).and_then(|t| t.parse::<u8>().ok());
        let unit = match (number(5), number(8), number(11), number(14)) {
            (Some(m), ..) if m == 0 || m > 12 => "month",
            (_, _, Some(h), _) if h > 23 => "hour",
            (_, _, _, Some(m)) if m > 59 => "minute",
            (..) if number(17).is_some_and(|s| s > 59) => "second",
            _ => "day",
        };
        Rest {
            text: String::new(),
            layout: "",
            out_of_range: Some(unit),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_seconds() {
        assert_eq!(
            time("2024-01-02T03:04:05.678+02:00"),
            Ok("2024-01-02T01:04:05Z".into())
        );
        assert_eq!(
            micro_time("2024-01-02T03:04:05.000123Z"),
            Ok("2024-01-02T03:04:05.000123Z".into())
        );
    }

    #[test]
    fn refusals_are_gos() {
        assert_eq!(
            micro_time("2024-01-02T03:04:06.5Z"),
            Err(r#"parsing time "2024-01-02T03:04:06.5Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse ".5Z" as ".000000""#.into())
        );
        assert_eq!(
            time("noon"),
            Err(r#"parsing time "noon" as "2006-01-02T15:04:05Z07:00": cannot parse "noon" as "2006""#.into())
        );
        assert_eq!(
            time("2024-13-02T03:04:05Z"),
            Err(r#"parsing time "2024-13-02T03:04:05Z": month out of range"#.into())
        );
    }
}
