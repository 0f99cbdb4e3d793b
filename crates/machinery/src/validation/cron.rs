//! The five fields of a cron schedule, as CronJobs take them.

use std::time::Duration;

/// A parsed schedule: one bit per value of each field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    pub months: u64,
    pub weekdays: u64,
    /// Day of month given as `*` or `?`: then only the weekday counts, and the other way round.
    pub any_day: bool,
    pub any_weekday: bool,
    /// Given as `@every`: that long from one time to the next, and the fields say nothing.
    pub every: Option<Duration>,
    /// The time zone of a leading `TZ=` or `CRON_TZ=`.
    pub zone: Option<String>,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
    first_name: u32,
}

impl Schedule {
    /// Parses `minute hour day month weekday` or `@hourly` and its like. The error is the text that
    /// Kubernetes shows.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let (zone, text) = match text.strip_prefix("TZ=").or(text.strip_prefix("CRON_TZ=")) {
            Some(rest) => {
                let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (Some(zone.to_owned()), rest.trim())
            }
            None => (None, text),
        };
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other if other.starts_with("@every ") => {
                return Schedule::every(&other[7..], zone);
            }
            other if other.starts_with('@') => {
                return Err(format!("unrecognized descriptor: {other}"));
            }
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        // With a step it is a list of days like any other.
        let any = |field: &str| {
            field
                .split(',')
                .any(|p| matches!(p, "*" | "?" | "*/1" | "?/1"))
        };
        Ok(Schedule {
            minutes: field(minute, &plain(0, 59))?,
            hours: field(hour, &plain(0, 23))?,
            days: field(day, &plain(1, 31))?,
            months: field(
                month,
                &Bounds {
                    low: 1,
                    high: 12,
                    names: &MONTHS,
                    first_name: 1,
                },
            )?,
            weekdays: field(
                weekday,
                &Bounds {
                    low: 0,
                    high: 6,
                    names: &WEEKDAYS,
                    first_name: 0,
                },
            )?,
            any_day: any(day),
            any_weekday: any(weekday),
            every: None,
            zone,
        })
    }

    /// `@every 90m` has no calendar: times are that long apart, in whole seconds, and at least one.
    fn every(text: &str, zone: Option<String>) -> Result<Schedule, String> {
        let Some(nanoseconds) = go_duration(text) else {
            return Err(format!(
                "failed to parse duration @every {text}: time: invalid duration {}",
                super::errors::quote(text)
            ));
        };
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0);
        Ok(Schedule {
            minutes: u64::MAX,
            hours: u64::MAX,
            days: u64::MAX,
            months: u64::MAX,
            weekdays: u64::MAX,
            any_day: true,
            any_weekday: true,
            every: Some(Duration::from_secs(seconds.max(1))),
            zone,
        })
    }
}

/// Nanoseconds of a duration as Go writes it: `1h30m`, `1.5s`, `-2ms`.
fn go_duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            total += i128::from(digit - b'0') * place;
        }
        // What Go cannot hold it refuses.
        i64::try_from(total).ok()?;
        rest = tail;
    }
    Some(sign * total)
}

fn plain(low: u32, high: u32) -> Bounds {
    Bounds {
        low,
        high,
        names: &[],
        first_name: 0,
    }
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',').filter(|p| !p.is_empty()) {
        bits |= range(part, bounds)?;
    }
    Ok(bits)
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let pieces: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let single = ends.len() == 1;
    let (low, mut high);
    if matches!(ends[0], "*" | "?") {
        (low, high) = (bounds.low, bounds.high);
    } else {
        low = number(ends[0], bounds)?;
        high = match ends.as_slice() {
            [_] => low,
            [_, high] => number(high, bounds)?,
            _ => return Err(format!("too many hyphens: {text}")),
        };
    }
    let step = match pieces.as_slice() {
        [_] => 1,
        [_, step] => {
            // `N/step` is from N to the end.
            if single && !matches!(ends[0], "*" | "?") {
                high = bounds.high;
            }
            digits(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if low < bounds.low {
        return Err(format!(
            "beginning of range ({low}) below minimum ({}): {text}",
            bounds.low
        ));
    }
    if high > bounds.high {
        return Err(format!(
            "end of range ({high}) above maximum ({}): {text}",
            bounds.high
        ));
    }
    if low > high {
        return Err(format!(
            "beginning of range ({low}) beyond end of range ({high}): {text}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok((low..=high)
        .step_by(step as usize)
        .fold(0, |bits, n| bits | 1 << n))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(i) = bounds.names.iter().position(|n| *n == lower) {
        return Ok(i as u32 + bounds.first_name);
    }
    digits(text)
}

fn digits(text: &str) -> Result<u32, String> {
    text.parse::<i64>()
        .map_err(|_| {
            format!(
                "failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax",
                super::errors::quote(text)
            )
        })
        .and_then(|n| {
            u32::try_from(n).map_err(|_| format!("negative number ({n}) not allowed: {text}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let s = Schedule::parse("*/15 0 1,15 jan-mar MON").expect("schedule");
        assert_eq!(s.minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!((s.hours, s.days), (1, 1 << 1 | 1 << 15));
        assert_eq!((s.months, s.weekdays), (0b1110, 0b10));
        assert!(!s.any_day && !s.any_weekday);
        assert!(Schedule::parse("@hourly").is_ok());
        let s = Schedule::parse("TZ=Asia/Tokyo 0 0 */2 * ?").expect("schedule");
        assert_eq!(s.zone.as_deref(), Some("Asia/Tokyo"));
        assert!(!s.any_day && s.any_weekday);
        for (text, seconds) in [
            ("@every 1h30m", Some(5400)),
            ("@every 1.5s", Some(1)),
            ("@every 90s500ms", Some(90)),
            ("@every -5m", Some(1)),
            ("@every 5", None),
            ("@every 5x", None),
            ("@every h", None),
        ] {
            let every = Schedule::parse(text).ok().and_then(|s| s.every);
            assert_eq!(every.map(|e| e.as_secs()), seconds, "{text}");
        }
        for (text, error) in [
            ("often", "expected exactly 5 fields, found 1: [often]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(Schedule::parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
