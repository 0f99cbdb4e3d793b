//! The five fields of a cron schedule, as CronJobs take them.

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
        let text = match text.strip_prefix("TZ=").or(text.strip_prefix("CRON_TZ=")) {
            Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest).trim(),
            None => text,
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
                return Schedule::every(&other[7..]);
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
        let any = |field: &str| field.split(',').any(|p| p.starts_with(['*', '?']));
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
        })
    }

    /// `@every 90m` has no calendar; it is taken as due at any minute.
    fn every(duration: &str) -> Result<Schedule, String> {
        let good = !duration.is_empty()
            && duration.starts_with(|c: char| c.is_ascii_digit())
            && duration.ends_with(['h', 'm', 's']);
        if !good {
            return Err(format!(
                "failed to parse duration @every {duration}: time: invalid duration \"{duration}\""
            ));
        }
        Ok(Schedule {
            minutes: u64::MAX,
            hours: u64::MAX,
            days: u64::MAX,
            months: u64::MAX,
            weekdays: u64::MAX,
            any_day: true,
            any_weekday: true,
        })
    }
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
