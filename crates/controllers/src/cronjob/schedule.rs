//! The times of a schedule, in its time zone.

use gantry_machinery::validation::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use crate::model::batch::CronJobSpec;

/// Years after which a schedule without a time (30 February) is given up.
const YEARS: i16 = 5;

/// A schedule and the time zone that it is read in.
#[derive(Debug, Clone)]
pub struct Times {
    schedule: Schedule,
    zone: TimeZone,
}

/// Why a CronJob has no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTimes {
    #[error("invalid timeZone: {zone:?}: unknown time zone {zone}")]
    Zone { zone: String },
    #[error("unparseable schedule: {schedule:?} : {why}")]
    Schedule { schedule: String, why: String },
}

impl Times {
    pub fn of(spec: &CronJobSpec) -> Result<Self, NoTimes> {
        let zone = zone(spec)?;
        let unreadable = |why| NoTimes::Schedule {
            schedule: spec.schedule.clone(),
            why,
        };
        let schedule = Schedule::parse(&spec.schedule).map_err(unreadable)?;
        let zone = match &schedule.zone {
            None => zone,
            Some(own) => TimeZone::get(own).map_err(|_| {
                unreadable(format!(
                    "provided bad location {own}: unknown time zone {own}"
                ))
            })?,
        };
        Ok(Times { schedule, zone })
    }

    /// The first time after `after`; `None` if there is none in the next years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = after.as_second();
        if let Some(every) = self.schedule.every {
            let every = i64::try_from(every.as_secs()).ok()?;
            return Timestamp::from_second(second.checked_add(every)?).ok();
        }
        // Times are whole minutes.
        let minute = second.div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let start = Timestamp::from_second(minute).ok()?;
        let mut at = start.to_zoned(self.zone.clone());
        let last_year = at.year().saturating_add(YEARS);
        while at.year() <= last_year {
            at = if !has(self.schedule.months, at.month()) {
                let month = at.first_of_month().ok()?;
                month.checked_add(1.month()).ok()?.start_of_day().ok()?
            } else if !self.day_matches(&at) {
                at.tomorrow().ok()?.start_of_day().ok()?
            } else if !has(self.schedule.hours, at.hour()) {
                // An hour of elapsed time: one that the clocks skip is skipped, and one that they
                // repeat comes twice.
                let minutes_left = 60 - i64::from(at.minute());
                at.checked_add(SignedDuration::from_mins(minutes_left))
                    .ok()?
            } else if !has(self.schedule.minutes, at.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }

    fn day_matches(&self, at: &Zoned) -> bool {
        let day = has(self.schedule.days, at.day());
        let weekday = has(self.schedule.weekdays, at.weekday().to_sunday_zero_offset());
        if self.schedule.any_day || self.schedule.any_weekday {
            day && weekday
        } else {
            day || weekday
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|n| bits & 1_u64.checked_shl(n).unwrap_or(0) != 0)
}

/// The time zone that a CronJob names.
fn zone(spec: &CronJobSpec) -> Result<TimeZone, NoTimes> {
    match spec.time_zone.as_deref() {
        None | Some("") => Ok(TimeZone::UTC),
        Some(zone) => TimeZone::get(zone).map_err(|_| NoTimes::Zone { zone: zone.into() }),
    }
}

/// A time as the Jobs of this CronJob are annotated with it: in its time zone.
pub fn stamp(spec: &CronJobSpec, at: Timestamp) -> String {
    let zone = zone(spec).unwrap_or(TimeZone::UTC);
    let at = at.to_zoned(zone);
    if at.offset().seconds() == 0 {
        at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn spec(schedule: &str, zone: &str) -> CronJobSpec {
        CronJobSpec {
            schedule: schedule.into(),
            time_zone: (!zone.is_empty()).then(|| zone.into()),
            ..CronJobSpec::default()
        }
    }

    const NEW_YORK: &str = "America/New_York";

    #[rstest]
    #[case::next_minute("* * * * *", "", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z")]
    #[case::within_the_minute("* * * * *", "", "2026-01-01T00:00:59.9Z", "2026-01-01T00:01:00Z")]
    #[case::step("*/15 * * * *", "", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z")]
    #[case::day_of_week("0 9 * * MON-FRI", "", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z")]
    #[case::either_day("0 0 13 * FRI", "", "2026-01-10T00:00:00Z", "2026-01-13T00:00:00Z")]
    #[case::both_days("0 0 */2 * FRI", "", "2026-01-03T00:00:00Z", "2026-01-05T00:00:00Z")]
    #[case::over_the_year("@yearly", "", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")]
    #[case::leap_day("0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z")]
    #[case::weekly("@weekly", "", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z")]
    #[case::every("@every 90m", "", "2026-01-01T00:00:00.5Z", "2026-01-01T01:30:00Z")]
    #[case::zone(
        "0 9 * * *",
        "Asia/Tokyo",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z"
    )]
    #[case::own_zone(
        "TZ=Asia/Tokyo 0 9 * * *",
        "",
        "2026-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z"
    )]
    #[case::half_hour_zone(
        "0 9 * * *",
        "Asia/Kolkata",
        "2026-01-01T00:00:00Z",
        "2026-01-01T03:30:00Z"
    )]
    #[case::skipped_by_the_clocks(
        "30 2 * * *",
        NEW_YORK,
        "2026-03-07T12:00:00Z",
        "2026-03-09T06:30:00Z"
    )]
    #[case::after_the_skip("0 3 * * *", NEW_YORK, "2026-03-07T12:00:00Z", "2026-03-08T07:00:00Z")]
    #[case::first_of_two("30 1 * * *", NEW_YORK, "2026-10-31T12:00:00Z", "2026-11-01T05:30:00Z")]
    #[case::second_of_two("30 1 * * *", NEW_YORK, "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z")]
    #[case::day_after("30 1 * * *", NEW_YORK, "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z")]
    fn next(
        #[case] schedule: &str,
        #[case] zone: &str,
        #[case] after: Timestamp,
        #[case] expected: Timestamp,
    ) {
        let times = Times::of(&spec(schedule, zone)).unwrap();
        assert_eq!(times.next(after), Some(expected));
    }

    #[test]
    fn a_day_that_never_comes_has_no_time() {
        let times = Times::of(&spec("0 0 30 2 *", "")).unwrap();
        assert_eq!(times.next(Timestamp::UNIX_EPOCH), None);
    }

    #[rstest]
    #[case(
        "often",
        "",
        "unparseable schedule: \"often\" : expected exactly 5 fields, found 1: [often]"
    )]
    #[case(
        "* * * * *",
        "Mars/Base",
        "invalid timeZone: \"Mars/Base\": unknown time zone Mars/Base"
    )]
    #[case(
        "TZ=Mars/Base * * * * *",
        "",
        "unparseable schedule: \"TZ=Mars/Base * * * * *\" : provided bad location Mars/Base: unknown time zone Mars/Base"
    )]
    fn refuses(#[case] schedule: &str, #[case] zone: &str, #[case] why: &str) {
        assert_eq!(
            Times::of(&spec(schedule, zone)).unwrap_err().to_string(),
            why
        );
    }

    #[rstest]
    #[case("", "2026-07-01T00:00:00Z")]
    #[case("Asia/Tokyo", "2026-07-01T09:00:00+09:00")]
    #[case("Europe/London", "2026-07-01T01:00:00+01:00")]
    fn stamps(#[case] zone: &str, #[case] expected: &str) {
        let at = "2026-07-01T00:00:00Z".parse().unwrap();
        assert_eq!(stamp(&spec("* * * * *", zone), at), expected);
    }
}
