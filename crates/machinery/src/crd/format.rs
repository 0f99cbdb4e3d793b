//! Formats of text (`format` in a schema), as far as Kubernetes checks them.

/// Whether text has a format, as far as the format is one that Kubernetes checks.
pub(super) fn has_format(format: &str, value: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match format {
        "date-time" | "datetime" => value.parse::<jiff::Timestamp>().is_ok(),
        "date" => value.len() == 10 && value.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(value),
        "ipv4" => value.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => value.parse::<Ipv6Addr>().is_ok(),
        "cidr" => value.split_once('/').is_some_and(|(address, bits)| {
            let most = if address.parse::<Ipv4Addr>().is_ok() {
                32
            } else if address.parse::<Ipv6Addr>().is_ok() {
                128
            } else {
                return false;
            };
            bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, value),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD
                .decode(value)
                .is_ok()
        }
        "email" => value
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && is_host(host)),
        "hostname" => is_host(value),
        "uri" => value.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty()
        }),
        "mac" => {
            let separator = if value.contains('-') { '-' } else { ':' };
            let parts: Vec<&str> = value.split(separator).collect();
            matches!(parts.len(), 6 | 8 | 20)
                && parts
                    .iter()
                    .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        _ => true,
    }
}

fn is_host(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 255
        && value.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_uuid(format: &str, value: &str) -> bool {
    let hex: String = value.chars().filter(|c| *c != '-').collect();
    let version = format.strip_prefix("uuid").unwrap_or("");
    hex.len() == 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
        && (version.is_empty() || hex.get(12..13) == Some(version))
}

/// `1h30m` as Go reads it, or a number and a unit in words (`3 days`).
fn is_duration(value: &str) -> bool {
    const UNITS: [&str; 27] = [
        "ns", "us", "µs", "ms", "s", "m", "h", "d", "w", "nano", "nanos", "micro", "micros",
        "milli", "millis", "second", "seconds", "minute", "minutes", "hour", "hours", "day",
        "days", "week", "weeks", "sec", "min",
    ];
    if value == "0" {
        return true;
    }
    let mut rest = value.trim_start_matches(['-', '+']);
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if number.parse::<f64>().is_err() || !UNITS.contains(&unit) {
            return false;
        }
        parts += 1;
        rest = after.trim_start();
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("date", "2026-02-28", "2026-02-30"),
            ("duration", "1h30m", "soon"),
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/40"),
            ("uuid", "11111111-2222-3333-4444-555555555555", "x"),
            ("byte", "aGk=", "%%"),
            ("email", "a@b.c", "a"),
            ("hostname", "a.b", "-a"),
            ("uri", "http://a", "a"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("unknown-format", "anything", ""),
        ] {
            assert!(has_format(format, good), "{format}");
            assert!(bad.is_empty() || !has_format(format, bad), "{format}");
        }
    }
}
