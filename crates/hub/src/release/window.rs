//! Change windows: is one open, and if not, when does one open?

use gantry_api::window::{Day, Window};
use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};

/// Whether a window of `windows` is open at `now`. `Err` says why not, and when one opens next.
pub fn open(windows: &[Window], now: Timestamp) -> Result<(), (String, Option<Timestamp>)> {
    if windows.is_empty() {
        return Ok(());
    }
    let mut next: Option<Timestamp> = None;
    for window in windows {
        for (begin, end) in around(window, now).map_err(|why| (why, None))? {
            if begin <= now && now < end {
                return Ok(());
            }
            if begin > now && next.is_none_or(|n| begin < n) {
                next = Some(begin);
            }
        }
    }
    let zone = windows[0].time_zone.as_str();
    let zone = if zone.is_empty() { "UTC" } else { zone };
    let when = match next {
        Some(at) => match at.in_tz(zone) {
            Ok(at) => format!("opens {} {zone}", at.strftime("%a %d %b %H:%M")),
            Err(_) => format!("opens {at}"),
        },
        None => "does not open within a week".to_owned(),
    };
    Err((format!("outside of the change window, which {when}"), next))
}

/// The times at which `window` is open, from yesterday's until that of a week from now.
fn around(window: &Window, now: Timestamp) -> Result<Vec<(Timestamp, Timestamp)>, String> {
    let zone = match window.time_zone.as_str() {
        "" => TimeZone::UTC,
        name => TimeZone::get(name)
            .map_err(|_| format!("the change window's time zone {name} is not known here"))?,
    };
    let (from, until) = (minutes(&window.from)?, minutes(&window.until)?);
    let length = if until > from {
        until - from
    } else {
        until + 24 * 60 - from
    };
    let today = now.to_zoned(zone.clone()).date();
    let mut open = Vec::new();
    for offset in -1..=7i64 {
        let Ok(date) = today.checked_add(offset.days()) else {
            continue;
        };
        if !window.days.is_empty() && !window.days.contains(&day(date)) {
            continue;
        }
        // By the clock on the wall: on the day of a time change a window is an hour longer or shorter.
        let start = date.at((from / 60) as i8, (from % 60) as i8, 0, 0);
        let at = |time: civil::DateTime| time.to_zoned(zone.clone()).ok().map(|z| z.timestamp());
        let end = start.checked_add(length.minutes()).ok();
        if let (Some(begin), Some(end)) = (at(start), end.and_then(at)) {
            open.push((begin, end));
        }
    }
    Ok(open)
}

fn minutes(text: &str) -> Result<i64, String> {
    let number = |part: &str| part.parse::<i64>().ok();
    text.split_once(':')
        .and_then(|(h, m)| Some((number(h)?, number(m)?)))
        .filter(|(h, m)| (0..=24).contains(h) && (0..60).contains(m))
        .map(|(h, m)| h * 60 + m)
        .ok_or_else(|| format!("{text:?} is not a time of day such as 09:00"))
}

fn day(date: civil::Date) -> Day {
    match date.weekday() {
        civil::Weekday::Monday => Day::Mon,
        civil::Weekday::Tuesday => Day::Tue,
        civil::Weekday::Wednesday => Day::Wed,
        civil::Weekday::Thursday => Day::Thu,
        civil::Weekday::Friday => Day::Fri,
        civil::Weekday::Saturday => Day::Sat,
        civil::Weekday::Sunday => Day::Sun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[Day], from: &str, until: &str) -> Window {
        Window {
            days: days.to_vec(),
            from: from.into(),
            until: until.into(),
            time_zone: String::new(),
        }
    }

    #[test]
    fn hours_of_the_week() {
        use Day::{Fri, Mon};
        // 2026-11-20 is a Friday.
        let office = [window(&[Mon, Fri], "09:00", "17:30")];
        let night = [window(&[Fri], "22:00", "02:00")];
        let late = [window(&[], "22:00", "24:00")];
        for (windows, now, opens) in [
            (&office, "2026-11-20T09:00:00Z", None),
            (&office, "2026-11-20T17:29:59Z", None),
            (
                &office,
                "2026-11-20T17:30:00Z",
                Some("2026-11-23T09:00:00Z"),
            ),
            (
                &office,
                "2026-11-20T08:00:00Z",
                Some("2026-11-20T09:00:00Z"),
            ),
            (&night, "2026-11-21T01:59:00Z", None),
            (&night, "2026-11-21T02:00:00Z", Some("2026-11-27T22:00:00Z")),
            (&late, "2026-11-21T23:59:59Z", None),
            (&late, "2026-11-22T00:00:00Z", Some("2026-11-22T22:00:00Z")),
        ] {
            let got = open(windows, now.parse().unwrap());
            match opens {
                None => assert_eq!(got, Ok(()), "{now}"),
                Some(at) => {
                    assert_eq!(got.unwrap_err().1, Some(at.parse().unwrap()), "{now}");
                }
            }
        }
        assert_eq!(open(&[], Timestamp::UNIX_EPOCH), Ok(()));
        let (why, _) = open(&office, "2026-11-20T18:00:00Z".parse().unwrap()).unwrap_err();
        assert_eq!(
            why,
            "outside of the change window, which opens Mon 23 Nov 09:00 UTC"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_open() {
        let mut odd = window(&[], "09:00", "17:00");
        odd.time_zone = "Middle/Earth".into();
        assert!(open(&[odd], Timestamp::UNIX_EPOCH).is_err());
        assert!(open(&[window(&[], "9 o'clock", "17:00")], Timestamp::UNIX_EPOCH).is_err());
    }
}
